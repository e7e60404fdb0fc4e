//! Futexes: sleeping on a word of user memory until somebody says that it changed.
//!
//! Process context. A waiter is on the list of its key's bucket before it looks at the word, so that a wake-up between the look and
//! the sleep is not lost. Source: futex(2); Linux include/uapi/linux/futex.h.

use super::priority_futex::{self, OWNER_DIED, Step, TID_MASK, WAITERS};
use super::task::Task;
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::USER_END;
use crate::errno::{EAGAIN, EFAULT, EINTR, EINVAL, ERESTARTSYS, ETIMEDOUT, Errno, SysResult};
use crate::mm::user_copy;
use crate::process::{Thread, current_thread};
use crate::spin_lock::{PreemptOff, SpinLock, rank};
use crate::time::wall::{self, Limit};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use kcore::futex_op::FutexOp;
use kcore::run_queue::Class;

/// Which word: the address space or shared memory, and the place in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    space: usize,
    at: u64,
}

/// On the waiter's stack: bucket number + 1 while it is on a list, 0 once it was taken off.
struct Node(AtomicUsize);

impl Node {
    #[inline(always)]
    fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }
}

/// The node of a waiter for a requeue (`wait_requeue`): with the lock that it wants to go on to.
#[repr(C)]
struct RequeueNode {
    node: Node,
    to: Key,
}

struct Waiter {
    key: Key,
    /// 0: the node is the first part of a `RequeueNode`. No wake-up asks for no bit.
    bitset: u32,
    /// Waits, and so lives, while this is on a list.
    task: *const Task,
    node: *const Node,
}
// SAFETY: 1. the node is an atomic; it lives until it is 0, which is set under the bucket's lock as the last access; 2. tasks are shared.
unsafe impl Send for Waiter {}

const BUCKETS: usize = 64;
type Bucket = SpinLock<Vec<Waiter>, { rank::WAIT_QUEUE }>;
static TABLE: [Bucket; BUCKETS] = [const { SpinLock::new(Vec::new()) }; BUCKETS];
/// A bucket keeps room for so many waiters, from `init` on. What a crowd needs beyond that goes back with the last of it, so that memory in use
/// after a load is what it was before.
const ROOM: usize = 4;

/// The room that buckets keep. Boot, process context.
pub fn init() {
    TABLE.iter().for_each(|bucket| bucket.lock().reserve_exact(ROOM));
}

/// Before those of lower classes and FIFO priorities, behind its equals: a wake-up takes the first.
fn enlist(list: &mut Vec<Waiter>, waiter: Waiter) {
    // SAFETY: who is on a list waits, and so lives; `waiter` is about to be.
    let node = |w: &Waiter| unsafe { &(*w.task).run };
    let at = match node(&waiter).class() {
        Class::Fifo(_) => list.iter().position(|w| node(w).class_rank() < node(&waiter).class_rank()),
        Class::Fair | Class::Idle => None,
    };
    list.insert(at.unwrap_or(list.len()), waiter);
}

/// The list has lost a waiter.
#[inline(always)]
fn give_back(list: &mut Vec<Waiter>) {
    if list.capacity() <= ROOM {
        return;
    }
    core::hint::cold_path();
    if list.is_empty() {
        let mut room = Vec::new();
        // Where there is no memory, the list keeps what it has.
        if room.try_reserve_exact(ROOM).is_ok() {
            *list = room;
        }
    }
}

impl Key {
    #[inline(always)]
    fn bucket(self) -> usize {
        let mixed = (self.at ^ self.space as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 58) as usize
    }
}

#[inline(always)]
pub(super) fn key_of(address: u64, private: bool) -> Result<Key, Errno> {
    if !address.is_multiple_of(4) {
        return Err(EINVAL);
    }
    if address >= USER_END {
        return Err(EFAULT);
    }
    let space = current_thread().address_space().ok_or(EFAULT)?;
    if !private && let Some((memory, at)) = space.shared_key(address) {
        return Ok(Key { space: memory, at });
    }
    Ok(Key { space: alloc::sync::Arc::as_ptr(space) as usize, at: address })
}

/// Take a waiter off its list. False if a waker did already.
fn take_off(node: &Node) -> bool {
    loop {
        let at = node.0.load(Ordering::Acquire);
        if at == 0 {
            return false;
        }
        let mut list = TABLE[at - 1].lock();
        if let Some(i) = list.iter().position(|w| core::ptr::eq(w.node, node)) {
            list.remove(i);
            give_back(&mut list);
            node.0.store(0, Ordering::Release);
            return true;
        }
        // Gone meanwhile, or on its way to another list (`requeue`, which cannot be preempted there).
        drop(list);
        core::hint::spin_loop();
    }
}

/// FUTEX_WAIT: sleep while the word at `address` is `expected`, until a wake-up whose bits meet `bitset`, a signal, or
/// `limit`.
#[inline(always)]
pub fn wait(address: u64, private: bool, expected: u32, bitset: u32, limit: Option<Limit>) -> SysResult {
    if bitset == 0 {
        return Err(EINVAL);
    }
    let key = key_of(address, private)?;
    let me = super::current();
    let node = Node(AtomicUsize::new(key.bucket() + 1));
    enlist(&mut TABLE[key.bucket()].lock(), Waiter { key, bitset, task: me, node: &node });
    look_and_sleep(me, &node, address, expected, limit)
}

/// FUTEX_WAIT of a private word without bits and limit, for a system call that returns at once, with interrupts on or off: usually all of it is one
/// stretch with interrupts off, and then a waker has ended it. What else became of it is `otherwise`.
#[inline(always)]
pub fn wait_from_user(address: u64, expected: u32, otherwise: impl Fn(SysResult) -> i64) -> i64 {
    let key = match key_of(address, true) {
        Ok(key) => key,
        Err(error) => return otherwise(Err(error)),
    };
    let me = super::current();
    let node = Node(AtomicUsize::new(key.bucket() + 1));
    let waiter = Waiter { key, bitset: u32::MAX, task: me, node: &node };
    let irq_off = IrqOff::from_on();
    match TABLE[key.bucket()].try_lock_held(&irq_off) {
        Some(mut list) if list.is_empty() && list.capacity() != 0 => list.push(waiter),
        busy => {
            drop(busy);
            drop(irq_off);
            enlist(&mut TABLE[key.bucket()].lock(), waiter);
            return otherwise(look_and_sleep(me, &node, address, expected, None));
        }
    }
    if !user_copy::word_is(address, expected) {
        drop(irq_off);
        return otherwise(look_and_sleep(me, &node, address, expected, None));
    }
    me.state.prepare_sleep(true);
    if node.is_waiting() && !me.signal_pending.load(Ordering::SeqCst) {
        let irq_off = super::schedule_off(irq_off);
        if !node.is_waiting() {
            irq_off.stay_off();
            return 0;
        }
        drop(irq_off);
    } else {
        me.state.cancel_sleep();
        drop(irq_off);
    }
    otherwise(sleep(me, &node, None))
}

/// The rest of a wait, the waiter being on its list.
#[inline(never)]
fn look_and_sleep(me: &Task, node: &Node, address: u64, expected: u32, limit: Option<Limit>) -> SysResult {
    match user_copy::read_word(address) {
        Ok(value) if value == expected => sleep(me, node, limit),
        // Taken off by a waker meanwhile: that counts as woken.
        value => match (take_off(node), value) {
            (true, Err(_)) => Err(EFAULT),
            (true, Ok(_)) => Err(EAGAIN),
            (false, _) => Ok(0),
        },
    }
}

/// Sleep until a waker has taken the waiter off its list, or there is another reason to end.
#[inline(never)]
fn sleep(me: &Task, node: &Node, limit: Option<Limit>) -> SysResult {
    let _follows = wall::follow(me, limit);
    let early = loop {
        me.state.prepare_sleep(true);
        if !node.is_waiting() {
            me.state.cancel_sleep();
            return Ok(0);
        }
        if me.signal_pending.load(Ordering::SeqCst) {
            me.state.cancel_sleep();
            // A time limit would start anew.
            break if limit.is_some() { EINTR } else { ERESTARTSYS };
        }
        match limit {
            Some(limit) if limit.is_past() => {
                me.state.cancel_sleep();
                break ETIMEDOUT;
            }
            Some(limit) => crate::time::timer::sleep_until(me, limit.tsc()),
            None => super::schedule(),
        }
        if !node.is_waiting() {
            return Ok(0);
        }
    };
    if take_off(node) { Err(early) } else { Ok(0) }
}

#[inline(always)]
fn wake_in(list: &mut Vec<Waiter>, key: Key, most: usize, bitset: u32) -> usize {
    let mut woken = 0;
    let mut i = 0;
    while i < list.len() && woken < most {
        if list[i].key == key && list[i].bitset & bitset != 0 {
            // The last one, usually the only one, leaves without a move of others.
            let waiter = if i + 1 == list.len() { list.pop() } else { Some(list.remove(i)) };
            let Some(waiter) = waiter else { break };
            // SAFETY: on the list, under its lock: the node lives, and this is the last access to it.
            unsafe { (*waiter.node).0.store(0, Ordering::Release) };
            // SAFETY: 1. it waited until now; 2. with the list locked this is a reader, and a task is freed a grace period after its end.
            super::wake_held(unsafe { &*waiter.task }, &IrqOff::from_on());
            woken += 1;
        } else {
            i += 1;
        }
    }
    give_back(list);
    woken
}

/// FUTEX_WAKE: wake at most `most` waiters whose bits meet `bitset`; how many.
#[inline(always)]
pub fn wake(address: u64, private: bool, most: usize, bitset: u32) -> SysResult {
    if bitset == 0 {
        return Err(EINVAL);
    }
    wake_some(key_of(address, private)?, most, bitset)
}

/// FUTEX_WAKE of a private word without bits, for a system call that returns at once, with interrupts on or off.
#[inline(always)]
pub fn wake_from_user(address: u64, most: usize) -> SysResult {
    let key = key_of(address, true)?;
    let irq_off = IrqOff::from_on();
    if wake_only(key, &irq_off) {
        if crate::percpu::is_preemption_due() {
            // At once: the way out would come to it later, and go by the whole frame then.
            core::hint::cold_path();
            drop(irq_off);
            crate::percpu::preempt_point();
        } else {
            irq_off.stay_off();
        }
        return Ok(1);
    }
    drop(irq_off);
    wake_some(key, most, u32::MAX)
}

/// Wake the waiter for `key` if nobody else is in its bucket, as is usual: whether it did.
#[inline(always)]
fn wake_only(key: Key, irq_off: &IrqOff) -> bool {
    let Some(mut list) = TABLE[key.bucket()].try_lock_held(irq_off) else { return false };
    let [Waiter { key: its_key, bitset, task, node }] = **list else { return false };
    if its_key != key || bitset == 0 || list.capacity() > ROOM {
        return false;
    }
    list.clear();
    // SAFETY: it was on the list, under its lock: the node lives, and this is the last access to it.
    unsafe { (*node).0.store(0, Ordering::Release) };
    // SAFETY: 1. it waited until now; 2. with interrupts off this is a reader, and a task is freed a grace period after its end.
    super::wake_held(unsafe { &*task }, irq_off);
    true
}

#[inline(never)]
fn wake_some(key: Key, most: usize, bitset: u32) -> SysResult {
    let mut list = TABLE[key.bucket()].lock();
    match wake_in(&mut list, key, most, bitset) {
        0 if is_for_a_lock(&list, key) => Err(EINVAL),
        woken => Ok(woken as u64),
    }
}

/// FUTEX_WAKE_OP: change the word at `to`, wake at most `most` waiters of the one at `address`, and at most `most_at_to` of the
/// changed one if its old value fulfils the comparison. Returns how many were woken.
pub fn wake_op(address: u64, to: u64, private: bool, most: usize, most_at_to: usize, op: FutexOp) -> SysResult {
    let (key, to_key) = (key_of(address, private)?, key_of(to, private)?);
    let mut old = user_copy::read_word(to)?;
    loop {
        match user_copy::exchange_word(to, old, op.apply(old))? {
            found if found == old => break,
            found => old = found,
        }
    }
    let woken = wake_some(key, most, u32::MAX)?;
    if op.holds(old) { Ok(woken + wake_some(to_key, most_at_to, u32::MAX)?) } else { Ok(woken) }
}

/// FUTEX_REQUEUE and FUTEX_CMP_REQUEUE: wake at most `most`, let at most `move_most` others wait for the word at `to`. With `expected`
/// EAGAIN if the word is another. Returns how many were woken and moved.
pub fn requeue(
    address: u64,
    to: u64,
    private: bool,
    most: usize,
    move_most: usize,
    expected: Option<u32>,
) -> SysResult {
    let (from_key, to_key) = (key_of(address, private)?, key_of(to, private)?);
    if let Some(expected) = expected
        && user_copy::read::<u32>(address)? != expected
    {
        return Err(EAGAIN);
    }
    let (a, b) = (from_key.bucket(), to_key.bucket());
    let mut moved: Vec<Waiter> = Vec::new();
    let _not_preempted = PreemptOff::new();
    let mut woken;
    {
        let mut list = TABLE[a].lock();
        if waits_for_requeue(&list, from_key) {
            return Err(EINVAL);
        }
        woken = wake_in(&mut list, from_key, most, u32::MAX);
        if woken == 0 && !list.iter().any(|w| w.key == from_key) && priority_futex::is_waited_for(from_key) {
            return Err(EINVAL);
        }
        let mut count = 0;
        if a == b {
            for waiter in list.iter_mut().filter(|w| w.key == from_key).take(move_most) {
                waiter.key = to_key;
                count += 1;
            }
            return Ok((woken + count) as u64);
        }
        let mut i = 0;
        while i < list.len() && moved.len() < move_most {
            if list[i].key == from_key {
                moved.push(list.remove(i));
            } else {
                i += 1;
            }
        }
        give_back(&mut list);
        // Off every list for a moment: `take_off` looks at the new one until they are there.
        for waiter in &moved {
            // SAFETY: the node lives until it is 0, which only who finds the waiter on a list makes it.
            unsafe { (*waiter.node).0.store(b + 1, Ordering::Release) };
        }
    }
    woken += moved.len();
    let mut list = TABLE[b].lock();
    moved.drain(..).for_each(|w| enlist(&mut list, Waiter { key: to_key, ..w }));
    drop(list);
    Ok(woken as u64)
}

impl Waiter {
    /// The lock that it wants to go on to; then only a requeue is for it. With the lock of its list held.
    fn to(&self) -> Option<Key> {
        if self.bitset != 0 {
            return None;
        }
        // SAFETY: 1. such a node is the first part of a `RequeueNode` (`repr(C)`), see `wait_requeue`; 2. it lives while its waiter is on the list.
        Some(unsafe { (*self.node.cast::<RequeueNode>()).to })
    }
}

/// Whether a waiter for `key` waits for a requeue to a lock.
fn waits_for_requeue(list: &[Waiter], key: Key) -> bool {
    list.iter().any(|w| w.key == key && w.bitset == 0)
}

/// Whether those who wait at `key` wait for a lock with priority inheritance or for a requeue to one: a wake-up is not for them.
#[inline(always)]
fn is_for_a_lock(list: &[Waiter], key: Key) -> bool {
    waits_for_requeue(list, key) || priority_futex::is_waited_for(key)
}

/// Whether somebody sleeps on the word itself: it is no lock with priority inheritance then.
pub(super) fn is_slept_on(key: Key) -> bool {
    TABLE[key.bucket()].lock().iter().any(|w| w.key == key)
}

/// FUTEX_WAIT_REQUEUE_PI: wait for the word at `address` as `wait` does, until somebody lets this task wait for the lock at `to`; returns with that
/// lock. A signal before the requeue restarts the call; after it EAGAIN comes, since the caller waits for something else by then.
pub fn wait_requeue(address: u64, to: u64, private: bool, expected: u32, limit: Option<Limit>) -> SysResult {
    let (key, to_key) = (key_of(address, private)?, key_of(to, private)?);
    if key == to_key {
        return Err(EINVAL);
    }
    let me = super::current();
    let requeue_node = RequeueNode { node: Node(AtomicUsize::new(key.bucket() + 1)), to: to_key };
    let node = &requeue_node.node;
    let waiter = Waiter { key, bitset: 0, task: me, node: (&raw const requeue_node).cast() };
    enlist(&mut TABLE[key.bucket()].lock(), waiter);
    let value = user_copy::read_word(address);
    if value != Ok(expected) && take_off(node) {
        return Err(if value.is_err() { EFAULT } else { EAGAIN });
    }
    let early = priority_futex::sleep(me, limit);
    match early {
        Some(why) if take_off(node) => Err(why),
        Some(ETIMEDOUT) | None => priority_futex::finish(me, to_key, to, early),
        Some(_) => priority_futex::finish(me, to_key, to, Some(EAGAIN)),
    }
}

/// FUTEX_CMP_REQUEUE_PI: the most urgent one who waits for the word at `address` by `wait_requeue` gets the lock at `to` if that is free; with it
/// `move_most` others wait for it from now on. EAGAIN unless the word at `address` is `expected`. Returns how many have or wait for the lock now.
pub fn requeue_to_lock(address: u64, to: u64, private: bool, move_most: usize, expected: u32) -> SysResult {
    let (key, to_key) = (key_of(address, private)?, key_of(to, private)?);
    if key == to_key {
        return Err(EINVAL);
    }
    /// So many are moved under the locks at a time: each takes a look at all of the list.
    const AT_ONCE: usize = 32;
    let mut done = 0;
    loop {
        let _ = user_copy::read_word(address)?;
        let seen = priority_futex::look(to)?;
        let mut list = TABLE[key.bucket()].lock();
        match user_copy::read_word(address) {
            Err(_) => continue,
            Ok(value) if done == 0 && value != expected => return Err(EAGAIN),
            Ok(_) => {}
        }
        let mut graph = priority_futex::GRAPH.lock();
        for _ in 0..AT_ONCE {
            // SAFETY: it waits, and so lives, while it is on the list.
            let priority = |w: &Waiter| unsafe { &*w.task }.run.class_rank();
            // Of equals the first.
            let waiting = list.iter().enumerate().rev().filter(|(_, w)| w.key == key);
            let Some((at, waiter)) = waiting.max_by_key(|(_, w)| priority(w)).filter(|_| done <= move_most) else {
                return Ok(done as u64);
            };
            if waiter.to() != Some(to_key) {
                return Err(EINVAL);
            }
            // SAFETY: 1. it waits until it is off the list; 2. with that locked this is a reader, and a task is freed a grace period after its end.
            let (task, node) = (unsafe { &*waiter.task }, waiter.node);
            let stepped = priority_futex::step(&mut graph, (to_key, to), seen, task, false)?;
            if stepped == Step::Again {
                break;
            }
            list.remove(at);
            give_back(&mut list);
            // SAFETY: it was on the list, under its lock: the node lives. This is the last access: only with `GRAPH` can the task get its lock.
            unsafe { (*node).0.store(0, Ordering::Release) };
            if stepped == Step::Acquired {
                priority_futex::grant(task.index);
            }
            done += 1;
        }
    }
}

/// The running thread ends, or runs another program (`goes_on`): the locks of its robust list are marked as their owner's death, and one waiter
/// each is woken; those with priority inheritance go to who is next.
pub fn leave_locks(thread: &Thread, goes_on: bool) {
    leave_robust_list(thread);
    priority_futex::leave_locks(super::current(), goes_on);
}

fn leave_robust_list(thread: &Thread) {
    const LONGEST: usize = 2048;
    /// In the address of an entry: its lock has priority inheritance.
    const INHERITS: u64 = 1;
    let head = thread.robust_list.swap(0, Ordering::Relaxed);
    if head == 0 {
        return;
    }
    let (Ok(first), Ok(offset)) = (user_copy::read::<u64>(head), user_copy::read::<u64>(head.wrapping_add(8))) else {
        return;
    };
    let pending = user_copy::read::<u64>(head.wrapping_add(16)).unwrap_or(0);
    let died = |entry: u64| {
        let at = (entry & !INHERITS).wrapping_add(offset);
        let Ok(mut word) = user_copy::read_word(at) else { return };
        while word & TID_MASK == thread.tid.load(Ordering::Relaxed) {
            match user_copy::exchange_word(at, word, word & WAITERS | OWNER_DIED) {
                Ok(found) if found == word => {
                    if entry & INHERITS == 0 {
                        let _ = wake(at, false, 1, u32::MAX);
                    }
                    return;
                }
                Ok(found) => word = found,
                Err(_) => return,
            }
        }
    };
    let mut entry = first;
    for _ in 0..LONGEST {
        if entry & !INHERITS == head {
            break;
        }
        let next = user_copy::read::<u64>(entry & !INHERITS);
        if entry & !INHERITS != pending & !INHERITS {
            died(entry);
        }
        match next {
            Ok(n) => entry = n,
            Err(_) => break,
        }
    }
    if pending != 0 {
        died(pending);
    }
}

//! Futexes: sleeping on a word of user memory until somebody says that it changed.
//!
//! Process context. A waiter is on the list of its key's bucket before it looks at the word, so that a wake-up between the look and
//! the sleep is not lost. Source: futex(2); Linux include/uapi/linux/futex.h.

use super::task::Task;
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::USER_END;
use crate::arch::tsc;
use crate::errno::{EAGAIN, EFAULT, EINTR, EINVAL, ERESTARTSYS, ETIMEDOUT, Errno, SysResult};
use crate::mm::user_copy;
use crate::process::{Thread, current_thread};
use crate::spin_lock::{PreemptOff, SpinLock, rank};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use kcore::futex_op::FutexOp;

/// Which word: the address space or shared memory, and the place in it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    space: usize,
    at: u64,
}

/// On the waiter's stack: bucket number + 1 while it is on a list, 0 once it was taken off.
struct Node(AtomicUsize);

struct Waiter {
    key: Key,
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
        let mixed = ((self.at / 4) ^ ((self.space as u64) >> 6)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 58) as usize
    }
}

#[inline(always)]
fn key_of(address: u64, private: bool) -> Result<Key, Errno> {
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
/// `deadline_tsc`.
#[inline(always)]
pub fn wait(address: u64, private: bool, expected: u32, bitset: u32, deadline_tsc: Option<u64>) -> SysResult {
    if bitset == 0 {
        return Err(EINVAL);
    }
    let key = key_of(address, private)?;
    let me = super::current();
    let node = Node(AtomicUsize::new(key.bucket() + 1));
    TABLE[key.bucket()].lock().push(Waiter { key, bitset, task: me, node: &node });
    let value = user_copy::read_word(address);
    if value != Ok(expected) {
        // Taken off by a waker meanwhile: that counts as woken.
        return match (take_off(&node), value) {
            (true, Err(_)) => Err(EFAULT),
            (true, Ok(_)) => Err(EAGAIN),
            (false, _) => Ok(0),
        };
    }
    let early = loop {
        me.state.prepare_sleep(true);
        if node.0.load(Ordering::Acquire) == 0 {
            me.state.cancel_sleep();
            return Ok(0);
        }
        if me.signal_pending.load(Ordering::SeqCst) {
            me.state.cancel_sleep();
            // A time limit would start anew.
            break if deadline_tsc.is_some() { EINTR } else { ERESTARTSYS };
        }
        match deadline_tsc {
            Some(deadline) if tsc::now() >= deadline => {
                me.state.cancel_sleep();
                break ETIMEDOUT;
            }
            Some(deadline) => crate::time::timer::sleep_until(me, deadline),
            None => super::schedule(),
        }
        if node.0.load(Ordering::Acquire) == 0 {
            return Ok(0);
        }
    };
    if take_off(&node) { Err(early) } else { Ok(0) }
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
    let key = key_of(address, private)?;
    Ok(wake_in(&mut TABLE[key.bucket()].lock(), key, most, bitset) as u64)
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
    let mut woken = wake_in(&mut TABLE[key.bucket()].lock(), key, most, u32::MAX);
    if op.holds(old) {
        woken += wake_in(&mut TABLE[to_key.bucket()].lock(), to_key, most_at_to, u32::MAX);
    }
    Ok(woken as u64)
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
        woken = wake_in(&mut list, from_key, most, u32::MAX);
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
    TABLE[b].lock().extend(moved.drain(..).map(|w| Waiter { key: to_key, ..w }));
    Ok(woken as u64)
}

/// A thread ends: the locks of its robust list are marked as their owner's death, and one waiter each is woken.
pub fn thread_ends(thread: &Thread) {
    const OWNER_DIED: u32 = 0x4000_0000;
    const TID_MASK: u32 = 0x3fff_ffff;
    const LONGEST: usize = 2048;
    let head = thread.robust_list.swap(0, Ordering::Relaxed);
    if head == 0 {
        return;
    }
    let (Ok(first), Ok(offset)) = (user_copy::read::<u64>(head), user_copy::read::<u64>(head.wrapping_add(8))) else {
        return;
    };
    let pending = user_copy::read::<u64>(head.wrapping_add(16)).unwrap_or(0);
    let died = |entry: u64| {
        let at = (entry & !1).wrapping_add(offset);
        let Ok(word) = user_copy::read::<u32>(at) else { return };
        if word & TID_MASK == thread.tid.load(Ordering::Relaxed) {
            let _ = user_copy::write(at, &(word & !TID_MASK | OWNER_DIED));
            let _ = wake(at, false, 1, u32::MAX);
        }
    };
    let mut entry = first;
    for _ in 0..LONGEST {
        if entry & !1 == head {
            break;
        }
        let next = user_copy::read::<u64>(entry & !1);
        if entry & !1 != pending & !1 {
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

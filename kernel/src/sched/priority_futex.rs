//! Futexes whose holder inherits the priority of those who wait: the word is 0, or the holder's thread id with FUTEX_WAITERS.
//!
//! Process context. `kcore::priority_inheritance` says who holds, who waits and who inherits; here the word in user memory and the tasks follow it.
//! Invariants, under `GRAPH`:
//! 1. A known lock's word names its holder, has FUTEX_WAITERS, and changes under `GRAPH` alone, unless the lock is not settled: its last
//!    holder has ended, and the new one writes its name itself, since the word may have another address there.
//! 2. A task's `lock_wait` is WAITING while it waits in the graph, and GRANTED or INHERITED_DEAD from the moment on at which it has the lock.
//! 3. No fault is served under `GRAPH`: an access that faults there is undone, made outside, and the step is taken again.
//!
//! Source: futex(2), "Priority-inheritance futexes"; Linux Documentation/locking/pi-futex.rst, include/uapi/linux/futex.h.

use super::futex::{Key, is_slept_on, key_of};
use super::task::{self, Task};
use crate::errno::{EAGAIN, EDEADLK, EFAULT, EINVAL, EPERM, ERESTARTNOINTR, ESRCH, ETIMEDOUT, Errno, SysResult};
use crate::mm::user_copy;
use crate::process::{current_thread, thread_of, tree};
use crate::spin_lock::{SpinLock, rank};
use crate::time::wall::{self, Limit};
use core::sync::atomic::{AtomicU32, Ordering};
use kcore::priority_inheritance::{Change, Inheritance, Priority, Refused};
use kcore::run_queue::Class;

/// Somebody waits in the kernel.
pub(super) const WAITERS: u32 = 0x8000_0000;
/// The holder has ended without unlocking it.
pub(super) const OWNER_DIED: u32 = 0x4000_0000;
/// The holder's thread id.
pub(super) const TID_MASK: u32 = 0x3fff_ffff;

/// Values of `Task::lock_wait`.
mod lock_wait {
    /// It waits for no lock.
    pub const NONE: u32 = 0;
    /// It does.
    pub const WAITING: u32 = 1;
    /// It has got it.
    pub const GRANTED: u32 = 2;
    /// It has got it from a holder that has ended, and has to write its name.
    pub const INHERITED_DEAD: u32 = 3;
}

/// Who waits for whom.
pub(super) type Graph = Inheritance<Key>;
/// All of it. Held for as long as a chain is followed.
pub(super) static GRAPH: SpinLock<Graph, { rank::INHERITANCE }> = SpinLock::new(Inheritance::new());

/// How many tasks wait in it: changes under it.
static WAITING: AtomicU32 = AtomicU32::new(0);

/// Whether somebody waits for the lock `key`. No more than a look while nobody waits for any.
#[inline(always)]
pub(super) fn is_waited_for(key: Key) -> bool {
    WAITING.load(Ordering::Relaxed) != 0 && {
        core::hint::cold_path();
        GRAPH.lock().next(key).is_some()
    }
}

/// What became of a step towards a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It was free.
    Acquired,
    /// The task waits in the graph.
    Waits,
    /// The word has changed, or is not in memory: look again.
    Again,
}

/// What the word said before the lock was taken, and the task that it names.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    word: u32,
    holder: Option<u32>,
}

/// Its priority without what it inherits.
fn own(task: &Task) -> Priority {
    match task.run.own_class() {
        Class::Fifo(priority) => priority,
        _ => 0,
    }
}

fn tid_of(task: &Task) -> u32 {
    thread_of(task).map_or(task.index, |thread| thread.tid.load(Ordering::Relaxed))
}

/// The task of the thread `tid`; a thread that has called execve may have another index. The idle tasks' indices are nobody's id.
fn by_tid(tid: u32) -> Option<u32> {
    if task::with(tid, |t| t.tid() != 0 && tid_of(t) == tid) == Some(true) {
        return Some(tid);
    }
    tree::find_thread(tid).map(|t| t.task)
}

/// The word at `address`, in memory and writable, and whom it names.
pub(super) fn look(address: u64) -> Result<Seen, Errno> {
    let word = user_copy::read_word(address)?;
    let word = user_copy::exchange_word(address, word, word)?;
    let holder = Some(word & TID_MASK).filter(|&tid| tid != 0).and_then(by_tid);
    Ok(Seen { word, holder })
}

/// Whether the word at `address` was `old` and is `new` now.
fn exchanged(address: u64, old: u32, new: u32) -> bool {
    user_copy::exchange_word(address, old, new) == Ok(old)
}

fn apply(changes: &[Change]) {
    for change in changes {
        let _ = task::with(change.task, |t| super::set_inherited(t, change.inherits));
    }
}

/// `waiter` has the lock.
pub(super) fn grant(waiter: u32) {
    grant_as(waiter, lock_wait::GRANTED);
}

fn grant_as(waiter: u32, how: u32) {
    let _ = task::with(waiter, |t| {
        t.lock_wait.store(how, Ordering::Release);
        super::wake(t)
    });
}

/// Take the lock for `waiter` if it is free, else have it wait; with `try_only` EAGAIN instead.
pub(super) fn step(
    graph: &mut Graph,
    (key, address): (Key, u64),
    seen: Seen,
    waiter: &Task,
    try_only: bool,
) -> Result<Step, Errno> {
    let Ok(word) = user_copy::read_word(address) else { return Ok(Step::Again) };
    if (word ^ seen.word) & TID_MASK != 0 {
        return Ok(Step::Again);
    }
    let (named, tid) = (word & TID_MASK, tid_of(waiter));
    let holder = match graph.holder(key) {
        // Its holder has ended and not named the next one, or the next one has not named itself yet.
        Some(known) if !graph.is_settled(key) || (named == 0 && word & OWNER_DIED != 0) => known,
        Some(known) if seen.holder == Some(known) => known,
        Some(_) => return Err(EINVAL),
        None if named == 0 => {
            let taken = exchanged(address, word, word & OWNER_DIED | tid);
            return Ok(if taken { Step::Acquired } else { Step::Again });
        }
        None => seen.holder.ok_or(ESRCH)?,
    };
    if holder == waiter.index {
        return Err(EDEADLK);
    }
    if try_only {
        return Err(EAGAIN);
    }
    if word & WAITERS == 0 && !exchanged(address, word, word | WAITERS) {
        return Ok(Step::Again);
    }
    let holder_own = task::with(holder, |t| match thread_of(t) {
        None => Err(EPERM),
        // It has given away what it held, and will not look again.
        Some(_) if t.locks_left.load(Ordering::Relaxed) => Err(ESRCH),
        Some(_) => Ok(own(t)),
    });
    let holder_own = holder_own.unwrap_or(Err(ESRCH))?;
    match graph.wait(key, (holder, holder_own), (waiter.index, own(waiter))) {
        Ok(changes) => {
            waiter.lock_wait.store(lock_wait::WAITING, Ordering::Relaxed);
            WAITING.fetch_add(1, Ordering::Relaxed);
            apply(&changes);
            Ok(Step::Waits)
        }
        Err(Refused::Deadlock) => Err(EDEADLK),
        Err(Refused::OtherHolder | Refused::Waits) => Err(EINVAL),
    }
}

/// FUTEX_LOCK_PI, FUTEX_LOCK_PI2, and FUTEX_TRYLOCK_PI with `try_only`.
pub fn lock(address: u64, private: bool, try_only: bool, limit: Option<Limit>) -> SysResult {
    let key = key_of(address, private)?;
    let me = super::current();
    loop {
        let seen = look(address)?;
        if seen.holder != Some(me.index) && is_slept_on(key) {
            return Err(EINVAL);
        }
        let stepped = step(&mut GRAPH.lock(), (key, address), seen, me, try_only)?;
        match stepped {
            Step::Acquired => return Ok(0),
            Step::Waits => break,
            // A word that others change all the time.
            Step::Again if me.signal_pending.load(Ordering::SeqCst) => return Err(ERESTARTNOINTR),
            Step::Again => {}
        }
    }
    let early = sleep(me, limit);
    finish(me, key, address, early)
}

/// Sleep until the running task has its lock; None: it has. Else why it sleeps no more.
pub(super) fn sleep(me: &Task, limit: Option<Limit>) -> Option<Errno> {
    let granted = || me.lock_wait.load(Ordering::Acquire) >= lock_wait::GRANTED;
    let _follows = wall::follow(me, limit);
    loop {
        if granted() {
            return None;
        }
        me.state.prepare_sleep(true);
        let early = match limit {
            _ if granted() => None,
            // The call starts anew; its time limit is absolute.
            _ if me.signal_pending.load(Ordering::SeqCst) => Some(ERESTARTNOINTR),
            Some(limit) if limit.is_past() => Some(ETIMEDOUT),
            Some(limit) => {
                crate::time::timer::sleep_until(me, limit.tsc());
                continue;
            }
            None => {
                super::schedule();
                continue;
            }
        };
        me.state.cancel_sleep();
        return early;
    }
}

/// The running task waits no more: it has the lock, or gives up because of `early`.
pub(super) fn finish(me: &Task, key: Key, address: u64, early: Option<Errno>) -> SysResult {
    if let Some(why) = early {
        let mut graph = GRAPH.lock();
        if me.lock_wait.load(Ordering::Relaxed) == lock_wait::WAITING {
            me.lock_wait.store(lock_wait::NONE, Ordering::Relaxed);
            WAITING.fetch_sub(1, Ordering::Relaxed);
            apply(&graph.leave(key, me.index));
            return Err(why);
        }
    }
    if me.lock_wait.swap(lock_wait::NONE, Ordering::Acquire) == lock_wait::INHERITED_DEAD {
        settle(me, key, address)?;
    }
    Ok(0)
}

/// The last holder has ended: the running task writes its name. Where it cannot, the lock goes on to who is next.
fn settle(me: &Task, key: Key, address: u64) -> Result<(), Errno> {
    let new = tid_of(me) | WAITERS | OWNER_DIED;
    loop {
        let seen = look(address);
        let mut graph = GRAPH.lock();
        match seen {
            Ok(seen) if exchanged(address, seen.word, new) => {
                graph.settle(key);
                return Ok(());
            }
            // A word that others change all the time: who has to end does not wait for them.
            Ok(_) if current_thread().process.ending().is_none() => {}
            _ => {
                pass_on(&mut graph, key);
                return Err(EFAULT);
            }
        }
    }
}

/// The lock goes to who is next, who has to write its name.
fn pass_on(graph: &mut Graph, key: Key) {
    if let Some(next) = graph.hand_over(key, false) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        apply(&next.changes);
        grant_as(next.task, lock_wait::INHERITED_DEAD);
    }
}

/// FUTEX_UNLOCK_PI: the most urgent waiter gets the lock.
pub fn unlock(address: u64, private: bool) -> SysResult {
    let key = key_of(address, private)?;
    let me = super::current();
    let tid = current_thread().tid.load(Ordering::Relaxed);
    loop {
        let word = user_copy::read_word(address)?;
        if word & TID_MASK != tid {
            return Err(EPERM);
        }
        let word = user_copy::exchange_word(address, word, word)?;
        let mut graph = GRAPH.lock();
        if graph.holder(key).is_some_and(|holder| holder != me.index) {
            return Err(EINVAL);
        }
        let next = graph.next(key).and_then(|next| task::with(next, tid_of));
        if word & TID_MASK != tid || !exchanged(address, word, next.map_or(0, |next| next | WAITERS)) {
            if me.signal_pending.load(Ordering::SeqCst) {
                return Err(ERESTARTNOINTR);
            }
            continue;
        }
        if let Some(next) = graph.hand_over(key, true) {
            WAITING.fetch_sub(1, Ordering::Relaxed);
            apply(&next.changes);
            grant(next.task);
        }
        return Ok(0);
    }
}

/// The class of `task` has been changed: who waits for it, and whom it waits for, follow.
pub fn class_changed(task: &Task) {
    let mut graph = GRAPH.lock();
    let changes = graph.set_own(task.index, own(task));
    apply(&changes);
}

/// The running task ends, or runs another program (`goes_on`): the locks that it holds and others wait for go to these.
pub(super) fn leave_locks(me: &Task, goes_on: bool) {
    let mut graph = GRAPH.lock();
    me.locks_left.store(!goes_on, Ordering::Relaxed);
    while let Some(key) = graph.held_by(me.index) {
        pass_on(&mut graph, key);
    }
}

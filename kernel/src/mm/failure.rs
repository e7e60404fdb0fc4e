//! Fault injection: the n-th allocation of a task fails, so that one can see what becomes of a program without memory, and of the others.
//!
//! Process context. What counts as an allocation is what can fail: a page frame (`frame::alloc`), memory of the heap that is asked for by
//! a path that has an answer to "none", a kernel stack, and the looks at the reserve (`frame::above_reserve`). These stand for small
//! kernel objects behind them, which cannot fail any more: the heap alone may take what the reserve holds.
//! /proc/PID/fail-nth arms one task (Linux's name and meaning, `FAULT_INJECTION`); `fail_alloc=N` fails the N-th allocation of all
//! programs but the first one, once.

use crate::sched::task::Task;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Armed tasks, and one for `fail_alloc=`: 0 says that nothing fails.
static ARMED: AtomicU32 = AtomicU32::new(0);
/// Allocations of programs until one fails (`fail_alloc=`); 0: none will.
static LEFT: AtomicU64 = AtomicU64::new(0);

/// `fail_alloc=`. Boot CPU, before the first program.
pub fn arm_all(nth: u64) {
    if nth != 0 {
        LEFT.store(nth, Ordering::Relaxed);
        ARMED.fetch_add(1, Ordering::Relaxed);
    }
}

/// A task's own count.
pub struct Countdown(AtomicU32);

impl Countdown {
    /// Nothing fails.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// How many allocations until one fails, that one included; 0: none will.
    pub fn left(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// The `nth` allocation from now on fails; 0: none.
    pub fn arm(&self, nth: u32) {
        if nth != 0 {
            ARMED.fetch_add(1, Ordering::Relaxed);
        }
        if self.0.swap(nth, Ordering::Relaxed) != 0 {
            ARMED.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// One allocation more: whether it is the one. The last one disarms.
    fn strikes(&self) -> bool {
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if before == Ok(1) {
            ARMED.fetch_sub(1, Ordering::Relaxed);
        }
        before == Ok(1)
    }
}

impl Drop for Countdown {
    fn drop(&mut self) {
        self.arm(0);
    }
}

/// Whether this allocation of the running task is to fail.
#[inline(always)]
pub fn strikes() -> bool {
    ARMED.load(Ordering::Relaxed) != 0 && counted()
}

#[cold]
#[inline(never)]
fn counted() -> bool {
    // The first program is never struck by `fail_alloc=`: its end is the machine's.
    let Some(thread) = crate::process::try_current_thread() else { return false };
    let task: &Task = crate::sched::current();
    if task.fail_nth.left() != 0 {
        return task.fail_nth.strikes();
    }
    if thread.process.pid == 1 || LEFT.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let before = LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    if before != Ok(1) {
        return false;
    }
    ARMED.fetch_sub(1, Ordering::Relaxed);
    crate::info!("fail_alloc: an allocation of {}[{}] fails", crate::sched::task::comm_str(&task.comm()), task.tid());
    true
}

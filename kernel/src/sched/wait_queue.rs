//! Wait queues: tasks that wait for a condition which somebody else makes true.
//!
//! Process context for waiting; `wake_*` also in interrupts.

use super::task::Task;
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::VecDeque;
use core::panic::Location;

/// The queue. Waiters are named by thread id; an id that is gone is skipped.
pub struct WaitQueue {
    waiters: SpinLock<VecDeque<u32>, { rank::WAIT_QUEUE }>,
}

/// The wait ended early because a signal came: EINTR or a restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupted;

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { waiters: SpinLock::new(VecDeque::new()) }
    }

    /// Be woken by this queue from now on; joining twice is joining once. For waiting on several queues.
    pub fn join(&self, task: &Task) {
        let mut waiters = self.waiters.lock_irq();
        if !waiters.contains(&task.index) {
            waiters.push_back(task.index);
        }
    }

    /// Undo `join`.
    pub fn leave(&self, task: &Task) {
        self.waiters.lock_irq().retain(|&i| i != task.index);
    }

    /// Sleep until `ready` gives a value. `ready` is asked with the queue unlocked, after joining it, so a wake-up between the
    /// question and the sleep is not lost. `interruptible`: a signal ends the wait.
    pub fn wait<R>(&self, interruptible: bool, mut ready: impl FnMut() -> Option<R>) -> Result<R, Interrupted> {
        if let Some(r) = ready() {
            return Ok(r);
        }
        let me = super::current();
        let result = loop {
            // In this order: a waker that takes this task off the queue then finds it about to sleep.
            me.state.prepare_sleep(interruptible);
            self.join(me);
            if let Some(r) = ready() {
                me.state.cancel_sleep();
                break Ok(r);
            }
            if interruptible && me.signal_pending.load(core::sync::atomic::Ordering::SeqCst) {
                me.state.cancel_sleep();
                break Err(Interrupted);
            }
            super::schedule();
        };
        self.leave(me);
        result
    }

    /// Wake the one that waits longest. True if somebody was woken.
    #[track_caller]
    pub fn wake_one(&self) -> bool {
        let site = Location::caller();
        loop {
            let Some(index) = self.waiters.lock_irq().pop_front() else { return false };
            // By reference, not by count: an interrupt must not be the one that frees a task.
            if super::task::with(index, |t| super::wake_at(t, false, site)) == Some(true) {
                return true;
            }
        }
    }

    /// Wake all. How many were woken.
    #[track_caller]
    pub fn wake_all(&self) -> usize {
        let mut woken = 0;
        while self.wake_one() {
            woken += 1;
        }
        woken
    }
}

//! Wait queues: tasks that wait for a condition which somebody else makes true.
//!
//! Process context for waiting; `wake_*` also in interrupts.

use super::task::Task;
use crate::arch::irq_flag::IrqOff;
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::VecDeque;
use core::panic::Location;
use core::sync::atomic::{AtomicU32, Ordering};

/// Who waits, oldest first. One waiter is the usual number: it needs no memory.
struct Waiters {
    /// The oldest; 0: none.
    first: u32,
    /// All others.
    more: VecDeque<u32>,
}

impl Waiters {
    fn add(&mut self, index: u32) -> bool {
        if self.first == 0 {
            self.first = index;
            return true;
        }
        let new = self.first != index && !self.more.contains(&index);
        if new {
            self.more.push_back(index);
        }
        new
    }

    fn pop(&mut self) -> Option<u32> {
        let index = self.first;
        if index == 0 {
            return None;
        }
        self.first = if self.more.is_empty() { 0 } else { self.more.pop_front().unwrap_or(0) };
        Some(index)
    }

    /// Whether it was there.
    fn remove(&mut self, index: u32) -> bool {
        if self.first == index {
            return self.pop().is_some();
        }
        match self.more.iter().position(|&i| i == index) {
            Some(at) => self.more.remove(at).is_some(),
            None => false,
        }
    }
}

/// The queue. Waiters are named by thread id; an id that is gone is skipped.
pub struct WaitQueue {
    waiters: SpinLock<Waiters, { rank::WAIT_QUEUE }>,
    /// How many there are; changed under the lock, read without it.
    len: AtomicU32,
    /// How often somebody woke it.
    wakes: AtomicU32,
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
        let waiters = Waiters { first: 0, more: VecDeque::new() };
        Self { waiters: SpinLock::new(waiters), len: AtomicU32::new(0), wakes: AtomicU32::new(0) }
    }

    /// Be woken by this queue from now on; joining twice is joining once. For waiting on several queues. The task has
    /// said before that it is about to sleep (`prepare_sleep`).
    pub fn join(&self, task: &Task) {
        let mut waiters = self.waiters.lock_irq();
        if waiters.add(task.index) {
            // Locked, and so a full fence: before the look that follows. Wakers look at the length without the lock.
            self.len.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Undo `join`.
    pub fn leave(&self, task: &Task) {
        // As long as this task is in the queue it counts itself.
        if self.len.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut waiters = self.waiters.lock_irq();
        if waiters.remove(task.index) {
            self.len.store(self.len.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
    }

    /// Sleep until `ready` gives a value. `ready` is asked with the queue unlocked, after joining it, so a wake-up between the
    /// question and the sleep is not lost. `interruptible`: a signal ends the wait.
    pub fn wait<R>(&self, interruptible: bool, mut ready: impl FnMut() -> Option<R>) -> Result<R, Interrupted> {
        match ready() {
            Some(r) => Ok(r),
            None => self.wait_on(interruptible, ready),
        }
    }

    /// As `wait`, for who has just found that it has to.
    pub fn wait_on<R>(&self, interruptible: bool, mut ready: impl FnMut() -> Option<R>) -> Result<R, Interrupted> {
        let me = super::current();
        loop {
            // In this order: a waker that takes this task off the queue then finds it about to sleep.
            me.state.prepare_sleep(interruptible);
            self.join(me);
            if let Some(r) = ready() {
                me.state.cancel_sleep();
                self.leave(me);
                return Ok(r);
            }
            if interruptible && me.signal_pending.load(Ordering::SeqCst) {
                me.state.cancel_sleep();
                self.leave(me);
                return Err(Interrupted);
            }
            super::schedule();
            if let Some(r) = ready() {
                self.leave(me);
                return Ok(r);
            }
        }
    }

    /// Wake the one that waits longest. True if somebody was woken.
    #[track_caller]
    pub fn wake_one(&self) -> bool {
        self.wake(1, Location::caller()) != 0
    }

    /// Wake all. How many were woken.
    #[track_caller]
    pub fn wake_all(&self) -> usize {
        self.wake(usize::MAX, Location::caller())
    }

    fn wake(&self, most: usize, site: &'static Location<'static>) -> usize {
        // The caller's stores before the look; against `join` and the waiter's look that follows it. Locked, and so a full fence on this machine.
        self.wakes.fetch_add(1, Ordering::SeqCst);
        let mut woken = 0;
        // Each that waits now, once: who finds that it has to wait on comes back, and may run between two rounds of this loop.
        for _ in 0..self.len.load(Ordering::Relaxed) {
            if woken == most {
                break;
            }
            let irq_off = IrqOff::new();
            let mut waiters = self.waiters.lock_held(&irq_off);
            let Some(index) = waiters.pop() else { break };
            self.len.store(self.len.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
            drop(waiters);
            // By reference, not by count: an interrupt must not be the one that frees a task.
            let wake = |t: &Task| super::wake_at(t, false, site, &irq_off);
            woken += (super::task::with_pinned(index, &irq_off, wake) == Some(true)) as usize;
            drop(irq_off);
            crate::percpu::preempt_point();
        }
        woken
    }

    /// How often somebody woke it, whether anybody waited or not.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst).into()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }
}

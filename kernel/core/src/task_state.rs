//! The life of a task between running and sleeping: one word, named transitions that return what is to be done.
//!
//! ```text
//!             prepare_sleep              commit_sleep (off the CPU)
//!   RUNNING ----------------> SLEEPY -----------------------> ASLEEP
//!      ^  ^        wake: nothing to do |                          |
//!      |  +----------------------------+                          |
//!      +----------------------------------------------------------+
//!                        wake: the waker enqueues it
//!   RUNNING --exit--> DEAD, for good
//! ```
//! `prepare_sleep` and `commit_sleep` are the task's own, in that order, with the look at what it waits for between them, so no
//! wake-up is lost. `wake` is anyone's, in any context. A waker whom `wake` told to enqueue is the only one.

use crate::atomics::{AtomicU32, Ordering, const_unless_loom};

const RUNNING: u32 = 0;
const SLEEPY: u32 = 1;
const ASLEEP: u32 = 2;
const DEAD: u32 = 3;
/// A signal may end this sleep.
const INTERRUPTIBLE: u32 = 4;

/// The word.
#[derive(Debug)]
pub struct TaskState(AtomicU32);

/// What a waker has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a task that is to be enqueued and is not sleeps for ever"]
pub enum Wake {
    /// Put it on a run queue: it is yours alone to do so.
    Enqueue,
    /// It had not left its CPU yet and goes on running.
    PreventedSleep,
    /// It was not asleep, or not to be woken by this.
    Nothing,
}

impl Default for TaskState {
    fn default() -> Self {
        Self::new()
    }
}

impl TaskState {
    const_unless_loom! {
        /// A task that is running or runnable.
        pub fn new() -> Self {
            Self(AtomicU32::new(RUNNING))
        }
    }

    const_unless_loom! {
        /// A new task that sleeps until its first wake-up.
        pub fn new_asleep() -> Self {
            Self(AtomicU32::new(ASLEEP))
        }
    }

    /// The task is about to look at what it waits for. What it reads after this, a waker wrote before `wake`, or the
    /// waker's `wake` sees the sleep: both are read-modify-writes of this word.
    #[inline]
    pub fn prepare_sleep(&self, interruptible: bool) {
        self.0.swap(SLEEPY | if interruptible { INTERRUPTIBLE } else { 0 }, Ordering::SeqCst);
        crate::atomics::rmw_made_full();
    }

    /// It found what it waits for: no sleep.
    #[inline]
    pub fn cancel_sleep(&self) {
        self.0.swap(RUNNING, Ordering::AcqRel);
    }

    /// At the switch away: true if the task sleeps now, false if it was woken (or never wanted to sleep) and stays runnable.
    #[inline]
    pub fn commit_sleep(&self) -> bool {
        let now = self.0.load(Ordering::Relaxed);
        now & !INTERRUPTIBLE == SLEEPY
            && self.0.compare_exchange(now, now & INTERRUPTIBLE | ASLEEP, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Wake it. `by_signal`: only if it sleeps interruptibly.
    #[inline]
    pub fn wake(&self, by_signal: bool) -> Wake {
        // The waker's stores before this, the state after: against prepare_sleep and the look that follows it.
        crate::atomics::fence_full();
        let mut now = self.0.load(Ordering::Relaxed);
        loop {
            let to = match now & !INTERRUPTIBLE {
                SLEEPY | ASLEEP if !by_signal || now & INTERRUPTIBLE != 0 => RUNNING,
                _ => return Wake::Nothing,
            };
            match self.0.compare_exchange_weak(now, to, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if now & !INTERRUPTIBLE == ASLEEP => return Wake::Enqueue,
                Ok(_) => return Wake::PreventedSleep,
                Err(seen) => now = seen,
            }
        }
    }

    /// The task ends. Nobody can wake it any more.
    pub fn exit(&self) {
        self.0.store(DEAD, Ordering::Release);
    }

    /// Whether it is running or runnable.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.0.load(Ordering::Relaxed) == RUNNING
    }

    /// Whether it has ended.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DEAD
    }

    /// As /proc shows it: R, S (interruptible), D or X.
    pub fn letter(&self) -> char {
        match self.0.load(Ordering::Relaxed) {
            RUNNING => 'R',
            DEAD => 'X',
            s if s & INTERRUPTIBLE != 0 => 'S',
            _ => 'D',
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_switch_prevents_the_sleep() {
        let s = TaskState::new();
        s.prepare_sleep(false);
        assert_eq!(s.wake(true), Wake::Nothing, "a signal does not end an uninterruptible sleep");
        assert_eq!(s.wake(false), Wake::PreventedSleep);
        assert!(!s.commit_sleep());
    }

    #[test]
    fn only_one_waker_enqueues() {
        let s = TaskState::new();
        s.prepare_sleep(true);
        assert!(s.commit_sleep());
        assert_eq!(s.letter(), 'S');
        assert_eq!(s.wake(true), Wake::Enqueue);
        assert_eq!(s.wake(true), Wake::Nothing);
        assert!(s.is_running());
    }

    #[test]
    fn the_dead_stay_dead() {
        let s = TaskState::new();
        s.exit();
        assert_eq!(s.wake(false), Wake::Nothing);
        assert_eq!(s.letter(), 'X');
    }
}

//! The wall clock: the time of day at time 0, one word; what it shows is that and the time since boot.
//!
//! Process context for setting. What waits until a time of day follows a set. Tasks: each says so in `follows_wall` before it reads the clock, and
//! who sets it looks there after it has changed it, so one of both sees the other's; it is woken and computes its deadline anew. Timers:
//! `sched::unbound_timer`. Who reads the clock needs no lock: kernel and vDSO have a word each, both written before a set returns.

use super::timer;
use crate::arch::tsc;
use crate::sched::task::{self, Task};
use crate::sched::{self, unbound_timer};
use crate::spin_lock::{SpinLock, rank};
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::wall_clock::since_boot;

static AT_0_NS: AtomicU64 = AtomicU64::new(0);
/// How often it was set.
static SETS: AtomicU64 = AtomicU64::new(0);
/// Who sets it comes after who did before, here and in the vDSO.
static SETTING: SpinLock<(), { rank::TIMER }> = SpinLock::new(());

/// It is so many seconds since 1970 at time 0. Once, at boot.
pub fn begin(seconds: u64) {
    AT_0_NS.store(seconds.saturating_mul(1_000_000_000), Ordering::Relaxed);
}

/// The time of day at time 0, ns since 1970.
#[inline]
pub fn at_0_ns() -> u64 {
    AT_0_NS.load(Ordering::Acquire)
}

/// The time of day, ns since 1970.
#[inline]
pub fn now_ns() -> u64 {
    at_0_ns() + tsc::now_ns()
}

/// How often the clock was set; read it before the clock.
pub fn sets() -> u64 {
    SETS.load(Ordering::SeqCst)
}

/// Sets the clock: `decide` gets the time of day at time 0 and the ns since boot, and gives the new time of day at time 0, if it may be set; `publish`
/// tells it to programs. Whether it was.
pub fn set(decide: impl FnOnce(u64, u64) -> Option<u64>, publish: fn(u64)) -> bool {
    let lock = SETTING.lock();
    let Some(new) = decide(at_0_ns(), tsc::now_ns()) else { return false };
    publish(new);
    AT_0_NS.store(new, Ordering::SeqCst);
    SETS.fetch_add(1, Ordering::SeqCst);
    drop(lock);
    task::each(|t| {
        if t.follows_wall.load(Ordering::SeqCst) {
            sched::wake(t);
        }
    });
    unbound_timer::wall_was_set();
    true
}

/// Until when somebody waits.
#[derive(Clone, Copy)]
pub enum Limit {
    /// Until the counter is there.
    Tsc(u64),
    /// Until this time of day, ns since 1970.
    OfDay(u64),
}

impl Limit {
    /// Whether it is past.
    #[inline]
    pub fn is_past(self) -> bool {
        match self {
            Limit::Tsc(deadline_tsc) => tsc::now() >= deadline_tsc,
            Limit::OfDay(of_day_ns) => now_ns() >= of_day_ns,
        }
    }

    /// The counter then, as the clock goes now.
    #[inline]
    pub fn tsc(self) -> u64 {
        match self {
            Limit::Tsc(deadline_tsc) => deadline_tsc,
            Limit::OfDay(of_day_ns) => tsc::at_ns(since_boot(of_day_ns, at_0_ns())),
        }
    }
}

/// The task is woken when the clock is set, as long as this lives.
pub struct Follows<'a>(Option<&'a Task>);

/// `task`, the running one, waits until `limit`: it is woken when the clock is set, if that moves the limit. Before it first looks at it.
#[inline]
pub fn follow(task: &Task, limit: Option<Limit>) -> Follows<'_> {
    if !matches!(limit, Some(Limit::OfDay(_))) {
        return Follows(None);
    }
    task.follows_wall.store(true, Ordering::SeqCst);
    Follows(Some(task))
}

impl Drop for Follows<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(task) = self.0 {
            task.follows_wall.store(false, Ordering::Relaxed);
        }
    }
}

/// Sleep until it is `of_day_ns` since 1970. True if it is, false if a signal ended it.
pub fn sleep_to(of_day_ns: u64) -> bool {
    let (task, limit) = (sched::current(), Limit::OfDay(of_day_ns));
    let _follows = follow(task, Some(limit));
    while !limit.is_past() {
        task.state.prepare_sleep(true);
        if task.signal_pending.load(Ordering::SeqCst) {
            task.state.cancel_sleep();
            return false;
        }
        // Computed behind `prepare_sleep`: who sets the clock from here on wakes it.
        timer::sleep_until(task, limit.tsc());
    }
    true
}

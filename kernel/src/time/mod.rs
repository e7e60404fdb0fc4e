//! Time: calibration, the per-CPU timer queue, and the tick as one of its clients.

pub mod calibrate;
pub mod tick;
pub mod timer;
pub mod watchdog;

use crate::spin_lock::{SpinLock, rank};
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::tick::TickMask;
use kcore::timer_queue::TimerQueue;

/// A CPU's timers and tick.
pub struct CpuTime {
    queue: SpinLock<TimerQueue, { rank::TIMER }>,
    /// TSC of the next tick; 0 = the tick is off.
    pub tick_deadline: AtomicU64,
    /// TSC when the tick was stopped last.
    stopped_tsc: AtomicU64,
    /// TSC that the hardware is armed for; u64::MAX = not armed.
    armed: AtomicU64,
    /// This CPU's tick dependencies.
    pub deps: TickMask,
    /// Who set what, and the last changes.
    pub history: SpinLock<tick::History, { rank::TICK }>,
    /// Ticks since boot.
    pub ticks: AtomicU64,
}

impl CpuTime {
    /// Nothing armed.
    pub const fn new() -> Self {
        Self {
            queue: SpinLock::new(TimerQueue::new()),
            tick_deadline: AtomicU64::new(0),
            stopped_tsc: AtomicU64::new(0),
            armed: AtomicU64::new(u64::MAX),
            deps: TickMask::new(),
            history: SpinLock::new(tick::History::new()),
            ticks: AtomicU64::new(0),
        }
    }
}

static WALL_AT_BOOT_S: AtomicU64 = AtomicU64::new(0);

/// Seconds since 1970 at time 0. Set once at boot.
pub fn set_wall_at_boot(seconds: u64) {
    WALL_AT_BOOT_S.store(seconds, Ordering::Relaxed);
}

/// Seconds since 1970 at time 0.
pub fn wall_at_boot_s() -> u64 {
    WALL_AT_BOOT_S.load(Ordering::Relaxed)
}

//! Time: calibration, the per-CPU timer queue, and the tick as one of its clients.

pub mod calibrate;
pub mod tick;
pub mod timer;
pub mod wall;
pub mod watchdog;

use crate::spin_lock::{SpinLock, rank};
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::tick::TickMask;
use kcore::timer_queue::{NEVER, TimerQueue};

/// A CPU's timers and tick.
pub struct CpuTime {
    queue: SpinLock<TimerQueue, { rank::TIMER }>,
    /// TSC of the next tick; `NEVER`: the tick is off.
    tick_deadline: AtomicU64,
    /// Up to this TSC, a period after the tick was stopped last, a new one is not stopped by a switch.
    lingers_until_tsc: AtomicU64,
    /// TSC that the hardware is armed for; `NEVER`: not armed.
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
            tick_deadline: AtomicU64::new(NEVER),
            lingers_until_tsc: AtomicU64::new(0),
            armed: AtomicU64::new(NEVER),
            deps: TickMask::new(),
            history: SpinLock::new(tick::History::new()),
            ticks: AtomicU64::new(0),
        }
    }

    /// Whether the tick is on (a snapshot).
    #[inline]
    pub fn tick_is_on(&self) -> bool {
        self.tick_deadline.load(Ordering::Relaxed) != NEVER
    }
}

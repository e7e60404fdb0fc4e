//! Records: a ring per CPU that its own CPU writes and a housekeeping CPU drains.

pub mod interruption_log;

use core::sync::atomic::AtomicU64;
use kcore::interruption::WORDS;
use kcore::trace_ring::TraceRing;

/// Records that fit before the oldest are overwritten (and counted as lost).
pub const RING_SLOTS: usize = 128;

/// A CPU's records.
pub struct CpuTrace {
    /// Interruptions of this CPU while isolated.
    pub ring: TraceRing<WORDS, RING_SLOTS>,
    /// How many there were.
    pub total: AtomicU64,
}

impl CpuTrace {
    /// Nothing recorded.
    pub const fn new() -> Self {
        Self { ring: TraceRing::new(), total: AtomicU64::new(0) }
    }
}

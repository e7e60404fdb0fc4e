//! The latency trace: each CPU writes typed records into a ring of its own; a housekeeping CPU reads them and never interrupts
//! anyone for it.
//!
//! `key` has the sites, `record` writes, `rings` decides who records what, `stream` drains to the serial lines, `dump` is what an epitaph does without it, `interruption_log` is the list of who interrupted
//! isolated CPUs.

pub mod dump;
pub mod interruption_log;
pub mod key;
pub mod names;
pub mod reader;
#[macro_use]
pub mod record;
pub mod rings;
mod slots;
pub mod stream;

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64};
use kcore::interruption;
use kcore::trace_event;
use kcore::trace_ring::{SizedRing, TraceRing};

/// Interruptions that fit before the oldest are overwritten (and counted as lost).
pub const INTERRUPTION_SLOTS: usize = 128;
/// A CPU's events. The oldest are overwritten (and counted as lost); how many fit is chosen (`rings::resize`).
pub type EventRing = SizedRing<{ trace_event::WORDS }, slots::EventSlots>;

/// A CPU's records.
pub struct CpuTrace {
    /// Interruptions of this CPU while isolated.
    pub interruptions: TraceRing<{ interruption::WORDS }, INTERRUPTION_SLOTS>,
    /// How many there were.
    pub total: AtomicU64,
    /// The ring of events; null where nothing is traced.
    pub events: AtomicPtr<EventRing>,
    /// The events that this CPU records now (`kcore::trace_event::EventMask`). Not empty only if there is a ring.
    pub enabled: AtomicU32,
    /// idle_enter was recorded, and idle_exit was not yet.
    pub idle: AtomicBool,
}

impl CpuTrace {
    /// Nothing recorded.
    pub const fn new() -> Self {
        Self {
            interruptions: TraceRing::new(),
            total: AtomicU64::new(0),
            events: AtomicPtr::new(core::ptr::null_mut()),
            enabled: AtomicU32::new(0),
            idle: AtomicBool::new(false),
        }
    }
}

//! The slots of a CPU's ring of events, found without a test of bounds: recording costs as little as with a size fixed at build.
//!
//! `kcore::trace_ring` decides which slot a record has; it alone asks, in any context.

use alloc::boxed::Box;
use kcore::trace_event::WORDS;
use kcore::trace_ring::{Line, SizedSlots, Slot, Slots};

/// The slots: a power of two of them.
pub struct EventSlots {
    lines: Box<[Line<WORDS>]>,
    /// Their number less 1.
    mask: usize,
}

impl SizedSlots<WORDS> for EventSlots {
    fn new(lines: Box<[Line<WORDS>]>) -> Self {
        assert!(lines.len().is_power_of_two());
        let mask = lines.len() - 1;
        Self { lines, mask }
    }
}

impl Slots<WORDS> for EventSlots {
    #[inline(always)]
    fn count(&self) -> u64 {
        self.mask as u64 + 1
    }

    #[inline(always)]
    fn of(&self, n: u64) -> &Slot<WORDS> {
        // SAFETY: 1. there are `mask` + 1 lines (`new`), and neither field changes; 2. a number masked by `mask` is at most that.
        unsafe { &self.lines.get_unchecked(n as usize & self.mask).0 }
    }
}

//! What numbers in records stand for: task ids and source places, and the clock. Takes no lock, so a panic may use it too.

use crate::arch::tsc;
use crate::sched::task;
use core::panic::Location;
use kcore::trace_event::{Clock, Line, Names, Record, Site};

unsafe extern "C" {
    static __kernel_start: u8;
    static __kernel_end: u8;
}

/// The kernel's own knowledge.
pub struct KernelNames;

impl Names for KernelNames {
    fn comm(&self, id: u32) -> Option<[u8; 16]> {
        task::with(id, |t| t.comm())
    }

    fn site(&self, address: u64) -> Option<Site<'_>> {
        let (start, end) = (&raw const __kernel_start as u64, &raw const __kernel_end as u64);
        if !(start..end).contains(&address) {
            return None;
        }
        // SAFETY: sites in records are addresses of `&'static Location`, which lie in the kernel's image.
        let location = unsafe { &*(address as *const Location<'static>) };
        Some(Site { file: location.file(), line: location.line() })
    }
}

/// The clock of all records.
pub fn clock() -> Clock {
    Clock { tsc_khz: tsc::khz(), boot_tsc: tsc::boot() }
}

/// Call `show` with the line of a record of CPU `cpu`, which has no end yet.
pub fn with_line<R>(cpu: u32, record: &Record, show: impl FnOnce(&Line<'_>) -> R) -> R {
    show(&Line { cpu, record, clock: &clock(), names: &KernelNames })
}

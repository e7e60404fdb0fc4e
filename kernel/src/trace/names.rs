//! What numbers in records stand for: task ids and source places, and the clock. Takes no lock, so a panic may use it too.

use crate::arch::tsc;
use crate::sched::task;
use core::panic::Location;
use kcore::saved_names::SavedNames;
use kcore::trace_event::{Clock, Line, Names, Record, Site};

unsafe extern "C" {
    static __kernel_start: u8;
    static __kernel_end: u8;
}

/// Names of tasks that have ended, until later ones take their places.
static SAVED: SavedNames<1024> = SavedNames::new();

/// The kernel's own knowledge.
pub struct KernelNames;

impl Names for KernelNames {
    fn comm(&self, id: u32) -> Option<[u8; 16]> {
        task::with(id, |t| t.comm()).or_else(|| SAVED.get(id))
    }

    fn site(&self, address: u64) -> Option<Site<'_>> {
        site(address)
    }
}

/// The clock of all records.
pub fn clock() -> Clock {
    Clock { tsc_khz: tsc::khz(), boot_tsc: tsc::boot() }
}

/// A task ends: records may name it still.
pub fn task_ends(id: u32, comm: &[u8; 16]) {
    SAVED.save(id, comm);
}

/// The source place at `address`, if a record may name it.
pub fn site(address: u64) -> Option<Site<'static>> {
    let (start, end) = (&raw const __kernel_start as u64, &raw const __kernel_end as u64);
    if !(start..end).contains(&address) {
        return None;
    }
    // SAFETY: sites in records are addresses of `&'static Location`, which lie in the kernel's image.
    let location = unsafe { &*(address as *const Location<'static>) };
    Some(Site { file: location.file(), line: location.line() })
}

/// Call `show` with the line of a record of CPU `cpu`, which has no end yet.
pub fn with_line<R>(cpu: u32, record: &Record, show: impl FnOnce(&Line<'_>) -> R) -> R {
    show(&Line { cpu, record, clock: &clock(), names: &KernelNames })
}

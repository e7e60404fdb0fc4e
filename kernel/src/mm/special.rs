//! Pages of the kernel's that programs map: the vDSO's, and behind them the pages of leases, one a CPU; and pages that are lost, which have no
//! frame.
//!
//! `page_fault` asks for the frame of `Content::Special`. Programs see them read-only, and mprotect leaves it so but for the vDSO's code, where
//! a write makes a copy.

use super::vdso;
use crate::arch::page_table::PAGE_SIZE;
use crate::isolation::lease;

/// Where the leases' pages start.
const LEASES: u64 = 1 << 32;

/// The offset of a page that the machine has lost: there is no frame, so every use is SIGBUS.
pub const LOST: u64 = 1 << 62;

/// The offset of CPU `cpu`'s page.
pub const fn lease_page(cpu: u32) -> u64 {
    LEASES + cpu as u64 * PAGE_SIZE
}

/// Whether `offset` is in a page of a lease.
pub const fn is_lease(offset: u64) -> bool {
    offset >= LEASES && offset < LOST
}

/// The frame at byte `offset`; `None` if there is none.
pub(super) fn frame_at(offset: u64) -> Option<u64> {
    if offset >= LOST {
        return None;
    }
    match offset.checked_sub(LEASES) {
        Some(of_lease) => lease::page_frame(u32::try_from(of_lease / PAGE_SIZE).ok()?),
        None => vdso::frame_at(offset),
    }
}

//! Pages of read-only file content that programs map: in place where the content is page-aligned, else one copy for all.
//!
//! Called by `address_space` under its lock. Content never changes and never goes away (the root archive), so neither do copies;
//! there are at most `MAX_PAGES`, beyond that each mapping gets its own.

use super::address_space::FaultError;
use super::{frame, kernel_map};
use crate::arch::page_table::{DIRECT_MAP, PAGE_SIZE, VMAP_START, phys_to_virt};
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::BTreeMap;

const MAX_PAGES: usize = 4096;

/// Copies by address and length of their content.
static COPIES: SpinLock<BTreeMap<(usize, usize), u64>, { rank::FILE }> = SpinLock::new(BTreeMap::new());

/// A page to be mapped read-only.
pub enum Page {
    /// The content itself: not counted.
    InPlace(u64),
    /// A copy, with one user more.
    Counted(u64),
}

/// A page that shows `bytes`, at most one page of them, and zeros behind them.
pub fn page_of(bytes: &'static [u8]) -> Result<Page, FaultError> {
    let at = bytes.as_ptr() as u64;
    // What was expanded from gzip lies in the area of mappings, whose frames are not contiguous.
    let direct = (DIRECT_MAP..VMAP_START).contains(&at);
    if direct && at.is_multiple_of(PAGE_SIZE) && bytes.len() as u64 == PAGE_SIZE {
        return Ok(Page::InPlace(kernel_map::virt_to_phys(at)));
    }
    let mut copies = COPIES.lock();
    let key = (at as usize, bytes.len());
    if let Some(&phys) = copies.get(&key) {
        frame::share(phys);
        return Ok(Page::Counted(phys));
    }
    let phys = copy_of(bytes)?;
    if copies.len() < MAX_PAGES && frame::above_reserve(2) {
        frame::share(phys);
        copies.insert(key, phys);
    }
    Ok(Page::Counted(phys))
}

/// A new frame with `bytes`, at most one page of them, and zeros behind them.
pub fn copy_of(bytes: &[u8]) -> Result<u64, FaultError> {
    let phys = frame::alloc().ok_or(FaultError::NoMemory)?;
    if (bytes.len() as u64) < PAGE_SIZE {
        frame::clear(phys);
    }
    let to = phys_to_virt(phys);
    // SAFETY: the frame is ours; the content is at most one page and is read only.
    unsafe {
        if bytes.len() as u64 == PAGE_SIZE {
            core::arch::asm!(
                "rep movsq",
                inout("rdi") to => _, inout("rsi") bytes.as_ptr() => _, inout("rcx") PAGE_SIZE / 8 => _,
                options(nostack, preserves_flags)
            );
        } else {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len());
        }
    }
    Ok(phys)
}

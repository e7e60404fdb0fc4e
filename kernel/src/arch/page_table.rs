//! Page-table entries and the addresses of the kernel half. Walking and filling is `mm`'s work.
//!
//! ```text
//! 0000000000000000 - 00007ffffffff000  user (the last page below 2^47 is never mapped: SYSRET)
//! ffff800000000000                     direct map of all RAM, never executable, text read-only
//! ffffc90000000000                     stacks with guards, device registers
//! ffffffff80000000                     kernel image
//! ```
//! Source: SDM vol. 3A, "4-Level Paging".

use core::ops::Range;

/// Physical address 0 is here.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Start of the area for stacks and device registers.
pub const VMAP_START: u64 = 0xffff_c900_0000_0000;
/// End of user addresses, exclusive.
pub const USER_END: u64 = 0x0000_7fff_ffff_f000;
/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;

/// Entry bits.
pub mod bits {
    /// Valid
    pub const PRESENT: u64 = 1;
    /// Writes allowed
    pub const WRITABLE: u64 = 1 << 1;
    /// User mode allowed
    pub const USER: u64 = 1 << 2;
    /// Page-level write-through
    pub const WRITE_THROUGH: u64 = 1 << 3;
    /// Page-level cache disable
    pub const NO_CACHE: u64 = 1 << 4;
    /// Set by hardware on use
    pub const ACCESSED: u64 = 1 << 5;
    /// Set by hardware on write
    pub const DIRTY: u64 = 1 << 6;
    /// 2 MiB or 1 GiB page
    pub const HUGE: u64 = 1 << 7;
    /// Survives a CR3 load
    pub const GLOBAL: u64 = 1 << 8;
    /// Software: private page shared after fork, copy on write
    pub const COPY_ON_WRITE: u64 = 1 << 9;
    /// Software: the frame belongs to somebody else (zero page, initrd, device) and is not counted
    pub const FOREIGN: u64 = 1 << 10;
    /// Never execute
    pub const NO_EXECUTE: u64 = 1 << 63;
    /// Where the frame number is
    pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// A page-table page: 512 entries.
pub type Table = [core::sync::atomic::AtomicU64; 512];

/// Direct-map address of a physical address.
#[inline]
pub const fn phys_to_virt(phys: u64) -> u64 {
    phys + DIRECT_MAP
}

/// The table in the frame at `phys`.
///
/// # Safety
/// 1. `phys` is a page-table page (or a cleared frame that becomes one); 2. it is not freed while the reference lives.
#[inline]
pub unsafe fn table(phys: u64) -> &'static Table {
    // SAFETY: by the caller's conditions; entries are atomics, so that hardware and other CPUs may change them.
    unsafe { &*(phys_to_virt(phys & bits::ADDRESS) as *const Table) }
}

/// Index into the table of `level` (4 = top, 1 = leaf) for `virt`.
#[inline]
pub const fn index(virt: u64, level: u32) -> usize {
    (virt >> (12 + 9 * (level - 1))) as usize & 511
}

/// Drop the translation of one page from the running CPU's TLB.
#[inline]
pub fn flush_page(virt: u64) {
    x86_64::instructions::tlb::flush(x86_64::VirtAddr::new_truncate(virt));
}

/// Drop the translations of the pages of `range`, of whole pages, from the running CPU's TLB: two at a turn, which costs less where a CPU is
/// interrupted for many.
#[inline]
pub fn flush_pages(range: &Range<u64>) {
    let mut at = range.start;
    if (range.end - at) & PAGE_SIZE != 0 {
        flush_page(at);
        at += PAGE_SIZE;
    }
    while at < range.end {
        // SAFETY: dropped translations are looked up again.
        unsafe {
            core::arch::asm!("invlpg [{0}]", "invlpg [{0} + {page}]", in(reg) at, page = const PAGE_SIZE, options(nostack, preserves_flags))
        }
        at += 2 * PAGE_SIZE;
    }
}

/// Load CR3.
///
/// # Safety
/// The table maps the kernel half as every other one does.
#[inline]
pub unsafe fn load(root_phys: u64) {
    // SAFETY: the caller's condition.
    unsafe { core::arch::asm!("mov cr3, {}", in(reg) root_phys, options(nostack, preserves_flags)) }
}

/// CR3 of the running CPU.
#[inline]
pub fn root() -> u64 {
    let v: u64;
    // SAFETY: reading CR3 has no side effect.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) v, options(nomem, nostack, preserves_flags)) }
    v & bits::ADDRESS
}

/// Flush the running CPU's whole TLB, global entries too, by toggling CR4.PGE: a write that changes it flushes (SDM vol. 3A,
/// "Invalidation of TLBs and Paging-Structure Caches"). Any context: an NMI between the two writes toggles the other way, which
/// flushes as well; no other flush comes between them, since interrupts are off.
pub fn flush_all_with_globals() {
    use x86_64::registers::control::{Cr4, Cr4Flags};
    let _irq_off = super::irq_flag::IrqOff::new();
    let cr4 = Cr4::read();
    // SAFETY: PGE only decides what the TLB keeps.
    unsafe {
        Cr4::write(cr4 ^ Cr4Flags::PAGE_GLOBAL);
        Cr4::write(cr4);
    }
}

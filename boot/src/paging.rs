//! The page tables that the kernel is entered with: the direct map and the kernel's image, nothing else.
//!
//! At base revision 2 there is no identity map. The direct map holds the first 4 GiB and every region of the
//! memory map above, writable and executable as the real Limine's; it is made of 1 GiB pages where the CPU has them
//! and the whole gigabyte is above 4 GiB, else of 2 MiB pages.
//! Source: Intel SDM 3A "4-Level Paging"; Limine protocol "Memory layout at entry".

use crate::entry::{DIRECT_MAP, REACHABLE_END};
use crate::physical_memory::PhysicalMemory;
use alloc::vec::Vec;

/// Page-table entry bits.
const PRESENT: u64 = 1;
/// The page may be written.
pub const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// The page may not be executed.
pub const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const LARGE_PAGE: u64 = 2 << 20;
const HUGE_PAGE: u64 = 1 << 30;

/// A tree of page tables under construction.
pub struct PageTables {
    root: u64,
    /// Every table with its physical address.
    tables: Vec<(u64, &'static mut [u64; 512])>,
    has_huge_pages: bool,
}

impl PageTables {
    /// An empty tree. `has_huge_pages` says whether the CPU knows 1 GiB pages.
    pub fn new(memory: &mut PhysicalMemory, has_huge_pages: bool) -> Self {
        let root = memory.take_table();
        Self { root: root.0, tables: alloc::vec![root], has_huge_pages }
    }

    /// The value for CR3.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Maps the first 4 GiB and all `regions` (base, length) above into the direct map.
    pub fn map_direct(&mut self, memory: &mut PhysicalMemory, regions: &[(u64, u64)]) {
        self.map_direct_range(memory, 0, REACHABLE_END);
        for &(base, length) in regions {
            self.map_direct_range(memory, base.max(REACHABLE_END), base + length);
        }
    }

    fn map_direct_range(&mut self, memory: &mut PhysicalMemory, base: u64, end: u64) {
        let size = if self.has_huge_pages && base >= REACHABLE_END { HUGE_PAGE } else { LARGE_PAGE };
        let level = if size == HUGE_PAGE { 2 } else { 1 };
        let mut physical = base & !(size - 1);
        while physical < end {
            let entry = self.entry(memory, DIRECT_MAP + physical, level);
            *entry = physical | LARGE | WRITABLE | PRESENT;
            physical += size;
        }
    }

    /// Maps one 4 KiB page; `flags` are of [`WRITABLE`] and [`NO_EXECUTE`]. A page that is mapped already (two
    /// segments share it) gets the rights of both.
    pub fn map_page(&mut self, memory: &mut PhysicalMemory, virtual_address: u64, physical: u64, flags: u64) {
        let entry = self.entry(memory, virtual_address, 0);
        if *entry & PRESENT == 0 {
            *entry = physical | PRESENT | flags;
        } else {
            *entry = (*entry | flags & WRITABLE) & (flags | !NO_EXECUTE);
        }
    }

    /// The entry for `virtual_address` in its table of `level` (0 = page table), tables above made as needed.
    fn entry(&mut self, memory: &mut PhysicalMemory, virtual_address: u64, level: u32) -> &mut u64 {
        let mut table = 0;
        for above in (level + 1..=3).rev() {
            let slot = index(virtual_address, above);
            let next = self.tables[table].1[slot] & ADDRESS;
            table = match self.tables.iter().rposition(|(address, _)| *address == next && next != 0) {
                Some(known) => known,
                None => {
                    let new = memory.take_table();
                    self.tables[table].1[slot] = new.0 | WRITABLE | PRESENT;
                    self.tables.push(new);
                    self.tables.len() - 1
                }
            };
        }
        &mut self.tables[table].1[index(virtual_address, level)]
    }
}

/// The slot of `virtual_address` in a table of `level`.
fn index(virtual_address: u64, level: u32) -> usize {
    (virtual_address >> (12 + 9 * level) & 511) as usize
}

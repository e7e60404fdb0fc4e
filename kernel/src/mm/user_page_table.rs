//! The user half of one address space's page tables: tables made on demand, freed all at once.
//!
//! Used by `address_space` under its lock. An entry that is not 0 holds a frame, even if it is not PRESENT (no rights).
//! Page-table pages are freed only with the whole table: a CPU may walk through them as long as the root is loaded.

use super::{failure, frame, kernel_map};
use crate::arch::page_table::{self as pt, PAGE_SIZE, bits};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

const TABLE: u64 = bits::PRESENT | bits::WRITABLE | bits::USER | bits::ACCESSED;

/// The tables below one top table.
pub struct UserPageTable {
    root: u64,
    /// Its tables, the root too, to be freed at the end.
    tables: Vec<u64>,
}

impl UserPageTable {
    /// Nothing mapped in the user half; the kernel half as everywhere. `None` without memory.
    pub fn new() -> Option<Self> {
        if failure::strikes() {
            return None;
        }
        let mut tables = Vec::new();
        tables.try_reserve(16).ok()?;
        let root = kernel_map::new_root()?;
        tables.push(root);
        Some(Self { root, tables })
    }

    /// Physical address of the top table.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// How many pages its tables have, the top one too.
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// The leaf entry of `virt`, making tables on the way. `None` without memory.
    #[inline]
    pub fn entry(&mut self, virt: u64) -> Option<&'static AtomicU64> {
        Some(&self.leaves(virt)?[pt::index(virt, 1)])
    }

    /// The leaf table of `virt`, making tables on the way. `None` without memory.
    #[inline]
    pub fn leaves(&mut self, virt: u64) -> Option<&'static pt::Table> {
        let mut table_phys = self.root;
        for level in [4, 3, 2] {
            // SAFETY: a table of this tree, which is not freed while `self` lives.
            let e = &unsafe { pt::table(table_phys) }[pt::index(virt, level)];
            let mut v = e.load(Ordering::Relaxed);
            if v == 0 {
                v = self.new_table()? | TABLE;
                e.store(v, Ordering::Release);
            }
            table_phys = v & bits::ADDRESS;
        }
        // SAFETY: as above.
        Some(unsafe { pt::table(table_phys) })
    }

    #[cold]
    fn new_table(&mut self) -> Option<u64> {
        self.tables.try_reserve(1).ok()?;
        let phys = frame::alloc_zeroed()?;
        self.tables.push(phys);
        Some(phys)
    }

    /// The leaf entry of `virt` if its table exists.
    #[inline]
    pub fn lookup(&self, virt: u64) -> Option<&'static AtomicU64> {
        let mut table_phys = self.root;
        for level in [4, 3, 2] {
            // SAFETY: as in `entry`.
            let v = unsafe { pt::table(table_phys) }[pt::index(virt, level)].load(Ordering::Relaxed);
            if v == 0 {
                return None;
            }
            table_phys = v & bits::ADDRESS;
        }
        // SAFETY: as in `entry`.
        Some(&unsafe { pt::table(table_phys) }[pt::index(virt, 1)])
    }

    /// Call `f` with each leaf entry of `start..end` that is not 0, in rising order, until it says false. Returns where to go on:
    /// the address after the entry that stopped it, or `end`.
    pub fn for_each(&self, start: u64, end: u64, mut f: impl FnMut(u64, &AtomicU64) -> bool) -> u64 {
        let mut at = start;
        'next: while at < end {
            let mut table_phys = self.root;
            for level in [4, 3, 2] {
                // SAFETY: as in `entry`.
                let v = unsafe { pt::table(table_phys) }[pt::index(at, level)].load(Ordering::Relaxed);
                if v == 0 {
                    let span = PAGE_SIZE << (9 * (level - 1));
                    at = (at & !(span - 1)) + span;
                    continue 'next;
                }
                table_phys = v & bits::ADDRESS;
            }
            // SAFETY: as in `entry`.
            let leaves = unsafe { pt::table(table_phys) };
            for e in &leaves[pt::index(at, 1)..] {
                if at >= end {
                    return end;
                }
                let virt = at;
                at += PAGE_SIZE;
                if e.load(Ordering::Relaxed) != 0 && !f(virt, e) {
                    return at;
                }
            }
        }
        end
    }
}

impl Drop for UserPageTable {
    /// The owner has taken the leaf entries' frames back, and no CPU has the root loaded.
    fn drop(&mut self) {
        self.tables.iter().for_each(|&t| frame::free_order(t, 0));
    }
}

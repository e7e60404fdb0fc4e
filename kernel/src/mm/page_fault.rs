//! Faults: what `kcore::vma` decides, done to the page tables.
//!
//! Process context, interrupts on, with the lock of the address space held.

use super::address_space::{Inner, STACK_LIMIT, entry_flags};
use super::file_pages::{FilePages, Page};
use super::tlb_flush::flush;
use super::{frame, kernel_map, special};
use crate::arch::page_table::{self as pt, PAGE_SIZE, bits, phys_to_virt};
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::vma::{Access, FaultDecision, Prot, Pte, SegvCode};

/// Why a fault cannot be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// SIGSEGV.
    Segv(SegvCode),
    /// SIGBUS: beyond the end of the file.
    Bus,
    /// No frame is left.
    NoMemory,
}

/// A page of zeros that all may read.
#[repr(C, align(4096))]
pub(super) struct ZeroPage([u8; PAGE_SIZE as usize]);

pub(super) static ZERO_PAGE: ZeroPage = ZeroPage([0; PAGE_SIZE as usize]);

pub(super) fn zero_page() -> u64 {
    kernel_map::virt_to_phys(&ZERO_PAGE as *const _ as u64)
}

fn classify(entry: u64) -> Pte {
    if entry == 0 {
        Pte::Absent
    } else if entry & bits::FOREIGN != 0 {
        if entry & bits::ADDRESS == zero_page() {
            Pte::ZeroPage
        } else {
            Pte::Page { writable: false, sole_owner: false }
        }
    } else {
        Pte::Page { writable: entry & bits::WRITABLE != 0, sole_owner: frame::users(entry & bits::ADDRESS) == 1 }
    }
}

/// # Safety
/// 1. Both are frames in the direct map; 2. `to` is the caller's alone; 3. `from` is not freed meanwhile.
pub(super) unsafe fn copy_frame(to: u64, from: u64) {
    // SAFETY: the caller's conditions; exactly one page each.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            inout("rdi") phys_to_virt(to) => _, inout("rsi") phys_to_virt(from) => _, inout("rcx") PAGE_SIZE / 8 => _,
            options(nostack, preserves_flags)
        );
    }
}

impl Inner {
    /// The pages that slot `file` has.
    fn mapped(&self, file: u32) -> Result<&FilePages, FaultError> {
        self.files.get(file as usize).and_then(Option::as_ref).map(|mapped| &*mapped.pages).ok_or(FaultError::Bus)
    }

    /// Put `entry` at `page`; `leaf`: its place, if its table is there. Returns the old one.
    #[inline(always)]
    fn set(&mut self, leaf: Option<&AtomicU64>, page: u64, entry: u64) -> Result<u64, FaultError> {
        let e = match leaf {
            Some(e) => e,
            None => self.new_leaf(page, entry)?,
        };
        let old = e.swap(entry, Ordering::AcqRel);
        if old == 0 {
            self.resident += 1;
        }
        Ok(old)
    }

    /// The place of `page`, whose tables are made; without memory `entry`'s frame is given back.
    #[cold]
    #[inline(never)]
    fn new_leaf(&mut self, page: u64, entry: u64) -> Result<&'static AtomicU64, FaultError> {
        let leaf = self.table.entry(page);
        if leaf.is_none() && entry & bits::FOREIGN == 0 {
            frame::release(entry & bits::ADDRESS);
        }
        leaf.ok_or(FaultError::NoMemory)
    }

    /// Put `entry` at `page`; the old translation is dropped everywhere, then the old frame's user.
    #[inline]
    pub(super) fn replace(&mut self, leaf: Option<&AtomicU64>, page: u64, entry: u64) -> Result<(), FaultError> {
        let old = self.set(leaf, page, entry)?;
        if old != 0 {
            flush(self.table.root(), page..page + PAGE_SIZE);
            if old & bits::FOREIGN == 0 {
                frame::release(old & bits::ADDRESS);
            }
        }
        Ok(())
    }

    pub(super) fn fault(&mut self, addr: u64, access: Access) -> Result<(), FaultError> {
        let page = addr & !(PAGE_SIZE - 1);
        let leaf = self.table.lookup(page);
        let now = leaf.map_or(0, |e| e.load(Ordering::Relaxed));
        let (decision, prot) = self.map.fault(addr, access, classify(now));
        let flags = entry_flags(prot);
        match decision {
            FaultDecision::ReadZero => {
                let read_only = flags & !(bits::WRITABLE | bits::DIRTY);
                self.set(leaf, page, zero_page() | read_only | bits::FOREIGN).map(drop)
            }
            FaultDecision::ZeroFill => {
                let phys = frame::alloc_zeroed().ok_or(FaultError::NoMemory)?;
                self.replace(leaf, page, phys | flags)
            }
            other => self.less_frequent(addr, access, leaf, prot, other),
        }
    }

    /// The other decisions, apart so that they cost the frequent ones nothing.
    #[inline(never)]
    pub(super) fn less_frequent(
        &mut self,
        addr: u64,
        access: Access,
        leaf: Option<&AtomicU64>,
        prot: Prot,
        decision: FaultDecision,
    ) -> Result<(), FaultError> {
        let page = addr & !(PAGE_SIZE - 1);
        let now = leaf.map_or(0, |e| e.load(Ordering::Relaxed));
        let flags = entry_flags(prot);
        let read_only = flags & !(bits::WRITABLE | bits::DIRTY);
        match decision {
            FaultDecision::ReadZero | FaultDecision::ZeroFill => Ok(()), // done by the caller
            FaultDecision::FileRead { file, offset } => {
                let entry = match self.mapped(file)?.page_to_read(offset)? {
                    Page::InPlace(phys) => phys | read_only | bits::FOREIGN,
                    Page::Counted(phys) => phys | read_only | bits::COPY_ON_WRITE,
                };
                self.set(leaf, page, entry).map(drop)
            }
            FaultDecision::FileCopy { file, offset } => {
                let phys = self.mapped(file)?.copy_of_page(offset)?;
                self.replace(leaf, page, phys | flags)
            }
            FaultDecision::SharedPage { object, offset } => {
                let phys = self.mapped(object)?.page_to_share(offset)?;
                self.set(leaf, page, phys | flags).map(drop)
            }
            FaultDecision::SpecialPage { offset } => {
                let phys = special::frame_at(offset).ok_or(FaultError::Bus)?;
                self.set(leaf, page, phys | read_only | bits::FOREIGN).map(drop)
            }
            FaultDecision::CopyOnWrite => {
                let phys = frame::alloc().ok_or(FaultError::NoMemory)?;
                // SAFETY: both are whole frames in the direct map; the new one is ours, the old one is mapped here and so
                // not freed while the lock is held.
                unsafe { copy_frame(phys, now & bits::ADDRESS) };
                self.replace(leaf, page, phys | flags)
            }
            FaultDecision::MakeWritable => {
                // Only rights are added: a stale translation elsewhere faults and finds it done.
                let _ = self.set(leaf, page, now & bits::ADDRESS | flags)?;
                pt::flush_page(page);
                Ok(())
            }
            FaultDecision::Refresh => {
                let writable = now & bits::WRITABLE != 0 && prot.write();
                let flags = if writable { flags } else { read_only };
                let _ = self.set(leaf, page, now & (bits::ADDRESS | bits::FOREIGN | bits::COPY_ON_WRITE) | flags)?;
                pt::flush_page(page);
                Ok(())
            }
            FaultDecision::GrowStack => {
                if !self.map.grow_stack(addr, STACK_LIMIT) {
                    return Err(FaultError::Segv(SegvCode::MapErr));
                }
                // The stack has the address now: no second growth.
                self.fault(addr, access)
            }
            FaultDecision::Segv(code) => Err(FaultError::Segv(code)),
        }
    }
}

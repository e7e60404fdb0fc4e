//! Address spaces: the map of `kcore::vma`, and the page tables that follow it. Faults fill them (`page_fault`).
//!
//! Process context, interrupts on: the lock is held while other CPUs are asked to flush. Frames that were mapped are freed only
//! after the flush. An address space is dropped when no CPU has its root loaded any more.

pub use super::mapped_content::{Mapped, Name};
pub use super::page_fault::FaultError;
pub use super::tlb_flush::cpus_running;

use super::file_pages::FilePages;
use super::tlb_flush::Gather;
use super::user_page_table::UserPageTable;
use super::vdso;
use super::{failure, frame};
use crate::arch::page_table::{self as pt, PAGE_SIZE, bits, phys_to_virt};
use crate::errno::{EACCES, EFAULT, EINVAL, ENOMEM, Errno};
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::vma::{Access, AddressSpaceMap, Kind, Limits, Pieces, Prot, Region};

/// How far a stack may grow: RLIMIT_STACK.
pub const STACK_LIMIT: u64 = 8 << 20;

/// What a new mapping shows.
pub enum Content {
    /// Private zeros.
    Anonymous,
    /// A stack.
    Stack,
    /// A private view of a file from `offset` on (page-aligned).
    File(Mapped, u64),
    /// The file itself, or memory that address spaces share, from `offset` on.
    Shared(Mapped, u64),
    /// Pages of the kernel's from `offset` on (`special`).
    Special(u64),
}

/// Where a new mapping goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At the hint if that is free, else anywhere.
    Anywhere(u64),
    /// There, in place of what is there.
    Fixed(u64),
    /// There, if nothing is there.
    FixedNoReplace(u64),
}

/// ENOMEM for more private memory in one piece than there is RAM: Linux's rule of what is obviously too much (its overcommit mode 0).
pub fn affordable(bytes: u64) -> Result<(), Errno> {
    if bytes > frame::ram_bytes() { Err(ENOMEM) } else { Ok(()) }
}

/// What the lock of an address space guards.
pub(super) struct Inner {
    pub(super) map: AddressSpaceMap,
    pub(super) table: UserPageTable,
    /// What regions show, by the number that they have of it.
    pub(super) files: Vec<Option<Mapped>>,
    /// Pages mapped, foreign ones too.
    pub(super) resident: u64,
}

/// One address space.
pub struct AddressSpace {
    pub(super) root: u64,
    pub(super) inner: SpinLock<Inner, { rank::ADDRESS_SPACE }>,
    /// membarrier(2) registrations.
    pub membarrier: core::sync::atomic::AtomicU32,
    /// mlockall(MCL_FUTURE): what is mapped from now on is brought in at once. A child of fork starts without.
    pub lock_future: core::sync::atomic::AtomicBool,
}

/// The bits of a present entry with these rights.
pub(super) fn entry_flags(prot: Prot) -> u64 {
    let mut flags = bits::USER | bits::ACCESSED;
    if prot != Prot::NONE {
        flags |= bits::PRESENT;
    }
    if prot.write() {
        flags |= bits::WRITABLE | bits::DIRTY;
    }
    if !prot.exec() {
        flags |= bits::NO_EXECUTE;
    }
    flags
}

impl Inner {
    /// Take out all pages of `range`.
    pub(super) fn zap(&mut self, range: Range<u64>) {
        let root = self.table.root();
        let mut gather = Gather::new();
        let mut at = range.start;
        let mut removed = 0;
        while at < range.end {
            at = self.table.for_each(at, range.end, |virt, e| {
                removed += 1;
                gather.removed(virt, e.swap(0, Ordering::AcqRel))
            });
            gather.finish(root);
        }
        self.resident -= removed;
    }

    pub(super) fn zap_pieces(&mut self, pieces: &Pieces) {
        for piece in pieces.iter() {
            self.zap(piece.start..piece.end);
        }
        if pieces.iter().any(|p| slot_in(p).is_some()) {
            self.forget_unused_files();
        }
    }

    /// Files that no region shows any more go.
    fn forget_unused_files(&mut self) {
        for (i, slot) in self.files.iter_mut().enumerate() {
            if slot.is_some() && !self.map.iter().any(|r| slot_in(r) == Some(i)) {
                *slot = None;
            }
        }
    }

    /// Whether `region`, up to `end`, can never have these rights: the page of the time, and what may be read only.
    fn refuses(&self, region: &Region, end: u64, prot: Prot) -> bool {
        match region.kind {
            Kind::Special { offset } => {
                (prot.write() || prot.exec()) && vdso::is_data(offset + (end - region.start - 1))
            }
            Kind::Shared { object, .. } => {
                prot.write() && matches!(self.files.get(object as usize), Some(Some(Mapped { writable: false, .. })))
            }
            _ => false,
        }
    }

    fn kind_of(&mut self, content: Content) -> Result<Kind, Errno> {
        Ok(match content {
            Content::Anonymous => Kind::Anonymous,
            Content::Stack => Kind::Stack,
            Content::Special(offset) => Kind::Special { offset },
            Content::File(mapped, offset) => Kind::FileBacked { file: self.slot_of(mapped)?, offset },
            Content::Shared(mapped, offset) => Kind::Shared { object: self.slot_of(mapped)?, offset },
        })
    }

    /// The slot that has `mapped`, or else a free one that has it now.
    fn slot_of(&mut self, mapped: Mapped) -> Result<u32, Errno> {
        let slots = &mut self.files;
        if let Some(i) = slots.iter().position(|slot| slot.as_ref().is_some_and(|there| there.is_same(&mapped))) {
            return Ok(i as u32);
        }
        if let Some(i) = slots.iter().position(Option::is_none) {
            slots[i] = Some(mapped);
            return Ok(i as u32);
        }
        if failure::strikes() {
            return Err(ENOMEM);
        }
        slots.try_reserve(1).map_err(|_| ENOMEM)?;
        slots.push(Some(mapped));
        Ok(slots.len() as u32 - 1)
    }
}

/// The slot of what `region` shows.
pub(super) const fn slot_in(region: &Region) -> Option<usize> {
    match region.kind {
        Kind::FileBacked { file, .. } => Some(file as usize),
        Kind::Shared { object, .. } => Some(object as usize),
        _ => None,
    }
}

impl AddressSpace {
    /// An empty one. `None` without memory.
    pub fn new() -> Option<Self> {
        Some(Self::with(AddressSpaceMap::new(Limits::for_stack(STACK_LIMIT)), UserPageTable::new()?))
    }

    fn with(map: AddressSpaceMap, table: UserPageTable) -> Self {
        Self {
            root: table.root(),
            inner: SpinLock::new(Inner { map, table, files: Vec::new(), resident: 0 }),
            membarrier: core::sync::atomic::AtomicU32::new(0),
            lock_future: core::sync::atomic::AtomicBool::new(false),
        }
    }

    /// CR3.
    #[inline]
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Resolve a fault at `addr`.
    #[inline]
    pub fn fault(&self, addr: u64, access: Access) -> Result<(), FaultError> {
        self.inner.lock().fault(addr, access)
    }

    /// mmap(2): map `len` bytes (rounded up to pages); returns the address.
    pub fn map(&self, place: Place, len: u64, prot: Prot, content: Content) -> Result<u64, Errno> {
        if !frame::above_reserve(1) {
            return Err(ENOMEM);
        }
        let mut inner = self.inner.lock();
        let kind = inner.kind_of(content)?;
        let fixed = |at: u64| -> Result<Region, Errno> {
            let end = at.checked_add(len).and_then(|e| e.checked_next_multiple_of(PAGE_SIZE)).ok_or(ENOMEM)?;
            if len == 0 {
                return Err(EINVAL);
            }
            Ok(Region::new(at..end, prot, kind))
        };
        let at = match place {
            Place::Anywhere(hint) => inner.map.map_anywhere(len, hint, prot, kind)?,
            Place::Fixed(at) => {
                let pieces = inner.map.map_fixed(fixed(at)?)?;
                inner.zap_pieces(&pieces);
                at
            }
            Place::FixedNoReplace(at) => {
                inner.map.map_fixed_noreplace(fixed(at)?)?;
                at
            }
        };
        Ok(at)
    }

    /// munmap(2).
    pub fn unmap(&self, start: u64, len: u64) -> Result<(), Errno> {
        let end = start.checked_add(len).ok_or(EINVAL)?;
        let mut inner = self.inner.lock();
        let pieces = inner.map.unmap(start..end)?;
        inner.zap_pieces(&pieces);
        Ok(())
    }

    /// mprotect(2): up to the first page that is not mapped, which is ENOMEM. `grows_down`: PROT_GROWSDOWN, from the start of the
    /// stack that `start` lies in.
    pub fn protect(&self, start: u64, len: u64, prot: Prot, grows_down: bool) -> Result<(), Errno> {
        let end = start.checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE)).ok_or(ENOMEM)?;
        if !start.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        let start = match inner.map.find(start) {
            Some(region) if grows_down && region.kind == Kind::Stack => region.start,
            Some(_) if grows_down => return Err(EINVAL),
            Some(_) => start,
            None => return Err(ENOMEM),
        };
        let reached = inner.map.covered_to(start..end, Prot::NONE).min(end);
        if inner.map.iter().any(|r| r.start < reached && start < r.end && inner.refuses(r, r.end.min(reached), prot)) {
            return Err(EACCES);
        }
        let pieces = inner.map.protect(start..reached, prot)?;
        let flags = entry_flags(prot);
        let keep = bits::ADDRESS | bits::FOREIGN | bits::COPY_ON_WRITE;
        let mut gather = Gather::new();
        for piece in pieces.iter() {
            inner.table.for_each(piece.start, piece.end, |virt, e| {
                let old = e.load(Ordering::Relaxed);
                let mut new = old & keep | flags;
                if old & (bits::FOREIGN | bits::COPY_ON_WRITE) != 0 {
                    new &= !(bits::WRITABLE | bits::DIRTY);
                }
                e.store(new, Ordering::Release);
                gather.changed(virt);
                true
            });
        }
        gather.finish(self.root);
        if reached < end { Err(ENOMEM) } else { Ok(()) }
    }

    /// brk(2): the new break, or the old one.
    pub fn set_brk(&self, brk: u64) -> u64 {
        let mut inner = self.inner.lock();
        let (now, pieces) = inner.map.set_brk(brk, frame::ram_bytes());
        inner.zap_pieces(&pieces);
        now
    }

    /// Where mmap starts to look goes down by so many bytes. For exec.
    pub fn lower_mmap_base(&self, bytes: u64) {
        self.inner.lock().map.lower_mmap_base(bytes);
    }

    /// Where the heap starts. For exec.
    pub fn set_brk_start(&self, start: u64) {
        self.inner.lock().map.set_brk_start(start);
    }

    /// MADV_DONTNEED: private pages are forgotten; the next access finds them as at first. ENOMEM if a part is not mapped.
    pub fn forget(&self, start: u64, len: u64) -> Result<(), Errno> {
        let end = start.checked_add(len).ok_or(EINVAL)?.next_multiple_of(PAGE_SIZE);
        let mut inner = self.inner.lock();
        let covered = inner.map.covers(start..end, Prot::NONE);
        inner.zap(start..end.min(pt::USER_END));
        if covered { Ok(()) } else { Err(ENOMEM) }
    }

    /// Whether all of the range is mapped with these rights.
    pub fn covers(&self, start: u64, len: u64, prot: Prot) -> bool {
        start.checked_add(len).is_some_and(|end| self.inner.lock().map.covers(start..end, prot))
    }

    /// mremap(2) of one region or a part of it. `to`: MREMAP_FIXED's address; `may_move`: MREMAP_MAYMOVE.
    pub fn remap(&self, old: u64, old_len: u64, new_len: u64, may_move: bool, to: Option<u64>) -> Result<u64, Errno> {
        let round = |n: u64| n.checked_next_multiple_of(PAGE_SIZE).ok_or(EINVAL);
        let (old_len, new_len) = (round(old_len)?, round(new_len)?);
        if !old.is_multiple_of(PAGE_SIZE) || new_len == 0 {
            return Err(EINVAL);
        }
        let old_end = old.checked_add(old_len).filter(|&e| e <= pt::USER_END).ok_or(EINVAL)?;
        let mut inner = self.inner.lock();
        let region = *inner.map.find(old).filter(|r| r.end >= old_end).ok_or(EFAULT)?;
        // A second view, which only shared memory can have.
        if old_len == 0 && !matches!(region.kind, Kind::Shared { .. }) {
            return Err(EINVAL);
        }
        if to.is_none() && new_len <= old_len {
            if new_len < old_len {
                let pieces = inner.map.unmap(old + new_len..old_end)?;
                inner.zap_pieces(&pieces);
            }
            return Ok(old);
        }
        if region.prot.write() {
            affordable(new_len.saturating_sub(old_len))?;
        }
        if to.is_none() && old_len > 0 && old_end == region.end {
            // In place, if there is room behind it.
            if let Some(end) = old.checked_add(new_len).filter(|&e| e <= pt::USER_END) {
                let tail = Region::new(old_end..end, region.prot, advanced(region.kind, old_end - region.start));
                if inner.map.map_fixed_noreplace(tail).is_ok() {
                    return Ok(old);
                }
            }
        }
        if !may_move {
            return Err(ENOMEM);
        }
        let kind = advanced(region.kind, old - region.start);
        let new = match to {
            Some(at) => {
                let end = at.checked_add(new_len).filter(|&e| e <= pt::USER_END).ok_or(EINVAL)?;
                if at % PAGE_SIZE != 0 || at < old_end && old < end {
                    return Err(EINVAL);
                }
                let pieces = inner.map.map_fixed(Region::new(at..end, region.prot, kind))?;
                inner.zap_pieces(&pieces);
                at
            }
            None => inner.map.map_anywhere(new_len, 0, region.prot, kind)?,
        };
        inner.move_pages(old, new, old_len.min(new_len));
        if old_len > 0 {
            let pieces = inner.map.unmap(old..old_end)?;
            inner.zap_pieces(&pieces);
        }
        Ok(new)
    }

    /// Write `bytes` at `addr` as the program could, whether the address space is loaded or not.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), FaultError> {
        let mut inner = self.inner.lock();
        let mut done = 0;
        while done < bytes.len() {
            let at = addr + done as u64;
            let n = ((PAGE_SIZE - at % PAGE_SIZE) as usize).min(bytes.len() - done);
            inner.fault(at, Access::Write)?;
            let entry = inner.table.lookup(at).map_or(0, |e| e.load(Ordering::Relaxed));
            let to = phys_to_virt(entry & bits::ADDRESS) + at % PAGE_SIZE;
            // SAFETY: the fault made the page ours and writable; the lock keeps it; `n` stays within it.
            unsafe { core::ptr::copy_nonoverlapping(bytes[done..].as_ptr(), to as *mut u8, n) };
            done += n;
        }
        Ok(())
    }

    /// The shared memory behind `addr` and the offset in it, as the key of a futex that processes share. The number names the
    /// memory as long as it is mapped.
    pub fn shared_key(&self, addr: u64) -> Option<(usize, u64)> {
        let inner = self.inner.lock();
        let region = inner.map.find(addr)?;
        match region.kind {
            Kind::Shared { object, offset } => {
                let mapped = inner.files.get(object as usize)?.as_ref()?;
                Some((Arc::as_ptr(&mapped.pages) as usize, offset + (addr - region.start)))
            }
            _ => None,
        }
    }

    /// Bytes mapped and pages resident.
    pub fn size(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.map.total_bytes(), inner.resident)
    }

    /// Pages resident, and pages that its tables have.
    pub fn pages(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.resident, inner.table.len() as u64)
    }

    /// The region that has `at`, or else the next one.
    pub(super) fn region_at_or_after(&self, at: u64) -> Option<Region> {
        self.inner.lock().map.at_or_after(at).copied()
    }

    /// The regions with the names of what they show, for /proc/PID/maps.
    pub fn regions(&self) -> Vec<(Region, Option<Arc<Name>>)> {
        let inner = self.inner.lock();
        let name = |r: &Region| Some(inner.files.get(slot_in(r)?)?.as_ref()?.name.clone());
        inner.map.iter().map(|r| (*r, name(r))).collect()
    }

    /// What a file that was cut to `len` bytes has to forget here: every page behind its new end, private copies too, as on Linux.
    pub fn forget_beyond(&self, pages: &Arc<FilePages>, len: u64) {
        let mut inner = self.inner.lock();
        let end = len.next_multiple_of(PAGE_SIZE);
        let beyond = |r: &Region| {
            let shown = inner.files.get(slot_in(r)?)?.as_ref()?;
            let (Kind::FileBacked { offset, .. } | Kind::Shared { offset, .. }) = r.kind else { return None };
            let start = r.start.saturating_add(end.saturating_sub(offset)).min(r.end);
            (Arc::ptr_eq(&shown.pages, pages) && start < r.end).then_some(start..r.end)
        };
        let ranges: Vec<_> = inner.map.iter().filter_map(beyond).collect();
        ranges.into_iter().for_each(|range| inner.zap(range));
    }
}

impl Inner {
    /// Move the entries of `len` bytes from `old` to `new`, where nothing is mapped.
    fn move_pages(&mut self, old: u64, new: u64, len: u64) {
        let mut gather = Gather::new();
        let mut at = old;
        while at < old + len {
            let mut found: ArrayVec<(u64, u64), 64> = ArrayVec::new();
            at = self.table.for_each(at, old + len, |virt, e| {
                found.push((virt, e.load(Ordering::Relaxed)));
                !found.is_full()
            });
            for (virt, entry) in found {
                // Without memory for a table the page stays behind and is unmapped with the rest: never a wrong mapping.
                if let Some(to) = self.table.entry(new + (virt - old)) {
                    to.store(entry, Ordering::Release);
                    if let Some(from) = self.table.lookup(virt) {
                        from.store(0, Ordering::Release);
                    }
                    gather.changed(virt);
                }
            }
        }
        gather.finish(self.table.root());
    }
}

fn advanced(kind: Kind, bytes: u64) -> Kind {
    match kind {
        Kind::FileBacked { file, offset } => Kind::FileBacked { file, offset: offset.wrapping_add(bytes) },
        Kind::Shared { object, offset } => Kind::Shared { object, offset: offset.wrapping_add(bytes) },
        Kind::Special { offset } => Kind::Special { offset: offset.wrapping_add(bytes) },
        Kind::Heap => Kind::Anonymous,
        same => same,
    }
}

impl Drop for Inner {
    /// No CPU has the root loaded: frames go without a flush.
    fn drop(&mut self) {
        // Every entry lies in a region.
        for region in self.map.iter() {
            self.table.for_each(region.start, region.end, |_, e: &AtomicU64| {
                let v = e.load(Ordering::Relaxed);
                if v & bits::FOREIGN == 0 {
                    frame::release(v & bits::ADDRESS);
                }
                true
            });
        }
    }
}

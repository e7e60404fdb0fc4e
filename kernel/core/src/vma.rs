//! The map of a process's address space: which pages are mapped, with what rights, and what a fault there means.
//!
//! Called in process context under the address space's lock; page tables are the caller's. Invariants: regions are
//! page-aligned, not empty, sorted, do not overlap, lie in the limits, and no two neighbours could be one; nothing
//! panics, and a call that fails changes nothing. Out of memory is `NoMem`, not an abort.
//!
//! The regions are a sorted Vec: a program has 5 to 100 of them, where binary search over one array needs 3 to 7
//! steps and touches fewer cache lines than a B-tree. Only faults, which come in runs, try the region found last. A new mapping usually joins its neighbour, so mmap and munmap move and allocate nothing.
//! Source: mmap(2), mprotect(2), brk(2); Linux mm/mmap.c for what those leave open (search order, stack gap, brk).

mod region;
#[cfg(test)]
mod tests;

pub use region::*;

use alloc::vec::Vec;
use core::ops::Range;

/// The map of one address space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSpaceMap {
    regions: Vec<Region>,
    limits: Limits,
    brk_start: u64,
    brk: u64,
    mapped_bytes: u64,
    /// Where the last fault found its region: the next one is mostly there too.
    last_fault: Hint,
}

/// An index that may be stale: whoever uses it looks whether it fits.
#[derive(Clone, Copy, Debug)]
struct Hint(usize);

impl PartialEq for Hint {
    /// No part of what a map is.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Hint {}

const fn page_up(bytes: u64) -> Option<u64> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE - 1)),
        None => None,
    }
}

const fn page_down(addr: u64) -> u64 {
    addr & !(PAGE_SIZE - 1)
}

const fn aligned(addr: u64) -> bool {
    addr.is_multiple_of(PAGE_SIZE)
}

impl AddressSpaceMap {
    /// A copy; `None` without memory.
    pub fn try_clone(&self) -> Option<Self> {
        let mut regions = Vec::new();
        regions.try_reserve_exact(self.regions.len()).ok()?;
        regions.extend_from_slice(&self.regions);
        Some(Self { regions, ..*self })
    }

    /// An empty map. Limits beyond user space are cut, and made page-aligned.
    pub fn new(limits: Limits) -> Self {
        let max = page_down(limits.max.min(USER_END));
        let min = page_up(limits.min).unwrap_or(max).min(max);
        let mmap_base = page_down(limits.mmap_base).clamp(min, max);
        Self {
            regions: Vec::new(),
            limits: Limits { min, mmap_base, max },
            brk_start: 0,
            brk: 0,
            mapped_bytes: 0,
            last_fault: Hint(0),
        }
    }

    /// Where mmap starts to look goes down by so many bytes (layout at random). The map is empty.
    pub fn lower_mmap_base(&mut self, bytes: u64) {
        let base = self.limits.mmap_base.saturating_sub(bytes);
        self.limits.mmap_base = page_down(base).max(self.limits.min);
    }

    /// The limits.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// The regions in rising order.
    pub fn iter(&self) -> core::slice::Iter<'_, Region> {
        self.regions.iter()
    }

    /// Bytes mapped, for RLIMIT_AS and statm.
    pub const fn total_bytes(&self) -> u64 {
        self.mapped_bytes
    }

    /// The region that has `addr`.
    pub fn find(&self, addr: u64) -> Option<&Region> {
        self.regions.get(self.index_at_or_after(addr)).filter(|region| region.start <= addr)
    }

    /// The region that has `addr`, or else the next one above it.
    pub fn at_or_after(&self, addr: u64) -> Option<&Region> {
        self.regions.get(self.index_at_or_after(addr))
    }

    /// True if every page of `range` is mapped with these rights; also for the empty range.
    pub fn covers(&self, range: Range<u64>, prot: Prot) -> bool {
        self.covered_to(range.clone(), prot) >= range.end
    }

    /// Where the first page of `range` lies that is not mapped with these rights; its end, or more, if there is none.
    pub fn covered_to(&self, range: Range<u64>, prot: Prot) -> u64 {
        let mut at = range.start;
        let mut regions = self.regions[self.index_at_or_after(at)..].iter();
        while at < range.end {
            match regions.next() {
                Some(region) if region.start <= at && region.prot.with(prot) == region.prot => at = region.end,
                _ => break,
            }
        }
        at
    }

    /// Forgets everything: what a process that ends or calls exec leaves behind. The caller frees the pages first.
    pub fn clear(&mut self) {
        self.regions.clear();
        self.mapped_bytes = 0;
        (self.brk_start, self.brk) = (0, 0);
    }

    /// Maps `region` where it says, in place of whatever is there (MAP_FIXED). Returns what it replaced.
    ///
    /// Errors: `Inval` unaligned or empty, `Perm` below the limits, `NoMem` above them or too many regions.
    pub fn map_fixed(&mut self, region: Region) -> Result<Pieces, MapError> {
        self.check_new(&region)?;
        let removed = self.remove(region.start, region.end)?;
        self.insert(region);
        Ok(removed)
    }

    /// Maps `region` where it says if nothing is there (MAP_FIXED_NOREPLACE), else `Exist`.
    pub fn map_fixed_noreplace(&mut self, region: Region) -> Result<(), MapError> {
        self.check_new(&region)?;
        if self.overlaps(region.start, region.end) {
            return Err(MapError::Exist);
        }
        self.reserve()?;
        self.insert(region);
        Ok(())
    }

    /// Maps `len` bytes, rounded up to pages, at a free place; returns its address. See [`Self::find_free`].
    pub fn map_anywhere(&mut self, len: u64, hint: u64, prot: Prot, kind: Kind) -> Result<u64, MapError> {
        let start = self.find_free(len, hint)?;
        self.reserve()?;
        let end = start + page_up(len).ok_or(MapError::NoMem)?;
        self.insert(Region { start, end, prot, kind });
        Ok(start)
    }

    /// A free range of `len` bytes, rounded up to pages: at `hint`, rounded up, if that is not 0 and free there;
    /// else the highest below `mmap_base`; else the highest at all. Keeps the gap below stacks.
    ///
    /// Errors: `Inval` for no bytes, `NoMem` for no room.
    pub fn find_free(&self, len: u64, hint: u64) -> Result<u64, MapError> {
        if len == 0 {
            return Err(MapError::Inval);
        }
        let len = page_up(len).ok_or(MapError::NoMem)?;
        let Limits { min, mmap_base, max } = self.limits;
        if len > max - min {
            return Err(MapError::NoMem);
        }
        if let Some(at) = page_up(hint).filter(|&at| at >= min && at <= max - len) {
            let next = self.regions.get(self.index_at_or_after(at));
            if next.is_none_or(|next| at + len <= next.start_with_gap()) {
                return Ok(at);
            }
        }
        self.highest_gap(len, mmap_base).or_else(|| self.highest_gap(len, max)).ok_or(MapError::NoMem)
    }

    /// The highest place for `len` bytes that ends at `top` or below.
    fn highest_gap(&self, len: u64, top: u64) -> Option<u64> {
        let mut top = top;
        let above = self.regions.partition_point(|region| region.start < top);
        if let Some(next) = self.regions.get(above) {
            top = top.min(next.start_with_gap());
        }
        for region in self.regions[..above].iter().rev() {
            if top >= region.end && top - region.end >= len {
                return Some(top - len);
            }
            top = top.min(region.start_with_gap());
        }
        top.checked_sub(len).filter(|&start| start >= self.limits.min)
    }

    /// Unmaps the pages of `range`, its end rounded up. Returns what was there; holes are no error.
    ///
    /// Errors: `Inval` unaligned start, empty, or beyond user space; `NoMem` if a split makes too many regions.
    pub fn unmap(&mut self, range: Range<u64>) -> Result<Pieces, MapError> {
        let (start, end) = self.check_range(range)?;
        self.remove(start, end)
    }

    /// Sets the rights of `range`, its end rounded up. Returns the pieces whose rights changed, as they were.
    ///
    /// Errors: `Inval` unaligned start; `NoMem` beyond user space or if a page of the range is not mapped. Nothing
    /// changes then: who wants what Linux does asks for the part before the first hole ([`Self::covered_to`]). An empty range is done at once.
    pub fn protect(&mut self, range: Range<u64>, prot: Prot) -> Result<Pieces, MapError> {
        if aligned(range.start) && range.start == range.end {
            return Ok(Pieces::new());
        }
        let (start, end) = self
            .check_range(range.clone())
            .map_err(|error| if aligned(range.start) && range.start < range.end { MapError::NoMem } else { error })?;
        if !self.covers(start..end, Prot::NONE) {
            return Err(MapError::NoMem);
        }
        let first = self.index_at_or_after(start);
        let mut pieces = Pieces::new();
        let affected = self.regions[first..].iter().take_while(|region| region.start < end);
        pieces.more.try_reserve(affected.clone().count().saturating_sub(1)).map_err(|_| MapError::NoMem)?;
        affected.filter(|region| region.prot != prot).for_each(|region| pieces.push(region.cut(start, end)));
        if pieces.is_empty() {
            return Ok(pieces);
        }
        self.reserve()?;
        self.split(start);
        self.split(end);
        let changed = self.regions[first..].iter_mut().filter(|region| region.start >= start);
        changed.take_while(|region| region.start < end).for_each(|region| region.prot = prot);
        self.regions.dedup_by(|next, previous| {
            let joins = previous.joins(next);
            if joins {
                previous.end = next.end;
            }
            joins
        });
        Ok(pieces)
    }

    /// Lets the stack above `addr` grow down to `addr`'s page, if it stays within `rlimit_bytes` and keeps the gap
    /// to what is mapped below with any right.
    pub fn grow_stack(&mut self, addr: u64, rlimit_bytes: u64) -> bool {
        let start = page_down(addr);
        let index = self.index_at_or_after(addr);
        let Some(stack) = self.regions.get(index) else { return false };
        if stack.kind != Kind::Stack || stack.start <= addr || start < self.limits.min {
            return false;
        }
        if stack.end - start > rlimit_bytes {
            return false;
        }
        if let Some(below) = index.checked_sub(1).and_then(|below| self.regions.get(below)) {
            let needs_gap = below.kind != Kind::Stack && below.prot != Prot::NONE;
            if needs_gap && start - below.end < STACK_GAP {
                return false;
            }
        }
        let stack = &mut self.regions[index];
        self.mapped_bytes += stack.start - start;
        stack.start = start;
        if index > 0 && self.regions[index - 1].joins(&self.regions[index]) {
            self.regions[index - 1].end = self.regions[index].end;
            self.regions.remove(index);
        }
        true
    }

    /// Says where the heap starts: after the program's last segment, rounded up to a page. For exec.
    pub fn set_brk_start(&mut self, start: u64) {
        let start = page_up(start).unwrap_or(self.limits.max).clamp(self.limits.min, self.limits.max);
        (self.brk_start, self.brk) = (start, start);
    }

    /// The present break.
    pub const fn current_brk(&self) -> u64 {
        self.brk
    }

    /// Moves the break (brk(2) as Linux has it): the new break, or the old one where that cannot be done, and the
    /// pieces unmapped by lowering it. `rlimit_bytes` bounds the heap's size.
    pub fn set_brk(&mut self, brk: u64, rlimit_bytes: u64) -> (u64, Pieces) {
        match self.try_set_brk(brk, rlimit_bytes) {
            Ok(pieces) => (self.brk, pieces),
            Err(_) => (self.brk, Pieces::new()),
        }
    }

    fn try_set_brk(&mut self, brk: u64, rlimit_bytes: u64) -> Result<Pieces, MapError> {
        if brk < self.brk_start || brk > self.limits.max || brk - self.brk_start > rlimit_bytes {
            return Err(MapError::NoMem);
        }
        let old_end = page_up(self.brk).ok_or(MapError::NoMem)?;
        let new_end = page_up(brk).ok_or(MapError::NoMem)?;
        let mut pieces = Pieces::new();
        if new_end < old_end {
            pieces = self.remove(new_end, old_end)?;
        } else if new_end > old_end {
            // One page stays free above the heap, and the gap below a stack.
            let next = self.regions.get(self.index_at_or_after(old_end));
            if new_end > self.limits.max || next.is_some_and(|next| next.start_with_gap() < new_end + PAGE_SIZE) {
                return Err(MapError::NoMem);
            }
            self.reserve()?;
            self.insert(Region { start: old_end, end: new_end, prot: Prot::RW, kind: Kind::Heap });
        }
        self.brk = brk;
        Ok(pieces)
    }

    /// What to do about a fault at `addr`, given what the page table has there; and the region's rights for the
    /// new entry (no rights if there is no region).
    #[inline]
    pub fn fault(&mut self, addr: u64, access: Access, pte: Pte) -> (FaultDecision, Prot) {
        let none = |decision| (decision, Prot::NONE);
        if addr >= self.limits.max {
            return none(FaultDecision::Segv(SegvCode::MapErr));
        }
        let found = match self.regions.get(self.last_fault.0) {
            Some(region) if region.start <= addr && addr < region.end => Some(region),
            _ => {
                self.last_fault = Hint(self.index_at_or_after(addr));
                self.regions.get(self.last_fault.0)
            }
        };
        let Some(region) = found else {
            return none(FaultDecision::Segv(SegvCode::MapErr));
        };
        if region.start > addr {
            return none(match region.kind {
                Kind::Stack if page_down(addr) >= self.limits.min => FaultDecision::GrowStack,
                _ => FaultDecision::Segv(SegvCode::MapErr),
            });
        }
        if !region.prot.allows(access) {
            return (FaultDecision::Segv(SegvCode::AccErr), region.prot);
        }
        let write = access == Access::Write;
        let decision = match (pte, region.kind.advanced(page_down(addr) - region.start)) {
            (Pte::Absent, Kind::FileBacked { file, offset }) if write => FaultDecision::FileCopy { file, offset },
            (Pte::Absent, Kind::FileBacked { file, offset }) => FaultDecision::FileRead { file, offset },
            (Pte::Absent, Kind::Shared { object, offset }) => FaultDecision::SharedPage { object, offset },
            (Pte::Absent, Kind::Special { offset }) => FaultDecision::SpecialPage { offset },
            (Pte::Absent, _) if write => FaultDecision::ZeroFill,
            (Pte::Absent, _) => FaultDecision::ReadZero,
            (Pte::ZeroPage, _) if write => FaultDecision::ZeroFill,
            (Pte::Page { writable: false, .. }, Kind::Shared { .. }) if write => FaultDecision::MakeWritable,
            (Pte::Page { writable: false, sole_owner: true }, _) if write => FaultDecision::MakeWritable,
            (Pte::Page { writable: false, sole_owner: false }, _) if write => FaultDecision::CopyOnWrite,
            (Pte::ZeroPage | Pte::Page { .. }, _) => FaultDecision::Refresh,
        };
        (decision, region.prot)
    }

    /// The index of the first region that ends above `addr`: the one that has it, or the next one.
    fn index_at_or_after(&self, addr: u64) -> usize {
        self.regions.partition_point(|region| region.end <= addr)
    }

    fn overlaps(&self, start: u64, end: u64) -> bool {
        self.regions.get(self.index_at_or_after(start)).is_some_and(|region| region.start < end)
    }

    fn check_range(&self, range: Range<u64>) -> Result<(u64, u64), MapError> {
        let end = page_up(range.end).ok_or(MapError::Inval)?;
        if !aligned(range.start) || range.start >= range.end || end > self.limits.max {
            return Err(MapError::Inval);
        }
        Ok((range.start, end))
    }

    fn check_new(&self, region: &Region) -> Result<(), MapError> {
        if !aligned(region.start) || !aligned(region.end) || region.start >= region.end {
            return Err(MapError::Inval);
        }
        if region.end > self.limits.max {
            return Err(MapError::NoMem);
        }
        if region.start < self.limits.min {
            return Err(MapError::Perm);
        }
        Ok(())
    }

    /// Room for two more regions, the most that any change adds.
    fn reserve(&mut self) -> Result<(), MapError> {
        if self.regions.len() + 2 > MAX_REGIONS {
            return Err(MapError::NoMem);
        }
        self.regions.try_reserve(2).map_err(|_| MapError::NoMem)
    }

    /// Puts in a region where nothing is mapped. Room is reserved.
    fn insert(&mut self, region: Region) {
        self.mapped_bytes += region.size();
        let index = self.index_at_or_after(region.start);
        let (below, from) = self.regions.split_at_mut(index);
        let joined_below = below.last_mut().filter(|below| below.joins(&region));
        let next = from.first_mut();
        match (joined_below, next) {
            (Some(below), Some(next)) if region.joins(next) => {
                below.end = next.end;
                self.regions.remove(index);
            }
            (Some(below), _) => below.end = region.end,
            (None, Some(next)) if region.joins(next) => {
                next.start = region.start;
                next.kind = region.kind;
            }
            (None, _) => self.regions.insert(index, region),
        }
    }

    /// Takes out all that lies in `start..end`. On an error nothing is changed. Afterwards room is reserved.
    fn remove(&mut self, start: u64, end: u64) -> Result<Pieces, MapError> {
        self.reserve()?;
        let mut pieces = Pieces::new();
        let first = self.index_at_or_after(start);
        let affected = self.regions[first..].iter().take_while(|region| region.start < end).count();
        if affected == 0 {
            return Ok(pieces);
        }
        pieces.more.try_reserve(affected - 1).map_err(|_| MapError::NoMem)?;
        for region in &self.regions[first..first + affected] {
            let piece = region.cut(start, end);
            self.mapped_bytes -= piece.size();
            pieces.push(piece);
        }
        let left = self.regions[first];
        let right = self.regions[first + affected - 1];
        let keep_left = (left.start < start).then(|| left.cut(left.start, start));
        let keep_right = (right.end > end).then(|| right.cut(end, right.end));
        // The usual cases change in place; a hole in one region makes one more.
        match (keep_left, keep_right) {
            (Some(left), Some(right)) if affected == 1 => {
                self.regions[first] = left;
                self.regions.insert(first + 1, right);
            }
            (left, right) => {
                let mut from = first;
                let mut to = first + affected;
                if let Some(left) = left {
                    self.regions[from] = left;
                    from += 1;
                }
                if let Some(right) = right {
                    to -= 1;
                    self.regions[to] = right;
                }
                self.regions.drain(from..to);
            }
        }
        Ok(pieces)
    }

    /// Makes `at` a border between regions. Room is reserved.
    fn split(&mut self, at: u64) {
        let index = self.index_at_or_after(at);
        if let Some(&region) = self.regions.get(index).filter(|region| region.start < at) {
            self.regions[index] = region.cut(region.start, at);
            self.regions.insert(index + 1, region.cut(at, region.end));
        }
    }
}

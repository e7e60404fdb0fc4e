//! Which pages of an address space are in memory, and bringing them in before they are needed: MAP_POPULATE, mlock(2), mincore(2).
//!
//! Process context. Memory is never swapped, so a page that was brought in stays; what mlock adds is that no fault comes later, which is
//! what a program on a quiet CPU wants. The address space's lock is taken page by page.
//! Source: mlock(2), mincore(2); Linux mm/mlock.c and mm/gup.c for which pages are brought in how.

use super::address_space::{AddressSpace, slot_in};
use super::{frame, special};
use crate::arch::page_table::{PAGE_SIZE, USER_END, bits};
use crate::errno::{EAGAIN, EINTR, ENOMEM, Errno};
use core::ops::Range;
use core::sync::atomic::Ordering;
use kcore::vma::{Access, Kind, Prot, Region};

impl AddressSpace {
    /// Bring in the pages of `range` that programs may touch: private ones that may be written as own copies, others as a read does. Goes on
    /// behind holes. `interrupted`: whether a signal waits.
    ///
    /// Errors: ENOMEM for a hole, EAGAIN for a page that cannot be brought in, EINTR for a signal; pages before stay in.
    pub fn populate(&self, range: Range<u64>, interrupted: impl Fn() -> bool) -> Result<(), Errno> {
        let mut at = range.start;
        let mut holes = false;
        while at < range.end {
            let Some(region) = self.region_at_or_after(at).filter(|region| region.start < range.end) else {
                return Err(ENOMEM);
            };
            holes |= region.start > at;
            let private = !matches!(region.kind, Kind::Shared { .. } | Kind::Special { .. });
            let access = if private && region.prot.write() { Access::Write } else { Access::Read };
            at = at.max(region.start);
            let end = region.end.min(range.end);
            while at < end && region.prot != Prot::NONE {
                if interrupted() {
                    return Err(EINTR);
                }
                self.fault(at, access).map_err(|_| EAGAIN)?;
                at += PAGE_SIZE;
            }
            at = end;
        }
        if holes { Err(ENOMEM) } else { Ok(()) }
    }

    /// The machine has lost the frame at `phys`, which this address space uses: the address, the lowest if there are several. The frame is
    /// held for ever, so that the allocator gives it to nobody; the page is taken out, and what stands in its place is SIGBUS, and EFAULT for a
    /// system call. `None`: it is not mapped here, or belongs to somebody else (a device, the initrd), or there is no room to say so.
    pub fn hold_lost(&self, phys: u64) -> Option<u64> {
        let mut inner = self.inner.lock();
        let mut found = None;
        inner.table.for_each(0, USER_END, |at, entry| {
            let entry = entry.load(Ordering::Relaxed);
            if entry & (bits::PRESENT | bits::FOREIGN) == bits::PRESENT && entry & bits::ADDRESS == phys {
                found = Some(at);
            }
            found.is_none()
        });
        let at = found?;
        // It is mapped, so it is a frame of the allocator's, and counted.
        frame::share(phys);
        let prot = inner.map.find(at)?.prot;
        let lost = Region::new(at..at + PAGE_SIZE, prot, Kind::Special { offset: special::LOST });
        match inner.map.map_fixed(lost) {
            Ok(pieces) => {
                inner.zap_pieces(&pieces);
                Some(at)
            }
            // Taken out all the same: the kernel is not to read it until the program has ended.
            Err(_) => {
                inner.zap(at..at + PAGE_SIZE);
                None
            }
        }
    }

    /// Whether the page at `at` needs no reading in from anywhere: it is mapped, or its file has it in memory. `None` in a hole.
    pub fn is_resident(&self, at: u64) -> Option<bool> {
        let inner = self.inner.lock();
        let region = inner.map.find(at)?;
        if inner.table.lookup(at).is_some_and(|entry| entry.load(Ordering::Relaxed) != 0) {
            return Some(true);
        }
        let (Kind::FileBacked { offset, .. } | Kind::Shared { offset, .. }) = region.kind else { return Some(false) };
        let shown = slot_in(region).and_then(|slot| inner.files.get(slot)?.as_ref());
        Some(shown.is_some_and(|mapped| mapped.pages.is_resident(offset + (at - region.start))))
    }
}

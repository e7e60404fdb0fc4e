//! Memory of an address space that is not the running task's: for debuggers, /proc/PID/mem and process_vm_readv(2).
//!
//! Process context. Bytes are copied through the direct map under the address space's lock, page by page, to and from
//! kernel memory. By `force` a debugger writes where the program may not: into a copy of the page that is the program's own.

use super::address_space::{AddressSpace, Inner, entry_flags};
use super::frame;
use super::page_fault::{FaultError, copy_frame, zero_page};
use crate::arch::page_table::{PAGE_SIZE, USER_END, bits, phys_to_virt};
use core::sync::atomic::Ordering;
use kcore::vma::{Access, FaultDecision, Kind, Prot, SegvCode};

const NOT_THERE: FaultError = FaultError::Segv(SegvCode::MapErr);
const NOT_ALLOWED: FaultError = FaultError::Segv(SegvCode::AccErr);

/// Bytes from `at` to the end of its page, or `len`.
fn step(at: u64, len: usize) -> usize {
    ((PAGE_SIZE - at % PAGE_SIZE) as usize).min(len)
}

impl Inner {
    /// The page of `at` for reading: its frame. `force`: also where the program has no right; what was never touched there is zeros, or the file's.
    fn page_to_read(&mut self, at: u64, force: bool) -> Result<u64, FaultError> {
        let region = *self.map.find(at).filter(|_| at < USER_END).ok_or(NOT_THERE)?;
        let there = |inner: &Self| inner.table.lookup(at).map_or(0, |e| e.load(Ordering::Relaxed));
        let mut entry = there(self);
        if force && region.prot == Prot::NONE {
            return match (entry, region.kind) {
                (0, Kind::Anonymous | Kind::Stack | Kind::Heap) => Ok(zero_page()),
                (0, kind) => self.bring_in_without_rights(at, region.start, kind),
                (entry, _) => Ok(entry & bits::ADDRESS),
            };
        }
        if entry & bits::PRESENT == 0 {
            self.fault(at, Access::Read)?;
            entry = there(self);
        }
        Ok(entry & bits::ADDRESS)
    }

    /// The page of `at` of a file, in a region without rights that begins at `start`: there from now on, as a page would be that was touched before the
    /// rights were taken.
    fn bring_in_without_rights(&mut self, at: u64, start: u64, kind: Kind) -> Result<u64, FaultError> {
        let page = at & !(PAGE_SIZE - 1);
        let decision = match kind.advanced(page - start) {
            Kind::FileBacked { file, offset } => FaultDecision::FileRead { file, offset },
            Kind::Shared { object, offset } => FaultDecision::SharedPage { object, offset },
            Kind::Special { offset } => FaultDecision::SpecialPage { offset },
            _ => return Err(NOT_ALLOWED),
        };
        let leaf = self.table.lookup(page);
        self.less_frequent(at, Access::Read, leaf, Prot::NONE, decision)?;
        let entry = self.table.lookup(page).map_or(0, |e| e.load(Ordering::Relaxed));
        if entry == 0 { Err(NOT_ALLOWED) } else { Ok(entry & bits::ADDRESS) }
    }

    /// The page of `at` for writing: its frame, which nobody else shows.
    fn page_to_write(&mut self, at: u64, force: bool) -> Result<u64, FaultError> {
        let region = *self.map.find(at).filter(|_| at < USER_END).ok_or(NOT_THERE)?;
        if region.prot.write() {
            self.fault(at, Access::Write)?;
            return Ok(self.table.lookup(at).map_or(0, |e| e.load(Ordering::Relaxed)) & bits::ADDRESS);
        }
        if !force || matches!(region.kind, Kind::Shared { .. } | Kind::Special { .. }) {
            return Err(NOT_ALLOWED);
        }
        let now = self.page_to_read(at, true)?;
        let leaf = self.table.lookup(at);
        let entry = leaf.map_or(0, |e| e.load(Ordering::Relaxed));
        if entry != 0 && entry & bits::FOREIGN == 0 && frame::users(now) == 1 {
            return Ok(now);
        }
        let own = frame::alloc().ok_or(FaultError::NoMemory)?;
        // SAFETY: both are whole frames in the direct map; the new one is ours, the old one stays mapped under the lock.
        unsafe { copy_frame(own, now) };
        let flags = if entry == 0 { entry_flags(region.prot) } else { entry };
        let flags = flags & !(bits::ADDRESS | bits::FOREIGN | bits::COPY_ON_WRITE);
        self.replace(leaf, at & !(PAGE_SIZE - 1), own | flags)?;
        Ok(own)
    }
}

impl AddressSpace {
    /// Read at `from` as far as there is something to read: how many bytes. `force`: also where the program has no right.
    pub fn read_foreign(&self, from: u64, to: &mut [u8], force: bool) -> usize {
        let mut done = 0;
        while done < to.len() {
            let at = from.wrapping_add(done as u64);
            let n = step(at, to.len() - done);
            let mut inner = self.inner.lock();
            let Ok(phys) = inner.page_to_read(at, force) else { break };
            let from = (phys_to_virt(phys) + at % PAGE_SIZE) as *const u8;
            // SAFETY: the frame is in the direct map and stays mapped here under the lock; `n` stays within it and within `to`.
            unsafe { core::ptr::copy_nonoverlapping(from, to[done..].as_mut_ptr(), n) };
            done += n;
        }
        done
    }

    /// Write at `to` as far as that is allowed: how many bytes. `force`: also private memory that the program may only read.
    pub fn write_foreign(&self, to: u64, from: &[u8], force: bool) -> usize {
        let mut done = 0;
        while done < from.len() {
            let at = to.wrapping_add(done as u64);
            let n = step(at, from.len() - done);
            let mut inner = self.inner.lock();
            let Ok(phys) = inner.page_to_write(at, force) else { break };
            let to = (phys_to_virt(phys) + at % PAGE_SIZE) as *mut u8;
            // SAFETY: as in `read_foreign`, and nobody else shows the frame (or all who do share it).
            unsafe { core::ptr::copy_nonoverlapping(from[done..].as_ptr(), to, n) };
            done += n;
        }
        done
    }
}

//! The copy of an address space that fork makes.
//!
//! Process context. The parent's lock is held throughout, and its translations that lost their write right are flushed before it
//! is released.

use super::address_space::{AddressSpace, Inner};
use super::tlb_flush::flush;
use super::user_page_table::UserPageTable;
use super::{failure, frame};
use crate::arch::page_table::{self as pt, bits};
use crate::spin_lock::SpinLock;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use kcore::vma::Kind;

/// Bits of an address below those that choose the leaf table.
const LEAF_SHIFT: u32 = 21;

/// A copy of a list of counted references; `None` without memory.
fn try_clone<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    let mut copy = Vec::new();
    if failure::strikes() || copy.try_reserve_exact(list.len()).is_err() {
        return None;
    }
    copy.extend_from_slice(list);
    Some(copy)
}

impl AddressSpace {
    /// fork: the same map, private pages shared copy-on-write, shared ones shared.
    pub fn fork(&self) -> Option<AddressSpace> {
        let inner = self.inner.lock();
        let mut child = Inner {
            map: inner.map.try_clone()?,
            table: UserPageTable::new()?,
            files: try_clone(&inner.files)?,
            resident: 0,
        };
        let mut write_protected = false;
        let mut enough_memory = true;
        // The child's leaf table that was used last, and which it is.
        let mut last: Option<(u64, &'static pt::Table)> = None;
        for region in inner.map.iter() {
            let shared = matches!(region.kind, Kind::Shared { .. });
            inner.table.for_each(region.start, region.end, |virt, e| {
                let mut v = e.load(Ordering::Relaxed);
                if v & bits::FOREIGN == 0 && !shared {
                    write_protected |= v & bits::WRITABLE != 0;
                    v = v & !(bits::WRITABLE | bits::DIRTY) | bits::COPY_ON_WRITE;
                    e.store(v, Ordering::Release);
                }
                let leaves = match last {
                    Some((number, leaves)) if number == virt >> LEAF_SHIFT => Some(leaves),
                    _ => child.table.leaves(virt),
                };
                let Some(leaves) = leaves else {
                    enough_memory = false;
                    return false;
                };
                last = Some((virt >> LEAF_SHIFT, leaves));
                if v & bits::FOREIGN == 0 {
                    frame::share(v & bits::ADDRESS);
                }
                leaves[pt::index(virt, 1)].store(v, Ordering::Relaxed);
                child.resident += 1;
                true
            });
            if !enough_memory {
                break;
            }
        }
        if write_protected {
            flush(self.root, 0..pt::USER_END);
        }
        drop(inner);
        let root = child.table.root();
        let child = AddressSpace {
            root,
            inner: SpinLock::new(child),
            membarrier: core::sync::atomic::AtomicU32::new(self.membarrier.load(Ordering::Relaxed)),
            lock_future: core::sync::atomic::AtomicBool::new(false),
        };
        enough_memory.then_some(child)
    }
}

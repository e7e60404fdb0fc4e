//! The kernel heap: the talc allocator over chunks of page frames in the direct map. Chunks are never given back. What is large has a block of
//! frames of its own instead, which goes back when it is freed.
//!
//! Process context only: nothing that an interrupt reaches allocates. Interrupts are off while the lock is held, because locks that
//! interrupts take are held around allocations.

use super::frame;
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::{DIRECT_MAP, PAGE_SIZE, phys_to_virt};
use crate::spin_lock::{Guard, SpinLock, rank};
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicU64, Ordering};
use talc::TalcCell;
use talc::source::Manual;

/// Order of a chunk: 64 KiB, or more if one allocation needs it.
const CHUNK_ORDER: u32 = 4;

/// From so many bytes on an allocation has its own block.
const LARGE: usize = 512 << 10;

/// The order of the block of a large allocation; `None`: it is not one, or there are none so large.
fn order_of_large(layout: Layout) -> Option<u32> {
    let pages = layout.size().max(layout.align()).div_ceil(PAGE_SIZE as usize).next_power_of_two();
    (layout.size() >= LARGE).then(|| pages.trailing_zeros()).filter(|&order| order <= kcore::buddy::MAX_ORDER)
}

struct Heap(SpinLock<TalcCell<Manual>, { rank::HEAP }>);

#[global_allocator]
static HEAP: Heap = Heap(SpinLock::new(TalcCell::new(Manual)));

/// Frames of all chunks.
static CHUNK_FRAMES: AtomicU64 = AtomicU64::new(0);
/// Bytes handed out; changed under the lock.
static USED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes in use, as they were asked for, and the frames that the heap has taken for good.
pub fn usage() -> (u64, u64) {
    (USED_BYTES.load(Ordering::Relaxed), CHUNK_FRAMES.load(Ordering::Relaxed))
}

/// So many bytes more are in use; fewer, if it wraps. With the lock held.
#[inline]
fn account(_: &Locked<'_>, bytes: usize) {
    USED_BYTES.store(USED_BYTES.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
}

type Locked<'a> = Guard<'a, TalcCell<Manual>, { rank::HEAP }, IrqOff>;

/// Give the heap another chunk that holds `layout`. False without memory.
fn grow(heap: &Locked, layout: Layout) -> bool {
    let bytes = (layout.size() + layout.align() + 1024).next_power_of_two() as u64;
    let least = (bytes / PAGE_SIZE).max(1).trailing_zeros();
    if least > kcore::buddy::MAX_ORDER {
        return false;
    }
    // A chunk of the usual size, else the largest that there is.
    for order in (least..=least.max(CHUNK_ORDER)).rev() {
        if let Some(phys) = frame::alloc_order(order) {
            CHUNK_FRAMES.fetch_add(1 << order, Ordering::Relaxed);
            // SAFETY: the chunk is ours for ever and mapped writable.
            return unsafe { heap.claim(phys_to_virt(phys) as *mut u8, (PAGE_SIZE << order) as usize).is_some() };
        }
    }
    false
}

// SAFETY: talc hands out disjoint blocks of the layout asked for; the lock serialises it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(order) = order_of_large(layout) {
            let Some(phys) = frame::alloc_order(order) else { return core::ptr::null_mut() };
            account(&self.0.lock_irq(), layout.size());
            return phys_to_virt(phys) as *mut u8;
        }
        let heap = self.0.lock_irq();
        // SAFETY: the caller's contract (layout not empty) is talc's.
        unsafe {
            let mut p = GlobalAlloc::alloc(&*heap, layout);
            if p.is_null() && grow(&heap, layout) {
                p = GlobalAlloc::alloc(&*heap, layout);
            }
            if !p.is_null() {
                account(&heap, layout.size());
            }
            p
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if let Some(order) = order_of_large(layout) {
            account(&self.0.lock_irq(), layout.size().wrapping_neg());
            return frame::free_order(ptr as u64 - DIRECT_MAP, order);
        }
        let heap = self.0.lock_irq();
        account(&heap, layout.size().wrapping_neg());
        // SAFETY: the caller's contract is talc's.
        unsafe { GlobalAlloc::dealloc(&*heap, ptr, layout) }
    }
}

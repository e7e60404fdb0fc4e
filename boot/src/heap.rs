//! The loader's heap: a bump allocator over a static block, nothing is ever freed. Responses to the kernel
//! live in it, so it is reported as bootloader-reclaimable with the rest of the loader's image.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Bytes: enough for 1024 CPUs (about 100 bytes each), 256 memory map entries and long command lines.
const HEAP_SIZE: usize = 512 * 1024;

#[repr(C, align(64))]
struct Heap {
    block: UnsafeCell<[u8; HEAP_SIZE]>,
    used: AtomicUsize,
}

// SAFETY: 1. `used` is atomic. 2. `block` is handed out in pieces that never overlap.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap { block: UnsafeCell::new([0; HEAP_SIZE]), used: AtomicUsize::new(0) };

// SAFETY: 1. Pieces are aligned as asked and lie in the block, checked below. 2. `used` only grows, so no
// piece is handed out twice. 3. Exhaustion returns null.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = self.block.get() as usize;
        let piece = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let end = (start + used).next_multiple_of(layout.align()) - start + layout.size();
            (end <= HEAP_SIZE).then_some(end)
        });
        match piece {
            Ok(used) => {
                let offset = (start + used).next_multiple_of(layout.align()) - start;
                // SAFETY: offset + size <= HEAP_SIZE was checked in the closure above.
                unsafe { self.block.get().cast::<u8>().add(offset) }
            }
            Err(_) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _pointer: *mut u8, _layout: Layout) {}
}

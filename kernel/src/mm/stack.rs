//! Kernel stacks: slots of fixed size with an unmapped guard below, recycled, never unmapped.

use super::kernel_map;
use crate::arch::page_table::PAGE_SIZE;
use crate::spin_lock::{SpinLock, rank};

/// Pages of a task's kernel stack; debug builds have bigger frames.
pub const TASK_STACK_PAGES: u64 = if cfg!(debug_assertions) { 8 } else { 4 };
/// Pages of an IST stack.
pub const IST_STACK_PAGES: u64 = if cfg!(debug_assertions) { 4 } else { 2 };
const GUARD_PAGES: u64 = 4;

/// Free task stacks: the bottom word of each holds the bottom of the next.
static FREE: SpinLock<u64, { rank::STACK }> = SpinLock::new(0);

/// One task's kernel stack; goes back to the free slots when dropped.
pub struct KernelStack {
    bottom: u64,
}

impl KernelStack {
    /// A stack, or `None` without memory. Its content is what the last owner left.
    pub fn new() -> Option<Self> {
        let mut free = FREE.lock_irq();
        if *free != 0 {
            let bottom = *free;
            // SAFETY: a free slot's bottom word is the link that `drop` wrote.
            *free = unsafe { (bottom as *const u64).read() };
            return Some(Self { bottom });
        }
        drop(free);
        Some(Self { bottom: kernel_map::map_stack(GUARD_PAGES, TASK_STACK_PAGES)? })
    }

    /// First address above the stack, 16-byte aligned.
    #[inline]
    pub fn top(&self) -> u64 {
        self.bottom + TASK_STACK_PAGES * PAGE_SIZE
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        let mut free = FREE.lock_irq();
        // SAFETY: nobody runs on a stack that is dropped; the slot stays mapped.
        unsafe { (self.bottom as *mut u64).write(*free) };
        *free = self.bottom;
    }
}

/// An IST stack whose top word holds `per_cpu`: the value for the TSS (address of that word). Never freed.
pub fn new_ist(per_cpu: u64) -> Option<u64> {
    let top = kernel_map::map_stack(GUARD_PAGES, IST_STACK_PAGES)? + IST_STACK_PAGES * PAGE_SIZE - 16;
    // SAFETY: freshly mapped, ours.
    unsafe { (top as *mut u64).write(per_cpu) };
    Some(top)
}

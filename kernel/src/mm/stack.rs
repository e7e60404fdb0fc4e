//! Kernel stacks: slots of fixed size with an unmapped guard below. Slots are recycled; what too many free ones hold goes back.
//!
//! The stack of a task that may run is mapped for good: entry code uses it before posted flushes are run. Only free slots lose
//! their frames, and their page tables stay.

use super::{failure, frame, kernel_map, tlb_flush};
use crate::arch::page_table::PAGE_SIZE;
use crate::spin_lock::{SpinLock, rank};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Pages of a task's kernel stack; debug builds have bigger frames.
pub const TASK_STACK_PAGES: u64 = if cfg!(debug_assertions) { 8 } else { 4 };
/// Pages of an IST stack.
pub const IST_STACK_PAGES: u64 = if cfg!(debug_assertions) { 4 } else { 2 };
/// Bytes of an IST stack.
pub const IST_STACK_BYTES: u64 = IST_STACK_PAGES * PAGE_SIZE;
/// Bytes of a task's kernel stack.
pub const TASK_STACK_BYTES: u64 = TASK_STACK_PAGES * PAGE_SIZE;
const GUARD_PAGES: u64 = 4;
/// Bytes that are not mapped below each.
pub const GUARD_BYTES: u64 = GUARD_PAGES * PAGE_SIZE;
/// More free stacks than this are not kept.
const KEEP_MOST: u64 = 32;
/// Stacks whose frames go back by one flush.
const AT_ONCE: usize = 16;

struct Free {
    /// Free task stacks: the bottom word of each holds the bottom of the next.
    mapped: u64,
    /// Slots without frames.
    empty: ArrayVec<u64, 256>,
}

static FREE: SpinLock<Free, { rank::STACK }> = SpinLock::new(Free { mapped: 0, empty: ArrayVec::new_const() });
/// Length of `Free::mapped`; changed under the lock, read without it.
static MAPPED: AtomicU64 = AtomicU64::new(0);
/// Stacks whose frames went back, since boot.
static TRIMMED: AtomicU64 = AtomicU64::new(0);

impl Free {
    fn pop(&mut self) -> Option<u64> {
        if self.mapped == 0 {
            return None;
        }
        let bottom = self.mapped;
        // SAFETY: a free slot is mapped, and its bottom word is the link that `push` wrote.
        self.mapped = unsafe { (bottom as *const u64).read() };
        MAPPED.store(MAPPED.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        Some(bottom)
    }

    fn push(&mut self, bottom: u64) {
        // SAFETY: nobody runs on a stack that is free; the slot is mapped.
        unsafe { (bottom as *mut u64).write(self.mapped) };
        self.mapped = bottom;
        MAPPED.store(MAPPED.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// One task's kernel stack; goes back to the free slots when dropped.
pub struct KernelStack {
    bottom: u64,
}

impl KernelStack {
    /// A stack, or `None` without memory. Its content is what the last owner left, or zeros.
    pub fn new() -> Option<Self> {
        if failure::strikes() {
            return None;
        }
        let mut free = FREE.lock_irq();
        if let Some(bottom) = free.pop() {
            return Some(Self { bottom });
        }
        let empty = free.empty.pop();
        drop(free);
        let bottom = empty.or_else(|| kernel_map::reserve(GUARD_PAGES, TASK_STACK_PAGES))?;
        if kernel_map::fill(bottom, TASK_STACK_PAGES).is_none() {
            // A slot that finds no room in the list is an address that is not used again.
            let _ = FREE.lock_irq().empty.try_push(bottom);
            return None;
        }
        Some(Self { bottom })
    }

    /// First address above the stack, 16-byte aligned.
    #[inline]
    pub fn top(&self) -> u64 {
        self.bottom + TASK_STACK_PAGES * PAGE_SIZE
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        FREE.lock_irq().push(self.bottom);
    }
}

/// If many stacks are free, give the frames of some back: unmapped here, flushed everywhere, isolated CPUs by their own next
/// entry. Process context, interrupts on, no locks.
pub fn trim() {
    const FRAMES: usize = AT_ONCE * TASK_STACK_PAGES as usize;
    while MAPPED.load(Ordering::Relaxed) > KEEP_MOST {
        let mut slots = ArrayVec::<u64, AT_ONCE>::new();
        let mut free = FREE.lock_irq();
        while !slots.is_full() && slots.len() < free.empty.remaining_capacity() {
            let Some(bottom) = free.pop() else { break };
            slots.push(bottom);
        }
        drop(free);
        if slots.is_empty() {
            return;
        }
        let mut frames = ArrayVec::<u64, FRAMES>::new();
        slots.iter().for_each(|&bottom| kernel_map::take(bottom, TASK_STACK_PAGES, &mut frames));
        tlb_flush::flush_kernel();
        frames.drain(..).for_each(frame::release);
        TRIMMED.fetch_add(slots.len() as u64, Ordering::Relaxed);
        let mut free = FREE.lock_irq();
        for bottom in slots {
            let _ = free.empty.try_push(bottom);
        }
    }
}

/// Free stacks that hold frames, and how many gave theirs back since boot.
pub fn counts() -> (u64, u64) {
    (MAPPED.load(Ordering::Relaxed), TRIMMED.load(Ordering::Relaxed))
}

/// An IST stack whose top word holds `per_cpu`: the value for the TSS (address of that word). Never freed.
pub fn new_ist(per_cpu: u64) -> Option<u64> {
    let top = kernel_map::map_stack(GUARD_PAGES, IST_STACK_PAGES)? + IST_STACK_PAGES * PAGE_SIZE - 16;
    // SAFETY: freshly mapped, ours.
    unsafe { (top as *mut u64).write(per_cpu) };
    Some(top)
}

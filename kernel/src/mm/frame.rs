//! Page frames: the buddy allocator of `kcore::buddy` behind a lock, with a user count per frame.
//!
//! Process context and page faults; interrupts off while the lock is held, so that interrupt-time frees are allowed.

use super::failure;
use crate::arch::page_table::{PAGE_SIZE, phys_to_virt};
use crate::limine::{self, BootInfo};
use crate::spin_lock::{SpinLock, rank};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use kcore::buddy::{Buddy, FrameInfo};

/// Single frames kept at hand, so that taking one and giving it back does not split and merge blocks.
const READY: usize = 128;

struct Frames {
    buddy: Buddy,
    ready: ArrayVec<u32, READY>,
}

static FRAMES: SpinLock<Frames, { rank::FRAME }> =
    SpinLock::new(Frames { buddy: Buddy::new(), ready: ArrayVec::new_const() });
static INFO: AtomicPtr<FrameInfo> = AtomicPtr::new(core::ptr::null_mut());
static INFO_LEN: AtomicUsize = AtomicUsize::new(0);
static RAM_BYTES: AtomicU64 = AtomicU64::new(0);
/// Frames that `init` found free.
static MANAGED: AtomicU64 = AtomicU64::new(0);

#[inline]
fn info() -> &'static [FrameInfo] {
    // SAFETY: set once by `init` to an array that lives for ever; before that the length is 0.
    unsafe {
        let p = INFO.load(Ordering::Relaxed);
        if p.is_null() { &[] } else { core::slice::from_raw_parts(p, INFO_LEN.load(Ordering::Relaxed)) }
    }
}

/// Take over all usable RAM. Boot CPU, once. The frame table itself is cut from the largest usable range.
pub fn init(boot: &BootInfo) -> Result<(), &'static str> {
    let usable = || boot.memory_map.iter().filter(|e| limine::is_usable(e));
    // Modules too: what of them is used up comes later.
    let ram = boot.memory_map.iter().filter(|e| limine::is_ram(e));
    let end = ram.map(|e| e.base + e.length).max().ok_or("the memory map has no usable RAM")?;
    let frames = (end / PAGE_SIZE) as usize;
    let table_bytes = (frames * size_of::<FrameInfo>()).next_multiple_of(PAGE_SIZE as usize) as u64;
    let largest = usable().max_by_key(|e| e.length).ok_or("the memory map has no usable RAM")?;
    if largest.length < table_bytes + (4 << 20) {
        return Err("too little memory: the largest range does not hold the frame table and 4 MiB more");
    }
    let table_phys = (largest.base + largest.length - table_bytes) & !(PAGE_SIZE - 1);
    let table = phys_to_virt(table_phys) as *mut FrameInfo;
    for i in 0..frames {
        // SAFETY: the range is usable RAM, mapped by the loader's direct map, and nobody else's.
        unsafe { table.add(i).write(FrameInfo::new()) };
    }
    INFO.store(table, Ordering::Relaxed);
    INFO_LEN.store(frames, Ordering::Relaxed);
    let mut frames = FRAMES.lock_irq();
    for e in usable() {
        // Frame 0 stays unused: a physical address of 0 means "none".
        let start = e.base.div_ceil(PAGE_SIZE).max(1);
        let end = (e.base + e.length).min(if e.base == largest.base { table_phys } else { u64::MAX }) / PAGE_SIZE;
        if start < end {
            frames.buddy.add_range(info(), start as u32, end as u32);
        }
    }
    MANAGED.store(frames.buddy.free_frames(), Ordering::Relaxed);
    let ram = boot.memory_map.iter().filter(|e| limine::is_ram(e)).map(|e| e.length).sum();
    RAM_BYTES.store(ram, Ordering::Relaxed);
    Ok(())
}

/// Take over the pages from physical address `start` to `end`, which were the loader's. Process context, at boot.
///
/// # Safety
/// 1. They are RAM of the loader's memory map that is not usable there, given once; 2. nobody reads or writes them any more.
pub unsafe fn add(start: u64, end: u64) {
    let (first, last) = ((start / PAGE_SIZE) as u32, (end / PAGE_SIZE) as u32);
    let mut frames = FRAMES.lock_irq();
    frames.buddy.add_range(info(), first, last);
    MANAGED.fetch_add((last - first).into(), Ordering::Relaxed);
}

/// RAM that the loader gave us, in bytes.
pub fn ram_bytes() -> u64 {
    RAM_BYTES.load(Ordering::Relaxed)
}

/// What only the kernel's own heap, kernel threads and the first process may use, in bytes: so that running out of memory ends a
/// program, not the kernel.
pub fn reserve_bytes() -> u64 {
    (ram_bytes() / 64).max(2 << 20)
}

/// Whether more than `times` the reserve is free. New processes need 2 and files 4, so that programs that run find pages where
/// those find none any more.
pub fn above_reserve(times: u64) -> bool {
    !failure::strikes() && free_bytes() > times * reserve_bytes()
}

/// Free bytes.
pub fn free_bytes() -> u64 {
    let frames = FRAMES.lock_irq();
    (frames.buddy.free_frames() + frames.ready.len() as u64) * PAGE_SIZE
}

/// Frames that somebody has.
pub fn used_frames() -> u64 {
    MANAGED.load(Ordering::Relaxed) - free_bytes() / PAGE_SIZE
}

/// One frame with one user, content undefined. `None` where only the reserve is left and the running process may not use it.
#[inline]
pub fn alloc() -> Option<u64> {
    if failure::strikes() {
        return None;
    }
    let mut frames = FRAMES.lock_irq();
    let number = match frames.ready.pop() {
        Some(number) => number,
        None => refill(&mut frames)?,
    };
    info()[number as usize].share();
    Some(number as u64 * PAGE_SIZE)
}

/// Take half of what may be at hand from the allocator; one of them is the caller's.
#[cold]
fn refill(frames: &mut Frames) -> Option<u32> {
    if frames.buddy.free_frames() * PAGE_SIZE <= reserve_bytes() && !may_use_reserve() {
        return None;
    }
    while frames.ready.len() < READY / 2 {
        let Some(number) = frames.buddy.alloc(info(), 0) else { break };
        // Nobody's, and not free for the allocator.
        info()[number as usize].unshare();
        frames.ready.push(number);
    }
    frames.ready.pop()
}

/// Give half of what is at hand back.
#[cold]
fn drain(frames: &mut Frames) {
    while frames.ready.len() > READY / 2 {
        let Some(number) = frames.ready.pop() else { break };
        frames.buddy.free(info(), number, 0);
    }
}

fn may_use_reserve() -> bool {
    crate::process::try_current_thread().is_none_or(|t| t.process.pid == 1)
}

/// 2^order contiguous frames with one user, content undefined. Knows no reserve: for the heap.
#[inline]
pub fn alloc_order(order: u32) -> Option<u64> {
    let mut frames = FRAMES.lock_irq();
    frames.buddy.alloc(info(), order).map(|f| f as u64 * PAGE_SIZE)
}

/// One frame full of zeros.
#[inline]
pub fn alloc_zeroed() -> Option<u64> {
    let phys = alloc()?;
    clear(phys);
    Some(phys)
}

/// Fill a frame with zeros.
#[inline]
pub fn clear(phys: u64) {
    // SAFETY: the caller owns the frame; `rep stosq` writes exactly one page of the direct map.
    unsafe {
        core::arch::asm!(
            "rep stosq",
            inout("rdi") phys_to_virt(phys) => _, inout("rcx") PAGE_SIZE / 8 => _, in("rax") 0u64,
            options(nostack, preserves_flags)
        );
    }
}

/// Take back what `alloc_order` gave, whatever its user count.
#[inline]
pub fn free_order(phys: u64, order: u32) {
    let number = (phys / PAGE_SIZE) as u32;
    let mut frames = FRAMES.lock_irq();
    if order > 0 {
        frames.buddy.free(info(), number, order);
        return;
    }
    info()[number as usize].disown();
    if frames.ready.is_full() {
        drain(&mut frames);
    }
    frames.ready.push(number);
}

/// One more user of a frame.
#[inline]
pub fn share(phys: u64) {
    info()[(phys / PAGE_SIZE) as usize].share();
}

/// One user less; the last one frees the frame.
#[inline]
pub fn release(phys: u64) {
    if info()[(phys / PAGE_SIZE) as usize].unshare() {
        free_order(phys, 0);
    }
}

/// Users of a frame. 1: it is the caller's alone.
#[inline]
pub fn users(phys: u64) -> u32 {
    info()[(phys / PAGE_SIZE) as usize].users()
}

//! The kernel's own page tables: W^X from the first one. The kernel half is shared by every address space.
//!
//! Entries of the top table for the kernel half are made at boot and never change, so address spaces copy them once.
//! Leaf entries of stack slots may be taken out again (`take`, then `tlb_flush::flush_kernel`); page-table pages stay, since a
//! CPU in user mode may walk through them as long as it has not flushed. Device registers stay.

use super::frame;
use crate::arch::page_table::{self as pt, DIRECT_MAP, PAGE_SIZE, VMAP_START, bits, phys_to_virt};
use crate::limine::BootInfo;
use crate::spin_lock::{SpinLock, rank};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering};

unsafe extern "C" {
    static __kernel_start: u8;
    static __rodata_start: u8;
    static __data_start: u8;
    static __kernel_end: u8;
}

/// Physical address of the kernel's top table.
static ROOT: AtomicU64 = AtomicU64::new(0);
static KERNEL_PHYS: AtomicU64 = AtomicU64::new(0);
/// Next unused address of the area for stacks and devices; also serialises changes to the kernel half.
static VMAP_NEXT: SpinLock<u64, { rank::KERNEL_MAP }> = SpinLock::new(VMAP_START + TEXT_ALIAS_PAGES * PAGE_SIZE);
const TEXT_ALIAS_PAGES: u64 = 1;
/// The area is what one entry of the top table covers, which exists from the start.
const VMAP_END: u64 = VMAP_START + (512 << 30);
/// Page-table pages made, which stay for good.
static TABLES: AtomicU64 = AtomicU64::new(0);

const MIB2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
const NX: u64 = bits::NO_EXECUTE;
const RW: u64 = bits::PRESENT | bits::WRITABLE | bits::GLOBAL | bits::ACCESSED | bits::DIRTY | NX;
const RO: u64 = bits::PRESENT | bits::GLOBAL | bits::ACCESSED | NX;
const RX: u64 = bits::PRESENT | bits::GLOBAL | bits::ACCESSED;

fn image() -> (u64, u64, u64, u64) {
    (
        &raw const __kernel_start as u64,
        &raw const __rodata_start as u64,
        &raw const __data_start as u64,
        &raw const __kernel_end as u64,
    )
}

/// The entry of `virt` at `level` (1 = 4 KiB leaf, 2 = 2 MiB, 3 = 1 GiB), making tables on the way.
fn entry(root: u64, virt: u64, level: u32) -> Option<&'static AtomicU64> {
    let mut table_phys = root;
    let mut at = 4;
    loop {
        // SAFETY: tables of the kernel half are never freed.
        let e = &unsafe { pt::table(table_phys) }[pt::index(virt, at)];
        if at == level {
            return Some(e);
        }
        let mut v = e.load(Ordering::Relaxed);
        if v & bits::PRESENT == 0 {
            v = frame::alloc_zeroed()? | bits::PRESENT | bits::WRITABLE | bits::ACCESSED;
            TABLES.fetch_add(1, Ordering::Relaxed);
            e.store(v, Ordering::Release);
        }
        if v & bits::HUGE != 0 {
            return None; // a big page is in the way
        }
        table_phys = v & bits::ADDRESS;
        at -= 1;
    }
}

fn map_page(root: u64, virt: u64, phys: u64, flags: u64) -> Result<(), &'static str> {
    entry(root, virt, 1).ok_or(OUT_OF_MEMORY)?.store(phys | flags, Ordering::Release);
    Ok(())
}

const OUT_OF_MEMORY: &str = "out of memory for page tables";

/// Build the kernel's map and switch the boot CPU to it. `gib_pages`: the CPU has 1 GiB pages.
pub fn init(boot: &BootInfo, gib_pages: bool) -> Result<(), &'static str> {
    let root = frame::alloc_zeroed().ok_or(OUT_OF_MEMORY)?;
    let (start, rodata, data, end) = image();
    let image_phys = boot.kernel_phys..boot.kernel_phys + (end - start);
    let sealed = boot.kernel_phys..boot.kernel_phys + (data - start);
    KERNEL_PHYS.store(boot.kernel_phys, Ordering::Relaxed);
    // 1. The direct map: RAM and firmware tables, in the biggest pages; text and read-only data stay read-only.
    for e in boot.memory_map {
        if !is_memory(e) {
            continue;
        }
        let mut at = e.base & !(PAGE_SIZE - 1);
        let last = (e.base + e.length).next_multiple_of(PAGE_SIZE);
        while at < last {
            let clear_of_image = |size: u64| at + size <= image_phys.start || at >= image_phys.end;
            let fits = |size: u64| at.is_multiple_of(size) && at + size <= last && clear_of_image(size);
            let virt = phys_to_virt(at);
            if gib_pages && fits(GIB) {
                entry(root, virt, 3).ok_or(OUT_OF_MEMORY)?.store(at | RW | bits::HUGE, Ordering::Relaxed);
                at += GIB;
            } else if fits(MIB2) {
                entry(root, virt, 2).ok_or(OUT_OF_MEMORY)?.store(at | RW | bits::HUGE, Ordering::Relaxed);
                at += MIB2;
            } else {
                let flags = if sealed.contains(&at) { RO } else { RW };
                map_page(root, virt, at, flags)?;
                at += PAGE_SIZE;
            }
        }
    }
    // 2. The image: one permission a segment.
    let mut virt = start;
    while virt < end {
        let flags = if virt < rodata {
            RX
        } else if virt < data {
            RO
        } else {
            RW
        };
        map_page(root, virt, boot.kernel_phys + (virt - start), flags)?;
        virt += PAGE_SIZE;
    }
    // 3. Every top-level entry that the kernel half will ever use exists now.
    entry(root, VMAP_START, 1).ok_or(OUT_OF_MEMORY)?;
    ROOT.store(root, Ordering::Relaxed);
    // SAFETY: the new map has the image, all RAM and this stack (in RAM, used through the direct map) where they are now.
    unsafe { pt::load(root) };
    Ok(())
}

/// RAM and firmware tables. Reserved ranges hold tables if they are small, device registers if they are large.
fn is_memory(e: &limine::memory_map::Entry) -> bool {
    use limine::memory_map::EntryType as T;
    let ram = [T::USABLE, T::BOOTLOADER_RECLAIMABLE, T::EXECUTABLE_AND_MODULES, T::ACPI_RECLAIMABLE, T::ACPI_NVS];
    ram.contains(&e.entry_type) || e.entry_type == T::RESERVED && e.length <= 16 << 20 && e.base < 0xfec0_0000
}

/// The kernel-only CR3: idle CPUs and kernel threads use it.
#[inline]
pub fn root() -> u64 {
    ROOT.load(Ordering::Relaxed)
}

/// Frames that the kernel's page tables have.
pub fn table_frames() -> u64 {
    TABLES.load(Ordering::Relaxed)
}

/// Leaf entries of the kernel half, by what they allow, and the tables that lead to them.
#[derive(Default)]
pub struct Rights {
    /// All that are present.
    pub leaves: u64,
    /// Executable ones.
    pub executable: u64,
    /// Writable and executable: there is to be none.
    pub writable_executable: u64,
    /// Open to user mode: none.
    pub user: u64,
    /// Page-table pages below the top table.
    pub tables: u64,
}

/// Count them. Process context: the tables are read while they may change, which no entry's rights do.
pub fn rights() -> Rights {
    let mut rights = Rights::default();
    // SAFETY: the kernel's top table, whose tables are never freed.
    let top = unsafe { pt::table(root()) };
    top[256..].iter().for_each(|entry| count_rights(entry, 4, bits::WRITABLE | bits::USER, 0, &mut rights));
    rights
}

/// Those below `entry` of a table of `level`. A right needs all levels: `allowed` what the ones above leave, `denied` NO_EXECUTE of any.
fn count_rights(entry: &AtomicU64, level: u32, allowed: u64, denied: u64, rights: &mut Rights) {
    let value = entry.load(Ordering::Relaxed);
    if value & bits::PRESENT == 0 {
        return;
    }
    let (allowed, denied) = (allowed & value, denied | value & NX);
    if level > 1 && value & bits::HUGE == 0 {
        // SAFETY: as above.
        let table = unsafe { pt::table(value & bits::ADDRESS) };
        rights.tables += 1;
        return table.iter().for_each(|below| count_rights(below, level - 1, allowed, denied, rights));
    }
    let executable = denied == 0;
    rights.leaves += 1;
    rights.executable += u64::from(executable);
    rights.writable_executable += u64::from(executable && allowed & bits::WRITABLE != 0);
    rights.user += u64::from(allowed & bits::USER != 0);
}

/// A new top table with the kernel half filled in, user half empty.
pub fn new_root() -> Option<u64> {
    let phys = frame::alloc_zeroed()?;
    // SAFETY: both are top tables; the new one is ours.
    let (from, to) = unsafe { (pt::table(root()), pt::table(phys)) };
    for i in 256..512 {
        to[i].store(from[i].load(Ordering::Relaxed), Ordering::Relaxed);
    }
    Some(phys)
}

/// Map `len` bytes of device registers at `phys`, uncached, for good. The virtual address, or `None` without memory.
pub fn map_device(phys: u64, len: u64) -> Option<u64> {
    let mut next = VMAP_NEXT.lock_irq();
    let offset = phys & (PAGE_SIZE - 1);
    let pages = (offset + len).div_ceil(PAGE_SIZE);
    let virt = *next;
    *next += (pages + 1) * PAGE_SIZE; // a hole behind each mapping
    for i in 0..pages {
        let at = (phys & !(PAGE_SIZE - 1)) + i * PAGE_SIZE;
        map_page(root(), virt + i * PAGE_SIZE, at, RW | bits::NO_CACHE | bits::WRITE_THROUGH).ok()?;
    }
    Some(virt + offset)
}

/// Reserve `guard` pages that stay unmapped, followed by a slot of `pages`: its first address; `None` where no addresses are left.
pub fn reserve(guard: u64, pages: u64) -> Option<u64> {
    let mut next = VMAP_NEXT.lock_irq();
    let bottom = *next + guard * PAGE_SIZE;
    let end = bottom.checked_add(pages.checked_mul(PAGE_SIZE)?).filter(|&end| end <= VMAP_END)?;
    *next = end;
    Some(bottom)
}

/// The addresses from `from` to `end`, the end of a reservation, were never mapped: they are free again, if nothing was reserved behind them.
pub fn give_up(from: u64, end: u64) {
    let mut next = VMAP_NEXT.lock_irq();
    if *next == end {
        *next = from;
    }
}

/// Map zeroed frames wherever the slot has none. `None` without memory; what was mapped by then stays, for the next try.
pub fn fill(bottom: u64, pages: u64) -> Option<()> {
    let _guard = VMAP_NEXT.lock_irq();
    for virt in (0..pages).map(|i| bottom + i * PAGE_SIZE) {
        let e = entry(root(), virt, 1)?;
        if e.load(Ordering::Relaxed) == 0 {
            e.store(frame::alloc_zeroed()? | RW, Ordering::Release);
        }
    }
    Some(())
}

/// Take the slot's leaf entries out and give their frames to `frames`, which has room. They may be used otherwise once
/// `tlb_flush::flush_kernel` has returned. Nobody uses the slot.
pub fn take<const N: usize>(bottom: u64, pages: u64, frames: &mut ArrayVec<u64, N>) {
    let _guard = VMAP_NEXT.lock_irq();
    for virt in (0..pages).map(|i| bottom + i * PAGE_SIZE) {
        let old = entry(root(), virt, 1).map_or(0, |e| e.swap(0, Ordering::AcqRel));
        if old != 0 {
            frames.push(old & bits::ADDRESS);
        }
    }
    if cfg!(mutant = "kernel_table_freed")
        && let Some(above) = entry(root(), bottom, 2)
    {
        let table = above.load(Ordering::Relaxed) & bits::ADDRESS;
        // SAFETY: a table of the kernel half; changes to it are serialised by the lock that is held.
        if unsafe { pt::table(table) }.iter().all(|e| e.load(Ordering::Relaxed) == 0) {
            above.store(0, Ordering::Release);
            frame::release(table);
        }
    }
}

/// The frame that is mapped at `virt`, an address that `fill` has mapped for good.
pub fn frame_at(virt: u64) -> Option<u64> {
    let _guard = VMAP_NEXT.lock_irq();
    let value = entry(root(), virt, 1)?.load(Ordering::Relaxed);
    (value & bits::PRESENT != 0).then_some(value & bits::ADDRESS)
}

/// Reserve `guard` unmapped pages followed by `pages` mapped, zeroed ones: address of the first mapped byte.
pub fn map_stack(guard: u64, pages: u64) -> Option<u64> {
    let bottom = reserve(guard, pages)?;
    fill(bottom, pages)?;
    Some(bottom)
}

/// Call `f` with a writable alias of the text byte at `address`; the alias is gone afterwards.
///
/// # Safety
/// One CPU at a time; see `text_patch::write_text`.
pub unsafe fn with_text_alias(address: u64, f: impl FnOnce(*mut u8)) {
    let (start, ..) = image();
    let phys = KERNEL_PHYS.load(Ordering::Relaxed) + (address - start);
    let _guard = VMAP_NEXT.lock_irq();
    let Some(e) = entry(root(), VMAP_START, 1) else { return };
    e.store((phys & bits::ADDRESS) | (RW & !bits::GLOBAL), Ordering::Relaxed);
    pt::flush_page(VMAP_START);
    f((VMAP_START + phys % PAGE_SIZE) as *mut u8);
    e.store(0, Ordering::Relaxed);
    pt::flush_page(VMAP_START);
}

/// Physical address of kernel memory (image or direct map), for handing frames to user mappings.
pub fn virt_to_phys(virt: u64) -> u64 {
    let (start, .., end) = image();
    if (start..end).contains(&virt) { KERNEL_PHYS.load(Ordering::Relaxed) + (virt - start) } else { virt - DIRECT_MAP }
}

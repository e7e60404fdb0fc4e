//! The interrupt descriptor table: one for all CPUs, written at boot, then read-only.
//! Source: SDM vol. 3A, "64-Bit Mode IDT".

use super::gdt::{Ist, KERNEL_CS};
use core::sync::atomic::{AtomicU64, Ordering};
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;

/// 256 gates of two words, on a page of its own.
#[repr(C, align(4096))]
struct Idt([AtomicU64; 512]);
static IDT: Idt = Idt([const { AtomicU64::new(0) }; 512]);

/// Let `vector` enter at `handler`. `user`: INT n from ring 3 may use it. Boot CPU only, before `load`.
pub fn set_gate(vector: u8, handler: u64, ist: Option<Ist>, user: bool) {
    let dpl = if user { 3u64 } else { 0 };
    let low = handler & 0xffff
        | (KERNEL_CS as u64) << 16
        | ist.map_or(0, |i| i as u64) << 32
        | (0x8e | dpl << 5) << 40
        | (handler >> 16 & 0xffff) << 48;
    IDT.0[vector as usize * 2].store(low, Ordering::Relaxed);
    IDT.0[vector as usize * 2 + 1].store(handler >> 32, Ordering::Relaxed);
}

/// Load the table on the running CPU.
///
/// # Safety
/// All gates are set and the segments of `gdt` are loaded.
pub unsafe fn load() {
    let pointer = DescriptorTablePointer { limit: 4095, base: VirtAddr::new(IDT.0.as_ptr() as u64) };
    // SAFETY: the table is static and complete.
    unsafe { lidt(&pointer) }
}

/// Where the table lies.
pub fn range() -> core::ops::Range<u64> {
    let start = IDT.0.as_ptr() as u64;
    start..start + 4096
}

//! The I/O APICs: which interrupt input goes to which CPU and vector. All inputs start masked.
//!
//! Called in process context by one CPU at a time (`isolation::irq_affinity` serialises).
//! Source: 82093AA data sheet; ACPI "Interrupt Source Override".

use super::apic::vector::IO_BASE;
use core::sync::atomic::{AtomicU64, Ordering};

/// At most this many I/O APICs are used.
const MAX: usize = 4;
/// Per chip: virtual base | first global interrupt << 52 is too tight, so two words.
static BASES: [AtomicU64; MAX] = [const { AtomicU64::new(0) }; MAX];
static FIRST: [AtomicU64; MAX] = [const { AtomicU64::new(0) }; MAX];

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

fn register(base: u64, index: u32, write: Option<u32>) -> u32 {
    // SAFETY: 1. `base` is a mapped I/O APIC page; 2. select and window are a pair that the caller serialises.
    unsafe {
        (base as *mut u32).write_volatile(index);
        let window = (base + 0x10) as *mut u32;
        match write {
            Some(v) => {
                window.write_volatile(v);
                v
            }
            None => window.read_volatile(),
        }
    }
}

fn inputs(base: u64) -> u32 {
    (register(base, 1, None) >> 16 & 0xff) + 1
}

/// Take over the chip mapped at `virt` whose inputs start at global interrupt `first`; mask all of them.
/// False if there is no room for one more chip.
pub fn add(virt: u64, first: u32) -> bool {
    for (base, slot) in BASES.iter().zip(&FIRST) {
        if base.load(Ordering::Relaxed) == 0 {
            for i in 0..inputs(virt) {
                register(virt, 0x10 + 2 * i, Some(MASKED));
            }
            slot.store(first as u64, Ordering::Relaxed);
            base.store(virt, Ordering::Relaxed);
            return true;
        }
    }
    false
}

/// The chip that has global interrupt `gsi`, and the lower register of its entry.
fn entry_of(gsi: u32) -> Option<(u64, u32)> {
    for (base, slot) in BASES.iter().zip(&FIRST) {
        let (base, first) = (base.load(Ordering::Relaxed), slot.load(Ordering::Relaxed) as u32);
        if base != 0 && gsi >= first && gsi < first + inputs(base) {
            return Some((base, 0x10 + 2 * (gsi - first)));
        }
    }
    None
}

/// Send global interrupt `gsi` to the CPU with `apic_id`, by vector `IO_BASE + gsi`. False if no chip has it.
pub fn route(gsi: u32, apic_id: u32, level: bool, active_low: bool) -> bool {
    let Some((base, index)) = entry_of(gsi) else { return false };
    let low = (IO_BASE as u32 + gsi) | if level { LEVEL } else { 0 } | if active_low { ACTIVE_LOW } else { 0 };
    register(base, index, Some(MASKED));
    register(base, index + 1, Some(apic_id << 24));
    register(base, index, Some(low));
    true
}

/// Send global interrupt `gsi`, which is routed, to another CPU. Not masked meanwhile, so that no edge is lost: the destination is one
/// register of its own. False if no chip has it.
pub fn retarget(gsi: u32, apic_id: u32) -> bool {
    let Some((base, index)) = entry_of(gsi) else { return false };
    register(base, index + 1, Some(apic_id << 24));
    true
}

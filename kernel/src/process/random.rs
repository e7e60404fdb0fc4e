//! Random bytes for getrandom(2), AT_RANDOM and layout: RDRAND where the CPU has it, mixed with the TSC.
//!
//! Process context.

use crate::arch::tsc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

fn rdrand() -> Option<u64> {
    static HAS: spin::Once<bool> = spin::Once::new();
    if !*HAS.call_once(|| crate::arch::cpu_features::Features::detect().rdrand) {
        return None;
    }
    for _ in 0..10 {
        let value: u64;
        let ok: u8;
        // SAFETY: CPUID says that the instruction exists; it touches no memory.
        unsafe { core::arch::asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack)) };
        if ok != 0 {
            return Some(value);
        }
    }
    None
}

/// 64 random bits.
pub fn next() -> u64 {
    // SplitMix64 (Steele, Lea, Flood) over a counter that the TSC moves, so that a CPU without RDRAND gives different bits too.
    let step = 0x9e37_79b9_7f4a_7c15u64;
    let mut z = STATE.fetch_add(step.wrapping_add(tsc::now()), Ordering::Relaxed);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) ^ rdrand().unwrap_or(0)
}

static LAYOUT: AtomicBool = AtomicBool::new(true);

/// Whether programs get a layout at random (`norandmaps`, /proc/sys/kernel/randomize_va_space).
pub fn is_layout_random() -> bool {
    LAYOUT.load(Ordering::Relaxed)
}

/// Programs that start from now on get one, or always the same.
pub fn set_layout_random(on: bool) {
    LAYOUT.store(on, Ordering::Relaxed);
}

/// An offset for a layout: a multiple of `step` bytes, of which there are 2^bits. 0 where the layout is not random, or the running
/// process asked for one that is not (personality(2)).
pub fn offset(bits: u32, step: u64) -> u64 {
    const ADDR_NO_RANDOMIZE: u32 = 0x4_0000;
    let fixed = |t: &super::Thread| t.process.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE != 0;
    if is_layout_random() && !super::try_current_thread().is_some_and(fixed) {
        (next() & ((1 << bits) - 1)) * step
    } else {
        0
    }
}

/// Fill `out`.
pub fn fill(out: &mut [u8]) {
    for chunk in out.chunks_mut(8) {
        chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
    }
}

//! The user's FS and GS bases, which a task switch exchanges. `sched::switch` alone calls.
//!
//! The user's GS base is behind SWAPGS while the kernel runs. It is reached by a SWAPGS to and fro, which unlike the MSR does not serialise: what may
//! arrive between (NMI, #DB, #MC) trusts GSBASE no more than anywhere. Source: SDM vol. 2, SWAPGS, RDGSBASE.

use core::arch::asm;

/// Store the CPU's user bases.
///
/// # Safety
/// 1. Interrupts are off; 2. both places are valid and in memory that is mapped for good.
#[inline(always)]
pub unsafe fn save(fs: *mut u64, gs: *mut u64) {
    // SAFETY: 1. nothing uses GS between the two SWAPGS, and the stores cannot fault; 2. FSGSBASE is required at boot.
    unsafe {
        asm!(
            "rdfsbase {base}",
            "mov [{fs}], {base}",
            "swapgs",
            "rdgsbase {base}",
            "swapgs",
            "mov [{gs}], {base}",
            fs = in(reg) fs,
            gs = in(reg) gs,
            base = out(reg) _,
            options(nostack, preserves_flags),
        )
    };
}

/// Load the user bases `fs` and `gs`; bits above the canonical ones are ignored.
///
/// # Safety
/// Interrupts are off.
#[inline(always)]
pub unsafe fn load(fs: u64, gs: u64) {
    let canonical = |base| x86_64::VirtAddr::new_truncate(base).as_u64();
    // SAFETY: 1. as in `save`; 2. canonical values do not fault.
    unsafe {
        asm!(
            "wrfsbase {fs}",
            "swapgs",
            "wrgsbase {gs}",
            "swapgs",
            fs = in(reg) canonical(fs),
            gs = in(reg) canonical(gs),
            options(nostack, preserves_flags),
        )
    };
}

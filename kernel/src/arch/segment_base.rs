//! The user's FS and GS bases, which a task switch exchanges. `sched::switch` alone calls.
//!
//! The user's GS base is behind SWAPGS while the kernel runs. It is reached by a SWAPGS to and fro, which unlike the MSR does not serialise: what may
//! arrive between (NMI, #DB, #MC) trusts GSBASE no more than anywhere. Source: SDM vol. 2, SWAPGS, RDGSBASE.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// A task's user bases while it does not run. Always canonical: loading them does not fault.
#[repr(C)]
pub struct UserBases {
    fs: AtomicU64,
    gs: AtomicU64,
}

const GS: usize = core::mem::offset_of!(UserBases, gs);
const _: () = assert!(core::mem::offset_of!(UserBases, fs) == 0);

impl UserBases {
    /// Both 0.
    pub const fn new() -> Self {
        Self { fs: AtomicU64::new(0), gs: AtomicU64::new(0) }
    }

    /// Set FS's; bits above the canonical ones are ignored. For a task that does not run.
    pub fn set_fs(&self, base: u64) {
        self.fs.store(x86_64::VirtAddr::new_truncate(base).as_u64(), Ordering::Relaxed);
    }

    /// Set GS's. As `set_fs`.
    pub fn set_gs(&self, base: u64) {
        self.gs.store(x86_64::VirtAddr::new_truncate(base).as_u64(), Ordering::Relaxed);
    }
}

/// Store the CPU's user bases.
///
/// # Safety
/// 1. Interrupts are off; 2. `to` is in memory that is mapped for good.
#[inline(always)]
pub unsafe fn save(to: &UserBases) {
    // SAFETY: 1. nothing uses GS between the two SWAPGS, and the stores cannot fault; 2. FSGSBASE is required at boot; 3. the fields are atomics.
    unsafe {
        asm!(
            "rdfsbase {base}",
            "mov [{to}], {base}",
            "swapgs",
            "rdgsbase {base}",
            "swapgs",
            "mov [{to} + {GS}], {base}",
            to = in(reg) to,
            base = out(reg) _,
            GS = const GS,
            options(nostack, preserves_flags),
        )
    };
}

/// Load the user bases.
///
/// # Safety
/// As `save`.
#[inline(always)]
pub unsafe fn load(from: &UserBases) {
    // SAFETY: 1. as in `save`; 2. canonical values do not fault.
    unsafe {
        asm!(
            "mov {base}, [{from}]",
            "wrfsbase {base}",
            "mov {base}, [{from} + {GS}]",
            "swapgs",
            "wrgsbase {base}",
            "swapgs",
            from = in(reg) from,
            base = out(reg) _,
            GS = const GS,
            options(nostack, preserves_flags),
        )
    };
}

/// `save` and `load` in one.
///
/// # Safety
/// As `save`, of both.
#[inline(always)]
pub unsafe fn exchange(to: &UserBases, from: &UserBases) {
    // SAFETY: as in `save` and `load`.
    unsafe {
        asm!(
            "rdfsbase {old}",
            "mov [{to}], {old}",
            "mov {new}, [{from}]",
            "wrfsbase {new}",
            "mov {new}, [{from} + {GS}]",
            "swapgs",
            "rdgsbase {old}",
            "wrgsbase {new}",
            "swapgs",
            "mov [{to} + {GS}], {old}",
            to = in(reg) to,
            from = in(reg) from,
            old = out(reg) _,
            new = out(reg) _,
            GS = const GS,
            options(nostack, preserves_flags),
        )
    };
}

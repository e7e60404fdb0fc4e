//! Floating-point and SIMD state: one XSAVE (or FXSAVE) area a task. The kernel itself uses no SIMD.
//!
//! `save` and `restore` run with interrupts off at a task switch. Where the CPU has XSAVEOPT, `save` writes neither what is in its initial
//! state nor what has not changed since `restore` read it from the same area: an area's header (XSTATE_BV) says which parts of it
//! mean anything. Every `save` on a CPU comes after a `restore` there, or after a load from elsewhere, so the area holds what was not
//! written. Source: SDM vol. 1, "Managing State Using the XSAVE Feature Set".

use core::alloc::Layout;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Bytes of one area. 512 without XSAVE.
static AREA_SIZE: AtomicU32 = AtomicU32::new(512);
/// Bytes of one in a signal frame.
static FRAME_SIZE: AtomicU32 = AtomicU32::new(512);
/// XCR0 as set; 0 = FXSAVE only.
static XCR0: AtomicU64 = AtomicU64::new(0);

/// XSAVEOPT is there: `save` uses it.
static OPTIMISED: AtomicBool = AtomicBool::new(false);

/// x87, SSE, AVX, AVX-512 (three parts), PKRU left out: the kernel has no protection keys.
const WANTED: u64 = 0b1110_0111;
const _: () = assert!(WANTED >> 32 == 0, "signal frames are stored with whatever EDX holds");

/// Switch the unit on for the running CPU. `boot` on the boot CPU decides the area's size for all.
///
/// # Safety
/// CR4.OSXSAVE is set if and only if `xsave`.
pub unsafe fn init_cpu(xsave: bool) {
    if !xsave {
        return;
    }
    let supported = core::arch::x86_64::__cpuid_count(0xd, 0);
    let mask = (supported.eax as u64 | (supported.edx as u64) << 32) & WANTED;
    // SAFETY: 1. OSXSAVE is set; 2. the mask holds only what CPUID offers, and x87 always.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") mask as u32, in("edx") (mask >> 32) as u32, options(nomem, nostack));
    }
    XCR0.store(mask, Ordering::Relaxed);
    OPTIMISED.store(core::arch::x86_64::__cpuid_count(0xd, 1).eax & 1 != 0, Ordering::Relaxed);
    let size = core::arch::x86_64::__cpuid_count(0xd, 0).ebx;
    AREA_SIZE.store(size, Ordering::Relaxed);
    FRAME_SIZE.store(size + 4, Ordering::Relaxed);
}

/// Size of a save area in bytes.
pub fn area_size() -> usize {
    AREA_SIZE.load(Ordering::Relaxed) as usize
}

/// Whether areas are XSAVE's.
pub fn has_xsave() -> bool {
    XCR0.load(Ordering::Relaxed) != 0
}

/// Size of an area in a signal frame: a magic word lies behind an XSAVE area.
pub fn frame_size() -> usize {
    FRAME_SIZE.load(Ordering::Relaxed) as usize
}

/// Where an area in a signal frame says what it is (`_fpx_sw_bytes`): bytes that hardware leaves alone.
pub const DESCRIPTION: u64 = 464;

/// What a signal frame has at `DESCRIPTION`: magic word and size of all, parts, size of the area. `FRAME_END` lies behind that. Only if areas are
/// XSAVE's. Source: Linux arch/x86/include/uapi/asm/sigcontext.h, `struct _fpx_sw_bytes`.
#[inline(always)]
pub fn describe_frame() -> [u64; 3] {
    const MAGIC1: u64 = 0x4650_5853;
    let size = area_size() as u64;
    [MAGIC1 | (size + 4) << 32, XCR0.load(Ordering::Relaxed), size]
}

/// The word behind the area (FP_XSTATE_MAGIC2).
pub const FRAME_END: u32 = 0x4650_5845;

/// Parts that areas have (XCR0).
pub fn parts() -> u64 {
    XCR0.load(Ordering::Relaxed)
}

/// Whether hardware loads `area` without a fault: no bits of MXCSR, no parts and no form that this machine does not have.
pub fn is_well_formed(area: &[u8]) -> bool {
    let half = |at: usize| area.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let xsave = !has_xsave()
        || area.len() >= 576
            && (half(512) as u64 | (half(516) as u64) << 32) & !parts() == 0
            && area[520..576].iter().all(|&b| b == 0);
    area.len() == area_size() && half(24) & !0xffff == 0 && xsave
}

/// An area whose header says that every part is in its initial state: FCW 0x37f, MXCSR 0x1f80.
#[repr(C, align(64))]
pub struct Initial([u8; 576]);
/// As said: what a new task has, and a signal handler.
pub static INITIAL: Initial = {
    let mut area = [0; 576];
    (area[0], area[1]) = (0x7f, 0x03);
    (area[24], area[25]) = (0x80, 0x1f);
    Initial(area)
};

/// Give the running task the initial state. Its own context; a switch before or after saves what the CPU holds.
pub fn load_initial() {
    // SAFETY: a well-formed area of which no more than legacy region and header are read; the kernel has no FPU state.
    unsafe {
        if has_xsave() {
            asm!("xrstor64 [{}]", in(reg) &INITIAL, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
        } else {
            asm!("fxrstor64 [{}]", in(reg) &INITIAL, options(nostack));
        }
    }
}

/// Control and status word of the x87, as the running task has them. Reads alone: errors that wait do not interrupt this.
pub fn x87_words() -> (u16, u16) {
    let (mut control, mut status) = (0u16, 0u16);
    // SAFETY: two stores of two bytes each; FNSTCW and FNSTSW change nothing and check for no error.
    unsafe {
        asm!("fnstcw [{}]", "fnstsw [{}]", in(reg) &raw mut control, in(reg) &raw mut status,
            options(nostack, preserves_flags));
    }
    (control, status)
}

/// MXCSR, as the running task has it.
pub fn mxcsr() -> u32 {
    let mut value = 0u32;
    // SAFETY: a store of four bytes; STMXCSR changes nothing.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags)) };
    value
}

/// One task's state. Owned by its task; touched only while that task switches or is stopped.
pub struct FpuState(*mut u8);
// SAFETY: plain memory with one owner.
unsafe impl Send for FpuState {}
// SAFETY: all access goes through `unsafe` functions whose callers exclude each other.
unsafe impl Sync for FpuState {}

impl FpuState {
    fn layout() -> Layout {
        Layout::from_size_align(area_size(), 64).expect("64 is a power of two")
    }

    /// Where it is kept.
    pub fn address(&self) -> u64 {
        self.0 as u64
    }

    /// The initial state (FCW 0x37f, MXCSR 0x1f80), or `None` without memory.
    pub fn new() -> Option<Self> {
        // SAFETY: the layout is not empty.
        let p = unsafe { alloc::alloc::alloc_zeroed(Self::layout()) };
        if p.is_null() {
            return None;
        }
        // SAFETY: 1. the area has at least 512 bytes; 2. offsets of FCW and MXCSR in the legacy region.
        unsafe {
            p.cast::<u16>().write(0x37f);
            p.add(24).cast::<u32>().write(0x1f80);
        }
        Some(Self(p))
    }

    /// Copy of another task's saved state (fork).
    ///
    /// # Safety
    /// Neither state is being saved or restored meanwhile.
    pub unsafe fn copy_from(&self, other: &FpuState) {
        // SAFETY: both areas have `area_size` bytes and do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(other.0, self.0, area_size()) }
    }

    /// The bytes of the area.
    ///
    /// # Safety
    /// The state is not being saved or written meanwhile.
    pub unsafe fn bytes(&self) -> &[u8] {
        // SAFETY: the area has `area_size` bytes, all initialised.
        unsafe { core::slice::from_raw_parts(self.0, area_size()) }
    }

    /// Replace the bytes of the area by `bytes`, which `is_well_formed`, and as many.
    ///
    /// # Safety
    /// The state is not being used meanwhile.
    pub unsafe fn replace(&self, bytes: &[u8]) {
        let n = bytes.len().min(area_size());
        // SAFETY: `n` bytes are within both.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0, n) }
    }

    /// Store the CPU's state here.
    ///
    /// # Safety
    /// 1. Interrupts are off; 2. the CPU holds this task's state.
    #[inline]
    pub unsafe fn save(&self) {
        // SAFETY: the area is large enough and 64-byte aligned; XCR0 decides between the two forms.
        unsafe {
            if OPTIMISED.load(Ordering::Relaxed) {
                asm!("xsaveopt64 [{}]", in(reg) self.0, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else if XCR0.load(Ordering::Relaxed) != 0 {
                asm!("xsave64 [{}]", in(reg) self.0, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else {
                asm!("fxsave64 [{}]", in(reg) self.0, options(nostack));
            }
        }
    }

    /// Load the CPU's state from here.
    ///
    /// # Safety
    /// 1. Interrupts are off; 2. the area was filled by `new`, `save` or `copy_from` (or checked by signal return).
    #[inline]
    pub unsafe fn restore(&self) {
        // SAFETY: as `save`; a well-formed area cannot fault.
        unsafe {
            if XCR0.load(Ordering::Relaxed) != 0 {
                asm!("xrstor64 [{}]", in(reg) self.0, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            } else {
                asm!("fxrstor64 [{}]", in(reg) self.0, options(nostack));
            }
        }
    }

    /// `save` here, and `restore` from `next`.
    ///
    /// # Safety
    /// As of both.
    #[inline(always)]
    pub unsafe fn exchange(&self, next: &FpuState) {
        // SAFETY: as in `save` and `restore`.
        unsafe {
            if OPTIMISED.load(Ordering::Relaxed) {
                asm!(
                    "xsaveopt64 [{}]", "xrstor64 [{}]", in(reg) self.0, in(reg) next.0,
                    in("eax") u32::MAX, in("edx") u32::MAX, options(nostack),
                );
            } else {
                self.save();
                next.restore();
            }
        }
    }
}

impl Drop for FpuState {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout: the size is decided before the first task.
        unsafe { alloc::alloc::dealloc(self.0, Self::layout()) }
    }
}

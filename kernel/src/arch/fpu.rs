//! Floating-point and SIMD state: one XSAVE (or FXSAVE) area a task. The kernel itself uses no SIMD.
//!
//! `save` and `restore` run with interrupts off at a task switch. Source: SDM vol. 1, "Managing State Using the XSAVE
//! Feature Set".

use core::alloc::Layout;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of one area. 512 without XSAVE.
static AREA_SIZE: AtomicU32 = AtomicU32::new(512);
/// XCR0 as set; 0 = FXSAVE only.
static XCR0: AtomicU64 = AtomicU64::new(0);

/// x87, SSE, AVX, AVX-512 (three parts), PKRU left out: the kernel has no protection keys.
const WANTED: u64 = 0b1110_0111;

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
    AREA_SIZE.store(core::arch::x86_64::__cpuid_count(0xd, 0).ebx, Ordering::Relaxed);
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
    area_size() + if has_xsave() { 4 } else { 0 }
}

/// What a signal frame's area says about itself: (offset, bytes) pairs to be written over the area.
/// Source: Linux arch/x86/include/uapi/asm/sigcontext.h, `struct _fpx_sw_bytes`.
pub fn describe_frame<E>(mut write: impl FnMut(usize, &[u8]) -> Result<(), E>) -> Result<(), E> {
    const MAGIC1: u32 = 0x4650_5853;
    const MAGIC2: u32 = 0x4650_5845;
    const SOFTWARE_BYTES: usize = 464;
    if !has_xsave() {
        return Ok(());
    }
    let size = area_size() as u32;
    let mut software = [0u8; 24];
    software[..4].copy_from_slice(&MAGIC1.to_le_bytes());
    software[4..8].copy_from_slice(&(size + 4).to_le_bytes());
    software[8..16].copy_from_slice(&XCR0.load(Ordering::Relaxed).to_le_bytes());
    software[16..20].copy_from_slice(&size.to_le_bytes());
    write(SOFTWARE_BYTES, &software)?;
    write(size as usize, &MAGIC2.to_le_bytes())
}

/// Make an area that a user wrote one that `restore` can load without a fault.
pub fn sanitise(area: &mut [u8]) {
    const MXCSR_MASK: u32 = 0xffbf;
    const XCOMP_BV: core::ops::Range<usize> = 520..576;
    let mxcsr = u32::from_le_bytes([area[24], area[25], area[26], area[27]]) & MXCSR_MASK;
    area[24..28].copy_from_slice(&mxcsr.to_le_bytes());
    if has_xsave() {
        let mut used = [0; 8];
        used.copy_from_slice(&area[512..520]);
        let used = u64::from_le_bytes(used) & XCR0.load(Ordering::Relaxed);
        area[512..520].copy_from_slice(&used.to_le_bytes());
        area[XCOMP_BV].fill(0);
    }
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

    /// The area's bytes, for a signal frame.
    ///
    /// # Safety
    /// The task that owns the state is the current one with the state saved, or does not run.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn bytes(&self) -> &mut [u8] {
        // SAFETY: the area is ours; the caller excludes others.
        unsafe { core::slice::from_raw_parts_mut(self.0, area_size()) }
    }

    /// Back to the initial state.
    ///
    /// # Safety
    /// As `bytes`.
    pub unsafe fn reset(&self) {
        // SAFETY: the caller's condition; offsets of FCW and MXCSR in the legacy region.
        let area = unsafe { self.bytes() };
        area.fill(0);
        area[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        area[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    }

    /// Copy of another task's saved state (fork).
    ///
    /// # Safety
    /// Neither state is being saved or restored meanwhile.
    pub unsafe fn copy_from(&self, other: &FpuState) {
        // SAFETY: both areas have `area_size` bytes and do not overlap.
        unsafe { core::ptr::copy_nonoverlapping(other.0, self.0, area_size()) }
    }

    /// Store the CPU's state here.
    ///
    /// # Safety
    /// 1. Interrupts are off; 2. the CPU holds this task's state.
    #[inline]
    pub unsafe fn save(&self) {
        // SAFETY: the area is large enough and 64-byte aligned; XCR0 decides between the two forms.
        unsafe {
            if XCR0.load(Ordering::Relaxed) != 0 {
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
}

impl Drop for FpuState {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout: the size is decided before the first task.
        unsafe { alloc::alloc::dealloc(self.0, Self::layout()) }
    }
}

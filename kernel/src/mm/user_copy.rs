//! Copies between kernel and user memory: with `user_context` the only code that touches user addresses, with SMAP open as shortly as can be.
//!
//! Process context (a fault may bring the page in) or pinned context (then a page that is not there fails). A fault
//! inside ends in the exception table's fixup, and the copy says how far it did not get.

use crate::arch::fpu;
use crate::arch::page_table::USER_END;
use core::arch::{asm, naked_asm};

/// Some byte could not be read or written: EFAULT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

unsafe extern "C" {
    static __start_ex_table: [u64; 2];
    static __stop_ex_table: [u64; 2];
}

/// Where to go on after a fault at `rip`, if that is allowed to fault.
pub fn fixup(rip: u64) -> Option<u64> {
    // SAFETY: the linker script puts both symbols around an array of (faulting address, fixup address) pairs.
    let table = unsafe {
        let (start, stop) = (&raw const __start_ex_table, &raw const __stop_ex_table);
        core::slice::from_raw_parts(start, stop.offset_from(start) as usize)
    };
    table.iter().find(|e| e[0] == rip).map(|e| e[1])
}

/// Whether `rip` is in a routine that accesses user memory, here or in `user_context`; or in one of `arch::msr`, which accesses none.
pub fn is_user_access(rip: u64) -> bool {
    // A section of its own holds the routines that may fault, and nothing else.
    unsafe extern "C" {
        static __user_copy_start: u8;
        static __user_copy_end: u8;
    }
    (&raw const __user_copy_start as u64..&raw const __user_copy_end as u64).contains(&rip)
}

/// From here on user memory may be accessed, in assembly: STAC where the CPU has SMAP, a 3-byte NOP otherwise. Label 87.
macro_rules! open_user {
    () => {
        "87: .byte 0x0f, 0x1f, 0x00\n.pushsection __stac_sites, \"a\"\n.quad 87b\n.popsection\n"
    };
}
pub(super) use open_user;

/// Up to here: CLAC in the same way. Label 89, to which fixups go.
macro_rules! close_user {
    () => {
        "89: .byte 0x0f, 0x1f, 0x00\n.pushsection __clac_sites, \"a\"\n.quad 89b\n.popsection\n"
    };
}
pub(super) use close_user;

/// Copy `len` bytes; returns how many were NOT copied.
///
/// # Safety
/// The kernel side of the copy is valid for `len` bytes; the user side lies below USER_END.
#[unsafe(naked)]
#[unsafe(link_section = ".text.user_copy")]
unsafe extern "C" fn raw_copy(dst: u64, src: u64, len: u64) -> u64 {
    naked_asm!(
        "mov rcx, rdx",
        "shr rcx, 3",
        "and edx, 7",
        open_user!(),
        "88: rep movsq", // words first
        "mov ecx, edx",
        "90: rep movsb",
        close_user!(),
        "mov rax, rcx",
        "ret",
        // A fault among the words: those that are left, and the bytes behind them.
        "91: lea rcx, [rcx * 8 + rdx]",
        "jmp 89b",
        ".pushsection __ex_table, \"a\"",
        ".quad 88b, 91b",
        ".quad 90b, 89b",
        ".popsection",
    )
}

/// Load the word at `from`; with a bit above 31 set if that faulted.
///
/// # Safety
/// The word lies below USER_END.
#[unsafe(naked)]
#[unsafe(link_section = ".text.user_copy")]
unsafe extern "C" fn raw_read_word(from: u64) -> u64 {
    naked_asm!(
        open_user!(),
        "88: mov eax, [rdi]",
        close_user!(),
        "ret",
        "91: mov rax, -1",
        "jmp 89b",
        ".pushsection __ex_table, \"a\"",
        ".quad 88b, 91b",
        ".popsection",
    )
}

/// Replace the word at `at` by `new` if it is `old`, in one step; returns what it was, with a bit above 31 set if that faulted.
///
/// # Safety
/// The word lies below USER_END.
#[unsafe(naked)]
#[unsafe(link_section = ".text.user_copy")]
unsafe extern "C" fn raw_exchange_word(at: u64, old: u32, new: u32) -> u64 {
    naked_asm!(
        "mov eax, esi",
        open_user!(),
        "88: lock cmpxchg [rdi], edx",
        close_user!(),
        "ret",
        "91: mov rax, -1",
        "jmp 89b",
        ".pushsection __ex_table, \"a\"",
        ".quad 88b, 91b",
        ".popsection",
    )
}

/// The fault of an instruction that accesses user memory, in assembly: on to label 91.
macro_rules! may_fault {
    ($($part:literal),+) => {
        concat!("77: ", $($part,)+ "\n.pushsection __ex_table, \"a\"\n.quad 77b, 91f\n.popsection\n")
    };
}
pub(super) use may_fault;

/// An instruction on user memory at RDI with the mask of all parts in EDX:EAX; returns 0, or 1 if it faulted.
macro_rules! raw_fpu {
    ($(#[$m:meta])* $name:ident, $instruction:literal) => {
        $(#[$m])*
        ///
        /// # Safety
        /// The area at `at` lies below USER_END.
        #[unsafe(naked)]
        #[unsafe(link_section = ".text.user_copy")]
        unsafe extern "C" fn $name(at: u64) -> u64 {
            naked_asm!(
                open_user!(),
                "mov eax, -1",
                "mov edx, -1",
                may_fault!($instruction),
                "xor eax, eax",
                close_user!(),
                "ret",
                "91: mov eax, 1",
                "jmp 89b",
            )
        }
    };
}

raw_fpu! {
    /// Load the CPU's FPU state (XRSTOR). Hardware checks what it loads: what is malformed faults.
    raw_xrstor, "xrstor64 [rdi]"
}
raw_fpu! {
    /// Load it on a CPU without XSAVE.
    raw_fxrstor, "fxrstor64 [rdi]"
}

/// Load the running task's FPU state from user address `from`. A malformed area is refused.
#[inline(always)]
pub fn load_fpu(from: u64) -> Result<(), Fault> {
    if !from.is_multiple_of(64) || from > USER_END - fpu::area_size() as u64 {
        return Err(Fault);
    }
    let failed: u64;
    // SAFETY: checked; the kernel has no FPU state of its own that this could disturb. The routines change the registers that are named here.
    unsafe {
        if fpu::has_xsave() {
            asm!("call {}", sym raw_xrstor, in("rdi") from, out("rax") failed, out("rdx") _);
        } else {
            asm!("call {}", sym raw_fxrstor, in("rdi") from, out("rax") failed, out("rdx") _);
        }
    }
    if failed == 0 { Ok(()) } else { Err(Fault) }
}

/// Whether `len` bytes at `user` can be user memory at all; whether they are mapped shows when they are used.
#[inline]
pub fn check(user: u64, len: u64) -> Result<(), Fault> {
    match user.checked_add(len) {
        Some(end) if end <= USER_END => Ok(()),
        _ => Err(Fault),
    }
}

/// `raw_copy`, called with what it changes: callers keep their values in the other registers.
///
/// # Safety
/// As for `raw_copy`.
#[inline(always)]
unsafe fn copy(dst: u64, src: u64, len: u64) -> u64 {
    let left;
    // SAFETY: the caller's conditions; the routine changes memory and the registers that are named here.
    unsafe {
        asm!("call {}", sym raw_copy, inout("rdi") dst => _, inout("rsi") src => _, inout("rdx") len => _, out("rcx") _, out("rax") left);
    }
    left
}

/// Bytes by address that can be user memory: all below USER_END, so that what copies them need not look again. Whether they are mapped shows then.
#[derive(Clone, Copy, Default)]
pub struct UserRange {
    at: u64,
    len: usize,
}

impl UserRange {
    /// `len` bytes at `at`.
    #[inline(always)]
    pub fn new(at: u64, len: u64) -> Result<UserRange, Fault> {
        check(at, len)?;
        Ok(UserRange { at, len: len as usize })
    }

    /// Bytes.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// At most `most` of them, the first.
    #[inline(always)]
    pub fn shortened(self, most: usize) -> UserRange {
        UserRange { len: self.len.min(most), ..self }
    }

    #[inline(always)]
    fn leave(&mut self, n: usize) {
        self.at += n as u64;
        self.len -= n;
    }

    /// Read the first `to.len()`, of which there are as many, and leave them behind.
    #[inline(always)]
    pub fn read_front(&mut self, to: &mut [u8]) -> Result<(), Fault> {
        let n = to.len();
        // SAFETY: `to` is valid; the range lies below USER_END.
        if n > self.len || unsafe { copy(to.as_mut_ptr() as u64, self.at, n as u64) } != 0 {
            return Err(Fault);
        }
        self.leave(n);
        Ok(())
    }

    /// Write `from` to the first bytes, of which there are as many, and leave them behind.
    #[inline(always)]
    pub fn write_front(&mut self, from: &[u8]) -> Result<(), Fault> {
        let n = from.len();
        // SAFETY: `from` is valid; the range lies below USER_END.
        if n > self.len || unsafe { copy(self.at, from.as_ptr() as u64, n as u64) } != 0 {
            return Err(Fault);
        }
        self.leave(n);
        Ok(())
    }
}

/// Read `to.len()` bytes at user address `from`.
pub fn read_bytes(from: u64, to: &mut [u8]) -> Result<(), Fault> {
    check(from, to.len() as u64)?;
    // SAFETY: `to` is valid; `from` was checked.
    match unsafe { copy(to.as_mut_ptr() as u64, from, to.len() as u64) } {
        0 => Ok(()),
        _ => Err(Fault),
    }
}

/// Write `from` at user address `to`.
pub fn write_bytes(to: u64, from: &[u8]) -> Result<(), Fault> {
    check(to, from.len() as u64)?;
    // SAFETY: `from` is valid; `to` was checked.
    match unsafe { copy(to, from.as_ptr() as u64, from.len() as u64) } {
        0 => Ok(()),
        _ => Err(Fault),
    }
}

/// Plain values: any bit pattern is one, and there is no padding.
///
/// # Safety
/// As said.
pub unsafe trait Plain: Copy {}
macro_rules! plain { ($($t:ty),*) => { $(
    // SAFETY: integers have no padding and no invalid patterns.
    unsafe impl Plain for $t {}
)* } }
plain!(u8, u16, u32, u64, i32, i64, usize);
// SAFETY: arrays of plain values are plain.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Read a plain value at user address `from`, which need not be aligned.
pub fn read<T: Plain>(from: u64) -> Result<T, Fault> {
    check(from, size_of::<T>() as u64)?;
    let mut value = core::mem::MaybeUninit::<T>::uninit();
    // SAFETY: `value` has room for its size; `from` was checked.
    match unsafe { copy(value.as_mut_ptr() as u64, from, size_of::<T>() as u64) } {
        // SAFETY: all of it was written, and any pattern is valid.
        0 => Ok(unsafe { value.assume_init() }),
        _ => Err(Fault),
    }
}

/// Read the aligned word at user address `from` by one load, as futexes need it.
#[inline]
pub fn read_word(from: u64) -> Result<u32, Fault> {
    if from >= USER_END || !from.is_multiple_of(4) {
        return Err(Fault);
    }
    // SAFETY: below USER_END, which is page-aligned, and so is the word's end.
    let value = unsafe { raw_read_word(from) };
    if value >> 32 == 0 { Ok(value as u32) } else { Err(Fault) }
}

/// Whether the aligned word at user address `from` is `expected`, by one load. With interrupts or preemption off a fault is not resolved: then it is
/// not.
#[inline(always)]
pub fn word_is(from: u64, expected: u32) -> bool {
    // SAFETY: below USER_END, which is page-aligned, and so is the word's end.
    from < USER_END && from.is_multiple_of(4) && unsafe { raw_read_word(from) } == u64::from(expected)
}

/// Replace the aligned word at user address `at` by `new` if it is `old`, in one step; what it was.
pub fn exchange_word(at: u64, old: u32, new: u32) -> Result<u32, Fault> {
    if at >= USER_END || !at.is_multiple_of(4) {
        return Err(Fault);
    }
    // SAFETY: below USER_END, which is page-aligned, and so is the word's end.
    let value = unsafe { raw_exchange_word(at, old, new) };
    if value >> 32 == 0 { Ok(value as u32) } else { Err(Fault) }
}

/// Write a plain value at user address `to`, which need not be aligned.
pub fn write<T: Plain>(to: u64, value: &T) -> Result<(), Fault> {
    // SAFETY: a plain value has no padding.
    write_bytes(to, unsafe { core::slice::from_raw_parts((value as *const T).cast::<u8>(), size_of::<T>()) })
}

/// Read a zero-terminated string of at most `max` bytes at `from`, without the zero. `None` if it is longer.
pub fn read_string(from: u64, max: usize) -> Result<Option<alloc::vec::Vec<u8>>, Fault> {
    let mut out = alloc::vec::Vec::new();
    let mut at = from;
    while out.len() < max {
        // To the end of the page, so that a string before an unmapped page can be read.
        let n = (4096 - (at % 4096) as usize).min(max - out.len()).min(256);
        let mut chunk = [0u8; 256];
        read_bytes(at, &mut chunk[..n])?;
        if let Some(end) = chunk[..n].iter().position(|&b| b == 0) {
            out.extend_from_slice(&chunk[..end]);
            return Ok(Some(out));
        }
        out.extend_from_slice(&chunk[..n]);
        at += n as u64;
    }
    Ok(None)
}

//! Copies between kernel and user memory: the only code that touches user addresses, with SMAP open as shortly as can be.
//!
//! Process context (a fault may bring the page in) or pinned context (then a page that is not there fails). A fault
//! inside ends in the exception table's fixup, and the copy says how far it did not get.

use crate::arch::page_table::USER_END;
use core::arch::naked_asm;

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

/// Whether `rip` is an instruction of this file that accesses user memory.
pub fn is_user_access(rip: u64) -> bool {
    // The copy routine's accesses are the table's entries that lie in it.
    let start = raw_copy as *const () as u64;
    (start..start + 64).contains(&rip)
}

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
        // STAC where the CPU has SMAP; 3-byte NOPs otherwise (patched together with the CLAC sites).
        "87: .byte 0x0f, 0x1f, 0x00",
        ".pushsection __stac_sites, \"a\"",
        ".quad 87b",
        ".popsection",
        "88: rep movsq", // words first
        "mov ecx, edx",
        "90: rep movsb",
        "89: .byte 0x0f, 0x1f, 0x00",
        ".pushsection __clac_sites, \"a\"",
        ".quad 89b",
        ".popsection",
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

fn check(user: u64, len: usize) -> Result<(), Fault> {
    match user.checked_add(len as u64) {
        Some(end) if end <= USER_END => Ok(()),
        _ => Err(Fault),
    }
}

/// Read `to.len()` bytes at user address `from`.
pub fn read_bytes(from: u64, to: &mut [u8]) -> Result<(), Fault> {
    check(from, to.len())?;
    // SAFETY: `to` is valid; `from` was checked.
    match unsafe { raw_copy(to.as_mut_ptr() as u64, from, to.len() as u64) } {
        0 => Ok(()),
        _ => Err(Fault),
    }
}

/// Write `from` at user address `to`.
pub fn write_bytes(to: u64, from: &[u8]) -> Result<(), Fault> {
    check(to, from.len())?;
    // SAFETY: `from` is valid; `to` was checked.
    match unsafe { raw_copy(to, from.as_ptr() as u64, from.len() as u64) } {
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
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: all bytes of a plain value may be written.
    let bytes = unsafe { core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
    read_bytes(from, bytes)?;
    // SAFETY: zeroed or filled; any pattern is valid.
    Ok(unsafe { value.assume_init() })
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

//! Where futex(2) goes: to one of three routines, by its operation.
//!
//! Called by the system call table alone. Compiled code would have a frame of its own for this, on the way of each.

use crate::syscall::futex::{WAIT, WAKE, futex_other, futex_wait, futex_wake};
use core::arch::naked_asm;

// SAFETY: it changes no register but the flags, and ends as one of the three does that it jumps to, which take the same arguments.
/// futex(2)
#[unsafe(naked)]
pub extern "C" fn futex_call(address: u64, op: u64, value: u64, timeout: u64, address2: u64, value3: u64) -> i64 {
    naked_asm!(
        "cmp rsi, {wake}",
        "je {futex_wake}",
        "cmp rsi, {wait}",
        "jne {futex_other}",
        "test rcx, rcx",
        "je {futex_wait}",
        "jmp {futex_other}",
        wake = const WAKE,
        wait = const WAIT,
        futex_wake = sym futex_wake,
        futex_wait = sym futex_wait,
        futex_other = sym futex_other,
    )
}

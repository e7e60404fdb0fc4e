//! hazard_32_bit: SYSENTER, INT 0x80, INT n and far jumps to a 32-bit segment, also while single-stepped.
//!
//! What went wrong: CVE-2015-2830 (a 32-bit call on a 64-bit task's restrictions), CVE-2017-5123's kin, and SYSENTER with TF or NT set,
//! which traps at the kernel's first instruction with no stack (Linux's selftest single_step_syscall.c). Here none of these ways in exists:
//! each is a fault of the program.

use super::hazard::{Attempts, in_child};
use crate::entry::{Args, Outcome};
use std::arch::asm;

macro_rules! child {
    ($($code:literal),+) => {
        in_child(|| {
            // SAFETY: (1) the instruction faults, or the child ends here.
            unsafe { asm!($($code),+, in("rax") 20u64, options(nostack)) };
            0
        })
    };
}

/// `hazard_32_bit`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_32_bit");
    attempts.dies("sysenter", child!("sysenter"));
    attempts.dies("sysenter stepped", child!("pushfq", "or dword ptr [rsp], 0x100", "popfq", "sysenter"));
    attempts.dies("sysenter, nested task", child!("pushfq", "or dword ptr [rsp], 0x4000", "popfq", "sysenter"));
    attempts.dies("int 0x80", child!("int 0x80"));
    attempts.dies("int 0x80 stepped", child!("pushfq", "or dword ptr [rsp], 0x100", "popfq", "int 0x80"));
    attempts.dies("int 0x81", child!("int 0x81"));
    attempts.dies("int 2", child!("int 2"));
    attempts.dies("int 8", child!("int 8"));
    attempts.dies("int 18", child!("int 18"));
    attempts.dies("far return to 0x23", child!("push 0x23", "lea rax, [rip + 2f]", "push rax", "retfq", "2: nop"));
    attempts.end()
}

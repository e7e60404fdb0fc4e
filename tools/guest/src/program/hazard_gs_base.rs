//! hazard_gs_base: GS bases that look like the kernel's, set by WRGSBASE, while exceptions, calls and interrupts come.
//!
//! What went wrong: paranoid entries told user mode from kernel mode by the sign of GSBASE, which FSGSBASE lets programs choose
//! (CVE-2018-8897's second half; CVE-2019-1125 is its speculative kin). Linux's selftest: fsgsbase.c. The kernel survives, and the base stays.

use super::hazard::{Attempts, in_child, with_handler};
use crate::entry::{Args, Outcome};
use crate::linux::Ended;
use std::arch::asm;
use std::ffi::{c_int, c_void};

extern "C" fn nothing(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

/// With GS base `base`: a call, a breakpoint, a step, INT1, a page fault, and a while for interrupts to come. 1: the base is the same then.
fn with_base(base: u64) -> u8 {
    with_handler(libc::SIGTRAP, nothing);
    let now: u64;
    let page = vec![0u8; 1 << 16];
    // SAFETY: (1) nothing here uses GS; (2) all changed registers are named.
    unsafe {
        asm!("wrgsbase {b}", "mov eax, 110", "syscall", "int3", ".byte 0xf1", "mov al, [{p}]",
            "pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "pushfq", "and qword ptr [rsp], ~0x100", "popfq",
            "mov ecx, 2000000", "2: loop 2b", "rdgsbase {n}", "xor eax, eax", "wrgsbase rax",
            b = in(reg) base, p = in(reg) page.as_ptr().wrapping_add(20_000), n = lateout(reg) now,
            out("rax") _, out("rcx") _, out("r11") _);
    }
    u8::from(now == base)
}

/// `hazard_gs_base`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_gs_base");
    for base in [0u64, 0x1000, 0xffff_8000_0000_0000, 0xffff_c900_0000_0000, 0xffff_ffff_8000_0000, u64::MAX] {
        attempts.ends(&format!("base {base:#x}"), in_child(|| with_base(base)), &[Ended::Exit(1)]);
    }
    attempts.end()
}

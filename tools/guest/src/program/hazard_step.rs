//! hazard_step: a program that single-steps itself by TF, across SYSCALL, INT3, faults, PUSHF and POPF.
//!
//! What went wrong: TF at SYSCALL came through to the kernel where SFMASK did not clear it, and a step over a call was lost or
//! came twice (Linux's selftest single_step_syscall.c; CVE-2015-0239's kin). Here every instruction is counted, exactly once.

use super::hazard::{Attempts, in_child, with_handler};
use crate::entry::{Args, Outcome};
use crate::linux::Ended;
use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static STEPS: AtomicU64 = AtomicU64::new(0);
static BREAKPOINTS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    const TRAP_TRACE: c_int = 2;
    // SAFETY: (1) the kernel passes a valid siginfo.
    let code = unsafe { (*info).si_code };
    let counter = if code == TRAP_TRACE { &STEPS } else { &BREAKPOINTS };
    counter.fetch_add(1, Ordering::SeqCst);
}

macro_rules! stepped {
    ($($code:literal),*) => {
        in_child(|| {
            with_handler(libc::SIGTRAP, count);
            // SAFETY: (1) TF is set and cleared again; (2) getppid at most; all changed registers are named.
            unsafe {
                asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", $($code,)* "pushfq", "and qword ptr [rsp], ~0x100", "popfq",
                    inout("rax") 110u64 => _, out("rcx") _, out("rdx") _, out("r11") _)
            };
            (STEPS.load(Ordering::SeqCst) + 100 * BREAKPOINTS.load(Ordering::SeqCst)) as u8
        })
    };
}

/// `hazard_step`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_step");
    // PUSHF, AND and POPF at the end: three steps more (POPF that clears TF still traps behind itself).
    let mut is = |what: &str, ended, steps: u8| attempts.ends(what, ended, &[Ended::Exit(steps)]);
    is("nothing", stepped!(), 3);
    is("nops", stepped!("nop", "nop", "nop"), 6);
    is("loop", stepped!("mov ecx, 20", "2: loop 2b"), 24);
    // The trap behind SYSCALL comes behind the instruction that follows it.
    is("syscall", stepped!("syscall", "nop", "nop"), 5);
    is("two calls", stepped!("syscall", "nop", "mov eax, 110", "syscall", "nop", "nop"), 7);
    // INT3 is its own trap, and no step.
    is("int3", stepped!("nop", "int3", "nop"), 105);
    is("flags", stepped!("pushfq", "pop rdx", "push rdx", "popfq"), 7);
    attempts.end()
}

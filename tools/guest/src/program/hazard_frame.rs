//! hazard_frame: signal frames that a program forged before rt_sigreturn.
//!
//! What went wrong: CVE-2009-2910's kin and CVE-2018-1118's: XRSTOR of an area that the program wrote faulted in the kernel or loaded
//! another task's registers; CVE-2013-2224: flags of the frame taken as they were. Linux's selftest: corrupt_xstate_header.c.
//! A frame that cannot be loaded is the program's end.

use super::hazard::{Attempts, in_child, raise, with_handler};
use crate::entry::{Args, Outcome};
use crate::linux::Ended;
use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

static KIND: AtomicU64 = AtomicU64::new(0);

const KINDS: [&str; 8] = [
    "xstate_bv names a part that there is not",
    "compacted form",
    "reserved bytes of the header",
    "reserved bits of MXCSR",
    "floating-point state not aligned",
    "floating-point state in the kernel",
    "floating-point state at a non-canonical address",
    "floating-point state where nothing is",
];

extern "C" fn forge(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    const BAD: [u64; 3] = [0xffff_8000_0000_0000, 0x8000_0000_0000_0000, 0x1_0000];
    let kind = KIND.load(Ordering::SeqCst);
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: (1) the kernel passes the frame's ucontext and an XSAVE area; the offsets are the header's and MXCSR's.
    unsafe {
        // Behind the 23 general registers.
        let state = (&raw mut (*context).uc_mcontext).cast::<*mut u8>().add(23);
        let area = *state;
        match kind {
            0 => area.add(512).cast::<u64>().write_unaligned(1 << 62),
            1 => area.add(520).cast::<u64>().write_unaligned(1 << 63),
            2 => area.add(536).cast::<u64>().write_unaligned(1),
            3 => area.add(24).cast::<u32>().write_unaligned(0xffff_ffff),
            4 => *state = area.add(8),
            _ => *state = BAD[kind as usize - 5] as *mut u8,
        }
    }
}

/// `hazard_frame`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_frame");
    for (kind, what) in KINDS.iter().enumerate() {
        KIND.store(kind as u64, Ordering::SeqCst);
        let ended = in_child(|| {
            with_handler(libc::SIGUSR1, forge);
            raise(libc::SIGUSR1);
            0
        });
        // Reserved bytes may also be cleared, and QEMU loads MXCSR without its reserved bits.
        let mut wanted = vec![Ended::Signal(libc::SIGSEGV)];
        wanted.extend(matches!(kind, 2 | 3).then_some(Ended::Exit(0)));
        attempts.ends(what, ended, &wanted);
    }
    // No frame at all: the stack pointer lies elsewhere.
    for rsp in [0u64, 8, 0xffff_8000_0000_0000, 0x7fff_ffff_efff, 0x8000_0000_0000, u64::MAX] {
        let ended = in_child(|| {
            // SAFETY: (1) rt_sigreturn on a bad stack ends the child.
            unsafe { asm!("mov rsp, {rsp}", "syscall", "ud2", rsp = in(reg) rsp, in("rax") 15u64, options(noreturn)) }
        });
        attempts.ends(&format!("frame at {rsp:#x}"), ended, &[Ended::Signal(libc::SIGSEGV)]);
    }
    // A handler without a stack that could take its frame.
    for rsp in [0u64, 0xffff_8000_0000_0000, 0x8000_0000_0000] {
        let ended = in_child(|| {
            with_handler(libc::SIGSEGV, forge);
            // SAFETY: (1) the load faults, and the frame has no place: the child ends.
            unsafe { asm!("mov rsp, {rsp}", "mov rax, [rsp]", "ud2", rsp = in(reg) rsp, options(noreturn)) }
        });
        // The load itself may be a stack fault.
        let wanted = [libc::SIGSEGV, libc::SIGBUS].map(Ended::Signal);
        attempts.ends(&format!("handler on {rsp:#x}"), ended, &wanted);
    }
    attempts.end()
}

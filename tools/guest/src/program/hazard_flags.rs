//! hazard_flags: TF, NT, AC, DF, RF, IOPL and VM set by POPF, rt_sigreturn and PTRACE_SETREGS around the ways into the kernel.
//!
//! What went wrong: NT set by a program made the kernel's IRET fault (Linux 8c7aa698baca, "x86_64, entry: Filter RFLAGS.NT on entry
//! from userspace"; CVE-2014-8480's time); AC left set switched SMAP off in the kernel (CVE-2013-1959's kin); IOPL of a frame gave ports
//! (CVE-2013-2224); TF at SYSENTER. A program keeps its own flags and gets no others.

use super::hazard::{Attempts, in_child, raise, with_handler};
use crate::entry::{Args, Outcome};
use crate::linux::Ended;
use std::arch::asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

const IOPL: u64 = 0x3000;
const NT: u64 = 0x4000;
const VM: u64 = 0x2_0000;
const AC: u64 = 0x4_0000;
const DF: u64 = 0x400;
const VIRTUAL: u64 = 0x18_0000;
/// Bits that are no flag.
const RESERVED: u64 = !0x3f_ffff | 0x8028;
/// It lasts for one instruction.
const RF: u64 = 0x1_0000;

static FLAGS: AtomicU64 = AtomicU64::new(0);

extern "C" fn set(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: (1) the kernel passes the frame's ucontext.
    unsafe { (*context).uc_mcontext.gregs[libc::REG_EFL as usize] |= FLAGS.load(Ordering::SeqCst) as i64 };
}

/// Sets `flags` by POPF, makes a call and faults in a page, and says which of them are set then.
fn around_a_call(flags: u64) -> u64 {
    let after: u64;
    let page = vec![0u8; 1 << 16];
    // SAFETY: (1) the flags are put back before compiled code runs on; (2) getppid; all changed registers are named.
    unsafe {
        asm!("pushfq", "mov rdx, [rsp]", "or [rsp], {f}", "popfq", "mov eax, 110", "syscall", "mov al, [{p}]", "pushfq",
            "pop {f}", "push rdx", "popfq",
            f = inout(reg) flags => after, p = in(reg) page.as_ptr().wrapping_add(20_000), out("rax") _, out("rcx") _, out("rdx") _,
            out("r11") _);
    }
    after & flags
}

/// `hazard_flags`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_flags");
    for (name, flags, kept) in
        [("NT", NT, NT), ("AC", AC, AC), ("DF", DF, DF), ("all", NT | AC | DF | IOPL | VM | VIRTUAL, NT | AC | DF)]
    {
        let ended = in_child(|| u8::from(around_a_call(flags) == kept));
        attempts.ends(&format!("popf {name}"), ended, &[Ended::Exit(1)]);
    }
    // rt_sigreturn: NT and IOPL of the frame are not taken. VM, RF and what is reserved PUSHF never shows: those only have to be survived.
    for flags in [NT, IOPL, VM, VIRTUAL, RESERVED, RF, NT | IOPL | VM | VIRTUAL | RESERVED | RF] {
        FLAGS.store(flags, Ordering::SeqCst);
        let ended = in_child(|| {
            with_handler(libc::SIGUSR1, set);
            raise(libc::SIGUSR1);
            let now: u64;
            // SAFETY: (1) the flags are only read.
            unsafe { asm!("pushfq", "pop {}", out(reg) now) };
            u8::from(now & flags == 0)
        });
        attempts.ends(&format!("sigreturn {flags:#x}"), ended, &[Ended::Exit(1)]);
    }
    // TF of the frame is a trap behind the next instruction.
    FLAGS.store(0x100, Ordering::SeqCst);
    let ended = in_child(|| {
        with_handler(libc::SIGUSR1, set);
        raise(libc::SIGUSR1);
        0
    });
    attempts.ends("sigreturn TF", ended, &[Ended::Signal(libc::SIGTRAP)]);
    attempts.dies(
        "ports",
        in_child(|| {
            // SAFETY: (1) a port that nobody has: it faults.
            unsafe { asm!("out 0x80, al", in("al") 0u8) };
            0
        }),
    );
    attempts.end()
}

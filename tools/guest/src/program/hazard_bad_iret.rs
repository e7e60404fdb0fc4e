//! hazard_bad_iret: return addresses and selectors that IRET cannot load, through rt_sigreturn and through PTRACE_SETREGS.
//!
//! What went wrong: CVE-2014-9322 (BadIRET). IRET to a bad stack segment faulted in the kernel with the program's GS base loaded; the
//! handler took that for the kernel's own. CVE-2014-9090: the same fault, handled as a double fault, ended the kernel.
//! Linux's selftest: sigreturn.c. Here each is to be a fault of the program, which it may also handle.

use super::hazard::{Attempts, in_child, raise, with_handler};
use crate::entry::{Args, Outcome};
use crate::program::calls::traced::{Traced, regs, request};
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// Selectors that are no code segment of ring 3.
const BAD_CS: [u64; 7] = [0x2b, 0x23, 0x3b, 0x43, 0x4b, 0xfffb, 0x07];
/// Selectors that are no stack segment of ring 3.
const BAD_SS: [u64; 6] = [0x33, 0x23, 0x43, 0x4b, 0xfff3, 0x07];
/// Addresses that are none of the program's.
pub const BAD_RIP: [u64; 6] =
    [0x8000_0000_0000, 0x7fff_ffff_f000, 0xdead_0000_0000_0000, 0xffff_7fff_ffff_ffff, 0xffff_ffff_8000_0000, u64::MAX];

/// Word of the saved registers, and what it is to be: `u64::MAX` in the mask's bits.
static PLACE: AtomicU64 = AtomicU64::new(0);
static MASK: AtomicU64 = AtomicU64::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);

extern "C" fn change(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let context = context.cast::<libc::ucontext_t>();
    let (place, mask) = (PLACE.load(Ordering::SeqCst) as usize, MASK.load(Ordering::SeqCst));
    // SAFETY: (1) the kernel passes the frame's ucontext; (2) the place is within its registers.
    unsafe {
        let word = &mut (*context).uc_mcontext.gregs[place];
        *word = (*word as u64 & !mask | VALUE.load(Ordering::SeqCst) & mask) as i64;
    }
}

extern "C" fn caught(signal: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    crate::linux::exit_now(signal as u8);
}

fn attempt(attempts: &mut Attempts, what: &str, place: c_int, mask: u64, value: u64) {
    PLACE.store(place as u64, Ordering::SeqCst);
    MASK.store(mask, Ordering::SeqCst);
    VALUE.store(value, Ordering::SeqCst);
    let returns = |handled: bool| {
        in_child(|| {
            if handled {
                with_handler(libc::SIGSEGV, caught);
                with_handler(libc::SIGBUS, caught);
            }
            with_handler(libc::SIGUSR1, change);
            raise(libc::SIGUSR1);
            0
        })
    };
    attempts.dies(&format!("{what} {value:#x}"), returns(false));
    attempts.handles(&format!("{what} {value:#x}, handled"), returns(true));
    // The same by a debugger.
    let by_tracer = || -> Result<crate::linux::Ended, String> {
        let t = Traced::start(|| 0)?;
        let index = match (place, mask) {
            (libc::REG_RIP, _) => regs::RIP,
            (_, 0xffff) => regs::CS,
            _ => regs::SS,
        };
        let value = if index == regs::SS { value >> 48 } else { value };
        t.ask(request::POKEUSER, index as u64 * 8, value).map_err(|e| format!("error {e}"))?;
        t.ask(request::CONT, 0, 0).map_err(|e| format!("error {e}"))?;
        // Its tracer hears of the fault first.
        let signal = t.stopped()?;
        t.ask(request::CONT, 0, signal).map_err(|e| format!("error {e}"))?;
        t.ended()
    };
    attempts.dies(&format!("{what} {value:#x}, by ptrace"), by_tracer());
}

/// `hazard_bad_iret`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_bad_iret");
    for cs in BAD_CS {
        attempt(&mut attempts, "cs", libc::REG_CSGSFS, 0xffff, cs);
    }
    for ss in BAD_SS {
        attempt(&mut attempts, "ss", libc::REG_CSGSFS, 0xffff << 48, ss << 48);
    }
    for rip in BAD_RIP {
        attempt(&mut attempts, "rip", libc::REG_RIP, u64::MAX, rip);
    }
    attempts.end()
}

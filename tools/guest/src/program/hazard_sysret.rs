//! hazard_sysret: a tracer moves a program's return address out of user memory while it is in a system call.
//!
//! What went wrong: CVE-2012-0217 and CVE-2014-4699. SYSRET to a non-canonical address faults in the kernel, on Intel's processors with the
//! program's stack pointer loaded already: the program chose where the kernel wrote. Such a return has to go by IRET.

use super::hazard::Attempts;
use super::hazard_bad_iret::BAD_RIP;
use crate::entry::{Args, Outcome};
use crate::linux::Ended;
use crate::program::calls::traced::{Traced, regs, request};

fn moved(at_exit: bool, rip: u64) -> Result<Ended, String> {
    let t = Traced::start(|| {
        let _ = std::hint::black_box(std::process::id());
        // SAFETY: (1) a call without arguments.
        unsafe { libc::getppid() };
        0
    })?;
    let ask = |number, address, data| t.ask(number, address, data).map_err(|e| format!("request {number}: error {e}"));
    for _ in 0..=u8::from(at_exit) {
        ask(request::SYSCALL, 0, 0)?;
        t.stopped()?;
    }
    ask(request::POKEUSER, regs::RIP as u64 * 8, rip)?;
    // A stack pointer that the kernel must not write through.
    ask(request::POKEUSER, regs::RSP as u64 * 8, 0xffff_ffff_8000_1000)?;
    ask(request::CONT, 0, 0)?;
    let signal = t.stopped()?;
    ask(request::CONT, 0, signal)?;
    t.ended()
}

/// `hazard_sysret`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_sysret");
    for rip in BAD_RIP {
        attempts.dies(&format!("before a call: rip {rip:#x}"), moved(false, rip));
        attempts.dies(&format!("after a call: rip {rip:#x}"), moved(true, rip));
    }
    attempts.end()
}

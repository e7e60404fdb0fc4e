//! hazard_pop_ss: a watchpoint on the word that MOV SS loads, and a trap behind it.
//!
//! What went wrong: CVE-2018-8897 (POP SS) and CVE-2018-1087. MOV SS and POP SS put a #DB off by one instruction; when that was INT3, INT n
//! or SYSCALL the #DB came at the kernel's first instruction, with the program's GS and stack. Linux's selftest: mov_ss_trap.c.

use super::hazard::Attempts;
use crate::entry::{Args, Outcome};
use crate::linux::Ended;
use crate::program::calls::traced::{Traced, request};
use std::arch::asm;

/// What MOV SS loads.
static SELECTOR: u16 = 0x2b;

macro_rules! behind {
    ($($code:literal),+) => {
        || {
            // SAFETY: (1) the selector is the one that is loaded; (2) getppid at most; all changed registers are named.
            unsafe {
                asm!("mov ss, word ptr [{s}]", $($code),+, s = in(reg) &SELECTOR, inout("rax") 110u64 => _, out("rcx") _, out("r11") _)
            };
            7
        }
    };
}

/// Runs `child` under a watchpoint on `SELECTOR`, stepped or not, and takes every trap away.
fn traced(child: impl FnOnce() -> u8, steps: bool) -> Result<Ended, String> {
    const DEBUG_REGISTERS: u64 = 848;
    const READ_WRITE_2: u64 = 0x7_0001;
    let t = Traced::start(child)?;
    let ask = |number, address, data| t.ask(number, address, data).map_err(|e| format!("request {number}: error {e}"));
    ask(request::POKEUSER, DEBUG_REGISTERS, &raw const SELECTOR as u64)?;
    ask(request::POKEUSER, DEBUG_REGISTERS + 56, READ_WRITE_2)?;
    let mut signal = 0;
    for _ in 0..200_000 {
        ask(if steps { request::SINGLESTEP } else { request::CONT }, 0, signal)?;
        let mut status = 0u32;
        // SAFETY: (1) the pointer is to a live value.
        let found = unsafe { libc::wait4(t.pid as i32, (&raw mut status).cast(), 0, std::ptr::null_mut()) };
        if found < 0 {
            return Err("wait".into());
        }
        match status & 0x7f {
            0x7f => {}
            0 => return Ok(Ended::Exit((status >> 8) as u8)),
            signal => return Ok(Ended::Signal(signal as i32)),
        }
        // SIGSEGV of what the kernel does not offer, such as INT 0x80, goes on to the program.
        signal = Some(u64::from(status >> 8 & 0xff)).filter(|&s| s != libc::SIGTRAP as u64).unwrap_or(0);
    }
    Err("it does not end".into())
}

/// POP SS, whose code is no instruction in 64-bit mode.
fn pop_ss() -> u8 {
    // SAFETY: (1) it is an exception that ends the program.
    unsafe { asm!("push 0x2b", ".byte 0x17", "int3") };
    7
}

/// `hazard_pop_ss`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_pop_ss");
    for steps in [false, true] {
        attempts.ends("nop", traced(behind!("nop"), steps), &[Ended::Exit(7)]);
        attempts.ends("int3", traced(behind!("int3"), steps), &[Ended::Exit(7)]);
        attempts.ends("syscall", traced(behind!("syscall"), steps), &[Ended::Exit(7)]);
        attempts.ends("mov ss twice", traced(behind!("mov ss, word ptr [{s}]", "syscall"), steps), &[Ended::Exit(7)]);
        let refused = [Ended::Signal(libc::SIGSEGV), Ended::Exit(7)];
        attempts.ends("pop ss", traced(pop_ss, steps), &[Ended::Signal(libc::SIGILL)]);
        attempts.ends("int 0x80", traced(behind!("int 0x80"), steps), &refused);
    }
    attempts.end()
}

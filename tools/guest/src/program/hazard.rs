//! What the hazard programs share: children that try, and the count of attempts that ended as they ought to.
//!
//! Each `hazard_*` is a program of its own (`box` has them all): its first lines say what went wrong in which kernel.

use crate::entry::{Failure, Outcome};
use crate::linux::{self, Ended, Fork};
use crate::output::write_out;
use std::ffi::{c_int, c_void};

/// Runs `child` in a process of its own and says how that ended.
pub fn in_child(child: impl FnOnce() -> u8) -> Result<Ended, String> {
    match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => linux::exit_now(child()),
        Fork::Parent(pid) => linux::wait_for(pid).map_err(|e| format!("wait for {pid}: {e}")),
    }
}

/// Calls `handler` at `signal`, on the stack that is in use.
pub fn with_handler(signal: c_int, handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)) {
    // SAFETY: (1) the structure is filled; (2) handlers here use atomics and system calls only.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

/// Sends `signal` to the caller.
pub fn raise(signal: c_int) {
    // SAFETY: (1) no memory is passed.
    unsafe { libc::raise(signal) };
}

/// Attempts of one program.
pub struct Attempts {
    name: &'static str,
    all: usize,
    wrong: Vec<String>,
}

impl Attempts {
    /// None yet.
    pub fn new(name: &'static str) -> Attempts {
        Attempts { name, all: 0, wrong: Vec::new() }
    }

    /// One that is to end in one of the ways `wanted`.
    pub fn ends(&mut self, what: &str, ended: Result<Ended, String>, wanted: &[Ended]) {
        self.all += 1;
        match ended {
            Ok(ended) if wanted.contains(&ended) => {}
            other => self.wrong.push(format!("{what}: {other:?}, not {wanted:?}")),
        }
    }

    /// One that is over, with the right end if `held`.
    pub fn holds(&mut self, what: &str, held: bool) {
        self.all += 1;
        if !held {
            self.wrong.push(what.to_string());
        }
    }

    /// One that is to be killed for a fault of its own.
    pub fn dies(&mut self, what: &str, ended: Result<Ended, String>) {
        self.ends(what, ended, &[libc::SIGSEGV, libc::SIGBUS, libc::SIGILL].map(Ended::Signal));
    }

    /// One that is to take the fault in its handler, which ends it with the signal's number.
    pub fn handles(&mut self, what: &str, ended: Result<Ended, String>) {
        self.ends(what, ended, &[libc::SIGSEGV, libc::SIGBUS].map(|signal| Ended::Exit(signal as u8)));
    }

    /// The line that says how all went.
    pub fn end(self) -> Outcome {
        if self.wrong.is_empty() {
            write_out(format!("{}: {} attempts, all as they ought to end\n", self.name, self.all).as_bytes());
            return Ok(0);
        }
        Err(Failure::new(format!(
            "{} of {} attempts ended otherwise: {}",
            self.wrong.len(),
            self.all,
            self.wrong.join("; ")
        )))
    }
}

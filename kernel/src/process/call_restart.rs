//! What becomes of a system call that a signal interrupted: it starts again, or returns EINTR.
//!
//! Called by signal delivery, once the signal's action is known. Source: signal(7), "Interruption of system calls".

use super::signal::{Action, sa};
use super::{Restart, current_thread};
use crate::entry::frame::Frame;
use crate::errno::{EINTR, ERESTART_RESTARTBLOCK, ERESTARTNOHAND, ERESTARTNOINTR, ERESTARTSYS};

/// If the call that `frame` returns from was interrupted: restart it, or let it return EINTR to the handler `action`.
#[inline(always)]
pub fn restart_system_call(frame: &mut Frame, action: Option<&Action>) {
    // The results that ask for it stand together, and most calls have another.
    const FIRST: i64 = ERESTART_RESTARTBLOCK.ret();
    const LAST: i64 = ERESTARTSYS.ret();
    if (FIRST..=LAST).contains(&(frame.rax as i64)) {
        core::hint::cold_path();
        restart(frame, action);
    }
}

#[cold]
#[inline(never)]
fn restart(frame: &mut Frame, action: Option<&Action>) {
    const SYSCALL_LEN: u64 = 2;
    const RESTART_SYSCALL: u64 = 219;
    if frame.orig_rax == u64::MAX {
        return;
    }
    let number = core::mem::replace(&mut frame.orig_rax, u64::MAX);
    let result = frame.rax as i64;
    let may_restart = action.is_none_or(|a| a.flags & sa::RESTART != 0);
    let again = if result == ERESTARTNOINTR.ret() {
        Some(number)
    } else if result == ERESTARTSYS.ret() {
        may_restart.then_some(number)
    } else if result == ERESTARTNOHAND.ret() {
        action.is_none().then_some(number)
    } else if result == ERESTART_RESTARTBLOCK.ret() {
        action.is_none().then_some(RESTART_SYSCALL)
    } else {
        frame.orig_rax = number;
        return;
    };
    match again {
        Some(number) => {
            frame.rax = number;
            // A tracer may have put any address there.
            frame.rip = frame.rip.wrapping_sub(SYSCALL_LEN);
        }
        None => {
            frame.rax = EINTR.ret() as u64;
            *current_thread().restart.lock() = Restart::Nothing;
        }
    }
}

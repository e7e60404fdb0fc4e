//! System calls that need or edit the whole frame: clone, fork, vfork, execve, rt_sigreturn.
//!
//! Reached by `entry::syscall::full_frame_call`, the table's entry for their numbers.

use super::table::{Calls, into_rax};
use crate::entry::frame::Frame;
use crate::entry::syscall::full_frame_call;
use crate::errno::{E2BIG, EFAULT, ENAMETOOLONG, Errno};
use crate::mm::user_copy;
use crate::process::fork::{self, Clone, flag};
use crate::process::signal::{Info, force, sig};
use crate::process::user_stack::{STRING_MAX, Strings};
use crate::process::{current_thread, exec, signal_frame};
use crate::spin_lock::PreemptOff;
use crate::trace_point;
use kcore::trace_event::{Data, Flags};

const RT_SIGRETURN: usize = 15;
const CLONE: usize = 56;
const FORK: usize = 57;
const VFORK: usize = 58;
const EXECVE: usize = 59;

/// Numbers; the handler is one for all.
pub const CALLS: Calls = &[
    (RT_SIGRETURN, full_frame_call_entry()),
    (CLONE, full_frame_call_entry()),
    (FORK, full_frame_call_entry()),
    (VFORK, full_frame_call_entry()),
    (EXECVE, full_frame_call_entry()),
];

/// `full_frame_call` as a table entry: it takes its arguments from the frame and so ignores the registers.
const fn full_frame_call_entry() -> super::table::Handler {
    // SAFETY: both are C-ABI function pointers, and the function does not return to its caller by the ABI.
    unsafe { core::mem::transmute::<unsafe extern "C" fn(), super::table::Handler>(full_frame_call) }
}

/// Run the call whose number is in `orig_rax`; its result goes to the frame.
pub extern "C" fn full_frame_dispatch(frame: &mut Frame) {
    let number = frame.orig_rax;
    dispatch(frame);
    trace_point!(TRACE_SYSCALLS, &PreemptOff::new(), Flags::NONE, Data::SysExit { number, result: frame.rax as i64 });
}

fn dispatch(frame: &mut Frame) {
    let signal = sig::CHLD as u64;
    let result = match frame.orig_rax as usize {
        CLONE => {
            let args = Clone {
                flags: frame.rdi,
                stack: frame.rsi,
                parent_tid: frame.rdx,
                child_tid: frame.r10,
                tls: frame.r8,
            };
            fork::clone(frame, &args)
        }
        FORK => fork::clone(frame, &Clone { flags: signal, stack: 0, parent_tid: 0, child_tid: 0, tls: 0 }),
        VFORK => {
            let flags = flag::VM | flag::VFORK | signal;
            fork::clone(frame, &Clone { flags, stack: 0, parent_tid: 0, child_tid: 0, tls: 0 })
        }
        EXECVE => match execve(frame) {
            Ok(()) => return,
            Err(e) => Err(e),
        },
        RT_SIGRETURN => {
            if signal_frame::pop(frame, current_thread()).is_err() {
                force(Info::from_kernel(sig::SEGV));
            }
            return;
        }
        _ => Err(crate::errno::ENOSYS),
    };
    frame.rax = into_rax(result) as u64;
}

fn strings(at: u64) -> Result<Strings, Errno> {
    let mut out = Strings::new();
    if at == 0 {
        return Ok(out);
    }
    for i in 0.. {
        let pointer: u64 = user_copy::read(at.checked_add(i * 8).ok_or(EFAULT)?)?;
        if pointer == 0 {
            break;
        }
        out.push(&user_copy::read_string(pointer, STRING_MAX)?.ok_or(E2BIG)?)?;
    }
    Ok(out)
}

fn execve(frame: &mut Frame) -> Result<(), Errno> {
    let path = user_copy::read_string(frame.rdi, 4096)?.ok_or(ENAMETOOLONG)?;
    let mut args = strings(frame.rsi)?;
    let env = strings(frame.rdx)?;
    if args.is_empty() {
        args.push(b"")?;
    }
    exec::execve(frame, &path, args, &env)
}

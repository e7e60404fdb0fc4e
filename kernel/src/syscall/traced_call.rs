//! A system call of a traced task, from `entry::traced_syscall`: its tracer may be told before and after it, and may change it.

use super::frame_call::{full_frame_call_entry, full_frame_dispatch, signal_return_entry};
use super::table::{TABLE, into_rax};
use crate::entry::frame::Frame;
use crate::entry::syscall::TABLE_LEN;
use crate::errno::ENOSYS;
use crate::process::{current_thread, ptrace};
use crate::spin_lock::PreemptOff;
use crate::trace_point;
use kcore::trace_event::{Data, Flags};

const EXIT: u64 = 60;
const EXIT_GROUP: u64 = 231;

/// Run the call that `frame` asks for. Interrupts are on.
pub extern "C" fn run(frame: &mut Frame) {
    let thread = current_thread();
    frame.rax = into_rax(Err(ENOSYS)) as u64;
    if ptrace::call_begins(thread, frame) {
        dispatch(frame);
    }
    ptrace::call_ends(thread, frame);
}

fn dispatch(frame: &mut Frame) {
    let number = frame.orig_rax;
    if number == EXIT || number == EXIT_GROUP {
        ptrace::about_to_end(current_thread(), frame, (frame.rdi as u32 & 0xff) << 8);
    }
    // The number that skips a call is beyond the table: rax is then what the tracer left there.
    let Some(&handler) = TABLE.handler(number) else { return };
    let is = |entry| core::ptr::fn_addr_eq(handler, entry);
    if is(full_frame_call_entry()) || is(signal_return_entry()) {
        full_frame_dispatch(frame);
        return;
    }
    // SAFETY: a handler of the table, with the arguments that the fast path gives it.
    frame.rax = unsafe { handler(frame.rdi, frame.rsi, frame.rdx, frame.r10, frame.r8, frame.r9) } as u64;
    // Some leave them off (`IrqOff::stay_off`).
    x86_64::instructions::interrupts::enable();
    trace_point!(TRACE_SYSCALLS, &PreemptOff::new(), Flags::NONE, Data::SysExit { number, result: frame.rax as i64 });
}

const _: () = assert!(EXIT_GROUP < TABLE_LEN as u64);

//! rt_sigreturn(2): the way back from a signal handler, without a frame of registers that would be overwritten at once.
//!
//! The caller's general registers are of no use: those of the interrupted code are loaded from the signal frame straight into the CPU, last of all, and the
//! way out is by IRET with the five words that `signal_return` left at the top of the stack. A frame that is refused before that goes the general way, as
//! a call with a full frame, which says what is wrong with it. A traced task's call goes that way from the start (`traced_syscall`).

use super::exit_work::full_exit_to_user;
use super::frame::{RETURN_START, SYSCALL_START};
use super::syscall::full_frame_call;
use core::arch::naked_asm;

/// Number of the call.
pub const RT_SIGRETURN: usize = 15;

/// Its entry in the table of calls.
///
/// # Safety
/// Called by `syscall_entry`'s dispatch only.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn signal_return_call() {
    naked_asm!(
        "add rsp, 8",               // the return address into the fast path is not needed any more
        "lea rdi, [rsp + {back}]",
        "call {signal_return}",
        "test rax, rax",
        "jz 60f",
        "mov rdi, rax",
        "call {load_registers}",
        "jc 61f",
        "cli",
        "jmp registers_exit_to_user",
        // Refused, and all is as it was but for registers that a call may change: the general way, from its start.
        "60: mov eax, {number}",
        "push rax",
        "jmp {full_frame_call}",
        // It was there before, and is gone: another thread's doing.
        "61: add rsp, {back}",
        push_all!(),
        "call {frame_is_gone}",
        "cli",
        "jmp {exit}",
        back = const RETURN_START - SYSCALL_START,
        number = const RT_SIGRETURN,
        signal_return = sym crate::syscall::signal_return,
        frame_is_gone = sym crate::syscall::frame_is_gone,
        load_registers = sym crate::mm::user_context::load_registers,
        full_frame_call = sym full_frame_call,
        exit = sym full_exit_to_user,
    )
}

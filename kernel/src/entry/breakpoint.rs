//! #BP: a path of its own, without a key site before user_exit, because code that is being patched may lead here.
//!
//! Not on an IST stack: it cannot arrive where there is no stack, since breakpoints in entry text are refused. From user mode
//! it is SIGTRAP; in the kernel it is a site that is being patched, or the end.

use super::frame::Frame;
use super::irq::clac_site;
use super::trace_crossing;
use crate::static_branch;
use crate::trace::key::EXCEPTIONS;
use core::arch::naked_asm;
use core::mem::offset_of;
use kcore::trace_event::By;

const BREAKPOINT: u64 = super::exception::BREAKPOINT;

/// # Safety
/// Only hardware jumps here.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn breakpoint_entry() {
    naked_asm!(
        "cld",
        clac_site!(),
        "push -1",                              // where others have a system call's number
        push_all!(),
        "mov rdi, rsp",
        "test byte ptr [rsp + {cs}], 3",
        "jz 70f",
        "swapgs",
        "call {from_user}",
        "jmp {exit}",
        "70: call {from_kernel}",
        pop_all!(),
        "iretq",
        cs = const offset_of!(Frame, cs),
        from_user = sym from_user,
        from_kernel = sym from_kernel,
        exit = sym super::exit_work::full_exit_to_user,
    )
}

/// In user mode: SIGTRAP. Returns with interrupts off.
extern "C" fn from_user(frame: &mut Frame) {
    crate::context_tracking::user_exit_if_tracked();
    crate::percpu::count_exception();
    frame.entered_by = By::Exception as u64;
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_entry(frame, BREAKPOINT, 0, 0);
    }
    x86_64::instructions::interrupts::enable();
    crate::process::fault::user_exception(frame, BREAKPOINT, 0);
    x86_64::instructions::interrupts::disable();
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_exit(BREAKPOINT);
    }
}

/// In kernel mode, interrupts off: a site that is being patched goes on behind its NOP or at its jump's target; INT3 is one byte, and
/// the frame's rip is behind it. Takes no lock, and looks at nothing that RCU protects. Anything else is the end.
extern "C" fn from_kernel(frame: &mut Frame) {
    match crate::text_patch::trapped_at(frame.rip - 1) {
        Some(target) => frame.rip = target,
        None => {
            frame.orig_rax = 0;
            crate::panic::exception_in_kernel(frame, BREAKPOINT, 0)
        }
    }
}

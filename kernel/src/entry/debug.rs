//! #DB and the debug registers.
//!
//! DR7 is off when these run: the paranoid entries (`nmi.rs`) clear it before anything that could be watched is touched, so a watchpoint
//! cannot recurse. Source: SDM vol. 3B, "Debug Registers".

use super::frame::{Frame, RFLAGS_IF};
use super::trace_crossing;
use crate::arch::debug_registers;
use crate::arch::irq_flag::IrqOff;
use crate::static_branch;
use crate::trace::key::EXCEPTIONS;
use crate::trace::record::{record_wanted, wanted};
use core::arch::asm;
use kcore::debug_register::HIT;
use kcore::trace_event::{By, Data, Event, Flags};

const RFLAGS_TF: u64 = 0x100;
/// Resume flag: the instruction that IRET goes to runs though it has a breakpoint.
const RFLAGS_RF: u64 = 0x1_0000;

/// DR7 as the paranoid entry found it and put it into the frame of an arrival from user mode, in force again: from here on watchpoints and
/// breakpoints may be hit, by the kernel too. Once for each such frame, which is on the task's stack.
#[inline(always)]
pub fn rearm(frame: &mut Frame) {
    let dr7 = core::mem::replace(&mut frame.orig_rax, u64::MAX);
    if dr7 & 0xff != 0 {
        // SAFETY: DR7 decides only when #DB fires. No `nomem`: what the caller has accessed before stays before.
        unsafe { asm!("mov dr7, {}", in(reg) dr7, options(nostack, preserves_flags)) }
    }
}

fn take_dr6() -> u64 {
    let dr6: u64;
    // SAFETY: DR6 is status only; hardware never clears it, so we do.
    unsafe {
        asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack, preserves_flags));
        asm!("mov dr6, {}", in(reg) 0xffff_0ff0u64, options(nomem, nostack, preserves_flags));
    }
    dr6
}

/// #DB in user mode, already on the task stack: SIGTRAP. Returns with interrupts off.
pub extern "C" fn from_user(frame: &mut Frame) {
    let dr6 = take_dr6();
    crate::context_tracking::user_exit_if_tracked();
    crate::percpu::count_exception();
    // The way out's own reads of the frame: their #DB comes behind IRET or SYSRET, in user mode.
    let hits = debug_registers::kernel_hits(dr6);
    if hits != 0 {
        crate::isolation::watchpoint::note_hits(hits, frame);
    }
    rearm(frame);
    frame.entered_by = By::Exception as u64;
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_entry(frame, 1, frame.rip, dr6);
    }
    debug_assert!(frame.rflags & RFLAGS_IF != 0);
    x86_64::instructions::interrupts::enable();
    crate::process::fault::user_debug(frame, dr6);
    x86_64::instructions::interrupts::disable();
    crate::process::restartable::was_away();
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_exit(1);
    }
}

/// Hits of the kernel's own watchpoints are counted, and in the trace if that has exceptions.
fn note(dr6: u64, frame: &Frame) {
    let hits = debug_registers::kernel_hits(dr6);
    if hits == 0 {
        return;
    }
    crate::isolation::watchpoint::note_hits(hits, frame);
    // By a look, not by a key: no site may be in here.
    if wanted().contains(Event::ExceptionEntry) {
        // SAFETY: #DB turned interrupts off.
        let irq_off = unsafe { IrqOff::assume() };
        record_wanted(&irq_off, Flags::IN_NMI, Data::ExceptionEntry { vector: 1, address: frame.rip, error_code: dr6 });
    }
}

/// #DB in kernel mode: a single step that came in with SYSENTER-like tricks is dropped by clearing TF; a watchpoint is counted.
pub extern "C" fn from_kernel(frame: &mut Frame) {
    let dr6 = take_dr6();
    // A breakpoint's #DB comes before its instruction, again and again without this. By DR6 alone: this CPU's registers may still have what the
    // kernel's list has no more. Behind a watched access it does no harm.
    if dr6 & HIT != 0 {
        frame.rflags |= RFLAGS_RF;
    }
    crate::context_tracking::in_nmi(|| {
        crate::percpu::count_exception();
        note(dr6, frame);
    });
    frame.rflags &= !RFLAGS_TF;
}

//! #DB and the debug registers.
//!
//! DR7 is cleared before anything that could be watched is touched, so a watchpoint cannot recurse. Source: SDM vol. 3B,
//! "Debug Registers".

use super::frame::{Frame, RFLAGS_IF};
use super::trace_crossing;
use crate::arch::debug_registers;
use crate::arch::irq_flag::IrqOff;
use crate::static_branch;
use crate::trace::key::EXCEPTIONS;
use crate::trace::record::{record_wanted, wanted};
use core::arch::asm;
use kcore::trace_event::{By, Data, Event, Flags};

const RFLAGS_TF: u64 = 0x100;
/// DR7 with nothing enabled (bit 10 reads as one).
const DR7_OFF: u64 = 0x400;

/// DR7 as it was, to be given back to `resume`.
pub struct Suspended(u64);

/// Turn all breakpoints and watchpoints off.
#[inline(always)]
pub fn suspend() -> Suspended {
    let dr7: u64;
    // SAFETY: DR7 decides only when #DB fires.
    unsafe {
        asm!("mov {}, dr7", out(reg) dr7, options(nomem, nostack, preserves_flags));
        if dr7 & 0xff != 0 {
            asm!("mov dr7, {}", in(reg) DR7_OFF, options(nomem, nostack, preserves_flags));
        }
    }
    Suspended(dr7)
}

/// Back to what `suspend` found.
#[inline(always)]
pub fn resume(old: Suspended) {
    if old.0 & 0xff != 0 {
        // SAFETY: as in `suspend`.
        unsafe { asm!("mov dr7, {}", in(reg) old.0, options(nomem, nostack, preserves_flags)) }
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
    let guard = suspend();
    let dr6 = take_dr6();
    crate::context_tracking::user_exit_if_tracked();
    crate::percpu::count_exception();
    resume(guard);
    frame.orig_rax = u64::MAX;
    frame.entered_by = By::Exception as u64;
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_entry(frame, 1, frame.rip, dr6);
    }
    debug_assert!(frame.rflags & RFLAGS_IF != 0);
    x86_64::instructions::interrupts::enable();
    crate::process::fault::user_debug(frame, dr6);
    x86_64::instructions::interrupts::disable();
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_exit(1);
    }
}

/// Hits of the kernel's own watchpoints are counted, and in the trace if that has exceptions.
fn note(dr6: u64, rip: u64) {
    let hits = debug_registers::kernel_hits(dr6);
    if hits == 0 {
        return;
    }
    crate::isolation::watchpoint::note_hits(hits, rip);
    // By a look, not by a key: no site may be in here.
    if wanted().contains(Event::ExceptionEntry) {
        // SAFETY: #DB turned interrupts off.
        let irq_off = unsafe { IrqOff::assume() };
        record_wanted(&irq_off, Flags::IN_NMI, Data::ExceptionEntry { vector: 1, address: rip, error_code: dr6 });
    }
}

/// #DB in kernel mode: a single step that came in with SYSENTER-like tricks is dropped by clearing TF; a watchpoint is counted.
pub extern "C" fn from_kernel(frame: &mut Frame) {
    let guard = suspend();
    let dr6 = take_dr6();
    let rip = frame.rip;
    crate::context_tracking::in_nmi(|| {
        crate::percpu::count_exception();
        note(dr6, rip);
    });
    frame.rflags &= !RFLAGS_TF;
    resume(guard);
}

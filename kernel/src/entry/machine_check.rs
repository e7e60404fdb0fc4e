//! #MC: the banks are read, `kcore::machine_check` decides, and it is done: nothing, SIGBUS to the program that used what is lost, or the end.
//!
//! The entry is `nmi::machine_check_entry`: DR7 is off, GS is the kernel's; from user mode on the task's stack, else on an IST stack. A second
//! one before `clear` shuts the CPU down, so from user mode the banks come before user_exit, by per-CPU data and registers alone. No lock, and no key
//! site before user_exit or nmi_enter.

use super::debug::rearm;
use super::frame::Frame;
use super::nmi;
use crate::arch::irq_flag::IrqOff;
use crate::arch::machine_check::{self, Report};
use crate::arch::tsc;
use crate::percpu;
use crate::smp::interrupt::note_exception;
use kcore::machine_check::{Interrupted, Verdict, cap, decide};
use kcore::trace_event::By;

const VECTOR: u8 = 18;

/// What is to be done. The banks are cleared, unless it is the end.
fn judged(report: &Report, interrupted: Interrupted) -> Verdict {
    let verdict = decide(report.mcg_status, report.cap & cap::RECOVERY != 0, interrupted, &report.banks);
    if !matches!(verdict, Verdict::End(_)) {
        machine_check::clear(report, percpu::cpu());
    }
    verdict
}

/// In user mode, already on the task's stack. Returns with interrupts off.
pub extern "C" fn from_user(frame: &mut Frame) {
    let start_tsc = tsc::now();
    let mut report = Report::new();
    machine_check::read(&mut report);
    let verdict = judged(&report, Interrupted::User);
    crate::context_tracking::user_exit_if_tracked();
    percpu::count_exception();
    if let Verdict::End(why) = verdict {
        crate::panic::machine_check(frame, report.mcg_status, &report.banks, why);
    }
    // SAFETY: the gate turned interrupts off.
    note_exception(VECTOR, start_tsc, &unsafe { IrqOff::assume() });
    rearm(frame);
    frame.entered_by = By::Exception as u64;
    if let Verdict::Program { bank, restartable } = verdict {
        x86_64::instructions::interrupts::enable();
        crate::process::fault::user_machine_check(frame, &bank, restartable);
        x86_64::instructions::interrupts::disable();
    }
}

/// In kernel mode, on the IST stack.
pub extern "C" fn from_kernel(frame: &mut Frame) {
    let start_tsc = tsc::now();
    crate::context_tracking::in_nmi(|| {
        percpu::count_exception();
        // SAFETY: the gate turned interrupts off.
        let irq_off = unsafe { IrqOff::assume() };
        let in_nmi_entry = nmi::frame_in_use(frame.rip, frame.rsp, percpu::this(&irq_off).segments.ist()[0]);
        let mut report = Report::new();
        machine_check::read(&mut report);
        let verdict = judged(&report, if in_nmi_entry { Interrupted::NmiEntry } else { Interrupted::Kernel });
        if let Verdict::End(why) = verdict {
            crate::panic::machine_check(frame, report.mcg_status, &report.banks, why);
        }
        note_exception(VECTOR, start_tsc, &irq_off);
    });
}

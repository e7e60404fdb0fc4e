//! The one exit-work loop: what must be done before user mode, in a known state, interrupts off at the last check.

use super::frame::Frame;
use super::tracking::user_enter_slow;
use crate::arch::cpu_head::offset;
use crate::arch::irq_flag::IrqOff;
use crate::percpu;
use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use kcore::context_tracking as word;
use kcore::lease::Look;
use kcore::trace_event::By;

/// Another task should run here.
pub const RESCHED: u32 = 1;
/// The running task has a signal to handle (or must die).
pub const SIGNAL: u32 = 2;

/// This CPU is leased: what entered it is counted on each way out.
pub const LEASE: u32 = 4;

/// The running task is traced: the CPU is set up for it (`sched::switch`). No work of this loop.
pub const TRACED: u32 = 8;

/// Full frame on the stack, RSP at its start, interrupts off, state KERNEL: run exit work and return to user
/// mode by IRET. Reached by jump.
///
/// # Safety
/// As said; the frame is the last thing on the task's kernel stack.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn full_exit_to_user() {
    naked_asm!(
        "cmp dword ptr gs:[{exit_work}], 0",
        "je 20f",
        "mov rdi, rsp",
        "call {run}",
        "20:",
        trace_site!("24", "34"),
        "25:",
        tracking_site!("23", "33"),
        "22:",
        pop_all!(),
        "swapgs",
        // Here a bad return address or selector faults (`exception::bad_iret`).
        ".globl iret_to_user",
        "iret_to_user: iretq",
        tracking_user_enter!("33", "22b", "37f", "", ""),
        "37: call {user_enter_slow}",
        "jmp 22b",
        "34: mov rdi, rsp",
        "call {trace_user_enter}",
        "jmp 25b",
        exit_work = const offset::EXIT_WORK,
        active = const offset::ACTIVE,
        context = const offset::CONTEXT,
        since = const offset::SINCE_TSC,
        kernel_ticks = const offset::KERNEL_TICKS,
        enter_delta = const word::USER_ENTER_DELTA,
        low_mask = const word::LOW_MASK,
        kernel_expected = const word::KERNEL_EXPECTED,
        key = sym crate::static_key::TRACKING,
        trace_key = sym crate::trace::key::TRACE_CONTEXT,
        trace_user_enter = sym super::trace_crossing::user_enter,
        user_enter_slow = sym user_enter_slow,
        run = sym run,
    )
}

/// From an interrupt's partial frame (RSP at rbx) with work pending: complete it and go the full way out.
///
/// # Safety
/// Reached by jump from the interrupt path only.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn irq_full_exit() {
    naked_asm!(
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push {by_irq}",
        "mov qword ptr [rsp + {orig}], -1",
        "jmp {exit}",
        by_irq = const By::Irq as u64,
        orig = const offset_of!(Frame, orig_rax),
        exit = sym full_exit_to_user,
    )
}

/// The loop. Called with interrupts off, returns with interrupts off and no work but `LEASE` at the last look.
extern "C" fn run(frame: &mut Frame) {
    let mut first = true;
    loop {
        // SAFETY: the caller turned interrupts off; each round ends with them off.
        let irq_off = unsafe { IrqOff::assume() };
        let all = percpu::this(&irq_off).head.exit_work.load(Ordering::Relaxed);
        let work = all & !(LEASE | TRACED);
        let look = Look::WayOut { first, last: work == 0 };
        let broken = if all & LEASE != 0 { crate::isolation::lease::note_entries(look, &irq_off) } else { None };
        first = false;
        if work == 0 && broken.is_none() {
            return;
        }
        if work & SIGNAL != 0 {
            crate::process::signal::begin_delivery(&irq_off);
        }
        drop(irq_off);
        x86_64::instructions::interrupts::enable();
        if let Some((holder, how)) = broken {
            crate::process::lease_breach::react(holder, how);
        }
        if work & RESCHED != 0 {
            crate::sched::schedule();
        }
        if work & SIGNAL != 0 {
            crate::process::signal::deliver_pending(frame);
        }
        x86_64::instructions::interrupts::disable();
    }
}

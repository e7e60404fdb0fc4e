//! The one exit-work loop: what must be done before user mode, in a known state, interrupts off at the last check.

use super::frame::{Frame, RETURN_START, SYSCALL_START};
use super::tracking::user_enter_slow;
use crate::arch::cpu_head::{offset, read_u32};
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

/// The running task is to look after its restartable sequence, and after what its area says of its CPU.
pub const RESTARTABLE: u32 = 16;

/// `$call` at label `$label`, behind three pushes on a frame's part: the user's registers that C may clobber are kept, beside RAX, RCX and RDX.
macro_rules! keep_clobbered {
    ($label:literal, $call:literal) => {
        concat!(
            $label,
            ": push rsi\npush rdi\npush r8\npush r9\npush r10\npush r11\nsub rsp, 8\n",
            $call,
            "\nadd rsp, 8\npop r11\npop r10\npop r9\npop r8\npop rdi\npop rsi\n"
        )
    };
}

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
        "29: swapgs",
        // Here a bad return address or selector faults (`exception::bad_iret`).
        ".globl iret_to_user",
        "iret_to_user: iretq",
        tracking_user_enter!("33", "22b", "37f", "", ""),
        "37: call {user_enter_slow}",
        "jmp 22b",
        "34: mov rdi, rsp",
        "call {trace_user_enter}",
        "jmp 25b",
        // From `signal_return`: the user's registers are in the CPU already, and RSP is where a system call's fast path has it. With anything to do before
        // user mode they go to a frame after all.
        ".globl registers_exit_to_user",
        "registers_exit_to_user: cmp dword ptr gs:[{exit_work}], 0",
        "jne 40f",
        trace_site!("44", "51"),
        "52:",
        tracking_site!("43", "45"),
        "46: add rsp, {to_rip}",
        "jmp 29b",
        tracking_user_enter!("45", "46b", "47f", "push rax\npush rcx\npush rdx\n", "48: pop rdx\npop rcx\npop rax\n"),
        keep_clobbered!("47", "call {user_enter_slow}"),
        "jmp 48b",
        "51: push rax",
        "push rcx",
        "push rdx",
        keep_clobbered!("53", "call {trace_user_enter_by_call}"),
        "pop rdx",
        "pop rcx",
        "pop rax",
        "jmp 52b",
        "40: add rsp, {to_return}",
        push_all!(),
        "jmp {start}",
        to_rip = const offset_of!(Frame, rip) - SYSCALL_START,
        to_return = const RETURN_START - SYSCALL_START,
        start = sym full_exit_to_user,
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
        trace_user_enter_by_call = sym super::trace_crossing::user_enter_by_call,
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

/// What is to be done. Called with interrupts off, returns with interrupts off and no work but `LEASE` at the last look.
extern "C" fn run(frame: &mut Frame) {
    let mut first = true;
    // A signal alone is the usual case where there is any.
    if read_u32::<{ offset::EXIT_WORK }>() == SIGNAL {
        // SAFETY: the caller turned interrupts off.
        let irq_off = unsafe { IrqOff::assume() };
        crate::process::signal_delivery::begin_delivery(&irq_off);
        drop(irq_off);
        x86_64::instructions::interrupts::enable();
        if !crate::process::signal_delivery::deliver_pending(frame) {
            crate::process::restartable::before_user_mode(frame, false);
        }
        x86_64::instructions::interrupts::disable();
        if read_u32::<{ offset::EXIT_WORK }>() == 0 {
            return;
        }
        first = false;
    }
    run_all(frame, first);
}

/// The loop. `first`: nothing was done before it.
#[inline(never)]
fn run_all(frame: &mut Frame, mut first: bool) {
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
            crate::process::signal_delivery::begin_delivery(&irq_off);
        }
        if work & RESTARTABLE != 0 {
            crate::process::restartable::begin(&irq_off);
        }
        drop(irq_off);
        x86_64::instructions::interrupts::enable();
        if let Some((holder, how)) = broken {
            crate::process::lease_breach::react(holder, how);
        }
        if work & RESCHED != 0 {
            crate::sched::schedule();
        }
        let handler_begins = work & SIGNAL != 0 && crate::process::signal_delivery::deliver_pending(frame);
        // After whatever the CPU was away for, a tracer's stop too. A handler's frame has taken over where the program goes on, and says where that was.
        if !handler_begins || work & RESTARTABLE != 0 {
            crate::process::restartable::before_user_mode(frame, work & RESTARTABLE != 0);
        }
        x86_64::instructions::interrupts::disable();
    }
}

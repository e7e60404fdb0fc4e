//! SYSCALL of a traced task: the same steps as `syscall`, with the whole frame, since its tracer may look at it and change it.
//!
//! A CPU has this entry point in IA32_LSTAR while it runs a traced task (`sched::switch`), so that nobody else pays for tracing.
//! The way out is the exit loop's, by IRET.

use super::exit_work::full_exit_to_user;
use super::frame::SYSCALL_START;
use super::syscall::syscall_entry;
use super::trace_crossing;
use super::tracking::user_exit_slow;
use crate::arch::cpu_head::offset;
use crate::arch::gdt;
use core::arch::naked_asm;
use kcore::context_tracking as word;
use x86_64::registers::model_specific::Msr;

/// # Safety
/// Only hardware jumps here: CPL 0, interrupts off, user GS base, user stack.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn traced_syscall_entry() {
    naked_asm!(
        "swapgs",
        "mov gs:[{user_rsp}], rsp",
        "mov rsp, gs:[{stack_top}]",
        "push {user_ds}",
        "push qword ptr gs:[{user_rsp}]",
        "push r11",
        "push {user_cs}",
        "push rcx",
        "push rax",
        push_all!(),
        "inc qword ptr gs:[{syscalls}]",
        tracking_site!("21", "31"),
        "20:",
        trace_site!("24", "34"),
        "25:",
        "sti",
        "mov rdi, rsp",
        "call {run}",
        "cli",
        "jmp {exit}",
        tracking_user_exit!("31", "20b", "35f", "36", ""),
        "35: call {user_exit_slow}",
        "jmp 36b",
        "34: lea rdi, [rsp + {syscall_start}]",
        "call {trace_entry}",
        "jmp 25b",
        user_rsp = const offset::USER_RSP,
        stack_top = const offset::KERNEL_STACK_TOP,
        syscalls = const offset::SYSCALLS,
        active = const offset::ACTIVE,
        context = const offset::CONTEXT,
        since = const offset::SINCE_TSC,
        user_ticks = const offset::USER_TICKS,
        exit_delta = const word::USER_EXIT_DELTA,
        low_mask = const word::LOW_MASK,
        user_expected = const word::USER_EXPECTED,
        user_cs = const gdt::USER_CS,
        user_ds = const gdt::USER_DS,
        syscall_start = const SYSCALL_START,
        key = sym crate::static_key::TRACKING,
        trace_key = sym crate::trace::key::TRACE_SYSCALLS,
        trace_entry = sym trace_crossing::syscall_entry,
        user_exit_slow = sym user_exit_slow,
        run = sym crate::syscall::traced_call::run,
        exit = sym full_exit_to_user,
    )
}

/// The running CPU takes system calls here (`traced`), or where all others do. Interrupts are off.
pub fn enter_here(traced: bool) {
    const IA32_LSTAR: u32 = 0xc000_0082;
    let entry = if traced { traced_syscall_entry } else { syscall_entry } as *const () as u64;
    // SAFETY: both are entry points for SYSCALL.
    unsafe { Msr::new(IA32_LSTAR).write(entry) };
}

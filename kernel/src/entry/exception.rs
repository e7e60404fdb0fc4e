//! Exceptions that arrive on the running stack: all but NMI, #DB, #DF and #MC.
//!
//! From user mode they go by the rules of interrupts (user_exit, handle, exit work, user_enter); from kernel mode they are
//! fixed up by the exception table or end the kernel. They always build the full frame: signals and messages need it.

use super::exit_work::full_exit_to_user;
use super::frame::{FULL, Frame};
use super::irq::clac_site;
use super::trace_crossing;
use super::tracking::user_exit_slow;
use crate::arch::cpu_head::{offset, read_u32};
use crate::static_branch;
use crate::trace::key::EXCEPTIONS;
use core::arch::naked_asm;
use core::mem::offset_of;
use kcore::context_tracking as word;
use kcore::trace_event::By;

/// Vectors whose exceptions push an error code: #DF #TS #NP #SS #GP #PF #AC #CP.
pub const WITH_ERROR_CODE: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21;

/// Page fault.
pub const PAGE_FAULT: u64 = 14;
/// Breakpoint.
pub const BREAKPOINT: u64 = 3;

/// 32 stubs of 16 bytes each: error code or 0, rdi, the vector, then the common path.
///
/// # Safety
/// Only hardware jumps here.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn exception_stubs() {
    naked_asm!(
        ".balign 16",
        ".set vec, 0",
        ".rept 32",
        ".if (({codes} >> vec) & 1) == 0",
        "push 0",
        ".endif",
        "push rdi",
        "mov edi, vec",
        "jmp {common}",
        ".balign 16, 0xcc",
        ".set vec, vec + 1",
        ".endr",
        codes = const WITH_ERROR_CODE,
        common = sym exception_common,
    )
}

/// # Safety
/// Reached by jump from `exception_stubs` only.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
unsafe extern "C" fn exception_common() {
    naked_asm!(
        "cld",
        clac_site!(),
        "push rsi",
        "push rdx",
        "push r10",
        "push r8",
        "push r9",
        "push rax",
        "push rcx",
        "push r11",
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push {by_exception}",
        "mov esi, edi",
        "mov rdi, rsp",
        "test byte ptr [rsp + {cs}], 3",
        "jz 70f",
        "swapgs",
        tracking_site!("21", "31"),
        "20:",
        "inc qword ptr gs:[{exceptions}]",
        "call {from_user}",
        "jmp {exit}",
        tracking_user_exit!("31", "20b", "35f", "36", ""),
        "35: mov ebx, esi",
        "call {user_exit_slow}",
        "mov rdi, rsp",
        "mov esi, ebx",
        "jmp 36b",
        "70: lea rcx, [rip + iret_to_user]",
        "cmp [rsp + {rip}], rcx",
        "je 72f",
        "call {from_kernel}",
        pop_all!(),
        "iretq",
        // The exit path's IRET: all registers are the user's already, GS too.
        "72: swapgs",
        "call {bad_iret}",
        "mov rsp, rax",
        "jmp {exit}",
        by_exception = const By::Exception as u64,
        cs = const offset_of!(Frame, cs),
        rip = const offset_of!(Frame, rip),
        bad_iret = sym bad_iret,
        exceptions = const offset::EXCEPTIONS,
        active = const offset::ACTIVE,
        context = const offset::CONTEXT,
        since = const offset::SINCE_TSC,
        user_ticks = const offset::USER_TICKS,
        exit_delta = const word::USER_EXIT_DELTA,
        low_mask = const word::LOW_MASK,
        user_expected = const word::USER_EXPECTED,
        key = sym crate::static_key::TRACKING,
        user_exit_slow = sym user_exit_slow,
        from_user = sym from_user,
        from_kernel = sym from_kernel,
        exit = sym full_exit_to_user,
    )
}

const _: () = assert!(FULL.is_multiple_of(16), "hardware aligns RSP before it pushes, so the frame keeps it aligned");

/// An exception in user mode: interrupts go on while it is handled; returns with interrupts off.
extern "C" fn from_user(frame: &mut Frame, vector: u64) {
    let address = x86_64::registers::control::Cr2::read_raw();
    let code = core::mem::replace(&mut frame.orig_rax, u64::MAX);
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_entry(frame, vector, address, code);
    }
    let switches = crate::sched::switches_here();
    x86_64::instructions::interrupts::enable();
    if vector == PAGE_FAULT {
        crate::process::fault::user_page_fault(frame, address, code);
    } else {
        crate::process::fault::user_exception(frame, vector, code);
    }
    x86_64::instructions::interrupts::disable();
    if crate::sched::switches_here() != switches {
        core::hint::cold_path();
        // Who came to another CPU is marked for it.
        crate::process::restartable::was_away();
    }
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_exit(vector);
    }
}

/// IRET to user mode faulted on what sigreturn or a debugger wrote: the fault is the program's, at the place where it was to go on.
/// `frame` is that of the fault, with the program's registers, at the top of the task's stack; it is rebuilt there as if
/// the program had faulted itself. Returns it, interrupts off.
extern "C" fn bad_iret(frame: &mut Frame, vector: u64) -> *mut Frame {
    crate::context_tracking::user_exit_if_tracked();
    crate::percpu::count_exception();
    let code = frame.orig_rax;
    let top = crate::sched::current().stack_top();
    // SAFETY: IRET's five words are the last on the stack, and hardware pushed the fault's frame below them.
    let [rip, cs, rflags, rsp, ss] = unsafe { ((top - 40) as *const [u64; 5]).read() };
    let back = Frame { orig_rax: u64::MAX, rip, cs, rflags, rsp, ss, ..frame.clone() };
    let at = (top - FULL as u64) as *mut Frame;
    // SAFETY: the running task's own stack; only `frame` lies there, and it is not used any more.
    let frame = unsafe {
        at.write(back);
        &mut *at
    };
    x86_64::instructions::interrupts::enable();
    crate::process::fault::user_exception(frame, vector, code);
    x86_64::instructions::interrupts::disable();
    at
}

/// An exception in kernel mode: a user access that faults, a fixup, or the end.
extern "C" fn from_kernel(frame: &mut Frame, vector: u64) {
    let address = x86_64::registers::control::Cr2::read_raw();
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_entry(frame, vector, address, frame.orig_rax);
    }
    fix_up(frame, vector, address);
    if static_branch!(EXCEPTIONS) {
        core::hint::cold_path();
        trace_crossing::exception_exit(vector);
    }
}

fn fix_up(frame: &mut Frame, vector: u64, address: u64) {
    if vector == PAGE_FAULT
        && crate::mm::user_copy::is_user_access(frame.rip)
        && address < crate::arch::page_table::USER_END
    {
        // A user copy: the page may only have to be brought in.
        let code = frame.orig_rax;
        let irqs_were_on = frame.rflags & super::frame::RFLAGS_IF != 0;
        if irqs_were_on {
            x86_64::instructions::interrupts::enable();
        }
        // With preemption off (a lock is held) nothing may sleep: the access fails instead.
        let may_sleep = irqs_were_on && read_u32::<{ offset::PREEMPT_COUNT }>() == 0;
        let resolved = may_sleep && crate::process::fault::kernel_user_access(address, code);
        x86_64::instructions::interrupts::disable();
        if resolved {
            return;
        }
    }
    if let Some(fixup) = crate::mm::user_copy::fixup(frame.rip) {
        // What a fixup may tell: the error code, in RAX. Most say themselves what RAX is.
        (frame.rip, frame.rax) = (fixup, frame.orig_rax);
        return;
    }
    if crate::mm::user_attempt::was_run(frame, vector, address) {
        return;
    }
    crate::panic::exception_in_kernel(frame, vector, address);
}

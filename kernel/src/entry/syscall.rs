//! SYSCALL and SYSRET.
//!
//! Order of steps; interrupts are off from SYSCALL to step 5, and again from step 7:
//!  1. swapgs: GS is the per-CPU area
//!  2. switch to the task's kernel stack
//!  3. save what the ABI makes us save: return address, flags, stack pointer, the six arguments
//!  4. [tracking site] user_exit: one xadd for context tracking and RCU; posted work is run here. [trace site]
//!  5. interrupts on
//!  6. dispatch by number
//!  7. interrupts off, which some calls have done before they return
//!  8. exit work? then the slow path, which completes the frame
//!  9. [trace site] [tracking site] user_enter
//! 10. restore; SYSRET, or IRET if TF or RF is set (SYSRET would misplace the trap)
//!
//! SYSRET is safe here: RIP came from SYSCALL and so is below 2^47 (the last page below is never mapped), and the fast path
//! never edits the frame. Source: SDM vol. 2, SYSCALL and SYSRET; AMD's manual for the differences.

use super::frame::{Frame, SYSCALL_START};
use super::trace_crossing;
use super::tracking::{user_enter_slow, user_exit_slow};
use crate::arch::cpu_head::offset;
use crate::arch::gdt;
use core::arch::naked_asm;
use core::mem::offset_of;
use kcore::context_tracking as word;

/// First number that is not in the table.
pub const TABLE_LEN: usize = 512;

const RFLAGS_TF_RF: u64 = 0x10100;

/// The SYSCALL entry point (IA32_LSTAR).
///
/// # Safety
/// Only hardware jumps here: CPL 0, interrupts off, user GS base, user stack.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn syscall_entry() {
    naked_asm!(
        "swapgs",                                       // 1
        "mov gs:[{user_rsp}], rsp",                     // 2
        "mov rsp, gs:[{stack_top}]",
        "sub rsp, 8",                                   //   ss: constant, filled by the slow path
        "push qword ptr gs:[{user_rsp}]",               // 3
        "push r11",
        "push {user_cs}",
        "push rcx",
        "push rax",
        "push rdi",
        "push rsi",
        "push rdx",
        "push r10",
        "push r8",
        "push r9",
        or_mutant!("inc qword ptr gs:[{syscalls}]", "off_path_locked", "lock inc qword ptr gs:[{syscalls}]"),
        or_mutant!("", "off_path_tests_key", "cmp byte ptr [{trace_key}], 0"),
        or_mutant!("", "site_before_user_exit", trace_site!("28", "34")),
        or_mutant!("", "call_before_user_exit", "call {user_exit_slow}"),
        tracking_site!("21", "31"),                     // 4
        "20:",
        trace_site!("24", "34"),
        "25:",
        "sti",                                          // 5
        "mov rcx, r10",                                 // 6
        "cmp rax, {table_len}",
        "jae 40f",
        "call qword ptr [{table} + rax * 8]",
        "41:",
        "cli",                                          // 7
        "cmp dword ptr gs:[{exit_work}], 0",            // 8
        "jne 50f",
        trace_site!("26", "38"),
        "27:",
        tracking_site!("23", "33"),                     // 9
        "22:",
        "test dword ptr [rsp + {rflags}], {tf_rf}",     // 10
        "jne 60f",
        "pop r9",
        "pop r8",
        "pop r10",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "mov rcx, [rsp + 8]",
        "mov r11, [rsp + 24]",
        "mov rsp, [rsp + 32]",
        "swapgs",
        "sysretq",
        // ---- off the straight line ----
        tracking_user_exit!("31", "20b", "35f", "36", "mov rdx, [rsp + {rdx}]\nmov rax, [rsp + {orig_rax}]\n"),
        "35: call {user_exit_slow}",
        "mov rdi, [rsp + {rdi}]",
        "mov rsi, [rsp + {rsi}]",
        "mov r10, [rsp + {r10}]",
        "mov r8, [rsp + {r8}]",
        "mov r9, [rsp]",
        "jmp 36b",
        tracking_user_enter!("33", "22b", "37f", "mov r11, rax\n", "mov rax, r11\n"),
        "37: push r11",
        "sub rsp, 8",
        "call {user_enter_slow}",
        "add rsp, 8",
        "pop rax",
        "jmp 22b",
        // Traced: entry, the fast way out, the slow way out.
        "34: mov rdi, rsp",
        "call {trace_entry}",
        "mov rdi, [rsp + {rdi}]",
        "mov rsi, [rsp + {rsi}]",
        "mov rdx, [rsp + {rdx}]",
        "mov r10, [rsp + {r10}]",
        "mov r8, [rsp + {r8}]",
        "mov r9, [rsp]",
        "mov rax, [rsp + {orig_rax}]",
        "jmp 25b",
        "38: mov rdi, rsp",
        "mov rsi, rax",
        "call {trace_exit}",
        "jmp 27b",
        // A number beyond the table.
        "40: mov rax, {enosys}",
        "jmp 41b",
        // Exit work: complete the frame, do it, go on where the frame says.
        trace_site!("50", "39"),
        "51: push rax",
        "push [rsp + {rip_from_rax}]",
        "push [rsp + {rflags_from_rcx}]",
        "jmp {full_exit}",
        "39: mov rdi, rsp",
        "mov rsi, rax",
        "call {trace_exit_to_work}",
        "jmp 51b",
        // TF or RF: return by IRET.
        "60: mov qword ptr [rsp + {ss}], {user_ds}",
        "pop r9",
        "pop r8",
        "pop r10",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "add rsp, 8",
        "mov rcx, [rsp]",
        "mov r11, [rsp + 16]",
        "swapgs",
        "iretq",
        user_rsp = const offset::USER_RSP,
        stack_top = const offset::KERNEL_STACK_TOP,
        syscalls = const offset::SYSCALLS,
        exit_work = const offset::EXIT_WORK,
        active = const offset::ACTIVE,
        context = const offset::CONTEXT,
        since = const offset::SINCE_TSC,
        user_ticks = const offset::USER_TICKS,
        kernel_ticks = const offset::KERNEL_TICKS,
        exit_delta = const or_mutant!(word::USER_EXIT_DELTA, "exit_delta_wrong", word::USER_ENTER_DELTA),
        enter_delta = const word::USER_ENTER_DELTA,
        low_mask = const word::LOW_MASK,
        user_expected = const word::USER_EXPECTED,
        kernel_expected = const word::KERNEL_EXPECTED,
        user_cs = const gdt::USER_CS,
        user_ds = const gdt::USER_DS,
        table_len = const TABLE_LEN,
        table = sym crate::syscall::table::TABLE,
        enosys = const -38,
        tf_rf = const RFLAGS_TF_RF,
        rflags = const offset_of!(Frame, rflags) - SYSCALL_START,
        ss = const offset_of!(Frame, ss) - SYSCALL_START,
        rdi = const offset_of!(Frame, rdi) - SYSCALL_START,
        rsi = const offset_of!(Frame, rsi) - SYSCALL_START,
        rdx = const offset_of!(Frame, rdx) - SYSCALL_START,
        r10 = const offset_of!(Frame, r10) - SYSCALL_START,
        r8 = const offset_of!(Frame, r8) - SYSCALL_START,
        orig_rax = const offset_of!(Frame, orig_rax) - SYSCALL_START,
        rip_from_rax = const offset_of!(Frame, rip) - offset_of!(Frame, rax),
        rflags_from_rcx = const offset_of!(Frame, rflags) - offset_of!(Frame, rcx),
        key = sym crate::static_key::TRACKING,
        trace_key = sym crate::trace::key::TRACE_SYSCALLS,
        trace_entry = sym trace_crossing::syscall_entry,
        trace_exit = sym trace_crossing::syscall_exit,
        trace_exit_to_work = sym trace_crossing::syscall_exit_to_work,
        user_exit_slow = sym user_exit_slow,
        user_enter_slow = sym user_enter_slow,
        full_exit = sym syscall_full_exit,
    )
}

/// Frame complete but for the callee-saved registers and SS, interrupts off: complete it, run the exit work, and leave
/// by the frame. Also the way out of system calls that edit their frame.
///
/// # Safety
/// Reached by jump from `syscall_entry` and `full_frame_call` only, RSP at the frame's r11.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
unsafe extern "C" fn syscall_full_exit() {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push 0",
        "mov qword ptr [rsp + {ss}], {user_ds}",
        "jmp {exit}",
        ss = const offset_of!(Frame, ss),
        user_ds = const gdt::USER_DS,
        exit = sym super::exit_work::full_exit_to_user,
    )
}

/// Table entry of system calls that need or edit the whole frame (fork, execve, rt_sigreturn ...).
///
/// # Safety
/// Called by `syscall_entry`'s dispatch only.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn full_frame_call() {
    naked_asm!(
        "add rsp, 8",                        // the return address into the fast path is not needed any more
        "push rax",
        "push [rsp + {rip_from_rax}]",
        "push [rsp + {rflags_from_rcx}]",
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push 0",
        "mov qword ptr [rsp + {ss}], {user_ds}",
        "mov rdi, rsp",
        "call {dispatch}",
        "cli",
        "jmp {exit}",
        rip_from_rax = const offset_of!(Frame, rip) - offset_of!(Frame, rax),
        rflags_from_rcx = const offset_of!(Frame, rflags) - offset_of!(Frame, rcx),
        ss = const offset_of!(Frame, ss),
        user_ds = const gdt::USER_DS,
        dispatch = sym crate::syscall::full_frame_dispatch,
        exit = sym super::exit_work::full_exit_to_user,
    )
}

/// Table entry of numbers without a call: the handler gets the number, which is in RAX.
///
/// # Safety
/// Called by `syscall_entry`'s dispatch only.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn absent_call() {
    naked_asm!("mov rdi, rax", "jmp {absent}", absent = sym crate::syscall::table::absent)
}

/// SYSCALL from 32-bit code: there is no 32-bit code segment, so this is never reached; it fails closed.
///
/// # Safety
/// Only hardware jumps here.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn syscall32_entry() {
    naked_asm!("mov rax, {enosys}", "sysretq", enosys = const -38)
}

/// Program the system-call MSRs of the running CPU.
///
/// # Safety
/// Interrupts are off and the GDT is loaded.
pub unsafe fn init_cpu() {
    use x86_64::registers::model_specific::Msr;
    const IA32_STAR: u32 = 0xc000_0081;
    const IA32_LSTAR: u32 = 0xc000_0082;
    const IA32_CSTAR: u32 = 0xc000_0083;
    const IA32_FMASK: u32 = 0xc000_0084;
    const IA32_SYSENTER_CS: u32 = 0x174;
    // IF: the stack is switched with interrupts off. TF: no #DB in entry. DF, AC: the kernel's ABI. NT: IRET. RF, IOPL:
    // nothing to inherit. The arithmetic flags stay: they harm nobody.
    const FMASK: u64 = 0x200 | 0x100 | 0x400 | 0x4_0000 | 0x4000 | 0x1_0000 | 0x3000;
    // SAFETY: the values are entry points of this file and selectors of the loaded GDT.
    unsafe {
        Msr::new(IA32_STAR).write((gdt::SYSRET_BASE as u64) << 48 | (gdt::KERNEL_CS as u64) << 32);
        Msr::new(IA32_LSTAR).write(syscall_entry as *const () as u64);
        Msr::new(IA32_CSTAR).write(syscall32_entry as *const () as u64);
        Msr::new(IA32_FMASK).write(FMASK);
        Msr::new(IA32_SYSENTER_CS).write(0);
    }
}

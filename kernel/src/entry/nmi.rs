//! NMI, and the paranoid paths that may arrive at any instruction: #DB, #DF, #MC.
//!
//! None of them trusts CS or the sign of GSBASE: users may set GSBASE with WRGSBASE. Each IST stack has its CPU's per-CPU address
//! stored at its top; kernel-mode arrivals save GSBASE, load that, and restore the saved one on exit.
//! No key site, no lock, no allocation, no user access in here.
//!
//! DR7 is off before the first access to memory that may be watched, which the task's stack is, and on again behind the last but the way
//! out's: a #DB on the way in would come onto the stack on which a #DB is being copied from, and its IRET would let in the next NMI
//! onto the one on which an NMI is. Both changes are made here and not in Rust, whose instructions may have breakpoints; entry text has none.
//! From user mode DR7 stands in the frame's `orig_rax`; #DB and #MC, which are handled like any exception then, put it back in Rust, when the
//! frame has been copied and they may be interrupted by a #DB (`debug::rearm`).
//!
//! An NMI from user mode moves to the task stack at once and is handled there. From kernel mode it stays on its IST
//! stack, where any IRET inside it (after #MC, #GP of a failed MSR read) unmasks NMIs: a second one would start at the
//! top of the same stack. So the first copies its return frame out of reach of the hardware and marks the stack busy; a nested one
//! only says "again" and returns; the first repeats until nobody said it.
//! ```text
//! NMI IST stack   P      per-CPU address
//!                 P-40   frame pushed by hardware (a nested NMI overwrites it)
//!                 P-48   rdx of the arriving NMI
//!                 P-56   busy: 0 free, 1 running, 2 again
//!                 P-64   DR7 of an arrival from user mode, until it is copied; else it keeps 16-byte alignment
//!                 P-104  return frame of the first NMI
//!                 P-240  saved registers: a full Frame starts here
//! ```

use super::frame::{FULL, Frame};
use super::irq::clac_site;
use crate::arch::cpu_head::offset;
use crate::arch::kernel_text;
use crate::mm::stack::IST_STACK_BYTES;
use core::arch::naked_asm;
use core::mem::offset_of;
use kcore::debug_register::OFF as DR7_OFF;

const PER_CPU_FROM_FRAME: usize = 240;
const BUSY_FROM_RETURN_FRAME: usize = 48;
const _: () = assert!(FULL + 64 == PER_CPU_FROM_FRAME);

/// # Safety
/// Only hardware jumps here, on the NMI IST stack.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn nmi_entry() {
    naked_asm!(
        "cld",
        clac_site!(),
        "test byte ptr [rsp + 8], 3",
        "jz 70f",
        // ---- from user mode: on to the task stack ----
        "swapgs",
        "push rdx",
        "mov rdx, dr7",
        "mov [rsp - 16], rdx",              // past the busy word, which stays 0
        "test dl, dl",                      // enabled: L0 G0 ... L3 G3
        "jz 74f",
        "mov edx, {dr7_off}",
        "mov dr7, rdx",
        "74: mov rdx, rsp",
        "mov rsp, gs:[{stack_top}]",
        "push [rdx + 40]",                  // ss rsp rflags cs rip
        "push [rdx + 32]",
        "push [rdx + 24]",
        "push [rdx + 16]",
        "push [rdx + 8]",
        "push [rdx - 16]",
        "mov rdx, [rdx]",
        ".globl nmi_frame_copied",          // a machine check looks (`frame_in_use`)
        "nmi_frame_copied:",
        push_all!(),
        "mov rdi, rsp",
        "call {handle}",
        "mov rdx, [rsp + {orig_rax}]",
        "test dl, dl",
        "jz 75f",
        "mov dr7, rdx",
        "75:",
        pop_all!(),
        "swapgs",
        "iretq",
        // ---- from kernel mode ----
        "70: push rdx",
        "cmp qword ptr [rsp - 8], 0",       // busy?
        "je 71f",
        // Nested: tell the first one, and go back to it.
        "mov qword ptr [rsp - 8], 2",
        "pop rdx",
        "iretq",
        "71: lea rdx, [rip + 78f]",         // between the first one's release and its IRET? Then its return frame
        "cmp [rsp + 8], rdx",               // is still needed, and this NMI runs on its behalf
        "je 72f",
        "lea rdx, [rip + 79f]",
        "cmp [rsp + 8], rdx",
        "je 72f",
        "mov qword ptr [rsp - 8], 1",
        "mov rdx, [rsp]",
        "sub rsp, 16",                      // below busy and the alignment word
        "push [rsp + 16 + 40]",             // copy the hardware's frame
        "push [rsp + 24 + 32]",
        "push [rsp + 32 + 24]",
        "push [rsp + 40 + 16]",
        "push [rsp + 48 + 8]",
        "jmp 73f",
        "72: mov qword ptr [rsp - 8], 1",
        "pop rdx",
        "sub rsp, 64",                      // the return frame that is there already
        "73: push -1",
        push_all!(),
        "rdgsbase rbx",
        "mov rcx, [rsp + {per_cpu}]",
        "wrgsbase rcx",
        "mov r12, dr7",
        "test r12b, r12b",
        "jz 76f",
        "mov eax, {dr7_off}",
        "mov dr7, rax",
        "76: mov rdi, rsp",
        "call {handle}",
        "test r12b, r12b",
        "jz 77f",
        "mov dr7, r12",
        "77: wrgsbase rbx",
        pop_all!(),
        "dec qword ptr [rsp + {busy}]",
        "78: jnz 73b",
        "79: iretq",
        stack_top = const offset::KERNEL_STACK_TOP,
        per_cpu = const PER_CPU_FROM_FRAME,
        busy = const BUSY_FROM_RETURN_FRAME,
        orig_rax = const offset_of!(Frame, orig_rax),
        dr7_off = const DR7_OFF,
        handle = sym handle,
    )
}

/// Whether what runs at `rip` with this `rsp` still needs the NMI stack's frame as hardware or `nmi_entry` left it: an IRET before that would let
/// the next NMI in onto it. `top`: of this CPU's NMI stack. From user mode the frame is read after RSP has left the stack.
pub fn frame_in_use(rip: u64, rsp: u64, top: u64) -> bool {
    unsafe extern "C" {
        static nmi_frame_copied: u8;
    }
    let from_user = nmi_entry as *const () as u64..&raw const nmi_frame_copied as u64;
    let on_stack = (top - IST_STACK_BYTES..=top).contains(&rsp);
    from_user.contains(&rip) || on_stack && kernel_text::entry_text().contains(&rip)
}

/// Paranoid entry on an IST stack whose top word is the per-CPU address. From user mode it moves to the task stack, where `$from_user(frame)`
/// finds DR7, which is off meanwhile, as the frame's `orig_rax`, gives it back (`debug::rearm`), and returns to the exit loop. From kernel mode
/// `$from_kernel(frame)` runs on the IST stack, and DR7 is off as long as it does.
macro_rules! paranoid_entry {
    ($(#[$doc:meta])* $name:ident, $error_code:literal, $from_user:path, $from_kernel:path) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Only hardware jumps here.
        #[unsafe(naked)]
        #[unsafe(link_section = ".entry.text")]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                $error_code,
                "cld",
                clac_site!(),
                "test byte ptr [rsp + 16], 3",
                "jz 70f",
                "swapgs",
                "push rdx",
                "mov rdx, dr7",
                "push rdx",
                "test dl, dl",              // enabled: L0 G0 ... L3 G3
                "jz 71f",
                "mov edx, {dr7_off}",
                "mov dr7, rdx",
                "71: mov rdx, rsp",         // dr7 rdx error-code rip cs rflags rsp ss
                "mov rsp, gs:[{stack_top}]",
                "push [rdx + 56]",
                "push [rdx + 48]",
                "push [rdx + 40]",
                "push [rdx + 32]",
                "push [rdx + 24]",
                "push [rdx]",               // DR7 in place of the error code, which is none or 0
                "mov rdx, [rdx + 8]",
                push_all!(),
                "mov rdi, rsp",
                "call {from_user}",
                "jmp {exit}",
                "70:",
                push_all!(),
                "rdgsbase rbx",
                "mov rcx, [rsp + {per_cpu}]",
                "wrgsbase rcx",
                "mov r12, dr7",
                "test r12b, r12b",
                "jz 72f",
                "mov eax, {dr7_off}",
                "mov dr7, rax",
                "72: mov rdi, rsp",
                "call {from_kernel}",
                "test r12b, r12b",
                "jz 73f",
                "mov dr7, r12",
                "73: wrgsbase rbx",
                pop_all!(),
                "iretq",
                stack_top = const offset::KERNEL_STACK_TOP,
                per_cpu = const FULL,
                dr7_off = const DR7_OFF,
                from_user = sym $from_user,
                from_kernel = sym $from_kernel,
                exit = sym super::exit_work::full_exit_to_user,
            )
        }
    };
}

paranoid_entry!(
    /// Debug exception.
    debug_entry,
    "push 0",
    super::debug::from_user,
    super::debug::from_kernel
);
paranoid_entry!(
    /// Double fault: the end, told from a good stack.
    double_fault_entry,
    "",
    double_fault,
    double_fault
);
paranoid_entry!(
    /// Machine check: nothing, SIGBUS to the program that used what is lost, or the end, as the banks say.
    machine_check_entry,
    "push 0",
    super::machine_check::from_user,
    super::machine_check::from_kernel
);

const _: () = assert!(offset_of!(Frame, entered_by) == 0);

/// The NMI itself, with DR7 off: saves CR2, counts, takes part in a panic's stop.
extern "C" fn handle(frame: &mut Frame) {
    #[cfg(mutant = "nmi_site_before_enter")]
    let _ = crate::static_branch!(crate::trace::key::NMI);
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    crate::context_tracking::in_nmi(|| crate::smp::interrupt::handle_nmi(frame));
    x86_64::registers::control::Cr2::write_raw_checked(cr2);
}

extern "C" fn double_fault(frame: &mut Frame) {
    let address = x86_64::registers::control::Cr2::read_raw();
    // Its error code is 0; from user mode DR7 stands there.
    frame.orig_rax = 0;
    crate::panic::exception_in_kernel(frame, 8, address);
}

/// CR2 back to what the interrupted page fault may not have read yet.
trait WriteRaw {
    fn write_raw_checked(value: u64);
}
impl WriteRaw for x86_64::registers::control::Cr2 {
    fn write_raw_checked(value: u64) {
        if x86_64::registers::control::Cr2::read_raw() != value {
            // SAFETY: CR2 only holds the last fault's address.
            unsafe { core::arch::asm!("mov cr2, {}", in(reg) value, options(nomem, nostack, preserves_flags)) }
        }
    }
}

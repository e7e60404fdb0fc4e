//! Interrupts. From user mode: swapgs, user_exit, handle, exit work, user_enter, swapgs, iret. From kernel mode: handle,
//! check for preemption, ret or iret (`kcore::kernel_return`). From idle: a full IDLE to KERNEL transition first.
//!
//! Order of steps, from user mode; interrupts stay off throughout:
//!  1. cld, clac: the ABI's direction flag; no user access by accident
//!  2. from user? swapgs
//!  3. save the registers that C may clobber
//!  4. [tracking site] user_exit
//!  5. handle, through the table of handlers
//!  6. exit work? then complete the frame and take the full way out
//!  7. [trace site] [tracking site] user_enter
//!  8. restore, swapgs, iret
//!
//! Back to kernel code by RET. Hardware rounded RSP down to 16 before it pushed, so the two words right below the interrupted RSP lie in the
//! frame's ss and rsp or above, where the interrupted code has nothing: the kernel has no red zone. They become what POPFQ and RET take:
//! ```text
//!   rsp        interrupted code
//!   rsp-8      its rip                            RSP after POPFQ: who interrupts RET here goes back by IRET, RET being entry text
//!   rsp-16     its rflags                         RSP after POP RSP
//!   ...        rflags cs rip, if RSP was aligned
//!   orig_rax   rsp-16                             POP RSP takes it
//! ```
//! At each of these instructions all that is still needed lies at RSP or above; an NMI, #DB or #MC has a stack of its own.
//! RET does not serialise. Nobody relies on IRET for that: whoever changes text has CPUID executed (`deferred_work::sync_text`,
//! membarrier(2), `isolation::parking`), and the way out to user mode is not this one.

use super::exit_work::irq_full_exit;
use super::frame::{FULL, Frame, IRQ_START};
use super::tracking::{idle_exit_slow, user_enter_slow, user_exit_slow};
use crate::arch::cpu_head::offset;
use crate::arch::debug_registers;
use crate::arch::irq_flag::IrqOff;
use crate::arch::kernel_text::entry_text;
use crate::percpu;
use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use kcore::context_tracking as word;
use kcore::kernel_return;

/// First vector that is an interrupt.
pub const FIRST_VECTOR: usize = 32;

macro_rules! clac_site {
    () => {
        // Three bytes that become CLAC where the CPU has SMAP (`text_patch::apply_clac`).
        concat!("88: .byte 0x0f, 0x1f, 0x00\n", ".pushsection __clac_sites, \"a\"\n", ".quad 88b\n", ".popsection\n")
    };
}
pub(crate) use clac_site;

/// 224 stubs of 16 bytes each: push the vector, go to the common path.
///
/// # Safety
/// Only hardware jumps here.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
pub unsafe extern "C" fn irq_stubs() {
    naked_asm!(
        ".balign 16",
        ".set vec, 32",
        ".rept 224",
        "push vec",
        "jmp {common}",
        ".balign 16, 0xcc",
        ".set vec, vec + 1",
        ".endr",
        common = sym irq_common,
    )
}

/// Bytes from one stub to the next.
pub const STUB_SIZE: usize = 16;

/// # Safety
/// Reached by jump from `irq_stubs` only.
#[unsafe(naked)]
#[unsafe(link_section = ".entry.text")]
unsafe extern "C" fn irq_common() {
    naked_asm!(
        "cld",                                  // 1
        clac_site!(),
        "test byte ptr [rsp + 16], 3",          // 2
        "jz 70f",
        "swapgs",
        push_clobbered!(),                             // 3
        tracking_site!("21", "31"),             // 4
        "20:",
        "mov edi, [rsp + {vector}]",            // 5
        "mov rsi, rsp",
        "call qword ptr [{handlers} + rdi * 8]",
        "cmp dword ptr gs:[{exit_work}], 0",    // 6
        "jne {irq_full_exit}",
        trace_site!("24", "34"),
        "25:",
        tracking_site!("23", "33"),             // 7
        "22:",
        pop_clobbered!(),                              // 8
        "swapgs",
        "iretq",
        // ---- off the straight line ----
        tracking_user_exit!("31", "20b", "35f", "36", ""),
        "35: call {user_exit_slow}",
        "jmp 36b",
        tracking_user_enter!("33", "22b", "37f", "", ""),
        "37: call {user_enter_slow}",
        "jmp 22b",
        "34: call {trace_user_enter}",
        "jmp 25b",
        // ---- from kernel mode ----
        "70:",
        push_clobbered!(),
        "test byte ptr gs:[{watch_byte}], 1",   // watched: not idle
        "jz 75f",
        "74: mov edi, [rsp + {vector}]",
        "mov rsi, rsp",
        "call {from_kernel}",
        "test al, al",
        "jz 76f",
        "mov rax, [rsp + {rsp}]",
        "mov rcx, [rsp + {rip}]",
        "mov [rax - 8], rcx",
        "mov rcx, [rsp + {rflags}]",
        "mov [rax - 16], rcx",
        "sub rax, 16",
        "mov [rsp + {vector}], rax",
        pop_to_orig_rax!(),
        "pop rsp",
        "popfq",
        "ret",
        "76:",
        pop_clobbered!(),
        "iretq",
        // ---- from idle: the same transition as user_exit ----
        "75: mov ecx, {idle_delta}",
        "lock xadd qword ptr gs:[{context}], rcx",
        "and ecx, {low_mask}",
        "cmp ecx, {idle_expected}",
        "je 74b",
        "call {idle_exit_slow}",
        "jmp 74b",
        vector = const offset_of!(Frame, orig_rax) - IRQ_START,
        rip = const offset_of!(Frame, rip) - IRQ_START,
        rflags = const offset_of!(Frame, rflags) - IRQ_START,
        rsp = const offset_of!(Frame, rsp) - IRQ_START,
        exit_work = const offset::EXIT_WORK,
        active = const offset::ACTIVE,
        context = const offset::CONTEXT,
        watch_byte = const offset::CONTEXT_WATCH_BYTE,
        since = const offset::SINCE_TSC,
        user_ticks = const offset::USER_TICKS,
        kernel_ticks = const offset::KERNEL_TICKS,
        exit_delta = const word::USER_EXIT_DELTA,
        enter_delta = const word::USER_ENTER_DELTA,
        idle_delta = const word::IDLE_EXIT_DELTA,
        low_mask = const word::LOW_MASK,
        user_expected = const word::USER_EXPECTED,
        kernel_expected = const word::KERNEL_EXPECTED,
        idle_expected = const word::IDLE_EXPECTED,
        key = sym crate::static_key::TRACKING,
        trace_key = sym crate::trace::key::TRACE_CONTEXT,
        trace_user_enter = sym super::trace_crossing::user_enter_by_irq,
        user_exit_slow = sym user_exit_slow,
        user_enter_slow = sym user_enter_slow,
        idle_exit_slow = sym idle_exit_slow,
        handlers = sym crate::smp::interrupt::HANDLERS,
        from_kernel = sym from_kernel,
        irq_full_exit = sym irq_full_exit,
    )
}

/// Handle the interrupt `vector` that arrived in kernel mode, then preempt if that is due and allowed. Whether the way back is RET.
extern "C" fn from_kernel(vector: u32, partial: *const u64) -> bool {
    // SAFETY: interrupt gates turn interrupts off, and the handlers leave them off.
    let irq_off = unsafe { IrqOff::assume() };
    let me = percpu::this(&irq_off);
    let head = &me.head;
    // The lock-order check of debug builds starts anew: what the interrupted code holds is held with interrupts on.
    #[cfg(debug_assertions)]
    let held = me.held_ranks.swap(0, Ordering::Relaxed);
    crate::smp::interrupt::HANDLERS[vector as usize & 255](vector, partial);
    #[cfg(debug_assertions)]
    me.held_ranks.store(held, Ordering::Relaxed);
    if head.preempt_count.load(Ordering::Relaxed) == 0
        && head.exit_work.load(Ordering::Relaxed) & super::exit_work::RESCHED != 0
    {
        crate::sched::preempt_from_irq(&irq_off);
    }
    // SAFETY: the interrupt path's frame reaches from rbx to ss.
    let saved = |at: usize| unsafe { *partial.byte_add(at - IRQ_START) };
    let [rip, rflags] = [offset_of!(Frame, rip), offset_of!(Frame, rflags)].map(saved);
    // A CPU whose registers still have a breakpoint that is on the list no more meets it once more at most.
    let breakpoints = debug_registers::kernel_control() != 0;
    let back = kernel_return::by_ret(rip, rflags, breakpoints, &entry_text());
    // The stack that RET reads is the one that hardware pushed onto.
    debug_assert!(!back || saved(offset_of!(Frame, rsp)) & !15 == partial as u64 + (FULL - IRQ_START) as u64);
    back
}

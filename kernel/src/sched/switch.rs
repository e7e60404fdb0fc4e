//! The switch from one task to another: address space, FPU state, user segment bases, stacks.

use super::attention::Seen;
use super::task::Task;
use crate::arch::irq_flag::IrqOff;
use crate::arch::{debug_registers, page_table, segment_base};
use crate::entry::exit_work;
use crate::entry::frame::{FULL, Frame};
use crate::entry::traced_syscall;
use crate::percpu::Percpu;
use crate::smp::call_function;
use core::arch::{asm, naked_asm};
use core::sync::atomic::Ordering;
use kcore::ipi_ledger::IpiCause;

/// Leave `prev`'s context for `next`'s; returns when somebody switches back to `prev`. Who ran before that, and the area of the CPU that it
/// was on, which is the running one, are what it returns: every context is told as it begins or goes on.
///
/// # Safety
/// 1. Interrupts are off; 2. `prev` is the running task; 3. `next` runs nowhere and its context was saved here or
///    prepared below.
#[inline(always)]
pub unsafe fn to(me: &'static Percpu, prev: &Task, next: &Task, _: &IrqOff) -> (*const Task, &'static Percpu) {
    // User state: kernel threads have none and leave the last user's in place.
    // SAFETY: interrupts are off; the CPU holds `prev`'s user state if it is a user task.
    unsafe {
        match (&prev.fpu, &next.fpu) {
            (Some(before), Some(after)) => {
                before.exchange(after);
                segment_base::exchange(&prev.user_bases, &next.user_bases);
            }
            (Some(before), None) => {
                before.save();
                segment_base::save(&prev.user_bases);
            }
            (None, Some(after)) => {
                after.restore();
                segment_base::load(&next.user_bases);
            }
            (None, None) => {}
        }
    }
    load_address_space(me, next.root.load(Ordering::Relaxed));
    me.head.current.store(next as *const Task as u64, Ordering::Release);
    let stack_top = next.stack_top();
    me.head.kernel_stack_top.store(stack_top, Ordering::Relaxed);
    // SAFETY: this CPU's own TSS, interrupts off, the next task's own stack.
    unsafe { me.segments.set_rsp0(stack_top) };
    // The signal bit is the task's, the word is the CPU's. `on_cpu` was set before this look: see notify_signal.
    core::sync::atomic::fence(Ordering::SeqCst);
    let attention = next.signal_pending.look(Ordering::Relaxed);
    if !attention.nothing() {
        follow_attention(me, next, attention);
    } else if me.head.exit_work.load(Ordering::Relaxed) & (exit_work::SIGNAL | exit_work::TRACED) != 0 {
        me.head.exit_work.fetch_and(!exit_work::SIGNAL, Ordering::SeqCst);
        follow_attention(me, next, next.signal_pending.look(Ordering::SeqCst));
    }
    // SAFETY: the caller's conditions.
    unsafe { stacks(prev, me, next.saved_sp.load(Ordering::Relaxed)) }
}

/// The CPU's exit work and set-up follow `next`, which is about to run or runs; what is not said of it stays.
#[cold]
#[inline(never)]
fn follow_attention(me: &Percpu, next: &Task, attention: Seen) {
    if attention.signal() {
        me.head.exit_work.fetch_or(exit_work::SIGNAL, Ordering::Relaxed);
    }
    if attention.moved() {
        me.head.exit_work.fetch_or(exit_work::RESTARTABLE, Ordering::Relaxed);
    }
    if attention.traced() {
        me.head.exit_work.fetch_or(exit_work::TRACED, Ordering::Relaxed);
        debug_registers::load(Some(&next.breakpoints));
        traced_syscall::enter_here(true);
    } else if me.head.exit_work.load(Ordering::Relaxed) & exit_work::TRACED != 0 {
        me.head.exit_work.fetch_and(!exit_work::TRACED, Ordering::Relaxed);
        debug_registers::load(None);
        traced_syscall::enter_here(false);
    }
}

/// The running task has become traced, or is not any more, or has other breakpoints.
pub fn follow_tracing(irq_off: &IrqOff) {
    let task = super::current();
    follow_attention(crate::percpu::this(irq_off), task, task.signal_pending.look(Ordering::SeqCst));
}

/// `task` has become traced: when this returns the CPU that it runs on, if it does, is set up for that. Process context, interrupts on.
#[track_caller]
pub fn follow_tracing_of(task: &Task) {
    // Its attention was told before this look: who comes to a CPU after it sees that there.
    core::sync::atomic::fence(Ordering::SeqCst);
    if task.on_cpu.load(Ordering::Relaxed) {
        let follow = |_| follow_tracing(&IrqOff::new());
        call_function::call(task.cpu.load(Ordering::Relaxed), IpiCause::Ptrace, follow, 0);
    }
}

/// Load `root` if it is not loaded. Others look at `address_space_root` to find whom to flush; CR3's load after the store
/// flushes what was changed before they looked.
#[inline]
pub fn load_address_space(me: &Percpu, root: u64) {
    if me.address_space_root.load(Ordering::Relaxed) != root {
        me.address_space_root.store(root, Ordering::SeqCst);
        // SAFETY: every root shares the kernel half.
        unsafe { page_table::load(root) };
    }
}

/// Save where one context goes on, and go on in the other, which finds `prev` and `me` where they are: the first two arguments of a function.
/// All other registers but the two that the compiler keeps for itself are said to be lost: it has saved what it needs of them.
///
/// ```text
/// saved stack   sp -> where to go on   rbx rbp
/// ```
///
/// # Safety
/// `next` was saved by this function or prepared below; interrupts are off.
#[inline(always)]
unsafe fn stacks(prev: *const Task, me: *const Percpu, next_sp: u64) -> (*const Task, &'static Percpu) {
    let (mut prev, mut me) = (prev, me);
    // SAFETY: 1. the stack is as it was when control comes back to label 2, by the next switch to the saved context; 2. what is not
    // pushed or handed over is declared as lost.
    unsafe {
        asm!(
            "push rbp",
            "push rbx",
            "lea rax, [rip + 2f]",
            "push rax",
            "mov [rdi + {saved_sp}], rsp",
            "mov rsp, rdx",
            "pop rax",
            "jmp rax",
            "2: pop rbx",
            "pop rbp",
            saved_sp = const core::mem::offset_of!(Task, saved_sp),
            inout("rdi") prev,
            inout("rsi") me,
            inout("rdx") next_sp => _,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
            clobber_abi("C"),
        )
    };
    // SAFETY: areas live for ever.
    (prev, unsafe { &*me })
}

fn prepare(task: &Task, below: u64, start: unsafe extern "C" fn()) {
    let sp = below - 8;
    // SAFETY: the task's own stack, and it does not run.
    unsafe { (sp as *mut u64).write(start as *const () as u64) };
    task.saved_sp.store(sp, Ordering::Relaxed);
}

/// Make a new kernel thread start at `task::kthread_main`.
pub fn prepare_kthread(task: &Task) {
    prepare(task, task.stack_top() - 16, kthread_start);
}

/// Make a new user task start in user mode with the registers of `frame`.
pub fn prepare_user(task: &Task, frame: &Frame) {
    let at = task.stack_top() - FULL as u64;
    // SAFETY: the task's own stack, and it does not run.
    unsafe { (at as *mut Frame).write(frame.clone()) };
    prepare(task, at, user_start);
}

/// # Safety
/// Reached by `stacks` only.
#[unsafe(naked)]
unsafe extern "C" fn kthread_start() {
    naked_asm!(
        "xor ebp, ebp", "call {finish}", "sti", "call {main}", "ud2",
        finish = sym super::departure::finish_switch, main = sym super::task::kthread_main,
    )
}

/// # Safety
/// Reached by `stacks` only, with a full frame on the stack.
#[unsafe(naked)]
unsafe extern "C" fn user_start() {
    naked_asm!(
        "xor ebp, ebp", "call {finish}", "jmp {exit}",
        finish = sym super::departure::finish_switch, exit = sym crate::entry::exit_work::full_exit_to_user,
    )
}

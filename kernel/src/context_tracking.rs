//! What the machine does with the context word: the kernel side of `kcore::context_tracking`.
//!
//! The entry paths move the word themselves (`entry::tracking`); here is what they call when the old value was not the
//! plain one, and what idle and NMI use. The rules are kcore's. Everything runs on its own CPU with interrupts off.

use crate::arch::irq_flag::IrqOff;
use crate::arch::{page_table, tsc};
use crate::percpu;
use core::sync::atomic::Ordering;
use kcore::context_tracking::{
    ContextWord, DEFERRED_MASK, Deferred, KERNEL_EXPECTED, LOW_MASK, NmiToken, deferred, is_watching,
};
use kcore::trace_event::{Data, Flags};

fn irq_off() -> IrqOff {
    // SAFETY: entry code calls here with interrupts off.
    unsafe { IrqOff::assume() }
}

/// Do the posted work. Idempotent, non-blocking, allowed in NMI.
fn run(bits: u8) {
    if bits & Deferred::FLUSH_KERNEL_TLB != 0 && !cfg!(mutant = "posted_flush_left_out") {
        page_table::flush_all_with_globals();
    }
    if bits & Deferred::SYNC_CORE != 0 {
        // CPUID serialises and, unlike IRET, does not unmask NMIs.
        core::arch::x86_64::__cpuid(0);
    }
}

/// Work that may not run in NMI: it takes locks or sends IPIs.
fn run_outside_nmi(bits: u8) {
    if bits & Deferred::RCU_RECHECK != 0 {
        // Between user mode or idle and the first kernel code there is no reader.
        percpu::this(&irq_off()).rcu.note_quiescent();
    }
    if bits & Deferred::TICK_RECHECK != 0 {
        crate::time::tick::recheck(&irq_off());
    }
}

/// Work that could not be left in this CPU's word, since it runs kernel code: from the IPI that came instead.
pub fn run_posted(bits: u8) {
    run(bits);
    if bits & Deferred::TICK_RECHECK != 0 {
        crate::time::tick::recheck(&irq_off());
    }
}

/// After a transition to KERNEL whose old value was not the plain one: run what was posted, or repair.
#[cold]
fn settle() {
    let irq_off = irq_off();
    let word = &percpu::this(&irq_off).head.context.0;
    let now = word.load();
    if now & (LOW_MASK & !DEFERRED_MASK) != KERNEL_EXPECTED {
        illegal(now);
    }
    word.run_deferred(deferred(now), |bits| {
        run(bits);
        // Behind the serialisation, which may be about this very site.
        if bits != 0 {
            crate::trace_point!(WORK, &irq_off, Flags::IRQS_OFF, Data::WorkRan { bits, word: now });
        }
        run_outside_nmi(bits);
    });
}

/// See `entry::tracking::user_exit_slow`.
pub fn after_user_exit() {
    settle();
}

/// See `entry::tracking::idle_exit_slow`.
pub fn after_idle_exit() {
    settle();
}

/// The word was not KERNEL and watched when it left for user mode: repair it and leave again.
#[cold]
pub fn repair_user_enter() {
    let irq_off = irq_off();
    let head = &percpu::this(&irq_off).head;
    illegal(head.context.0.load());
    let _ = head.context.0.user_enter();
}

/// An illegal transition: a panic in debug builds; in release the word becomes kernel-and-watching, all deferred
/// work counts as posted and is run, and the event is counted.
#[cold]
fn illegal(now: u64) {
    let irq_off = irq_off();
    let head = &percpu::this(&irq_off).head;
    head.illegal_transitions.fetch_add(1, Ordering::Relaxed);
    let bits = head.context.0.recover();
    run(bits);
    run_outside_nmi(bits);
    head.context.0.clear_deferred(bits);
    if cfg!(debug_assertions) {
        panic!("illegal context transition: word {now:#x}");
    }
}

/// user_exit for paths without a key site (#DB and #BP from user mode): on tracked CPUs only.
#[inline(never)] // the ELF check finds it by name
pub fn user_exit_if_tracked() {
    let irq_off = irq_off();
    let head = &percpu::this(&irq_off).head;
    if head.active.load(Ordering::Relaxed) == 0 {
        return;
    }
    let now = tsc::now();
    let transition = head.context.0.user_exit();
    head.user_ticks.fetch_add(now.wrapping_sub(head.since_tsc.swap(now, Ordering::Relaxed)), Ordering::Relaxed);
    if !transition.is_plain() {
        settle();
    }
}

/// From here on RCU watches. The ELF check finds it by name: no key site is reached before it.
#[inline(never)]
fn nmi_enter(word: &ContextWord) -> NmiToken {
    word.nmi_enter()
}

/// Run `f` as NMI-like: RCU watches, idempotent posted work is done and its bits stay.
pub fn in_nmi(f: impl FnOnce()) {
    // SAFETY: NMI-like handlers run with interrupts off.
    let irq_off = unsafe { IrqOff::assume() };
    let word = &percpu::this(&irq_off).head.context.0;
    let token = nmi_enter(word);
    run(token.deferred & Deferred::IN_NMI);
    f();
    word.nmi_exit(token);
}

/// The idle loop is about to halt. Interrupts are off; the interrupt that ends the halt does the way back.
pub fn idle_enter(irq_off: &IrqOff) {
    let area = percpu::this(irq_off);
    area.state_since_tsc.store(tsc::now(), Ordering::Relaxed);
    let transition = area.head.context.0.idle_enter();
    if !transition.is_legal() {
        illegal(transition.old);
        let _ = area.head.context.0.idle_enter();
    }
}

/// The halt ended without an interrupt's entry path (it was not reached at all): go back by hand.
pub fn idle_exit_if_idle(irq_off: &IrqOff) {
    let area = percpu::this(irq_off);
    let word = &area.head.context.0;
    if !is_watching(word.load()) && !word.idle_exit().is_plain() {
        settle();
    }
    area.state_since_tsc.store(tsc::now(), Ordering::Relaxed);
}

/// Start tracking user mode on the running CPU, which is in the kernel now, so that its word says KERNEL and stays right: the way out that
/// comes next is the first that changes it. `user_ticks`: what it spent in user mode until now.
pub fn activate(user_ticks: u64, irq_off: &IrqOff) {
    debug_assert!(crate::static_key::TRACKING.is_on(), "tracked without the key: user_exit would be missed");
    let head = &percpu::this(irq_off).head;
    head.user_ticks.store(user_ticks, Ordering::Relaxed);
    head.since_tsc.store(tsc::now(), Ordering::Relaxed);
    head.active.store(1, Ordering::Relaxed);
}

/// Stop tracking user mode on the running CPU, which is in the kernel now: its word says KERNEL from here on, but for idle.
pub fn deactivate(irq_off: &IrqOff) {
    let area = percpu::this(irq_off);
    let (head, now) = (&area.head, tsc::now());
    head.kernel_ticks.fetch_add(now.wrapping_sub(head.since_tsc.load(Ordering::Relaxed)), Ordering::Relaxed);
    head.active.store(0, Ordering::Relaxed);
    area.state_since_tsc.store(now, Ordering::Relaxed);
}

//! Calling a function on another CPU and waiting for it.
//!
//! The queue entry lies on the caller's stack; the caller waits until the target has run it. Process context, interrupts on
//! (two CPUs may call each other).

use super::ipi::{self, Sender};
use crate::arch::irq_flag::IrqOff;
use crate::percpu;
use crate::spin_lock::PreemptOff;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use kcore::cpu_set::CpuSet;
use kcore::ipi_ledger::IpiCause;

/// One call under way.
pub struct Call {
    next: AtomicPtr<Call>,
    function: fn(usize),
    argument: usize,
    sender: Sender,
    done: AtomicBool,
}

/// Entries on the caller's stack.
const AT_ONCE: usize = 16;

impl Call {
    fn new(function: fn(usize), argument: usize, sender: Sender, done: bool) -> Self {
        let next = AtomicPtr::new(core::ptr::null_mut());
        Self { next, function, argument, sender, done: AtomicBool::new(done) }
    }
}

/// Run `function(argument)` on CPU `target` in its interrupt handler and wait for the end. On the caller's own CPU it
/// is called directly.
#[track_caller]
pub fn call(target: u32, cause: IpiCause, function: fn(usize), argument: usize) {
    let site = Location::caller();
    let pin = PreemptOff::new();
    if target == percpu::this(&pin).cpu() {
        let _irq_off = IrqOff::new();
        function(argument);
        return;
    }
    debug_assert!(x86_64::instructions::interrupts::are_enabled(), "two CPUs that call each other would wait for ever");
    let entry = Call::new(function, argument, Sender::here(cause, site, &pin), false);
    queue(target, &entry);
    ipi::send(target, &entry.sender, &IrqOff::new());
    wait(&entry);
}

/// `call` on every CPU of `targets` but the running one, all at once, `AT_ONCE` at a time.
#[track_caller]
pub fn call_many(targets: &CpuSet, cause: IpiCause, function: fn(usize), argument: usize) {
    call_many_from(targets, cause, function, argument, Location::caller());
}

/// `call_many` on behalf of `site`.
pub fn call_many_from(
    targets: &CpuSet,
    cause: IpiCause,
    function: fn(usize),
    argument: usize,
    site: &'static Location<'static>,
) {
    call_many_unless(targets, cause, function, argument, site, |_| false);
}

/// `call_many_from`, without those of which `skip` says that they need no call, when it is their turn.
pub fn call_many_unless(
    targets: &CpuSet,
    cause: IpiCause,
    function: fn(usize),
    argument: usize,
    site: &'static Location<'static>,
    skip: impl Fn(u32) -> bool,
) {
    debug_assert!(x86_64::instructions::interrupts::are_enabled(), "two CPUs that call each other would wait for ever");
    let pin = PreemptOff::new();
    let me = percpu::this(&pin).cpu();
    let mut cpus = targets.iter().filter(|&c| c != me && !skip(c)).peekable();
    while cpus.peek().is_some() {
        let entries: [Call; AT_ONCE] =
            core::array::from_fn(|_| Call::new(function, argument, Sender::here(cause, site, &pin), true));
        for entry in &entries {
            let Some(cpu) = cpus.next() else { break };
            entry.done.store(false, Ordering::Relaxed);
            queue(cpu, entry);
            ipi::send(cpu, &entry.sender, &IrqOff::new());
        }
        entries.iter().for_each(wait);
    }
}

fn queue(target: u32, entry: &Call) {
    let calls = &percpu::of(target).smp.calls;
    let mut first = calls.load(Ordering::Relaxed);
    loop {
        entry.next.store(first, Ordering::Relaxed);
        let p = entry as *const Call as *mut Call;
        match calls.compare_exchange_weak(first, p, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return,
            Err(now) => first = now,
        }
    }
}

/// Serves no calls meanwhile: with interrupts off its caller may be an RCU reader.
fn wait(entry: &Call) {
    while !entry.done.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
}

/// Who queued the newest call that waits for this CPU.
pub fn sender(irq_off: &IrqOff) -> Option<Sender> {
    let newest = percpu::this(irq_off).smp.calls.load(Ordering::Acquire);
    // SAFETY: an entry lives until its `done` is set, which only this CPU does.
    unsafe { newest.as_ref() }.map(|call| call.sender).filter(|_| !cfg!(mutant = "sender_not_named"))
}

/// The interrupt on the target: run what is queued.
pub fn interrupt(irq_off: &IrqOff) {
    let mut at = percpu::this(irq_off).smp.calls.swap(core::ptr::null_mut(), Ordering::Acquire);
    // SAFETY: an entry lives until its `done` is set; `next` is read before.
    while let Some(entry) = unsafe { at.as_ref() } {
        at = entry.next.load(Ordering::Relaxed);
        (entry.function)(entry.argument);
        entry.done.store(true, Ordering::Release);
    }
}

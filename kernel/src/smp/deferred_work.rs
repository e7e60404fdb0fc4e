//! Work for other CPUs that may wait until they enter the kernel anyway: a bit in the word of a CPU that RCU does not watch,
//! an IPI to one that runs kernel code.
//!
//! Process context (`on_each` waits for the CPUs that it has to interrupt, so interrupts are on); `leave` from anywhere but NMI.
//! The rule who may be left alone is `kcore::context_tracking::ContextWord::post`. The caller's stores are visible to the work.

use super::{call_function, ipi};
use crate::arch::irq_flag::IrqOff;
use crate::arch::tsc;
use crate::isolation::lease;
use crate::percpu;
use crate::spin_lock::PreemptOff;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, Ordering};
use kcore::context_tracking::{Deferred, Posted};
use kcore::cpu_set::CpuSet;
use kcore::ipi_ledger::IpiCause;
use kcore::trace_event::{Data, Flags};

/// Off: every piece of work is an IPI. The storm's control run (`quiesce.defer=off`).
static DEFER: AtomicBool = AtomicBool::new(true);

/// What the command line says. Boot CPU, once.
pub fn set_enabled(on: bool) {
    DEFER.store(on, Ordering::Relaxed);
}

/// What an IPI for this work is called.
const fn cause_of(work: Deferred) -> IpiCause {
    match work {
        Deferred::FlushKernelTlb => IpiCause::KernelTlbFlush,
        Deferred::SyncCore => IpiCause::SyncCore,
        Deferred::TickRecheck => IpiCause::TickRecheck,
        Deferred::RcuRecheck => IpiCause::RcuHoldout,
    }
}

/// How long a leased CPU that runs kernel code is waited for, ns: the call is its program's own, and ends; an IPI might come after that.
const PATIENCE_NS: u64 = 100_000_000;

/// Leave `work` for the next time that CPU `cpu` enters the kernel. False: it is in the kernel now, and nothing was done. A leased CPU is
/// waited for.
#[must_use = "the CPU may have to be interrupted"]
pub fn leave(cpu: u32, work: Deferred, site: &'static Location<'static>) -> bool {
    if leave_now(cpu, work, site) {
        return true;
    }
    if !lease::expects_silence(cpu) || !DEFER.load(Ordering::Relaxed) {
        return false;
    }
    let (start, patience) = (tsc::now(), tsc::ns_to_ticks(PATIENCE_NS));
    while tsc::now().wrapping_sub(start) < patience {
        core::hint::spin_loop();
        if leave_now(cpu, work, site) {
            return true;
        }
    }
    false
}

/// As `leave`, and nobody is waited for.
#[must_use = "the CPU may have to be interrupted"]
pub fn leave_now(cpu: u32, work: Deferred, site: &'static Location<'static>) -> bool {
    if !DEFER.load(Ordering::Relaxed) || cfg!(mutant = "deferrable_sent") {
        return false;
    }
    let irq_off = IrqOff::new();
    let posted = percpu::of(cpu).head.context.0.post_patiently(work, core::hint::spin_loop);
    let Posted::Left { found } = posted else { return false };
    ipi::avoided(cpu, &ipi::Sender::here(cause_of(work), site, &irq_off), &irq_off);
    let (bits, site) = (work.bit(), site as *const _ as u64);
    crate::trace_point!(WORK, &irq_off, Flags::IRQS_OFF, Data::WorkPosted { target_cpu: cpu, bits, word: found, site });
    true
}

/// Every other CPU of `targets` does `work` before it runs kernel code that depends on it: it is left in their words, or they
/// have done it when this returns. The running CPU does its own.
#[track_caller]
pub fn on_each(targets: &CpuSet, work: Deferred) {
    let site = Location::caller();
    let pin = PreemptOff::new();
    let me = percpu::this(&pin).cpu();
    let mut in_kernel = CpuSet::new();
    for cpu in targets.iter().filter(|&cpu| cpu != me) {
        if !leave(cpu, work, site) {
            let _ = in_kernel.insert(cpu);
        }
    }
    if !in_kernel.is_empty() {
        // Who has left the kernel by the time of its turn is left alone after all.
        let skip = |cpu| leave(cpu, work, site);
        call_function::call_many_unless(&in_kernel, cause_of(work), run, work.bit() as usize, site, skip);
    }
}

fn run(bits: usize) {
    // The interrupt handler's entry has left user mode or idle: this is kernel code with interrupts off.
    crate::context_tracking::run_posted(bits as u8);
}

/// Kernel text has changed: every other CPU serialises before it runs kernel text again, but for entry text, which never
/// changes. The running CPU has serialised itself.
#[track_caller]
pub fn sync_text() {
    on_each(&percpu::online(), Deferred::SyncCore);
}

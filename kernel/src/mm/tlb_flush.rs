//! Flushes of translations on all CPUs that have an address space loaded, and the frames that wait for one.
//!
//! Called by `address_space` and its parts with preemption off and interrupts on: other CPUs are asked and waited for. Frames that
//! were mapped are freed only after the flush.

use super::frame;
use crate::arch::page_table::{self as pt, PAGE_SIZE, bits};
use crate::percpu;
use arrayvec::ArrayVec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use kcore::context_tracking::Deferred;
use kcore::cpu_set::CpuSet;
use kcore::ipi_ledger::IpiCause;

/// Frames to be freed after a flush, and what has to be flushed.
pub(super) struct Gather {
    frames: ArrayVec<u64, 64>,
    first: u64,
    end: u64,
}

impl Gather {
    pub(super) fn new() -> Self {
        Self { frames: ArrayVec::new(), first: u64::MAX, end: 0 }
    }

    /// `virt` had the entry `old`, which is gone. False if a flush is due.
    pub(super) fn removed(&mut self, virt: u64, old: u64) -> bool {
        self.changed(virt);
        if old & bits::FOREIGN == 0 {
            self.frames.push(old & bits::ADDRESS);
        }
        !self.frames.is_full()
    }

    pub(super) fn changed(&mut self, virt: u64) {
        self.first = self.first.min(virt);
        self.end = self.end.max(virt + PAGE_SIZE);
    }

    #[track_caller]
    pub(super) fn finish(&mut self, root: u64) {
        if self.first < self.end {
            flush(root, self.first..self.end);
            (self.first, self.end) = (u64::MAX, 0);
        }
        self.frames.drain(..).for_each(frame::release);
    }
}

/// The CPUs that have `root` loaded now; one that loads it later loads fresh translations.
pub fn cpus_running(root: u64) -> CpuSet {
    core::sync::atomic::fence(Ordering::SeqCst);
    let mut set = CpuSet::new();
    for cpu in 0..percpu::nr_cpus() {
        if percpu::get(cpu).is_some_and(|a| a.address_space_root.load(Ordering::Relaxed) == root) {
            let _ = set.insert(cpu);
        }
    }
    set
}

struct FlushRequest {
    root: u64,
    range: Range<u64>,
}

fn flush_here(request: &FlushRequest) {
    if pt::root() != request.root {
        return;
    }
    if request.range.end - request.range.start <= 16 * PAGE_SIZE {
        pt::flush_pages(&request.range);
    } else {
        // SAFETY: the root that is loaded already.
        unsafe { pt::load(request.root) };
    }
}

/// Drop the translations of `range` on all CPUs that have `root` loaded. Preemption is off, interrupts are on.
#[track_caller]
pub(super) fn flush(root: u64, range: Range<u64>) {
    let request = FlushRequest { root, range };
    flush_here(&request);
    let mut others = cpus_running(root);
    others.remove(percpu::cpu());
    if !others.is_empty() {
        fn on_target(argument: usize) {
            // SAFETY: the caller waits until all targets have run this, so the request lives.
            flush_here(unsafe { &*(argument as *const FlushRequest) });
        }
        crate::smp::call_function::call_many(&others, IpiCause::UserTlbFlush, on_target, &request as *const _ as usize);
    }
}

/// Leaf entries of the kernel half were taken out: when this returns no CPU uses what they mapped, and their frames may be used
/// otherwise; page-table pages may not. CPUs in user mode or idle are left alone: they flush before any kernel code that
/// could use the addresses. What entry code and hardware touch before that is mapped for good. Process context, interrupts on.
#[track_caller]
pub fn flush_kernel() {
    // The CPU that flushes here is the one that `on_each` leaves out.
    let _pin = crate::spin_lock::PreemptOff::new();
    pt::flush_all_with_globals();
    crate::smp::deferred_work::on_each(&percpu::online(), Deferred::FlushKernelTlb);
}

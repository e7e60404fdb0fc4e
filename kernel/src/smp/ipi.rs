//! Sending IPIs, each with a typed cause and its sender.
//!
//! The sender is queued first, so that an isolated target's interruption record can name it: in the call's own entry, or, for a reschedule,
//! in the target's list.

use crate::arch::apic::{self, vector};
use crate::arch::irq_flag::{IrqOff, Pinned};
use crate::percpu;
use arrayvec::ArrayVec;
use core::panic::Location;
use core::sync::atomic::Ordering;
use kcore::interruption::Cause;

/// Who sent an IPI.
#[derive(Clone, Copy)]
pub struct Sender {
    /// Why
    pub cause: Cause,
    /// From which CPU
    pub cpu: u32,
    /// By which task
    pub task: u32,
    /// Its name
    pub comm: [u8; 16],
    /// From where
    pub site: &'static Location<'static>,
}

impl Sender {
    /// The running task, on its CPU.
    pub fn here<P: Pinned>(cause: Cause, site: &'static Location<'static>, pin: &P) -> Self {
        let task = crate::sched::current();
        Self { cause, cpu: percpu::this(pin).cpu(), task: task.tid(), comm: task.comm(), site }
    }
}

/// Reschedule IPIs under way to one CPU.
pub struct Senders {
    queue: ArrayVec<Sender, 32>,
    /// The last sender of an IPI that merged into another: queued, and perhaps not sent yet.
    merged: Option<Sender>,
}

impl Senders {
    /// Nothing under way.
    pub const fn new() -> Self {
        Self { queue: ArrayVec::new_const(), merged: None }
    }

    /// The sender of the interrupt of `cause` that arrived. IPIs of one cause that came while one was pending merged into it.
    pub fn take(&mut self, cause: Cause) -> Option<Sender> {
        let Some(at) = self.queue.iter().position(|s| s.cause == cause) else {
            return self.merged.take_if(|s| s.cause == cause);
        };
        let first = self.queue.remove(at);
        if let Some(last) = self.queue.iter().rposition(|s| s.cause == cause) {
            self.merged = Some(self.queue[last]);
            self.queue.retain(|s| s.cause != cause);
        }
        Some(first)
    }
}

fn vector_of(cause: Cause) -> u8 {
    match cause {
        Cause::Reschedule => vector::RESCHEDULE,
        Cause::TlbFlush => vector::TLB_FLUSH,
        _ => vector::CALL_FUNCTION,
    }
}

/// Interrupt CPU `target` for `cause`. What it is to do is queued already, with its sender.
pub fn send(target: u32, cause: Cause, irq_off: &IrqOff) {
    crate::trace_point!(
        IPI_SEND,
        irq_off,
        kcore::trace_event::Flags::IRQS_OFF,
        kcore::trace_event::Data::IpiSend { target_cpu: target, cause, site: 0 }
    );
    apic::send_ipi(percpu::of(target).apic_id.load(Ordering::Relaxed), vector_of(cause), irq_off);
}

/// Ask CPU `target` to look at its exit work.
pub fn reschedule(target: u32, site: &'static Location<'static>, irq_off: &IrqOff) {
    let area = percpu::of(target);
    if crate::static_branch!(crate::trace::key::SENDERS) && crate::trace::rings::wants_sender(area) {
        let sender = Sender::here(Cause::Reschedule, site, irq_off);
        if area.smp.senders.lock_held(irq_off).queue.try_push(sender).is_err() {
            area.smp.senders_lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    send(target, Cause::Reschedule, irq_off);
}

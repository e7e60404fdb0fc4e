//! Sending IPIs, each with a typed cause and its sender, entered in the sender's ledger.
//!
//! The sender is queued first, so that an isolated target's interruption record can name it: in the call's own entry, or, for a reschedule,
//! in the target's list.

use crate::arch::apic;
use crate::arch::irq_flag::{IrqOff, Pinned};
use crate::percpu;
use arrayvec::ArrayVec;
use core::panic::Location;
use core::sync::atomic::Ordering;
use kcore::interruption::Cause;
use kcore::ipi_ledger::{IpiCause, Item, UnderLease};
use kcore::trace_event::{Data, Flags, RecordTask};

/// Who sent an IPI.
#[derive(Clone, Copy)]
pub struct Sender {
    /// Why
    pub cause: IpiCause,
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
    pub fn here<P: Pinned>(cause: IpiCause, site: &'static Location<'static>, pin: &P) -> Self {
        Self::of(None, cause, site, pin)
    }

    /// `task`, for which this CPU sends; None: the running one.
    fn of<P: Pinned>(task: Option<&RecordTask>, cause: IpiCause, site: &'static Location<'static>, pin: &P) -> Self {
        let task = task.copied().unwrap_or_else(|| crate::sched::current().named());
        Self { cause, cpu: percpu::this(pin).cpu(), task: task.id, comm: task.comm, site }
    }

    /// What the trace says of it: the interrupt that it causes, and from where.
    fn sent_to(&self, target_cpu: u32) -> Data {
        let cause = match self.cause {
            IpiCause::UserTlbFlush | IpiCause::KernelTlbFlush => Cause::TlbFlush,
            IpiCause::SyncCore
            | IpiCause::Membarrier
            | IpiCause::Ptrace
            | IpiCause::RcuExpedited
            | IpiCause::Isolate
            | IpiCause::Injected => Cause::CallFunction,
            IpiCause::RcuStall | IpiCause::InjectedNmi => Cause::Nmi,
            IpiCause::Stop => Cause::Stop,
            _ => Cause::Reschedule,
        };
        Data::IpiSend { target_cpu, cause, site: self.site as *const _ as u64 }
    }

    /// Its line in the ledger.
    fn item(&self, target: u32) -> Item {
        Item { target, cause: self.cause, site: self.site as *const _ as u64, task: self.task, comm: self.comm }
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

    /// Forget them. For when nobody leaves a name any more: what is queued would be told of a later IPI.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The sender of the interrupt that arrived. IPIs that came while one was pending merged into it.
    pub fn take(&mut self) -> Option<Sender> {
        if self.queue.is_empty() {
            return self.merged.take();
        }
        let first = self.queue.remove(0);
        if let Some(&last) = self.queue.last() {
            self.merged = Some(last);
            self.queue.clear();
        }
        Some(first)
    }
}

/// Interrupt CPU `target` for `sender`. What it is to do is queued already.
pub fn send(target: u32, sender: &Sender, irq_off: &IrqOff) {
    debug_assert!(
        sender.cause.under_lease() != UnderLease::Refused || !crate::isolation::lease::is_granted(target),
        "IPI {} to the leased CPU {target}, which its sender was to ask for (lease::permits)",
        sender.cause.name()
    );
    percpu::this(irq_off).smp.ledger.sent(&sender.item(target));
    crate::trace_point!(IPI_SEND, irq_off, Flags::IRQS_OFF, sender.sent_to(target));
    apic::send_ipi(percpu::of(target).apic_id.load(Ordering::Relaxed), sender.cause, irq_off);
}

/// Nothing is sent to CPU `target`: the work was left in its word.
pub fn avoided(target: u32, sender: &Sender, irq_off: &IrqOff) {
    percpu::this(irq_off).smp.ledger.avoided(&sender.item(target));
}

/// Ask CPU `target` to look at its exit work and at its tick.
pub fn reschedule(target: u32, cause: IpiCause, site: &'static Location<'static>, irq_off: &IrqOff) {
    reschedule_for(None, target, cause, site, irq_off);
}

/// The same in the name of `task`, which need not run any more; None: the running one.
pub fn reschedule_for(
    task: Option<&RecordTask>,
    target: u32,
    cause: IpiCause,
    site: &'static Location<'static>,
    irq_off: &IrqOff,
) {
    let area = percpu::of(target);
    let sender = Sender::of(task, cause, site, irq_off);
    if crate::static_branch!(crate::trace::key::SENDERS)
        && crate::trace::rings::wants_sender(area)
        && area.smp.senders.lock_held(irq_off).queue.try_push(sender).is_err()
    {
        area.smp.senders_lost.fetch_add(1, Ordering::Relaxed);
    }
    send(target, &sender, irq_off);
}

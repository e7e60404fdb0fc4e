//! What each vector does, and the record of each interruption of an isolated CPU.

use super::ipi::Sender;
use crate::arch::apic::{self, vector};
use crate::arch::irq_flag::IrqOff;
use crate::arch::tsc;
use crate::entry::frame::{Frame, IRQ_START};
use crate::percpu::{self, Percpu};
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use kcore::interruption::{Cause, Interruption};

fn cause_of(v: u8) -> Cause {
    match v {
        vector::TIMER => Cause::Timer,
        vector::RESCHEDULE => Cause::Reschedule,
        vector::CALL_FUNCTION => Cause::CallFunction,
        vector::TLB_FLUSH => Cause::TlbFlush,
        vector::ERROR => Cause::ApicError,
        vector::SPURIOUS => Cause::Spurious,
        v if v == vector::IO_BASE + crate::arch::serial::COM1_IRQ => Cause::Serial,
        _ => Cause::Device,
    }
}

/// Handle vector `v`. `partial`: the interrupt path's frame, from rbx on.
#[inline]
pub fn handle(v: u8, partial: *const u64, irq_off: &IrqOff) {
    let me = percpu::this(irq_off);
    let cause = cause_of(v);
    let count = &me.head.irqs[cause.code() as usize];
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    if me.head.isolated.load(Ordering::Relaxed) == 0 {
        run(v, partial, irq_off);
    } else {
        recorded(me, v, cause, partial, irq_off);
    }
}

#[cold]
fn recorded(me: &Percpu, v: u8, cause: Cause, partial: *const u64, irq_off: &IrqOff) {
    let start_tsc = tsc::now();
    let sender = me.smp.senders.lock_irq().take(cause);
    run(v, partial, irq_off);
    record(me, cause, sender, start_tsc);
}

fn record(me: &Percpu, cause: Cause, sender: Option<Sender>, start_tsc: u64) {
    let total = me.trace.total.load(Ordering::Relaxed) + 1;
    me.trace.total.store(total, Ordering::Relaxed);
    let record = Interruption {
        start_tsc,
        end_tsc: tsc::now(),
        cpu: me.cpu(),
        cause,
        sender_cpu: sender.map(|s| s.cpu),
        sender_task: sender.map_or(0, |s| s.task),
        sender_comm: sender.map_or([0; 16], |s| s.comm),
        site: sender.map_or(0, |s| s.site as *const _ as u64),
        total,
    };
    me.trace.ring.push(record.encode());
}

#[inline]
fn run(v: u8, partial: *const u64, irq_off: &IrqOff) {
    match v {
        vector::TIMER => {
            apic::eoi();
            // SAFETY: the interrupt path's frame reaches from rbx to ss; cs is in it.
            let cs = unsafe { *partial.byte_add(offset_of!(Frame, cs) - IRQ_START) };
            crate::time::timer::interrupt(cs & 3 == 3, irq_off);
        }
        vector::RESCHEDULE => {
            apic::eoi();
            // The sender set what is to be looked at; a tick dependency may be among it.
            crate::time::tick::recheck(irq_off);
        }
        vector::CALL_FUNCTION | vector::TLB_FLUSH => {
            apic::eoi();
            super::call_function::interrupt(irq_off);
        }
        vector::SPURIOUS => {}
        v => {
            if v == vector::IO_BASE + crate::arch::serial::COM1_IRQ {
                crate::tty::console::interrupt();
            }
            apic::eoi();
        }
    }
}

/// An NMI. The only one that the kernel sends is a panic's stop.
pub fn handle_nmi(frame: &Frame) {
    // SAFETY: NMI handlers run with interrupts off.
    let irq_off = unsafe { IrqOff::assume() };
    let me = percpu::this(&irq_off);
    me.head.nmis.store(me.head.nmis.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    if crate::panic::stops(me.cpu()) {
        crate::panic::stop_here(frame);
    }
    if me.head.isolated.load(Ordering::Relaxed) != 0 {
        record(me, Cause::Nmi, None, tsc::now());
    }
}

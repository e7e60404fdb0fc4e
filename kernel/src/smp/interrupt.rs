//! What each vector does, and the record of each interruption of an isolated CPU.

use super::ipi::Sender;
use crate::arch::apic::{self, vector};
use crate::arch::cpu_head::offset;
use crate::arch::irq_flag::IrqOff;
use crate::arch::{serial, tsc};
use crate::entry::frame::{Frame, IRQ_START};
use crate::percpu::{self, Percpu};
use crate::static_branch;
use crate::trace::key::{INTERRUPTIONS, INTERRUPTS, NMI, SENDERS};
use crate::trace::record::{from_where, record};
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use kcore::interruption::{Cause, Interruption};
use kcore::trace_event::{By, Data, Flags};

/// What a vector does: called by entry code through `HANDLERS`, interrupts off. `partial`: the interrupt path's frame, from rbx on.
pub type Handler = extern "C" fn(vector: u32, partial: *const u64);

/// By vector; the first 32 are exceptions and never come here.
pub static HANDLERS: [Handler; 256] = handlers();

const fn handlers() -> [Handler; 256] {
    let mut table: [Handler; 256] = [device; 256];
    table[vector::TIMER as usize] = timer;
    table[vector::RESCHEDULE as usize] = reschedule;
    table[vector::CALL_FUNCTION as usize] = call_function;
    table[vector::TLB_FLUSH as usize] = tlb_flush;
    table[vector::SPURIOUS as usize] = spurious;
    table[vector::ERROR as usize] = apic_error;
    table[vector::IO_BASE as usize + serial::COM1_IRQ as usize] = serial_input;
    table
}

macro_rules! handler {
    ($(#[$doc:meta])* $name:ident, $cause:path, $sender:expr, |$partial:ident, $irq_off:ident| $body:block) => {
        $(#[$doc])*
        extern "C" fn $name(vector: u32, $partial: *const u64) {
            #[inline(always)]
            fn run($partial: *const u64, $irq_off: &IrqOff) $body
            count::<{ $cause.code() as usize * 8 }>();
            // SAFETY: interrupt gates turn interrupts off, and nothing on this path turns them on.
            let irq_off = unsafe { IrqOff::assume() };
            if static_branch!(INTERRUPTS) {
                core::hint::cold_path();
                traced(vector, $cause, $partial, $sender, run, &irq_off);
            } else {
                run($partial, &irq_off);
            }
        }
    };
}

/// A handler between its records: what brought the CPU here, the interrupt, the IPI with its sender, and, on an isolated CPU,
/// the interruption as a whole.
#[cold]
#[inline(never)]
fn traced(
    vector: u32,
    cause: Cause,
    partial: *const u64,
    sender: fn(&IrqOff) -> Option<Sender>,
    run: fn(*const u64, &IrqOff),
    irq_off: &IrqOff,
) {
    let start_tsc = tsc::now();
    let me = percpu::this(irq_off);
    let vector = vector as u8;
    // SAFETY: the interrupt path's frame reaches from rbx to ss; cs is in it.
    let flags = from_where(unsafe { *partial.byte_add(offset_of!(Frame, cs) - IRQ_START) });
    if flags.contains(Flags::FROM_USER) {
        record(irq_off, flags, Data::UserExit { by: By::Irq, word: user_word(me) });
    } else if me.trace.idle.load(Ordering::Relaxed) {
        me.trace.idle.store(false, Ordering::Relaxed);
        record(irq_off, flags, Data::IdleExit { word: me.head.context.0.load() });
    }
    record(irq_off, flags, Data::IrqEntry { vector, cause });
    let is_ipi = matches!(cause, Cause::Reschedule | Cause::CallFunction | Cause::TlbFlush);
    let sender = if static_branch!(SENDERS) { sender(irq_off) } else { None };
    if is_ipi {
        let (from, site) = (sender.map(|s| (s.cpu, s.task)), sender.map_or(0, |s| s.site as *const _ as u64));
        record(irq_off, flags, Data::IpiEntry { cause, sender: from, site });
    }
    run(partial, irq_off);
    if is_ipi {
        let duration_ticks = tsc::now().wrapping_sub(start_tsc);
        record(irq_off, flags, Data::IpiExit { cause, duration_ticks });
    }
    if static_branch!(INTERRUPTIONS) && me.head.isolated.load(Ordering::Relaxed) != 0 {
        log(me, cause, sender, start_tsc, irq_off);
    }
    record(irq_off, flags, Data::IrqExit { vector, cause });
}

/// As `entry::trace_crossing::word`.
fn user_word(me: &Percpu) -> u64 {
    if me.head.active.load(Ordering::Relaxed) == 0 { 0 } else { me.head.context.0.load() }
}

handler!(
    /// The APIC timer: timers and tick.
    timer, Cause::Timer, nobody, |partial, irq_off| {
        apic::eoi();
        // SAFETY: the interrupt path's frame reaches from rbx to ss; cs is in it.
        let cs = || unsafe { *partial.byte_add(offset_of!(Frame, cs) - IRQ_START) };
        crate::time::timer::interrupt(|| cs() & 3 == 3, irq_off);
    }
);
handler!(
    /// The sender set what is to be looked at; a tick dependency may be among it.
    reschedule, Cause::Reschedule, rescheduler, |_partial, irq_off| {
        apic::eoi();
        crate::time::tick::recheck(irq_off);
    }
);
handler!(
    /// Functions that other CPUs queued here.
    call_function, Cause::CallFunction, super::call_function::sender, |_partial, irq_off| {
        apic::eoi();
        super::call_function::interrupt(irq_off);
    }
);
handler!(
    /// The same queue, for user-address shootdowns, which have a name of their own.
    tlb_flush, Cause::TlbFlush, super::call_function::sender, |_partial, irq_off| {
        apic::eoi();
        super::call_function::interrupt(irq_off);
    }
);
handler!(
    /// Nothing was pending any more: no end of interrupt.
    spurious, Cause::Spurious, nobody, |_partial, _irq_off| {}
);
handler!(
    /// The APIC saw a bad message; it is counted.
    apic_error, Cause::ApicError, nobody, |_partial, _irq_off| { apic::eoi() }
);
handler!(
    /// Bytes on the serial console.
    serial_input, Cause::Serial, nobody, |_partial, _irq_off| {
        crate::tty::console::interrupt();
        apic::eoi();
    }
);
handler!(
    /// A vector that nobody asked for; it is counted.
    device, Cause::Device, nobody, |_partial, _irq_off| { apic::eoi() }
);

/// One interrupt more of the cause whose counter is `OFFSET` bytes into the head's counters.
#[inline(always)]
fn count<const OFFSET: usize>() {
    // SAFETY: one instruction on this CPU's own counter.
    unsafe { core::arch::asm!("inc qword ptr gs:[{}]", const offset::IRQS + OFFSET, options(nostack)) }
}

fn nobody(_: &IrqOff) -> Option<Sender> {
    None
}

fn rescheduler(irq_off: &IrqOff) -> Option<Sender> {
    percpu::this(irq_off).smp.senders.lock_held(irq_off).take()
}

/// The record of an interruption, into this isolated CPU's log.
fn log(me: &Percpu, cause: Cause, sender: Option<Sender>, start_tsc: u64, _: &IrqOff) {
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
        ipi: sender.map(|s| s.cause),
        site: sender.map_or(0, |s| s.site as *const _ as u64),
        total,
    };
    me.trace.interruptions.push(record.encode());
}

/// An exception on an isolated CPU that nobody there caused (#MC): into its log, if one is kept. In #MC, after user_exit or nmi_enter.
pub fn note_exception(vector: u8, start_tsc: u64, irq_off: &IrqOff) {
    let me = percpu::this(irq_off);
    if INTERRUPTIONS.is_on() && me.head.isolated.load(Ordering::Relaxed) != 0 {
        log(me, Cause::Exception { vector }, None, start_tsc, irq_off);
    }
}

/// An NMI: a panic's stop, or a question for this CPU's stack.
pub fn handle_nmi(frame: &Frame) {
    // SAFETY: NMI handlers run with interrupts off.
    let irq_off = unsafe { IrqOff::assume() };
    let me = percpu::this(&irq_off);
    me.head.nmis.store(me.head.nmis.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    if static_branch!(NMI) {
        core::hint::cold_path();
        let start_tsc = tsc::now();
        let flags = from_where(frame.cs).with(Flags::IN_NMI);
        record(&irq_off, flags, Data::NmiEntry { word: me.head.context.0.load() });
        answer_nmi(me, frame);
        if static_branch!(INTERRUPTIONS) && me.head.isolated.load(Ordering::Relaxed) != 0 {
            log(me, Cause::Nmi, None, start_tsc, &irq_off);
        }
        record(&irq_off, flags, Data::NmiExit { word: me.head.context.0.load() });
    } else {
        answer_nmi(me, frame);
    }
    if frame.cs & 3 == 3 && me.head.exit_work.load(Ordering::Relaxed) & crate::entry::exit_work::LEASE != 0 {
        crate::isolation::lease::note_nmi(&irq_off);
    }
}

/// What the NMI is about.
fn answer_nmi(me: &Percpu, frame: &Frame) {
    if crate::panic::stops(me.cpu()) {
        crate::panic::stop_here(frame);
    }
    crate::panic::if_wanted_in_nmi();
    super::stack_sample::answer(me, frame);
}

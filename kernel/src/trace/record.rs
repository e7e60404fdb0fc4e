//! Recording one event: the running CPU's mask, then its ring. Any context, NMIs too: no lock, nothing that another CPU writes.
//!
//! Sites are written as `trace_point!`; what it expands to runs only behind a key.

use super::EventRing;
use crate::arch::irq_flag::Pinned;
use crate::arch::{cpu_head, tsc};
use crate::percpu::Percpu;
use core::mem::offset_of;
use kcore::trace_event::{Data, EventMask, Flags, Record};

/// A trace point: `trace_point!(KEY, pin, flags, data)` records `data` on the running CPU if the key of `trace::key` is on
/// and the CPU's mask has the event. `pin` proves that the task stays on this CPU. Nothing of it is evaluated while the key is off, which
/// costs one NOP.
#[macro_export]
macro_rules! trace_point {
    ($key:ident, $pin:expr, $flags:expr, $data:expr) => {
        if $crate::static_branch!($crate::trace::key::$key) {
            core::hint::cold_path();
            $crate::trace::record::record($pin, $flags, $data);
        }
    };
}

/// The events that this CPU records.
#[inline(always)]
pub fn wanted() -> EventMask {
    EventMask(cpu_head::read_u32::<{ offset_of!(Percpu, trace.enabled) }>())
}

/// Record `data` if this CPU's mask has its event.
#[inline(always)]
pub fn record<P: Pinned>(pin: &P, flags: Flags, data: Data) {
    if wanted().contains(data.event()) {
        record_wanted(pin, flags, data);
    }
}

/// Record `data`, whose event is one of `wanted`.
#[inline(always)]
pub fn record_wanted<P: Pinned>(_: &P, flags: Flags, data: Data) {
    let ring = cpu_head::read_u64::<{ offset_of!(Percpu, trace.events) }>() as *const EventRing;
    // SAFETY: the mask was not empty, so the ring was stored before it (loads are not reordered on x86_64); it is freed a grace period after
    // the mask became empty (`rings`), and preemption is off here.
    let ring = unsafe { &*ring };
    ring.push(Record { tsc: tsc::now(), flags, task: crate::sched::current().index, data }.encode());
}

/// The flags of an interrupt or exception that came from where `cs` says.
#[inline(always)]
pub fn from_where(cs: u64) -> Flags {
    if cs & 3 == 3 { Flags::IRQS_OFF.with(Flags::FROM_USER) } else { Flags::IRQS_OFF }
}

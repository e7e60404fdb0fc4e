//! Recording one event: the running CPU's mask, then its ring. Any context, NMIs too: no lock, nothing that another CPU writes.
//!
//! Sites are written as `trace_point!`; what it expands to runs only behind a key.

use crate::arch::irq_flag::Pinned;
use crate::arch::tsc;
use crate::percpu;
use core::sync::atomic::Ordering;
use kcore::trace_event::{Data, Flags, Record};

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

/// Record `data` if this CPU's mask has its event.
#[inline(always)]
pub fn record<P: Pinned>(pin: &P, flags: Flags, data: Data) {
    let trace = &percpu::this(pin).trace;
    // Acquire: who sees the mask sees the ring that was stored before it. A plain load on x86_64.
    if trace.enabled.load(Ordering::Acquire) & data.event().mask().0 == 0 {
        return;
    }
    // SAFETY: the mask is not empty, so the ring was stored before it, for good.
    let ring = unsafe { &*trace.events.load(Ordering::Relaxed) };
    let task = crate::sched::current().tid();
    ring.push(Record { tsc: tsc::now(), flags, task, data }.encode());
}

/// The flags of an interrupt or exception that came from where `cs` says.
#[inline(always)]
pub fn from_where(cs: u64) -> Flags {
    if cs & 3 == 3 { Flags::IRQS_OFF.with(Flags::FROM_USER) } else { Flags::IRQS_OFF }
}

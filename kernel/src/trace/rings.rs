//! Who records what: `trace_event=` and set_event choose the events and give each CPU a ring; `tracing_on` and `tracing_cpumask`
//! change the CPUs' masks by plain stores, which each CPU sees by itself.

use super::{EventRing, key};
use crate::isolation::housekeeping;
use crate::percpu;
use crate::spin_lock::{SpinLock, rank};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use kcore::cmdline::BootParams;
use kcore::cpu_set::{CpuSet, MAX_CPUS, SharedCpuSet};
use kcore::trace_event::{Event, EventMask, Group};

static SELECTED: AtomicU32 = AtomicU32::new(0);
static ON: AtomicBool = AtomicBool::new(true);
/// CPUs whose events are not wanted.
static LEFT_OUT: SharedCpuSet = SharedCpuSet::new();

/// Held while the choice of events is changed.
static CHOOSING: SpinLock<(), { rank::FILE }> = SpinLock::new(());

/// The events that are chosen.
pub fn selected() -> EventMask {
    EventMask(SELECTED.load(Ordering::Relaxed))
}

/// Take over `trace_event=`, and say what in it names nothing; switch the keys. Boot CPU, interrupts off, once.
///
/// # Safety
/// No other CPU runs kernel text.
pub unsafe fn init(params: &BootParams<'_>) {
    let mut events = EventMask::NONE;
    for &word in &params.trace_events {
        match EventMask::named(word) {
            Some(named) => events = events.union(named),
            None => crate::warning!("trace_event={word}: no such event or group, ignored"),
        }
    }
    SELECTED.store(events.0, Ordering::Relaxed);
    // Also where no CPU is isolated: one may be later, and these keys are switched at boot or never.
    let interruptions = events.has_group(Group::Irq) || events.has_group(Group::Ipi);
    if events.is_empty() {
        return;
    }
    // SAFETY: the caller's condition.
    let sites =
        unsafe { key::enable(events, interruptions) }.unwrap_or_else(|e| panic!("the jump table is broken: {e}"));
    crate::info!("tracing {} events, {sites} sites patched", events.iter().count());
}

/// Why a choice of events cannot be made.
pub enum Refused {
    /// These have sites in entry text, which is patched at boot alone: `trace_event=` is the way.
    BootOnly,
    /// The jump table is broken.
    Patch(kcore::static_key::PatchError),
}

/// Add or take away events while all CPUs run. No CPU is interrupted that is in user mode or idle. Process context.
pub fn choose(change: impl FnOnce(EventMask) -> EventMask) -> Result<(), Refused> {
    let guard = CHOOSING.lock();
    let before = selected();
    let events = change(before);
    if !key::out_of_reach(events).is_empty() {
        return Err(Refused::BootOnly);
    }
    // Who records loses its mask before its key, and gets its key before its mask.
    SELECTED.store(events.0 & before.0, Ordering::Relaxed);
    apply();
    if let Err(error) = key::switch(events) {
        // Back, as far as the table lets it: nothing was chosen.
        let _ = key::switch(before);
        SELECTED.store(before.0, Ordering::Relaxed);
        apply();
        return Err(Refused::Patch(error));
    }
    SELECTED.store(events.0, Ordering::Relaxed);
    if !key::SENDERS.is_on() {
        (0..percpu::nr_cpus()).filter_map(percpu::get).for_each(|area| area.smp.senders.lock_irq().clear());
    }
    attach();
    drop(guard);
    if !events.is_empty() {
        super::stream::ensure_started();
    }
    Ok(())
}

/// Give every CPU that came up its ring, and let it record. Boot CPU while the others wait, or the one that chooses.
pub fn attach() {
    if selected().is_empty() {
        return;
    }
    for area in (0..percpu::nr_cpus()).filter_map(percpu::get) {
        if !area.trace.events.load(Ordering::Relaxed).is_null() {
            continue;
        }
        let layout = core::alloc::Layout::new::<EventRing>();
        // SAFETY: the layout is not empty.
        let ring = unsafe { alloc::alloc::alloc_zeroed(layout) } as *mut EventRing;
        if ring.is_null() {
            crate::warning!("cpu {}: out of memory for its trace ring: it records nothing", area.cpu());
            continue;
        }
        area.trace.events.store(ring, Ordering::Release);
    }
    apply();
}

/// Store each CPU's mask.
fn apply() {
    let events = if is_on() { SELECTED.load(Ordering::Relaxed) } else { 0 };
    for area in (0..percpu::nr_cpus()).filter_map(percpu::get) {
        let wanted = !LEFT_OUT.contains(area.cpu());
        let ring = !area.trace.events.load(Ordering::Relaxed).is_null();
        area.trace.enabled.store(if wanted && ring { events } else { 0 }, Ordering::Release);
    }
}

/// Whether events are recorded.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Record, or stop recording.
pub fn set_on(on: bool) {
    let _guard = CHOOSING.lock();
    ON.store(on, Ordering::Relaxed);
    apply();
}

/// The CPUs that record.
pub fn cpus() -> CpuSet {
    let all = CpuSet::full(percpu::nr_cpus());
    all.difference(&LEFT_OUT.load())
}

/// Let these CPUs record and no others.
pub fn set_cpus(cpus: &CpuSet) {
    let _guard = CHOOSING.lock();
    LEFT_OUT.store(&CpuSet::full(MAX_CPUS as u32).difference(cpus));
    apply();
}

/// The ring of CPU `cpu`, if it has one.
pub fn of(cpu: u32) -> Option<&'static EventRing> {
    // SAFETY: null, or a ring that is never freed.
    unsafe { percpu::get(cpu)?.trace.events.load(Ordering::Acquire).as_ref() }
}

/// Whether an IPI to this CPU shall bring its sender's name: for its log, or for its ipi_entry.
pub fn wants_sender(target: &percpu::Percpu) -> bool {
    let logged = target.head.isolated.load(Ordering::Relaxed) != 0 && key::INTERRUPTIONS.is_on();
    logged || selected().contains(Event::IpiEntry)
}

/// Whether interruptions of isolated CPUs are logged; if not, why.
pub fn interruptions_off() -> Option<&'static str> {
    if housekeeping::isolated().is_empty() {
        Some("no CPU is isolated")
    } else if !key::INTERRUPTIONS.is_on() {
        Some("trace_event= names neither irq nor ipi")
    } else {
        None
    }
}

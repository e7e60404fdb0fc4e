//! Who records what: `trace_event=` and set_event choose the events and give each CPU a ring; `tracing_on` and `tracing_cpumask`
//! change the CPUs' masks by plain stores, which each CPU sees by itself.

use super::{EventRing, key};
use crate::isolation::housekeeping;
use crate::percpu;
use crate::rcu;
use crate::spin_lock::{PreemptOff, SpinLock, rank};
use crate::time::timer;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use kcore::cmdline::{BootParams, DEFAULT_TRACE_BUF_KIB, MAX_TRACE_BUF_KIB};
use kcore::cpu_set::{CpuSet, MAX_CPUS, SharedCpuSet};
use kcore::trace_event::{Event, EventMask, Group};

/// So many slots of 64 bytes fit into a KiB.
const SLOTS_IN_KIB: usize = 1024 / 64;
/// The largest ring, in KiB.
pub const MOST_KIB: usize = MAX_TRACE_BUF_KIB as usize;

static SELECTED: AtomicU32 = AtomicU32::new(0);
static ON: AtomicBool = AtomicBool::new(true);
/// CPUs whose events are not wanted.
static LEFT_OUT: SharedCpuSet = SharedCpuSet::new();

/// Held while the choice of events is changed.
static CHOOSING: SpinLock<(), { rank::FILE }> = SpinLock::new(());
/// Nobody records: the rings are being changed.
static PAUSED: AtomicBool = AtomicBool::new(false);
/// Slots of each ring.
static SLOTS: AtomicUsize = AtomicUsize::new(DEFAULT_TRACE_BUF_KIB as usize * SLOTS_IN_KIB);
/// Somebody has the `Turn`.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Held by the one who changes what is recorded, where or how much: who waits for grace periods on the way.
struct Turn;

impl Turn {
    fn take() -> Turn {
        while TAKEN.swap(true, Ordering::Acquire) {
            timer::sleep_ns(1_000_000, false);
        }
        Turn
    }

    /// From here on nobody records. No CPU is told: each sees its mask, and a grace period ends the records in the making.
    fn pause(&self) {
        PAUSED.store(true, Ordering::Relaxed);
        let guard = CHOOSING.lock();
        apply();
        drop(guard);
        rcu::synchronize();
    }

    /// Marks in the rings of the CPUs that `chosen` picks that something may be missing here: else a reader could take the records on both sides for
    /// neighbours. They record nothing now, and a grace period has passed since they last did.
    fn mark_gap(&self, chosen: impl Fn(u32) -> bool) {
        for cpu in (0..percpu::nr_cpus()).filter(|&cpu| chosen(cpu)) {
            of(cpu).filter(|ring| ring.pushed() > 0).inspect(|ring| ring.gap());
        }
    }

    /// The end of `pause`.
    fn go_on(&self) {
        let guard = CHOOSING.lock();
        PAUSED.store(false, Ordering::Relaxed);
        apply();
        drop(guard);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

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
    SLOTS.store(slots_of(params.trace_buf_kib as usize), Ordering::Relaxed);
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
    let turn = Turn::take();
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
    if !key::SENDERS.is_on() {
        (0..percpu::nr_cpus()).filter_map(percpu::get).for_each(|area| area.smp.senders.lock_irq().clear());
    }
    drop(guard);
    // What belongs together must not be taken for neighbours when part of it was not recorded meanwhile.
    let paired =
        [Group::Irq, Group::Context, Group::Ipi].map(|group| group.events().0).iter().fold(0, |all, of| all | of);
    let resumed = events.0 & !before.0 & paired != 0;
    if resumed {
        turn.pause();
        turn.mark_gap(|_| true);
    }
    SELECTED.store(events.0, Ordering::Relaxed);
    attach();
    if resumed {
        turn.go_on();
    }
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
    let guard = CHOOSING.lock();
    for area in (0..percpu::nr_cpus()).filter_map(percpu::get) {
        if !area.trace.events.load(Ordering::Relaxed).is_null() {
            continue;
        }
        let Some(ring) = EventRing::with_slots(SLOTS.load(Ordering::Relaxed)) else {
            crate::warning!("cpu {}: out of memory for its trace ring: it records nothing", area.cpu());
            continue;
        };
        area.trace.events.store(Box::into_raw(Box::new(ring)), Ordering::Release);
    }
    apply();
    drop(guard);
}

fn slots_of(kib: usize) -> usize {
    (kib.clamp(1, MOST_KIB) * SLOTS_IN_KIB).next_power_of_two()
}

/// KiB of each CPU's ring.
pub fn size_kib() -> usize {
    SLOTS.load(Ordering::Relaxed) / SLOTS_IN_KIB
}

/// Rings of `kib` KiB or the next power of two, at most `MOST_KIB`. What they hold is kept as far as it fits; nobody records in the moment
/// of the change, which counts as one lost event. No CPU is interrupted. False without memory: then nothing has changed. Process
/// context.
pub fn resize(kib: usize) -> bool {
    let slots = slots_of(kib);
    let turn = Turn::take();
    if slots == SLOTS.load(Ordering::Relaxed) {
        return true;
    }
    let cpus: Vec<u32> = (0..percpu::nr_cpus()).filter(|&cpu| of(cpu).is_some()).collect();
    let mut rings = Vec::new();
    for _ in &cpus {
        let Some(ring) = EventRing::with_slots(slots) else { return false };
        rings.push(Box::new(ring));
    }
    turn.pause();
    SLOTS.store(slots, Ordering::Relaxed);
    let mut old = Vec::new();
    for (&cpu, mut ring) in cpus.iter().zip(rings) {
        if let Some(before) = of(cpu) {
            ring.succeed(&before);
            if ring.pushed() > 0 {
                ring.gap();
            }
            old.push(percpu::of(cpu).trace.events.swap(Box::into_raw(ring), Ordering::AcqRel));
        }
    }
    turn.go_on();
    // Those who read the old ones have no more of them then.
    rcu::synchronize();
    for ring in old {
        // SAFETY: (1) it came from `Box::into_raw`, (2) nobody has found it since the grace period before, as it was replaced, and no CPU
        // has recorded into it since the one before that, (3) the turn is ours, so nobody else has taken it.
        drop(unsafe { Box::from_raw(ring) });
    }
    true
}

/// Store each CPU's mask.
fn apply() {
    let recorded = is_on() && !PAUSED.load(Ordering::Relaxed);
    let events = if recorded { SELECTED.load(Ordering::Relaxed) } else { 0 };
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

/// Record, or stop recording. Process context.
pub fn set_on(on: bool) {
    let turn = Turn::take();
    if on && !is_on() {
        rcu::synchronize();
        turn.mark_gap(|_| true);
    }
    let _guard = CHOOSING.lock();
    ON.store(on, Ordering::Relaxed);
    apply();
}

/// The CPUs that record.
pub fn cpus() -> CpuSet {
    let all = CpuSet::full(percpu::nr_cpus());
    all.difference(&LEFT_OUT.load())
}

/// Let these CPUs record and no others. Process context.
pub fn set_cpus(cpus: &CpuSet) {
    let turn = Turn::take();
    let before = self::cpus();
    if cpus.iter().any(|cpu| !before.contains(cpu)) {
        rcu::synchronize();
        turn.mark_gap(|cpu| cpus.contains(cpu) && !before.contains(cpu));
    }
    let _guard = CHOOSING.lock();
    LEFT_OUT.store(&CpuSet::full(MAX_CPUS as u32).difference(cpus));
    apply();
}

/// A ring that somebody looks at. It is not freed meanwhile, since preemption is off.
pub struct RingRef {
    ring: &'static EventRing,
    _reader: PreemptOff,
}

impl core::ops::Deref for RingRef {
    type Target = EventRing;
    fn deref(&self) -> &EventRing {
        self.ring
    }
}

/// The ring of CPU `cpu`, if it has one. Any context but NMI.
pub fn of(cpu: u32) -> Option<RingRef> {
    let reader = rcu::read();
    // SAFETY: null, or a ring that is freed a grace period after it was replaced, and the reader holds grace periods up.
    let ring = unsafe { percpu::get(cpu)?.trace.events.load(Ordering::Acquire).as_ref() }?;
    Some(RingRef { ring, _reader: reader })
}

/// The ring of CPU `cpu`, for the epitaph. Any context, with all other CPUs stopped for good: nobody frees a ring any more.
pub fn of_stopped(cpu: u32) -> Option<&'static EventRing> {
    // SAFETY: null, or a ring that is freed a grace period after it was replaced; none ends any more.
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

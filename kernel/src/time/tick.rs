//! The tick: a client of the timer queue that runs only while something depends on it.
//!
//! It stops when the four dependency masks (global, CPU, task, process) are zero. Setting a dependency kicks the CPU, clearing is
//! lazy: the tick itself notices. A CPU that switches tasks stops it at once, unless it did so a moment ago. Idle never ticks. There is no residual 1 Hz tick. `kcore::tick` has the rule; every
//! change is kept with who and where.

use crate::arch::irq_flag::IrqOff;
use crate::arch::{apic, tsc};
use crate::percpu::{self, Percpu};
use crate::sched::task::Task;
use crate::trace::key::TICK;
use crate::{static_branch, trace_point};
use core::panic::Location;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use kcore::tick::{Change, Decision, Held, HeldTable, Scope, TickDep, TickLog, TickMask, decide, lingers};
use kcore::timer_queue::NEVER;
use kcore::trace_event::{Data, Flags};

/// Where a dependency was set.
pub type Site = Option<&'static Location<'static>>;

/// What `why` shows.
pub struct History {
    /// Who holds the tick.
    pub held: HeldTable<Site>,
    /// The last changes.
    pub log: TickLog<Site>,
    /// Since when it is on or off, ns since boot.
    pub since_ns: u64,
}

impl History {
    /// Nothing happened yet.
    pub const fn new() -> Self {
        Self { held: HeldTable::new(), log: TickLog::new(), since_ns: 0 }
    }
}

/// Dependencies of all CPUs.
pub static GLOBAL: TickMask = TickMask::new();
static HZ: AtomicU32 = AtomicU32::new(250);
static PERIOD_TICKS: AtomicU64 = AtomicU64::new(4_000_000);

/// Set once at boot, after calibration.
pub fn set_hz(hz: u32) {
    HZ.store(hz, Ordering::Relaxed);
    let period = tsc::khz() * 1000 / hz as u64;
    PERIOD_TICKS.store(period, Ordering::Relaxed);
    apic::set_timer_period(period);
}

/// Ticks a second while the tick is on.
pub fn hz() -> u32 {
    HZ.load(Ordering::Relaxed)
}

#[inline]
fn is_idle(task: &Task) -> bool {
    task.index >= crate::sched::task::FIRST_IDLE
}

#[inline]
fn decision(me: &Percpu, task: &Task) -> Decision {
    if is_idle(task) {
        return Decision::Stop;
    }
    let global = if cfg!(mutant = "tick_never_stops") { TickDep::ClockUnstable.bit() } else { GLOBAL.load() };
    decide(global, me.time.deps.load(), task.tick_deps.load(), 0)
}

fn holder(task: Option<&Task>, site: Site) -> Held<Site> {
    Held { since_ns: tsc::now_ns(), site, task: task.map_or(0, |t| t.index), comm: task.map_or([0; 16], |t| t.comm()) }
}

/// Whether setting a dependency of one CPU would change nothing: it is set, or the CPU does housekeeping, and so ticks anyway. There the
/// scheduler's dependency is not noted; should the CPU become another one, its next look at its queue sets it.
#[inline]
pub fn dep_is_covered(area: &Percpu, dep: TickDep) -> bool {
    let covering = if dep == TickDep::Sched { dep.bit() | TickDep::Housekeeping.bit() } else { dep.bit() };
    area.time.deps.load() & covering != 0
}

/// Set a dependency of one CPU. True if the CPU has to be kicked: the bit is new.
#[inline]
pub fn dep_set_cpu(area: &Percpu, dep: TickDep, task: &Task, site: &'static Location<'static>) -> bool {
    !dep_is_covered(area, dep) && set_new(area, dep, task, site)
}

#[cold]
fn set_new(area: &Percpu, dep: TickDep, task: &Task, site: &'static Location<'static>) -> bool {
    area.time.history.lock_irq().held.set(dep, holder(Some(task), Some(site)));
    area.time.deps.set(dep)
}

/// Clear a dependency of one CPU. Lazy: its next look notices. True if it was set.
#[inline]
pub fn dep_clear_cpu(area: &Percpu, dep: TickDep) -> bool {
    area.time.deps.load() & dep.bit() != 0 && clear_set(area, dep)
}

#[cold]
fn clear_set(area: &Percpu, dep: TickDep) -> bool {
    let was_set = area.time.deps.clear(dep);
    area.time.history.lock_irq().held.clear(dep);
    was_set
}

/// The scheduler's dependency follows the run queue, whose lock the caller holds. `task` runs.
#[track_caller]
#[inline]
pub fn sched_dependency(me: &Percpu, needs_tick: bool, task: &Task) {
    if needs_tick {
        dep_set_cpu(me, TickDep::Sched, task, Location::caller());
    } else {
        dep_clear_cpu(me, TickDep::Sched);
    }
}

/// The same at a switch to `task` at `now_tsc`: a CPU whose tasks wake each other keeps the dependency until its tick looks (`lingers`).
#[track_caller]
#[inline]
pub fn sched_dependency_at_switch(me: &Percpu, needs_tick: bool, task: &Task, now_tsc: u64) {
    if needs_tick {
        dep_set_cpu(me, TickDep::Sched, task, Location::caller());
        return;
    }
    if me.time.deps.load() & TickDep::Sched.bit() == 0 {
        return;
    }
    if is_idle(task) || !lingers(now_tsc, me.time.lingers_until_tsc.load(Ordering::Relaxed)) {
        clear_set(me, TickDep::Sched);
    }
}

/// A CPU that does housekeeping ticks whenever it is not idle. At boot, or on that CPU, which then looks again (`recheck`).
#[track_caller]
pub fn hold_for_housekeeping(area: &Percpu) {
    area.time.history.lock_irq().held.set(TickDep::Housekeeping, holder(None, Some(Location::caller())));
    area.time.deps.set(TickDep::Housekeeping);
}

/// The tick follows the dependencies of `task`, which runs from `now_tsc` on. A CPU that is in the kernel anyway stops at once.
#[inline(always)]
pub fn follow(me: &Percpu, task: &Task, now_tsc: u64, irq_off: &IrqOff) {
    let on = me.time.tick_is_on();
    match decision(me, task) {
        Decision::Stop if on => stop(me, irq_off),
        Decision::Keep { .. } if !on => start(me, task, now_tsc, irq_off),
        _ => {}
    }
}

/// Look at the dependencies again: after a kick, or when a cleared one was posted.
pub fn recheck(irq_off: &IrqOff) {
    follow(percpu::this(irq_off), crate::sched::current(), tsc::now(), irq_off);
}

/// Whether `why` is told of each start and stop: the CPU is isolated, and its tick is not that of housekeeping.
fn keeps_history(me: &Percpu) -> bool {
    me.head.isolated.load(Ordering::Relaxed) != 0 && crate::isolation::housekeeping::is_nohz_full(me.cpu())
}

/// The running CPU has become isolated: `why` is told if its tick is on still.
pub fn begin_history(irq_off: &IrqOff) {
    let me = percpu::this(irq_off);
    if me.time.tick_is_on() {
        note(me, true, reason(me, crate::sched::current()));
    }
}

fn reason(me: &Percpu, task: &Task) -> Option<(TickDep, Scope)> {
    match decision(me, task) {
        Decision::Keep { dep, scope } => Some((dep, scope)),
        Decision::Stop => None,
    }
}

fn note(me: &Percpu, on: bool, dep: Option<(TickDep, Scope)>) {
    let mut history = me.time.history.lock_irq();
    let held = dep.and_then(|(d, _)| history.held.holder(d));
    let now_ns = tsc::now_ns();
    history.since_ns = now_ns;
    let site = held.map(|h| h.site).unwrap_or(None);
    let (task, comm) = held.map_or((0, [0; 16]), |h| (h.task, h.comm));
    history.log.push(Change {
        at_ns: now_ns,
        on,
        dep: dep.map(|d| d.0),
        scope: dep.map_or(Scope::Cpu, |d| d.1),
        site,
        task,
        comm,
    });
}

/// A CPU that is not isolated does this whenever it leaves idle: then nothing is noted.
#[inline(always)]
fn start(me: &Percpu, task: &Task, now_tsc: u64, irq_off: &IrqOff) {
    let deadline = now_tsc + PERIOD_TICKS.load(Ordering::Relaxed);
    me.time.tick_deadline.store(deadline, Ordering::Relaxed);
    if static_branch!(TICK) || me.head.isolated.load(Ordering::Relaxed) != 0 {
        note_start(me, task, irq_off);
    }
    super::timer::program_started_tick(me, deadline, irq_off);
}

#[cold]
#[inline(never)]
fn note_start(me: &Percpu, task: &Task, irq_off: &IrqOff) {
    let why = reason(me, task);
    if keeps_history(me) {
        note(me, true, why);
    }
    trace_point!(TICK, irq_off, Flags::IRQS_OFF, restarted(me, why));
}

fn stop(me: &Percpu, irq_off: &IrqOff) {
    let deadline = me.time.tick_deadline.load(Ordering::Relaxed);
    me.time.tick_deadline.store(NEVER, Ordering::Relaxed);
    me.time.lingers_until_tsc.store(tsc::now() + PERIOD_TICKS.load(Ordering::Relaxed), Ordering::Relaxed);
    if keeps_history(me) {
        note(me, false, None);
    }
    trace_point!(TICK, irq_off, Flags::IRQS_OFF, Data::TickStop { prevented_by: None });
    // Else it is armed for a timer, or, on a CPU from which timers go away, perhaps for one that is gone.
    if me.time.armed.load(Ordering::Relaxed) == deadline || keeps_history(me) {
        super::timer::program(me, irq_off);
    }
}

/// What the trace says of a start: the dependency, and who set it where.
fn restarted(me: &Percpu, dep: Option<(TickDep, Scope)>) -> Data {
    let history = me.time.history.lock_irq();
    let held = dep.and_then(|(d, _)| history.held.holder(d));
    let site = held.and_then(|h| h.site).map_or(0, |site| site as *const _ as u64);
    Data::TickRestart { dep, site, set_by_task: held.map_or(0, |h| h.task) }
}

/// The CPU is about to idle: no tick there.
pub fn idle_enter(me: &Percpu, irq_off: &IrqOff) {
    if me.time.tick_is_on() {
        stop(me, irq_off);
    }
}

/// The tick itself.
pub fn tick(me: &Percpu, now: u64, from_user: bool, irq_off: &IrqOff) {
    me.time.ticks.store(me.time.ticks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    if from_user {
        me.rcu.note_quiescent();
    }
    crate::sched::tick(irq_off);
    match decision(me, crate::sched::current()) {
        Decision::Stop => return stop(me, irq_off),
        Decision::Keep { dep, scope } => {
            trace_point!(TICK, irq_off, Flags::IRQS_OFF, Data::TickStop { prevented_by: Some((dep, scope)) });
        }
    }
    let period = PERIOD_TICKS.load(Ordering::Relaxed);
    let mut next = me.time.tick_deadline.load(Ordering::Relaxed) + period;
    if next <= now {
        next = now + period;
    }
    me.time.tick_deadline.store(next, Ordering::Relaxed);
}

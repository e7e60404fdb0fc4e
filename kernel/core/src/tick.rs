//! The tick: who needs it on a CPU, since when and from where.
//!
//! Called by whoever has a reason for a tick, by the CPU that considers stopping its own, and by the file
//! that shows why it is on. Four masks of [`TickDep`] bits count: global, the CPU's, the task's and the process's.
//! The tick stops when their OR is zero. Invariants: setting the first bit of a mask kicks the CPUs that it
//! is about; clearing is lazy, so a tick may run once too often, never once too little.
//! `S` is the site that set a dependency: `&'static Location` in the kernel.

use crate::atomics::{AtomicU32, Ordering, const_unless_loom};

/// A reason for a tick; the value is its bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum TickDep {
    /// The CPU does housekeeping: it is not in nohz_full.
    Housekeeping = 1 << 0,
    /// More than one task of the running class.
    Sched = 1 << 1,
    /// CPU timers of a task or process.
    PosixTimer = 1 << 2,
    /// Event multiplexing.
    PerfEvents = 1 << 3,
    /// RCU needs a quiescent state.
    Rcu = 1 << 4,
    /// The TSC is not trusted (yet).
    ClockUnstable = 1 << 5,
    /// An expedited RCU grace period waits.
    RcuExp = 1 << 6,
}

/// Number of dependencies.
pub const NR_DEPS: usize = 7;

impl TickDep {
    /// All, in the order of their bits.
    pub const ALL: [TickDep; NR_DEPS] = [
        TickDep::Housekeeping,
        TickDep::Sched,
        TickDep::PosixTimer,
        TickDep::PerfEvents,
        TickDep::Rcu,
        TickDep::ClockUnstable,
        TickDep::RcuExp,
    ];

    /// Its bit.
    #[inline]
    pub const fn bit(self) -> u32 {
        self as u32
    }

    /// Its place in [`TickDep::ALL`].
    #[inline]
    pub const fn index(self) -> usize {
        (self as u32).trailing_zeros() as usize
    }

    /// The lowest one in a mask.
    #[inline]
    pub const fn first(mask: u32) -> Option<TickDep> {
        let i = mask.trailing_zeros() as usize;
        if i < NR_DEPS { Some(Self::ALL[i]) } else { None }
    }

    /// Name as shown in files.
    pub const fn name(self) -> &'static str {
        match self {
            TickDep::Housekeeping => "housekeeping",
            TickDep::Sched => "sched",
            TickDep::PosixTimer => "posix_timer",
            TickDep::PerfEvents => "perf_events",
            TickDep::Rcu => "rcu",
            TickDep::ClockUnstable => "clock_unstable",
            TickDep::RcuExp => "rcu_exp",
        }
    }
}

/// Whose mask a dependency is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Scope {
    /// All CPUs.
    Global = 0,
    /// One CPU.
    Cpu = 1,
    /// The CPU that runs one task.
    Task = 2,
    /// The CPUs that run a task of one process.
    Process = 3,
}

impl Scope {
    /// All, in the order in which [`decide`] looks.
    pub const ALL: [Scope; 4] = [Scope::Global, Scope::Cpu, Scope::Task, Scope::Process];

    /// Name as shown in files.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Global => "global",
            Scope::Cpu => "cpu",
            Scope::Task => "task",
            Scope::Process => "process",
        }
    }
}

/// Stop the tick, or the first reason to keep it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// No mask has a bit.
    Stop,
    /// Keep it.
    Keep {
        /// The first dependency.
        dep: TickDep,
        /// Whose.
        scope: Scope,
    },
}

/// Whether the tick may stop.
#[inline]
pub fn decide(global: u32, cpu: u32, task: u32, process: u32) -> Decision {
    if cfg!(mutant = "tick_forgets_rcu_exp") && (global | cpu | task | process) & !TickDep::RcuExp.bit() == 0 {
        return Decision::Stop;
    }
    if global | cpu | task | process == 0 {
        return Decision::Stop;
    }
    match held(global, cpu, task, process).next() {
        Some((dep, scope)) => Decision::Keep { dep, scope },
        // A bit without a name: fail closed and keep the tick.
        None => Decision::Keep { dep: TickDep::Housekeeping, scope: Scope::Global },
    }
}

/// Whether a CPU whose queue has no need of its tick any more lets it go on until it fires, and looks then. One whose tick was stopped
/// less than a period ago runs tasks that wake each other: a start and a stop at each switch would disturb them more than the one tick
/// that may come too many. `until_tsc`: a period after the stop. Another CPU's clock may be ahead.
#[inline]
pub const fn lingers(now_tsc: u64, until_tsc: u64) -> bool {
    now_tsc < until_tsc
}

/// All reasons to keep the tick: by scope, then by dependency.
#[inline]
pub fn held(global: u32, cpu: u32, task: u32, process: u32) -> impl Iterator<Item = (TickDep, Scope)> {
    let masks = [global, cpu, task, process];
    Scope::ALL.into_iter().zip(masks).flat_map(|(scope, mask)| {
        TickDep::ALL.into_iter().filter(move |dep| mask & dep.bit() != 0).map(move |dep| (dep, scope))
    })
}

/// The mask with `dep` set, and whether the CPUs it is about must be kicked: they may have stopped their tick
/// only if the mask was empty.
#[inline]
pub const fn set(old: u32, dep: TickDep) -> (u32, bool) {
    (old | dep.bit(), kick_on_set(old))
}

#[inline]
const fn kick_on_set(old: u32) -> bool {
    if cfg!(mutant = "tick_kick_inverted") { old != 0 } else { old == 0 }
}

/// The mask with `dep` cleared. Nobody is told: the CPU looks again by itself.
#[inline]
pub const fn clear(old: u32, dep: TickDep) -> u32 {
    old & !dep.bit()
}

/// One of the four masks, shared between CPUs.
#[derive(Debug)]
pub struct TickMask(AtomicU32);

impl TickMask {
    const_unless_loom! {
        /// No dependency.
        pub fn new() -> Self {
            TickMask(AtomicU32::new(0))
        }
    }

    /// The mask now.
    #[inline]
    pub fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Sets `dep`; true: kick the CPUs that this mask is about.
    #[inline]
    pub fn set(&self, dep: TickDep) -> bool {
        if cfg!(mutant = "tick_mask_by_store") {
            let old = self.load();
            self.0.store(old | dep.bit(), Ordering::Release);
            return set(old, dep).1;
        }
        set(self.0.fetch_or(dep.bit(), Ordering::AcqRel), dep).1
    }

    /// Clears `dep`; true: it was set.
    #[inline]
    pub fn clear(&self, dep: TickDep) -> bool {
        self.0.fetch_and(!dep.bit(), Ordering::AcqRel) & dep.bit() != 0
    }
}

impl Default for TickMask {
    fn default() -> Self {
        Self::new()
    }
}

/// Who set a dependency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held<S> {
    /// When it was set first, ns since boot.
    pub since_ns: u64,
    /// From where.
    pub site: S,
    /// Task that did it.
    pub task: u32,
    /// Its name, zero-padded.
    pub comm: [u8; 16],
}

/// The holders of one mask's dependencies, by dependency.
#[derive(Clone, Debug)]
pub struct HeldTable<S: Copy> {
    held: [Option<Held<S>>; NR_DEPS],
}

impl<S: Copy> HeldTable<S> {
    /// Nothing held.
    pub const fn new() -> Self {
        HeldTable { held: [None; NR_DEPS] }
    }

    /// Records the holder. Of one that is held already the first record stays.
    pub fn set(&mut self, dep: TickDep, held: Held<S>) {
        self.held[dep.index()].get_or_insert(held);
    }

    /// Forgets the holder and returns its record.
    pub fn clear(&mut self, dep: TickDep) -> Option<Held<S>> {
        self.held[dep.index()].take()
    }

    /// The record of `dep`.
    pub fn holder(&self, dep: TickDep) -> Option<Held<S>> {
        self.held[dep.index()]
    }

    /// The mask of what is held.
    pub fn mask(&self) -> u32 {
        self.iter().fold(0, |mask, (dep, _)| mask | dep.bit())
    }

    /// All that is held.
    pub fn iter(&self) -> impl Iterator<Item = (TickDep, &Held<S>)> {
        TickDep::ALL.into_iter().zip(&self.held).filter_map(|(dep, held)| held.as_ref().map(|held| (dep, held)))
    }
}

impl<S: Copy> Default for HeldTable<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// One start or stop of a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<S> {
    /// When, ns since boot.
    pub at_ns: u64,
    /// On or off from then.
    pub on: bool,
    /// The dependency that decided; none at a stop.
    pub dep: Option<TickDep>,
    /// Its scope.
    pub scope: Scope,
    /// Who set it.
    pub site: S,
    /// Task that set it.
    pub task: u32,
    /// Its name, zero-padded.
    pub comm: [u8; 16],
}

/// Number of changes that a [`TickLog`] keeps.
pub const LOG_LEN: usize = 16;

/// The last changes of one CPU's tick. The owner serialises access.
#[derive(Clone, Debug)]
pub struct TickLog<S: Copy> {
    changes: [Option<Change<S>>; LOG_LEN],
    total: u64,
}

impl<S: Copy> TickLog<S> {
    /// No change yet.
    pub const fn new() -> Self {
        TickLog { changes: [None; LOG_LEN], total: 0 }
    }

    /// Records a change; beyond [`LOG_LEN`] it replaces the oldest, and only that.
    pub fn push(&mut self, change: Change<S>) {
        self.changes[(self.total % LOG_LEN as u64) as usize] = Some(change);
        self.total += 1;
    }

    /// Changes since boot, those no longer kept included.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The kept changes, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Change<S>> {
        let first = (self.total % LOG_LEN as u64) as usize;
        let (newer, older) = self.changes.split_at(first);
        older.iter().chain(newer).flatten()
    }

    /// The newest change.
    pub fn last(&self) -> Option<&Change<S>> {
        self.iter().last()
    }
}

impl<S: Copy> Default for TickLog<S> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn stops_only_without_any_dependency() {
        assert_eq!(decide(0, 0, 0, 0), Decision::Stop);
        let sched = Decision::Keep { dep: TickDep::Sched, scope: Scope::Cpu };
        assert_eq!(decide(0, TickDep::Sched.bit(), TickDep::PosixTimer.bit(), 0), sched);
        assert!(matches!(decide(0, 0, 0, 1 << 31), Decision::Keep { .. }), "an unknown bit keeps the tick");
    }

    #[test]
    fn the_first_departure_stops_the_tick_at_once_and_quick_ones_do_not() {
        const PERIOD: u64 = 4_000_000;
        assert!(!lingers(PERIOD, 0), "never stopped before");
        assert!(lingers(10 * PERIOD + 1000, 11 * PERIOD), "stopped and started again at once");
        assert!(!lingers(11 * PERIOD, 11 * PERIOD), "a period ago");
        assert!(lingers(10, 20 + PERIOD), "another CPU's clock may be ahead");
    }

    #[test]
    fn first_set_kicks_later_ones_do_not() {
        let mask = TickMask::new();
        assert!(mask.set(TickDep::Sched));
        assert!(!mask.set(TickDep::Sched) && !mask.set(TickDep::Rcu));
        assert!(mask.clear(TickDep::Sched) && !mask.clear(TickDep::Sched));
        assert_eq!(mask.load(), TickDep::Rcu.bit());
    }
}

//! RCU's decisions: when a grace period is over, whom to kick, and which callbacks may run.
//!
//! Called by the housekeeping CPU that drives grace periods (scan), and by every CPU for its own callbacks
//! under its own lock. Nothing here touches another CPU: snapshots come in as values, kicks go out as a set.
//! Invariants:
//! 1. A grace period that starts after an updater's stores ends only when every CPU that was online has been
//!    quiescent since ([`passed`]).
//! 2. A callback queued with [`GpSeq::snap`] runs only after a grace period that started after it was queued.
//! 3. Before snapshots are taken the driver executes [`snapshot_fence`]: updater store, full fence, snapshot
//!    load; against it the target's transition, a full fence, later loads.
//!
//! Numbers of grace periods and the cookies made of them are in `rcu/sequence.rs`.

mod sequence;

use crate::atomics::fence_full;
use crate::context_tracking::{is_watching, quiescent};
use crate::cpu_set::{CpuSet, MAX_CPUS};
pub use sequence::{
    COUNT_BITS, Cookie, GpCounter, GpSeq, cond_synchronize_rcu_waits, get_state_synchronize_rcu,
    poll_state_synchronize_rcu,
};

/// The full fence between an updater's stores and the loads of the snapshots.
#[inline]
pub fn snapshot_fence() {
    #[cfg(not(mutant = "rcu_snapshot_fence_dropped"))]
    fence_full();
}

/// What a grace period knows of a CPU at one time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuSnapshot {
    /// Its context word.
    pub word: u64,
    /// Its count of quiescent states: task switches, ticks that hit untracked user mode.
    pub qs: u32,
}

/// Whether a CPU has been quiescent at or since `snap`.
#[inline]
pub const fn passed(snap: CpuSnapshot, now: &CpuSnapshot) -> bool {
    if cfg!(mutant = "rcu_parity_inverted") {
        return is_watching(snap.word) || snap.qs != now.qs;
    }
    quiescent(snap.word, now.word) || !is_watching(now.word) || snap.qs != now.qs
}

/// A grace period kicks those that still hold it at every so many scans.
pub const KICK_EVERY: u32 = 3;

/// What a scan found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the grace period may be over, or CPUs need a kick"]
pub struct ScanResult {
    /// Everyone has passed.
    pub done: bool,
    /// How many have not.
    pub holdouts: u32,
    /// Send these a reschedule: they run kernel code (WATCH) and have not passed for [`KICK_EVERY`] scans.
    pub kick: CpuSet,
}

/// Bits of a node: measured (ARCHITECTURE.md, "Grace periods").
pub const FANOUT: usize = 64;
const NODES: usize = MAX_CPUS / 8 + MAX_CPUS / 64 + 1;

/// The state of one grace period: a tree whose leaves have a bit for each CPU that has not passed, and whose inner
/// nodes have a bit for each node below that is not empty. So a scan comes only to CPUs that are still waited for.
///
/// ```text
/// top                          [ 1 0 ]                one node
/// middle             [ 1 0 0 1 ]     [ 0 0 0 0 ]      a bit for each leaf
/// leaves       [ 0 0 1 1 ] ...                        a bit for each CPU
/// ```
#[derive(Debug)]
pub struct GracePeriod<const N: usize = FANOUT> {
    /// Leaves, then the middle, then the top.
    nodes: [u64; NODES],
    snapshots: [CpuSnapshot; MAX_CPUS],
    scans: u32,
}

impl<const N: usize> GracePeriod<N> {
    const LEAVES: usize = MAX_CPUS / N;
    const MIDDLE: usize = Self::LEAVES.div_ceil(N);
    const TOP: usize = {
        assert!(N.is_power_of_two() && N >= 8 && N <= 64 && Self::MIDDLE <= N);
        Self::LEAVES + Self::MIDDLE
    };

    /// One that is over.
    pub const fn new() -> Self {
        GracePeriod { nodes: [0; NODES], snapshots: [CpuSnapshot { word: 0, qs: 0 }; MAX_CPUS], scans: 0 }
    }

    /// Starts one for the CPUs `online`, whose snapshots `snapshot` loads after [`snapshot_fence`]. Those that
    /// are unwatched have passed already.
    pub fn start(&mut self, online: &CpuSet, mut snapshot: impl FnMut(u32) -> CpuSnapshot) {
        self.scans = 0;
        self.nodes = [0; NODES];
        for cpu in online.iter() {
            let snap = snapshot(cpu);
            if !passed(snap, &snap) {
                self.snapshots[cpu as usize] = snap;
                let leaf = cpu as usize / N;
                self.nodes[leaf] |= 1 << (cpu as usize % N);
                self.nodes[Self::LEAVES + leaf / N] |= 1 << (leaf % N);
                self.nodes[Self::TOP] |= 1 << (leaf / N);
            }
        }
    }

    /// Looks at the holdouts again; `now` loads their words (acquire).
    pub fn scan(&mut self, mut now: impl FnMut(u32) -> CpuSnapshot) -> ScanResult {
        self.scans += 1;
        let kick_due = self.scans.is_multiple_of(KICK_EVERY);
        let mut held = CpuSet::new();
        let mut holdouts = 0;
        self.for_each(|cpu, snap| {
            if passed(*snap, &now(cpu)) {
                return false;
            }
            holdouts += 1;
            let _ = held.insert(cpu);
            true
        });
        ScanResult { done: holdouts == 0, holdouts, kick: if kick_due { held } else { CpuSet::new() } }
    }

    /// Calls `stays` for each CPU of the tree; one for which it says no is taken out.
    fn for_each(&mut self, mut stays: impl FnMut(u32, &CpuSnapshot) -> bool) {
        for middle in bits(self.nodes[Self::TOP]) {
            for below in bits(self.nodes[Self::LEAVES + middle]) {
                let leaf = middle * N + below;
                for bit in bits(self.nodes[leaf]) {
                    let cpu = leaf * N + bit;
                    if !stays(cpu as u32, &self.snapshots[cpu]) {
                        self.nodes[leaf] &= !(1 << bit);
                    }
                }
                self.prune(leaf);
            }
        }
    }

    /// An empty node has no bit above it.
    fn prune(&mut self, leaf: usize) {
        let middle = leaf / N;
        if self.nodes[leaf] == 0 && !cfg!(mutant = "rcu_tree_not_pruned") {
            self.nodes[Self::LEAVES + middle] &= !(1 << (leaf % N));
            if self.nodes[Self::LEAVES + middle] == 0 || cfg!(mutant = "rcu_tree_prunes_siblings") {
                self.nodes[Self::TOP] &= !(1 << middle);
            }
        }
    }

    /// Whether everyone has passed as of the last scan.
    pub fn is_done(&self) -> bool {
        self.nodes[Self::TOP] == 0
    }

    /// The CPUs that have not passed as of the last scan.
    pub fn holdouts(&self) -> CpuSet {
        let mut set = CpuSet::new();
        for middle in bits(self.nodes[Self::TOP]) {
            for below in bits(self.nodes[Self::LEAVES + middle]) {
                let leaf = middle * N + below;
                for bit in bits(self.nodes[leaf]) {
                    let _ = set.insert((leaf * N + bit) as u32);
                }
            }
        }
        set
    }

    /// CPU `cpu` said by itself that it was quiescent, or went offline.
    pub fn report(&mut self, cpu: u32) {
        let leaf = cpu as usize / N;
        self.nodes[leaf] &= !(1 << (cpu as usize % N));
        self.prune(leaf);
    }

    /// Scans since the start.
    pub fn scans(&self) -> u32 {
        self.scans
    }
}

impl<const N: usize> Default for GracePeriod<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Places of the bits that are set, lowest first.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < 64).then_some(bit as usize)
    })
}

/// What a grace period that lasts too long calls for.
#[derive(Debug, Clone, Copy)]
pub struct StallWatch {
    timeout_ns: u64,
    next_ns: u64,
}

impl StallWatch {
    /// A grace period starts; it may last `timeout_ns`.
    pub const fn new(timeout_ns: u64) -> Self {
        StallWatch { timeout_ns, next_ns: timeout_ns }
    }

    /// It has lasted `age_ns`: true once when the time is over, and then three times as rarely, as Linux does.
    pub const fn is_due(&mut self, age_ns: u64) -> bool {
        if age_ns < self.next_ns {
            return false;
        }
        self.next_ns = age_ns.saturating_add(self.timeout_ns.saturating_mul(3));
        true
    }
}

const NR_WAITING: usize = 3;

/// The counts behind one CPU's list of callbacks. The list is the kernel's, in order of queueing: the ready
/// ones are at its head.
#[derive(Debug)]
pub struct CallbackSegments {
    ready: usize,
    /// Waiting segments, oldest first, with the sequence each waits for; unused ones are empty, at the end.
    waiting: [(GpSeq, usize); NR_WAITING],
}

impl CallbackSegments {
    /// No callbacks.
    pub const fn new() -> Self {
        CallbackSegments { ready: 0, waiting: [(GpSeq(0), 0); NR_WAITING] }
    }

    /// A callback was put at the list's tail; it waits for `wanted` = [`GpSeq::snap`] at this time.
    #[inline]
    pub fn enqueue(&mut self, wanted: GpSeq) {
        let mut at = self.waiting.iter().position(|segment| segment.1 == 0).unwrap_or(NR_WAITING);
        // Into the youngest segment if that waits for the same or later, or if there is no other left: then
        // all of it waits for the later one.
        if at > 0 && (at == NR_WAITING || self.waiting[at - 1].0.done(wanted)) {
            at -= 1;
        }
        let segment = &mut self.waiting[at];
        if segment.1 == 0 || !segment.0.done(wanted) {
            segment.0 = wanted;
        }
        segment.1 += 1;
    }

    /// The sequence is now `completed`: how many callbacks became ready by that.
    #[inline]
    pub fn advance(&mut self, completed: GpSeq) -> usize {
        let mut count = 0;
        while self.waiting[0].1 != 0 && completed.done(self.waiting[0].0) {
            count += self.waiting[0].1;
            self.waiting.rotate_left(1);
            self.waiting[NR_WAITING - 1] = (GpSeq(0), 0);
        }
        self.ready += count;
        count
    }

    /// How many at the head of the list may run.
    #[inline]
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// `count` ready ones were taken off the head; returns how many of these there were.
    #[inline]
    pub fn take_ready(&mut self, count: usize) -> usize {
        let taken = count.min(self.ready);
        self.ready -= taken;
        taken
    }

    /// How many wait.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.iter().map(|segment| segment.1).sum()
    }

    /// All of them.
    #[inline]
    pub fn len(&self) -> usize {
        self.ready + self.waiting()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The furthest sequence that is waited for.
    pub fn wanted(&self) -> Option<GpSeq> {
        self.waiting.iter().rev().find(|segment| segment.1 != 0).map(|segment| segment.0)
    }
}

impl Default for CallbackSegments {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn segments_run_dry_in_order() {
        let mut segments = CallbackSegments::new();
        segments.enqueue(GpSeq(4));
        segments.enqueue(GpSeq(8));
        segments.enqueue(GpSeq(8));
        assert_eq!((segments.advance(GpSeq(3)), segments.advance(GpSeq(4)), segments.advance(GpSeq(9))), (0, 1, 2));
        assert_eq!((segments.take_ready(2), segments.take_ready(2), segments.is_empty()), (2, 1, true));
    }

    #[test]
    fn a_stall_is_told_once_and_then_seldom() {
        let mut watch = StallWatch::new(10);
        let told: Vec<u64> = (0..100).filter(|&age| watch.is_due(age)).collect();
        assert_eq!(told, [10, 40, 70]);
    }

    /// The tree of any fan-out against a plain set.
    fn tree_is_a_set<const N: usize>(seed: u64) {
        use crate::context_tracking::WATCH;
        let mut state = seed;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let online: CpuSet = (0..1 + random(MAX_CPUS as u64) as u32).collect();
        let watched: Vec<bool> = (0..MAX_CPUS).map(|_| random(3) != 0).collect();
        let mut passes: Vec<bool> = vec![false; MAX_CPUS];
        let mut period = GracePeriod::<N>::new();
        let word = |cpu: u32| if watched[cpu as usize] { WATCH } else { 0 };
        period.start(&online, |cpu| CpuSnapshot { word: word(cpu), qs: 0 });
        let mut model: std::collections::BTreeSet<u32> = online.iter().filter(|&cpu| watched[cpu as usize]).collect();
        while !model.is_empty() {
            for _ in 0..1 + random(MAX_CPUS as u64) {
                passes[random(MAX_CPUS as u64) as usize] = true;
            }
            if random(2) == 0 {
                let cpu = random(MAX_CPUS as u64) as u32;
                period.report(cpu);
                model.remove(&cpu);
            }
            model.retain(|&cpu| !passes[cpu as usize]);
            let mut looked = 0;
            let result = period.scan(|cpu| {
                looked += 1;
                CpuSnapshot { word: word(cpu), qs: passes[cpu as usize] as u32 }
            });
            assert_eq!(result.holdouts as usize, model.len(), "seed {seed}");
            assert!(period.holdouts().iter().eq(model.iter().copied()), "seed {seed}");
            assert_eq!((result.done, period.is_done()), (model.is_empty(), model.is_empty()), "seed {seed}");
            let before = looked;
            let _ = period.scan(|cpu| CpuSnapshot { word: word(cpu), qs: passes[cpu as usize] as u32 });
            assert!(before >= model.len() && looked == before);
        }
    }

    #[test]
    fn trees_of_all_fan_outs_are_sets() {
        for seed in 1..if cfg!(miri) { 3 } else { 60 } {
            tree_is_a_set::<8>(seed * 0x9e37_79b9);
            tree_is_a_set::<16>(seed * 0x9e37_79b9);
            tree_is_a_set::<32>(seed * 0x9e37_79b9);
            tree_is_a_set::<64>(seed * 0x9e37_79b9);
        }
    }

    #[test]
    fn unwatched_cpus_hold_nothing() {
        use crate::context_tracking::WATCH;
        let mut period = GracePeriod::<FANOUT>::new();
        let online: CpuSet = [0, 1].into_iter().collect();
        let word = |cpu| CpuSnapshot { word: if cpu == 0 { WATCH } else { 0 }, qs: 0 };
        period.start(&online, word);
        assert!(period.holdouts().contains(0) && !period.holdouts().contains(1));
        for scan in 1..=KICK_EVERY {
            let result = period.scan(word);
            assert_eq!((result.holdouts, result.kick.contains(0)), (1, scan == KICK_EVERY));
        }
        period.report(0);
        assert!(period.is_done() && period.scan(word).done);
    }
}

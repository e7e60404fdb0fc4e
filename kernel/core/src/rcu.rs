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
//! Numbering as in Linux kernel/rcu/rcu.h: the low two bits of a sequence say whether one is in progress.

use crate::atomics::fence_full;
use crate::context_tracking::{is_watching, quiescent};
use crate::cpu_set::{CpuSet, MAX_CPUS};

/// The full fence between an updater's stores and the loads of the snapshots.
#[inline]
pub fn snapshot_fence() {
    #[cfg(not(mutant = "rcu_snapshot_fence_dropped"))]
    fence_full();
}

const STATE_BITS: u64 = 0x3;

/// The number of a grace period: bits 2.. count those that ended, bits 0-1 are non-zero while one runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct GpSeq(pub u64);

impl GpSeq {
    /// None yet.
    pub const fn new() -> Self {
        GpSeq(0)
    }

    /// Whether a grace period runs.
    #[inline]
    pub const fn in_progress(self) -> bool {
        self.0 & STATE_BITS != 0
    }

    /// One starts. Of a running one: the same.
    #[inline]
    pub const fn started(self) -> GpSeq {
        GpSeq(self.0 & !STATE_BITS | 1)
    }

    /// The running one ends.
    #[inline]
    pub const fn ended(self) -> GpSeq {
        if self.in_progress() { GpSeq((self.0 | STATE_BITS).wrapping_add(1)) } else { self }
    }

    /// The sequence at whose end a callback queued now may run: one that starts from now on, not the running
    /// one.
    #[inline]
    pub const fn snap(self) -> GpSeq {
        if cfg!(mutant = "rcu_snap_takes_running") {
            return GpSeq((self.0 | STATE_BITS).wrapping_add(1));
        }
        let running = if self.in_progress() { STATE_BITS + 1 } else { 0 };
        GpSeq((self.0 & !STATE_BITS).wrapping_add(running + STATE_BITS + 1))
    }

    /// Whether `wanted`, from [`snap`](Self::snap), has been reached.
    #[inline]
    pub const fn done(self, wanted: GpSeq) -> bool {
        self.0.wrapping_sub(wanted.0) as i64 >= 0
    }
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

/// The state of one grace period.
#[derive(Debug)]
pub struct GracePeriod {
    holdouts: CpuSet,
    snapshots: [CpuSnapshot; MAX_CPUS],
    scans: u32,
}

impl GracePeriod {
    /// One that is over.
    pub const fn new() -> Self {
        GracePeriod { holdouts: CpuSet::new(), snapshots: [CpuSnapshot { word: 0, qs: 0 }; MAX_CPUS], scans: 0 }
    }

    /// Starts one for the CPUs `online`, whose snapshots `snapshot` loads after [`snapshot_fence`]. Those that
    /// are unwatched have passed already.
    pub fn start(&mut self, online: &CpuSet, mut snapshot: impl FnMut(u32) -> CpuSnapshot) {
        self.scans = 0;
        self.holdouts = CpuSet::new();
        for cpu in online.iter() {
            let snap = snapshot(cpu);
            self.snapshots[cpu as usize] = snap;
            if !passed(snap, &snap) {
                let _ = self.holdouts.insert(cpu);
            }
        }
    }

    /// Looks at the holdouts again; `now` loads their words (acquire).
    pub fn scan(&mut self, mut now: impl FnMut(u32) -> CpuSnapshot) -> ScanResult {
        self.scans += 1;
        let kick_due = self.scans.is_multiple_of(KICK_EVERY);
        let mut kick = CpuSet::new();
        let mut holdouts = 0;
        for cpu in self.holdouts.iter() {
            let seen = now(cpu);
            if passed(self.snapshots[cpu as usize], &seen) {
                continue;
            }
            holdouts += 1;
            let _ = kick.insert(cpu);
        }
        self.holdouts = kick;
        ScanResult { done: holdouts == 0, holdouts, kick: if kick_due { kick } else { CpuSet::new() } }
    }

    /// Whether everyone has passed as of the last scan.
    pub fn is_done(&self) -> bool {
        self.holdouts.is_empty()
    }

    /// The CPUs that have not passed as of the last scan.
    pub fn holdouts(&self) -> &CpuSet {
        &self.holdouts
    }

    /// CPU `cpu` said by itself that it was quiescent, or went offline.
    pub fn report(&mut self, cpu: u32) {
        let _ = self.holdouts.remove(cpu);
    }

    /// Scans since the start.
    pub fn scans(&self) -> u32 {
        self.scans
    }
}

impl Default for GracePeriod {
    fn default() -> Self {
        Self::new()
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
    fn a_running_grace_period_is_not_enough() {
        let idle = GpSeq::new();
        let running = idle.started();
        assert!(running.in_progress() && running.ended().done(idle.snap()));
        assert!(!running.ended().done(running.snap()));
        assert!(running.ended().started().ended().done(running.snap()));
        assert_eq!((running.started(), idle.ended()), (running, idle));
    }

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
    fn unwatched_cpus_hold_nothing() {
        use crate::context_tracking::WATCH;
        let mut period = GracePeriod::new();
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

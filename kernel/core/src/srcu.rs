//! Sleepable RCU: readers that may sleep, and grace periods that wait for the readers of one domain alone.
//!
//! Each CPU has two pairs of counters in a domain. A reader adds one to its CPU's `locks` of the index that is current, and later one to
//! `unlocks` of the same index, on whatever CPU it is by then. A grace period, driven by one thread, looks at the counters of all CPUs and
//! touches none of them: no CPU is asked or interrupted, and one that has no reader has no part in it.
//!
//! ```text
//! reader   index --> locks[index] += 1 | FULL FENCE | reads, sleeps, reads | unlocks[index] += 1 FULL FENCE | waits? wake the driver
//! driver   started --> drain the other index --> flip --> drain the index left --> ended
//!          drain: sum of unlocks | FULL FENCE | sum of locks; equal: nobody is in there
//! ```
//! Invariants:
//! 1. A reader that saw what an updater has unpublished before its grace period ends its look before that period ends.
//! 2. Unlocks are summed before locks: who is counted out was counted in, so a sum can be too high and never too low.
//! 3. A reader may take the old index and be counted there after the flip. It then holds the next grace period, which drains that index
//!    before it flips back: therefore two drains.
//! 4. New readers take the other index, so those that come and go cannot hold a period for ever.
//! 5. The driver sleeps only if the last reader's unlock wakes it: it says that it waits, and then looks again.
//!
//! At most 2^W - 1 readers may be inside at a time. Source: McKenney, "Sleepable Read-Copy Update"; names as in Linux
//! include/linux/srcu.h.

use crate::atomics::{AtomicBool, AtomicU64, Ordering, const_unless_loom, fence_full, rmw_full_add};

/// Width of the counters in the kernel; tests take 2.
pub const COUNTER_BITS: u32 = 64;

/// One CPU's counters in a domain. Any CPU may add; each mostly does to its own.
#[derive(Debug)]
pub struct SrcuCpu {
    locks: [AtomicU64; 2],
    unlocks: [AtomicU64; 2],
}

impl SrcuCpu {
    const_unless_loom! {
        /// No reader yet.
        pub fn new() -> Self {
            SrcuCpu {
                locks: [AtomicU64::new(0), AtomicU64::new(0)],
                unlocks: [AtomicU64::new(0), AtomicU64::new(0)],
            }
        }
    }
}

impl Default for SrcuCpu {
    fn default() -> Self {
        Self::new()
    }
}

/// What a reader brings to its unlock: the index that it was counted under.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reader that does not unlock holds grace periods for ever"]
pub struct SrcuIndex(usize);

/// A domain: its readers and its grace periods have to do with no other.
#[derive(Debug)]
pub struct Srcu<const W: u32 = COUNTER_BITS> {
    /// Bit 0: the index that readers take.
    index: AtomicU64,
    /// The driver sleeps until a reader leaves.
    waits: AtomicBool,
}

/// How far a grace period has come; its driver's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SrcuPhase {
    /// None runs.
    #[default]
    Idle,
    /// Readers of long ago, under the index that is not current, have to leave.
    DrainOther,
    /// The index was flipped: readers under the one that was current have to leave.
    DrainLeft,
}

/// What the driver does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the grace period may be over"]
pub enum SrcuStep {
    /// Sleep until a reader's unlock wakes.
    Sleep,
    /// The grace period is over.
    Over,
}

impl<const W: u32> Srcu<W> {
    const_unless_loom! {
        /// No reader, no grace period.
        pub fn new() -> Self {
            Srcu { index: AtomicU64::new(0), waits: AtomicBool::new(false) }
        }
    }

    /// A reader begins; `cpu`: the counters of the CPU that it runs on. A full fence: what follows comes after it.
    #[inline]
    pub fn read_lock(&self, cpu: &SrcuCpu) -> SrcuIndex {
        let index = (self.index.load(Ordering::Relaxed) & 1) as usize;
        self.count_in(cpu, index);
        SrcuIndex(index)
    }

    /// The second half of [`read_lock`](Self::read_lock), apart so that tests can come in between.
    #[inline]
    fn count_in(&self, cpu: &SrcuCpu, index: usize) {
        if cfg!(mutant = "srcu_lock_unfenced") {
            cpu.locks[index].fetch_add(1, Ordering::Relaxed);
        } else {
            rmw_full_add(&cpu.locks[index], 1);
        }
    }

    /// A reader ends; `cpu`: of the CPU that it runs on now. True: wake the driver. A full fence: what was read comes before, the look at
    /// whether somebody waits after.
    #[inline]
    #[must_use = "the driver may sleep for ever"]
    pub fn read_unlock(&self, cpu: &SrcuCpu, index: SrcuIndex) -> bool {
        if cfg!(mutant = "srcu_wakes_before_unlock") {
            let wakes = self.waits.load(Ordering::Relaxed) && self.waits.swap(false, Ordering::Relaxed);
            rmw_full_add(&cpu.unlocks[index.0], 1);
            return wakes;
        }
        if cfg!(mutant = "srcu_unlock_unordered") {
            cpu.unlocks[index.0].fetch_add(1, Ordering::Relaxed);
        } else {
            rmw_full_add(&cpu.unlocks[index.0], 1);
        }
        self.waits.load(Ordering::Relaxed) && self.waits.swap(false, Ordering::Relaxed)
    }

    /// Whether nobody is inside under `index`.
    fn is_drained<'a>(&self, index: usize, cpus: impl Iterator<Item = &'a SrcuCpu> + Clone) -> bool {
        let sum = |count: fn(&SrcuCpu) -> &[AtomicU64; 2]| {
            cpus.clone().fold(0u64, |sum, cpu| sum.wrapping_add(count(cpu)[index].load(Ordering::Relaxed)))
        };
        if cfg!(mutant = "srcu_locks_summed_first") {
            let locks = sum(|cpu| &cpu.locks);
            fence_full();
            return locks == sum(|cpu| &cpu.unlocks);
        }
        let unlocks = sum(|cpu| &cpu.unlocks);
        #[cfg(not(mutant = "srcu_scan_unfenced"))]
        fence_full();
        let locks = sum(|cpu| &cpu.locks);
        locks.wrapping_sub(unlocks) << (64 - W) == 0
    }

    /// As [`is_drained`](Self::is_drained); if not, the next unlock wakes the driver.
    fn drains<'a>(&self, index: usize, cpus: impl Iterator<Item = &'a SrcuCpu> + Clone) -> bool {
        if self.is_drained(index, cpus.clone()) {
            return true;
        }
        self.waits.store(true, Ordering::Relaxed);
        #[cfg(not(mutant = "srcu_sleeps_unfenced"))]
        fence_full();
        // Who left before it could see that somebody waits is seen here.
        if cfg!(mutant = "srcu_sleeps_at_once") || !self.is_drained(index, cpus) {
            return false;
        }
        self.waits.store(false, Ordering::Relaxed);
        true
    }

    /// Drives a grace period as far as it goes; in [`SrcuPhase::Idle`] it starts one. `cpus`: the counters of every CPU that may have had a reader.
    /// By one thread at a time, which is behind a full fence since it decided to start.
    pub fn advance<'a>(&self, phase: &mut SrcuPhase, cpus: impl Iterator<Item = &'a SrcuCpu> + Clone) -> SrcuStep {
        loop {
            let current = (self.index.load(Ordering::Relaxed) & 1) as usize;
            match *phase {
                SrcuPhase::Idle => *phase = SrcuPhase::DrainOther,
                SrcuPhase::DrainOther => {
                    if !cfg!(mutant = "srcu_one_drain") && !self.drains(1 - current, cpus.clone()) {
                        return SrcuStep::Sleep;
                    }
                    if !cfg!(mutant = "srcu_not_flipped") {
                        self.index.store(1 - current as u64, Ordering::Relaxed);
                    }
                    *phase = SrcuPhase::DrainLeft;
                }
                SrcuPhase::DrainLeft => {
                    let left = if cfg!(mutant = "srcu_drains_new_index") { current } else { 1 - current };
                    let left = if cfg!(mutant = "srcu_not_flipped") { current } else { left };
                    if !self.drains(left, cpus.clone()) {
                        return SrcuStep::Sleep;
                    }
                    *phase = SrcuPhase::Idle;
                    return SrcuStep::Over;
                }
            }
        }
    }

    /// Readers inside, as the counters look at this moment; for people.
    pub fn readers<'a>(&self, cpus: impl Iterator<Item = &'a SrcuCpu> + Clone) -> u64 {
        let sum = |count: fn(&SrcuCpu) -> &[AtomicU64; 2]| {
            let both = |cpu: &SrcuCpu| {
                count(cpu)[0].load(Ordering::Relaxed).wrapping_add(count(cpu)[1].load(Ordering::Relaxed))
            };
            cpus.clone().fold(0u64, |sum, cpu| sum.wrapping_add(both(cpu)))
        };
        let unlocks = sum(|cpu| &cpu.unlocks);
        fence_full();
        (sum(|cpu| &cpu.locks).wrapping_sub(unlocks) << (64 - W)) >> (64 - W)
    }
}

impl<const W: u32> Default for Srcu<W> {
    fn default() -> Self {
        Self::new()
    }
}

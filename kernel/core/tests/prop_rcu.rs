//! Property tests: cookies at every width, sleepable readers against a plain model.
#![cfg(not(loom))]

use kcore::deferred_free::{Join, Lots};
use kcore::rcu::{GpCounter, GpSeq, cond_synchronize_rcu_waits, get_state_synchronize_rcu, poll_state_synchronize_rcu};
use kcore::srcu::{Srcu, SrcuCpu, SrcuPhase, SrcuStep};
use proptest::prelude::*;

/// A cookie of any time against the plain count of what started and ended after it. One that is looked at within as many grace
/// periods as the width allows is exact, a later one errs towards "not done".
fn cookies_are_exact_or_late<const W: u32>(start: u64) {
    let half = 1u64 << (W - 1);
    for first_runs in [false, true] {
        for periods in 0..4 * half.min(16) {
            let mut seq = GpSeq::<W>(start << (64 - W) >> (64 - W) << 2);
            if first_runs {
                seq = seq.started();
            }
            let wanted = seq.snap();
            let mut whole = 0;
            for _ in 0..periods {
                whole += !seq.in_progress() as u64;
                seq = seq.started();
                assert!(!seq.done(wanted) || whole > 1, "done before the end of a whole one");
                seq = seq.ended();
            }
            let done = seq.done(wanted);
            assert!(!done || whole >= 1, "W {W}, start {start}, {periods} periods: too early");
            if periods < half {
                assert_eq!(done, whole >= 1, "W {W}, start {start}, {periods} periods");
            }
        }
    }
}

#[test]
fn cookies_survive_a_wrap() {
    (0..4).for_each(cookies_are_exact_or_late::<2>);
    (0..8).for_each(cookies_are_exact_or_late::<3>);
    let last = u64::MAX >> 2;
    [0, 1, last, last - 1, last / 2, last / 2 + 1].into_iter().for_each(cookies_are_exact_or_late::<62>);
}

#[test]
fn a_grace_period_of_either_kind_will_do() {
    for which in 0..2 {
        let counters = [GpCounter::<2>::new(), GpCounter::new()];
        let [normal, expedited] = &counters;
        counters[which].start();
        let cookie = get_state_synchronize_rcu(normal, expedited);
        counters[which].end();
        assert!(cond_synchronize_rcu_waits(normal, expedited, cookie), "it ran before");
        counters[1 - which].start();
        assert!(!poll_state_synchronize_rcu(normal, expedited, cookie));
        counters[1 - which].end();
        assert!(poll_state_synchronize_rcu(normal, expedited, cookie));
        assert!(!cond_synchronize_rcu_waits(normal, expedited, cookie));
    }
}

/// Readers that overlap without end, each shorter than a grace period could wait: the period ends all the same.
#[test]
fn readers_that_come_and_go_hold_no_grace_period() {
    let (srcu, cpu) = (Srcu::<2>::new(), SrcuCpu::new());
    let mut phase = SrcuPhase::Idle;
    let mut inside = srcu.read_lock(&cpu);
    let mut steps = 0;
    while srcu.advance(&mut phase, core::iter::once(&cpu)) == SrcuStep::Sleep {
        let next = srcu.read_lock(&cpu);
        assert!(srcu.read_unlock(&cpu, inside), "the driver said that it waits");
        inside = next;
        steps += 1;
        assert!(steps < 10, "readers that began after the grace period hold it");
    }
    assert_eq!(srcu.readers(core::iter::once(&cpu)), 1);
    assert!(!srcu.read_unlock(&cpu, inside), "nobody waits");
}

proptest! {
    /// Readers begin and end on any CPU while grace periods are driven: a period ends exactly when those that began before it have ended,
    /// at the latest when nobody is inside, and a driver that sleeps is woken by the end of the last that it waits for.
    #[test]
    fn sleepable_readers_are_waited_for(ops in proptest::collection::vec((0u8..4, 0usize..4, 0usize..4), 1..300)) {
        let srcu = Srcu::<3>::new();
        let cpus: [SrcuCpu; 4] = core::array::from_fn(|_| SrcuCpu::new());
        let mut phase = SrcuPhase::Idle;
        // The index of each reader inside, and whether it began before the grace period that runs.
        let mut inside = Vec::new();
        let mut sleeps = false;
        for (op, a, b) in ops {
            match op {
                0 if inside.len() < 7 => inside.push((srcu.read_lock(&cpus[a]), false)),
                1 if !inside.is_empty() => {
                    let (index, _) = inside.remove(a % inside.len());
                    let woken = srcu.read_unlock(&cpus[b], index);
                    prop_assert_eq!(woken, sleeps, "who waits is woken by the next that leaves");
                    sleeps = false;
                }
                2 | 3 if !sleeps => {
                    if phase == SrcuPhase::Idle {
                        inside.iter_mut().for_each(|reader| reader.1 = true);
                    }
                    match srcu.advance(&mut phase, cpus.iter()) {
                        SrcuStep::Over => {
                            prop_assert!(inside.iter().all(|reader| !reader.1), "a reader of before is inside");
                        }
                        SrcuStep::Sleep => {
                            prop_assert!(!inside.is_empty(), "it sleeps, and nobody is inside");
                            sleeps = true;
                        }
                    }
                }
                _ => {}
            }
            prop_assert_eq!(srcu.readers(cpus.iter()), inside.len() as u64);
        }
        for (index, _) in inside {
            let _ = srcu.read_unlock(&cpus[0], index);
        }
        prop_assert_eq!(srcu.advance(&mut phase, cpus.iter()), SrcuStep::Over);
    }
}

/// What was given, by number.
#[derive(Debug)]
struct Given(Vec<usize>);

impl Join for Given {
    fn join(&mut self, later: Self) {
        self.0.extend(later.0);
    }
}

proptest! {
    /// Memory is given, collected and freed while grace periods of both kinds come and go, counted in 3 bits: each piece is freed once, in order, and
    /// only after a whole grace period that began after it was given.
    #[test]
    fn memory_is_freed_after_a_whole_grace_period(ops in proptest::collection::vec((0u8..8, any::<bool>()), 1..200)) {
        let counters = [GpCounter::<3>::new(), GpCounter::new()];
        let [normal, expedited] = &counters;
        // Of each kind: how many started, how many of these have ended.
        let (mut started, mut ended) = ([0u32; 2], [0u32; 2]);
        let mut lots = Lots::<Given, 3>::new();
        let mut filling = Vec::new();
        // For each piece: how many had started when it was given.
        let mut given: Vec<[u32; 2]> = Vec::new();
        let mut freed = 0;
        for (op, fast) in ops {
            let kind = fast as usize;
            match op {
                0..=2 => {
                    filling.push(given.len());
                    given.push(started);
                }
                3 | 4 if !filling.is_empty() => {
                    let cookie = get_state_synchronize_rcu(normal, expedited);
                    lots.close(cookie, Given(core::mem::take(&mut filling)));
                }
                5 if started[kind] == ended[kind] => {
                    counters[kind].start();
                    started[kind] += 1;
                }
                6 if started[kind] != ended[kind] => {
                    counters[kind].end();
                    ended[kind] = started[kind];
                }
                _ => {
                    // More than the width can tell are never between two looks.
                    while let Some(lot) = lots.take_ready(|c| poll_state_synchronize_rcu(normal, expedited, c)) {
                        for piece in lot.0 {
                            prop_assert_eq!(piece, freed, "in order, once");
                            freed += 1;
                            let whole = |kind: usize| ended[kind] > given[piece][kind];
                            prop_assert!(whole(0) || whole(1), "no whole grace period has passed");
                        }
                    }
                }
            }
        }
        lots.close(get_state_synchronize_rcu(normal, expedited), Given(filling));
        if started[0] != ended[0] {
            normal.end();
        }
        while !lots.is_empty() {
            normal.start();
            normal.end();
            while let Some(lot) = lots.take_ready(|c| poll_state_synchronize_rcu(normal, expedited, c)) {
                freed += lot.0.len();
            }
        }
        prop_assert_eq!(freed, given.len(), "all of it");
    }
}

//! loom: sleepable readers against a grace period.
//!
//! Preemptions are bounded at 3: a violation needs a reader that is cut between its look at the index and its count, and a driver that is
//! cut between its sums. Counters are 2 bits wide.
#![cfg(loom)]

use kcore::srcu::{Srcu, SrcuCpu, SrcuPhase, SrcuStep};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::thread;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// Two objects of which one is published at a time; `NOTHING`: none.
const NOTHING: u32 = 2;

struct Shared {
    srcu: Srcu<2>,
    cpus: [SrcuCpu; 2],
    published: AtomicU32,
    content: [UnsafeCell<u32>; 2],
}

// SAFETY: loom finds accesses to the cells that nothing orders.
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared {
            srcu: Srcu::new(),
            cpus: [SrcuCpu::new(), SrcuCpu::new()],
            published: AtomicU32::new(0),
            content: [UnsafeCell::new(7), UnsafeCell::new(7)],
        })
    }

    fn look(&self) {
        let at = self.published.load(Relaxed);
        if at != NOTHING {
            // SAFETY: that of SRCU, which is what is tested.
            self.content[at as usize].with(|p| assert_eq!(unsafe { *p }, 7, "a reader used freed memory"));
        }
    }

    /// A reader that begins on CPU `from`, sleeps, and ends on CPU `to`.
    fn read(&self, from: usize, to: usize) {
        let index = self.srcu.read_lock(&self.cpus[from]);
        self.look();
        let _ = self.srcu.read_unlock(&self.cpus[to], index);
    }

    /// A grace period that is given up where the driver would sleep.
    fn grace_period(&self, phase: &mut SrcuPhase) -> bool {
        self.srcu.advance(phase, self.cpus.iter()) == SrcuStep::Over
    }

    /// Publishes `new`; frees what was published if a grace period passes.
    fn update(&self, new: u32) -> bool {
        let old = self.published.swap(new, Relaxed);
        let over = self.grace_period(&mut SrcuPhase::Idle);
        if over {
            // SAFETY: as in `look`.
            self.content[old as usize].with_mut(|p| unsafe { *p = 0 });
        }
        over
    }
}

fn readers(first: fn(&Shared), update: fn(&Shared)) {
    model(move || {
        let shared = Shared::new();
        let updater = {
            let shared = shared.clone();
            thread::spawn(move || update(&shared))
        };
        first(&shared);
        updater.join().expect("updater");
    });
}

#[test]
fn a_reader_is_waited_for() {
    readers(|shared| shared.read(0, 0), |shared| _ = shared.update(NOTHING));
}

/// It is counted in on one CPU and out on another.
#[test]
fn a_reader_that_moves_is_waited_for() {
    readers(|shared| shared.read(0, 1), |shared| _ = shared.update(NOTHING));
}

/// A reader inside on one CPU while others come and go on another: sums that miss a part of them must not come out even.
#[test]
fn a_reader_is_waited_for_while_others_pass() {
    readers(
        |shared| {
            let index = shared.srcu.read_lock(&shared.cpus[0]);
            let inner = shared.srcu.read_lock(&shared.cpus[1]);
            let _ = shared.srcu.read_unlock(&shared.cpus[1], inner);
            shared.look();
            let _ = shared.srcu.read_unlock(&shared.cpus[0], index);
        },
        |shared| _ = shared.update(NOTHING),
    );
}

/// Two grace periods: a reader that took its index before the first may be counted under it after the flip.
#[test]
fn a_reader_with_an_old_index_is_waited_for() {
    readers(
        |shared| shared.read(0, 0),
        |shared| {
            if shared.update(1) {
                shared.update(NOTHING);
            }
        },
    );
}

/// Whoever sleeps is woken: if the driver has to wait, the reader that it waits for says so at its end.
#[test]
fn the_driver_is_woken() {
    model(|| {
        let shared = Shared::new();
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                let index = shared.srcu.read_lock(&shared.cpus[0]);
                shared.srcu.read_unlock(&shared.cpus[0], index)
            })
        };
        let mut phase = SrcuPhase::Idle;
        let over = shared.grace_period(&mut phase);
        let wakes = reader.join().expect("reader");
        assert!(over || wakes, "the driver sleeps, and nobody wakes it");
        assert!(over || shared.grace_period(&mut phase), "nobody is inside any more");
    });
}

//! loom: cookies. An updater polls, a driver runs a grace period, a CPU reads on its way into or out of the kernel.
//!
//! Preemptions are bounded at 3: three threads, each of which may be cut once at its racing access. Counts are 2 bits wide, and the number of
//! grace periods starts at its end, so that every test wraps it.
#![cfg(loom)]

use kcore::context_tracking::ContextWord;
use kcore::rcu::{
    Cookie, CpuSnapshot, GpCounter, get_state_synchronize_rcu, passed, poll_state_synchronize_rcu, snapshot_fence,
};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::thread;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// An object that is unpublished and freed; `content` is what no reader may touch while it is freed.
struct Shared {
    word: ContextWord<2>,
    normal: GpCounter<2>,
    expedited: GpCounter<2>,
    published: AtomicU32,
    content: UnsafeCell<u32>,
}

// SAFETY: loom finds accesses to the cell that nothing orders.
unsafe impl Sync for Shared {}

impl Shared {
    fn new(in_user: bool) -> Arc<Shared> {
        let shared = Shared {
            word: ContextWord::new(),
            normal: GpCounter::new(),
            expedited: GpCounter::new(),
            published: AtomicU32::new(1),
            content: UnsafeCell::new(7),
        };
        for _ in 0..3 {
            shared.normal.start();
            shared.normal.end();
        }
        if in_user {
            shared.word.user_enter().check().expect("legal");
        }
        Arc::new(shared)
    }

    fn read(&self) {
        if self.published.load(Relaxed) == 1 {
            // SAFETY: that of RCU, which is what is tested.
            self.content.with(|p| assert_eq!(unsafe { *p }, 7, "an RCU reader used freed memory"));
        }
    }

    fn snapshot(&self) -> CpuSnapshot {
        CpuSnapshot { word: self.word.load(), qs: 0 }
    }

    /// A grace period by the rules of the driver, given up after `scans` looks.
    fn grace_period(&self, counter: &GpCounter<2>, scans: u32) -> bool {
        counter.start();
        let start = self.snapshot();
        let mut over = passed(start, &start);
        for _ in 0..scans {
            over = over || passed(start, &self.snapshot());
        }
        if over {
            counter.end();
        }
        over
    }

    fn cookie(&self) -> Cookie<2> {
        get_state_synchronize_rcu(&self.normal, &self.expedited)
    }

    fn free_if(&self, cookie: Cookie<2>) {
        if poll_state_synchronize_rcu(&self.normal, &self.expedited, cookie) {
            // SAFETY: as in `read`.
            self.content.with_mut(|p| unsafe { *p = 0 });
        }
    }
}

fn polled(in_user: bool, expedited: bool, reader: fn(&Shared)) {
    model(move || {
        let shared = Shared::new(in_user);
        let driver = {
            let shared = shared.clone();
            thread::spawn(move || {
                let counter = if expedited { &shared.expedited } else { &shared.normal };
                shared.grace_period(counter, 1)
            })
        };
        let updater = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.published.store(0, Relaxed);
                let cookie = shared.cookie();
                shared.free_if(cookie);
            })
        };
        reader(&shared);
        driver.join().expect("driver");
        updater.join().expect("updater");
    });
}

fn enter_and_read(shared: &Shared) {
    shared.word.user_exit().check().expect("legal");
    shared.read();
}

fn read_and_leave(shared: &Shared) {
    shared.read();
    shared.word.user_enter().check().expect("legal");
}

/// The grace period may begin before the cookie is taken: then the cookie is not done by it.
#[test]
fn polling_against_a_cpu_that_enters() {
    polled(true, false, enter_and_read);
}

#[test]
fn polling_against_a_cpu_that_leaves() {
    polled(false, false, read_and_leave);
}

#[test]
fn polling_an_expedited_period_against_a_cpu_that_leaves() {
    polled(false, true, read_and_leave);
}

/// The updater has no fence of its own: the driver's alone, behind its start, orders what was unpublished before.
#[test]
fn the_driver_that_unpublishes_itself() {
    model(|| {
        let shared = Shared::new(true);
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || enter_and_read(&shared))
        };
        shared.published.store(0, Relaxed);
        let cookie = shared.cookie();
        let over = shared.grace_period(&shared.normal, 0);
        assert_eq!(over, poll_state_synchronize_rcu(&shared.normal, &shared.expedited, cookie));
        snapshot_fence();
        shared.free_if(cookie);
        reader.join().expect("reader");
    });
}

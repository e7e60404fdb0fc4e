//! loom: the context word under a remote poster, an RCU updater and an NMI at every step.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p kcore --release --test loom_context`.
//! Preemptions are bounded at 3: each protocol here is two threads with one racing read-modify-write each, so
//! a violation needs one switch into the window and one out of it; 3 leaves one to spare and keeps a run
//! in seconds. Counters are 2 bits wide, so that every test wraps them.
#![cfg(loom)]

use kcore::context_tracking::{ContextWord, Deferred, Posted, Step, is_watching};
use kcore::rcu::{CpuSnapshot, passed, snapshot_fence};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering::Relaxed};
use loom::thread;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// A page whose kernel mapping goes away: the poster frees it once its flush was left to the target; the target
/// reads through its TLB, which is stale until it flushes.
struct Page {
    word: ContextWord<2>,
    freed: AtomicU32,
}

/// The target CPU: is its TLB entry stale?
struct Tlb {
    stale: bool,
}

impl Tlb {
    /// Kernel code that uses the mapping.
    fn touch(&self, page: &Page) {
        let freed = page.freed.load(Relaxed) == 1;
        assert!(!(self.stale && freed), "kernel code used a freed page through a stale TLB entry");
    }

    fn run(&mut self, bits: u8) {
        if bits & Deferred::FLUSH_KERNEL_TLB != 0 {
            self.stale = false;
        }
    }

    /// A whole NMI: does the idempotent part of what it finds, runs kernel code, clears nothing.
    fn nmi(&mut self, page: &Page) {
        let token = page.word.nmi_enter();
        self.run(token.deferred & Deferred::IN_NMI);
        self.touch(page);
        assert!(is_watching(page.word.load()), "NMI code runs unwatched");
        page.word.nmi_exit(token);
    }
}

/// Number of places at which an NMI is tried.
const PLACES: u32 = 7;

/// One stay outside the kernel and one inside, with an NMI at place `at`.
fn round(page: &Page, tlb: &mut Tlb, exit: Step, enter: Step, at: u32) {
    let nmi = |tlb: &mut Tlb, place: u32| {
        if place == at {
            tlb.nmi(page);
        }
    };
    nmi(tlb, 0);
    let transition = page.word.step(exit);
    let bits = transition.check().expect("legal");
    nmi(tlb, 1);
    if bits != 0 {
        page.word.run_deferred(bits, |bits| {
            nmi(tlb, 2);
            tlb.run(bits);
            nmi(tlb, 3);
        });
    }
    nmi(tlb, 4);
    tlb.touch(page);
    nmi(tlb, 5);
    page.word.step(enter).check().expect("legal");
    nmi(tlb, 6);
}

fn post_and_free(page: &Page) -> Posted {
    let posted = page.word.post(Deferred::FlushKernelTlb);
    if matches!(posted, Posted::Left { .. }) {
        page.freed.store(1, Relaxed);
    }
    posted
}

fn posted_is_run_or_sent(exit: Step, enter: Step, at: u32, rounds: u32) {
    model(move || {
        let page = Arc::new(Page { word: ContextWord::new(), freed: AtomicU32::new(0) });
        page.word.step(enter).check().expect("legal");
        let poster = {
            let page = page.clone();
            thread::spawn(move || post_and_free(&page))
        };
        let mut tlb = Tlb { stale: true };
        for _ in 0..rounds {
            round(&page, &mut tlb, exit, enter, at);
        }
        let posted = poster.join().expect("poster");
        let transition = page.word.step(exit);
        let left = transition.check().expect("legal");
        // An NMI may have flushed as well, so a bit may be pending though nothing is stale.
        match posted {
            Posted::Left { .. } => assert!(!tlb.stale || left == Deferred::FLUSH_KERNEL_TLB, "a posted bit was lost"),
            Posted::SendIpi { .. } => assert!(tlb.stale && left == 0, "an IPI was sent and the bit left too"),
        }
        page.word.clear_deferred(left);
        // Nothing but what was posted and run may remain in the word.
        page.word.step(enter).check().expect("legal");
    });
}

#[test]
fn posted_to_user_is_run_or_an_ipi_was_sent() {
    posted_is_run_or_sent(Step::UserExit, Step::UserEnter, PLACES, 2);
}

#[test]
fn posted_to_idle_is_run_or_an_ipi_was_sent() {
    posted_is_run_or_sent(Step::IdleExit, Step::IdleEnter, PLACES, 2);
}

#[test]
fn posted_is_run_or_sent_with_an_nmi_at_every_place() {
    for at in 0..PLACES {
        posted_is_run_or_sent(Step::UserExit, Step::UserEnter, at, 1);
    }
}

#[test]
fn posted_is_run_or_sent_with_an_nmi_at_every_place_of_idle() {
    for at in 0..PLACES {
        posted_is_run_or_sent(Step::IdleExit, Step::IdleEnter, at, 1);
    }
}

/// Who posts a bit that is set already relies on it as much as who set it: its own stores are seen.
#[test]
fn posting_a_bit_that_is_set_orders_the_posters_stores() {
    model(|| {
        let shared = Arc::new((ContextWord::<2>::new(), AtomicU32::new(0)));
        shared.0.user_enter().check().expect("legal");
        assert!(matches!(shared.0.post(Deferred::SyncCore), Posted::Left { .. }));
        let poster = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.1.store(1, Relaxed);
                shared.0.post(Deferred::SyncCore)
            })
        };
        let bits = shared.0.user_exit().check().expect("legal");
        assert_eq!(bits, Deferred::SYNC_CORE);
        let mut seen = 0;
        shared.0.run_deferred(bits, |_| seen = shared.1.load(Relaxed));
        shared.0.user_enter().check().expect("legal");
        let posted = poster.join().expect("poster");
        let left = shared.0.user_exit().check().expect("legal");
        if matches!(posted, Posted::Left { .. }) && left == 0 {
            assert_eq!(seen, 1, "the work ran without the stores it was posted for");
        }
    });
}

/// Two posters of different items: neither loses the other's.
#[test]
fn two_posters_keep_both_bits() {
    model(|| {
        let word = Arc::new(ContextWord::<2>::new());
        word.user_enter().check().expect("legal");
        let other = {
            let word = word.clone();
            thread::spawn(move || word.post(Deferred::TickRecheck))
        };
        assert!(matches!(word.post(Deferred::RcuRecheck), Posted::Left { .. }));
        assert!(matches!(other.join().expect("poster"), Posted::Left { .. }));
        assert_eq!(word.user_exit().check(), Ok(Deferred::TICK_RECHECK | Deferred::RCU_RECHECK));
    });
}

/// An RCU-protected object: unpublished, then freed after a grace period.
struct Object {
    word: ContextWord<2>,
    published: AtomicU32,
    freed: AtomicU32,
}

impl Object {
    fn read(&self) {
        if self.published.load(Relaxed) == 1 {
            assert_eq!(self.freed.load(Relaxed), 0, "an RCU reader used freed memory");
        }
    }

    fn snapshot(&self) -> CpuSnapshot {
        CpuSnapshot { word: self.word.load(), qs: 0 }
    }

    /// Unpublishes, waits for a grace period by up to `scans` scans, frees if it ended.
    fn update(&self, scans: u32) -> bool {
        self.published.store(0, Relaxed);
        snapshot_fence();
        let start = self.snapshot();
        let mut over = passed(start, &start);
        for _ in 0..scans {
            over = over || passed(start, &self.snapshot());
        }
        if over {
            self.freed.store(1, Relaxed);
        }
        over
    }
}

fn readers_never_use_freed_memory(in_user: bool, scans: u32, reader: fn(&Object)) {
    model(move || {
        let object =
            Arc::new(Object { word: ContextWord::new(), published: AtomicU32::new(1), freed: AtomicU32::new(0) });
        if in_user {
            object.word.user_enter().check().expect("legal");
        }
        let updater = {
            let object = object.clone();
            thread::spawn(move || object.update(scans))
        };
        reader(&object);
        updater.join().expect("updater");
    });
}

/// The store-buffer case: the CPU enters the kernel while the updater takes its snapshot.
#[test]
fn entering_cpu_against_snapshot() {
    readers_never_use_freed_memory(true, 0, |object| {
        object.word.user_exit().check().expect("legal");
        object.read();
    });
}

#[test]
fn idle_exit_against_snapshot() {
    readers_never_use_freed_memory(false, 0, |object| {
        object.word.idle_enter().check().expect("legal");
        object.word.idle_exit().check().expect("legal");
        object.read();
    });
}

#[test]
fn cpu_that_leaves_and_comes_back_against_scans() {
    readers_never_use_freed_memory(false, 2, |object| {
        object.read();
        object.word.user_enter().check().expect("legal");
        object.word.user_exit().check().expect("legal");
        object.read();
    });
}

/// Four transitions bring a 2-bit counter back: the scan may miss them, never the other way round.
#[test]
fn wrapping_counter_against_scans() {
    readers_never_use_freed_memory(false, 1, |object| {
        object.read();
        for _ in 0..2 {
            object.word.user_enter().check().expect("legal");
            object.word.user_exit().check().expect("legal");
        }
        object.read();
    });
}

#[test]
fn nmi_from_user_mode_reads_under_rcu() {
    readers_never_use_freed_memory(true, 1, |object| {
        let token = object.word.nmi_enter();
        object.read();
        object.word.nmi_exit(token);
    });
}

/// An NMI before, inside and after the way in; and one in an NMI.
#[test]
fn nmis_around_user_exit_read_under_rcu() {
    readers_never_use_freed_memory(true, 0, |object| {
        let outer = object.word.nmi_enter();
        let inner = object.word.nmi_enter();
        assert!(!inner.entered);
        object.read();
        object.word.nmi_exit(inner);
        object.read();
        object.word.nmi_exit(outer);
        object.word.user_exit().check().expect("legal");
        let token = object.word.nmi_enter();
        assert!(!token.entered);
        object.word.nmi_exit(token);
        object.read();
    });
}

/// The grace period does end: a CPU that stays in user mode, or has been there, holds nothing.
#[test]
fn quiet_cpu_holds_no_grace_period() {
    model(|| {
        let object = Object { word: ContextWord::new(), published: AtomicU32::new(1), freed: AtomicU32::new(0) };
        assert!(!object.update(1), "a CPU that stays in the kernel must hold it");
        object.word.user_enter().check().expect("legal");
        assert!(object.update(0));
    });
}

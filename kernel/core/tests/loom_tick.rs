//! No tick is lost and none stays on: who sets a dependency kicks, who clears one tells nobody, and both change one word.
#![cfg(loom)]
use kcore::tick::{Decision, TickDep, TickMask, decide};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};

/// An expedited grace period sets its dependency and clears it again, while the scheduler sets another. What is left is exactly
/// the scheduler's: a set from an old value would bring the first one back (Linux, "rcu: Fix set/clear TICK_DEP_BIT_RCU_EXP
/// bitmask race") or lose the other.
#[test]
fn set_and_clear_leave_exactly_what_is_held() {
    loom::model(|| {
        let mask = Arc::new(TickMask::new());
        let other = mask.clone();
        let scheduler = loom::thread::spawn(move || other.set(TickDep::Sched));
        let kicked_by_rcu = mask.set(TickDep::RcuExp);
        assert!(mask.clear(TickDep::RcuExp));
        let kicked_by_scheduler = scheduler.join().unwrap();
        assert_eq!(mask.load(), TickDep::Sched.bit());
        assert!(kicked_by_rcu || kicked_by_scheduler, "somebody found the mask empty");
    });
}

/// A CPU stops its tick if it finds no dependency, and looks again when it is kicked.
#[test]
fn a_dependency_is_seen_or_kicks() {
    loom::model(|| {
        let shared = Arc::new((TickMask::new(), AtomicBool::new(false)));
        let setter = {
            let shared = shared.clone();
            loom::thread::spawn(move || {
                if shared.0.set(TickDep::RcuExp) {
                    shared.1.store(true, Ordering::Release);
                }
            })
        };
        let stopped = decide(0, shared.0.load(), 0, 0) == Decision::Stop;
        setter.join().unwrap();
        assert!(!stopped || shared.1.load(Ordering::Acquire), "the tick stopped, and nobody kicked");
    });
}

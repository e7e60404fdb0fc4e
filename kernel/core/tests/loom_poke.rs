//! loom: the list of sites being patched, under a #BP on another CPU.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p kcore --release --test loom_poke`.
//! The INT3 byte is an atomic here: who sees it went through the text, whose order after `publish` the patcher's
//! stores keep (x86_64 stores are not reordered with each other; the release store stands for that).
#![cfg(loom)]

use kcore::text_poke::PokeList;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

/// A breakpoint that is seen always finds where to go on, in a second batch as well.
#[test]
fn who_sees_the_trap_finds_its_target() {
    loom::model(|| {
        let list = Arc::new(PokeList::<2>::new());
        let text = Arc::new(AtomicU64::new(0));
        let cpu = {
            let (list, text) = (list.clone(), text.clone());
            thread::spawn(move || {
                // Interrupts are off from here to the end of the lookup, so the patcher's sync waits for it.
                let trapped = text.load(Ordering::Acquire);
                if trapped != 0 {
                    assert_eq!(list.lookup(trapped), Some(trapped + 100), "site {trapped} is not listed");
                }
            })
        };
        assert!(list.publish([(10, 110), (11, 111)].into_iter()));
        text.store(10, Ordering::Release);
        text.store(11, Ordering::Release);
        text.store(0, Ordering::Release);
        cpu.join().expect("no panic");
        list.retire();
        assert_eq!(list.lookup(10), None);
    });
}

/// Without the sync a lookup may come too late, but never goes to a wrong place.
#[test]
fn a_late_lookup_never_gets_a_foreign_target() {
    loom::model(|| {
        let list = Arc::new(PokeList::<1>::new());
        assert!(list.publish([(10, 110)].into_iter()));
        let cpu = {
            let list = list.clone();
            thread::spawn(move || {
                let target = list.lookup(10);
                assert!(target.is_none() || target == Some(110), "{target:?}");
            })
        };
        list.retire();
        cpu.join().expect("no panic");
    });
}

//! Tests of the context word by one CPU; with several, see tests/loom_context.rs.

use super::*;

#[test]
fn one_stay_in_user_mode() {
    let word: ContextWord = ContextWord::new();
    assert!(word.user_enter().is_plain());
    assert_eq!(word.load() & LOW_MASK, USER_EXPECTED);
    assert!(matches!(word.post(Deferred::FlushKernelTlb), Posted::Left { .. }));
    let back = word.user_exit();
    assert!(back.is_legal() && !back.is_plain());
    assert_eq!(back.deferred(), Deferred::FLUSH_KERNEL_TLB);
    assert_eq!(word.post(Deferred::SyncCore), Posted::SendIpi { state: State::Kernel });
    word.run_deferred(back.deferred(), |bits| {
        assert_eq!(bits, Deferred::FLUSH_KERNEL_TLB);
        assert_eq!(deferred(word.load()), bits, "bits are cleared after the work only");
    });
    assert_eq!(word.load(), INITIAL + 2 * WATCH);
}

#[test]
fn nmi_from_user_mode_refuses_posts() {
    let word: ContextWord = ContextWord::new();
    let _ = word.user_enter();
    let token = word.nmi_enter();
    assert_eq!(word.post(Deferred::FlushKernelTlb), Posted::SendIpi { state: State::User });
    word.nmi_exit(token);
    assert!(matches!(word.post(Deferred::FlushKernelTlb), Posted::Left { .. }));
}

#[test]
fn a_patient_post_waits_for_the_end_of_an_nmi_but_not_for_ever() {
    let word: ContextWord = ContextWord::new();
    let mut pauses = 0;
    let _ = word.post_patiently(Deferred::SyncCore, || pauses += 1);
    assert_eq!(pauses, 0, "a CPU in the kernel is not waited for");
    let _ = word.user_enter();
    let token = word.nmi_enter();
    let _ = word.post_patiently(Deferred::SyncCore, || pauses += 1);
    assert_eq!(pauses, NMI_TRIES);
    let posted = word.post_patiently(Deferred::SyncCore, || {
        if is_watching(word.load()) {
            word.nmi_exit(token);
        }
    });
    assert!(matches!(posted, Posted::Left { .. }));
}

#[test]
fn two_bit_counter_wraps() {
    let word: ContextWord<2> = ContextWord::new();
    let snapshot = word.load();
    for _ in 0..2 {
        assert!(word.user_enter().is_plain());
        assert!(quiescent_width::<2>(snapshot, word.load()));
        assert!(word.user_exit().is_plain());
    }
    assert_eq!(word.load(), snapshot);
    assert!(!quiescent_width::<2>(snapshot, word.load()));
}

#[test]
fn illegal_transition_is_told_and_recovered() {
    let word: ContextWord = ContextWord::new();
    let twice = word.user_exit();
    assert_eq!(twice.check(), Err(Illegal { step: Step::UserExit, old: INITIAL }));
    assert_eq!(word.recover(), Deferred::ALL);
    assert_eq!(word.load() & LOW_MASK, KERNEL_EXPECTED);
    assert!(counter(word.load()) >= counter(INITIAL));
}

/// Under Miri with weak memory: what was stored before a post is seen by whoever runs it.
#[test]
fn post_publishes_the_posters_stores() {
    use std::sync::atomic::AtomicU32;
    for _ in 0..if cfg!(miri) { 5 } else { 200 } {
        let (word, data) = (ContextWord::<48>::new(), AtomicU32::new(0));
        let _ = word.user_enter();
        std::thread::scope(|scope| {
            let poster = scope.spawn(|| {
                data.store(1, Ordering::Relaxed);
                word.post(Deferred::SyncCore)
            });
            let bits = word.user_exit().deferred();
            if bits != 0 {
                word.run_deferred(bits, |_| assert_eq!(data.load(Ordering::Relaxed), 1));
            }
            let sent = poster.join().expect("poster") == Posted::SendIpi { state: State::Kernel };
            assert_eq!(sent, bits == 0, "either run or an IPI");
        });
    }
}

//! No wake-up is lost: a sleeper that looks after prepare_sleep, and a waker that stores before wake.
#![cfg(loom)]
use kcore::task_state::{TaskState, Wake};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};

#[test]
fn no_wakeup_is_lost() {
    loom::model(|| {
        let s = Arc::new((TaskState::new(), AtomicU32::new(0), AtomicU32::new(0)));
        let waker = {
            let s = s.clone();
            loom::thread::spawn(move || {
                s.1.store(1, Ordering::Relaxed);
                if s.0.wake(false) == Wake::Enqueue {
                    s.2.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        s.0.prepare_sleep(false);
        let slept = if s.1.load(Ordering::Relaxed) == 1 {
            s.0.cancel_sleep();
            false
        } else {
            s.0.commit_sleep()
        };
        waker.join().unwrap();
        assert_eq!(slept, s.2.load(Ordering::Relaxed) == 1, "asleep exactly if the waker enqueued it");
        assert!(s.0.is_running(), "nobody is left asleep");
    });
}

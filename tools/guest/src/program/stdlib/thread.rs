//! stdlib: threads, channels, locks, thread-locals, panics.

use super::{Done, say};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock, mpsc};
use std::thread;
use std::time::Duration;

/// All of them.
pub fn all() -> Done {
    joined()?;
    channels();
    condition();
    barrier();
    scoped();
    parked();
    locals();
    panics();
    once();
    many()
}

fn joined() -> Done {
    let handles: Vec<_> = (0..8u64).map(|n| thread::spawn(move || (1..=n).product::<u64>())).collect();
    let values: Vec<_> = handles.into_iter().map(|h| h.join().unwrap_or(0)).collect();
    say(format_args!("joined {values:?}"));
    let named = thread::Builder::new().name("worker".into()).stack_size(256 * 1024);
    let name = named.spawn(|| thread::current().name().map(String::from))?.join();
    say(format_args!("name {:?}", name.ok().flatten()));
    say(format_args!("parallelism is at least one: {}", thread::available_parallelism()?.get() >= 1));
    Ok(())
}

fn channels() {
    let (sender, receiver) = mpsc::channel();
    for n in 0..4u32 {
        let sender = sender.clone();
        thread::spawn(move || (0..250).for_each(|i| _ = sender.send(n * 1000 + i)));
    }
    drop(sender);
    let mut all: Vec<u32> = receiver.iter().collect();
    all.sort_unstable();
    say(format_args!("channel {} sum {}", all.len(), all.iter().sum::<u32>()));
    let (sender, receiver) = mpsc::sync_channel(2);
    let producer = thread::spawn(move || (0..100u32).for_each(|i| _ = sender.send(i)));
    say(format_args!("bounded, in order: {}", receiver.iter().eq(0..100)));
    say(format_args!("producer {:?}", producer.join().is_ok()));
    let (_keep, receiver) = mpsc::channel::<()>();
    say(format_args!("nothing yet: {:?}", receiver.try_recv()));
    say(format_args!("nothing in time: {:?}", receiver.recv_timeout(Duration::from_millis(2))));
    let (sender, receiver) = mpsc::channel();
    drop(receiver);
    say(format_args!("nobody there: {:?}", sender.send(5)));
}

fn condition() {
    let pair = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
    let other = pair.clone();
    let handle = thread::spawn(move || {
        for n in 0..50u32 {
            let (lock, changed) = &*other;
            let Ok(list) = lock.lock() else { return };
            let Ok(mut list) = changed.wait_while(list, |l| l.len() % 2 == 0) else { return };
            list.push(n * 2 + 1);
            changed.notify_all();
        }
    });
    let (lock, changed) = &*pair;
    for n in 0..50u32 {
        let list = lock.lock().unwrap_or_else(|p| p.into_inner());
        let mut list = changed.wait_while(list, |l| l.len() % 2 == 1).unwrap_or_else(|p| p.into_inner());
        list.push(n * 2);
        changed.notify_all();
    }
    let joined = handle.join().is_ok();
    let list = lock.lock().unwrap_or_else(|p| p.into_inner());
    say(format_args!("turns {joined} {} in order: {}", list.len(), list.iter().copied().eq(0..100)));
    let (_list, result) = changed.wait_timeout(list, Duration::from_millis(2)).unwrap_or_else(|p| p.into_inner());
    say(format_args!("wait timed out: {}", result.timed_out()));
}

fn barrier() {
    let barrier = Arc::new(Barrier::new(6));
    let arrived = Arc::new(AtomicUsize::new(0));
    let handles: Vec<_> = (0..6)
        .map(|_| {
            let (barrier, arrived) = (barrier.clone(), arrived.clone());
            thread::spawn(move || {
                let mut leaders = 0;
                for round in 1..=20 {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    leaders += usize::from(barrier.wait().is_leader());
                    assert!(arrived.load(Ordering::SeqCst) >= 6 * round);
                    barrier.wait();
                }
                leaders
            })
        })
        .collect();
    let leaders: usize = handles.into_iter().filter_map(|h| h.join().ok()).sum();
    say(format_args!("barrier {} leaders {leaders}", arrived.load(Ordering::SeqCst)));
}

fn scoped() {
    let numbers: Vec<u64> = (1..=1000).collect();
    let total = Mutex::new(0);
    thread::scope(|scope| {
        for part in numbers.chunks(100) {
            scope.spawn(|| {
                let sum = part.iter().sum::<u64>();
                *total.lock().unwrap_or_else(|p| p.into_inner()) += sum;
            });
        }
    });
    say(format_args!("scoped {:?}", total.into_inner().ok()));
    let lock = RwLock::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| *lock.write().unwrap_or_else(|p| p.into_inner()) += 1));
            scope.spawn(|| (0..100).for_each(|_| _ = *lock.read().unwrap_or_else(|p| p.into_inner())));
        }
    });
    say(format_args!("read-write lock {:?}", lock.into_inner().ok()));
}

fn parked() {
    let told = Arc::new(AtomicBool::new(false));
    let seen = told.clone();
    let handle = thread::spawn(move || {
        while !seen.load(Ordering::SeqCst) {
            thread::park();
        }
        "woken"
    });
    told.store(true, Ordering::SeqCst);
    handle.thread().unpark();
    say(format_args!("parked {:?}", handle.join().ok()));
    thread::current().unpark();
    thread::park(); // the token is there
    thread::park_timeout(Duration::from_millis(1));
    say("park returned");
}

fn locals() {
    thread_local!(static OWN: Cell<u32> = const { Cell::new(7) });
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    struct Counts;
    impl Drop for Counts {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }
    thread_local!(static GOES: Counts = const { Counts });
    OWN.set(1);
    let others: Vec<u32> = (0..4)
        .map(|n| {
            let handle = thread::spawn(move || {
                GOES.with(|_| ());
                OWN.set(OWN.get() + n);
                OWN.get()
            });
            handle.join().unwrap_or(0)
        })
        .collect();
    say(format_args!("locals {others:?} own {} dropped {}", OWN.get(), DROPPED.load(Ordering::SeqCst)));
}

fn panics() {
    std::panic::set_hook(Box::new(|_| ())); // their text names a source line
    let lock = Arc::new(Mutex::new(1));
    let other = lock.clone();
    let result = thread::spawn(move || {
        let _held = other.lock();
        panic!("on purpose {}", 3);
    });
    let payload = result.join().err();
    let text = payload
        .as_ref()
        .and_then(|p| p.downcast_ref::<String>().map(String::as_str).or_else(|| p.downcast_ref::<&str>().copied()));
    say(format_args!("thread panicked {text:?}, poisoned {}", lock.is_poisoned()));
    let caught = std::panic::catch_unwind(|| {
        let list = std::hint::black_box(vec![1, 2, 3]);
        list[std::hint::black_box(9)]
    });
    say(format_args!("caught {}", caught.is_err()));
    let _ = std::panic::take_hook();
}

fn once() {
    static ONCE: Once = Once::new();
    static CELL: OnceLock<u32> = OnceLock::new();
    static LAZY: LazyLock<Vec<u32>> = LazyLock::new(|| vec![4, 5]);
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    thread::scope(|scope| {
        for n in 0..8 {
            scope.spawn(move || {
                ONCE.call_once(|| _ = RUNS.fetch_add(1, Ordering::SeqCst));
                CELL.get_or_init(|| n);
                assert_eq!(LAZY.len(), 2);
            });
        }
    });
    say(format_args!("once {} cell set {}", RUNS.load(Ordering::SeqCst), CELL.get().is_some()));
}

fn many() -> Done {
    let shared = Arc::new((Mutex::new(0u64), Condvar::new(), Barrier::new(64)));
    let mut handles = Vec::new();
    for n in 0..64u64 {
        let shared = shared.clone();
        handles.push(thread::Builder::new().stack_size(128 * 1024).spawn(move || {
            let (sum, changed, barrier) = &*shared;
            barrier.wait();
            for _ in 0..20 {
                *sum.lock().unwrap_or_else(|p| p.into_inner()) += n;
                thread::yield_now();
            }
            changed.notify_all();
            vec![n; 1000].iter().sum::<u64>()
        })?);
    }
    let own: u64 = handles.into_iter().filter_map(|h| h.join().ok()).sum();
    let sum = *shared.0.lock().unwrap_or_else(|p| p.into_inner());
    say(format_args!("64 threads: shared {sum} own {own}"));
    Ok(())
}

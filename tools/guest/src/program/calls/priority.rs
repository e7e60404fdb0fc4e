//! Futexes with priority inheritance: errors, who gets the lock, what its holder inherits and by way of whom, time limits, ends, requeues.

use super::{Check, call, ensure, equal, in_child};
use crate::linux::{self, Ended};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("priority_lock_alone", lock_alone),
    ("priority_lock_chain", lock_chain),
    ("priority_lock_limits", lock_limits),
    ("priority_lock_other_uses", lock_other_uses),
    ("priority_lock_ends", lock_ends),
    ("priority_requeue", requeue),
    ("futex_order", order),
];

const WAIT: u64 = 0;
const WAKE: u64 = 1;
const REQUEUE: u64 = 3;
const WAKE_OP: u64 = 5;
const LOCK: u64 = 6;
const UNLOCK: u64 = 7;
const TRY: u64 = 8;
const WAIT_REQUEUE: u64 = 11;
const CMP_REQUEUE: u64 = 12;
const LOCK2: u64 = 13;
const PRIVATE: u64 = 128;
const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
const TID: u32 = 0x3fff_ffff;

fn futex(word: &AtomicU32, op: u64, value: u64, timeout: u64, other: u64, value3: u64) -> Result<u64, i32> {
    call(libc::SYS_futex, [word as *const _ as u64, op | PRIVATE, value, timeout, other, value3])
}

fn lock(word: &AtomicU32) -> Result<u64, i32> {
    futex(word, LOCK, 0, 0, 0, 0)
}

fn unlock(word: &AtomicU32) -> Result<u64, i32> {
    futex(word, UNLOCK, 0, 0, 0, 0)
}

fn tid() -> u32 {
    call(libc::SYS_gettid, [0; 6]).unwrap_or(0) as u32
}

/// A number of /proc/self/task/TID/stat, counted from the state, which is field 3.
fn stat(tid: u32, field: usize) -> String {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').nth(field - 3).unwrap_or("").to_string()
}

/// With pauses: the caller may be more urgent than that thread, on the same CPU.
pub(super) fn until_asleep(tid: u32) {
    while stat(tid, 3) != "S" {
        linux::sleep_ns(200_000);
    }
}

/// The priority that the thread runs with, as stat has it: 20, or -1 - that of SCHED_FIFO.
fn priority(tid: u32) -> i32 {
    stat(tid, 18).parse().unwrap_or(i32::MAX)
}

/// A thread with this FIFO priority (0: the usual class) that does `work` and gives what that gives; and its id.
fn thread<T: Send + 'static>(fifo: i32, work: impl FnOnce() -> T + Send + 'static) -> (u32, JoinHandle<T>) {
    let (sender, receiver) = mpsc::channel();
    let handle = std::thread::spawn(move || {
        if fifo != 0 {
            let _ = linux::set_fifo(fifo);
        }
        let _ = sender.send(tid());
        work()
    });
    (receiver.recv().unwrap_or(0), handle)
}

fn join<T>(handle: JoinHandle<T>) -> Result<T, String> {
    handle.join().map_err(|_| "a thread panicked".to_string())
}

fn lock_alone() -> Result<(), String> {
    let word = AtomicU32::new(0);
    equal!(unlock(&word), Err(libc::EPERM));
    equal!(lock(&word), Ok(0));
    equal!(word.load(Ordering::SeqCst), tid());
    equal!(lock(&word), Err(libc::EDEADLK));
    equal!(futex(&word, TRY, 0, 0, 0, 0), Err(libc::EDEADLK));
    equal!(unlock(&word), Ok(0));
    equal!(word.load(Ordering::SeqCst), 0);
    // What the last holder left: the lock is taken with the mark.
    word.store(OWNER_DIED, Ordering::SeqCst);
    equal!(futex(&word, TRY, 0, 0, 0, 0), Ok(0));
    equal!(word.load(Ordering::SeqCst), tid() | OWNER_DIED);
    equal!(unlock(&word), Ok(0));
    // Nobody has this id.
    word.store(TID, Ordering::SeqCst);
    equal!(lock(&word), Err(libc::ESRCH));
    let at = &word as *const _ as u64;
    equal!(call(libc::SYS_futex, [at + 1, LOCK, 0, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_futex, [0, LOCK, 0, 0, 0, 0]), Err(libc::EFAULT));
    // SAFETY: (1) a new mapping.
    let read_only =
        unsafe { libc::mmap(null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    equal!(call(libc::SYS_futex, [read_only as u64, LOCK, 0, 0, 0, 0]), Err(libc::EFAULT));
    let (_, other) = thread(0, move || {
        let word = AtomicU32::new(0);
        (lock(&word), futex(&word, TRY, 0, 0, 0, 0), unlock(&word))
    });
    equal!(join(other)?, (Ok(0), Err(libc::EDEADLK), Ok(0)));
    Ok(())
}

/// The main thread, of the usual class, holds `a`; one of priority 10 holds `b` and waits for `a`; one of 30 waits for `b`.
fn lock_chain() -> Result<(), String> {
    let words = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let order = Arc::new(AtomicU32::new(0));
    let me = tid();
    equal!(lock(&words[0]), Ok(0));
    equal!(priority(me), 20);
    let (shared, turn) = (words.clone(), order.clone());
    let (ten, holds_b) = thread(10, move || {
        let done = (lock(&shared[1]), lock(&shared[0]));
        let at = turn.fetch_add(1, Ordering::SeqCst);
        let released = (unlock(&shared[0]), unlock(&shared[1]));
        (done, released, at)
    });
    until_asleep(ten);
    equal!(priority(me), -11);
    equal!(words[0].load(Ordering::SeqCst), me | WAITERS);
    equal!(stat(me, 40), "0"); // its own real-time priority
    let waiter = |fifo: i32| {
        let (shared, turn) = (words.clone(), order.clone());
        thread(fifo, move || {
            let locked = lock(&shared[1]);
            let at = turn.fetch_add(1, Ordering::SeqCst);
            (locked, unlock(&shared[1]), at)
        })
    };
    let (five, waits_5) = waiter(5);
    until_asleep(five);
    let (thirty, waits_30) = waiter(30);
    until_asleep(thirty);
    equal!((priority(me), priority(ten)), (-31, -31));
    equal!(futex(&words[1], TRY, 0, 0, 0, 0), Err(libc::EAGAIN));
    // It would wait for itself by way of both.
    equal!(lock(&words[1]), Err(libc::EDEADLK));
    // A class that is changed while it waits.
    ensure!(linux::set_fifo_of(thirty as i32, 40).is_ok());
    equal!((priority(me), priority(ten)), (-41, -41));
    equal!(unlock(&words[0]), Ok(0));
    equal!(priority(me), 20);
    equal!(join(holds_b)?, ((Ok(0), Ok(0)), (Ok(0), Ok(0)), 0));
    // The more urgent one first, though it came last.
    equal!(join(waits_30)?, (Ok(0), Ok(0), 1));
    equal!(join(waits_5)?, (Ok(0), Ok(0), 2));
    equal!((words[0].load(Ordering::SeqCst), words[1].load(Ordering::SeqCst)), (0, 0));
    Ok(())
}

fn lock_limits() -> Result<(), String> {
    let word = Arc::new(AtomicU32::new(0));
    equal!(lock(&word), Ok(0));
    let shared = word.clone();
    let (_, other) = thread(10, move || {
        let past = [0u64, 1];
        let limit = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000];
        let soon = limit(linux::monotonic_ns() + 3_000_000);
        let bad = [0u64, 2_000_000_000];
        [
            futex(&shared, LOCK, 0, past.as_ptr() as u64, 0, 0),
            futex(&shared, LOCK2, 0, soon.as_ptr() as u64, 0, 0),
            futex(&shared, LOCK2 | 256, 0, past.as_ptr() as u64, 0, 0),
            futex(&shared, LOCK, 0, bad.as_ptr() as u64, 0, 0),
            unlock(&shared),
        ]
    });
    let late = Err(libc::ETIMEDOUT);
    equal!(join(other)?, [late, late, late, Err(libc::EINVAL), Err(libc::EPERM)]);
    // Who gave up is waited for no more.
    equal!(priority(tid()), 20);
    equal!(unlock(&word), Ok(0));
    equal!(word.load(Ordering::SeqCst), 0);
    Ok(())
}

/// A word is either a lock or what a program makes of it itself.
fn lock_other_uses() -> Result<(), String> {
    let words = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let other = &words[1] as *const _ as u64;
    equal!(lock(&words[0]), Ok(0));
    let shared = words.clone();
    let (waiter, waits) = thread(0, move || (lock(&shared[0]), unlock(&shared[0])));
    until_asleep(waiter);
    equal!(futex(&words[0], WAKE, 1, 0, 0, 0), Err(libc::EINVAL));
    equal!(futex(&words[0], WAKE_OP, 1, 1, other, 0), Err(libc::EINVAL));
    equal!(futex(&words[0], REQUEUE, 1, 1, other, 0), Err(libc::EINVAL));
    // Others' words are what they were.
    equal!(futex(&words[1], WAKE, 1, 0, 0, 0), Ok(0));
    equal!(unlock(&words[0]), Ok(0));
    equal!(join(waits)?, (Ok(0), Ok(0)));
    equal!(futex(&words[0], WAKE, 1, 0, 0, 0), Ok(0));

    let shared = words.clone();
    let (waiter, waits) = thread(0, move || futex(&shared[1], WAIT, 0, 0, 0, 0));
    until_asleep(waiter);
    equal!(lock(&words[1]), Err(libc::EINVAL));
    equal!(futex(&words[1], TRY, 0, 0, 0, 0), Err(libc::EINVAL));
    equal!(futex(&words[1], WAKE, 1, 0, 0, 0), Ok(1));
    equal!(join(waits)?, Ok(0));
    equal!(lock(&words[1]), Ok(0));
    equal!(unlock(&words[1]), Ok(0));
    Ok(())
}

/// A holder that ends without unlocking: who waits gets the lock with the mark. In memory of two processes, too.
fn lock_ends() -> Result<(), String> {
    let word = Arc::new(AtomicU32::new(0));
    let shared = word.clone();
    let (go, wait) = mpsc::channel();
    let (_, holder) = thread(0, move || {
        let locked = lock(&shared);
        let _ = wait.recv();
        locked
    });
    while word.load(Ordering::SeqCst) == 0 {
        linux::sleep_ns(200_000);
    }
    let shared = word.clone();
    let (waiter, waits) = thread(0, move || (lock(&shared), shared.load(Ordering::SeqCst) & !WAITERS, unlock(&shared)));
    until_asleep(waiter);
    let _ = go.send(());
    equal!(join(holder)?, Ok(0));
    equal!(join(waits)?, (Ok(0), waiter | OWNER_DIED, Ok(0)));
    equal!(word.load(Ordering::SeqCst), 0);

    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping.
    let at = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    ensure!(at != libc::MAP_FAILED);
    // SAFETY: (1) mapped, aligned, zeroed, and used through atomics only.
    let words = unsafe { &*at.cast::<[AtomicU32; 2]>() };
    let lock_shared = || call(libc::SYS_futex, [&words[0] as *const _ as u64, LOCK, 0, 0, 0, 0]);
    let ended = in_child(|| {
        // The robust list: this one lock, whose entry is marked as one with inheritance.
        let mut entry = [0u64; 2];
        let mut head = [0u64; 3];
        let at_entry = entry.as_ptr() as u64;
        entry[0] = head.as_ptr() as u64;
        head = [at_entry | 1, (&words[0] as *const _ as u64).wrapping_sub(at_entry), 0];
        let listed = call(libc::SYS_set_robust_list, [head.as_ptr() as u64, 24, 0, 0, 0, 0]);
        let ok = listed == Ok(0) && lock_shared() == Ok(0);
        std::hint::black_box((&entry, &head));
        u8::from(!ok)
    })?;
    equal!(ended, Ended::Exit(0));
    equal!(words[0].load(Ordering::SeqCst), OWNER_DIED);
    equal!(lock_shared(), Ok(0));
    equal!(words[0].load(Ordering::SeqCst), tid() | OWNER_DIED);
    Ok(())
}

fn requeue() -> Result<(), String> {
    // A word that is waited for without a holder, and the lock that its waiters go on to.
    let words = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let at = |i: usize| &words[i] as *const _ as u64;
    equal!(futex(&words[0], WAIT_REQUEUE, 1, 0, at(1), 0), Err(libc::EAGAIN));
    equal!(futex(&words[0], WAIT_REQUEUE, 0, 0, at(0), 0), Err(libc::EINVAL));
    let past = [0u64, 1];
    equal!(futex(&words[0], WAIT_REQUEUE, 0, past.as_ptr() as u64, at(1), 0), Err(libc::ETIMEDOUT));
    equal!(futex(&words[0], CMP_REQUEUE, 1, 9, at(1), 1), Err(libc::EAGAIN));
    equal!(futex(&words[0], CMP_REQUEUE, 2, 9, at(1), 0), Err(libc::EINVAL));
    let order = Arc::new(AtomicU32::new(0));
    let waiters: Vec<_> = [0, 10, 20]
        .map(|fifo| {
            let (shared, turn) = (words.clone(), order.clone());
            let (id, handle) = thread(fifo, move || {
                let got = futex(&shared[0], WAIT_REQUEUE, 0, 0, &shared[1] as *const _ as u64, 0);
                let at = turn.fetch_add(1, Ordering::SeqCst);
                (got, shared[1].load(Ordering::SeqCst) & TID == tid(), unlock(&shared[1]), at)
            });
            until_asleep(id);
            (id, handle)
        })
        .into_iter()
        .collect();
    equal!(futex(&words[0], WAKE, 9, 0, 0, 0), Err(libc::EINVAL)); // not for these
    // The lock is held: all three wait for it now, and its holder inherits.
    equal!(lock(&words[1]), Ok(0));
    equal!(futex(&words[0], CMP_REQUEUE, 1, 9, at(1), 0), Ok(3));
    equal!(priority(tid()), -21);
    equal!(unlock(&words[1]), Ok(0));
    equal!(priority(tid()), 20);
    for ((_, handle), turn) in waiters.into_iter().zip([2, 1, 0]) {
        equal!(join(handle)?, (Ok(0), true, Ok(0), turn));
    }
    // The lock is free: who is moved first has it.
    let shared = words.clone();
    let (id, handle) = thread(0, move || {
        let got = futex(&shared[0], WAIT_REQUEUE, 0, 0, &shared[1] as *const _ as u64, 0);
        (got, shared[1].load(Ordering::SeqCst) & TID, unlock(&shared[1]))
    });
    until_asleep(id);
    equal!(futex(&words[0], CMP_REQUEUE, 1, 0, at(1), 0), Ok(1));
    equal!(join(handle)?, (Ok(0), id, Ok(0)));
    Ok(())
}

/// Who is woken first: by FIFO priority, then those of the usual class as they came; also after a requeue. A count below one is one.
fn order() -> Result<(), String> {
    // A wrong order is a wait without end.
    // SAFETY: (1) no memory is passed.
    unsafe { libc::alarm(60) };
    let words = Arc::new([const { AtomicU32::new(0) }; 2]);
    for moved in [false, true] {
        let mut waiters = Vec::new();
        for fifo in [0, 10, 0, 30, 20, 30] {
            let shared = words.clone();
            let (tid, handle) = thread(fifo, move || while futex(&shared[0], WAIT, 0, 0, 0, 0) == Err(libc::EINTR) {});
            until_asleep(tid);
            waiters.push(handle);
        }
        let mut at = &words[0];
        if moved {
            equal!(futex(at, REQUEUE, 0, 99, &raw const words[1] as u64, 0), Ok(6));
            at = &words[1];
        }
        let mut left: Vec<usize> = (0..waiters.len()).collect();
        for (next, count) in [3, 5, 4, 1, 0, 2].into_iter().zip([1, 0, u64::from(u32::MAX), 1, 0, 1]) {
            equal!(futex(at, WAKE, count, 0, 0, 0), Ok(1));
            left.retain(|&i| i != next);
            while !waiters[next].is_finished() {
                linux::sleep_ns(200_000);
            }
            ensure!(left.iter().all(|&i| !waiters[i].is_finished()));
        }
        equal!(futex(at, WAKE, 0, 0, 0, 0), Ok(0));
        waiters.into_iter().try_for_each(join)?;
    }
    Ok(())
}

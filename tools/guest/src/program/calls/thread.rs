//! Threads: creation, futexes, ends, affinity, flushes of other CPUs' translations.

use super::{Check, call, ensure, equal, in_child, own_path};
use crate::linux::{self, Ended};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("threads", threads),
    ("thread_local", thread_local_storage),
    ("condition", condition),
    ("channel", channel),
    ("futex_errors", futex_errors),
    ("futex_timeout", futex_timeout),
    ("futex_requeue", futex_requeue),
    ("futex_shared", futex_shared),
    ("exit_from_thread", exit_from_thread),
    ("exec_from_thread", exec_from_thread),
    ("kill_all_threads", kill_all_threads),
    ("affinity", affinity),
    ("scheduling_class", scheduling_class),
    ("barrier_call", barrier_call),
    ("unmap_under_others", unmap_under_others),
    ("fork_with_threads", fork_with_threads),
];

fn threads() -> Result<(), String> {
    const THREADS: usize = 8;
    const ROUNDS: usize = 2000;
    let total = Arc::new(Mutex::new(0usize));
    let together = Arc::new(Barrier::new(THREADS));
    let handles: Vec<_> = (0..THREADS)
        .map(|i| {
            let (total, together) = (total.clone(), together.clone());
            std::thread::spawn(move || {
                together.wait();
                for _ in 0..ROUNDS {
                    if let Ok(mut t) = total.lock() {
                        *t += 1;
                    }
                }
                i
            })
        })
        .collect();
    for (i, handle) in handles.into_iter().enumerate() {
        equal!(handle.join().map_err(|_| "a thread panicked")?, i);
    }
    equal!(total.lock().map(|t| *t).unwrap_or(0), THREADS * ROUNDS);
    Ok(())
}

fn thread_local_storage() -> Result<(), String> {
    thread_local!(static OWN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });
    OWN.set(1);
    for i in 2..20 {
        let seen = std::thread::spawn(move || {
            let before = OWN.get();
            OWN.set(i);
            std::thread::yield_now();
            (before, OWN.get())
        });
        equal!(seen.join().map_err(|_| "a thread panicked")?, (0, i));
    }
    equal!(OWN.get(), 1);
    Ok(())
}

fn condition() -> Result<(), String> {
    let shared = Arc::new((Mutex::new(0u32), Condvar::new()));
    let other = shared.clone();
    const ROUNDS: u32 = 500;
    let handle = std::thread::spawn(move || {
        let (mutex, changed) = &*other;
        for round in 0..ROUNDS {
            let Ok(guard) = mutex.lock() else { return };
            let Ok(mut guard) = changed.wait_while(guard, |v| *v != 2 * round + 1) else { return };
            *guard += 1;
            changed.notify_one();
        }
    });
    let (mutex, changed) = &*shared;
    for round in 0..ROUNDS {
        let mut guard = mutex.lock().map_err(|_| "poisoned")?;
        equal!(*guard, 2 * round);
        *guard += 1;
        changed.notify_one();
        let guard = changed.wait_while(guard, |v| *v != 2 * round + 2).map_err(|_| "poisoned")?;
        drop(guard);
    }
    handle.join().map_err(|_| "a thread panicked".to_string())
}

fn channel() -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    for i in 0..4u64 {
        let sender = sender.clone();
        std::thread::spawn(move || (0..500).for_each(|n| _ = sender.send(i * 1000 + n)));
    }
    drop(sender);
    let sum: u64 = receiver.iter().sum();
    equal!(sum, 4 * (0..500).sum::<u64>() + 500 * (1000 + 2000 + 3000));
    Ok(())
}

fn futex(word: &AtomicU32, op: u64, value: u64, timeout: u64) -> Result<u64, i32> {
    call(libc::SYS_futex, [word as *const _ as u64, op, value, timeout, 0, u64::from(u32::MAX)])
}

fn futex_errors() -> Result<(), String> {
    let word = AtomicU32::new(5);
    equal!(futex(&word, 0, 6, 0), Err(libc::EAGAIN));
    equal!(futex(&word, 128, 6, 0), Err(libc::EAGAIN));
    equal!(futex(&word, 1, 1, 0), Ok(0));
    equal!(futex(&word, 99, 0, 0), Err(libc::ENOSYS));
    equal!(call(libc::SYS_futex, [&word as *const _ as u64 + 1, 0, 5, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_futex, [&word as *const _ as u64, 9, 5, 0, 0, 0]), Err(libc::EINVAL)); // no bits
    let bad = [0u64, 2_000_000_000];
    equal!(futex(&word, 0, 5, bad.as_ptr() as u64), Err(libc::EINVAL));
    Ok(())
}

fn futex_timeout() -> Result<(), String> {
    let word = AtomicU32::new(5);
    let limit = [0u64, 2_000_000];
    let start = linux::monotonic_ns();
    equal!(futex(&word, 128, 5, limit.as_ptr() as u64), Err(libc::ETIMEDOUT));
    ensure!(linux::monotonic_ns() - start >= 2_000_000);
    // FUTEX_WAIT_BITSET: an absolute time, here one that is past.
    equal!(futex(&word, 9 | 128, 5, limit.as_ptr() as u64), Err(libc::ETIMEDOUT));
    Ok(())
}

/// Waits until `count` threads of this process sleep.
pub(super) fn until_asleep(tids: &[u64]) {
    let sleeps = |tid: &u64| {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat"));
        stat.is_ok_and(|t| t.rsplit(')').next().is_some_and(|r| r.starts_with(" S")))
    };
    while !tids.iter().all(sleeps) {
        std::thread::yield_now();
    }
}

fn futex_requeue() -> Result<(), String> {
    const WAITERS: usize = 4;
    let words = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let woken = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = mpsc::channel();
    let handles: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (words, woken, sender) = (words.clone(), woken.clone(), sender.clone());
            std::thread::spawn(move || {
                let _ = sender.send(call(libc::SYS_gettid, [0; 6]).unwrap_or(0));
                while futex(&words[0], 128, 0, 0) == Err(libc::EINTR) {}
                woken.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    let tids: Vec<u64> = receiver.iter().take(WAITERS).collect();
    until_asleep(&tids);
    let at = |i: usize| &words[i] as *const _ as u64;
    // FUTEX_CMP_REQUEUE: wake one, move the others; with a wrong value nothing.
    equal!(call(libc::SYS_futex, [at(0), 4 | 128, 1, 99, at(1), 7]), Err(libc::EAGAIN));
    equal!(call(libc::SYS_futex, [at(0), 4 | 128, 1, 99, at(1), 0]), Ok(WAITERS as u64));
    while woken.load(Ordering::SeqCst) != 1 {
        std::thread::yield_now();
    }
    equal!(futex(&words[0], 1 | 128, 99, 0), Ok(0));
    equal!(futex(&words[1], 1 | 128, 99, 0), Ok(WAITERS as u64 - 1));
    for handle in handles {
        handle.join().map_err(|_| "a thread panicked")?;
    }
    equal!(woken.load(Ordering::SeqCst), WAITERS);
    Ok(())
}

/// A futex in memory that two processes share.
fn futex_shared() -> Result<(), String> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping.
    let at = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    ensure!(at != libc::MAP_FAILED);
    // SAFETY: (1) mapped, aligned, zeroed, and used through atomics only.
    let words = unsafe { &*at.cast::<[AtomicU32; 2]>() };
    let ended = in_child(|| {
        let Ok(linux::Fork::Parent(child)) = linux::fork() else {
            for i in 0..200 {
                while words[0].load(Ordering::SeqCst) == i {
                    let _ = futex(&words[0], 0, u64::from(i), 0);
                }
                words[1].store(i + 1, Ordering::SeqCst);
                let _ = futex(&words[1], 1, 1, 0);
            }
            linux::exit_now(0)
        };
        for i in 0..200 {
            words[0].store(i + 1, Ordering::SeqCst);
            let _ = futex(&words[0], 1, 1, 0);
            while words[1].load(Ordering::SeqCst) == i {
                let _ = futex(&words[1], 0, u64::from(i), 0);
            }
        }
        // SAFETY: (1) null is allowed.
        u8::from(unsafe { libc::waitpid(child, null_mut(), 0) } != child)
    })?;
    equal!(ended, Ended::Exit(0));
    Ok(())
}

fn exit_from_thread() -> Result<(), String> {
    let ended = in_child(|| {
        for _ in 0..3 {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
        }
        std::thread::spawn(|| linux::exit_now(23));
        loop {
            std::thread::yield_now();
        }
    })?;
    equal!(ended, Ended::Exit(23));
    Ok(())
}

fn exec_from_thread() -> Result<(), String> {
    let (mut reader, writer) = std::io::pipe().map_err(|e| e.to_string())?;
    let ended = in_child(|| {
        std::thread::spawn(|| {
            loop {
                std::thread::yield_now();
            }
        });
        std::thread::spawn(move || {
            let _ = Command::new(own_path()).arg(super::process::EXEC_CHECK).stdout(writer).exec();
        });
        loop {
            std::thread::park();
        }
    })?;
    equal!(ended, Ended::Exit(42));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).map_err(|e| e.to_string())?;
    ensure!(text.starts_with("args= "));
    Ok(())
}

fn kill_all_threads() -> Result<(), String> {
    let ended = in_child(|| {
        let handles: Vec<_> = (0..4)
            .map(|i| {
                std::thread::spawn(move || {
                    loop {
                        if i % 2 == 0 {
                            std::thread::yield_now();
                        } else {
                            std::thread::park();
                        }
                    }
                })
            })
            .collect();
        // SAFETY: (1) no memory is passed.
        unsafe { libc::kill(linux::own_pid(), libc::SIGTERM) };
        handles.into_iter().for_each(|h| drop(h.join()));
        0
    })?;
    equal!(ended, Ended::Signal(libc::SIGTERM));
    Ok(())
}

fn affinity() -> Result<(), String> {
    let mut online = [0u64; 16];
    let get = |at: &mut [u64; 16]| call(libc::SYS_sched_getaffinity, [0, 128, at.as_mut_ptr() as u64, 0, 0, 0]);
    ensure!(get(&mut online).is_ok_and(|n| n >= 8 && n % 8 == 0));
    let set = |mask: u64| call(libc::SYS_sched_setaffinity, [0, 8, &raw const mask as u64, 0, 0, 0]);
    equal!(set(0), Err(libc::EINVAL));
    let first = online[0];
    for cpu in (0..64).filter(|c| first >> c & 1 != 0) {
        equal!(set(1 << cpu), Ok(0));
        let mut now = u32::MAX;
        equal!(call(libc::SYS_getcpu, [&raw mut now as u64, 0, 0, 0, 0, 0]), Ok(0));
        equal!(now, cpu);
        let mut own = [0u64; 16];
        ensure!(get(&mut own).is_ok());
        equal!(own[0], 1 << cpu);
        // A child starts where its parent may run.
        let ended = in_child(|| {
            let mut now = u32::MAX;
            let _ = call(libc::SYS_getcpu, [&raw mut now as u64, 0, 0, 0, 0, 0]);
            u8::from(now != cpu)
        })?;
        equal!(ended, Ended::Exit(0));
    }
    equal!(set(first), Ok(0));
    equal!(call(libc::SYS_sched_setaffinity, [99_999, 8, &raw const first as u64, 0, 0, 0]), Err(libc::ESRCH));
    Ok(())
}

fn scheduling_class() -> Result<(), String> {
    let set = |policy: u64, priority: u32| {
        call(libc::SYS_sched_setscheduler, [0, policy, &raw const priority as u64, 0, 0, 0])
    };
    equal!(set(1, 0), Err(libc::EINVAL));
    equal!(set(0, 1), Err(libc::EINVAL));
    equal!(set(77, 1), Err(libc::EINVAL));
    equal!(set(1, 10), Ok(0));
    equal!(call(libc::SYS_sched_getscheduler, [0; 6]), Ok(1));
    let mut priority = 0u32;
    equal!(call(libc::SYS_sched_getparam, [0, &raw mut priority as u64, 0, 0, 0, 0]), Ok(0));
    equal!(priority, 10);
    equal!(call(libc::SYS_sched_yield, [0; 6]), Ok(0));
    equal!(set(0, 0), Ok(0));
    equal!(call(libc::SYS_sched_get_priority_max, [1, 0, 0, 0, 0, 0]), Ok(99));
    Ok(())
}

fn barrier_call() -> Result<(), String> {
    let membarrier = |command: u64| call(libc::SYS_membarrier, [command, 0, 0, 0, 0, 0]);
    let known = membarrier(0).map_err(|e| format!("query: {e}"))?;
    ensure!(known & 0b11000 == 0b11000);
    equal!(membarrier(8), Err(libc::EPERM));
    equal!(membarrier(16), Ok(0));
    let stop = Arc::new(AtomicBool::new(false));
    let other = stop.clone();
    let handle = std::thread::spawn(move || {
        while !other.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    for _ in 0..100 {
        equal!(membarrier(8), Ok(0));
    }
    ensure!(known & 0b110_0000 == 0b110_0000);
    equal!(membarrier(32), Err(libc::EPERM));
    equal!(membarrier(64), Ok(0));
    equal!(membarrier(32), Ok(0));
    // For restartable sequences, where the kernel has them: not registered.
    equal!(membarrier(128), Err(if known & 128 != 0 { libc::EPERM } else { libc::EINVAL }));
    // Where CPUs are tracked the barrier of all is refused, as Linux does.
    equal!(membarrier(1), if known & 1 != 0 { Ok(0) } else { Err(libc::EINVAL) });
    stop.store(true, Ordering::Relaxed);
    handle.join().map_err(|_| "a thread panicked".to_string())
}

/// While others read a page through the address, it is unmapped and mapped again with another content: after munmap and mmap have
/// returned nobody sees the old one.
fn unmap_under_others() -> Result<(), String> {
    const ROUNDS: u64 = 300;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: (1) a new mapping.
    let at = unsafe { libc::mmap(null_mut(), 4096, rights, flags, -1, 0) } as usize;
    let generation = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let old_seen = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (generation, old_seen) = (generation.clone(), old_seen.clone());
            std::thread::spawn(move || {
                loop {
                    let before = generation.load(Ordering::SeqCst);
                    if before == u64::MAX {
                        return;
                    }
                    // SAFETY: (1) mapped at all times: it is replaced, never left out.
                    let seen = unsafe { (at as *const u64).read_volatile() };
                    // 0: new and not yet written.
                    if seen != 0 && seen < before {
                        old_seen.store(true, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    for round in 1..=ROUNDS {
        // SAFETY: (1) replaces the check's own page.
        unsafe {
            let new = libc::mmap(at as *mut _, 4096, rights, flags | libc::MAP_FIXED, -1, 0) as usize;
            equal!(new, at);
            (at as *mut u64).write_volatile(round);
        }
        generation.store(round, Ordering::SeqCst);
    }
    generation.store(u64::MAX, Ordering::SeqCst);
    for reader in readers {
        reader.join().map_err(|_| "a thread panicked")?;
    }
    ensure!(!old_seen.load(Ordering::SeqCst));
    Ok(())
}

fn fork_with_threads() -> Result<(), String> {
    let stop = Arc::new(AtomicBool::new(false));
    let counter = Arc::new(AtomicUsize::new(0));
    let handles: Vec<_> = (0..3)
        .map(|_| {
            let (stop, counter) = (stop.clone(), counter.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..20 {
        equal!(in_child(|| 5)?, Ended::Exit(5));
    }
    stop.store(true, Ordering::Relaxed);
    for handle in handles {
        handle.join().map_err(|_| "a thread panicked")?;
    }
    Ok(())
}

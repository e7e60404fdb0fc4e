//! Signals to a process group, also while one of it forks.

use super::{Check, call, ensure, equal};
use crate::instruction::rdtsc;
use crate::linux::{self, Fork};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[("group_kill", group_kill), ("group_kill_in_fork", group_kill_in_fork)];

fn group_kill() -> Result<(), String> {
    let mut pids = Vec::new();
    let mut group = 0;
    for _ in 0..3 {
        match linux::fork().map_err(|e| e.to_string())? {
            Fork::Child => loop {
                let _ = call(libc::SYS_pause, [0; 6]);
            },
            Fork::Parent(pid) => {
                group = if group == 0 { pid } else { group };
                // SAFETY: (1) no memory is passed.
                equal!(unsafe { libc::setpgid(pid, group) }, 0);
                pids.push(pid);
            }
        }
    }
    // SAFETY: (1) no memory is passed.
    equal!(unsafe { libc::kill(-group, libc::SIGTERM) }, 0);
    for pid in pids {
        let mut status = 0;
        // SAFETY: (1) the pointer is valid.
        equal!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        equal!(status, libc::SIGTERM);
    }
    Ok(())
}

/// A signal to the group that comes while a member runs clone(2) with the signal blocked, as fork does in C libraries, reaches the child
/// too: after a Ctrl-C nobody of the job is left.
fn group_kill_in_fork() -> Result<(), String> {
    const ROUNDS: u32 = 24;
    const SIZE: usize = 16 << 20;
    let map = |size, flags| {
        // SAFETY: (1) a new mapping.
        let at = unsafe { libc::mmap(null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if at == libc::MAP_FAILED { Err("no memory".to_string()) } else { Ok(at) }
    };
    let shared = map(4096, libc::MAP_SHARED | libc::MAP_ANONYMOUS)?;
    // SAFETY: (1) mapped, aligned, zeroed, and used through atomics only.
    let [phase, answer] = unsafe { &*shared.cast::<[AtomicU32; 2]>() };
    // Enough pages for clone to take a while.
    let pages = map(SIZE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)?;
    for at in (0..SIZE).step_by(4096) {
        // SAFETY: (1) inside the mapping.
        unsafe { pages.cast::<u8>().add(at).write_volatile(1) };
    }
    // SAFETY: (1) the set is filled by sigemptyset.
    let blocked = unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGUSR1);
        equal!(libc::sigprocmask(libc::SIG_BLOCK, &set, null_mut()), 0);
        set
    };
    let group = linux::own_pid();
    let Fork::Parent(sender) = linux::fork().map_err(|e| e.to_string())? else {
        let _ = linux::set_process_group(0, 0);
        for round in 0..ROUNDS {
            while phase.load(Ordering::SeqCst) <= 2 * round {
                std::thread::yield_now();
            }
            // Time to be inside the call.
            let start = rdtsc();
            while rdtsc().wrapping_sub(start) < 20_000 {}
            // SAFETY: (1) no memory is passed.
            unsafe { libc::kill(-group, libc::SIGUSR1) };
            let during = phase.load(Ordering::SeqCst) == 2 * round + 1;
            answer.store(2 * round + 1 + u32::from(during), Ordering::SeqCst);
        }
        linux::exit_now(0)
    };
    let (mut during, mut reached) = (0, 0);
    for round in 0..ROUNDS {
        phase.store(2 * round + 1, Ordering::SeqCst);
        let child = call(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]);
        if child == Ok(0) {
            while answer.load(Ordering::SeqCst) <= 2 * round {
                std::thread::yield_now();
            }
            // SAFETY: (1) the set is filled by the call.
            let pending = unsafe {
                let mut set: libc::sigset_t = core::mem::zeroed();
                libc::sigpending(&mut set);
                libc::sigismember(&set, libc::SIGUSR1)
            };
            linux::exit_now(pending as u8);
        }
        phase.store(2 * round + 2, Ordering::SeqCst);
        let child = child.map_err(|e| format!("clone: {e}"))? as libc::pid_t;
        let mut status = 0;
        // SAFETY: (1) the pointer is valid.
        equal!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        while answer.load(Ordering::SeqCst) <= 2 * round {
            std::thread::yield_now();
        }
        if answer.load(Ordering::SeqCst) == 2 * round + 2 {
            during += 1;
            reached += u32::from(status == 1 << 8);
        }
        // What is pending here would be found again.
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: (1) the pointers are valid.
        while unsafe { libc::sigtimedwait(&blocked, null_mut(), &at_once) } == libc::SIGUSR1 {}
    }
    // SAFETY: (1) null is allowed.
    unsafe { libc::waitpid(sender, null_mut(), 0) };
    // One or the other may have been sent before the call began: the sender sees no more than that it was about to.
    ensure!(during < 3 || reached * 2 >= during);
    Ok(())
}

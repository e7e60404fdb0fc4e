//! The listed calls about time, scheduling and CPUs: clocks, sleeps, futex, getrandom, sched_*, getcpu.

use super::each::{KERNEL, NOWHERE, at, gives, refused, to, works};
use super::priority::until_asleep;
use super::{Check, ensure, equal, in_child, is_quiesce};
use crate::linux::{self, Ended};
use libc::{
    E2BIG, EAGAIN, EFAULT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, ESRCH, ETIMEDOUT, SYS_clock_getres, SYS_clock_gettime,
    SYS_clock_nanosleep, SYS_futex, SYS_getcpu, SYS_getrandom, SYS_nanosleep, SYS_sched_getaffinity, SYS_sched_getattr,
    SYS_sched_getscheduler, SYS_sched_setaffinity, SYS_sched_setattr, SYS_sched_setscheduler, SYS_sched_yield,
};
use std::sync::atomic::{AtomicU32, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("each_clock", clock),
    ("each_sleep", sleep),
    ("each_futex", futex),
    ("each_getrandom", getrandom),
    ("each_affinity", affinity),
    ("each_scheduler", scheduler),
    ("each_scheduling_attributes", scheduling_attributes),
    ("each_cpu_time_clock", cpu_time_clock),
    ("each_getcpu", getcpu),
];

const NOBODY: u64 = 4_000_000;

fn clock() -> Result<(), String> {
    let mut now = [u64::MAX; 2];
    for id in [0, 1, 2, 3, 4, 5, 6, 7, 11] {
        gives(SYS_clock_gettime, &[id, to(&mut now)], 0)?;
        ensure!(now[1] < 1_000_000_000);
        let mut step = [u64::MAX; 2];
        gives(SYS_clock_getres, &[id, to(&mut step)], 0)?;
        let coarse = id == 5 || id == 6;
        ensure!(step[0] == 0 && (step[1] == 1) != coarse && step[1] <= 10_000_000);
        gives(SYS_clock_getres, &[id, 0], 0)?;
        for bad in [KERNEL, NOWHERE] {
            refused(SYS_clock_gettime, &[id, bad], EFAULT)?;
            refused(SYS_clock_getres, &[id, bad], EFAULT)?;
        }
    }
    refused(SYS_clock_gettime, &[1, 0], EFAULT)?;
    for id in [10, 12, 16, 99] {
        refused(SYS_clock_gettime, &[id, to(&mut now)], EINVAL)?;
        refused(SYS_clock_getres, &[id, to(&mut now)], EINVAL)?;
        refused(SYS_clock_getres, &[id, 0], EINVAL)?;
    }
    Ok(())
}

fn sleep() -> Result<(), String> {
    const ABSOLUTE: u64 = 1;
    let mut left = [7u64; 2];
    let start = linux::monotonic_ns();
    gives(SYS_nanosleep, &[at(&[0u64, 1_000_000]), to(&mut left)], 0)?;
    ensure!(linux::monotonic_ns() - start >= 1_000_000);
    equal!(left, [7, 7]); // written only when a signal ends the sleep
    for id in [0, 1, 7, 11] {
        gives(SYS_clock_nanosleep, &[id, 0, at(&[0u64, 1000]), 0], 0)?;
        gives(SYS_clock_nanosleep, &[id, ABSOLUTE, at(&[1u64, 0]), 0], 0)?; // past
    }
    for bad in [[0u64, 1_000_000_000], [u64::MAX, 0], [0, u64::MAX]] {
        refused(SYS_nanosleep, &[at(&bad), 0], EINVAL)?;
        refused(SYS_clock_nanosleep, &[1, 0, at(&bad), 0], EINVAL)?;
        refused(SYS_clock_nanosleep, &[1, ABSOLUTE, at(&bad), 0], EINVAL)?;
    }
    for bad in [0, NOWHERE, KERNEL] {
        refused(SYS_nanosleep, &[bad, 0], EFAULT)?;
        refused(SYS_clock_nanosleep, &[1, 0, bad, 0], EFAULT)?;
    }
    for id in [10, 12, 99] {
        refused(SYS_clock_nanosleep, &[id, 0, at(&[0u64, 1]), 0], EINVAL)?;
    }
    // Clocks on which nobody can sleep: a thread's time, the raw one, the coarse ones.
    for id in [3, 4, 5, 6] {
        refused(SYS_clock_nanosleep, &[id, 0, at(&[0u64, 1]), 0], EOPNOTSUPP)?;
    }
    Ok(())
}

fn futex() -> Result<(), String> {
    const WAIT: u64 = 0;
    const WAKE: u64 = 1;
    const REQUEUE: u64 = 4;
    const WAIT_BITS: u64 = 9;
    const WAKE_BITS: u64 = 10;
    const PRIVATE: u64 = 128;
    const ALL: u64 = u32::MAX as u64;
    let word = AtomicU32::new(5);
    let there = at(&word);
    let soon = [0u64, 1_000_000];
    for private in [0, PRIVATE] {
        gives(SYS_futex, &[there, WAKE | private, 1], 0)?;
        gives(SYS_futex, &[there, WAKE_BITS | private, 1, 0, 0, ALL], 0)?;
        gives(SYS_futex, &[there, REQUEUE | private, 1, 1, at(&soon), 5], 0)?;
        refused(SYS_futex, &[there, WAIT | private, 4, 0], EAGAIN)?;
        refused(SYS_futex, &[there, WAIT | private, 5, at(&soon)], ETIMEDOUT)?;
        refused(SYS_futex, &[there, WAIT_BITS | private, 5, at(&soon), 0, ALL], ETIMEDOUT)?;
        refused(SYS_futex, &[there, WAIT_BITS | private | 256, 5, at(&soon), 0, ALL], ETIMEDOUT)?;
        refused(SYS_futex, &[there, WAIT_BITS | private, 5, 0, 0, 0], EINVAL)?;
        refused(SYS_futex, &[there, WAKE_BITS | private, 1, 0, 0, 0], EINVAL)?;
        refused(SYS_futex, &[there, REQUEUE | private, 1, 1, at(&soon), 4], EAGAIN)?;
        refused(SYS_futex, &[there, REQUEUE | private, ALL, 1, at(&soon), 5], EINVAL)?;
        refused(SYS_futex, &[there + 2, WAIT | private, 5, 0], EINVAL)?;
        refused(SYS_futex, &[there + 2, WAKE | private, 1], EINVAL)?;
        refused(SYS_futex, &[there, WAIT | private, 5, at(&[0u64, 1_000_000_000])], EINVAL)?;
        refused(SYS_futex, &[there, WAIT | private, 5, KERNEL], EFAULT)?;
        refused(SYS_futex, &[NOWHERE, WAIT | private, 5, 0], EFAULT)?;
        refused(SYS_futex, &[KERNEL, WAIT | private, 5, 0], EFAULT)?;
        refused(SYS_futex, &[KERNEL, WAKE | private, 1], EFAULT)?;
        // WAKE_OP: add 3 to the second word, whose old value is not 7: nobody is woken at either.
        let second = AtomicU32::new(5);
        let add_3_if_7 = 1 << 28 | 3 << 12 | 7u64;
        gives(SYS_futex, &[there, 5 | private, 1, 1, at(&second), add_3_if_7], 0)?;
        equal!(second.load(Ordering::SeqCst), 8);
        refused(SYS_futex, &[there, 5 | private, 1, 1, at(&second), 7 << 28], ENOSYS)?;
        refused(SYS_futex, &[there, 5 | private, 1, 1, NOWHERE, add_3_if_7], EFAULT)?;
        refused(SYS_futex, &[there, 99 | private, 1], ENOSYS)?;
        refused(SYS_futex, &[there, WAKE | private | 256, 1], ENOSYS)?; // no clock in it
        refused(SYS_futex, &[there, WAIT | private | 256, 4, 0], ENOSYS)?;
    }
    gives(SYS_futex, &[NOWHERE, WAKE | PRIVATE, 1], 0)?; // a number is enough to wake by
    let handle = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| gives(SYS_futex, &[there, WAIT | PRIVATE, 5, 0], 0));
        while super::call(SYS_futex, [there, WAKE | PRIVATE, 1, 0, 0, 0]) == Ok(0) {
            std::thread::yield_now();
        }
        waiter.join()
    });
    handle.map_err(|_| "a thread panicked")??;
    equal!(word.load(Ordering::SeqCst), 5);
    Ok(())
}

fn getrandom() -> Result<(), String> {
    let mut bytes = [0u8; 256];
    for flags in [0, 1, 2, 4] {
        gives(SYS_getrandom, &[to(&mut bytes), 256, flags], 256)?;
        ensure!(bytes.iter().any(|&b| b != bytes[0]));
    }
    gives(SYS_getrandom, &[to(&mut bytes), 0, 0], 0)?;
    refused(SYS_getrandom, &[to(&mut bytes), 1, 8], EINVAL)?;
    refused(SYS_getrandom, &[to(&mut bytes), 1, 6], EINVAL)?; // from both sources
    for bad in [0, NOWHERE, KERNEL] {
        refused(SYS_getrandom, &[bad, 16, 0], EFAULT)?;
    }
    Ok(())
}

fn affinity() -> Result<(), String> {
    let mut set = [0u64; 16];
    let len = works(SYS_sched_getaffinity, &[0, 128, to(&mut set)])?;
    ensure!(len >= 8 && len % 8 == 0 && set[0] != 0);
    gives(SYS_sched_getaffinity, &[linux::own_pid() as u64, 128, to(&mut set)], len)?;
    gives(SYS_sched_setaffinity, &[0, 128, at(&set)], 0)?;
    gives(SYS_sched_setaffinity, &[0, 8, at(&(set[0] | 1 << 63))], 0)?; // those that are not there do not matter
    let lowest = set[0] & set[0].wrapping_neg();
    gives(SYS_sched_setaffinity, &[0, 1, at(&(set[0] & 0xff))], 0)?; // a set of eight CPUs
    gives(SYS_sched_setaffinity, &[0, 8, at(&lowest)], 0)?;
    let mut own = [0u64; 16];
    gives(SYS_sched_getaffinity, &[0, 128, to(&mut own)], len)?;
    equal!(own[0], lowest);
    refused(SYS_sched_setaffinity, &[0, 8, at(&0u64)], EINVAL)?;
    refused(SYS_sched_setaffinity, &[0, 0, at(&lowest)], EINVAL)?;
    refused(SYS_sched_setaffinity, &[NOBODY, 8, at(&lowest)], ESRCH)?;
    refused(SYS_sched_setaffinity, &[u64::MAX, 8, at(&lowest)], ESRCH)?;
    refused(SYS_sched_setaffinity, &[0, 8, KERNEL], EFAULT)?;
    refused(SYS_sched_getaffinity, &[0, 127, to(&mut own)], EINVAL)?;
    refused(SYS_sched_getaffinity, &[0, 0, to(&mut own)], EINVAL)?;
    refused(SYS_sched_getaffinity, &[NOBODY, 128, to(&mut own)], ESRCH)?;
    refused(SYS_sched_getaffinity, &[u64::MAX, 128, to(&mut own)], ESRCH)?;
    refused(SYS_sched_getaffinity, &[0, 128, NOWHERE], EFAULT)?;
    gives(SYS_sched_setaffinity, &[0, 128, at(&set)], 0)?;
    Ok(())
}

fn scheduler() -> Result<(), String> {
    const OTHER: u64 = 0;
    const FIFO: u64 = 1;
    const ROUND_ROBIN: u64 = 2;
    const BATCH: u64 = 3;
    const IDLE: u64 = 5;
    const RESET: u64 = 0x4000_0000;
    gives(SYS_sched_getscheduler, &[0], OTHER)?;
    for (policy, priority) in [(ROUND_ROBIN, 1u32), (FIFO, 99), (BATCH, 0), (IDLE, 0), (OTHER, 0)] {
        gives(SYS_sched_setscheduler, &[0, policy, at(&priority)], 0)?;
        gives(SYS_sched_getscheduler, &[linux::own_pid() as u64], policy)?;
        // A child inherits it.
        equal!(in_child(|| u8::from(gives(SYS_sched_getscheduler, &[0], policy).is_err()))?, Ended::Exit(0));
    }
    gives(SYS_sched_setscheduler, &[0, FIFO | RESET, at(&1u32)], 0)?;
    gives(SYS_sched_getscheduler, &[0], FIFO | RESET)?;
    equal!(in_child(|| u8::from(gives(SYS_sched_getscheduler, &[0], OTHER).is_err()))?, Ended::Exit(0));
    gives(SYS_sched_setscheduler, &[0, OTHER, at(&0u32)], 0)?;
    for (policy, priority) in [(FIFO, 0u32), (FIFO, 100), (ROUND_ROBIN, 0), (OTHER, 1), (BATCH, 1), (IDLE, 1), (4, 0)] {
        refused(SYS_sched_setscheduler, &[0, policy, at(&priority)], EINVAL)?;
    }
    refused(SYS_sched_setscheduler, &[0, u64::MAX, at(&0u32)], EINVAL)?;
    refused(SYS_sched_setscheduler, &[0, OTHER, 0], EINVAL)?;
    refused(SYS_sched_setscheduler, &[u64::MAX, OTHER, at(&0u32)], EINVAL)?;
    refused(SYS_sched_setscheduler, &[NOBODY, OTHER, at(&0u32)], ESRCH)?;
    refused(SYS_sched_setscheduler, &[0, OTHER, KERNEL], EFAULT)?;
    refused(SYS_sched_getscheduler, &[u64::MAX], EINVAL)?;
    refused(SYS_sched_getscheduler, &[NOBODY], ESRCH)?;
    for _ in 0..3 {
        gives(SYS_sched_yield, &[], 0)?;
    }
    Ok(())
}

/// struct sched_attr as it is since Linux 5.3.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    bounds: [u32; 2],
}

fn scheduling_attributes() -> Result<(), String> {
    const RESET: u64 = 1;
    const KEEP_POLICY: u64 = 8;
    const KEEP_PARAMS: u64 = 16;
    let none = Attributes { size: 48, ..Attributes::default() };
    let told = || -> Result<Attributes, String> {
        let mut told = Attributes { size: 77, ..none };
        gives(SYS_sched_getattr, &[0, to(&mut told), 48, 0], 0)?;
        // Linux 6.12 and later have a fair task's slice there.
        Ok(Attributes { runtime: 0, ..told })
    };
    let set = |wanted: Attributes| gives(SYS_sched_setattr, &[0, at(&wanted), 0], 0);
    equal!(told()?, none);
    set(Attributes { policy: 1, priority: 7, flags: RESET, ..none })?;
    equal!(told()?, Attributes { policy: 1, priority: 7, flags: RESET, ..none });
    gives(SYS_sched_getscheduler, &[0], 0x4000_0001)?;
    set(Attributes { policy: 2, priority: 9, ..none })?;
    equal!(told()?, Attributes { policy: 2, priority: 9, ..none });
    set(Attributes { policy: 3, priority: 5, flags: KEEP_POLICY, ..none })?;
    equal!(told()?, Attributes { policy: 2, priority: 5, ..none });
    set(Attributes { policy: 1, priority: 99, flags: KEEP_PARAMS, ..none })?;
    equal!(told()?, Attributes { policy: 2, priority: 5, ..none });
    refused(SYS_sched_setattr, &[0, at(&Attributes { flags: KEEP_PARAMS, ..none }), 0], EINVAL)?; // has no priority
    set(Attributes { policy: 3, nice: 3, size: 0, ..none })?;
    equal!(told()?, Attributes { policy: 3, nice: 3, ..none });
    set(Attributes { nice: 99, ..none })?;
    equal!(told()?, Attributes { nice: 19, ..none });
    // One that is longer than the kernel's, with nothing in what that does not know.
    let mut long = [0u64; 512];
    long[0] = 4096 | 3 << 32;
    gives(SYS_sched_setattr, &[0, at(&long), 0], 0)?;
    long[511] = 1;
    refused(SYS_sched_setattr, &[0, at(&long), 0], E2BIG)?;
    equal!(long[0], 56 | 3 << 32);
    for size in [47, 4097] {
        refused(SYS_sched_setattr, &[0, at(&Attributes { size, ..none }), 0], E2BIG)?;
    }
    for (policy, priority) in [(0, 1), (1, 0), (1, 100), (2, 0), (4, 0), (7, 0), (0x4000_0001, 1), (1 << 31, 0)] {
        refused(SYS_sched_setattr, &[0, at(&Attributes { policy, priority, ..none }), 0], EINVAL)?;
    }
    refused(SYS_sched_setattr, &[0, at(&Attributes { flags: 0x80, ..none }), 0], EINVAL)?;
    // Deadlines: times that make no sense, then sensible ones, which Linux takes.
    let deadline = Attributes { policy: 6, runtime: 1_000_000, deadline: 2_000_000, period: 2_000_000, ..none };
    for bad in [
        Attributes { runtime: 1000, ..deadline },
        Attributes { runtime: 2_000_001, ..deadline },
        Attributes { deadline: 2_000_001, ..deadline },
        Attributes { deadline: 0, ..deadline },
        Attributes { deadline: 1 << 63, period: 0, ..deadline },
        Attributes { runtime: 2000, deadline: 3000, period: 3000, ..deadline },
        Attributes { priority: 1, ..deadline },
    ] {
        refused(SYS_sched_setattr, &[0, at(&bad), 0], EINVAL)?;
    }
    if is_quiesce() {
        refused(SYS_sched_setattr, &[0, at(&deadline), 0], EPERM)?;
    }
    let good = at(&none);
    refused(SYS_sched_setattr, &[0, 0, 0], EINVAL)?;
    refused(SYS_sched_setattr, &[0, good, 1], EINVAL)?;
    refused(SYS_sched_setattr, &[u64::MAX, good, 0], EINVAL)?;
    refused(SYS_sched_setattr, &[NOBODY, good, 0], ESRCH)?;
    refused(SYS_sched_setattr, &[0, KERNEL, 0], EFAULT)?;
    let mut room = none;
    for (tid, place, size, flags) in
        [(0, 0, 48, 0), (u64::MAX, 1, 48, 0), (0, 1, 47, 0), (0, 1, 4097, 0), (0, 1, 48, 1)]
    {
        refused(SYS_sched_getattr, &[tid, place * to(&mut room), size, flags], EINVAL)?;
    }
    refused(SYS_sched_getattr, &[NOBODY, to(&mut room), 48, 0], ESRCH)?;
    refused(SYS_sched_getattr, &[0, NOWHERE, 48, 0], EFAULT)
}

/// The clocks whose numbers clock_getcpuclockid(3) and pthread_getcpuclockid(3) make.
fn cpu_time_clock() -> Result<(), String> {
    let clock = |id: u64, kind: u64| !id << 3 | kind;
    let read = |id: u64, kind: u64| -> Result<u64, String> {
        let mut ran = [u64::MAX; 2];
        gives(SYS_clock_gettime, &[clock(id, kind), to(&mut ran)], 0)?;
        Ok(ran[0] * 1_000_000_000 + ran[1])
    };
    const PROCESS: u64 = 2;
    const THREAD: u64 = 6;
    let own = linux::own_pid() as u64;
    let (sender, receiver) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        let _ = sender.send(works(libc::SYS_gettid, &[]));
        let _ = wait.recv();
    });
    let tid = receiver.recv().map_err(|e| e.to_string())??;
    // This one runs, and the process with it; the other one sleeps and its clock stands.
    until_asleep(tid as u32);
    let before = [read(own, PROCESS)?, read(own, THREAD)?, read(tid, THREAD)?];
    let start = read(0, THREAD)?;
    while read(0, THREAD)? < start + 5_000_000 {}
    let after = [read(own, PROCESS)?, read(own, THREAD)?, read(tid, THREAD)?];
    ensure!(after[0] >= before[0] + 5_000_000 && after[1] >= before[1] + 5_000_000);
    ensure!(after[2] - before[2] < 5_000_000 && read(0, PROCESS)? >= after[0]);
    let parent = works(libc::SYS_getppid, &[])?;
    read(parent, PROCESS)?;
    let _ = go.send(());
    other.join().map_err(|_| "the thread panicked")?;
    // A thread of another process, what is not there, a file.
    for bad in [clock(parent, THREAD), clock(NOBODY, THREAD), clock(NOBODY, PROCESS), clock(NOBODY, 3)] {
        refused(SYS_clock_gettime, &[bad, to(&mut [0u64; 2])], EINVAL)?;
    }
    Ok(())
}

fn getcpu() -> Result<(), String> {
    let (mut cpu, mut node) = (u32::MAX, u32::MAX);
    gives(SYS_getcpu, &[to(&mut cpu), to(&mut node), 0], 0)?;
    ensure!(cpu < 1024 && node == 0);
    gives(SYS_getcpu, &[0, 0, 0], 0)?;
    gives(SYS_getcpu, &[to(&mut cpu), 0, KERNEL], 0)?; // the third was once a cache
    refused(SYS_getcpu, &[KERNEL, 0, 0], EFAULT)?;
    refused(SYS_getcpu, &[0, NOWHERE, 0], EFAULT)?;
    Ok(())
}

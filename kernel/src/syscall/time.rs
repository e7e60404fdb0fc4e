//! System calls about time.

use super::table::Calls;
use crate::arch::tsc;
use crate::errno::{EINTR, EINVAL, EOPNOTSUPP, ERESTART_RESTARTBLOCK, ERESTARTNOHAND, Errno, SysResult};
use crate::mm::{user_copy, vdso};
use crate::process::{Restart, current, current_thread, tree};
use crate::sched::task;
use crate::system_call;
use crate::time::wall;
use alloc::sync::Arc;

/// Numbers and handlers.
pub const CALLS: Calls = &[
    (35, nanosleep),
    (96, gettimeofday),
    (100, times),
    (201, time),
    (219, restart_syscall),
    (228, clock_gettime),
    (229, clock_getres),
    (230, clock_nanosleep),
];

const NS: u64 = 1_000_000_000;
const REALTIME: u64 = 0;
const MONOTONIC: u64 = 1;

/// A timespec at user address `at`, in ns, saturating.
pub fn read_duration(at: u64) -> Result<u64, Errno> {
    let [seconds, ns]: [u64; 2] = user_copy::read(at)?;
    if (seconds as i64) < 0 || ns >= NS {
        return Err(EINVAL);
    }
    Ok(seconds.saturating_mul(NS).saturating_add(ns))
}

fn clock_ns(clock: u64) -> Result<u64, Errno> {
    Ok(match clock as i32 {
        0 | 5 | 11 => wall::now_ns(),   // REALTIME, its coarse form, TAI
        1 | 4 | 6 | 7 => tsc::now_ns(), // MONOTONIC, RAW, COARSE, BOOTTIME
        2 => current().runtime_ns(),
        3 => crate::sched::runtime_ns(crate::sched::current()),
        clock if clock < 0 => return cpu_time_ns(clock),
        _ => return Err(EINVAL),
    })
}

/// The clock of the time that a process or a thread of the caller's process ran, as clock_getcpuclockid(3) makes its number: the id with all
/// bits turned, then one bit for a thread, then what is counted, of which there are three that are one here.
#[cold]
#[inline(never)]
fn cpu_time_ns(clock: i32) -> Result<u64, Errno> {
    const THREAD: i32 = 4;
    const FILE: i32 = 3;
    let id = !(clock >> 3) as u32;
    if clock & 3 == FILE {
        return Err(EINVAL);
    }
    if clock & THREAD == 0 {
        return if id == 0 { Ok(current().runtime_ns()) } else { Ok(tree::find(id).ok_or(EINVAL)?.runtime_ns()) };
    }
    if id == 0 {
        return Ok(crate::sched::runtime_ns(crate::sched::current()));
    }
    let thread =
        tree::find_thread(id).filter(|thread| Arc::ptr_eq(&thread.process, &current_thread().process)).ok_or(EINVAL)?;
    task::by_index(thread.task).map(|task| crate::sched::runtime_ns(&task)).ok_or(EINVAL)
}

system_call! {
    /// clock_gettime(2)
    clock_gettime(clock, at) {
        let ns = clock_ns(clock)?;
        user_copy::write(at, &[ns / NS, ns % NS])?;
        Ok(0)
    }
}
system_call! {
    /// clock_getres(2)
    clock_getres(clock, at) {
        clock_ns(clock)?;
        let coarse = matches!(clock, 5 | 6);
        if at != 0 {
            let resolution = if coarse { NS / crate::time::tick::hz() as u64 } else { 1 };
            user_copy::write(at, &[0, resolution])?;
        }
        Ok(0)
    }
}
system_call! {
    /// gettimeofday(2)
    gettimeofday(at, zone) {
        let ns = wall::now_ns();
        if at != 0 {
            user_copy::write(at, &[ns / NS, ns % NS / 1000])?;
        }
        if zone != 0 {
            user_copy::write(zone, &vdso::zone())?;
        }
        Ok(0)
    }
}
system_call! {
    /// time(2)
    time(at) {
        let seconds = wall::now_ns() / NS;
        if at != 0 {
            user_copy::write(at, &seconds)?;
        }
        Ok(seconds)
    }
}
system_call! {
    /// times(2), in ticks of 10 ms
    times(at) {
        const TICK: u64 = NS / 100;
        if at != 0 {
            let own = current().runtime_ns() / TICK;
            user_copy::write(at, &[own, 0, tree::waited_runtime_ns(current()) / TICK, 0])?;
        }
        Ok(tsc::now_ns() / TICK)
    }
}

/// Sleep until `deadline_tsc`; a signal leaves what restart_syscall goes on with. `left`: where to write what is left.
fn sleep(deadline_tsc: u64, left: u64) -> SysResult {
    if crate::time::timer::sleep_to(deadline_tsc, true) {
        return Ok(0);
    }
    if left != 0 {
        let ns = tsc::ticks_to_ns(deadline_tsc.saturating_sub(tsc::now()));
        user_copy::write(left, &[ns / NS, ns % NS])?;
    }
    *current_thread().restart.lock() = Restart::Sleep { deadline_tsc, left };
    Err(ERESTART_RESTARTBLOCK)
}

fn after(ns: u64) -> u64 {
    tsc::now().saturating_add(tsc::ns_to_ticks(ns))
}

system_call! {
    /// nanosleep(2)
    nanosleep(request, left) { sleep(after(read_duration(request)?), left) }
}
system_call! {
    /// clock_nanosleep(2)
    clock_nanosleep(clock, flags, request, left) {
        const ABSTIME: u64 = 1;
        match clock {
            REALTIME | MONOTONIC | 7 | 11 => {}
            3..=6 => return Err(EOPNOTSUPP), // a thread's time, the raw clock, the coarse ones: nobody can sleep on those
            _ => return Err(EINVAL),
        }
        let ns = read_duration(request)?;
        if flags & ABSTIME == 0 {
            return sleep(after(ns), left);
        }
        let slept = match clock {
            REALTIME | 11 => wall::sleep_to(ns),
            _ => crate::time::timer::sleep_to(tsc::boot().saturating_add(tsc::ns_to_ticks(ns)), true),
        };
        if slept { Ok(0) } else { Err(ERESTARTNOHAND) }
    }
}
system_call! {
    /// restart_syscall(2)
    restart_syscall() {
        let restart = core::mem::replace(&mut *current_thread().restart.lock(), Restart::Nothing);
        match restart {
            Restart::Sleep { deadline_tsc, left } => sleep(deadline_tsc, left),
            Restart::Nothing => Err(EINTR),
        }
    }
}

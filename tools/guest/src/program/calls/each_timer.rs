//! Timers that send signals: timer_create and its like, alarms of CPU time; timer slack.

use super::each::{KERNEL, NOWHERE, at, gives, refused, to, works};
use super::{Check, ensure, equal};
use crate::linux;
use libc::{
    EAGAIN, EFAULT, EINVAL, EOPNOTSUPP, SYS_clock_gettime, SYS_getitimer, SYS_gettid, SYS_prctl, SYS_read,
    SYS_rt_sigprocmask, SYS_rt_sigtimedwait, SYS_setitimer, SYS_signalfd4, SYS_timer_create, SYS_timer_delete,
    SYS_timer_getoverrun, SYS_timer_gettime, SYS_timer_settime,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("timer_signal", signal),
    ("timer_overrun", overrun),
    ("timer_two_of_one_signal", two_of_one_signal),
    ("timer_to_thread", to_thread),
    ("timer_silent", silent),
    ("timer_of_cpu_time", cpu_time),
    ("timer_in_signalfd", in_signalfd),
    ("timer_ignored", ignored),
    ("timer_errors", errors),
    ("alarm_of_cpu_time", alarm_of_cpu_time),
    ("timer_slack", slack),
];

const SIGNAL: u64 = 0;
const NONE: u64 = 1;
const THREAD_ID: u64 = 4;
const BOOT: u64 = 1;
const ABSTIME: u64 = 1;
const MS: u64 = 1_000_000;
const SI_TIMER: i32 = -2;
const USR1: u64 = libc::SIGUSR1 as u64;

/// struct sigevent.
fn event(value: u64, signal: u64, how: u64, tid: u64) -> [u64; 8] {
    [value, signal | how << 32, tid, 0, 0, 0, 0, 0]
}

fn create(clock: u64, event: &[u64; 8]) -> Result<u64, String> {
    let mut number = -1i32;
    gives(SYS_timer_create, &[clock, at(event), to(&mut number)], 0)?;
    ensure!(number >= 0);
    Ok(number as u64)
}

/// Blocks `signal`; its set.
fn block(signal: u64) -> Result<u64, String> {
    let set = 1u64 << (signal - 1);
    gives(SYS_rt_sigprocmask, &[0, at(&set), 0, 8], 0)?;
    Ok(set)
}

/// Waits for a signal of `set`: siginfo_t's words.
fn wait(set: u64) -> Result<[i32; 32], String> {
    let mut info = [0i32; 32];
    works(SYS_rt_sigtimedwait, &[at(&set), to(&mut info), 0, 8])?;
    Ok(info)
}

fn nothing_waits(set: u64) -> Result<(), String> {
    refused(SYS_rt_sigtimedwait, &[at(&set), 0, at(&[0u64, 0]), 8], EAGAIN)
}

/// Interval and first time, ns.
fn set(timer: u64, flags: u64, interval_ns: u64, first_ns: u64) -> Result<(), String> {
    const S: u64 = 1_000_000_000;
    let setting = [interval_ns / S, interval_ns % S, first_ns / S, first_ns % S];
    gives(SYS_timer_settime, &[timer, flags, at(&setting), 0], 0)
}

fn setting(timer: u64) -> Result<[u64; 4], String> {
    let mut now = [9u64; 4];
    gives(SYS_timer_gettime, &[timer, to(&mut now)], 0)?;
    Ok(now)
}

fn signal() -> Result<(), String> {
    let usr1 = block(USR1)?;
    let timer = create(BOOT, &event(0x1234_5678_9abc, USR1, SIGNAL, 0))?;
    equal!(setting(timer)?, [0; 4]);
    set(timer, 0, 0, MS)?;
    let info = wait(usr1)?;
    equal!(&info[..3], &[libc::SIGUSR1, 0, SI_TIMER]);
    equal!(&info[4..8], &[timer as i32, 0, 0x5678_9abc, 0x1234]);
    equal!(setting(timer)?, [0; 4]);
    nothing_waits(usr1)?;
    // By the clock, in the past; then the interval reads back as it was set.
    set(timer, ABSTIME, 0, 1)?;
    wait(usr1)?;
    set(timer, 0, 3_333_333_333, 1_000_000_000_000)?;
    let now = setting(timer)?;
    equal!(&now[..2], &[3, 333_333_333]);
    ensure!(now[2] <= 1000 && now[2] > 900);
    // Ended, and what it was.
    let mut old = [0u64; 4];
    gives(SYS_timer_settime, &[timer, 0, at(&[0u64; 4]), to(&mut old)], 0)?;
    ensure!(old[..2] == now[..2] && old[2] <= now[2]);
    equal!(setting(timer)?, [0; 4]);
    nothing_waits(usr1)?;
    gives(SYS_timer_delete, &[timer], 0)?;
    // No event: SIGALRM, and the number.
    let alarm = block(libc::SIGALRM as u64)?;
    let mut number = 0i32;
    gives(SYS_timer_create, &[BOOT, 0, to(&mut number)], 0)?;
    set(number as u64, 0, 0, 1)?;
    let info = wait(alarm)?;
    equal!([info[0], info[2], info[4], info[6]], [libc::SIGALRM, SI_TIMER, number, number]);
    Ok(())
}

fn overrun() -> Result<(), String> {
    let usr1 = block(USR1)?;
    let timer = create(BOOT, &event(7, USR1, SIGNAL, 0))?;
    gives(SYS_timer_getoverrun, &[timer], 0)?;
    let start = linux::monotonic_ns();
    set(timer, 0, MS, MS)?;
    // It began between the two.
    let set_ns = linux::monotonic_ns();
    while linux::monotonic_ns() < set_ns + 20 * MS {
        linux::sleep_ns(MS);
    }
    let before = (linux::monotonic_ns() - set_ns) / MS;
    let info = wait(usr1)?;
    let after = (linux::monotonic_ns() - start) / MS;
    // One signal for all that expired until it was taken.
    let expired = info[5] as u64 + 1;
    ensure!(expired >= 19 && expired >= before - 1 && expired <= after);
    gives(SYS_timer_getoverrun, &[timer], expired - 1)?;
    // It goes on.
    wait(usr1)?;
    wait(usr1)?;
    gives(SYS_timer_delete, &[timer], 0)?;
    refused(SYS_timer_delete, &[timer], EINVAL)
}

fn two_of_one_signal() -> Result<(), String> {
    let usr1 = block(USR1)?;
    let timers = [create(BOOT, &event(1, USR1, SIGNAL, 0))?, create(BOOT, &event(2, USR1, SIGNAL, 0))?];
    for timer in timers {
        set(timer, 0, 0, 1)?;
    }
    let mut values = [wait(usr1)?[6], wait(usr1)?[6]];
    values.sort_unstable();
    equal!(values, [1, 2]);
    nothing_waits(usr1)
}

fn to_thread() -> Result<(), String> {
    let usr1 = block(USR1)?;
    let tid = works(SYS_gettid, &[])?;
    let timer = create(BOOT, &event(5, USR1, THREAD_ID, tid))?;
    set(timer, 0, 0, MS)?;
    // Another thread of the process does not get it.
    let other = std::thread::spawn(move || {
        let until = [0u64, 20 * MS];
        refused(SYS_rt_sigtimedwait, &[at(&usr1), 0, at(&until), 8], EAGAIN)
    });
    other.join().map_err(|_| "the other thread panicked")??;
    equal!(wait(usr1)?[6], 5);
    let mut number = 0i32;
    refused(SYS_timer_create, &[BOOT, at(&event(5, USR1, THREAD_ID, 1)), to(&mut number)], EINVAL)
}

fn silent() -> Result<(), String> {
    let timer = create(BOOT, &event(0, 0, NONE, 0))?;
    set(timer, 0, 0, MS)?;
    while setting(timer)? != [0; 4] {}
    set(timer, 0, MS, MS)?;
    linux::sleep_ns(3 * MS);
    let now = setting(timer)?;
    ensure!(now[..3] == [0, MS, 0] && now[3] > 0 && now[3] <= MS);
    gives(SYS_timer_getoverrun, &[timer], 0)
}

/// Uses CPU time until `done`.
fn spin_until(mut done: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let mut value = 1u64;
    while !done()? {
        for _ in 0..10_000 {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
    }
    Ok(())
}

fn cpu_ns(clock: u64) -> Result<u64, String> {
    let mut now = [0u64; 2];
    gives(SYS_clock_gettime, &[clock, to(&mut now)], 0)?;
    Ok(now[0] * 1_000_000_000 + now[1])
}

fn cpu_time() -> Result<(), String> {
    let usr1 = block(USR1)?;
    for clock in [2, 3] {
        let timer = create(clock, &event(clock, USR1, SIGNAL, 0))?;
        let start = cpu_ns(clock)?;
        set(timer, 0, 0, 5 * MS)?;
        // Not before: seen below. Between two calls a host that runs something else may let all of it pass.
        let mut pending = 0u64;
        spin_until(|| {
            gives(libc::SYS_rt_sigpending, &[to(&mut pending), 8], 0)?;
            Ok(pending & usr1 != 0)
        })?;
        ensure!(cpu_ns(clock)? - start >= 5 * MS);
        equal!(wait(usr1)?[6], clock as i32);
    }
    Ok(())
}

fn in_signalfd() -> Result<(), String> {
    let usr1 = block(USR1)?;
    let fd = works(SYS_signalfd4, &[u64::MAX, at(&usr1), 8, 0])?;
    let timer = create(BOOT, &event(6, USR1, SIGNAL, 0))?;
    set(timer, 0, 0, 1)?;
    let mut record = [0u32; 32];
    gives(SYS_read, &[fd, to(&mut record), 128], 128)?;
    // ssi_signo, ssi_code, ssi_tid, ssi_overrun, ssi_int
    let seen = [record[0], record[2], record[6], record[8], record[11]];
    equal!(seen, [USR1 as u32, SI_TIMER as u32, timer as u32, 0, 6]);
    Ok(())
}

fn ignored() -> Result<(), String> {
    // SAFETY: (1) to ignore a signal runs nothing.
    unsafe { libc::signal(libc::SIGUSR1, libc::SIG_IGN) };
    let timer = create(BOOT, &event(6, USR1, SIGNAL, 0))?;
    set(timer, 0, MS, MS)?;
    linux::sleep_ns(5 * MS);
    // Heard from now on: it has gone on meanwhile.
    let usr1 = block(USR1)?;
    // SAFETY: (1) as above.
    unsafe { libc::signal(libc::SIGUSR1, libc::SIG_DFL) };
    equal!(wait(usr1)?[6], 6);
    Ok(())
}

fn errors() -> Result<(), String> {
    let (mut number, fine, mut room) = (0i32, event(0, USR1, SIGNAL, 0), [0u64; 4]);
    let mut create_with =
        |clock: u64, event: u64, error| refused(SYS_timer_create, &[clock, event, to(&mut number)], error);
    create_with(99, at(&fine), EINVAL)?;
    create_with(5, at(&fine), EOPNOTSUPP)?;
    create_with(BOOT, KERNEL, EFAULT)?;
    create_with(BOOT, at(&event(0, 0, SIGNAL, 0)), EINVAL)?;
    create_with(BOOT, at(&event(0, 65, SIGNAL, 0)), EINVAL)?;
    create_with(BOOT, at(&event(0, USR1, 3, 0)), EINVAL)?;
    refused(SYS_timer_create, &[BOOT, at(&fine), NOWHERE], EFAULT)?;
    let timer = create(BOOT, &fine)?;
    let hour = [0u64, 0, 3600, 0];
    refused(SYS_timer_settime, &[timer, 0, at(&[0u64, 0, 0, 1_000_000_000]), 0], EINVAL)?;
    refused(SYS_timer_settime, &[timer, 0, at(&[0u64, 0, u64::MAX, 0]), 0], EINVAL)?;
    refused(SYS_timer_settime, &[timer, 0, 0, 0], EINVAL)?;
    refused(SYS_timer_settime, &[timer, 0, KERNEL, 0], EFAULT)?;
    refused(SYS_timer_settime, &[timer, 0, at(&hour), KERNEL], EFAULT)?;
    refused(SYS_timer_settime, &[timer + 1000, 0, at(&hour), 0], EINVAL)?;
    refused(SYS_timer_gettime, &[timer, KERNEL], EFAULT)?;
    refused(SYS_timer_gettime, &[timer + 1000, to(&mut room)], EINVAL)?;
    refused(SYS_timer_getoverrun, &[timer + 1000], EINVAL)?;
    refused(SYS_timer_delete, &[u64::MAX], EINVAL)
}

fn alarm_of_cpu_time() -> Result<(), String> {
    for (which, signal) in [(1, libc::SIGVTALRM), (2, libc::SIGPROF)] {
        let set = block(signal as u64)?;
        let mut now = [9u64; 4];
        gives(SYS_getitimer, &[which, to(&mut now)], 0)?;
        equal!(now, [0; 4]);
        gives(SYS_setitimer, &[which, at(&[0u64, 5000, 0, 5000]), 0], 0)?;
        gives(SYS_getitimer, &[which, to(&mut now)], 0)?;
        ensure!(now[0] == 0 && now[1] >= 5000 && now[1] < 20_000 && now[2] == 0);
        for _ in 0..2 {
            let mut pending = 0u64;
            spin_until(|| {
                gives(libc::SYS_rt_sigpending, &[to(&mut pending), 8], 0)?;
                Ok(pending & set != 0)
            })?;
            let info = wait(set)?;
            equal!(&info[..3], &[signal, 0, 0x80]);
        }
        gives(SYS_setitimer, &[which, at(&[0u64; 4]), to(&mut now)], 0)?;
        ensure!(now[1] >= 5000);
    }
    refused(SYS_getitimer, &[1, NOWHERE], EFAULT)?;
    refused(SYS_setitimer, &[3, at(&[0u64; 4]), 0], EINVAL)
}

fn slack() -> Result<(), String> {
    const SET: u64 = 29;
    const GET: u64 = 30;
    let usual = works(SYS_prctl, &[GET])?;
    ensure!(usual > 0);
    gives(SYS_prctl, &[SET, 123_456], 0)?;
    gives(SYS_prctl, &[GET], 123_456)?;
    // What a new thread starts with is its usual one.
    let child = std::thread::spawn(|| -> Result<(), String> {
        gives(SYS_prctl, &[GET], 123_456)?;
        gives(SYS_prctl, &[SET, 5], 0)?;
        gives(SYS_prctl, &[SET, 0], 0)?;
        gives(SYS_prctl, &[GET], 123_456)
    });
    child.join().map_err(|_| "the thread panicked")??;
    gives(SYS_prctl, &[SET, 0], 0)?;
    gives(SYS_prctl, &[GET], usual)
}

//! The wall clock is set: who reads it and who waits until a time of day follows, nobody else does. Each check puts the clock right again; where the
//! program may not set it, what a set does is not looked at.

use super::each::{KERNEL, NOWHERE, at, gives, refused, to, works};
use super::{Check, call, ensure, equal};
use crate::linux;
use libc::{
    EAGAIN, ECANCELED, EFAULT, EINVAL, EOPNOTSUPP, EPERM, ETIMEDOUT, SYS_adjtimex, SYS_alarm, SYS_clock_adjtime,
    SYS_clock_gettime, SYS_clock_nanosleep, SYS_clock_settime, SYS_futex, SYS_gettimeofday, SYS_poll, SYS_read,
    SYS_rt_sigprocmask, SYS_rt_sigtimedwait, SYS_settimeofday, SYS_timer_create, SYS_timer_gettime, SYS_timer_settime,
    SYS_timerfd_create, SYS_timerfd_settime,
};
use std::sync::atomic::AtomicU32;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("clock_set", set),
    ("clock_set_errors", errors),
    ("clock_adjust", adjust),
    ("clock_set_ends_waits", ends_waits),
    ("clock_set_moves_timers", moves_timers),
    ("clock_set_cancels", cancels),
];

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const HOUR: u64 = 3600 * S;
const REALTIME: u64 = 0;
const ABSTIME: u64 = 1;
const SETOFFSET: u64 = 0x100;
const NANO: u64 = 0x2000;
const MICRO: u64 = 0x1000;
/// What may pass between two calls, on a machine that does much else.
const SOME: u64 = 600 * S;

type Timex = [u64; 26];

fn parts(ns: u64) -> [u64; 2] {
    [ns / S, ns % S]
}

fn read(clock: u64) -> Result<u64, String> {
    let mut now = [0u64; 2];
    gives(SYS_clock_gettime, &[clock, to(&mut now)], 0)?;
    Ok(now[0] * S + now[1])
}

/// The clock as it was: what it shows beyond the time since boot.
struct Clock(u64);

impl Clock {
    /// `None` if the program may not set it.
    fn may_be_set() -> Result<Option<Clock>, String> {
        let ahead = read(REALTIME)? - read(1)?;
        match call(SYS_settimeofday, [0; 6]) {
            Err(EPERM) => Ok(None),
            Ok(0) => Ok(Some(Clock(ahead))),
            other => Err(format!("settimeofday of nothing: {other:?}")),
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let right = parts(linux::monotonic_ns() + self.0);
        let _ = call(SYS_clock_settime, [REALTIME, at(&right), 0, 0, 0, 0]);
    }
}

fn set_to(ns: u64) -> Result<(), String> {
    gives(SYS_clock_settime, &[REALTIME, at(&parts(ns))], 0)
}

/// Whether `clock` shows `wanted`, or what it shows a little later.
fn shows(clock: u64, wanted: u64) -> Result<bool, String> {
    Ok((wanted..wanted + SOME).contains(&read(clock)?))
}

fn boot_time() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/stat").map_err(|e| e.to_string())?;
    let line = text.lines().find_map(|l| l.strip_prefix("btime ")).ok_or("no btime")?;
    line.parse().map_err(|e| format!("{line:?}: {e}"))
}

fn set() -> Result<(), String> {
    let Some(clock) = Clock::may_be_set()? else { return Ok(()) };
    let (since_boot, monotonic, boot) = (read(7)?, read(1)?, boot_time()?);
    for wanted in [clock.0 + 48 * HOUR + 5, clock.0 - 48 * HOUR, monotonic + 2 * SOME, 4_000_000_000 * S] {
        set_to(wanted)?;
        // Itself, TAI, the coarse one; by system call, by the C library's function, and by the older calls.
        ensure!(shows(REALTIME, wanted)? && shows(11, wanted)? && shows(5, wanted - 20 * MS)?);
        let since_1970 =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())?;
        ensure!((wanted..wanted + SOME).contains(&(since_1970.as_nanos() as u64)));
        let mut day = [0u64; 2];
        gives(SYS_gettimeofday, &[to(&mut day), 0], 0)?;
        ensure!((wanted / 1000..(wanted + SOME) / 1000).contains(&(day[0] * 1_000_000 + day[1])));
        let seconds = works(libc::SYS_time, &[0])?;
        ensure!((wanted / S..(wanted + SOME) / S).contains(&seconds));
        // Those that begin at boot have gone on.
        ensure!(shows(1, monotonic)? && shows(7, since_boot)?);
        ensure!(boot_time()?.abs_diff(wanted / S - read(7)? / S) <= SOME / S);
        let path = format!("/tmp/clock-set-{}", linux::own_pid());
        std::fs::write(&path, "x").map_err(|e| e.to_string())?;
        let modified = std::fs::metadata(&path).and_then(|m| m.modified()).map_err(|e| e.to_string())?;
        let _ = std::fs::remove_file(&path);
        let modified = modified.duration_since(std::time::UNIX_EPOCH).map_err(|e| e.to_string())?.as_nanos() as u64;
        ensure!((wanted - 20 * MS..wanted + SOME).contains(&modified));
    }
    // By microseconds, with a time zone, which is kept.
    let (day, mut zone) = ([(clock.0 + HOUR) / S, 999_999], [60i32, 1]);
    gives(SYS_settimeofday, &[at(&day), at(&zone)], 0)?;
    ensure!(shows(REALTIME, day[0] * S + 999_999_000)?);
    zone = [0; 2];
    gives(SYS_gettimeofday, &[0, to(&mut zone)], 0)?;
    equal!(zone, [60, 1]);
    // SAFETY: (1) both have room; the zone's type is the C library's to know.
    let by_library = unsafe { libc::gettimeofday(std::ptr::null_mut(), zone.as_mut_ptr().cast()) };
    ensure!(by_library == 0);
    gives(SYS_settimeofday, &[at(&day), at(&[0i32; 2])], 0)?;
    drop(clock);
    ensure!(boot_time()?.abs_diff(boot) <= 1);
    Ok(())
}

fn errors() -> Result<(), String> {
    let fine = parts(read(REALTIME)?);
    for bad in [0, NOWHERE, KERNEL] {
        refused(SYS_clock_settime, &[REALTIME, bad], EFAULT)?;
        refused(SYS_clock_adjtime, &[REALTIME, bad], EFAULT)?;
        refused(SYS_adjtimex, &[bad], EFAULT)?;
    }
    refused(SYS_settimeofday, &[NOWHERE, 0], EFAULT)?;
    refused(SYS_settimeofday, &[0, NOWHERE], EFAULT)?;
    let mut timex: Timex = [0; 26];
    for other in [1, 4, 5, 6, 7, 11] {
        refused(SYS_clock_settime, &[other, at(&fine)], EINVAL)?;
        refused(SYS_clock_adjtime, &[other, to(&mut timex)], EOPNOTSUPP)?;
    }
    for nobody in [10, 12, 99] {
        refused(SYS_clock_settime, &[nobody, at(&fine)], EINVAL)?;
        refused(SYS_clock_adjtime, &[nobody, to(&mut timex)], EINVAL)?;
    }
    // No time: before 1970, a fraction that is none, and beyond what Linux can count 30 years on from.
    for bad in [[u64::MAX, 0], [fine[0], S], [fine[0], u64::MAX], [8_277_292_036, 0], [i64::MAX as u64, 0]] {
        refused(SYS_clock_settime, &[REALTIME, at(&bad)], EINVAL)?;
    }
    for bad in [[u64::MAX, 0], [fine[0], 1_000_000], [fine[0], u64::MAX], [8_277_292_036, 0]] {
        refused(SYS_settimeofday, &[at(&bad), 0], EINVAL)?;
    }
    let Some(clock) = Clock::may_be_set()? else { return Ok(()) };
    // Before the time since boot.
    refused(SYS_clock_settime, &[REALTIME, at(&[0u64, 0])], EINVAL)?;
    refused(SYS_settimeofday, &[at(&[0u64, 0]), 0], EINVAL)?;
    for west in [901, -901] {
        refused(SYS_settimeofday, &[at(&[1u64 << 32, 0]), at(&[west, 0i32])], EINVAL)?;
    }
    for (modes, fraction) in [(SETOFFSET, 1_000_000), (SETOFFSET, u64::MAX), (SETOFFSET | NANO, S)] {
        (timex[0], timex[9], timex[10]) = (modes, 1, fraction);
        refused(SYS_clock_adjtime, &[REALTIME, to(&mut timex)], EINVAL)?;
    }
    (timex[0], timex[9], timex[10]) = (SETOFFSET, (-4_000_000_000i64) as u64, 0);
    refused(SYS_adjtimex, &[to(&mut timex)], EINVAL)?;
    // Nothing of this has moved it.
    ensure!(shows(REALTIME, fine[0] * S + fine[1])?);
    drop(clock);
    Ok(())
}

fn adjust() -> Result<(), String> {
    let query = |number: i64, modes: u64, [seconds, fraction]: [u64; 2]| -> Result<Timex, String> {
        let mut timex: Timex = [0; 26];
        (timex[0], timex[9], timex[10]) = (modes, seconds, fraction);
        let first = if number == SYS_clock_adjtime { [REALTIME, to(&mut timex)] } else { [to(&mut timex), 0] };
        let state = works(number, &first)?;
        ensure!(state <= 5);
        Ok(timex)
    };
    for number in [SYS_adjtimex, SYS_clock_adjtime] {
        let before = read(REALTIME)?;
        let timex = query(number, 0, [0; 2])?;
        let unit = if timex[5] & NANO != 0 { 1 } else { 1000 };
        ensure!(timex[10] < S / unit && timex[11] == 10_000);
        let shown = timex[9] * S + timex[10] * unit;
        ensure!((before - 1000..before + SOME).contains(&shown));
        // What is left of a slow move.
        equal!(query(number, 0xa001, [0; 2])?[1], 0);
    }
    let Some(clock) = Clock::may_be_set()? else { return Ok(()) };
    let was_nano = query(SYS_adjtimex, 0, [0; 2])?[5] & NANO;
    let before = read(REALTIME)?;
    let timex = query(SYS_adjtimex, SETOFFSET | MICRO, [7200, 999_999])?;
    ensure!(shows(REALTIME, before + 2 * HOUR + 999_999_000)? && timex[5] & NANO == 0 && timex[10] < 1_000_000);
    // Back, the fraction counted forwards.
    let timex = query(SYS_clock_adjtime, SETOFFSET | NANO, [(-7201i64) as u64, 1000])?;
    ensure!(shows(REALTIME, before)? && timex[5] & NANO != 0);
    query(SYS_adjtimex, if was_nano != 0 { NANO } else { MICRO }, [0; 2])?;
    drop(clock);
    Ok(())
}

/// What never comes ends a check after so long.
const LIMIT_S: u64 = 100;

/// Moves the clock once `waiter`, a thread, has had time to fall asleep; whatever it did, what it says has to hold.
fn while_waiting<R: Send>(by: i64, waiter: impl FnOnce() -> Result<R, String> + Send) -> Result<R, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(waiter);
        linux::sleep_ns(30 * MS);
        let moved = set_to(read(REALTIME)?.wrapping_add_signed(by));
        let result = thread.join().map_err(|_| "the waiter panicked")?;
        moved.and(result)
    })
}

const FORTH: i64 = HOUR as i64;

fn ends_waits() -> Result<(), String> {
    works(SYS_alarm, &[LIMIT_S])?;
    let Some(clock) = Clock::may_be_set()? else { return Ok(()) };
    let (word, start) = (AtomicU32::new(0), linux::monotonic_ns());
    for id in [REALTIME, 11] {
        let until = read(REALTIME)? + HOUR;
        while_waiting(FORTH, || gives(SYS_clock_nanosleep, &[id, ABSTIME, at(&parts(until)), 0], 0))?;
        ensure!(read(REALTIME)? >= until);
        // FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME.
        let until = read(REALTIME)? + HOUR;
        let wait = || refused(SYS_futex, &[at(&word), 9 | 256, 0, at(&parts(until)), 0, 1], ETIMEDOUT);
        while_waiting(FORTH, wait)?;
        ensure!(read(REALTIME)? >= until);
    }
    // FUTEX_LOCK_PI of a lock that this thread holds: FUTEX_LOCK_PI too is by the time of day.
    gives(SYS_futex, &[at(&word), 6, 0, 0], 0)?;
    let until = read(REALTIME)? + HOUR;
    while_waiting(FORTH, || refused(SYS_futex, &[at(&word), 6, 0, at(&parts(until))], ETIMEDOUT))?;
    gives(SYS_futex, &[at(&word), 7], 0)?;
    // Back: it waits on, until the clock comes there again.
    let until = read(REALTIME)? + 60 * MS;
    while_waiting(-FORTH, || {
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| gives(SYS_clock_nanosleep, &[REALTIME, ABSTIME, at(&parts(until)), 0], 0));
            linux::sleep_ns(150 * MS);
            let asleep = !sleeper.is_finished();
            set_to(until)?;
            sleeper.join().map_err(|_| "the sleeper panicked")??;
            // On a machine that does much else it may be over before the clock is set back.
            ensure!(asleep || linux::monotonic_ns() > start + 10 * S);
            Ok(())
        })
    })?;
    ensure!(linux::monotonic_ns() < start + HOUR);
    // A duration stays one, and so does a time of another clock.
    for (id, flags) in [(REALTIME, 0), (1, ABSTIME)] {
        let start = linux::monotonic_ns();
        let until = parts(if flags == 0 { 100 * MS } else { start + 100 * MS });
        while_waiting(FORTH, || gives(SYS_clock_nanosleep, &[id, flags, at(&until), 0], 0))?;
        ensure!((100 * MS..SOME).contains(&(linux::monotonic_ns() - start)));
    }
    drop(clock);
    Ok(())
}

/// A timerfd of the wall clock that expires at `first`, then every `interval`.
fn file(flags: u64, first: u64, interval: u64) -> Result<u64, String> {
    let fd = works(SYS_timerfd_create, &[REALTIME, libc::TFD_NONBLOCK as u64])?;
    let ([a, b], [c, d]) = (parts(interval), parts(first));
    gives(SYS_timerfd_settime, &[fd, flags, at(&[a, b, c, d]), 0], 0)?;
    Ok(fd)
}

/// What a read of `fd` gives, or its error.
fn expired(fd: u64) -> Result<u64, i32> {
    let mut count = 0u64;
    call(SYS_read, [fd, to(&mut count), 8, 0, 0, 0]).map(|_| count)
}

fn is_readable(fd: u64, limit_ms: u64) -> Result<bool, String> {
    let mut pollfd = fd | 1 << 32;
    Ok(works(SYS_poll, &[to(&mut pollfd), 1, limit_ms])? == 1)
}

fn moves_timers() -> Result<(), String> {
    works(SYS_alarm, &[LIMIT_S])?;
    let Some(clock) = Clock::may_be_set()? else { return Ok(()) };
    let now = read(REALTIME)?;
    let (once, often) = (file(ABSTIME, now + HOUR, 0)?, file(ABSTIME, now + HOUR, 60 * S)?);
    let (far, relative) = (file(ABSTIME, now + 48 * HOUR, 0)?, file(0, HOUR, 0)?);
    let set = 1u64 << (libc::SIGUSR1 - 1);
    gives(SYS_rt_sigprocmask, &[0, at(&set), 0, 8], 0)?;
    let mut timers = [0i32; 2];
    for (timer, flags) in timers.iter_mut().zip([ABSTIME, 0]) {
        let event = [flags, libc::SIGUSR1 as u64, 0, 0, 0, 0, 0, 0];
        gives(SYS_timer_create, &[REALTIME, at(&event), to(timer)], 0)?;
        let [c, d] = parts(if flags == 0 { HOUR } else { now + HOUR });
        gives(SYS_timer_settime, &[*timer as u64, flags, at(&[0, 0, c, d]), 0], 0)?;
    }
    let left = |timer: i32| -> Result<u64, String> {
        let mut setting = [0u64; 4];
        gives(SYS_timer_gettime, &[timer as u64, to(&mut setting)], 0)?;
        Ok(setting[2] * S + setting[3])
    };
    // Back: further away, by the time of day alone.
    set_to(now - HOUR)?;
    ensure!((2 * HOUR - SOME..=2 * HOUR).contains(&left(timers[0])?) && left(timers[1])? <= HOUR);
    ensure!(expired(once) == Err(EAGAIN) && expired(often) == Err(EAGAIN));
    // Forth, while somebody waits.
    while_waiting(2 * HOUR as i64 + 150 * S as i64, || {
        ensure!(is_readable(once, u32::MAX as u64)?);
        Ok(())
    })?;
    ensure!(expired(once) == Ok(1) && expired(once) == Err(EAGAIN));
    ensure!(expired(often).is_ok_and(|n| (3..=3 + SOME / S / 60).contains(&n)) && expired(often) == Err(EAGAIN));
    let mut info = [0i32; 32];
    works(SYS_rt_sigtimedwait, &[at(&set), to(&mut info), 0, 8])?;
    equal!(info[6] as u64, ABSTIME);
    equal!(left(timers[0])?, 0);
    ensure!(left(timers[1])? > HOUR - SOME && expired(far) == Err(EAGAIN) && expired(relative) == Err(EAGAIN));
    refused(SYS_rt_sigtimedwait, &[at(&set), 0, at(&[0u64; 2]), 8], EAGAIN)?;
    drop(clock);
    Ok(())
}

fn cancels() -> Result<(), String> {
    const CANCEL_ON_SET: u64 = 2;
    works(SYS_alarm, &[LIMIT_S])?;
    let Some(clock) = Clock::may_be_set()? else { return Ok(()) };
    let fds = [
        file(ABSTIME | CANCEL_ON_SET, read(REALTIME)? + 48 * HOUR, 0)?,
        file(ABSTIME | CANCEL_ON_SET, 0, 0)?, // not even set
    ];
    let others = [file(ABSTIME, read(REALTIME)? + 48 * HOUR, 0)?, file(CANCEL_ON_SET, 48 * HOUR, 0)?];
    for round in 0..2i64 {
        equal!(fds.map(expired), [Err(EAGAIN); 2]);
        while_waiting(FORTH - 2 * round * FORTH, || {
            ensure!(is_readable(fds[0], u32::MAX as u64)? && is_readable(fds[1], u32::MAX as u64)?);
            Ok(())
        })?;
        equal!(fds.map(expired), [Err(ECANCELED); 2]);
        ensure!(!is_readable(fds[0], 0)? && !is_readable(others[0], 0)? && !is_readable(others[1], 0)?);
    }
    equal!(others.map(expired), [Err(EAGAIN); 2]);
    // Who sets the timer anew without having read is told then, and it is set.
    set_to(read(REALTIME)? + HOUR)?;
    let soon = [0, 0, 1, 0u64];
    refused(SYS_timerfd_settime, &[fds[0], ABSTIME | CANCEL_ON_SET, at(&soon), 0], ECANCELED)?;
    ensure!(is_readable(fds[0], u32::MAX as u64)?);
    equal!(expired(fds[0]), Ok(1));
    // One that is set without the flag is told nothing.
    gives(SYS_timerfd_settime, &[fds[1], ABSTIME, at(&[0u64; 4]), 0], 0)?;
    equal!(expired(fds[1]), Err(EAGAIN));
    drop(clock);
    Ok(())
}

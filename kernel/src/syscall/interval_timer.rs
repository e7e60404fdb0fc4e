//! System calls about interval timers: in real time, and in CPU time of the process, all of which counts as the user's.
//!
//! Source: getitimer(2), alarm(2).

use super::table::Calls;
use crate::errno::{EINVAL, Errno};
use crate::mm::user_copy;
use crate::process::{current_thread, timer};
use crate::system_call;

/// Numbers and handlers.
pub const CALLS: Calls = &[(36, getitimer), (37, alarm_call), (38, setitimer)];

const NS: u64 = 1_000_000_000;
const REAL: usize = 0;

/// ITIMER_REAL, ITIMER_VIRTUAL or ITIMER_PROF.
fn number(which: u64) -> Result<usize, Errno> {
    match which as i32 {
        which @ 0..=2 => Ok(which as usize),
        _ => Err(EINVAL),
    }
}

/// struct itimerval: interval, then time left.
fn write(at: u64, (left_ns, interval_ns): (u64, u64)) -> Result<(), Errno> {
    let parts = |ns: u64| {
        let us = ns.div_ceil(1000);
        [us / 1_000_000, us % 1_000_000]
    };
    let ([a, b], [c, d]) = (parts(interval_ns), parts(left_ns));
    Ok(user_copy::write(at, &[a, b, c, d])?)
}

/// The same from the program: time left and interval, ns.
fn read(at: u64) -> Result<(u64, u64), Errno> {
    let ns = |seconds: u64, us: u64| {
        if seconds as i64 >= 0 && us < 1_000_000 {
            Ok(seconds.saturating_mul(NS).saturating_add(us * 1000))
        } else {
            Err(EINVAL)
        }
    };
    let [a, b, c, d]: [u64; 4] = user_copy::read(at)?;
    Ok((ns(c, d)?, ns(a, b)?))
}

system_call! {
    /// getitimer(2)
    getitimer(which, at) {
        write(at, timer::alarm(&current_thread().process, number(which)?))?;
        Ok(0)
    }
}
system_call! {
    /// setitimer(2)
    setitimer(which, new, old) {
        let (left_ns, interval_ns) = if new == 0 { (0, 0) } else { read(new)? };
        let was = timer::set_alarm(&current_thread().process, number(which)?, left_ns, interval_ns)?;
        if old != 0 {
            write(old, was)?;
        }
        Ok(0)
    }
}
system_call! {
    /// alarm(2): the seconds that were left, to the nearest, but not 0 while there was an alarm.
    alarm_call(seconds) {
        let (left_ns, _) = timer::set_alarm(&current_thread().process, REAL, seconds as u32 as u64 * NS, 0)?;
        Ok(match left_ns {
            0 => 0,
            left_ns => (left_ns.saturating_add(NS / 2) / NS).max(1),
        })
    }
}

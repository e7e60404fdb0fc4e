//! System calls that set the wall clock. Its rate is the counter's, and is not changed.
//!
//! Source: clock_settime(2), settimeofday(2), adjtimex(2).

use super::table::Calls;
use crate::errno::{EINVAL, EOPNOTSUPP, Errno, SysResult};
use crate::mm::{user_copy, vdso};
use crate::system_call;
use crate::time::wall;
use core::sync::atomic::{AtomicBool, Ordering};
use kcore::wall_clock::{self, adjustment, is_time};

/// Numbers and handlers.
pub const CALLS: Calls = &[(159, adjtimex), (164, settimeofday), (227, clock_settime), (305, clock_adjtime)];

const NS: u64 = 1_000_000_000;
const REALTIME: i32 = 0;
/// Fractions in struct timex are nanoseconds (STA_NANO).
static IS_NANO: AtomicBool = AtomicBool::new(false);
/// Nobody has called settimeofday yet with a time zone.
static IS_FIRST_ZONE: AtomicBool = AtomicBool::new(true);

/// Set the clock as `decide` says; see `wall::set`.
fn set(decide: impl FnOnce(u64, u64) -> Option<u64>) -> Result<(), Errno> {
    if wall::set(decide, vdso::set_wall) { Ok(()) } else { Err(EINVAL) }
}

system_call! {
    /// clock_settime(2)
    clock_settime(clock, at) {
        if clock as i32 != REALTIME {
            return Err(EINVAL);
        }
        let [seconds, ns]: [u64; 2] = user_copy::read(at)?;
        set(|_, now_ns| wall_clock::set(now_ns, seconds, ns))?;
        Ok(0)
    }
}
system_call! {
    /// settimeofday(2)
    settimeofday(at, zone) {
        let time: Option<[u64; 2]> = if at == 0 { None } else { Some(user_copy::read(at)?) };
        if time.is_some_and(|[seconds, us]| us >= 1_000_000 || !is_time(seconds, us * 1000)) {
            return Err(EINVAL);
        }
        if zone != 0 {
            let zone: u64 = user_copy::read(zone)?;
            set_zone(zone, time.is_none())?;
        }
        if let Some([seconds, us]) = time {
            set(|_, now_ns| wall_clock::set(now_ns, seconds, us * 1000))?;
        }
        Ok(0)
    }
}

/// Keep struct timezone. The first one, if it comes without a time, says that the hardware's clock shows the zone's time: the wall clock is put right.
fn set_zone(zone: u64, is_alone: bool) -> Result<(), Errno> {
    let minutes_west = zone as u32 as i32;
    if !(-15 * 60..=15 * 60).contains(&minutes_west) {
        return Err(EINVAL);
    }
    vdso::set_zone(zone);
    if IS_FIRST_ZONE.swap(false, Ordering::Relaxed) && is_alone && minutes_west != 0 {
        let _ = set(|at_0_ns, now_ns| wall_clock::moved(at_0_ns, now_ns, minutes_west as i64 * 60, 0));
    }
    Ok(())
}

/// struct timex.
type Timex = [u64; 26];

system_call! {
    /// clock_adjtime(2)
    clock_adjtime(clock, at) {
        let timex: Timex = user_copy::read(at)?;
        match clock as i32 {
            REALTIME => adjust(timex, at),
            1..=9 | 11 => Err(EOPNOTSUPP),
            _ => Err(EINVAL),
        }
    }
}
system_call! {
    /// adjtimex(2)
    adjtimex(at) { adjust(user_copy::read(at)?, at) }
}

/// Do what `timex` asks for, and write the clock's state to `at`.
fn adjust(mut timex: Timex, at: u64) -> SysResult {
    const UNSYNCHRONISED: u64 = 0x40;
    const NANO: u64 = 0x2000;
    /// Nobody has synchronised the clock.
    const TIME_ERROR: u64 = 5;
    /// What Linux says then, 16 s.
    const ERROR_US: u64 = 16_000_000;
    let asked = adjustment(timex[0] as u32, [timex[9], timex[10]]).ok_or(EINVAL)?;
    if let Some((seconds, ns)) = asked.by {
        set(|at_0_ns, now_ns| wall_clock::moved(at_0_ns, now_ns, seconds, ns))?;
    }
    if let Some(nano) = asked.nano {
        IS_NANO.store(nano, Ordering::Relaxed);
    }
    let is_nano = IS_NANO.load(Ordering::Relaxed);
    let now_ns = wall::now_ns();
    let low = |word: u64, value: u64| word >> 32 << 32 | value;
    // offset, freq, maxerror, esterror; status; constant, precision, tolerance (500 ppm); time; tick.
    timex[1..5].copy_from_slice(&[0, 0, ERROR_US, ERROR_US]);
    timex[5] = low(timex[5], UNSYNCHRONISED | if is_nano { NANO } else { 0 });
    timex[6..9].copy_from_slice(&[2, 1, 500 << 16]);
    timex[9..12].copy_from_slice(&[now_ns / NS, now_ns % NS / if is_nano { 1 } else { 1000 }, 10_000]);
    // No pulse per second; then TAI's offset.
    timex[12..14].fill(0);
    timex[14] = low(timex[14], 0);
    timex[15..20].fill(0);
    timex[20] = low(timex[20], 0);
    user_copy::write(at, &timex)?;
    Ok(TIME_ERROR)
}

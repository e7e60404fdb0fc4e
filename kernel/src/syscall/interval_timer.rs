//! System calls about interval timers: in real time only.
//!
//! Source: getitimer(2), alarm(2).

use super::table::Calls;
use crate::errno::{EINVAL, Errno};
use crate::mm::user_copy;
use crate::process::alarm::{self, Setting};
use crate::process::current_thread;
use crate::system_call;

/// Numbers and handlers.
pub const CALLS: Calls = &[(36, getitimer), (37, alarm_call), (38, setitimer)];

const NS: u64 = 1_000_000_000;
const REAL: u64 = 0;
/// ITIMER_VIRTUAL and ITIMER_PROF: never set.
const OF_CPU_TIME: [u64; 2] = [1, 2];

/// struct itimerval: interval, then time left.
fn write(at: u64, s: Setting) -> Result<(), Errno> {
    let parts = |ns: u64| [ns / NS, (ns % NS).div_ceil(1000).min(999_999)];
    let ([a, b], [c, d]) = (parts(s.interval_ns), parts(s.left_ns));
    Ok(user_copy::write(at, &[a, b, c, d])?)
}

fn read(at: u64) -> Result<Setting, Errno> {
    let ns = |seconds: u64, us: u64| {
        if seconds as i64 >= 0 && us < 1_000_000 {
            Ok(seconds.saturating_mul(NS).saturating_add(us * 1000))
        } else {
            Err(EINVAL)
        }
    };
    let [a, b, c, d]: [u64; 4] = user_copy::read(at)?;
    Ok(Setting { interval_ns: ns(a, b)?, left_ns: ns(c, d)? })
}

system_call! {
    /// getitimer(2)
    getitimer(which, at) {
        let setting = match which {
            REAL => alarm::get(&current_thread().process),
            _ if OF_CPU_TIME.contains(&which) => Setting::default(),
            _ => return Err(EINVAL),
        };
        write(at, setting)?;
        Ok(0)
    }
}
system_call! {
    /// setitimer(2). Timers of CPU time cannot be set: EINVAL.
    setitimer(which, new, old) {
        let new = if new == 0 { Setting::default() } else { read(new)? };
        let was = match which {
            REAL => alarm::set(&current_thread().process, new)?,
            _ if OF_CPU_TIME.contains(&which) && new.left_ns == 0 => Setting::default(),
            _ => return Err(EINVAL),
        };
        if old != 0 {
            write(old, was)?;
        }
        Ok(0)
    }
}
system_call! {
    /// alarm(2): the seconds that were left, to the nearest, but not 0 while there was an alarm.
    alarm_call(seconds) {
        let new = Setting { left_ns: seconds as u32 as u64 * NS, interval_ns: 0 };
        let was = alarm::set(&current_thread().process, new)?;
        Ok(if was.left_ns == 0 { 0 } else { ((was.left_ns + NS / 2) / NS).max(1) })
    }
}

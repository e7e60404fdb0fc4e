//! System calls about POSIX timers.
//!
//! Source: timer_create(2), timer_settime(2), timer_getoverrun(2), timer_delete(2), sigevent(7).

use super::file_epoll::{start_of, write_setting};
use super::table::Calls;
use super::time::read_duration;
use crate::errno::{EINVAL, EOPNOTSUPP, Errno};
use crate::mm::user_copy;
use crate::process::signal::sig;
use crate::process::timer::{self, Clock, Notify, Timer};
use crate::process::{Thread, current_thread};
use crate::system_call;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;

/// Numbers and handlers.
pub const CALLS: Calls =
    &[(222, timer_create), (223, timer_settime), (224, timer_gettime), (225, timer_getoverrun), (226, timer_delete)];

/// Clocks that show the time of day.
const REALTIME: [i32; 3] = [0, 8, 11];

/// The thread of the running process whose id is `tid`.
fn thread(tid: u32) -> Option<Arc<Thread>> {
    let threads = current_thread().process.threads.lock();
    threads.iter().find(|t| t.tid.load(Ordering::Relaxed) == tid).cloned()
}

/// What struct sigevent at `at` says, or what stands for none.
fn read_event(at: u64) -> Result<Event, Errno> {
    const SIGNAL: u32 = 0;
    const NONE: u32 = 1;
    const CALL_FUNCTION: u32 = 2; // the C library's affair: a signal here
    const THREAD_ID: u32 = 4;
    if at == 0 {
        return Ok(Event::Signal { signal: sig::ALRM, value: None, to: None });
    }
    let [value, how, tid, ..]: [u64; 8] = user_copy::read(at)?;
    let (signal, how, tid) = (how as u32, (how >> 32) as u32, tid as u32);
    let to = match how {
        NONE => return Ok(Event::Nothing),
        SIGNAL | CALL_FUNCTION => None,
        THREAD_ID => Some(Arc::downgrade(&thread(tid).ok_or(EINVAL)?)),
        _ => return Err(EINVAL),
    };
    if !(1..=sig::MAX).contains(&signal) {
        return Err(EINVAL);
    }
    Ok(Event::Signal { signal, value: Some(value), to })
}

/// A notification before the timer has its number, which is its value where the program gives none.
enum Event {
    Nothing,
    Signal { signal: u32, value: Option<u64>, to: Option<Weak<Thread>> },
}

impl Event {
    fn of(self, number: i32) -> Notify {
        match self {
            Event::Nothing => Notify::Nothing,
            Event::Signal { signal, value, to } => Notify::Signal(signal, value.unwrap_or(number as u64), to),
        }
    }
}

system_call! {
    /// timer_create(2)
    timer_create(clock, event, at) {
        let me = current_thread();
        let clock_id = clock as i32;
        let measured = match clock_id {
            0 | 1 | 7 | 8 | 9 | 11 => Clock::Boot,
            2 => Clock::Process,
            3 => Clock::Thread(thread(me.tid.load(Ordering::Relaxed)).map_or(Weak::new(), |t| Arc::downgrade(&t))),
            4..=6 => return Err(EOPNOTSUPP), // the raw clock and the coarse ones
            _ => return Err(EINVAL),
        };
        let event = read_event(event)?;
        let is_realtime = REALTIME.contains(&clock_id);
        let number = timer::create(&me.process, measured, is_realtime, |number| event.of(number))?;
        if let Err(fault) = user_copy::write(at, &number) {
            let _ = timer::delete(&me.process, number);
            return Err(fault.into());
        }
        Ok(0)
    }
}

fn named(number: u64) -> Result<Arc<Timer>, Errno> {
    timer::find(&current_thread().process, number as i32)
}

system_call! {
    /// timer_settime(2)
    timer_settime(number, flags, new, old) {
        const ABSTIME: u64 = 1;
        if new == 0 {
            return Err(EINVAL);
        }
        let (interval_ns, value_ns) = (read_duration(new)?, read_duration(new.wrapping_add(16))?);
        let timer = named(number)?;
        let was = timer.set(start_of(value_ns, flags & ABSTIME != 0, timer.is_realtime), interval_ns)?;
        if old != 0 {
            write_setting(old, was)?;
        }
        Ok(0)
    }
}
system_call! {
    /// timer_gettime(2)
    timer_gettime(number, at) {
        write_setting(at, named(number)?.setting())?;
        Ok(0)
    }
}
system_call! {
    /// timer_getoverrun(2)
    timer_getoverrun(number) { Ok(named(number)?.overrun() as u64) }
}
system_call! {
    /// timer_delete(2)
    timer_delete(number) {
        timer::delete(&current_thread().process, number as i32)?;
        Ok(0)
    }
}

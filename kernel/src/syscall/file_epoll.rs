//! epoll, timerfd and signalfd calls.
//!
//! Source: epoll_create(2), epoll_ctl(2), epoll_wait(2), timerfd_create(2), signalfd(2).

use super::file::file;
use super::file_poll::{deadline, with_mask};
use super::time::read_duration;
use crate::errno::{self, Errno};
use crate::fs::current;
use crate::fs::epoll::Epoll;
use crate::fs::open_file::{OpenFile, flag};
use crate::fs::signal_file::SignalFile;
use crate::fs::timer_file::TimerFile;
use crate::mm::user_copy;
use crate::process::signal::{bit, sig};
use alloc::sync::Arc;
use kcore::interval_timer::Start;

/// struct epoll_event: packed.
const EVENT_BYTES: u64 = 12;
const NS: u64 = 1_000_000_000;

pub(super) fn epoll_create(size: u64) -> Result<usize, Errno> {
    if size as i32 <= 0 { Err(errno::EINVAL) } else { epoll_create1(0) }
}

pub(super) fn epoll_create1(flags: u64) -> Result<usize, Errno> {
    let flags = flags as u32;
    if flags & !flag::CLOEXEC != 0 {
        return Err(errno::EINVAL);
    }
    let open = OpenFile::new(Epoll::new(), flag::RDWR, None);
    Ok(current::files().install(open, flags & flag::CLOEXEC != 0)? as usize)
}

pub(super) fn epoll_ctl(epoll: u64, operation: u64, fd: u64, at: u64) -> Result<usize, Errno> {
    const ADD: u64 = 1;
    const DELETE: u64 = 2;
    const MODIFY: u64 = 3;
    let (mut events, mut data) = (0, 0);
    if operation != DELETE {
        (events, data) = (user_copy::read::<u32>(at)?, user_copy::read::<u64>(at.wrapping_add(4))?);
    }
    let (set, open) = (file(epoll)?, file(fd)?);
    let set = set.file.as_epoll().filter(|_| epoll as i32 != fd as i32).ok_or(errno::EINVAL)?;
    match operation {
        ADD => set.add(fd as i32, &open, events, data)?,
        DELETE => set.remove(fd as i32, &open)?,
        MODIFY => set.modify(fd as i32, &open, events, data)?,
        _ => return Err(errno::EINVAL),
    }
    Ok(0)
}

fn wait(epoll: u64, at: u64, most: u64, deadline_tsc: Option<u64>) -> Result<usize, Errno> {
    let most = most as i32;
    if most <= 0 || most as u64 > i32::MAX as u64 / EVENT_BYTES {
        return Err(errno::EINVAL);
    }
    user_copy::check(at, most as u64 * EVENT_BYTES)?;
    let set = file(epoll)?;
    let set = set.file.as_epoll().ok_or(errno::EINVAL)?;
    let found = set.wait(most as usize, deadline_tsc)?;
    for ((events, data), to) in found.iter().zip((at..).step_by(EVENT_BYTES as usize)) {
        user_copy::write(to, events)?;
        user_copy::write(to + 4, data)?;
    }
    Ok(found.len())
}

pub(super) fn epoll_wait(epoll: u64, at: u64, most: u64, timeout_ms: u64) -> Result<usize, Errno> {
    let timeout_ms = timeout_ms as i32;
    wait(epoll, at, most, (timeout_ms >= 0).then(|| deadline(timeout_ms as u64 * 1_000_000)))
}

pub(super) fn epoll_pwait(
    epoll: u64,
    at: u64,
    most: u64,
    timeout_ms: u64,
    mask: u64,
    len: u64,
) -> Result<usize, Errno> {
    with_mask(mask, len, || epoll_wait(epoll, at, most, timeout_ms))
}

pub(super) fn epoll_pwait2(epoll: u64, at: u64, most: u64, timeout: u64, mask: u64, len: u64) -> Result<usize, Errno> {
    let deadline_tsc = if timeout == 0 { None } else { Some(deadline(read_duration(timeout)?)) };
    with_mask(mask, len, || wait(epoll, at, most, deadline_tsc))
}

pub(super) fn timerfd_create(clock: u64, flags: u64) -> Result<usize, Errno> {
    let flags = flags as u32;
    // REALTIME, MONOTONIC, BOOTTIME, and the two that wake a sleeping machine.
    if !matches!(clock as i32, 0 | 1 | 7 | 8 | 9) || flags & !(flag::CLOEXEC | flag::NONBLOCK) != 0 {
        return Err(errno::EINVAL);
    }
    let timer = TimerFile::new(matches!(clock as i32, 0 | 8));
    let open = OpenFile::new(timer, flag::RDWR | flags & flag::NONBLOCK, None);
    Ok(current::files().install(open, flags & flag::CLOEXEC != 0)? as usize)
}

fn timer(fd: u64) -> Result<Arc<TimerFile>, Errno> {
    file(fd)?.file.clone().as_timer().ok_or(errno::EINVAL)
}

/// When a timer is to expire first by the value that a program gives: 0 is never.
pub(super) fn start_of(value_ns: u64, is_absolute: bool, is_realtime: bool) -> Option<Start> {
    match value_ns {
        0 => None,
        at if is_absolute && is_realtime => Some(Start::OfDay(at)),
        at if is_absolute => Some(Start::At(at)),
        after => Some(Start::After(after)),
    }
}

/// struct itimerspec of time left and interval.
pub(super) fn write_setting(at: u64, (left_ns, interval_ns): (u64, u64)) -> Result<(), Errno> {
    Ok(user_copy::write(at, &[interval_ns / NS, interval_ns % NS, left_ns / NS, left_ns % NS])?)
}

pub(super) fn timerfd_settime(fd: u64, flags: u64, new: u64, old: u64) -> Result<usize, Errno> {
    const ABSTIME: u64 = 1;
    const CANCEL_ON_SET: u64 = 2;
    let (interval_ns, value_ns) = (read_duration(new)?, read_duration(new.wrapping_add(16))?);
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(errno::EINVAL);
    }
    let timer = timer(fd)?;
    let cancels = timer.is_realtime && flags == ABSTIME | CANCEL_ON_SET;
    let was = timer.set(start_of(value_ns, flags & ABSTIME != 0, timer.is_realtime), interval_ns, cancels)?;
    if old != 0 {
        write_setting(old, was)?;
    }
    Ok(0)
}

pub(super) fn timerfd_gettime(fd: u64, at: u64) -> Result<usize, Errno> {
    write_setting(at, timer(fd)?.setting()).map(|()| 0)
}

pub(super) fn signalfd(fd: u64, set: u64, size: u64) -> Result<usize, Errno> {
    signalfd4(fd, set, size, 0)
}

pub(super) fn signalfd4(fd: u64, set: u64, size: u64, flags: u64) -> Result<usize, Errno> {
    let flags = flags as u32;
    if size != 8 || flags & !(flag::CLOEXEC | flag::NONBLOCK) != 0 {
        return Err(errno::EINVAL);
    }
    let set = user_copy::read::<u64>(set)? & !(bit(sig::KILL) | bit(sig::STOP));
    if fd as i32 != -1 {
        file(fd)?.file.as_signals().ok_or(errno::EINVAL)?.set(set);
        return Ok(fd as u32 as usize);
    }
    let open = OpenFile::new(SignalFile::new(set), flag::RDWR | flags & flag::NONBLOCK, None);
    Ok(current::files().install(open, flags & flag::CLOEXEC != 0)? as usize)
}

//! poll(2) and select(2): waiting for several files at once.
//!
//! The signal masks of ppoll and pselect6 are put in place for the wait.

use super::file::{file, place_or_file};
use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::fs::current;
use crate::fs::open_file::{File, OpenFile, flag, poll as bits};
use crate::fs::table::MAX_FILES;
use crate::fs::waiting;
use crate::mm::user_copy;
use crate::sched::wait_queue::WaitQueue;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// What is asked of one file.
struct Asked {
    /// None: POLLNVAL, or a descriptor that is to be ignored.
    open: Option<Arc<OpenFile>>,
    events: u32,
    /// What is found.
    found: u32,
}

impl Asked {
    fn look(&mut self) -> bool {
        if let Some(open) = &self.open {
            let now = open.file.poll(open.flags() & flag::ACCMODE);
            self.found = now & (self.events | bits::ERR | bits::HUP);
        }
        self.found != 0
    }
}

/// Wait until one of `asked` has something or the time is over; how many have.
fn wait(asked: &mut [Asked], deadline_tsc: Option<u64>) -> Result<usize, Errno> {
    let mut files: Vec<Arc<dyn File>> = asked.iter().filter_map(|a| Some(a.open.as_ref()?.file.clone())).collect();
    asked.iter().filter_map(|a| a.open.as_ref()).for_each(|open| open.file.watched_files(&mut files));
    let queues: Vec<&WaitQueue> = files.iter().flat_map(|file| file.wait_queues()).flatten().collect();
    let look = || {
        let mut n = 0;
        for a in asked.iter_mut() {
            n += a.look() as usize;
        }
        (n > 0).then_some(n)
    };
    Ok(waiting::wait_any(&queues, deadline_tsc, look)?.unwrap_or(0))
}

/// The TSC in `ns`.
pub(super) fn deadline(ns: u64) -> u64 {
    tsc::now().saturating_add(tsc::ns_to_ticks(ns))
}

/// A timespec (or timeval, with `unit_ns` 1000) as a deadline; null waits for ever.
fn deadline_at(at: u64, unit_ns: u64) -> Result<Option<u64>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    let [seconds, part]: [u64; 2] = user_copy::read(at)?;
    if (seconds as i64) < 0 || part.saturating_mul(unit_ns) >= 1_000_000_000 {
        return Err(errno::EINVAL);
    }
    Ok(Some(deadline(seconds.saturating_mul(1_000_000_000).saturating_add(part * unit_ns))))
}

fn poll_until(at: u64, count: u64, deadline_tsc: Option<u64>) -> Result<usize, Errno> {
    if count > MAX_FILES as u64 {
        return Err(errno::EINVAL);
    }
    let mut asked = Vec::with_capacity(count as usize);
    for i in 0..count {
        // struct pollfd: descriptor, events, found events.
        let word: u64 = user_copy::read(at.wrapping_add(i * 8))?;
        let fd = word as u32 as i32;
        let events = (word >> 32) as u16 as u32;
        let open = if fd < 0 { None } else { file(fd as u64).ok() };
        let found = if fd >= 0 && open.is_none() { bits::NVAL } else { 0 };
        asked.push(Asked { open, events, found });
    }
    let n = wait(&mut asked, deadline_tsc)?;
    for (i, a) in asked.iter().enumerate() {
        user_copy::write(at.wrapping_add(i as u64 * 8 + 6), &(a.found as u16))?;
    }
    Ok(n)
}

/// Poll goes on after a stop, but not after a handler ran.
fn no_restart(result: Result<usize, Errno>) -> Result<usize, Errno> {
    result.map_err(|e| if e == errno::ERESTARTSYS { errno::ERESTARTNOHAND } else { e })
}

pub(super) fn poll(at: u64, count: u64, timeout_ms: u64) -> Result<usize, Errno> {
    let timeout = timeout_ms as i32;
    let deadline = (timeout >= 0).then(|| deadline(timeout as u64 * 1_000_000));
    no_restart(poll_until(at, count, deadline))
}

pub(super) fn ppoll(at: u64, count: u64, timeout: u64, mask: u64, mask_len: u64) -> Result<usize, Errno> {
    let deadline = deadline_at(timeout, 1)?;
    with_mask(mask, mask_len, || no_restart(poll_until(at, count, deadline)))
}

/// Run `wait` with the signal mask at user address `mask`.
pub(super) fn with_mask(mask: u64, len: u64, wait: impl FnOnce() -> Result<usize, Errno>) -> Result<usize, Errno> {
    if mask == 0 {
        return wait();
    }
    if len != 8 {
        return Err(errno::EINVAL);
    }
    current::with_signal_mask(user_copy::read(mask)?, wait)
}

const READ: u32 = bits::NVAL | bits::IN | bits::RDNORM | bits::HUP | bits::ERR;
const WRITE: u32 = bits::NVAL | bits::OUT | bits::WRNORM | bits::ERR;
const EXCEPT: u32 = bits::NVAL | bits::PRI;

fn select_until(count: u64, sets: [u64; 3], deadline_tsc: Option<u64>) -> Result<usize, Errno> {
    let count = count as i32;
    if count < 0 {
        return Err(errno::EINVAL);
    }
    let count = (count as usize).min(MAX_FILES);
    let words = count.div_ceil(64);
    let mut wanted = [[0u64; MAX_FILES / 64]; 3];
    for (set, &at) in wanted.iter_mut().zip(&sets).filter(|(_, at)| **at != 0) {
        for (i, word) in set[..words].iter_mut().enumerate() {
            *word = user_copy::read(at.wrapping_add(i as u64 * 8))?;
        }
    }
    let has = |set: &[u64; MAX_FILES / 64], fd: usize| set[fd / 64] >> (fd % 64) & 1 != 0;
    let mut asked = Vec::new();
    let mut numbers = Vec::new();
    for fd in 0..count {
        let mut events = 0;
        for (set, bits) in wanted.iter().zip([READ, WRITE, EXCEPT]) {
            events |= if has(set, fd) { bits } else { 0 };
        }
        if events != 0 {
            let open = place_or_file(fd as u64)?;
            // What only says where a file is has nothing to wait for: it is ready in every set, as POLLNVAL is.
            let (open, found) = if open.is_path_only() { (None, bits::NVAL) } else { (Some(open), 0) };
            asked.push(Asked { open, events, found });
            numbers.push(fd);
        }
    }
    // HUP and ERR make a file readable or writable only for who asked for that.
    wait(&mut asked, deadline_tsc)?;
    let mut found = [[0u64; MAX_FILES / 64]; 3];
    let mut n = 0;
    for (a, &fd) in asked.iter().zip(&numbers) {
        for (i, bits) in [READ, WRITE, EXCEPT].into_iter().enumerate() {
            if has(&wanted[i], fd) && a.found & bits != 0 {
                found[i][fd / 64] |= 1 << (fd % 64);
                n += 1;
            }
        }
    }
    for (set, &at) in found.iter().zip(&sets).filter(|(_, at)| **at != 0) {
        for (i, word) in set[..words].iter().enumerate() {
            user_copy::write(at.wrapping_add(i as u64 * 8), word)?;
        }
    }
    Ok(n)
}

pub(super) fn select(count: u64, read: u64, write: u64, except: u64, timeout: u64) -> Result<usize, Errno> {
    let deadline = deadline_at(timeout, 1000)?;
    no_restart(select_until(count, [read, write, except], deadline))
}

pub(super) fn pselect6(
    count: u64,
    read: u64,
    write: u64,
    except: u64,
    timeout: u64,
    mask: u64,
) -> Result<usize, Errno> {
    let deadline = deadline_at(timeout, 1)?;
    let [mask, len]: [u64; 2] = if mask == 0 { [0, 8] } else { user_copy::read(mask)? };
    with_mask(mask, len, || no_restart(select_until(count, [read, write, except], deadline)))
}

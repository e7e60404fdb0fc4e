//! Terminals: the console, and pairs of pseudo-terminals.

pub mod console;
mod control;
pub mod input_ring;
mod job_control;
mod played;
pub mod pty;

use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::fs::open_file::File;
use crate::fs::{current, waiting};
use crate::sched::wait_queue::WaitQueue;
use alloc::sync::Arc;
use alloc::vec::Vec;
use control::Line;
use kcore::line_discipline::{ICANON, VTIME};

/// Device numbers of the console (stat(2)'s encoding of 5:1).
const CONSOLE_DEVICE: u32 = 0x501;
/// Bytes that one read gives at most: a whole line.
const READ_MAX: usize = 4096;

/// The terminal of `session`: its device number, and the group in its foreground. For /proc/PID/stat too.
pub fn of_session(session: i32) -> Option<(u32, i32)> {
    if session == 0 {
        return None;
    }
    if console::JOBS.session() == session {
        return Some((CONSOLE_DEVICE, console::JOBS.foreground()));
    }
    pty::of_session(session).map(|pair| (pair.device(), pair.foreground()))
}

/// The leader of `session` has ended: its terminal is free again.
pub fn session_ended(session: i32) {
    console::JOBS.session_ended(session);
    if let Some(pair) = pty::of_session(session) {
        pair.session_ended(session);
    }
}

/// What /dev/tty is for the running process: its session's terminal; ENXIO if that has none.
pub fn open_own() -> Result<Arc<dyn File>, Errno> {
    let session = current::session();
    match pty::of_session(session) {
        Some(pair) => Ok(pair.open_slave(false)),
        None if session != 0 && console::JOBS.session() == session => Ok(console::open()),
        None => Err(errno::ENXIO),
    }
}

/// One read of at most `len` bytes: `try_read` until it gives some, VTIME is over, or a signal comes.
fn read(
    len: usize,
    nonblock: bool,
    readers: &WaitQueue,
    line: &dyn Line,
    mut try_read: impl FnMut(&mut [u8]) -> Option<usize>,
) -> Result<(Vec<u8>, usize), Errno> {
    let len = len.min(READ_MAX);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| errno::ENOMEM)?;
    bytes.resize(len, 0);
    let n = match try_read(&mut bytes) {
        Some(n) => n,
        None if nonblock => return Err(errno::EAGAIN),
        None => {
            let termios = line.termios();
            let timed = termios.lflag & ICANON == 0 && termios.cc[VTIME] > 0;
            let limit = tsc::ns_to_ticks(termios.cc[VTIME] as u64 * 100_000_000);
            let deadline = timed.then(|| tsc::now().saturating_add(limit));
            waiting::wait_any(&[readers], deadline, || try_read(&mut bytes))?.unwrap_or(0)
        }
    };
    Ok((bytes, n))
}

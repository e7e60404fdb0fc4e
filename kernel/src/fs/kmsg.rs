//! /dev/kmsg: the kernel's log as records, each read giving one; written lines go into the log.
//!
//! Format: Linux Documentation/ABI/testing/dev-kmsg. The sequence number is the record's position in the log.

use super::open_file::{File, How, poll};
use super::user_buffer::UserBuffer;
use crate::console;
use crate::errno::{self, Errno};
use crate::spin_lock::{SpinLock, rank};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

/// The longest line that is given whole.
const LINE: usize = 512;
/// How often a reader that waits looks again.
const LOOK_NS: u64 = 50_000_000;

struct Log {
    /// Where the next record starts.
    at: SpinLock<u64, { rank::FILE }>,
}

/// Open it at its first record.
pub fn open(_: u64) -> Arc<dyn File> {
    Arc::new(Log { at: SpinLock::new(0) })
}

/// A line of the log as a record.
fn record(line: &str, at: u64) -> String {
    let parsed = line.strip_prefix('[').and_then(|l| l.split_once("] ")).and_then(|(time, text)| {
        let (s, us) = time.trim().split_once('.')?;
        Some((s.parse::<u64>().ok()?.saturating_mul(1_000_000).saturating_add(us.parse().ok()?), text))
    });
    let (us, text) = parsed.unwrap_or((0, line));
    format!("6,{at},{us},-;{text}\n")
}

impl Log {
    /// The next whole line and where the one after it starts.
    fn next(&self, from: u64) -> Option<(String, u64)> {
        let mut bytes = [0u8; LINE];
        let (n, end) = console::read_log(from, &mut bytes);
        let start = end - n as u64;
        let mut line = &bytes[..n];
        let mut skipped = 0;
        // What was overwritten took the line's start along.
        if start > from {
            skipped = line.iter().position(|&b| b == b'\n')? + 1;
            line = &line[skipped..];
        }
        let len = match line.iter().position(|&b| b == b'\n') {
            Some(len) => len,
            None if line.len() == LINE => LINE - 1,
            None => return None,
        };
        let at = start + skipped as u64;
        Some((record(&String::from_utf8_lossy(&line[..len]), at), at + len as u64 + 1))
    }
}

impl File for Log {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        loop {
            let from = *self.at.lock();
            match self.next(from) {
                Some((record, next)) => {
                    if record.len() > to.left() {
                        return Err(errno::EINVAL);
                    }
                    *self.at.lock() = next;
                    return to.put(record.as_bytes());
                }
                None if how.nonblock() => return Err(errno::EAGAIN),
                None => {
                    if !crate::time::timer::sleep_ns(LOOK_NS, true) {
                        return Err(errno::ERESTARTSYS);
                    }
                }
            }
        }
    }

    fn write(&self, from: &mut UserBuffer, _: How) -> Result<usize, Errno> {
        let mut bytes = [0u8; LINE];
        let n = from.take(&mut bytes)?;
        let rest = from.left();
        let text = String::from_utf8_lossy(&bytes[..n]);
        // A level may stand before it: `<6>text`.
        let text = text.strip_prefix('<').and_then(|t| t.split_once('>')).map_or(&*text, |(_, t)| t);
        crate::info!("{}", text.trim_end_matches('\n'));
        Ok(n + rest)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let from = *self.at.lock();
        poll::OUT | poll::WRNORM | if self.next(from).is_some() { poll::IN | poll::RDNORM } else { 0 }
    }
}

//! /sys/kernel/quiesce/log: each open file reads the interruption log from its own place on, whole lines at a time.

use crate::errno::{self, Errno};
use crate::fs::open_file::{File, How, poll};
use crate::fs::user_buffer::UserBuffer;
use crate::sched::wait_queue::WaitQueue;
use crate::trace::interruption_log;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes that one read gives at most.
const READ_MAX: usize = 8192;

struct Reader {
    position: AtomicU64,
}

/// Open it at the oldest line.
pub fn open(_: u64) -> Arc<dyn File> {
    Arc::new(Reader { position: AtomicU64::new(0) })
}

/// Lines from `position` on that fit into `room`, and the position after them. `None`: no line is there.
fn lines(position: u64, room: usize) -> Option<Result<(String, u64), Errno>> {
    let (mut text, mut next) = interruption_log::line_at(position)?;
    if text.len() > room {
        return Some(Err(errno::EINVAL));
    }
    while let Some((line, after)) = interruption_log::line_at(next) {
        if text.len() + line.len() > room {
            break;
        }
        text.push_str(&line);
        next = after;
    }
    Some(Ok((text, next)))
}

impl File for Reader {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let room = to.left().min(READ_MAX);
        let position = self.position.load(Ordering::Relaxed);
        // What happened before this read is in it.
        interruption_log::drain();
        let found = match lines(position, room) {
            Some(found) => found,
            None if how.nonblock() => return Err(errno::EAGAIN),
            None => interruption_log::READERS.wait(true, || lines(position, room))?,
        };
        let (text, next) = found?;
        self.position.store(next, Ordering::Relaxed);
        to.put(text.as_bytes())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        interruption_log::drain();
        match interruption_log::line_at(self.position.load(Ordering::Relaxed)) {
            Some(_) => poll::IN | poll::RDNORM,
            None => 0,
        }
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&interruption_log::READERS), None]
    }
}

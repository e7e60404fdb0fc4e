//! trace and trace_pipe: the records as lines of text, all CPUs together or one alone. trace ends and consumes nothing;
//! trace_pipe consumes, and waits for more.

use crate::errno::{self, Errno};
use crate::fs::open_file::{File, How};
use crate::fs::user_buffer::UserBuffer;
use crate::spin_lock::{SpinLock, rank};
use crate::trace::names;
use crate::trace::reader::{self, Entry, Reader};
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;

/// Bytes that one read gives at most.
const READ_MAX: usize = 16 * 1024;
/// How often a reader that waits looks again: nobody who records wakes anybody.
const LOOK_NS: u64 = 20_000_000;
/// The argument of the files for all CPUs.
pub const ALL: u64 = u64::MAX;

/// An open trace or trace_pipe.
struct TraceFile {
    only: Option<u32>,
    /// trace: where its reader is. trace_pipe has one place for all.
    own: Option<SpinLock<Reader, { rank::PROCESS_PART }>>,
    /// Text that did not fit into the last read.
    left: SpinLock<String, { rank::PROCESS_PART }>,
}

fn only(argument: u64) -> Option<u32> {
    u32::try_from(argument).ok()
}

/// Open trace of one CPU, or of `ALL`.
pub fn open_trace(argument: u64) -> Arc<dyn File> {
    let text = String::from("# tracer: nop\n#\n#           TASK-PID     CPU#  FLAGS   TIMESTAMP  EVENT\n");
    let own = Some(SpinLock::new(reader::snapshot()));
    Arc::new(TraceFile { only: only(argument), own, left: SpinLock::new(text) })
}

/// Open trace_pipe of one CPU, or of `ALL`.
pub fn open_pipe(argument: u64) -> Arc<dyn File> {
    Arc::new(TraceFile { only: only(argument), own: None, left: SpinLock::new(String::new()) })
}

fn line(entry: &Entry, out: &mut String) {
    let _ = match entry {
        Entry::Lost(cpu, lost) => writeln!(out, "CPU:{cpu} [LOST {lost} EVENTS]"),
        Entry::Record(cpu, record) => names::with_line(*cpu, record, |line| writeln!(out, "{line}")),
    };
}

impl TraceFile {
    fn next(&self) -> Option<Entry> {
        match &self.own {
            Some(own) => own.lock().next(self.only),
            None => reader::consume(self.only),
        }
    }
}

impl File for TraceFile {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let room = to.left().min(READ_MAX);
        if room == 0 {
            return Ok(0);
        }
        let mut text = core::mem::take(&mut *self.left.lock());
        loop {
            while text.len() < room {
                let Some(entry) = self.next() else { break };
                line(&entry, &mut text);
            }
            if !text.is_empty() || self.own.is_some() {
                let given = text.floor_char_boundary(room);
                let put = to.put(&text.as_bytes()[..given]);
                // What could not be given is kept for the next read.
                *self.left.lock() = text.split_off(if put.is_ok() { given } else { 0 });
                return put;
            }
            if how.nonblock() {
                return Err(errno::EAGAIN);
            }
            if !crate::time::timer::sleep_ns(LOOK_NS, true) {
                return Err(errno::ERESTARTSYS);
            }
        }
    }

    /// Writing to trace clears it, as opening it with O_TRUNC does on Linux.
    fn write(&self, from: &mut UserBuffer, _: How) -> Result<usize, Errno> {
        if self.own.is_none() {
            return Err(errno::EINVAL);
        }
        reader::clear(self.only);
        Ok(from.left())
    }

    fn is_seekable(&self) -> bool {
        false
    }
}

//! signalfd: signals that wait, taken by reading instead of by a handler. The program blocks them first.
//!
//! Process context. What there is to read depends on who reads: the running thread's signals and its process's. One queue serves all of them, and
//! senders touch it only while some signalfd is open. Source: signalfd(2).

use super::current;
use super::inode::{Stat, device_number};
use super::open_file::{File, How, poll};
use super::user_buffer::UserBuffer;
use crate::errno::{self, Errno};
use crate::process::signal::{self, Info};
use crate::sched::wait_queue::WaitQueue;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

/// struct signalfd_siginfo.
const RECORD: usize = 128;

/// The signals that it is for.
pub struct SignalFile(AtomicU64);

impl SignalFile {
    /// For `set`; SIGKILL and SIGSTOP are never in it.
    pub fn new(set: u64) -> Arc<SignalFile> {
        signal::files_changed(true);
        Arc::new(SignalFile(AtomicU64::new(set)))
    }

    /// It is for `set` from now on.
    pub fn set(&self, set: u64) {
        self.0.store(set, Ordering::SeqCst);
        signal::file_queue().wake_all();
    }

    fn take(&self) -> Option<Info> {
        current::take_signal(self.0.load(Ordering::SeqCst))
    }
}

impl Drop for SignalFile {
    fn drop(&mut self) {
        signal::files_changed(false);
    }
}

/// What a program reads of a signal. Fields of other kinds of signals stay 0.
fn record(info: &Info) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &info.signal.to_le_bytes());
    put(8, &info.code.to_le_bytes());
    put(12, &info.pid.to_le_bytes());
    put(16, &info.uid.to_le_bytes());
    if info.signal == signal::sig::CHLD {
        put(40, &(info.value as u32).to_le_bytes()); // ssi_status
    } else {
        put(44, &(info.value as u32).to_le_bytes()); // ssi_int
        put(48, &info.value.to_le_bytes()); // ssi_ptr
    }
    put(72, &info.address.to_le_bytes());
    record
}

impl File for SignalFile {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        if to.left() < RECORD {
            return Err(errno::EINVAL);
        }
        let mut done = 0;
        while to.left() >= RECORD {
            let info = match self.take() {
                Some(info) => info,
                None if done > 0 => break,
                None if how.nonblock() => return Err(errno::EAGAIN),
                None => signal::file_queue().wait(true, || self.take())?,
            };
            done += to.put(&record(&info))?;
        }
        Ok(done)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let there = current::waiting_signals() & self.0.load(Ordering::SeqCst) != 0;
        if there { poll::IN | poll::RDNORM } else { 0 }
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(signal::file_queue()), None]
    }

    fn as_signals(&self) -> Option<&SignalFile> {
        Some(self)
    }

    fn stat(&self) -> Stat {
        Stat { dev: device_number::ANONYMOUS, ino: 1, mode: 0o600, nlink: 1, ..Stat::default() }
    }
}

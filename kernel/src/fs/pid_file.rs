//! pidfd: a process by descriptor. It is readable, for poll, once the process has ended.
//!
//! Process context. It keeps the process's memory, and so can tell it from a later one with its number. Source: pidfd_open(2).

use super::inode::{Stat, device_number};
use super::open_file::{File, poll};
use crate::process::{Process, tree};
use crate::sched::wait_queue::WaitQueue;
use alloc::sync::Arc;

/// The process.
pub struct PidFile(pub Arc<Process>);

impl File for PidFile {
    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        if tree::is_over(&self.0) { poll::IN | poll::RDNORM } else { 0 }
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.0.changed), None]
    }

    fn as_process(&self) -> Option<&Arc<Process>> {
        Some(&self.0)
    }

    fn stat(&self) -> Stat {
        Stat { dev: device_number::ANONYMOUS, ino: 1, mode: 0o600, nlink: 1, ..Stat::default() }
    }
}

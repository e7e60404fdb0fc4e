//! Connected stream sockets (AF_UNIX) of socketpair(2): two pipes, one for each direction.
//!
//! Process context. Source: unix(7), shutdown(2).

use super::inode::{Stat, device_number, mode, new_ino};
use super::open_file::{File, How, flag, poll};
use super::pipe::Pipe;
use super::user_buffer::UserBuffer;
use crate::errno::{self, Errno};
use crate::sched::wait_queue::WaitQueue;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

/// One end.
pub struct SocketEnd {
    receive: Arc<Pipe>,
    send: Arc<Pipe>,
    /// This end reads (writes) no more: shutdown(2).
    receive_ended: AtomicBool,
    send_ended: AtomicBool,
    ino: u64,
}

/// Both ends.
pub fn new_pair() -> [Arc<SocketEnd>; 2] {
    let (one, other) = (Pipe::new_open(), Pipe::new_open());
    [(one.clone(), other.clone()), (other, one)].map(|(receive, send)| {
        let ended = || AtomicBool::new(false);
        Arc::new(SocketEnd { receive, send, receive_ended: ended(), send_ended: ended(), ino: new_ino() })
    })
}

impl SocketEnd {
    /// shutdown(2): 0 reading, 1 writing, 2 both. What has been received can still be read.
    pub fn shut_down(&self, how: u64) -> Result<(), Errno> {
        if how > 2 {
            return Err(errno::EINVAL);
        }
        if how != 0 && !self.send_ended.swap(true, Ordering::AcqRel) {
            self.send.release(flag::WRONLY);
        }
        if how != 1 && !self.receive_ended.swap(true, Ordering::AcqRel) {
            self.receive.release(flag::RDONLY);
        }
        Ok(())
    }
}

impl File for SocketEnd {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        // Nothing more comes once this end said so: what is there, and then the end.
        let how = How { nonblock: how.nonblock || self.receive_ended.load(Ordering::Acquire), ..how };
        match self.receive.read(to, how) {
            Err(errno::EAGAIN) if self.receive_ended.load(Ordering::Acquire) => Ok(0),
            result => result,
        }
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        if self.send_ended.load(Ordering::Acquire) {
            super::current::raise_sigpipe();
            return Err(errno::EPIPE);
        }
        self.send.write(from, how)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let (receive, send) = (self.receive.poll(flag::RDONLY), self.send.poll(flag::WRONLY));
        let gone = send & poll::ERR != 0;
        let ended = self.receive_ended.load(Ordering::Acquire) || receive & poll::HUP != 0;
        let mut now = receive & (poll::IN | poll::RDNORM);
        // Who would not wait is told so, also for the end and for EPIPE; HUP is for both directions at once.
        if ended {
            now |= poll::IN | poll::RDNORM;
        }
        if gone || send & poll::OUT != 0 {
            now |= poll::OUT | poll::WRNORM;
        }
        if ended && (gone || self.send_ended.load(Ordering::Acquire)) {
            now |= poll::HUP;
        }
        now
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [self.receive.wait_queues()[0], self.send.wait_queues()[1]]
    }

    fn stat(&self) -> Stat {
        Stat { dev: device_number::ANONYMOUS, ino: self.ino, mode: mode::SOCK | 0o777, nlink: 1, ..Stat::default() }
    }

    fn release(&self, _: u32) {
        let _ = self.shut_down(2);
    }

    fn readable_bytes(&self) -> Option<usize> {
        self.receive.readable_bytes()
    }

    fn socket(&self) -> Option<&SocketEnd> {
        Some(self)
    }
}

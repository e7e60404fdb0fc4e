//! Pipes, with and without a name.
//!
//! Process context. Writes of at most PIPE_BUF bytes are whole. A side that is about to wait says so under the lock, so the other side touches
//! the wait queue only when somebody waits. Source: pipe(7), fifo(7).

use super::inode::{Stat, device_number, mode, new_ino};
use super::open_file::{File, How, flag, poll};
use super::user_buffer::UserBuffer;
use crate::errno::{self, Errno};
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use kcore::byte_ring::ByteRing;

/// Bytes that a pipe holds.
pub const CAPACITY: usize = 65536;
/// Writes up to this are not mixed with others (Linux's PIPE_BUF).
const PIPE_BUF: usize = 4096;
/// Transfers up to these go over the stack: the smaller buffer costs next to nothing to clear.
const TINY: usize = 16;
const SMALL: usize = 256;

struct State {
    ring: ByteRing,
    readers: u32,
    writers: u32,
    /// Times a writer (reader) opened it: an open that waits for one sees it even if it is gone again.
    writers_seen: u64,
    readers_seen: u64,
    /// A reader (writer) waits, or polls.
    reader_waits: bool,
    writer_waits: bool,
}

/// The pipe; both of its ends.
pub struct Pipe {
    state: SpinLock<State, { rank::FILE }>,
    readable: WaitQueue,
    writable: WaitQueue,
    ino: u64,
}

impl Pipe {
    /// A pipe that nobody has open.
    pub fn new() -> Arc<Pipe> {
        let ring = ByteRing::new(CAPACITY);
        let (readers_seen, writers_seen) = (0, 0);
        let state = State {
            ring,
            readers: 0,
            writers: 0,
            writers_seen,
            readers_seen,
            reader_waits: false,
            writer_waits: false,
        };
        Arc::new(Pipe {
            state: SpinLock::new(state),
            readable: WaitQueue::new(),
            writable: WaitQueue::new(),
            ino: new_ino(),
        })
    }

    /// One more user with access mode `access`; `release` takes it back.
    fn enter(&self, access: u32) {
        let mut s = self.state.lock();
        if access != flag::WRONLY {
            s.readers += 1;
            s.readers_seen += 1;
        }
        if access != flag::RDONLY {
            s.writers += 1;
            s.writers_seen += 1;
        }
        drop(s);
        self.readable.wake_all();
        self.writable.wake_all();
    }

    /// The pipe of pipe(2): one reader, one writer.
    pub fn new_open() -> Arc<Pipe> {
        let pipe = Self::new();
        let mut s = pipe.state.lock();
        (s.readers, s.writers) = (1, 1);
        drop(s);
        pipe
    }

    /// Open a named pipe: wait for the other side.
    pub fn open_named(self: &Arc<Pipe>, flags: u32) -> Result<Arc<dyn File>, Errno> {
        let access = flags & flag::ACCMODE;
        if access == flag::WRONLY && flags & flag::NONBLOCK != 0 && self.state.lock().readers == 0 {
            return Err(errno::ENXIO);
        }
        self.enter(access);
        if access != flag::RDWR && flags & flag::NONBLOCK == 0 {
            let seen = {
                let s = self.state.lock();
                (s.readers_seen, s.writers_seen)
            };
            let there = || {
                let s = self.state.lock();
                let there = if access == flag::RDONLY {
                    s.writers > 0 || s.writers_seen != seen.1
                } else {
                    s.readers > 0 || s.readers_seen != seen.0
                };
                there.then_some(())
            };
            let queue = if access == flag::RDONLY { &self.readable } else { &self.writable };
            if let Err(e) = queue.wait(true, there) {
                self.release(access);
                return Err(e.into());
            }
        }
        Ok(self.clone())
    }

    /// Take bytes out: how many, 0 at the end. `None`: none there, and writers may still come.
    fn pop(&self, out: &mut [u8]) -> Option<usize> {
        let mut s = self.state.lock();
        if s.ring.is_empty() {
            if s.writers == 0 {
                return Some(0);
            }
            s.reader_waits = true;
            return None;
        }
        let n = s.ring.pop(out);
        let wake = core::mem::take(&mut s.writer_waits);
        drop(s);
        if wake {
            self.writable.wake_all();
        }
        Some(n)
    }

    /// Put bytes in: how many. `None`: no room (for all of them, if `whole`).
    fn push(&self, bytes: &[u8], whole: bool) -> Option<Result<usize, Errno>> {
        let mut s = self.state.lock();
        if s.readers == 0 {
            return Some(Err(errno::EPIPE));
        }
        let room = s.ring.room();
        if room == 0 || whole && room < bytes.len() {
            s.writer_waits = true;
            return None;
        }
        let n = s.ring.push(bytes);
        let wake = core::mem::take(&mut s.reader_waits);
        drop(s);
        if wake {
            self.readable.wake_all();
        }
        // The ring grows on the way to its capacity; without memory it does not.
        Some(if n == 0 { Err(errno::ENOMEM) } else { Ok(n) })
    }

    fn read_by(&self, bounce: &mut [u8], to: &mut UserBuffer, nonblock: bool) -> Result<usize, Errno> {
        let mut done = 0;
        while to.left() > 0 {
            let wanted = to.left().min(bounce.len());
            let n = match self.pop(&mut bounce[..wanted]) {
                Some(n) => n,
                None if done > 0 => break,
                None if nonblock => return Err(errno::EAGAIN),
                None => self.readable.wait_on(true, || self.pop(&mut bounce[..wanted]))?,
            };
            if n == 0 {
                break;
            }
            match to.put(&bounce[..n]) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
            if n < wanted {
                break;
            }
        }
        Ok(done)
    }

    #[inline(never)]
    fn read_small(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.read_by(&mut [0; SMALL], to, how.nonblock)
    }

    #[inline(never)]
    fn write_small(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.write_by(&mut [0; SMALL], from, how.nonblock)
    }

    fn write_by(&self, bounce: &mut [u8], from: &mut UserBuffer, nonblock: bool) -> Result<usize, Errno> {
        let whole = from.left() <= PIPE_BUF;
        let mut done = 0;
        while from.left() > 0 {
            let taken = match from.take(bounce) {
                Ok(n) => n,
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            };
            let mut chunk = &bounce[..taken];
            while !chunk.is_empty() {
                let pushed = match self.push(chunk, whole) {
                    Some(result) => result,
                    None if nonblock => Err(errno::EAGAIN),
                    None => match self.writable.wait_on(true, || self.push(chunk, whole)) {
                        Ok(result) => result,
                        Err(e) => Err(e.into()),
                    },
                };
                match pushed {
                    Ok(n) => {
                        done += n;
                        chunk = &chunk[n..];
                    }
                    Err(errno::EPIPE) => {
                        super::current::raise_sigpipe();
                        return if done > 0 { Ok(done) } else { Err(errno::EPIPE) };
                    }
                    Err(_) if done > 0 => return Ok(done),
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(done)
    }
}

/// A buffer for larger transfers.
fn large(len: usize) -> Result<Vec<u8>, Errno> {
    let len = len.min(PIPE_BUF);
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len).map_err(|_| errno::ENOMEM)?;
    buffer.resize(len, 0);
    Ok(buffer)
}

impl File for Pipe {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        match to.left() {
            ..=TINY => self.read_by(&mut [0; TINY], to, how.nonblock),
            ..=SMALL => self.read_small(to, how),
            len => self.read_by(&mut large(len)?, to, how.nonblock),
        }
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        match from.left() {
            ..=TINY => self.write_by(&mut [0; TINY], from, how.nonblock),
            ..=SMALL => self.write_small(from, how),
            len => self.write_by(&mut large(len)?, from, how.nonblock),
        }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, access: u32) -> u32 {
        let mut s = self.state.lock();
        let mut bits = 0;
        if access != flag::WRONLY {
            s.reader_waits = true;
            if !s.ring.is_empty() {
                bits |= poll::IN | poll::RDNORM;
            }
            if s.writers == 0 {
                bits |= poll::HUP;
            }
        }
        if access != flag::RDONLY {
            s.writer_waits = true;
            if s.readers == 0 {
                bits |= poll::ERR;
            }
            if s.ring.room() >= PIPE_BUF {
                bits |= poll::OUT | poll::WRNORM;
            }
        }
        bits
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.readable), Some(&self.writable)]
    }

    fn stat(&self) -> Stat {
        Stat { dev: device_number::ANONYMOUS, ino: self.ino, mode: mode::FIFO | 0o600, nlink: 1, ..Stat::default() }
    }

    fn release(&self, access: u32) {
        let mut s = self.state.lock();
        if access != flag::WRONLY {
            s.readers -= 1;
        }
        if access != flag::RDONLY {
            s.writers -= 1;
        }
        let wake = (s.readers == 0, s.writers == 0);
        drop(s);
        if wake.0 {
            self.writable.wake_all();
        }
        if wake.1 {
            self.readable.wake_all();
        }
    }

    fn readable_bytes(&self) -> Option<usize> {
        Some(self.state.lock().ring.len())
    }
}

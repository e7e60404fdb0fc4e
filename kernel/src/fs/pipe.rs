//! Pipes, with and without a name.
//!
//! Process context. Writes of at most PIPE_BUF bytes are whole. A side that is about to wait says so under the lock, so the other side touches
//! the wait queue only when somebody waits. Source: pipe(7), fifo(7).

use super::inode::{Inode, Kind, Stat, device_number, mode, new_ino};
use super::open_file::{File, How, flag, poll};
use super::user_buffer::UserBuffer;
use super::waiting;
use crate::arch::irq_flag::IrqOff;
use crate::errno::{self, Errno};
use crate::sched;
use crate::sched::task::Task;
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
    /// The one reader (writer) that sleeps, by task; 0: none. Further ones, and who polls, are in the queues.
    reader: u32,
    writer: u32,
    /// Somebody is, or may be, in the queue.
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
            reader: 0,
            writer: 0,
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

    /// Open a pipe without a name once more, by way of a descriptor's link: nobody is waited for.
    pub fn open_again(self: &Arc<Pipe>, flags: u32) -> Arc<dyn File> {
        self.enter(flags & flag::ACCMODE);
        self.clone()
    }

    /// Take bytes out: how many, 0 at the end.
    #[inline(always)]
    fn pop(&self, out: &mut [u8], wait: Wait) -> Look<usize> {
        let mut s = self.state.lock();
        if s.ring.is_empty() && s.writers != 0 {
            let s = &mut *s;
            return wait.place(&mut s.reader, &mut s.reader_waits);
        }
        let n = s.ring.pop(out);
        wait.give_up(&mut s.reader);
        let writer = core::mem::take(&mut s.writer);
        let queue = core::mem::take(&mut s.writer_waits);
        drop(s);
        wake(writer, queue, &self.writable);
        Look::Done(n)
    }

    /// Put bytes in: how many; all of them, if `whole`.
    #[inline(always)]
    fn push(&self, bytes: &[u8], whole: bool, wait: Wait) -> Look<Result<usize, Errno>> {
        let mut s = self.state.lock();
        if s.readers == 0 {
            return Look::Done(Err(errno::EPIPE));
        }
        let room = s.ring.room();
        if room == 0 || whole && room < bytes.len() {
            let s = &mut *s;
            return wait.place(&mut s.writer, &mut s.writer_waits);
        }
        let n = s.ring.push(bytes);
        wait.give_up(&mut s.writer);
        let reader = core::mem::take(&mut s.reader);
        let queue = core::mem::take(&mut s.reader_waits);
        drop(s);
        wake(reader, queue, &self.readable);
        // The ring grows on the way to its capacity; without memory it does not.
        Look::Done(if n == 0 { Err(errno::ENOMEM) } else { Ok(n) })
    }

    /// Sleep in the place that `Wait::place` gave, until woken. ERESTARTSYS if a signal came first.
    #[inline]
    fn sleep(&self, me: &Task, place: fn(&mut State) -> &mut u32) -> Result<(), Errno> {
        if !waiting::signal_pending() {
            sched::schedule();
            return Ok(());
        }
        me.state.cancel_sleep();
        let mut s = self.state.lock();
        Wait::Here(me).give_up(place(&mut s));
        Err(errno::ERESTARTSYS)
    }

    #[inline(always)]
    fn read_by(&self, bounce: &mut [u8], to: &mut UserBuffer, nonblock: bool) -> Result<usize, Errno> {
        let me = sched::current();
        let mut done = 0;
        while to.left() > 0 {
            let wanted = to.left().min(bounce.len());
            let wait = if nonblock || done > 0 { Wait::No } else { Wait::Here(me) };
            let n = match self.pop(&mut bounce[..wanted], wait) {
                Look::Done(n) => n,
                Look::Nothing if done > 0 => break,
                Look::Nothing => return Err(errno::EAGAIN),
                Look::Sleep => {
                    self.sleep(me, |s| &mut s.reader)?;
                    continue;
                }
                Look::Queue => self.readable.wait_on(true, || self.pop(&mut bounce[..wanted], Wait::InQueue).done())?,
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

    fn write_by(&self, bounce: &mut [u8], from: &mut UserBuffer, nonblock: bool) -> Result<usize, Errno> {
        let me = sched::current();
        let wait = if nonblock { Wait::No } else { Wait::Here(me) };
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
                let pushed = match self.push(chunk, whole, wait) {
                    Look::Done(result) => result,
                    Look::Nothing => Err(errno::EAGAIN),
                    Look::Sleep => match self.sleep(me, |s| &mut s.writer) {
                        Ok(()) => continue,
                        Err(e) => Err(e),
                    },
                    Look::Queue => {
                        let again = || self.push(chunk, whole, Wait::InQueue).done();
                        self.writable.wait_on(true, again).unwrap_or_else(|e| Err(e.into()))
                    }
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

    #[cold]
    fn read_small(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.read_by(&mut [0; SMALL], to, how.nonblock)
    }

    #[cold]
    fn write_small(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.write_by(&mut [0; SMALL], from, how.nonblock)
    }

    #[cold]
    fn read_large(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.read_by(&mut large(to.left())?, to, how.nonblock)
    }

    #[cold]
    fn write_large(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.write_by(&mut large(from.left())?, from, how.nonblock)
    }
}

/// What to do when a look finds nothing.
#[derive(Clone, Copy)]
enum Wait<'a> {
    /// Nothing.
    No,
    /// The task is in the queue, or about to be.
    InQueue,
    /// Take the place of the one sleeper, if it is free.
    Here(&'a Task),
}

/// What a look found.
enum Look<T> {
    /// What it was for.
    Done(T),
    /// Nothing.
    Nothing,
    /// Nothing; the task has the place and is about to sleep.
    Sleep,
    /// Nothing; the place is taken.
    Queue,
}

impl<T> Look<T> {
    fn done(self) -> Option<T> {
        match self {
            Look::Done(t) => Some(t),
            _ => None,
        }
    }
}

impl Wait<'_> {
    /// Under the lock: be found by who changes what was looked for.
    #[inline(always)]
    fn place<T>(self, place: &mut u32, in_queue: &mut bool) -> Look<T> {
        match self {
            Wait::No => Look::Nothing,
            Wait::Here(me) if *place == 0 || *place == me.index => {
                // The state first: who finds the task in its place finds it about to sleep.
                me.state.prepare_sleep(true);
                *place = me.index;
                Look::Sleep
            }
            Wait::Here(_) => Look::Queue,
            Wait::InQueue => {
                *in_queue = true;
                Look::Nothing
            }
        }
    }

    /// Under the lock: a place that was not needed, or that a signal ended.
    #[inline(always)]
    fn give_up(self, place: &mut u32) {
        if let Wait::Here(me) = self
            && *place == me.index
        {
            *place = 0;
        }
    }
}

/// Wake the sleeper `task`, if there is one, and the queue, if somebody may be in it.
#[inline(always)]
fn wake(task: u32, in_queue: bool, queue: &WaitQueue) {
    if task != 0 {
        let irq_off = IrqOff::from_on();
        sched::task::with_pinned(task, &irq_off, |t| sched::wake_held(t, &irq_off));
        drop(irq_off);
        crate::percpu::preempt_point();
    }
    if in_queue {
        queue.wake_all();
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
            len if len <= TINY => self.read_by(&mut [0; TINY], to, how.nonblock),
            len if len <= SMALL => self.read_small(to, how),
            _ => self.read_large(to, how),
        }
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        match from.left() {
            len if len <= TINY => {
                let mut bytes = [0; TINY];
                let n = from.take(&mut bytes)?;
                match self.push(&bytes[..n], true, Wait::No) {
                    Look::Done(Ok(n)) => Ok(n),
                    // No bytes, no room, or no reader.
                    _ => self.write_small(&mut UserBuffer::kernel(&bytes[..n]), how),
                }
            }
            len if len <= SMALL => self.write_small(from, how),
            _ => self.write_large(from, how),
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
        let (reader, writer) = (s.reader, s.writer);
        let (no_readers, no_writers) = (s.readers == 0, s.writers == 0);
        if no_readers {
            s.writer = 0;
        }
        if no_writers {
            s.reader = 0;
        }
        drop(s);
        if no_readers {
            wake(writer, true, &self.writable);
        }
        if no_writers {
            wake(reader, true, &self.readable);
        }
    }

    fn inode(self: Arc<Self>) -> Option<Arc<Inode>> {
        Some(Inode::build(device_number::ANONYMOUS, self.ino, mode::FIFO | 0o600, Kind::Fifo(self)))
    }

    fn readable_bytes(&self) -> Option<usize> {
        Some(self.state.lock().ring.len())
    }
}

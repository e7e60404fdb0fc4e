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
use core::sync::atomic::Ordering;
use kcore::byte_ring::{ByteRing, WORD, Word};

/// Bytes that a pipe holds.
pub const CAPACITY: usize = 65536;
/// Writes up to this are not mixed with others (Linux's PIPE_BUF).
const PIPE_BUF: usize = 4096;
/// Transfers up to this go over the stack, those of a word or less through registers.
const SMALL: usize = 256;

struct State {
    ring: ByteRing,
    readers: u32,
    writers: u32,
    /// Times a writer (reader) opened it: an open that waits for one sees it even if it is gone again.
    writers_seen: u64,
    readers_seen: u64,
    /// Who waits to read (write).
    reader: Waiting,
    writer: Waiting,
}

/// The one that sleeps, by task, 0: none; and whether somebody is, or may be, in the queue: further ones, and who polls. One word: the other side asks for both at once.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Waiting(u32);

impl Waiting {
    const IN_QUEUE: u32 = 1 << 31;

    /// The one sleeper; 0: none.
    #[inline(always)]
    const fn sleeper(self) -> u32 {
        self.0 & !Self::IN_QUEUE
    }

    /// `index`, or 0, is the one sleeper now.
    #[inline(always)]
    fn set_sleeper(&mut self, index: u32) {
        self.0 = self.0 & Self::IN_QUEUE | index;
    }

    /// `index` is the one sleeper, if there is none or it already.
    #[inline(always)]
    fn add_sleeper(&mut self, index: u32) {
        self.0 |= index;
    }

    /// Nobody waits.
    #[inline(always)]
    fn is_nobody(self) -> bool {
        self == Waiting::default()
    }

    /// Somebody is, or may be, in the queue.
    #[inline(always)]
    fn join_queue(&mut self) {
        self.0 |= Self::IN_QUEUE;
    }

    /// All that are to be woken, once.
    #[inline(always)]
    fn take(&mut self) -> Waiting {
        core::mem::take(self)
    }
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
        let ring = ByteRing::new(CAPACITY as u32);
        let (readers_seen, writers_seen) = (0, 0);
        let state = State {
            ring,
            readers: 0,
            writers: 0,
            writers_seen,
            readers_seen,
            reader: Waiting::default(),
            writer: Waiting::default(),
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
            return wait.place(&mut s.reader);
        }
        let n = s.ring.pop(out);
        wait.give_up(&mut s.reader);
        let writers = s.writer.take();
        drop(s);
        wake(writers, &self.writable);
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
            return wait.place(&mut s.writer);
        }
        let n = s.ring.push(bytes);
        wait.give_up(&mut s.writer);
        let readers = s.reader.take();
        drop(s);
        wake(readers, &self.readable);
        // The ring grows on the way to its capacity; without memory it does not.
        Look::Done(if n == 0 { Err(errno::ENOMEM) } else { Ok(n) })
    }

    /// Sleep in the place that `Wait::place` gave, until woken. ERESTARTSYS if a signal came first.
    #[inline]
    fn sleep(&self, me: &Task, place: fn(&mut State) -> &mut Waiting) -> Result<(), Errno> {
        if !waiting::signal_pending() {
            sched::schedule();
            return Ok(());
        }
        me.state.cancel_sleep();
        let mut s = self.state.lock();
        Wait::Here(me).give_up(place(&mut s));
        Err(errno::ERESTARTSYS)
    }

    /// Take at most `most` bytes and a word, and wait for them if that needs nothing but a sleep. None: `read_by` is for it.
    #[inline(always)]
    fn take_word(&self, most: usize, nonblock: bool) -> Option<(Word, usize)> {
        let me = sched::current();
        loop {
            let irq_off = IrqOff::from_on();
            let mut s = self.state.try_lock_held(&irq_off)?;
            if !s.ring.is_empty() {
                let taken = s.ring.pop_word(most)?;
                // Who wakes a task takes it out.
                if !s.reader.is_nobody() && s.reader.sleeper() == me.index {
                    s.reader.set_sleeper(0);
                }
                if s.writer.is_nobody() {
                    return Some(taken);
                }
                let writers = s.writer.take();
                drop(s);
                drop(irq_off);
                wake(writers, &self.writable);
                return Some(taken);
            }
            if s.writers == 0 || nonblock || ![0, me.index].contains(&s.reader.sleeper()) {
                return None;
            }
            // In this order: see `Wait::place`.
            me.state.prepare_sleep(true);
            s.reader.add_sleeper(me.index);
            drop(s);
            if me.signal_pending.load(Ordering::SeqCst) {
                // It takes the same place, and gives it up.
                me.state.cancel_sleep();
                return None;
            }
            sched::schedule_held(irq_off);
        }
    }

    /// Put the first `n` of `word` in, if somebody can read them and they fit as they are: whether it did.
    #[inline(always)]
    fn put_word(&self, word: Word, n: usize) -> bool {
        let irq_off = IrqOff::from_on();
        let Some(mut s) = self.state.try_lock_held(&irq_off) else { return false };
        if s.readers == 0 || !s.ring.push_word(word, n) {
            return false;
        }
        let readers = s.reader.take();
        drop(s);
        if !readers.is_nobody() {
            wake_sleeper(readers, &irq_off);
        }
        drop(irq_off);
        wake_queue(readers, &self.readable);
        crate::percpu::preempt_point();
        true
    }

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
        self.read_by(&mut [0; SMALL], to, how.nonblock())
    }

    #[cold]
    fn write_small(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.write_by(&mut [0; SMALL], from, how.nonblock())
    }

    #[cold]
    fn read_large(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.read_by(&mut large(to.left())?, to, how.nonblock())
    }

    #[cold]
    fn write_large(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        self.write_by(&mut large(from.left())?, from, how.nonblock())
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
    fn place<T>(self, place: &mut Waiting) -> Look<T> {
        match self {
            Wait::No => Look::Nothing,
            Wait::Here(me) if [0, me.index].contains(&place.sleeper()) => {
                // The state first: who finds the task in its place finds it about to sleep.
                me.state.prepare_sleep(true);
                place.set_sleeper(me.index);
                Look::Sleep
            }
            Wait::Here(_) => Look::Queue,
            Wait::InQueue => {
                place.join_queue();
                Look::Nothing
            }
        }
    }

    /// Under the lock: a place that was not needed, or that a signal ended.
    #[inline(always)]
    fn give_up(self, place: &mut Waiting) {
        if let Wait::Here(me) = self
            && place.sleeper() == me.index
        {
            place.set_sleeper(0);
        }
    }
}

/// Wake those who waited, who are no longer said to.
#[inline(always)]
fn wake(waiting: Waiting, queue: &WaitQueue) {
    if !waiting.is_nobody() {
        let irq_off = IrqOff::from_on();
        wake_sleeper(waiting, &irq_off);
        drop(irq_off);
        wake_queue(waiting, queue);
        crate::percpu::preempt_point();
    }
}

#[inline(always)]
fn wake_sleeper(waiting: Waiting, irq_off: &IrqOff) {
    // No task has the index 0.
    sched::task::with_pinned(waiting.sleeper(), irq_off, |t| sched::wake_held(t, irq_off));
}

#[inline(always)]
fn wake_queue(waiting: Waiting, queue: &WaitQueue) {
    if waiting.0 & Waiting::IN_QUEUE != 0 {
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
        let len = to.left();
        if (1..=WORD).contains(&len)
            && let Some((word, n)) = self.take_word(len, how.nonblock())
        {
            return to.put(&word[..n]);
        }
        match len {
            len if len <= SMALL => self.read_small(to, how),
            _ => self.read_large(to, how),
        }
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        match from.left() {
            len @ 1..=WORD => {
                let mut word = [0; WORD];
                from.take(&mut word[..len])?;
                // Else: no room in one piece, no reader, or somebody else is at it.
                let put = self.put_word(word, len);
                if put { Ok(len) } else { self.write_small(&mut UserBuffer::kernel(&word[..len]), how) }
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
            s.reader.join_queue();
            if !s.ring.is_empty() {
                bits |= poll::IN | poll::RDNORM;
            }
            if s.writers == 0 {
                bits |= poll::HUP;
            }
        }
        if access != flag::RDONLY {
            s.writer.join_queue();
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
        let (mut readers, mut writers) = (Waiting::default(), Waiting::default());
        // Who opens a named pipe is in the queue, and has not said so.
        if s.readers == 0 {
            writers = s.writer.take();
            writers.join_queue();
        }
        if s.writers == 0 {
            readers = s.reader.take();
            readers.join_queue();
        }
        drop(s);
        wake(writers, &self.writable);
        wake(readers, &self.readable);
    }

    fn inode(self: Arc<Self>) -> Option<Arc<Inode>> {
        Some(Inode::build(device_number::ANONYMOUS, self.ino, mode::FIFO | 0o600, Kind::Fifo(self)))
    }

    fn readable_bytes(&self) -> Option<usize> {
        Some(self.state.lock().ring.len())
    }
}

//! Pairs of pseudo-terminals: a master, by which a program plays the terminal, and a slave, which is one to other programs.
//!
//! Process context. What the master writes is what somebody types: kcore's line discipline makes lines, echo and signals of it. What slaves write,
//! and the echo, waits for the master to read it. A pair lives as long as one of its ends is open; its number and /dev/pts/N as long as the
//! master. Either end that closes hangs the other up. Source: pty(7), pts(4), ioctl_tty(2).

mod ends;

use super::control::Line;
use super::job_control::JobControl;
use crate::errno::{self, Errno};
use crate::fs::inode::encode_device;
use crate::fs::open_file::{File, How, flag};
use crate::fs::user_buffer::UserBuffer;
use crate::fs::{current, waiting};
use crate::mm::frame;
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use ends::{Master, Slave};
use kcore::line_discipline::{ECHO_SIZE, EchoBuffer, Event, LineDiscipline, NOFLSH, Termios};
use kcore::packet_mode::{self, PacketMode};

/// Major number of slaves (Linux's UNIX98_PTY_SLAVE_MAJOR).
pub const SLAVE_MAJOR: u32 = 136;
/// Pairs at most (Linux's kernel.pty.max).
const MOST: u32 = 4096;
/// What slaves have written from which on they wait.
const SHOWN_MOST: usize = 4096;
/// Bytes that are taken from a writer at once.
const STEP: usize = 128;

/// How many bytes were taken, and the signal that the last one makes.
type Taken = (usize, Option<u32>);

struct State {
    discipline: Box<LineDiscipline>,
    packets: PacketMode,
    /// struct winsize.
    window: [u16; 4],
    /// Written by slaves, and echoed; not read by the master yet. Its room is there from the start.
    shown: VecDeque<u8>,
    /// The master is open.
    master: bool,
    /// Slaves that are open, and whether one has ever been.
    slaves: usize,
    was_open: bool,
}

/// One pair.
pub struct Pair {
    number: u32,
    state: SpinLock<State, { rank::FILE }>,
    /// TIOCSPTLCK: slaves cannot be opened yet.
    locked: AtomicBool,
    pub(super) jobs: JobControl,
    /// The master's reader, and its writer that waits for room.
    master_readers: WaitQueue,
    master_writers: WaitQueue,
    slave_readers: WaitQueue,
    slave_writers: WaitQueue,
}

/// Those whose master is open, by number.
static PAIRS: SpinLock<BTreeMap<u32, Arc<Pair>>, { rank::PROCESS_PART }> = SpinLock::new(BTreeMap::new());
/// What each begins with.
static FRESH: LineDiscipline = LineDiscipline::new();

/// A line discipline on the heap; it is too large for a kernel stack.
fn fresh() -> Box<LineDiscipline> {
    let mut new = Box::<LineDiscipline>::new_uninit();
    // SAFETY: 1. the box has room for one, FRESH is one, and they do not overlap; 2. it is plain data: numbers and flags, no pointer and no
    // destructor, so that the copied bytes are a value of their own.
    unsafe {
        core::ptr::copy_nonoverlapping(&raw const FRESH, new.as_mut_ptr(), 1);
        new.assume_init()
    }
}

/// Open /dev/ptmx: a new pair, locked. ENOSPC, ENOMEM.
pub fn open_master() -> Result<Arc<dyn File>, Errno> {
    if !frame::above_reserve(2) {
        return Err(errno::ENOMEM);
    }
    let mut shown = VecDeque::new();
    shown.try_reserve_exact(SHOWN_MOST + ECHO_SIZE).map_err(|_| errno::ENOMEM)?;
    let discipline = fresh();
    let mut pairs = PAIRS.lock();
    let number = (0..MOST).find(|n| !pairs.contains_key(n)).ok_or(errno::ENOSPC)?;
    let state = State {
        discipline,
        packets: PacketMode::new(),
        window: [0; 4],
        shown,
        master: true,
        slaves: 0,
        was_open: false,
    };
    let pair = Arc::new(Pair {
        number,
        state: SpinLock::new(state),
        locked: AtomicBool::new(true),
        jobs: JobControl::new(),
        master_readers: WaitQueue::new(),
        master_writers: WaitQueue::new(),
        slave_readers: WaitQueue::new(),
        slave_writers: WaitQueue::new(),
    });
    pairs.insert(number, pair.clone());
    drop(pairs);
    Ok(Arc::new(Master(pair)))
}

/// Open the slave with this number, which becomes the terminal of a session without one whose leader opens it, unless O_NOCTTY. ENXIO if
/// there is none, EIO while it is locked.
pub fn open_slave(number: u32, flags: u32) -> Result<Arc<dyn File>, Errno> {
    let pair = PAIRS.lock().get(&number).cloned().ok_or(errno::ENXIO)?;
    pair.open_unlocked(flags)
}

/// The numbers of all pairs, rising.
pub fn numbers() -> Vec<u32> {
    PAIRS.lock().keys().copied().collect()
}

/// Whether there is one of this number.
pub fn exists(number: u32) -> bool {
    PAIRS.lock().contains_key(&number)
}

/// The pair that is the terminal of `session`.
pub(super) fn of_session(session: i32) -> Option<Arc<Pair>> {
    PAIRS.lock().values().find(|pair| session != 0 && pair.jobs.session() == session).cloned()
}

impl Pair {
    /// Its slave's device number.
    pub(super) fn device(&self) -> u32 {
        encode_device(SLAVE_MAJOR, self.number) as u32
    }

    /// The group in the foreground.
    pub(super) fn foreground(&self) -> i32 {
        self.jobs.foreground()
    }

    /// The leader of `session` has ended.
    pub(super) fn session_ended(&self, session: i32) {
        self.jobs.session_ended(session);
    }

    /// One more slave, as open(2) with `flags` asks for it. EIO while it is locked.
    fn open_unlocked(self: &Arc<Self>, flags: u32) -> Result<Arc<dyn File>, Errno> {
        if self.locked.load(Ordering::Acquire) {
            return Err(errno::EIO);
        }
        // Who cannot read from it gets no terminal by it.
        Ok(self.open_slave(flags & flag::NOCTTY == 0 && flags & flag::ACCMODE != flag::WRONLY))
    }

    /// One more slave. `own`: it may become the terminal of the caller's session.
    pub(super) fn open_slave(self: &Arc<Self>, own: bool) -> Arc<dyn File> {
        let mut state = self.state.lock();
        state.slaves += 1;
        state.was_open = true;
        drop(state);
        let session = current::session();
        if own && session != 0 && current::pid() == session && super::of_session(session).is_none() {
            // Another session's stays that one's.
            let _ = self.jobs.take(session, current::process_group(), false);
        }
        Arc::new(Slave(self.clone()))
    }

    /// Type some of `bytes`, up to the first that makes a signal: how many, and that signal. `None` where there is no room.
    fn type_in(&self, bytes: &[u8]) -> Option<Taken> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let (mut taken, mut signal, mut lines, mut started) = (0, None, false, false);
        let was_stopped = state.discipline.is_stopped();
        let mut echo = EchoBuffer::new();
        for &byte in bytes {
            // What a program still has to read makes room when it does; a line that is too long alone is cut, as on every terminal.
            if state.discipline.is_full() {
                break;
            }
            let before = state.discipline.is_stopped();
            let event = state.discipline.input(byte, &mut echo);
            state.packets.note_flow(before, state.discipline.is_stopped());
            taken += 1;
            if let Event::Signal(_) = event
                && state.discipline.termios().lflag & NOFLSH == 0
            {
                // What was written, and echoed, before it.
                state.shown.clear();
                state.packets.note_flush(true, true);
            }
            // Echo that finds no room is lost, input is not.
            let room = SHOWN_MOST + ECHO_SIZE - state.shown.len();
            state.shown.extend(echo.iter().take(room));
            echo.clear();
            match event {
                Event::LineReady => lines = true,
                Event::StartOutput => started = true,
                Event::Signal(which) => {
                    (signal, started) = (Some(which as u32), true);
                    break;
                }
                Event::None | Event::StopOutput | Event::Overflow => {}
            }
        }
        // Any byte may start it (IXANY), and is more than that.
        started |= was_stopped && !state.discipline.is_stopped();
        let shown = !state.shown.is_empty() || state.packets.has_status();
        (taken > 0).then(|| {
            if signal.is_some() {
                // The signal's byte has emptied the input.
                self.master_writers.wake_all();
            }
            if lines {
                self.slave_readers.wake_all();
            }
            if started {
                self.slave_writers.wake_all();
            }
            if shown {
                self.master_readers.wake_all();
            }
            (taken, signal)
        })
    }

    /// Show some of `bytes`. `None` where there is no room, or output is stopped; EIO without a master.
    fn show(&self, bytes: &[u8]) -> Option<Result<usize, Errno>> {
        let mut state = self.state.lock();
        if !state.master {
            return Some(Err(errno::EIO));
        }
        if state.discipline.is_stopped() || state.shown.len() >= SHOWN_MOST {
            return None;
        }
        let mut out = EchoBuffer::new();
        let taken = state.discipline.output(bytes, &mut out);
        state.shown.extend(out.iter());
        drop(state);
        self.master_readers.wake_all();
        Some(Ok(taken))
    }

    /// What the master reads, with the packet's byte where that is the `first` of one, and whether the read goes on. `Some(0)`: nothing is there, and no
    /// slave is left to write.
    fn take_shown(&self, bytes: &mut [u8], first: bool) -> Option<(usize, bool)> {
        let mut state = self.state.lock();
        if state.packets.has_status() {
            bytes[0] = if first { state.packets.take()? } else { return None };
            return Some((1, false));
        }
        if state.shown.is_empty() {
            return (state.was_open && state.slaves == 0).then_some((0, false));
        }
        let head = usize::from(first && state.packets.is_on());
        bytes[..head].fill(packet_mode::DATA);
        let n = head + state.shown.len().min(bytes.len() - head);
        for (to, from) in bytes[head..].iter_mut().zip(state.shown.drain(..n - head)) {
            *to = from;
        }
        let room = state.shown.len() < SHOWN_MOST;
        drop(state);
        if room {
            self.slave_writers.wake_all();
        }
        Some((n, true))
    }

    /// What a slave reads: a line, or bytes; the end without a master, whatever it has typed before.
    fn take_typed(&self, bytes: &mut [u8]) -> Option<usize> {
        let mut state = self.state.lock();
        if !state.master {
            return Some(0);
        }
        let n = state.discipline.read(bytes)?;
        drop(state);
        self.master_writers.wake_all();
        Some(n)
    }

    /// Write what `from` has by `step`, which takes some bytes and says which signal they make; where it takes none, wait in `queue`, or
    /// EAGAIN. How many; an error after some is the next call's.
    fn write_by(
        &self,
        from: &mut UserBuffer,
        how: How,
        queue: &WaitQueue,
        step: impl Fn(&[u8]) -> Option<Result<Taken, Errno>>,
    ) -> Result<usize, Errno> {
        let mut done = 0;
        let mut bytes = [0u8; STEP];
        while from.left() > 0 {
            let n = match from.take(&mut bytes) {
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            let end = done + n;
            while done < end {
                let rest = &bytes[n - (end - done)..n];
                let taken = match step(rest) {
                    Some(taken) => taken,
                    None if how.nonblock() => Err(errno::EAGAIN),
                    // Without a time limit the wait gives something, or an error.
                    None => waiting::wait_any(&[queue], None, || step(rest)).and_then(|t| t.unwrap_or(Err(errno::EIO))),
                };
                match taken {
                    Ok((taken, signal)) => {
                        done += taken;
                        if let Some(signal) = signal {
                            self.jobs.signal(signal);
                        }
                    }
                    Err(_) if done > 0 => return Ok(done),
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(done)
    }

    /// Bytes that a slave could read.
    pub(super) fn typed_bytes(&self) -> usize {
        self.state.lock().discipline.readable_bytes()
    }

    /// Drop what was typed and not read, or what was written and not shown. `told`: the master hears of it in packet mode.
    pub(super) fn drop_bytes(&self, input: bool, output: bool, told: bool) {
        let mut state = self.state.lock();
        if told {
            state.packets.note_flush(input, output);
        }
        if input {
            state.discipline.flush_input();
        }
        if output {
            state.shown.clear();
        }
        drop(state);
        self.wake_all();
    }

    fn wake_all(&self) {
        [&self.master_readers, &self.master_writers, &self.slave_readers, &self.slave_writers].into_iter().for_each(
            |queue| {
                queue.wake_all();
            },
        );
    }
}

/// Both ends have the same settings, window and jobs.
impl Line for Pair {
    fn jobs(&self) -> &JobControl {
        &self.jobs
    }

    fn termios(&self) -> Termios {
        *self.state.lock().discipline.termios()
    }

    fn set_termios(&self, termios: Termios, flush: bool) {
        let mut state = self.state.lock();
        let state_now = &mut *state;
        if flush {
            state_now.discipline.flush_input();
            state_now.packets.note_flush(true, false);
        }
        let (old, stopped) = (*state_now.discipline.termios(), state_now.discipline.is_stopped());
        state_now.discipline.set_termios(termios);
        state_now.packets.note_settings(&old, &termios);
        state_now.packets.note_flow(stopped, state_now.discipline.is_stopped());
        drop(state);
        self.wake_all();
    }

    fn flush(&self, input: bool, output: bool) {
        self.drop_bytes(input, output, true);
    }

    fn hold_output(&self, on: bool) {
        let mut state = self.state.lock();
        let before = state.discipline.is_stopped();
        state.discipline.hold_output(on);
        let now = state.discipline.is_stopped();
        state.packets.note_flow(before, now);
        drop(state);
        self.wake_all();
    }

    fn send_special(&self, index: usize) {
        let mut state = self.state.lock();
        let byte = state.discipline.termios().cc[index];
        if byte != 0 && state.shown.len() < SHOWN_MOST + ECHO_SIZE {
            state.shown.push_back(byte);
        }
        drop(state);
        self.master_readers.wake_all();
    }

    fn window(&self) -> [u16; 4] {
        self.state.lock().window
    }

    fn set_window(&self, window: [u16; 4]) -> bool {
        core::mem::replace(&mut self.state.lock().window, window) != window
    }

    fn unshown_bytes(&self) -> usize {
        self.state.lock().shown.len()
    }
}

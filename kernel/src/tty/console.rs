//! The console terminal: the serial line behind kcore's line discipline.
//!
//! The interrupt moves bytes from the UART into a ring and wakes the console's thread, which runs the line discipline, echoes, sends signals and
//! wakes readers. When programs do not read, bytes stay in the ring; when it is full, the UART's interrupt is masked: a pipe on the other end
//! waits, nothing is lost. Reads and writes are process context. Source: termios(3), tty_ioctl(4).

use super::control::Line;
use super::input_ring::InputRing;
use super::job_control::{JobControl, SIGTTIN, SIGTTOU};
use crate::arch::serial::{COM1, SerialPort};
use crate::console::write_tty;
use crate::errno::{self, Errno};
use crate::fs::inode::{Stat, mode};
use crate::fs::open_file::{File, How, poll};
use crate::fs::user_buffer::UserBuffer;
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};
use kcore::line_discipline::{
    EchoBuffer, Event, ICANON, ISIG, IXON, LineDiscipline, TOSTOP, Termios, VINTR, VQUIT, VSTART, VSTOP, VSUSP,
};

/// Unread bytes outside canonical mode from which on no more are taken from the ring.
const ENOUGH: usize = 2048;
/// Bytes that are written with the terminal held.
const WRITE_STEP: usize = 128;

struct Terminal {
    discipline: LineDiscipline,
    /// struct winsize: rows, columns, and two that nobody uses.
    window: [u16; 4],
}

static TERMINAL: SpinLock<Terminal, { rank::FILE }> =
    SpinLock::new(Terminal { discipline: LineDiscipline::new(), window: [24, 80, 0, 0] });
static RING: InputRing = InputRing::new();
/// The UART's interrupt is masked because the ring is full.
static MASKED: AtomicBool = AtomicBool::new(false);
/// The thread waits here for bytes, or for readers to make room.
static INPUT: WaitQueue = WaitQueue::new();
static READERS: WaitQueue = WaitQueue::new();
static WRITERS: WaitQueue = WaitQueue::new();
/// Whose terminal it is.
pub(super) static JOBS: JobControl = JobControl::new();

/// The serial interrupt, interrupts off: take what the UART has.
pub fn interrupt() {
    take_from_line();
    INPUT.wake_one();
}

/// Producer side of the ring: the interrupt, or the thread while the interrupt is masked.
fn take_from_line() {
    let port = SerialPort::new(COM1);
    loop {
        if RING.is_full() {
            // The bytes stay in the UART until the thread unmasks.
            port.disable_interrupts();
            MASKED.store(true, Ordering::Release);
            return;
        }
        match port.take() {
            Some(byte) => RING.push(byte),
            None => return,
        }
    }
}

/// Start the thread. Once, at boot. What was typed before is taken with the first interrupt, or here.
pub fn start() {
    if let Err(e) = crate::sched::task::spawn_kthread("console", thread, 0) {
        crate::warning!("no console input: {e:?}");
    }
    // An interrupt that was raised before its handler was in place is raised again.
    let port = SerialPort::new(COM1);
    let irq_off = crate::arch::irq_flag::IrqOff::new();
    port.disable_interrupts();
    port.enable_receive_interrupt();
    drop(irq_off);
}

fn thread(_: usize) {
    loop {
        let may_unmask = || MASKED.load(Ordering::Acquire) && !RING.is_full();
        let _ = INPUT.wait(false, || (may_take(&TERMINAL.lock(), !READERS.is_empty()) || may_unmask()).then_some(()));
        take_some(!READERS.is_empty());
        if may_unmask() {
            MASKED.store(false, Ordering::Relaxed);
            SerialPort::new(COM1).enable_receive_interrupt();
        }
    }
}

/// Whether a byte is there to be taken. What was typed ahead stays in the ring, and is echoed only when it is read; bytes that make
/// signals or stop output take what is before them along. `wanted`: somebody reads or polls.
fn may_take(t: &Terminal, wanted: bool) -> bool {
    if RING.is_empty() {
        return false;
    }
    let d = &t.discipline;
    let termios = d.termios();
    let enough = if termios.lflag & ICANON != 0 { d.is_readable() } else { d.readable_bytes() >= ENOUGH };
    if wanted && !enough {
        return true;
    }
    let cc = |index: usize, on: bool| if on { termios.cc[index] } else { 0 };
    let signals = termios.lflag & ISIG != 0;
    let stops = termios.iflag & IXON != 0;
    let urgent = [cc(VINTR, signals), cc(VQUIT, signals), cc(VSUSP, signals), cc(VSTOP, stops), cc(VSTART, stops)];
    RING.contains(&urgent)
}

/// Take bytes as long as `may_take` says so. The terminal's lock makes this the ring's one consumer.
fn take_some(wanted: bool) {
    let mut echo = EchoBuffer::new();
    let mut ready = false;
    loop {
        let mut t = TERMINAL.lock();
        if !may_take(&t, wanted) {
            break;
        }
        let Some(byte) = RING.pop() else { break };
        let was_stopped = t.discipline.is_stopped();
        let event = t.discipline.input(byte, &mut echo);
        // Any byte may start the output (IXANY), and is more than that.
        let started = was_stopped && !t.discipline.is_stopped();
        write_tty(&echo);
        drop(t);
        echo.clear();
        match event {
            Event::LineReady => ready = true,
            Event::Signal(signal) => {
                JOBS.signal(signal as u32);
                WRITERS.wake_all();
            }
            Event::StartOutput | Event::None | Event::StopOutput | Event::Overflow => {}
        }
        if started {
            WRITERS.wake_all();
        }
    }
    if ready {
        READERS.wake_all();
    }
}

/// Input bytes lost because a line was too long.
pub fn overflows() -> u64 {
    TERMINAL.lock().discipline.overflows()
}

/// Open it.
pub fn open() -> Arc<dyn File> {
    Arc::new(Console)
}

struct Console;

impl File for Console {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        JOBS.need_foreground(SIGTTIN)?;
        if to.left() == 0 {
            return Ok(0);
        }
        let (bytes, n) = super::read(to.left(), how.nonblock(), &READERS, &Console, |bytes| {
            take_some(true);
            TERMINAL.lock().discipline.read(bytes)
        })?;
        if MASKED.load(Ordering::Relaxed) {
            INPUT.wake_one();
        }
        to.put(&bytes[..n])
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        if TERMINAL.lock().discipline.termios().lflag & TOSTOP != 0 {
            JOBS.need_foreground(SIGTTOU)?;
        }
        let mut done = 0;
        let mut bytes = [0u8; WRITE_STEP];
        while from.left() > 0 {
            let n = match from.take(&mut bytes) {
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            let show = || {
                let mut t = TERMINAL.lock();
                if t.discipline.is_stopped() {
                    return None;
                }
                let mut shown = EchoBuffer::new();
                t.discipline.output(&bytes[..n], &mut shown);
                write_tty(&shown);
                Some(())
            };
            let stopped = match show() {
                Some(()) => Ok(()),
                None if how.nonblock() => Err(errno::EAGAIN),
                None => WRITERS.wait(true, show).map_err(Errno::from),
            };
            match stopped {
                Ok(()) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        take_some(true);
        let t = TERMINAL.lock();
        let readable = if t.discipline.is_readable() { poll::IN | poll::RDNORM } else { 0 };
        let writable = if t.discipline.is_stopped() { 0 } else { poll::OUT | poll::WRNORM };
        readable | writable
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&READERS), Some(&WRITERS)]
    }

    fn stat(&self) -> Stat {
        Stat { mode: mode::CHR | 0o600, nlink: 1, ..Stat::default() }
    }

    fn readable_bytes(&self) -> Option<usize> {
        take_some(true);
        Some(TERMINAL.lock().discipline.readable_bytes())
    }

    fn ioctl(&self, request: u32, argument: u64) -> Result<i64, Errno> {
        super::control::ioctl(&Console, request, argument)
    }
}

impl Line for Console {
    fn jobs(&self) -> &JobControl {
        &JOBS
    }

    fn termios(&self) -> Termios {
        *TERMINAL.lock().discipline.termios()
    }

    fn set_termios(&self, termios: Termios, flush: bool) {
        let mut t = TERMINAL.lock();
        if flush {
            t.discipline.flush_input();
        }
        t.discipline.set_termios(termios);
        drop(t);
        READERS.wake_all();
        WRITERS.wake_all();
        INPUT.wake_one();
    }

    /// Output is never held back.
    fn flush(&self, input: bool, _: bool) {
        if input {
            TERMINAL.lock().discipline.flush_input();
            INPUT.wake_one();
        }
    }

    fn window(&self) -> [u16; 4] {
        TERMINAL.lock().window
    }

    fn set_window(&self, window: [u16; 4]) -> bool {
        core::mem::replace(&mut TERMINAL.lock().window, window) != window
    }

    fn unshown_bytes(&self) -> usize {
        0
    }
}

//! printk: log lines to the serial console and into a ring that dmesg reads.
//!
//! Any context but NMI; a panic opens the lock by force.

use crate::arch::serial::{COM1, SerialPort};
use crate::arch::tsc;
use crate::spin_lock::{SpinLock, rank};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};

const RING: usize = 32 * 1024;
/// Bytes that the log holds.
pub const LOG_SIZE: usize = RING;

struct Log {
    bytes: [u8; RING],
    /// Bytes written since boot; the ring holds the last RING of them.
    written: u64,
}

static LOG: SpinLock<Log, { rank::CONSOLE }> = SpinLock::new(Log { bytes: [0; RING], written: 0 });
static LEVEL: AtomicU8 = AtomicU8::new(7);

/// Severities, Linux's numbers.
pub mod level {
    /// Something was not as asked for.
    pub const WARNING: u8 = 4;
    /// Normal messages.
    pub const INFO: u8 = 6;
}

/// `loglevel=`: lines with a severity below it reach the serial line.
pub fn set_level(level: u8) {
    LEVEL.store(level, Ordering::Relaxed);
}

struct Sink<'a> {
    log: &'a mut Log,
    serial: bool,
}

impl Write for Sink<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for b in s.bytes() {
            let at = (self.log.written % RING as u64) as usize;
            self.log.bytes[at] = b;
            self.log.written += 1;
        }
        if self.serial {
            put_raw(s.as_bytes());
        }
        Ok(())
    }
}

/// Bytes to the serial line, newline as CR LF. The caller holds the console, or the machine is dying.
fn put_raw(bytes: &[u8]) {
    let port = SerialPort::new(COM1);
    for &b in bytes {
        if b == b'\n' {
            port.put(b'\r');
        }
        port.put(b);
    }
}

/// The serial line alone. Whoever writes holds the console, or the machine is dying.
struct Raw;

impl Write for Raw {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        put_raw(s.as_bytes());
        Ok(())
    }
}

/// One line with its time. The time is read under the lock, so that it never runs back from line to line.
pub fn print(severity: u8, args: fmt::Arguments<'_>) {
    let mut log = LOG.lock_irq();
    let us = tsc::now_ns() / 1000;
    let serial = severity < LEVEL.load(Ordering::Relaxed);
    let _ = writeln!(Sink { log: &mut log, serial }, "[{:5}.{:06}] {args}", us / 1_000_000, us % 1_000_000);
}

/// A line of the trace (`tp_printk`): to the serial line alone. The log would lose all else to it.
pub fn print_trace(args: fmt::Arguments<'_>) {
    let _console = LOG.lock_irq();
    let _ = writeln!(Raw, "{args}");
}

/// Output of programs: to the serial line as it is (the terminal did its processing), not into the log.
pub fn write_tty(bytes: &[u8]) {
    let _console = LOG.lock_irq();
    let port = SerialPort::new(COM1);
    bytes.iter().for_each(|&b| port.put(b));
}

/// For scenarios: what `f` does, with the console held.
pub fn with_lock_held<R>(f: impl FnOnce() -> R) -> R {
    let _console = LOG.lock_irq();
    f()
}

/// In a panic: other CPUs are stopped, so the lock's holder never comes back.
pub fn print_dying(args: fmt::Arguments<'_>) {
    let _ = Raw.write_fmt(args);
}

/// Copy the log from position `from` on. Returns bytes copied and the next position; a position that was overwritten moves up.
pub fn read_log(from: u64, out: &mut [u8]) -> (usize, u64) {
    let log = LOG.lock_irq();
    let start = from.clamp(log.written.saturating_sub(RING as u64), log.written);
    let n = ((log.written - start) as usize).min(out.len());
    for (i, b) in out[..n].iter_mut().enumerate() {
        *b = log.bytes[((start + i as u64) % RING as u64) as usize];
    }
    (n, start + n as u64)
}

/// A line of severity INFO.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::console::print($crate::console::level::INFO, format_args!($($arg)*)) };
}
/// A line of severity WARNING.
#[macro_export]
macro_rules! warning {
    ($($arg:tt)*) => { $crate::console::print($crate::console::level::WARNING, format_args!($($arg)*)) };
}

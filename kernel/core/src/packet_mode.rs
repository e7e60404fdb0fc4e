//! Packet mode of a pseudo-terminal's master (TIOCPKT): each read begins with a byte that says what follows, or what the slave did to the line.
//!
//! ```text
//!             set(true)                    note_*                     take
//!   off ------------------> on, nothing -----------> on, status byte ------> on, nothing
//!    ^                         |                          |
//!    +------- set(false) ------+--------------------------+   (a status byte that nobody took is gone with the next set(true))
//! ```
//! Called under the pair's lock. Only what happens while it is on is told; opposite changes leave the last one. Source: ioctl_tty(2), tty_ioctl(4).

use crate::line_discipline::{IXON, Termios, VSTART, VSTOP};

/// Before data.
pub const DATA: u8 = 0;
/// The slave's input was dropped.
pub const FLUSH_READ: u8 = 1;
/// What the slave has written was dropped.
pub const FLUSH_WRITE: u8 = 2;
/// Output to the master is stopped, and goes on.
pub const STOP: u8 = 4;
/// See `STOP`.
pub const START: u8 = 8;
/// ^S and ^Q are no longer, and are, what stops and starts.
pub const NO_STOP: u8 = 16;
/// See `NO_STOP`.
pub const DO_STOP: u8 = 32;

/// The mode of one master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketMode {
    on: bool,
    status: u8,
}

/// Whether who types ^S and ^Q stops and starts the output.
fn flows(termios: &Termios) -> bool {
    termios.iflag & IXON != 0 && termios.cc[VSTOP] == 0x13 && termios.cc[VSTART] == 0x11
}

impl PacketMode {
    /// Off.
    pub const fn new() -> Self {
        Self { on: false, status: 0 }
    }

    /// TIOCPKT.
    pub const fn set(&mut self, on: bool) {
        if on && !self.on {
            self.status = 0;
        }
        self.on = on;
    }

    /// TIOCGPKT.
    pub const fn is_on(&self) -> bool {
        self.on
    }

    /// Whether a read gives a status byte and no data.
    pub const fn has_status(&self) -> bool {
        self.on && self.status != 0
    }

    /// The status byte, which is then told.
    pub const fn take(&mut self) -> Option<u8> {
        if !self.has_status() {
            return None;
        }
        let status = self.status;
        self.status = 0;
        Some(status)
    }

    /// Of two opposites, `forgotten` and `new`, the last one.
    const fn note(&mut self, forgotten: u8, new: u8) {
        if self.on {
            self.status = self.status & !forgotten | new;
        }
    }

    /// The slave's input was dropped, or its output.
    pub const fn note_flush(&mut self, input: bool, output: bool) {
        self.note(0, if input { FLUSH_READ } else { 0 } | if output { FLUSH_WRITE } else { 0 });
    }

    /// The output was stopped, or not, and is now.
    pub const fn note_flow(&mut self, was_stopped: bool, is_stopped: bool) {
        match (was_stopped, is_stopped) {
            (false, true) => self.note(START, STOP),
            (true, false) => self.note(STOP, START),
            _ => {}
        }
    }

    /// The settings changed.
    pub fn note_settings(&mut self, old: &Termios, new: &Termios) {
        match (flows(old), flows(new)) {
            (false, true) => self.note(NO_STOP, DO_STOP),
            (true, false) => self.note(DO_STOP, NO_STOP),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_while_it_is_off() {
        let mut mode = PacketMode::new();
        mode.note_flush(true, true);
        mode.note_flow(false, true);
        assert_eq!((mode.has_status(), mode.take()), (false, None));
        mode.set(true);
        assert_eq!(mode.take(), None);
        mode.note_flush(true, false);
        mode.set(true);
        assert!(mode.has_status());
        mode.set(false);
        assert!(!mode.has_status() && !mode.is_on());
        mode.set(true);
        assert_eq!(mode.take(), None);
    }

    #[test]
    fn each_change_once() {
        let mut mode = PacketMode::new();
        mode.set(true);
        mode.note_flush(false, true);
        mode.note_flush(true, false);
        assert_eq!((mode.take(), mode.take()), (Some(FLUSH_READ | FLUSH_WRITE), None));
        mode.note_flush(false, false);
        mode.note_flow(true, true);
        mode.note_flow(false, false);
        assert_eq!(mode.take(), None);
    }

    #[test]
    fn the_last_of_two_opposites() {
        let mut mode = PacketMode::new();
        mode.set(true);
        mode.note_flow(false, true);
        assert_eq!(mode.take(), Some(STOP));
        mode.note_flow(true, false);
        mode.note_flow(false, true);
        mode.note_flush(true, false);
        assert_eq!(mode.take(), Some(STOP | FLUSH_READ));
        mode.note_flow(false, true);
        mode.note_flow(true, false);
        assert_eq!(mode.take(), Some(START));
    }

    #[test]
    fn settings_that_stop_or_do_not() {
        let (with, mut without, mut other) = (Termios::console(), Termios::console(), Termios::console());
        without.iflag &= !IXON;
        other.cc[VSTOP] = 0x14;
        assert!(flows(&with));
        let mut mode = PacketMode::new();
        mode.set(true);
        mode.note_settings(&with, &without);
        assert_eq!(mode.take(), Some(NO_STOP));
        mode.note_settings(&without, &other);
        assert_eq!(mode.take(), None);
        mode.note_settings(&other, &with);
        mode.note_settings(&with, &other);
        mode.note_settings(&other, &with);
        assert_eq!(mode.take(), Some(DO_STOP));
    }
}

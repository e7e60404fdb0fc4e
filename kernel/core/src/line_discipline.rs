//! The terminal's line discipline: what typed bytes mean (lines, editing, signals, echo) and how output is shown.
//!
//! Called by the tty under its lock, `input` also from the serial interrupt: nothing allocates, every call is
//! bounded. Invariants: no byte sequence panics; a canonical read never returns part of an unfinished line; input
//! beyond [`INPUT_SIZE`] is counted, not stored, but a line can always be ended.
//! Source: termios(3); Linux drivers/tty/n_tty.c for what that leaves open. Not there: parity, modem lines, the timer
//! of VTIME, PENDIN, ECHOPRT.

mod termios;
#[cfg(test)]
mod tests;

pub use termios::*;

use arrayvec::ArrayVec;

/// Bytes of input kept (Linux's N_TTY_BUF_SIZE).
pub const INPUT_SIZE: usize = 4096;
/// Bytes that one call may write.
pub const ECHO_SIZE: usize = 1024;

/// Where echo and processed output go. The caller sends it and empties it after each call.
pub type EchoBuffer = ArrayVec<u8, ECHO_SIZE>;

/// A signal for the foreground process group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// SIGINT.
    Int = 2,
    /// SIGQUIT.
    Quit = 3,
    /// SIGTSTP.
    Tstp = 20,
}

/// What an input byte brought about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Nothing that anyone waits for.
    None,
    /// Readers can go on: a line is there, or a byte in raw mode.
    LineReady,
    /// Send the signal. Input is discarded already, unless NOFLSH.
    Signal(Signal),
    /// Stop sending output.
    StopOutput,
    /// Go on sending output.
    StartOutput,
    /// The byte did not fit and is lost.
    Overflow,
}

/// Flag of a stored byte: it ends a line.
const END: u16 = 0x100;
/// Flag of a stored byte: it is no byte but the end of file.
const EOF: u16 = 0x200;

/// The state of one terminal.
#[derive(Clone, Debug)]
pub struct LineDiscipline {
    termios: Termios,
    /// A ring of bytes with flags.
    ring: [u16; INPUT_SIZE],
    /// Where the oldest byte is.
    tail: usize,
    /// Bytes stored.
    len: usize,
    /// Of these, bytes in finished lines (canonical mode).
    finished: usize,
    /// Column of the cursor.
    column: u32,
    /// Column where the echo of the unfinished line starts.
    line_column: u32,
    /// The next byte is taken as it is.
    literal: bool,
    stopped: bool,
    /// Stopped by the program (TCOOFF): what is typed starts nothing.
    held: bool,
    overflows: u64,
}

impl Default for LineDiscipline {
    fn default() -> Self {
        Self::new()
    }
}

impl LineDiscipline {
    /// An empty terminal with the settings of [`Termios::console`].
    pub const fn new() -> Self {
        Self {
            termios: Termios::console(),
            ring: [0; INPUT_SIZE],
            tail: 0,
            len: 0,
            finished: 0,
            column: 0,
            line_column: 0,
            literal: false,
            stopped: false,
            held: false,
            overflows: 0,
        }
    }

    /// The settings.
    pub const fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Changes the settings. As in Linux, what is typed already can be read at once after ICANON has changed.
    pub fn set_termios(&mut self, termios: Termios) {
        let toggled = self.termios.local(ICANON) != termios.local(ICANON);
        if self.termios.in_flag(IXON) && !termios.in_flag(IXON) {
            // Nothing that is typed could start it any more.
            self.start();
        }
        self.termios = termios;
        if !toggled {
            return;
        }
        self.literal = false;
        self.finished = self.len;
        for at in 0..self.len {
            let slot = self.slot(at);
            // Outside canonical mode a mark has no meaning, an end of file least of all.
            self.ring[slot] &= !END;
        }
        if termios.local(ICANON) && self.len > 0 {
            let last = self.slot(self.len - 1);
            self.ring[last] |= END;
        }
    }

    /// Input bytes lost because the buffer was full.
    pub const fn overflows(&self) -> u64 {
        self.overflows
    }

    /// TCOOFF and TCOON: what VSTOP has stopped TCOON does not start.
    pub const fn hold_output(&mut self, on: bool) {
        if on != self.held {
            (self.held, self.stopped) = (on, on);
        }
    }

    /// What is typed starts the output, unless the program holds it.
    const fn start(&mut self) {
        if !self.held {
            self.stopped = false;
        }
    }

    /// True while output is stopped by VSTOP, or held.
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// True if [`Self::read`] would not have to wait (poll's POLLIN).
    pub const fn is_readable(&self) -> bool {
        if self.termios.local(ICANON) { self.finished > 0 } else { self.len > 0 && self.len >= self.min_bytes() }
    }

    /// True if the next byte may find no room before somebody has read: what is there can be read. A line that alone is too long is
    /// not waited for: nobody can read it.
    pub const fn is_full(&self) -> bool {
        self.len + 1 >= INPUT_SIZE && self.readable_bytes() > 0
    }

    /// Bytes that can be read now (FIONREAD).
    pub const fn readable_bytes(&self) -> usize {
        if self.termios.local(ICANON) { self.finished } else { self.len }
    }

    /// Discards all input (TCIFLUSH).
    pub const fn flush_input(&mut self) {
        (self.tail, self.len, self.finished) = (0, 0, 0);
        self.literal = false;
    }

    const fn min_bytes(&self) -> usize {
        self.termios.cc[VMIN] as usize
    }

    const fn slot(&self, at: usize) -> usize {
        (self.tail + at) % INPUT_SIZE
    }

    /// Takes a byte from the line. What is to be shown is added to `out`.
    pub fn input(&mut self, byte: u8, out: &mut EchoBuffer) -> Event {
        let termios = self.termios;
        let mut byte = if termios.in_flag(ISTRIP) { byte & 0x7f } else { byte };
        if core::mem::take(&mut self.literal) {
            return self.store(byte, 0, out);
        }
        if termios.in_flag(IXON) {
            if termios.is(VSTART, byte) {
                self.start();
                return Event::StartOutput;
            }
            if termios.is(VSTOP, byte) {
                self.stopped = true;
                return Event::StopOutput;
            }
        }
        if termios.in_flag(IXON) && termios.in_flag(IXANY) {
            self.start();
        }
        if termios.local(ISIG) {
            for (index, signal) in [(VINTR, Signal::Int), (VQUIT, Signal::Quit), (VSUSP, Signal::Tstp)] {
                if termios.is(index, byte) {
                    if !termios.local(NOFLSH) {
                        self.flush_input();
                    }
                    self.start();
                    self.echo(byte, out);
                    self.line_column = self.column;
                    return Event::Signal(signal);
                }
            }
        }
        match byte {
            b'\r' if termios.in_flag(IGNCR) => return Event::None,
            b'\r' if termios.in_flag(ICRNL) => byte = b'\n',
            b'\n' if termios.in_flag(INLCR) => byte = b'\r',
            _ => {}
        }
        if !termios.local(ICANON) {
            return self.store(byte, 0, out);
        }
        self.canonical(byte, out)
    }

    fn canonical(&mut self, byte: u8, out: &mut EchoBuffer) -> Event {
        let termios = self.termios;
        let extended = termios.local(IEXTEN);
        if termios.is(VERASE, byte) {
            self.erase_char(out);
            Event::None
        } else if termios.is(VKILL, byte) {
            self.kill(out);
            Event::None
        } else if extended && termios.is(VWERASE, byte) {
            self.erase_word(out);
            Event::None
        } else if extended && termios.is(VREPRINT, byte) && termios.local(ECHO) {
            self.echo(byte, out);
            self.show(b'\n', out);
            self.line_column = self.column;
            for at in self.finished..self.len {
                self.echo(self.ring[self.slot(at)] as u8, out);
            }
            Event::None
        } else if extended && termios.is(VLNEXT, byte) {
            self.literal = true;
            if termios.local(ECHO) && termios.local(ECHOCTL) {
                push(b'^', out);
                push(b'\x08', out);
            }
            Event::None
        } else if byte == b'\n' {
            if termios.local(ECHO | ECHONL) {
                self.show(b'\n', out);
            }
            self.store_quietly(u16::from(byte) | END, out)
        } else if termios.is(VEOF, byte) {
            self.store_quietly(END | EOF, out)
        } else if termios.is(VEOL, byte) || (extended && termios.is(VEOL2, byte)) {
            self.store(byte, END, out)
        } else {
            self.store(byte, 0, out)
        }
    }

    /// Stores and echoes.
    fn store(&mut self, byte: u8, flags: u16, out: &mut EchoBuffer) -> Event {
        if self.len == self.finished || !self.termios.local(ICANON) {
            self.line_column = self.column;
        }
        let event = self.store_quietly(u16::from(byte) | flags, out);
        if event != Event::Overflow {
            if byte == b'\n' && self.termios.local(ECHO | ECHONL) {
                self.show(byte, out);
            } else {
                self.echo(byte, out);
            }
        }
        event
    }

    fn store_quietly(&mut self, entry: u16, out: &mut EchoBuffer) -> Event {
        let canonical = self.termios.local(ICANON);
        // The last place is for what ends a line.
        let room = if canonical && entry & END == 0 { INPUT_SIZE - 1 } else { INPUT_SIZE };
        if self.len >= room {
            self.overflows = self.overflows.saturating_add(1);
            if self.termios.in_flag(IMAXBEL) {
                push(b'\x07', out);
            }
            return Event::Overflow;
        }
        let slot = self.slot(self.len);
        self.ring[slot] = entry;
        self.len += 1;
        if canonical && entry & END == 0 {
            return Event::None;
        }
        if canonical {
            self.finished = self.len;
        }
        Event::LineReady
    }

    /// Reads: `Some(n)` bytes, `Some(0)` for end of file, `None` if the caller has to wait.
    ///
    /// In canonical mode at most one line. In raw mode VMIN bytes are waited for (or as many as fit into `bytes`);
    /// with VMIN and VTIME 0 nothing is; with VTIME above 0 the caller keeps the time and returns 0 after it.
    pub fn read(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let canonical = self.termios.local(ICANON);
        if canonical && self.finished == 0 {
            return None;
        }
        if !canonical {
            let wanted = self.min_bytes().min(bytes.len());
            if self.len < wanted || (self.len == 0 && !bytes.is_empty() && self.termios.cc[VTIME] > 0) {
                return None;
            }
        }
        if bytes.is_empty() {
            return Some(0);
        }
        let mut count = 0;
        let available = self.readable_bytes();
        for _ in 0..available {
            let entry = self.ring[self.tail];
            if canonical && entry & EOF != 0 {
                self.drop_first();
                break;
            }
            // A line that just fits takes the end of file after it along.
            let Some(place) = bytes.get_mut(count) else { break };
            self.drop_first();
            if entry & EOF != 0 {
                continue;
            }
            *place = entry as u8;
            count += 1;
            if canonical && entry & END != 0 {
                break;
            }
        }
        Some(count)
    }

    fn drop_first(&mut self) {
        self.tail = self.slot(1);
        self.len = self.len.saturating_sub(1);
        self.finished = self.finished.saturating_sub(1);
    }

    /// Shows what a program writes, as far as `out` has room; returns how many of `bytes` were taken.
    pub fn output(&mut self, bytes: &[u8], out: &mut EchoBuffer) -> usize {
        for (count, &byte) in bytes.iter().enumerate() {
            if out.remaining_capacity() < 2 {
                return count;
            }
            self.show(byte, out);
        }
        bytes.len()
    }

    /// One byte through output processing.
    fn show(&mut self, byte: u8, out: &mut EchoBuffer) {
        let oflag = self.termios.oflag;
        let process = oflag & OPOST != 0;
        match byte {
            b'\n' if process && oflag & ONLCR != 0 => {
                push(b'\r', out);
                push(b'\n', out);
                self.column = 0;
                return;
            }
            b'\n' if process && oflag & ONLRET != 0 => self.column = 0,
            b'\r' if process && oflag & ONOCR != 0 && self.column == 0 => return,
            b'\r' if process && oflag & OCRNL != 0 => {
                push(b'\n', out);
                return;
            }
            b'\r' => self.column = 0,
            b'\x08' => self.column = self.column.saturating_sub(1),
            b'\t' => self.column = next_tab(self.column),
            byte if byte < 0x20 || byte == 0x7f || is_continuation(byte) => {}
            _ => self.column = self.column.saturating_add(1),
        }
        push(byte, out);
    }

    fn echo(&mut self, byte: u8, out: &mut EchoBuffer) {
        if !self.termios.local(ECHO) {
            return;
        }
        if self.termios.local(ECHOCTL) && is_control(byte) && byte != b'\t' {
            self.show(b'^', out);
            self.show(byte ^ 0x40, out);
        } else {
            self.show(byte, out);
        }
    }

    /// Takes the last character off the unfinished line; its bytes' lead byte.
    fn pop_char(&mut self) -> Option<u8> {
        while self.len > self.finished {
            self.len -= 1;
            let byte = self.ring[self.slot(self.len)] as u8;
            let whole = !self.termios.in_flag(IUTF8) || !is_continuation(byte);
            if whole || self.len == self.finished {
                return Some(byte);
            }
        }
        None
    }

    fn erase_char(&mut self, out: &mut EchoBuffer) {
        if let Some(byte) = self.pop_char() {
            self.wipe(byte, out);
        }
    }

    fn erase_word(&mut self, out: &mut EchoBuffer) {
        let mut in_word = false;
        while self.len > self.finished {
            let byte = self.ring[self.slot(self.len - 1)] as u8;
            let of_word = byte == b'_' || byte.is_ascii_alphanumeric() || byte >= 0x80;
            if in_word && !of_word {
                return;
            }
            in_word |= of_word;
            self.erase_char(out);
        }
    }

    fn kill(&mut self, out: &mut EchoBuffer) {
        let termios = self.termios;
        let wipe = termios.local(ECHO) && termios.local(ECHOE) && termios.local(ECHOK) && termios.local(ECHOKE);
        // Wiping takes up to 3 bytes for a column; a line too long for that is crossed out instead.
        let columns = self.line_end_column().saturating_sub(self.line_column) as usize;
        if wipe && columns <= out.remaining_capacity() / 3 {
            while self.len > self.finished {
                self.erase_char(out);
            }
            return;
        }
        self.len = self.finished;
        self.echo(termios.cc[VKILL], out);
        if termios.local(ECHO) && termios.local(ECHOK) {
            self.show(b'\n', out);
        }
        self.line_column = self.column;
    }

    /// Removes the character `byte`, no longer in the line, from the screen.
    fn wipe(&mut self, byte: u8, out: &mut EchoBuffer) {
        if !self.termios.local(ECHO) {
            return;
        }
        if !self.termios.local(ECHOE) {
            return self.echo(self.termios.cc[VERASE], out);
        }
        if byte == b'\t' {
            let target = self.line_end_column();
            let width = self.column.saturating_sub(target).min(8);
            for _ in 0..width {
                self.show(b'\x08', out);
            }
            return;
        }
        let width = match is_control(byte) {
            true if self.termios.local(ECHOCTL) => 2,
            true => 0,
            false => 1,
        };
        for _ in 0..width {
            for shown in [b'\x08', b' ', b'\x08'] {
                self.show(shown, out);
            }
        }
    }

    /// The column where the echo of the unfinished line ends.
    fn line_end_column(&self) -> u32 {
        (self.finished..self.len).fold(self.line_column, |column, at| match self.ring[self.slot(at)] as u8 {
            b'\t' => next_tab(column),
            byte if is_control(byte) && self.termios.local(ECHOCTL) => column.saturating_add(2),
            byte if is_control(byte) || is_continuation(byte) => column,
            _ => column.saturating_add(1),
        })
    }
}

fn push(byte: u8, out: &mut EchoBuffer) {
    // A full echo buffer loses echo, never input.
    let _ = out.try_push(byte);
}

const fn next_tab(column: u32) -> u32 {
    (column | 7).saturating_add(1)
}

const fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

//! The terminal's ioctl requests. Source: tty_ioctl(4), Linux asm-generic/ioctls.h and termbits.h.

use super::job_control::{JobControl, SIGTTOU};
use crate::errno::{self, Errno};
use crate::fs::current;
use crate::mm::user_copy;
use crate::process::missing;
use kcore::line_discipline::{Termios, VSTART, VSTOP};

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TCSBRK: u32 = 0x5409;
/// Holds a slave's output, and sends the special characters. On the console, and through a pty's master, it does nothing.
const TCXONC: u32 = 0x540a;
const TCFLSH: u32 = 0x540b;
const TIOCEXCL: u32 = 0x540c;
const TIOCNXCL: u32 = 0x540d;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCOUTQ: u32 = 0x5411;
const TIOCGWINSZ: u32 = 0x5413;
const TIOCSWINSZ: u32 = 0x5414;
const TIOCNOTTY: u32 = 0x5422;
const TCSBRKP: u32 = 0x5425;
const TIOCGSID: u32 = 0x5429;
const TCGETS2: u32 = 0x802c_542a;
const TCSETS2: u32 = 0x402c_542b;
const TCSETSW2: u32 = 0x402c_542c;
const TCSETSF2: u32 = 0x402c_542d;

/// A terminal as its requests see it.
pub(super) trait Line {
    /// Whose it is.
    fn jobs(&self) -> &JobControl;
    /// The settings.
    fn termios(&self) -> Termios;
    /// Change them. `flush`: what was typed and not read is dropped.
    fn set_termios(&self, termios: Termios, flush: bool);
    /// Drop what was typed and not read, or what was written and not shown yet.
    fn flush(&self, input: bool, output: bool);
    /// struct winsize: rows, columns, and two that nobody uses.
    fn window(&self) -> [u16; 4];
    /// Set it; whether it changed.
    fn set_window(&self, window: [u16; 4]) -> bool;
    /// Bytes written and not shown yet.
    fn unshown_bytes(&self) -> usize;
    /// TCOOFF and TCOON.
    fn hold_output(&self, _on: bool) {}
    /// Send one special character to the other end (TCIOFF, TCION).
    fn send_special(&self, _index: usize) {}
    /// Whether the caller's session has to be the terminal's to ask for its group: not through a pty's master.
    fn is_own_alone(&self) -> bool {
        true
    }
}

const SPEED: u32 = 115_200;

/// Linux's struct termios: four words of flags, the discipline, 19 special characters.
fn encode(t: &Termios) -> [u8; 44] {
    let mut out = [0; 44];
    for (i, flags) in [t.iflag, t.oflag, t.cflag, t.lflag].into_iter().enumerate() {
        out[i * 4..i * 4 + 4].copy_from_slice(&flags.to_le_bytes());
    }
    out[16] = t.line;
    out[17..36].copy_from_slice(&t.cc);
    out[36..40].copy_from_slice(&SPEED.to_le_bytes());
    out[40..44].copy_from_slice(&SPEED.to_le_bytes());
    out
}

fn decode(bytes: &[u8; 36]) -> Termios {
    let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let mut cc = [0; 19];
    cc.copy_from_slice(&bytes[17..36]);
    Termios { iflag: word(0), oflag: word(4), cflag: word(8), lflag: word(12), line: bytes[16], cc }
}

fn set(line: &dyn Line, argument: u64, flush: bool) -> Result<i64, Errno> {
    let bytes: [u8; 36] = user_copy::read(argument)?;
    line.jobs().need_foreground(SIGTTOU)?;
    line.set_termios(decode(&bytes), flush);
    Ok(0)
}

/// One request.
pub(super) fn ioctl(line: &dyn Line, request: u32, argument: u64) -> Result<i64, Errno> {
    let jobs = line.jobs();
    match request {
        TCGETS => user_copy::write_bytes(argument, &encode(&line.termios())[..36])?,
        TCGETS2 => user_copy::write_bytes(argument, &encode(&line.termios()))?,
        TCSETS | TCSETSW | TCSETS2 | TCSETSW2 => return set(line, argument, false),
        TCSETSF | TCSETSF2 => return set(line, argument, true),
        // 0: input, 1: output, 2: both.
        TCFLSH => match argument {
            0..=2 => line.flush(argument != 1, argument != 0),
            _ => return Err(errno::EINVAL),
        },
        TCSBRK | TCSBRKP | TIOCEXCL | TIOCNXCL => {}
        TCXONC => {
            jobs.need_foreground(SIGTTOU)?;
            match argument {
                0 | 1 => line.hold_output(argument == 0),
                2 => line.send_special(VSTOP),
                3 => line.send_special(VSTART),
                _ => return Err(errno::EINVAL),
            }
        }
        TIOCOUTQ => user_copy::write(argument, &(line.unshown_bytes() as i32))?,
        TIOCGWINSZ => user_copy::write(argument, &line.window())?,
        TIOCSWINSZ => {
            if line.set_window(user_copy::read(argument)?) {
                jobs.window_changed();
            }
        }
        TIOCGPGRP | TIOCGSID => {
            if line.is_own_alone() && !jobs.is_own() {
                return Err(errno::ENOTTY);
            }
            if request == TIOCGSID && jobs.session() == 0 {
                return Err(errno::ENOTTY);
            }
            let answer = if request == TIOCGPGRP { jobs.foreground() } else { jobs.session() };
            user_copy::write(argument, &answer)?;
        }
        TIOCSPGRP => jobs.set_foreground(user_copy::read(argument)?)?,
        TIOCSCTTY => {
            let session = current::session();
            if current::pid() != session || super::of_session(session).is_some() && !jobs.is_own() {
                return Err(errno::EPERM);
            }
            jobs.take(session, current::process_group(), argument == 1)?;
        }
        TIOCNOTTY => {
            if !jobs.is_own() {
                return Err(errno::ENOTTY);
            }
            if current::pid() == current::session() {
                jobs.session_ended(current::session());
            }
        }
        _ => {
            missing::note_operation(16, request.into());
            return Err(errno::ENOTTY);
        }
    }
    Ok(0)
}

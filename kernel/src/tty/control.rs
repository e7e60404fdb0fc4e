//! The terminal's ioctl requests. Source: tty_ioctl(4), Linux asm-generic/ioctls.h and termbits.h.

use super::console;
use crate::errno::{self, Errno};
use crate::fs::current;
use crate::mm::user_copy;
use crate::process::missing;
use kcore::line_discipline::Termios;

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TCSETSW: u32 = 0x5403;
const TCSETSF: u32 = 0x5404;
const TCSBRK: u32 = 0x5409;
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

const SIGWINCH: u32 = 28;
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

fn set(argument: u64, flush: bool) -> Result<i64, Errno> {
    let bytes: [u8; 36] = user_copy::read(argument)?;
    console::need_foreground_to_change()?;
    console::set_termios(decode(&bytes), flush);
    Ok(0)
}

/// One request.
pub fn ioctl(request: u32, argument: u64) -> Result<i64, Errno> {
    match request {
        TCGETS => user_copy::write_bytes(argument, &encode(&console::termios())[..36])?,
        TCGETS2 => user_copy::write_bytes(argument, &encode(&console::termios()))?,
        TCSETS | TCSETSW | TCSETS2 | TCSETSW2 => return set(argument, false),
        TCSETSF | TCSETSF2 => return set(argument, true),
        // 0: input, 1: output (which is never held back), 2: both.
        TCFLSH => match argument {
            0 | 2 => console::flush_input(),
            1 => {}
            _ => return Err(errno::EINVAL),
        },
        TCSBRK | TCSBRKP | TCXONC | TIOCEXCL | TIOCNXCL => {}
        TIOCOUTQ => user_copy::write(argument, &0i32)?,
        TIOCGWINSZ => user_copy::write(argument, &console::window())?,
        TIOCSWINSZ => {
            if console::set_window(user_copy::read(argument)?) && console::foreground().0 > 0 {
                current::signal_group(console::foreground().0, SIGWINCH);
            }
        }
        TIOCGPGRP | TIOCGSID => {
            let (foreground, session) = console::foreground();
            if session == 0 || session != current::session() {
                return Err(errno::ENOTTY);
            }
            user_copy::write(argument, if request == TIOCGPGRP { &foreground } else { &session })?;
        }
        TIOCSPGRP => {
            let group: i32 = user_copy::read(argument)?;
            let (_, session) = console::foreground();
            if session == 0 || session != current::session() {
                return Err(errno::ENOTTY);
            }
            if group < 0 {
                return Err(errno::EINVAL);
            }
            match current::session_of_group(group) {
                None => return Err(errno::ESRCH),
                Some(s) if s != session => return Err(errno::EPERM),
                Some(_) => {}
            }
            console::need_foreground_to_change()?;
            console::set_foreground(group);
        }
        TIOCSCTTY => {
            let (pid, session) = (current::pid(), current::session());
            if pid != session {
                return Err(errno::EPERM);
            }
            console::take_session(session, current::process_group(), argument == 1)?;
        }
        TIOCNOTTY => {
            if current::session() != console::foreground().1 {
                return Err(errno::ENOTTY);
            }
            if current::pid() == current::session() {
                console::session_ended(current::session());
            }
        }
        _ => {
            missing::note_operation(16, request.into());
            return Err(errno::ENOTTY);
        }
    }
    Ok(0)
}

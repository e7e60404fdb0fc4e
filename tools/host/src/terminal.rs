//! The user's terminal while a guest runs: raw, so that Ctrl-C goes to the guest, and put back at the end.
//! Used by `run` when standard input is a terminal.

use crate::failure::Failure;
use nix::sys::termios::{self, InputFlags, LocalFlags, SetArg, Termios};
use std::io::IsTerminal;

/// The key that starts a command to `run` itself.
const ESCAPE: u8 = 0x01; // Ctrl-A

/// Holds the terminal raw; dropping it restores the settings found.
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes standard input raw; None if it is no terminal.
    pub fn enter() -> Result<Option<RawTerminal>, Failure> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let fail = |e| Failure::Usage(format!("terminal: {e}"));
        let before = termios::tcgetattr(&stdin).map_err(fail)?;
        let mut raw = before.clone();
        // Output processing stays on: a bare newline from the guest still starts a new line.
        raw.local_flags &= !(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::IEXTEN);
        raw.input_flags &=
            !(InputFlags::IXON | InputFlags::ICRNL | InputFlags::INLCR | InputFlags::IGNCR | InputFlags::BRKINT);
        termios::tcsetattr(&stdin, SetArg::TCSADRAIN, &raw).map_err(fail)?;
        Ok(Some(RawTerminal { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing better can be done if the terminal is gone.
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

/// What to do with what was typed.
#[derive(Debug, Eq, PartialEq)]
pub enum Typed {
    /// Send these bytes to the guest.
    Send(Vec<u8>),
    /// End QEMU: Ctrl-A X was typed.
    Quit,
}

/// Finds Ctrl-A commands in the typed bytes.
#[derive(Default)]
pub struct Keys {
    escaped: bool,
}

impl Keys {
    /// Takes the next bytes from the terminal. Ctrl-A X quits, Ctrl-A Ctrl-A sends one Ctrl-A, Ctrl-A and any other
    /// key sends both.
    pub fn take(&mut self, bytes: &[u8]) -> Typed {
        let mut send = Vec::new();
        for &byte in bytes {
            match (std::mem::take(&mut self.escaped), byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x' | b'X') => return Typed::Quit,
                (true, ESCAPE) | (false, _) => send.push(byte),
                (true, _) => send.extend([ESCAPE, byte]),
            }
        }
        Typed::Send(send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_commands() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ab\x03"), Typed::Send(b"ab\x03".to_vec()));
        assert_eq!(keys.take(b"\x01"), Typed::Send(vec![]));
        assert_eq!(keys.take(b"\x01c"), Typed::Send(b"\x01c".to_vec()));
        assert_eq!(keys.take(b"q\x01"), Typed::Send(b"q".to_vec()));
        assert_eq!(keys.take(b"zx"), Typed::Send(b"\x01zx".to_vec()));
        assert_eq!(keys.take(b"q\x01Xmore"), Typed::Quit);
    }
}

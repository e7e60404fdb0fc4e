//! A pair's terminal as its master asks for it. Source: ioctl_tty(2).

use super::control::Line;
use super::job_control::JobControl;
use super::pty::Pair;
use kcore::line_discipline::Termios;

/// The terminal as its master asks: it need not be the caller's own, and its input is what is shown.
pub(super) struct Played<'a>(pub(super) &'a Pair);

impl Line for Played<'_> {
    fn jobs(&self) -> &JobControl {
        &self.0.jobs
    }

    fn termios(&self) -> Termios {
        self.0.termios()
    }

    fn set_termios(&self, termios: Termios, flush: bool) {
        self.0.set_termios(termios, flush);
    }

    fn flush(&self, input: bool, output: bool) {
        self.0.drop_bytes(output, input, false);
    }

    fn window(&self) -> [u16; 4] {
        self.0.window()
    }

    fn set_window(&self, window: [u16; 4]) -> bool {
        self.0.set_window(window)
    }

    fn unshown_bytes(&self) -> usize {
        self.0.typed_bytes()
    }

    fn is_own_alone(&self) -> bool {
        false
    }
}

//! Whose terminal it is: its session, and the group in the foreground, which gets its signals and alone may read.
//!
//! One in each terminal. Process context. Source: credentials(7), "Sessions"; termios(3); tty_ioctl(4).

use crate::errno::{self, Errno};
use crate::fs::current;
use core::sync::atomic::{AtomicI32, Ordering};

const SIGHUP: u32 = 1;
const SIGCONT: u32 = 18;
/// To a group in the background that reads.
pub(super) const SIGTTIN: u32 = 21;
/// To a group in the background that writes, or changes settings.
pub(super) const SIGTTOU: u32 = 22;
const SIGWINCH: u32 = 28;

/// Session and foreground group; 0: none.
pub(super) struct JobControl {
    foreground: AtomicI32,
    session: AtomicI32,
}

impl JobControl {
    /// Nobody's.
    pub(super) const fn new() -> Self {
        Self { foreground: AtomicI32::new(0), session: AtomicI32::new(0) }
    }

    /// The foreground group; 0: none.
    pub(super) fn foreground(&self) -> i32 {
        self.foreground.load(Ordering::Relaxed)
    }

    /// The session; 0: none.
    pub(super) fn session(&self) -> i32 {
        self.session.load(Ordering::Relaxed)
    }

    /// Whether it is the running process's terminal.
    pub(super) fn is_own(&self) -> bool {
        self.session() != 0 && self.session() == current::session()
    }

    /// To the foreground group.
    pub(super) fn signal(&self, signal: u32) {
        current::signal_group(self.foreground(), signal);
    }

    /// The window has another size.
    pub(super) fn window_changed(&self) {
        self.signal(SIGWINCH);
    }

    /// A background process that uses its terminal is stopped, or gets EIO if it ignores that.
    pub(super) fn need_foreground(&self, signal: u32) -> Result<(), Errno> {
        let (foreground, group) = (self.foreground(), current::process_group());
        if !self.is_own() || foreground == 0 || group == foreground {
            return Ok(());
        }
        if current::is_ignored_or_blocked(signal) {
            return if signal == SIGTTIN { Err(errno::EIO) } else { Ok(()) };
        }
        if current::is_group_orphaned() {
            return Err(errno::EIO);
        }
        current::signal_group(group, signal);
        Err(errno::ERESTARTSYS)
    }

    /// The terminal of `session` from now on, whose leader's group is `group`. `steal`: even if it is another session's.
    pub(super) fn take(&self, session: i32, group: i32, steal: bool) -> Result<(), Errno> {
        let owner = self.session.load(Ordering::Acquire);
        if owner == session {
            return Ok(());
        }
        if owner != 0 && !steal {
            return Err(errno::EPERM);
        }
        self.session.store(session, Ordering::Release);
        self.foreground.store(group, Ordering::Release);
        Ok(())
    }

    /// TIOCSPGRP: another group of the session comes to the foreground.
    pub(super) fn set_foreground(&self, group: i32) -> Result<(), Errno> {
        if !self.is_own() {
            return Err(errno::ENOTTY);
        }
        if group < 0 {
            return Err(errno::EINVAL);
        }
        match current::session_of_group(group) {
            None => return Err(errno::ESRCH),
            Some(session) if session != self.session() => return Err(errno::EPERM),
            Some(_) => {}
        }
        self.need_foreground(SIGTTOU)?;
        self.foreground.store(group, Ordering::Release);
        Ok(())
    }

    /// The session's leader has ended, or gives the terminal up: it is free, and the foreground group hears of it.
    pub(super) fn session_ended(&self, session: i32) {
        if session != 0 && self.session.compare_exchange(session, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            let group = self.foreground.swap(0, Ordering::AcqRel);
            current::signal_group(group, SIGHUP);
            current::signal_group(group, SIGCONT);
        }
    }

    /// The other end of the line is gone: the session's leader hears of it too.
    pub(super) fn hang_up(&self) {
        let session = self.session();
        if session != 0 {
            for signal in [SIGHUP, SIGCONT] {
                current::signal_process(session, signal);
            }
        }
        self.session_ended(session);
    }
}

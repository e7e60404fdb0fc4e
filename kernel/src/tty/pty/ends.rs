//! A pair's two ends as files: the master, and slaves. Source: pty(7), ioctl_tty(2).

use super::{PAIRS, Pair, SHOWN_MOST, STEP};
use crate::errno::{self, Errno};
use crate::fs::inode::{Stat, encode_device, mode};
use crate::fs::open_file::{File, How, OpenFile, flag, poll};
use crate::fs::user_buffer::UserBuffer;
use crate::fs::{current, place, waiting};
use crate::mm::user_copy;
use crate::sched::wait_queue::WaitQueue;
use crate::tty;
use crate::tty::control::{self, Line};
use crate::tty::job_control::{SIGTTIN, SIGTTOU};
use crate::tty::played::Played;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use kcore::line_discipline::TOSTOP;

const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
/// Packet mode; TIOCPKT_IOCTL, the status bit by which EXTPROC's changes are told, is missing.
const TIOCPKT: u32 = 0x5420;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCSIG: u32 = 0x4004_5436;
const TIOCGPTLCK: u32 = 0x8004_5439;
const TIOCGPTPEER: u32 = 0x5441;

/// The end by which a program plays the terminal.
pub(super) struct Master(pub(super) Arc<Pair>);

impl Master {
    /// TIOCGPTPEER: the slave, also where no path leads to it. `flags` of open(2).
    fn open_peer(&self, flags: u32) -> Result<i64, Errno> {
        // Not below the caller's root, which an absolute path starts at.
        let path = alloc::format!("dev/pts/{}", self.0.number);
        let place = place::resolve(&crate::fs::root(), path.as_bytes(), true).ok();
        let number = current::files().reserve()?;
        let fd = number.number();
        let slave = OpenFile::new(self.0.open_unlocked(flags)?, flags, place);
        number.fill(slave, flags & flag::CLOEXEC != 0);
        Ok(fd.into())
    }
}

impl File for Master {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        if to.left() == 0 {
            return Ok(0);
        }
        let mut bytes = [0; STEP];
        let len = to.left().min(STEP);
        let mut take = || self.0.take_shown(&mut bytes[..len], true);
        let (n, mut goes_on) = match take() {
            Some(n) => n,
            None if how.nonblock() => return Err(errno::EAGAIN),
            None => waiting::wait_any(&[&self.0.master_readers], None, take)?.unwrap_or_default(),
        };
        if n == 0 {
            return Err(errno::EIO);
        }
        let mut done = to.put(&bytes[..n])?;
        // What else is there at once.
        while goes_on && to.left() > 0 {
            let more = to.left().min(STEP);
            match self.0.take_shown(&mut bytes[..more], false) {
                Some((more @ 1.., _)) => match to.put(&bytes[..more]) {
                    Ok(put) => done += put,
                    Err(_) => break,
                },
                _ => goes_on = false,
            }
        }
        Ok(done)
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let pair = &*self.0;
        pair.write_by(from, how, &pair.master_writers, |bytes| pair.type_in(bytes).map(Ok))
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let state = self.0.state.lock();
        let alone = state.was_open && state.slaves == 0;
        let told = if state.packets.has_status() { poll::PRI | poll::IN | poll::RDNORM } else { 0 };
        let readable = told | if state.shown.is_empty() { 0 } else { poll::IN | poll::RDNORM };
        let writable = if state.discipline.is_full() { 0 } else { poll::OUT | poll::WRNORM };
        readable | writable | if alone { poll::HUP } else { 0 }
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.0.master_readers), Some(&self.0.master_writers)]
    }

    fn stat(&self) -> Stat {
        Stat { mode: mode::CHR | 0o666, nlink: 1, rdev: encode_device(5, 2), ..Stat::default() }
    }

    fn readable_bytes(&self) -> Option<usize> {
        Some(self.0.state.lock().shown.len())
    }

    fn ioctl(&self, request: u32, argument: u64) -> Result<i64, Errno> {
        let pair = &self.0;
        match request {
            TIOCGPTN => user_copy::write(argument, &pair.number)?,
            TIOCSPTLCK => pair.locked.store(user_copy::read::<i32>(argument)? != 0, Ordering::Release),
            TIOCGPTLCK => user_copy::write(argument, &i32::from(pair.locked.load(Ordering::Acquire)))?,
            TIOCPKT => {
                let on = user_copy::read::<i32>(argument)? != 0;
                pair.state.lock().packets.set(on);
            }
            TIOCGPKT => {
                let on = pair.state.lock().packets.is_on();
                user_copy::write(argument, &i32::from(on))?;
            }
            TIOCGPTPEER => return self.open_peer(argument as u32),
            TIOCSIG if (1..=64).contains(&argument) => pair.jobs.signal(argument as u32),
            TIOCSIG => return Err(errno::EINVAL),
            _ => return control::ioctl(&Played(pair), request, argument),
        }
        Ok(0)
    }

    fn release(&self, _: u32) {
        PAIRS.lock().remove(&self.0.number);
        self.0.state.lock().master = false;
        self.0.jobs.hang_up();
        self.0.wake_all();
    }
}

/// The end that is a terminal.
pub(super) struct Slave(pub(super) Arc<Pair>);

impl File for Slave {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let pair = &*self.0;
        pair.jobs.need_foreground(SIGTTIN)?;
        if to.left() == 0 {
            return Ok(0);
        }
        let take = |bytes: &mut [u8]| pair.take_typed(bytes);
        let (bytes, n) = tty::read(to.left(), how.nonblock(), &pair.slave_readers, pair, take)?;
        to.put(&bytes[..n])
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let pair = &*self.0;
        if pair.termios().lflag & TOSTOP != 0 {
            pair.jobs.need_foreground(SIGTTOU)?;
        }
        pair.write_by(from, how, &pair.slave_writers, |bytes| Some(pair.show(bytes)?.map(|taken| (taken, None))))
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let state = self.0.state.lock();
        if !state.master {
            return poll::ALWAYS | poll::ERR | poll::HUP;
        }
        let readable = if state.discipline.is_readable() { poll::IN | poll::RDNORM } else { 0 };
        let held = state.discipline.is_stopped() || state.shown.len() >= SHOWN_MOST;
        readable | if held { 0 } else { poll::OUT | poll::WRNORM }
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.0.slave_readers), Some(&self.0.slave_writers)]
    }

    fn stat(&self) -> Stat {
        Stat { mode: mode::CHR | 0o620, nlink: 1, rdev: self.0.device().into(), ..Stat::default() }
    }

    fn readable_bytes(&self) -> Option<usize> {
        Some(self.0.typed_bytes())
    }

    fn ioctl(&self, request: u32, argument: u64) -> Result<i64, Errno> {
        if !self.0.state.lock().master {
            return Err(errno::EIO);
        }
        control::ioctl(&*self.0, request, argument)
    }

    fn release(&self, _: u32) {
        let mut state = self.0.state.lock();
        state.slaves -= 1;
        let last = state.slaves == 0;
        drop(state);
        if last {
            self.0.master_readers.wake_all();
            self.0.master_writers.wake_all();
        }
    }
}

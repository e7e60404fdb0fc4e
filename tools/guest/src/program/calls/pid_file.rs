//! Processes by descriptor: pidfd_open and its like, CLONE_PIDFD, waitid by descriptor.

use super::each::{KERNEL, at, gives, refused, to, works};
use super::{Check, Ended, call, ensure, equal};
use crate::linux::{self, Fork};
use libc::{
    EAGAIN, EBADF, ECHILD, EINVAL, ESRCH, SYS_clone, SYS_clone3, SYS_close, SYS_dup, SYS_exit, SYS_fcntl, SYS_getpid,
    SYS_pidfd_getfd, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_pipe2, SYS_poll, SYS_read, SYS_waitid, SYS_write,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] =
    &[("pidfd", pidfd), ("pidfd_clone", clone), ("pidfd_getfd", getfd), ("pidfd_errors", errors)];

const PIDFD: u64 = 3;
const EXITED: u64 = 4;
const NONBLOCK: u64 = 0o4000;

/// A child that waits until the pipe whose writing end this gives is closed.
fn child() -> Result<(u64, u64), String> {
    let mut pipe = [0i32; 2];
    gives(SYS_pipe2, &[to(&mut pipe), 0], 0)?;
    let [read, write] = pipe.map(|fd| fd as u64);
    match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => {
            let _ = call(SYS_close, [write, 0, 0, 0, 0, 0]);
            let _ = call(SYS_read, [read, to(&mut [0u8; 1]), 1, 0, 0, 0]);
            linux::exit_now(7)
        }
        Fork::Parent(pid) => {
            gives(SYS_close, &[read], 0)?;
            Ok((pid as u64, write))
        }
    }
}

fn ready(fd: u64, timeout_ms: u64) -> Result<u64, String> {
    let mut asked = [fd | 1 << 32];
    works(SYS_poll, &[to(&mut asked), 1, timeout_ms])?;
    Ok(asked[0] >> 48)
}

fn pidfd() -> Result<(), String> {
    let (pid, write) = child()?;
    let fd = works(SYS_pidfd_open, &[pid, NONBLOCK])?;
    gives(SYS_fcntl, &[fd, 1], 1)?; // closed by execve
    gives(SYS_pidfd_send_signal, &[fd, 0, 0, 0], 0)?;
    equal!(ready(fd, 0)?, 0);
    let mut info = [0i32; 32];
    refused(SYS_waitid, &[PIDFD, fd, to(&mut info), EXITED, 0], EAGAIN)?;
    gives(SYS_close, &[write], 0)?;
    equal!(ready(fd, u64::MAX)?, 1);
    gives(SYS_waitid, &[PIDFD, fd, to(&mut info), EXITED, 0], 0)?;
    equal!([info[2], info[3 + 1], info[6]], [1, pid as i32, 7]);
    // Waited for: its number may be another's.
    refused(SYS_pidfd_send_signal, &[fd, 0, 0, 0], ESRCH)?;
    refused(SYS_waitid, &[PIDFD, fd, to(&mut info), EXITED, 0], ECHILD)?;
    equal!(ready(fd, 0)? & 1, 1);
    // By a signal.
    let (pid, _write) = child()?;
    let fd = works(SYS_pidfd_open, &[pid, 0])?;
    gives(SYS_pidfd_send_signal, &[fd, libc::SIGTERM as u64, 0, 0], 0)?;
    equal!(linux::wait_for(pid as i32).map_err(|e| e.to_string())?, Ended::Signal(libc::SIGTERM));
    Ok(())
}

fn clone() -> Result<(), String> {
    const CLONE_PIDFD: u64 = 0x1000;
    let mut fd = -1i32;
    match call(SYS_clone, [CLONE_PIDFD | libc::SIGCHLD as u64, 0, to(&mut fd), 0, 0, 0]) {
        Ok(0) => {
            let _ = call(SYS_exit, [3, 0, 0, 0, 0, 0]);
        }
        Ok(pid) => {
            ensure!(fd >= 0);
            equal!(ready(fd as u64, u64::MAX)?, 1);
            let mut info = [0i32; 32];
            gives(SYS_waitid, &[PIDFD, fd as u64, to(&mut info), EXITED, 0], 0)?;
            equal!((info[4] as u64, info[6]), (pid, 3));
        }
        Err(e) => return Err(format!("clone: error {e}")),
    }
    let mut args = [0u64; 11];
    let mut fd = -1i32;
    (args[0], args[1], args[4]) = (CLONE_PIDFD, to(&mut fd), libc::SIGCHLD as u64);
    match call(SYS_clone3, [at(&args), 88, 0, 0, 0, 0]) {
        Ok(0) => {
            let _ = call(SYS_exit, [4, 0, 0, 0, 0, 0]);
        }
        Ok(_) => {
            let mut info = [0i32; 32];
            gives(SYS_waitid, &[PIDFD, fd as u64, to(&mut info), EXITED, 0], 0)?;
            equal!(info[6], 4);
        }
        Err(e) => return Err(format!("clone3: error {e}")),
    }
    // No descriptor is left of a clone that failed.
    args[1] = KERNEL;
    let free = works(SYS_dup, &[0])?;
    gives(SYS_close, &[free], 0)?;
    refused(SYS_clone3, &[at(&args), 88], libc::EFAULT)?;
    gives(SYS_dup, &[0], free)?;
    // One address for two numbers.
    let both = CLONE_PIDFD | 0x10_0000 | libc::SIGCHLD as u64;
    refused(SYS_clone, &[both, 0, to(&mut fd), 0, 0], EINVAL)
}

fn getfd() -> Result<(), String> {
    let mut pipe = [0i32; 2];
    gives(SYS_pipe2, &[to(&mut pipe), 0], 0)?;
    let own = works(SYS_pidfd_open, &[works(SYS_getpid, &[])?, 0])?;
    let copy = works(SYS_pidfd_getfd, &[own, pipe[1] as u64, 0])?;
    gives(SYS_fcntl, &[copy, 1], 1)?;
    gives(SYS_write, &[copy, at("x"), 1], 1)?;
    gives(SYS_read, &[pipe[0] as u64, to(&mut [0u8; 4]), 4], 1)?;
    refused(SYS_pidfd_getfd, &[own, 999, 0], EBADF)?;
    refused(SYS_pidfd_getfd, &[own, pipe[1] as u64, 1], EINVAL)?;
    refused(SYS_pidfd_getfd, &[copy, 0, 0], EBADF)
}

fn errors() -> Result<(), String> {
    refused(SYS_pidfd_open, &[0, 0], EINVAL)?;
    refused(SYS_pidfd_open, &[u64::MAX, 0], EINVAL)?;
    refused(SYS_pidfd_open, &[1, 1], EINVAL)?;
    refused(SYS_pidfd_open, &[4_000_000, 0], ESRCH)?;
    let own = works(SYS_pidfd_open, &[works(SYS_getpid, &[])?, 0])?;
    refused(SYS_pidfd_send_signal, &[own, 65, 0, 0], EINVAL)?;
    refused(SYS_pidfd_send_signal, &[own, 0, KERNEL, 0], libc::EFAULT)?;
    refused(SYS_pidfd_send_signal, &[own, 0, 0, 1 << 20], EINVAL)?;
    refused(SYS_pidfd_send_signal, &[999, 0, 0, 0], EBADF)?;
    // siginfo_t of another number.
    refused(SYS_pidfd_send_signal, &[own, 10, at(&[12u64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 0], EINVAL)?;
    refused(SYS_waitid, &[PIDFD, 999, 0, EXITED, 0], EBADF)
}

//! System calls on processes by descriptor.
//!
//! Source: pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2).

use super::file::file;
use super::signal::{number, queued_info};
use super::table::Calls;
use crate::errno::{EBADF, EINVAL, ESRCH, Errno};
use crate::fs::current;
use crate::fs::open_file::{OpenFile, flag};
use crate::fs::pid_file::PidFile;
use crate::mm::user_copy;
use crate::process::signal::{self, Info};
use crate::process::{Process, tree};
use crate::system_call;
use alloc::sync::Arc;

/// Numbers and handlers.
pub const CALLS: Calls = &[(424, pidfd_send_signal), (434, pidfd_open), (438, pidfd_getfd)];

/// The process of a descriptor argument, and whether nothing is waited for. EBADF, also for what is no pidfd.
pub(super) fn named_by(fd: u64) -> Result<(Arc<Process>, bool), Errno> {
    let open = file(fd)?;
    let process = open.file.as_process().ok_or(EBADF)?;
    Ok((process.clone(), open.flags() & flag::NONBLOCK != 0))
}

system_call! {
    /// pidfd_open(2)
    pidfd_open(pid, flags) {
        if flags as u32 & !flag::NONBLOCK != 0 || pid as i32 <= 0 {
            return Err(EINVAL);
        }
        let process = tree::find(pid as u32).ok_or(ESRCH)?;
        let open = OpenFile::new(Arc::new(PidFile(process)), flag::RDWR | flags as u32 & flag::NONBLOCK, None);
        Ok(current::files().install(open, true)? as u64)
    }
}
system_call! {
    /// pidfd_send_signal(2)
    pidfd_send_signal(fd, signal, info, flags) {
        if flags as u32 != 0 {
            return Err(EINVAL);
        }
        let (process, _) = named_by(fd)?;
        let words: Option<[u64; 4]> = if info == 0 { None } else { Some(user_copy::read(info)?) };
        if words.is_some_and(|w| w[0] as u32 != signal as u32) {
            return Err(EINVAL);
        }
        // 0 is no signal: it asks whether the process is there.
        let number = if signal == 0 { 0 } else { number(signal)? };
        let info = match words {
            Some(words) => queued_info(number, words, &process)?,
            None => Info::from_user(number),
        };
        if !tree::is_known(&process) {
            return Err(ESRCH);
        }
        if number != 0 {
            signal::send_to_process(&process, info);
        }
        Ok(0)
    }
}
system_call! {
    /// pidfd_getfd(2)
    pidfd_getfd(fd, wanted, flags) {
        if flags as u32 != 0 {
            return Err(EINVAL);
        }
        let (process, _) = named_by(fd)?;
        let files = process.files.lock().clone().ok_or(ESRCH)?;
        let open = files.file(wanted as i32)?;
        Ok(current::files().install(open, true)? as u64)
    }
}

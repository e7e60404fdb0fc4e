//! System calls on descriptors: closing, duplicating, flags, and files that have no name.

use super::file::place_or_file;
use crate::errno::{self, Errno};
use crate::fs::current;
use crate::fs::event_counter::EventCounter;
use crate::fs::inode::mode;
use crate::fs::open_file::{OpenFile, flag};
use crate::fs::pipe::{self, Pipe};
use crate::fs::table::MAX_FILES;
use crate::fs::tree;
use crate::mm::user_copy;
use crate::process::missing;

pub(super) fn close(fd: u64) -> Result<usize, Errno> {
    current::files().close(fd as i32).map(|()| 0)
}

pub(super) fn close_range(first: u64, last: u64, flags: u64) -> Result<usize, Errno> {
    const CLOEXEC: u64 = 4;
    let (first, last) = (first as u32, last as u32);
    if flags & !CLOEXEC != 0 || first > last {
        return Err(errno::EINVAL);
    }
    current::files().close_range(first as usize, last as usize, flags & CLOEXEC != 0);
    Ok(0)
}

pub(super) fn dup(fd: u64) -> Result<usize, Errno> {
    let open = place_or_file(fd)?;
    Ok(current::files().install(open, false)? as usize)
}

pub(super) fn dup2(fd: u64, to: u64) -> Result<usize, Errno> {
    let open = place_or_file(fd)?;
    if fd as i32 == to as i32 {
        return Ok(to as u32 as usize);
    }
    Ok(current::files().install_at(to as i32, open, false)? as usize)
}

pub(super) fn dup3(fd: u64, to: u64, flags: u64) -> Result<usize, Errno> {
    if flags as u32 & !flag::CLOEXEC != 0 || fd as i32 == to as i32 {
        return Err(errno::EINVAL);
    }
    let open = place_or_file(fd)?;
    Ok(current::files().install_at(to as i32, open, flags as u32 & flag::CLOEXEC != 0)? as usize)
}

pub(super) fn fcntl(fd: u64, command: u64, argument: u64) -> Result<usize, Errno> {
    const DUPLICATE: u32 = 0;
    const GET_FLAGS: u32 = 3;
    const DUPLICATE_CLOEXEC: u32 = 1030;
    let open = place_or_file(fd)?;
    let files = current::files();
    if open.is_path_only() && !matches!(command as u32, DUPLICATE..=GET_FLAGS | DUPLICATE_CLOEXEC) {
        return Err(errno::EBADF);
    }
    match command as u32 {
        DUPLICATE | DUPLICATE_CLOEXEC => {
            if argument as u32 as usize >= MAX_FILES {
                return Err(errno::EINVAL);
            }
            Ok(files.install_from(open, command as u32 == DUPLICATE_CLOEXEC, argument as u32 as usize)? as usize)
        }
        1 => Ok(files.is_close_on_exec(fd as i32)? as usize),
        2 => files.set_close_on_exec(fd as i32, argument & 1 != 0).map(|()| 0),
        GET_FLAGS => Ok(open.flags() as usize),
        4 => {
            open.set_flags(argument as u32);
            Ok(0)
        }
        // F_GETLK: nobody holds a lock (F_UNLCK = 2). F_SETLK, F_SETLKW: granted.
        5 => user_copy::write(argument, &2u16.to_le_bytes()).map(|()| 0).map_err(Errno::from),
        6 | 7 => Ok(0),
        8 | 9 => Ok(0),
        1031 | 1032 if open.is_pipe() => Ok(pipe::CAPACITY),
        1031 | 1032 => Err(errno::EBADF),
        _ => {
            missing::note_operation(72, command);
            Err(errno::EINVAL)
        }
    }
}

pub(super) fn pipe(at: u64) -> Result<usize, Errno> {
    pipe2(at, 0)
}

pub(super) fn pipe2(at: u64, flags: u64) -> Result<usize, Errno> {
    let flags = flags as u32;
    // O_DIRECT (packets) is not there.
    if flags & !(flag::CLOEXEC | flag::NONBLOCK) != 0 {
        return Err(errno::EINVAL);
    }
    let pipe = Pipe::new_open();
    let (read, write) =
        (OpenFile::new(pipe.clone(), flag::RDONLY | flags, None), OpenFile::new(pipe, flag::WRONLY | flags, None));
    let files = current::files();
    let close_on_exec = flags & flag::CLOEXEC != 0;
    let read = files.install(read, close_on_exec)?;
    let installed = files.install(write, close_on_exec).and_then(|write| {
        user_copy::write(at, &[read, write].map(|fd| fd as u32)).map_err(|e| {
            let _ = files.close(write);
            e.into()
        })
    });
    if let Err(e) = installed {
        let _ = files.close(read);
        return Err(e);
    }
    Ok(0)
}

pub(super) fn eventfd(initial: u64) -> Result<usize, Errno> {
    eventfd2(initial, 0)
}

pub(super) fn eventfd2(initial: u64, flags: u64) -> Result<usize, Errno> {
    const SEMAPHORE: u32 = 1;
    let flags = flags as u32;
    if flags & !(flag::CLOEXEC | flag::NONBLOCK | SEMAPHORE) != 0 {
        return Err(errno::EINVAL);
    }
    let counter = EventCounter::new(initial as u32 as u64, flags & SEMAPHORE != 0);
    let open = OpenFile::new(counter, flag::RDWR | flags & flag::NONBLOCK, None);
    Ok(current::files().install(open, flags & flag::CLOEXEC != 0)? as usize)
}

pub(super) fn memfd_create(name: u64, flags: u64) -> Result<usize, Errno> {
    const CLOEXEC: u64 = 1;
    const ALLOW_SEALING: u64 = 2;
    let name = user_copy::read_string(name, 250)?.ok_or(errno::EINVAL)?;
    if flags & !(CLOEXEC | ALLOW_SEALING | 0x18) != 0 {
        return Err(errno::EINVAL);
    }
    let inode = tree::new_node(mode::REG | 0o777, 0)?;
    inode.nlink.store(0, core::sync::atomic::Ordering::Relaxed);
    let mut label = b"memfd:".to_vec();
    label.extend_from_slice(&name);
    label.extend_from_slice(b" (deleted)");
    let place = crate::fs::root().with_child(&label, inode.clone());
    let open = OpenFile::new(inode, flag::RDWR, Some(place));
    Ok(current::files().install(open, flags & CLOEXEC != 0)? as usize)
}

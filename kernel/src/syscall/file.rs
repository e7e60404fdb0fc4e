//! System calls on open files: transfers, offsets, ioctl, and the table of all file calls.
//!
//! Source of numbers and meanings: Linux's man pages, section 2; arch/x86/entry/syscalls/syscall_64.tbl.

use super::table::Handler;
use super::{
    extended_attribute as attribute, file_copy as copy, file_descriptor as descriptor, file_epoll as epoll,
    file_path as path, file_poll as poll, file_stat as stat,
};
use crate::errno::{self, Errno};
use crate::fs::current;
use crate::fs::inode::mode;
use crate::fs::open_file::OpenFile;
use crate::fs::user_buffer::UserBuffer;
use crate::mm::user_copy::{self, UserRange};
use crate::process::current_thread;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// What one transfer moves at most (Linux's MAX_RW_COUNT).
const MAX_TRANSFER: usize = 0x7fff_f000;
/// Stretches of one vectored transfer (Linux's UIO_MAXIOV).
const MAX_STRETCHES: usize = 1024;

/// A result as RAX has it.
#[inline(always)]
fn ret(result: Result<usize, Errno>) -> i64 {
    crate::syscall::table::into_rax(result.map(|v| v as u64))
}

macro_rules! handler {
    ($f:path, 1) => {{
        unsafe extern "C" fn h(a: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> i64 {
            ret($f(a))
        }
        h as Handler
    }};
    ($f:path, 2) => {{
        unsafe extern "C" fn h(a: u64, b: u64, _: u64, _: u64, _: u64, _: u64) -> i64 {
            ret($f(a, b))
        }
        h as Handler
    }};
    ($f:path, 3) => {{
        unsafe extern "C" fn h(a: u64, b: u64, c: u64, _: u64, _: u64, _: u64) -> i64 {
            ret($f(a, b, c))
        }
        h as Handler
    }};
    ($f:path, 4) => {{
        unsafe extern "C" fn h(a: u64, b: u64, c: u64, d: u64, _: u64, _: u64) -> i64 {
            ret($f(a, b, c, d))
        }
        h as Handler
    }};
    ($f:path, 5) => {{
        unsafe extern "C" fn h(a: u64, b: u64, c: u64, d: u64, e: u64, _: u64) -> i64 {
            ret($f(a, b, c, d, e))
        }
        h as Handler
    }};
    ($f:path, 6) => {{
        unsafe extern "C" fn h(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64) -> i64 {
            ret($f(a, b, c, d, e, f))
        }
        h as Handler
    }};
}

/// All file calls, by number.
pub const FILE_CALLS: super::table::Calls = &[
    (0, handler!(read, 3)),
    (1, handler!(write, 3)),
    (2, handler!(path::open, 3)),
    (3, handler!(descriptor::close, 1)),
    (4, handler!(stat::stat, 2)),
    (5, handler!(stat::fstat, 2)),
    (6, handler!(stat::lstat, 2)),
    (7, handler!(poll::poll, 3)),
    (8, handler!(lseek, 3)),
    (16, handler!(ioctl, 3)),
    (17, handler!(pread64, 4)),
    (18, handler!(pwrite64, 4)),
    (19, handler!(readv, 3)),
    (20, handler!(writev, 3)),
    (21, handler!(stat::access, 2)),
    (22, handler!(descriptor::pipe, 1)),
    (23, handler!(poll::select, 5)),
    (32, handler!(descriptor::dup, 1)),
    (33, handler!(descriptor::dup2, 2)),
    (40, handler!(sendfile, 4)),
    (72, handler!(descriptor::fcntl, 3)),
    (73, handler!(known_descriptor, 1)),
    (74, handler!(known_descriptor, 1)),
    (75, handler!(known_descriptor, 1)),
    (76, handler!(path::truncate, 2)),
    (77, handler!(ftruncate, 2)),
    (79, handler!(path::getcwd, 2)),
    (80, handler!(path::chdir, 1)),
    (81, handler!(path::fchdir, 1)),
    (82, handler!(path::rename, 2)),
    (83, handler!(path::mkdir, 2)),
    (84, handler!(path::rmdir, 1)),
    (85, handler!(path::creat, 2)),
    (86, handler!(path::link, 2)),
    (87, handler!(path::unlink, 1)),
    (88, handler!(path::symlink, 2)),
    (89, handler!(stat::readlink, 3)),
    (90, handler!(stat::chmod, 2)),
    (91, handler!(stat::fchmod, 2)),
    (92, handler!(stat::chown, 3)),
    (93, handler!(stat::fchown, 3)),
    (94, handler!(stat::lchown, 3)),
    (95, handler!(path::umask, 1)),
    (132, handler!(stat::utime, 2)),
    (133, handler!(path::mknod, 3)),
    (137, handler!(stat::statfs, 2)),
    (138, handler!(stat::fstatfs, 2)),
    (161, handler!(path::chroot, 1)),
    (165, handler!(path::mount, 5)),
    (166, handler!(path::umount2, 2)),
    (187, handler!(copy::readahead, 3)),
    (188, handler!(attribute::setxattr, 5)),
    (189, handler!(attribute::lsetxattr, 5)),
    (190, handler!(attribute::fsetxattr, 5)),
    (191, handler!(attribute::getxattr, 4)),
    (192, handler!(attribute::lgetxattr, 4)),
    (193, handler!(attribute::fgetxattr, 4)),
    (194, handler!(attribute::listxattr, 3)),
    (195, handler!(attribute::llistxattr, 3)),
    (196, handler!(attribute::flistxattr, 3)),
    (197, handler!(attribute::removexattr, 2)),
    (198, handler!(attribute::lremovexattr, 2)),
    (199, handler!(attribute::fremovexattr, 2)),
    (213, handler!(epoll::epoll_create, 1)),
    (217, handler!(stat::getdents64, 3)),
    (221, handler!(known_descriptor, 1)),
    (232, handler!(epoll::epoll_wait, 4)),
    (233, handler!(epoll::epoll_ctl, 4)),
    (235, handler!(stat::utimes, 2)),
    (257, handler!(path::openat, 4)),
    (258, handler!(path::mkdirat, 3)),
    (259, handler!(path::mknodat, 4)),
    (260, handler!(stat::fchownat, 5)),
    (261, handler!(stat::futimesat, 3)),
    (262, handler!(stat::newfstatat, 4)),
    (263, handler!(path::unlinkat, 3)),
    (264, handler!(path::renameat, 4)),
    (265, handler!(path::linkat, 5)),
    (266, handler!(path::symlinkat, 3)),
    (267, handler!(stat::readlinkat, 4)),
    (268, handler!(stat::fchmodat, 3)),
    (269, handler!(stat::faccessat, 3)),
    (270, handler!(poll::pselect6, 6)),
    (271, handler!(poll::ppoll, 5)),
    (277, handler!(copy::sync_file_range, 4)),
    (280, handler!(stat::utimensat, 4)),
    (281, handler!(epoll::epoll_pwait, 6)),
    (282, handler!(epoll::signalfd, 3)),
    (283, handler!(epoll::timerfd_create, 2)),
    (284, handler!(descriptor::eventfd, 1)),
    (285, handler!(fallocate, 4)),
    (286, handler!(epoll::timerfd_settime, 4)),
    (287, handler!(epoll::timerfd_gettime, 2)),
    (289, handler!(epoll::signalfd4, 4)),
    (290, handler!(descriptor::eventfd2, 2)),
    (291, handler!(epoll::epoll_create1, 1)),
    (292, handler!(descriptor::dup3, 3)),
    (293, handler!(descriptor::pipe2, 2)),
    (295, handler!(preadv, 4)),
    (296, handler!(pwritev, 4)),
    (306, handler!(known_descriptor, 1)),
    (316, handler!(path::renameat2, 5)),
    (319, handler!(descriptor::memfd_create, 2)),
    (326, handler!(copy::copy_file_range, 6)),
    (327, handler!(copy::preadv2, 6)),
    (328, handler!(copy::pwritev2, 6)),
    (332, handler!(stat::statx, 5)),
    (436, handler!(descriptor::close_range, 3)),
    (437, handler!(path::openat2, 4)),
    (439, handler!(stat::faccessat2, 4)),
    (441, handler!(epoll::epoll_pwait2, 6)),
    (452, handler!(stat::fchmodat2, 4)),
];

/// The open file of a descriptor argument. EBADF also for a descriptor that only says where a file is (O_PATH): it cannot be worked with (Linux's fdget).
#[inline]
pub(super) fn file(fd: u64) -> Result<Arc<OpenFile>, Errno> {
    place_or_file(fd).and_then(|open| if open.is_path_only() { Err(errno::EBADF) } else { Ok(open) })
}

/// The same for the calls that take O_PATH too: those on descriptors, and those that only ask where or what a file is (fdget_raw).
#[inline]
pub(super) fn place_or_file(fd: u64) -> Result<Arc<OpenFile>, Errno> {
    current::files().file(fd as i32)
}

/// Calls that have nothing to do on files in memory, but for a descriptor that is not open.
fn known_descriptor(fd: u64) -> Result<usize, Errno> {
    file(fd).map(|_| 0)
}

/// The user's bytes of a transfer. What cannot be user memory is refused before the file is touched or waited for, as in Linux.
#[inline]
pub(super) fn buffer(at: u64, len: u64) -> Result<UserBuffer<'static>, Errno> {
    Ok(UserBuffer::new(UserRange::new(at, len)?.shortened(MAX_TRANSFER)))
}

/// `transfer` with the open file of a call that only moves bytes.
#[inline(always)]
fn with_file(fd: u64, transfer: impl FnOnce(&OpenFile) -> Result<usize, Errno>) -> Result<usize, Errno> {
    let files = current_thread().files().ok_or(errno::EBADF)?;
    // SAFETY: 1. the running thread's own table; 2. no file opens, closes or moves descriptors when it is read or written.
    match unsafe { files.file_of_one_user(fd as i32) } {
        Some(open) => transfer(open?),
        None => with_shared_file(fd, transfer),
    }
}

/// The same where another thread may close the descriptor meanwhile.
#[inline(never)]
fn with_shared_file(fd: u64, transfer: impl FnOnce(&OpenFile) -> Result<usize, Errno>) -> Result<usize, Errno> {
    transfer(&*file(fd)?)
}

fn read(fd: u64, at: u64, len: u64) -> Result<usize, Errno> {
    with_file(fd, |open| match buffer(at, len) {
        Ok(mut to) => open.read(&mut to, None),
        Err(e) => Err(if open.is_readable() { e } else { errno::EBADF }),
    })
}

fn write(fd: u64, at: u64, len: u64) -> Result<usize, Errno> {
    with_file(fd, |open| match buffer(at, len) {
        Ok(mut from) => open.write(&mut from, None),
        Err(e) => Err(if open.is_writable() { e } else { errno::EBADF }),
    })
}

/// The file of a transfer at an offset.
pub(super) fn seekable(fd: u64, offset: u64) -> Result<Arc<OpenFile>, Errno> {
    if (offset as i64) < 0 {
        return Err(errno::EINVAL);
    }
    let open = file(fd)?;
    if !open.file.is_seekable() {
        return Err(errno::ESPIPE);
    }
    Ok(open)
}

fn pread64(fd: u64, at: u64, len: u64, offset: u64) -> Result<usize, Errno> {
    seekable(fd, offset)?.read(&mut buffer(at, len)?, Some(offset))
}

fn pwrite64(fd: u64, at: u64, len: u64, offset: u64) -> Result<usize, Errno> {
    seekable(fd, offset)?.write(&mut buffer(at, len)?, Some(offset))
}

/// The stretches of a vectored transfer.
pub(super) fn stretches(at: u64, count: u64) -> Result<Vec<UserRange>, Errno> {
    if count > MAX_STRETCHES as u64 {
        return Err(errno::EINVAL);
    }
    let mut out = Vec::with_capacity(count as usize);
    let mut left = MAX_TRANSFER;
    for i in 0..count {
        let [base, len]: [u64; 2] = user_copy::read(at.wrapping_add(i * 16))?;
        if len > i64::MAX as u64 {
            return Err(errno::EINVAL);
        }
        let stretch = UserRange::new(base, len)?.shortened(left);
        left -= stretch.len();
        out.push(stretch);
    }
    Ok(out)
}

fn readv(fd: u64, at: u64, count: u64) -> Result<usize, Errno> {
    with_file(fd, |open| open.read(&mut UserBuffer::of(&stretches(at, count)?), None))
}

fn writev(fd: u64, at: u64, count: u64) -> Result<usize, Errno> {
    with_file(fd, |open| open.write(&mut UserBuffer::of(&stretches(at, count)?), None))
}

fn preadv(fd: u64, at: u64, count: u64, offset: u64) -> Result<usize, Errno> {
    let open = seekable(fd, offset)?;
    open.read(&mut UserBuffer::of(&stretches(at, count)?), Some(offset))
}

fn pwritev(fd: u64, at: u64, count: u64, offset: u64) -> Result<usize, Errno> {
    let open = seekable(fd, offset)?;
    open.write(&mut UserBuffer::of(&stretches(at, count)?), Some(offset))
}

fn lseek(fd: u64, offset: u64, whence: u64) -> Result<usize, Errno> {
    let open = file(fd)?;
    if !open.file.is_seekable() {
        return Err(errno::ESPIPE);
    }
    let from = match whence {
        0 => 0,
        1 => open.offset.load(Ordering::Relaxed),
        2 => open.file.size(),
        // SEEK_DATA, SEEK_HOLE: all is data up to the end.
        3 | 4 => {
            let size = open.file.size();
            if offset >= size {
                return Err(errno::ENXIO);
            }
            let to = if whence == 3 { offset } else { size };
            open.offset.store(to, Ordering::Relaxed);
            return Ok(to as usize);
        }
        _ => return Err(errno::EINVAL),
    };
    let to = (from as i64).checked_add(offset as i64).filter(|&to| to >= 0).ok_or(errno::EINVAL)?;
    open.offset.store(to as u64, Ordering::Relaxed);
    Ok(to as usize)
}

fn ioctl(fd: u64, request: u64, argument: u64) -> Result<usize, Errno> {
    const FIONREAD: u32 = 0x541b;
    const FIONBIO: u32 = 0x5421;
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    let open = file(fd)?;
    match request as u32 {
        FIOCLEX | FIONCLEX => current::files().set_close_on_exec(fd as i32, request as u32 == FIOCLEX)?,
        FIONBIO => open.set_nonblock(user_copy::read::<i32>(argument)? != 0),
        FIONREAD => {
            let there = open.file.readable_bytes().ok_or(errno::ENOTTY)?;
            let at = if open.file.is_seekable() { open.offset.load(Ordering::Relaxed) } else { 0 };
            let left = (there as u64).saturating_sub(at).min(i32::MAX as u64);
            user_copy::write(argument, &(left as i32))?;
        }
        other => return open.file.ioctl(other, argument).map(|v| v as usize),
    }
    Ok(0)
}

fn ftruncate(fd: u64, len: u64) -> Result<usize, Errno> {
    if (len as i64) < 0 {
        return Err(errno::EINVAL);
    }
    let open = file(fd)?;
    if !open.is_writable() {
        return Err(errno::EINVAL);
    }
    let inode = open.inode().ok_or(errno::EINVAL)?;
    if inode.file_type() != mode::REG {
        return Err(errno::EINVAL);
    }
    inode.truncate(len).map(|()| 0)
}

fn fallocate(fd: u64, how: u64, offset: u64, len: u64) -> Result<usize, Errno> {
    let open = file(fd)?;
    if (offset as i64) < 0 || (len as i64) <= 0 {
        return Err(errno::EINVAL);
    }
    if how != 0 {
        return Err(errno::EOPNOTSUPP);
    }
    if !open.is_writable() {
        return Err(errno::EBADF);
    }
    let inode = match open.stat().mode & mode::FMT {
        mode::REG => open.inode().ok_or(errno::ENODEV)?,
        mode::FIFO => return Err(errno::ESPIPE),
        _ => return Err(errno::ENODEV),
    };
    let end = offset.checked_add(len).filter(|&e| e <= i64::MAX as u64).ok_or(errno::EFBIG)?;
    if inode.content_len() < end {
        inode.truncate(end)?;
    }
    Ok(0)
}

/// sendfile(2) from a file in memory to anything, by way of a small kernel buffer.
fn sendfile(out: u64, input: u64, offset_at: u64, len: u64) -> Result<usize, Errno> {
    use crate::fs::inode::Kind;
    let (out, input) = (file(out)?, file(input)?);
    let inode = input.inode().ok_or(errno::EINVAL)?.clone();
    let Kind::Regular(pages) = &inode.kind else { return Err(errno::EINVAL) };
    let mut offset = match offset_at {
        0 => input.offset.load(Ordering::Relaxed),
        at => user_copy::read(at)?,
    };
    let mut done = 0;
    let len = (len as usize).min(MAX_TRANSFER);
    let mut chunk = [0u8; 512];
    while done < len {
        let wanted = (len - done).min(chunk.len());
        let n = pages.read(offset, &mut chunk[..wanted]);
        if n == 0 {
            break;
        }
        match out.write(&mut UserBuffer::kernel(&chunk[..n]), None) {
            Ok(n) => {
                done += n;
                offset += n as u64;
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    match offset_at {
        0 => input.offset.store(offset, Ordering::Relaxed),
        at => user_copy::write(at, &offset)?,
    }
    Ok(done)
}

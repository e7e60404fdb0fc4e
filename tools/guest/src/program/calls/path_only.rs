//! Descriptors that only say where a file is (O_PATH): what works with the file itself refuses them, what asks where or what it is does not.

use super::each::{Folder, at, gives, refused, to, works};
use super::{Check, ensure, equal};
use libc::{
    EBADF, EINVAL, ENODEV, EOPNOTSUPP, ESPIPE, SYS_close, SYS_dup, SYS_dup2, SYS_dup3, SYS_epoll_create1,
    SYS_epoll_ctl, SYS_execveat, SYS_faccessat2, SYS_fallocate, SYS_fchdir, SYS_fchmod, SYS_fchown, SYS_fchownat,
    SYS_fcntl, SYS_fdatasync, SYS_fgetxattr, SYS_flistxattr, SYS_flock, SYS_fstat, SYS_fstatfs, SYS_fsync,
    SYS_ftruncate, SYS_getdents64, SYS_ioctl, SYS_linkat, SYS_lseek, SYS_mmap, SYS_newfstatat, SYS_open, SYS_openat,
    SYS_pipe2, SYS_poll, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_pwrite64, SYS_pwritev, SYS_pwritev2, SYS_read,
    SYS_readahead, SYS_readlinkat, SYS_readv, SYS_select, SYS_sendfile, SYS_shutdown, SYS_signalfd4,
    SYS_sync_file_range, SYS_syncfs, SYS_timerfd_gettime, SYS_utimensat, SYS_write, SYS_writev,
};
use std::os::unix::fs::MetadataExt;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("path_only_refused", refused_calls),
    ("path_only_allowed", allowed_calls),
    ("path_only_wait", wait),
    ("fallocate_order", fallocate),
];

const EMPTY_PATH: u64 = 0x1000;
const HERE: u64 = libc::AT_FDCWD as u64;
const PATH: u64 = libc::O_PATH as u64;

fn open(name: &str, flags: u64) -> Result<u64, String> {
    works(SYS_open, &[at(name), flags, 0o644])
}

fn refused_calls() -> Result<(), String> {
    let folder = Folder::new()?;
    let file = open(&folder.file("file", b"0123456789")?, PATH | 2)?;
    let directory = open(&folder.path(""), PATH)?;
    let good = open(&folder.path("file"), 2)?;
    let mut room = [0u64; 16];
    let part = [to(&mut room), 8];
    let epoll = works(SYS_epoll_create1, &[0])?;
    let event = [1u32, 0, 0];
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), 0])?;
    for fd in [file, directory] {
        for (number, args) in [
            (SYS_read, &[fd, part[0], 8][..]),
            (SYS_write, &[fd, part[0], 8]),
            (SYS_readv, &[fd, at(&part), 1]),
            (SYS_writev, &[fd, at(&part), 1]),
            (SYS_pread64, &[fd, part[0], 8, 0]),
            (SYS_pwrite64, &[fd, part[0], 8, 0]),
            (SYS_preadv, &[fd, at(&part), 1, 0]),
            (SYS_pwritev, &[fd, at(&part), 1, 0]),
            (SYS_preadv2, &[fd, at(&part), 1, 0, 0, 0]),
            (SYS_pwritev2, &[fd, at(&part), 1, 0, 0, 0]),
            (SYS_lseek, &[fd, 0, 0]),
            (SYS_lseek, &[fd, 0, 1]),
            (SYS_lseek, &[fd, 0, 99]),
            (SYS_ioctl, &[fd, libc::FIONREAD as u64, part[0]]),
            (SYS_ioctl, &[fd, libc::FIOCLEX as u64]),
            (SYS_ioctl, &[fd, libc::TCGETS as u64, part[0]]),
            (SYS_ftruncate, &[fd, 5]),
            (SYS_fallocate, &[fd, 0, 0, 20]),
            (SYS_fchmod, &[fd, 0o600]),
            (SYS_fchown, &[fd, 0, 0]),
            (SYS_flock, &[fd, 2]),
            (SYS_fsync, &[fd]),
            (SYS_fdatasync, &[fd]),
            (SYS_syncfs, &[fd]),
            (SYS_sync_file_range, &[fd, 0, 0, 0]),
            (SYS_readahead, &[fd, 0, 0]),
            (libc::SYS_fadvise64, &[fd, 0, 0, 0]),
            (SYS_getdents64, &[fd, part[0], 64]),
            (SYS_mmap, &[0, 4096, 1, 2, fd, 0]),
            (SYS_sendfile, &[good, fd, 0, 1]),
            (SYS_sendfile, &[fd, good, 0, 1]),
            (SYS_fgetxattr, &[fd, at("user.a\0"), 0, 0]),
            (SYS_flistxattr, &[fd, 0, 0]),
            (SYS_utimensat, &[fd, 0, 0, 0]),
            (SYS_epoll_ctl, &[epoll, 1, fd, at(&event)]),
            (SYS_timerfd_gettime, &[fd, part[0]]),
            (SYS_signalfd4, &[fd, part[0], 8, 0]),
            (SYS_shutdown, &[fd, 0]),
            (SYS_fcntl, &[fd, 4, 0]),       // F_SETFL
            (SYS_fcntl, &[fd, 9, part[0]]), // F_GETOWN
            (SYS_fcntl, &[fd, 5, part[0]]), // F_GETLK
            (SYS_fcntl, &[fd, 1032]),       // F_GETPIPE_SZ
            (SYS_fcntl, &[fd, 9999]),
        ] {
            refused(number, args, EBADF)?;
        }
    }
    // What is wrong with the numbers is said before.
    refused(SYS_ftruncate, &[file, u64::MAX], EINVAL)?;
    refused(SYS_pread64, &[file, part[0], 8, u64::MAX], EINVAL)?;
    refused(SYS_pwritev, &[file, at(&part), 1, 1 << 63], EINVAL)?;
    equal!(std::fs::metadata(format!("{}/file", folder.0)).map(|m| m.len()).ok(), Some(10));
    Ok(())
}

fn allowed_calls() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"0123456789")?;
    let fd = open(&name, PATH | 2 | libc::O_APPEND as u64)?;
    let directory = open(&folder.path(""), PATH)?;
    let inode = || std::fs::metadata(name.trim_end_matches('\0')).map_err(|e| e.to_string());
    let mut status = [0u64; 18];
    gives(SYS_fstat, &[fd, to(&mut status)], 0)?;
    equal!((status[1], status[6]), (inode()?.ino(), 10));
    gives(SYS_newfstatat, &[fd, at("\0"), to(&mut status), EMPTY_PATH], 0)?;
    gives(SYS_fstatfs, &[fd, to(&mut status)], 0)?;
    // Of its flags those that say nothing of access are gone.
    equal!(works(SYS_fcntl, &[fd, 3])? & !0o100_000, PATH);
    gives(SYS_fcntl, &[fd, 2, 1], 0)?;
    gives(SYS_fcntl, &[fd, 1], 1)?;
    gives(SYS_fcntl, &[fd, 0, 100], 100)?;
    gives(SYS_fcntl, &[fd, 1030, 100], 101)?;
    gives(SYS_dup2, &[fd, 102], 102)?;
    gives(SYS_dup3, &[fd, 103, 0], 103)?;
    let copy = works(SYS_dup, &[fd])?;
    refused(SYS_lseek, &[copy, 0, 0], EBADF)?;
    for fd in [copy, 100, 101, 102, 103] {
        gives(SYS_close, &[fd], 0)?;
    }
    // As the start of a path, or as the file itself.
    works(SYS_close, &[works(SYS_openat, &[directory, at("file\0"), 0])?])?;
    gives(SYS_faccessat2, &[fd, at("\0"), 4, EMPTY_PATH], 0)?;
    refused(SYS_faccessat2, &[fd, at("\0"), 1, EMPTY_PATH], libc::EACCES)?;
    refused(SYS_faccessat2, &[directory, at("nothing\0"), 8, 0], EINVAL)?;
    let mut ends = [0i32; 2];
    gives(libc::SYS_pipe2, &[to(&mut ends), 0], 0)?;
    let pipe = ends[0] as u64;
    gives(SYS_faccessat2, &[pipe, at("\0"), 6, EMPTY_PATH], 0)?;
    refused(SYS_faccessat2, &[pipe, at("\0"), 1, EMPTY_PATH], libc::EACCES)?;
    refused(SYS_faccessat2, &[pipe, at("\0"), 8, EMPTY_PATH], EINVAL)?;
    gives(SYS_fchownat, &[fd, at("\0"), 5, 6, EMPTY_PATH], 0)?;
    equal!((inode()?.uid(), inode()?.gid()), (5, 6));
    let times = [0u64, 0, 77, 0];
    gives(SYS_utimensat, &[fd, at("\0"), at(&times), EMPTY_PATH], 0)?;
    equal!(inode()?.mtime(), 77);
    refused(SYS_utimensat, &[fd, at("\0"), at(&times), 1], EINVAL)?;
    gives(SYS_linkat, &[fd, at("\0"), directory, at("other\0"), EMPTY_PATH], 0)?;
    equal!(inode()?.nlink(), 2);
    refused(SYS_execveat, &[fd, at("\0"), 0, 0, EMPTY_PATH], libc::EACCES)?; // it is no program
    std::os::unix::fs::symlink("file", format!("{}/link", folder.0)).map_err(|e| e.to_string())?;
    let link = open(&folder.path("link"), PATH | libc::O_NOFOLLOW as u64)?;
    let mut room = [0u8; 8];
    gives(SYS_readlinkat, &[link, at("\0"), to(&mut room), 8], 4)?;
    ensure!(room.starts_with(b"file"));
    // By its link in /proc it can be opened.
    let path = format!("/proc/self/fd/{fd}\0");
    let opened = open(&path, 0)?;
    gives(SYS_read, &[opened, to(&mut room), 3], 3)?;
    works(SYS_openat, &[HERE, at(path.as_str()), PATH])?;
    gives(SYS_fchdir, &[directory], 0)?;
    works(SYS_open, &[at("file\0"), 0])?;
    gives(SYS_fchdir, &[works(SYS_open, &[at("/\0"), PATH])?], 0)
}

fn wait() -> Result<(), String> {
    let folder = Folder::new()?;
    let fd = open(&folder.file("file", b"")?, PATH)?;
    let mut polled = [fd | 1 << 32];
    gives(SYS_poll, &[to(&mut polled), 1, 0], 1)?;
    equal!(polled[0] >> 48, libc::POLLNVAL as u64);
    // select(2): ready for whatever is asked.
    let mut sets = [[1u64 << fd; 16]; 3];
    for set in &mut sets {
        set[1..].fill(0);
    }
    let none = [0u64; 2];
    gives(SYS_select, &[fd + 1, to(&mut sets[0]), to(&mut sets[1]), to(&mut sets[2]), at(&none)], 3)?;
    equal!(sets.map(|set| set[0]), [1 << fd; 3]);
    Ok(())
}

fn fallocate() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"0123456789")?;
    let (readable, fd) = (open(&name, 0)?, open(&name, 1)?);
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), 0])?;
    refused(SYS_fallocate, &[readable, 0, 0, 20], EBADF)?;
    refused(SYS_fallocate, &[readable, 0, 0, 0], EINVAL)?;
    refused(SYS_fallocate, &[fd, 0, u64::MAX, 5], EINVAL)?;
    refused(SYS_fallocate, &[fd, 0, 5, u64::MAX], EINVAL)?;
    refused(SYS_fallocate, &[fd, 1 << 20, 0, 5], EOPNOTSUPP)?;
    refused(SYS_fallocate, &[fd, 0, i64::MAX as u64, 1], libc::EFBIG)?;
    refused(SYS_fallocate, &[ends[1] as u64, 0, 0, 5], ESPIPE)?;
    refused(SYS_fallocate, &[ends[0] as u64, 0, 0, 5], EBADF)?;
    refused(SYS_fallocate, &[works(SYS_open, &[at("/dev/null\0"), 2])?, 0, 0, 5], ENODEV)
}

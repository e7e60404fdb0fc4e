//! Bytes moved by calls with more words than read and write: at an offset with flags, from file to file; and what has nothing to do for
//! files in memory.

use super::each::{Folder, NOWHERE, at, gives, refused, to, works};
use super::{Check, call, ensure, equal, is_quiesce};
use libc::{
    EAGAIN, EBADF, EFAULT, EINVAL, EISDIR, ENOENT, ENOSYS, EOPNOTSUPP, EOVERFLOW, ERANGE, ESPIPE, SYS_copy_file_range,
    SYS_fgetxattr, SYS_flistxattr, SYS_fremovexattr, SYS_fsetxattr, SYS_fsync, SYS_futimesat, SYS_getxattr,
    SYS_lgetxattr, SYS_listxattr, SYS_llistxattr, SYS_lremovexattr, SYS_lseek, SYS_lsetxattr, SYS_open, SYS_pipe2,
    SYS_pread64, SYS_preadv2, SYS_pwritev2, SYS_readahead, SYS_removexattr, SYS_setxattr, SYS_stat, SYS_symlink,
    SYS_sync_file_range, SYS_utimensat, SYS_write,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("copy_file_range", copy_file_range),
    ("transfer_flags", transfer_flags),
    ("sync_file_range", nothing_to_do),
    ("extended_attributes", extended_attributes),
    ("futimesat", futimesat),
    ("fchmodat2", fchmodat2),
];

const CWD: u64 = libc::AT_FDCWD as u64;
const NO_FILE: u64 = 999;
const OWN_OFFSET: u64 = u64::MAX;

fn open(name: &str, flags: i32) -> Result<u64, String> {
    works(SYS_open, &[at(name), flags as u64, 0o644])
}

/// The first bytes of a file.
fn content(fd: u64) -> Result<Vec<u8>, String> {
    let mut room = [0u8; 64];
    let len = works(SYS_pread64, &[fd, to(&mut room), 64, 0])? as usize;
    Ok(room[..len].to_vec())
}

fn offset(fd: u64) -> Result<u64, String> {
    works(SYS_lseek, &[fd, 0, 1])
}

fn copy_file_range() -> Result<(), String> {
    const COPY: i64 = SYS_copy_file_range;
    let folder = Folder::new()?;
    let source = open(&folder.file("source", b"0123456789")?, libc::O_RDWR)?;
    let target = open(&folder.path("target"), libc::O_RDWR | libc::O_CREAT)?;
    // By their own offsets, which move.
    gives(COPY, &[source, 0, target, 0, 4, 0], 4)?;
    equal!((content(target)?, offset(source)?, offset(target)?), (b"0123".to_vec(), 4, 4));
    // By given ones, which move in place of those; no more than there is.
    let (mut from, mut onto) = (7u64, 1u64);
    gives(COPY, &[source, to(&mut from), target, to(&mut onto), 100, 0], 3)?;
    equal!((content(target)?, from, onto), (b"0789".to_vec(), 10, 4));
    equal!((offset(source)?, offset(target)?), (4, 4));
    gives(COPY, &[source, to(&mut from), target, to(&mut onto), 100, 0], 0)?; // the end
    from = 90;
    gives(COPY, &[source, to(&mut from), target, to(&mut onto), 1, 0], 0)?;
    gives(COPY, &[source, 0, target, 0, 0, 0], 0)?;
    // In one file, side by side; not over itself.
    (from, onto) = (0, 5);
    gives(COPY, &[source, to(&mut from), source, to(&mut onto), 5, 0], 5)?;
    equal!(content(source)?, b"0123401234".to_vec());
    (from, onto) = (0, 4);
    refused(COPY, &[source, to(&mut from), source, to(&mut onto), 5, 0], EINVAL)?;
    // More than a page, at odd places.
    let long: Vec<u8> = (0..20_000u32).map(|i| (i % 251) as u8).collect();
    let large = open(&folder.file("large", &long)?, libc::O_RDONLY)?;
    let other = open(&folder.path("other"), libc::O_RDWR | libc::O_CREAT)?;
    (from, onto) = (3, 5);
    gives(COPY, &[large, to(&mut from), other, to(&mut onto), 19_990, 0], 19_990)?;
    let copied = std::fs::read(format!("{}/other", folder.0)).map_err(|e| e.to_string())?;
    ensure!(copied.len() == 19_995 && copied[..5] == [0; 5] && copied[5..] == long[3..19_993]);
    // Descriptors, offsets, kinds of files.
    let appending = open(&folder.path("target"), libc::O_WRONLY | libc::O_APPEND)?;
    let write_only = open(&folder.path("target"), libc::O_WRONLY)?;
    let directory = open(&folder.path(""), libc::O_RDONLY)?;
    let place = open(&folder.path(""), libc::O_PATH)?;
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), 0])?;
    for (input, output, error) in [
        (NO_FILE, target, EBADF),
        (source, NO_FILE, EBADF),
        (source, large, EBADF),
        (write_only, target, EBADF),
        (source, appending, EBADF),
        (directory, target, EISDIR),
        (source, directory, EISDIR),
        (ends[0] as u64, directory, EISDIR),
        (directory, ends[1] as u64, EISDIR),
        (place, target, EBADF),
        (source, place, EBADF),
        (ends[0] as u64, target, EINVAL),
        (source, ends[1] as u64, EINVAL),
    ] {
        refused(COPY, &[input, 0, output, 0, 1, 0], error)?;
    }
    refused(COPY, &[source, NOWHERE, target, 0, 1, 0], EFAULT)?;
    refused(COPY, &[source, 0, target, NOWHERE, 1, 0], EFAULT)?;
    refused(COPY, &[source, 0, target, 0, 1, 1], EINVAL)?;
    refused(COPY, &[source, 0, target, 0, u64::MAX, 0], EOVERFLOW)?;
    from = 1 << 63;
    refused(COPY, &[source, to(&mut from), target, 0, 1, 0], EINVAL)?;
    Ok(())
}

fn transfer_flags() -> Result<(), String> {
    const APPEND: u64 = 16;
    const SYNC: u64 = 4;
    let folder = Folder::new()?;
    let fd = open(&folder.file("file", b"0123456789")?, libc::O_RDWR)?;
    let mut room = [0u8; 8];
    let parts = [to(&mut room), 2, to(&mut room[4..]), 3];
    gives(SYS_preadv2, &[fd, at(&parts), 2, 4, 0, 0], 5)?;
    equal!(&room, b"45\0\x00678\0");
    equal!(offset(fd)?, 0);
    gives(SYS_preadv2, &[fd, at(&parts), 1, OWN_OFFSET, 0, 0], 2)?;
    equal!((&room[..2], offset(fd)?), (&b"01"[..], 2));
    let out = [at(b"ab"), 2, at(b"c"), 1];
    gives(SYS_pwritev2, &[fd, at(&out), 2, 0, 0, SYNC], 3)?;
    gives(SYS_pwritev2, &[fd, at(&out), 1, OWN_OFFSET, 0, 0], 2)?;
    equal!((content(fd)?, offset(fd)?), (b"abab456789".to_vec(), 4));
    // To the end, whatever the offset is.
    gives(SYS_pwritev2, &[fd, at(&out), 2, 0, 0, APPEND], 3)?;
    equal!((content(fd)?, offset(fd)?), (b"abab456789abc".to_vec(), 4));
    gives(SYS_pwritev2, &[fd, at(&out), 1, OWN_OFFSET, 0, APPEND], 2)?;
    equal!((content(fd)?, offset(fd)?), (b"abab456789abcab".to_vec(), 15));
    append_or_not(&folder)?;
    for call in [SYS_preadv2, SYS_pwritev2] {
        refused(call, &[fd, at(&out), 1, 0, 0, 1 << 20], EOPNOTSUPP)?;
        refused(call, &[NO_FILE, at(&out), 1, 0, 0, 0], EBADF)?;
        refused(call, &[fd, at(&out), 1, -2i64 as u64, 0, 0], EINVAL)?;
        refused(call, &[fd, at(&out), 1025, 0, 0, 0], EINVAL)?;
        refused(call, &[fd, NOWHERE, 1, 0, 0, 0], EFAULT)?;
    }
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), 0])?;
    let ends = ends.map(|fd| fd as u64);
    refused(SYS_preadv2, &[ends[0], at(&parts), 1, 0, 0, 0], ESPIPE)?;
    refused(SYS_pwritev2, &[ends[1], at(&out), 1, 0, 0, 0], ESPIPE)?;
    gives(SYS_pwritev2, &[ends[1], at(&out), 2, OWN_OFFSET, 0, 0], 3)?;
    gives(SYS_preadv2, &[ends[0], at(&parts), 2, OWN_OFFSET, 0, 0], 3)?;
    // RWF_NOWAIT on a descriptor that would wait: EAGAIN, or EOPNOTSUPP where Linux has not taught it to pipes.
    let empty = call(SYS_preadv2, [ends[0], at(&parts), 1, OWN_OFFSET, 0, 8]);
    ensure!(empty == Err(EAGAIN) || !is_quiesce() && empty == Err(EOPNOTSUPP));
    Ok(())
}

/// RWF_APPEND and RWF_NOAPPEND, each for one transfer, whatever the descriptor does else. Linux has the second from 6.9 on.
fn append_or_not(folder: &Folder) -> Result<(), String> {
    const APPEND: u64 = 16;
    const NOAPPEND: u64 = 32;
    let fd = open(&folder.file("appended", b"0123")?, libc::O_RDWR | libc::O_APPEND)?;
    let out = [at(b"ab"), 2];
    gives(SYS_pwritev2, &[fd, at(&out), 1, 0, 0, 0], 2)?;
    equal!((content(fd)?, offset(fd)?), (b"0123ab".to_vec(), 0));
    if !is_quiesce() && call(SYS_pwritev2, [fd, at(&out), 1, 1, 0, NOAPPEND]) == Err(EOPNOTSUPP) {
        return Ok(());
    }
    gives(SYS_pwritev2, &[fd, at(&out), 1, 1, 0, NOAPPEND], 2)?;
    equal!((content(fd)?, offset(fd)?), (b"0ab3ab".to_vec(), 0));
    // By its own offset, which moves; then it appends again.
    gives(SYS_lseek, &[fd, 3, 0], 3)?;
    gives(SYS_pwritev2, &[fd, at(&out), 1, OWN_OFFSET, 0, NOAPPEND], 2)?;
    equal!((content(fd)?, offset(fd)?), (b"0ababb".to_vec(), 5));
    gives(SYS_write, &[fd, at(b"c"), 1], 1)?;
    equal!((content(fd)?, offset(fd)?), (b"0ababbc".to_vec(), 7));
    equal!(works(libc::SYS_fcntl, &[fd, 3])? & libc::O_APPEND as u64, libc::O_APPEND as u64);
    refused(SYS_pwritev2, &[fd, at(&out), 1, 0, 0, APPEND | NOAPPEND], EINVAL)
}

fn nothing_to_do() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"0123456789")?;
    let fd = open(&name, libc::O_RDONLY)?;
    let write_only = open(&name, libc::O_WRONLY)?;
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), 0])?;
    gives(SYS_readahead, &[fd, 0, 4096], 0)?;
    refused(SYS_readahead, &[NO_FILE, 0, 4096], EBADF)?;
    refused(SYS_readahead, &[write_only, 0, 4096], EBADF)?;
    refused(SYS_readahead, &[ends[0] as u64, 0, 4096], EINVAL)?;
    gives(SYS_sync_file_range, &[fd, 0, 0, 7], 0)?;
    gives(SYS_sync_file_range, &[fd, 2, 3, 2], 0)?;
    refused(SYS_sync_file_range, &[NO_FILE, 0, 0, 7], EBADF)?;
    let place = open(&name, libc::O_PATH)?;
    refused(SYS_sync_file_range, &[place, 0, 0, 7], EBADF)?;
    refused(SYS_fsync, &[place], EBADF)?;
    refused(SYS_readahead, &[place, 0, 4096], EBADF)?;
    refused(SYS_sync_file_range, &[fd, 0, 0, 8], EINVAL)?;
    refused(SYS_sync_file_range, &[fd, 1 << 63, 1, 2], EINVAL)?;
    refused(SYS_sync_file_range, &[fd, i64::MAX as u64, 1, 2], EINVAL)?;
    refused(SYS_sync_file_range, &[ends[0] as u64, 0, 0, 2], ESPIPE)
}

/// Of a file system that has none, as /proc is on Linux too.
fn extended_attributes() -> Result<(), String> {
    const NONE: &str = "/proc/version\0";
    const NAME: &str = "user.name\0";
    let mut room = [0u8; 16];
    let fd = open(NONE, libc::O_RDONLY)?;
    for file in [(SYS_getxattr, at(NONE)), (SYS_lgetxattr, at(NONE)), (SYS_fgetxattr, fd)] {
        refused(file.0, &[file.1, at(NAME), to(&mut room), 16], EOPNOTSUPP)?;
        refused(file.0, &[file.1, at("\0"), to(&mut room), 16], ERANGE)?;
        refused(file.0, &[file.1, at(format!("user.{}\0", "n".repeat(300)).as_str()), to(&mut room), 16], ERANGE)?;
        refused(file.0, &[file.1, NOWHERE, to(&mut room), 16], EFAULT)?;
    }
    for file in [(SYS_setxattr, at(NONE)), (SYS_lsetxattr, at(NONE)), (SYS_fsetxattr, fd)] {
        refused(file.0, &[file.1, at(NAME), at(b"value"), 5, 0], EOPNOTSUPP)?;
        refused(file.0, &[file.1, at(NAME), at(b"value"), 5, 8], EINVAL)?;
        refused(file.0, &[file.1, at(NAME), at(b"value"), 1 << 20, 0], libc::E2BIG)?;
    }
    for file in [(SYS_removexattr, at(NONE)), (SYS_lremovexattr, at(NONE)), (SYS_fremovexattr, fd)] {
        refused(file.0, &[file.1, at(NAME)], EOPNOTSUPP)?;
    }
    for file in [(SYS_listxattr, at(NONE)), (SYS_llistxattr, at(NONE)), (SYS_flistxattr, fd)] {
        gives(file.0, &[file.1, to(&mut room), 16], 0)?;
    }
    let folder = Folder::new()?;
    let missing = folder.path("missing");
    for call in [SYS_getxattr, SYS_lgetxattr, SYS_listxattr, SYS_llistxattr, SYS_removexattr, SYS_setxattr] {
        refused(call, &[at(missing.as_str()), at(NAME), 0, 0, 0], ENOENT)?;
    }
    for call in [SYS_fgetxattr, SYS_flistxattr, SYS_fremovexattr, SYS_fsetxattr] {
        refused(call, &[NO_FILE, at(NAME), 0, 0, 0], EBADF)?;
    }
    Ok(())
}

fn modified(name: &str) -> Result<u64, String> {
    let mut status = [0u64; 18];
    gives(SYS_stat, &[at(name), to(&mut status)], 0)?;
    Ok(status[11])
}

fn futimesat() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"")?;
    let directory = open(&folder.path(""), libc::O_RDONLY)?;
    let times = |seconds: u64| [seconds, 0, seconds, 5];
    gives(SYS_futimesat, &[CWD, at(name.as_str()), at(&times(1000))], 0)?;
    equal!(modified(&name)?, 1000);
    gives(SYS_futimesat, &[directory, at("file\0"), at(&times(2000))], 0)?;
    equal!(modified(&name)?, 2000);
    let fd = open(&name, libc::O_RDONLY)?;
    gives(SYS_futimesat, &[fd, 0, at(&times(3000))], 0)?;
    equal!(modified(&name)?, 3000);
    // A descriptor that only says where the file is changes nothing of it.
    let place = open(&name, libc::O_PATH)?;
    refused(SYS_futimesat, &[place, 0, at(&times(4000))], EBADF)?;
    refused(SYS_utimensat, &[place, 0, at(&times(4000)), 0], EBADF)?;
    refused(SYS_utimensat, &[NO_FILE, 0, at(&[0u64; 4]), 0x100], EINVAL)?;
    refused(SYS_utimensat, &[NO_FILE, 0, 0, 0], EBADF)?;
    equal!(modified(&name)?, 3000);
    refused(SYS_futimesat, &[directory, at("missing\0"), 0], ENOENT)?;
    refused(SYS_futimesat, &[fd, at("file\0"), 0], libc::ENOTDIR)?;
    refused(SYS_futimesat, &[NO_FILE, at("file\0"), 0], EBADF)?;
    refused(SYS_futimesat, &[directory, at("file\0"), NOWHERE], EFAULT)
}

fn fchmodat2() -> Result<(), String> {
    const CALL: i64 = 452;
    let folder = Folder::new()?;
    let name = folder.file("file", b"")?;
    if !is_quiesce() && call(CALL, [CWD, at(name.as_str()), 0o644, 0, 0, 0]) == Err(ENOSYS) {
        return Ok(()); // Linux before 6.6
    }
    let link = folder.path("link");
    gives(SYS_symlink, &[at("file\0"), at(link.as_str())], 0)?;
    let mode = || -> Result<u32, String> {
        let mut status = [0u32; 36];
        gives(SYS_stat, &[at(name.as_str()), to(&mut status)], 0)?;
        Ok(status[6] & 0o7777)
    };
    gives(CALL, &[CWD, at(link.as_str()), 0o600, 0], 0)?;
    equal!(mode()?, 0o600);
    let fd = open(&name, libc::O_RDONLY)?;
    gives(CALL, &[fd, at("\0"), 0o640, libc::AT_EMPTY_PATH as u64], 0)?;
    equal!(mode()?, 0o640);
    gives(SYS_write, &[open(&name, libc::O_WRONLY)?, at(b"a"), 1], 1)?;
    refused(CALL, &[CWD, at(link.as_str()), 0o777, libc::AT_SYMLINK_NOFOLLOW as u64], EOPNOTSUPP)?;
    refused(CALL, &[CWD, at(name.as_str()), 0o777, 1], EINVAL)?;
    refused(CALL, &[fd, at("\0"), 0o640, 0], ENOENT)?;
    equal!(mode()?, 0o640);
    Ok(())
}

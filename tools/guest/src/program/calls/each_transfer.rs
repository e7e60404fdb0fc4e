//! The listed calls that transfer bytes and work on open files: read, write, readv, writev, lseek, ioctl, poll.

use super::each::{Folder, KERNEL, NOWHERE, at, gives, refused, to, works};
use super::{Check, ensure, equal, in_child};
use crate::linux::Ended;
use libc::{
    EAGAIN, EBADF, EFAULT, EINVAL, EISDIR, ENOTTY, ENXIO, EPIPE, ESPIPE, SYS_close, SYS_fcntl, SYS_ioctl, SYS_lseek,
    SYS_open, SYS_pipe2, SYS_poll, SYS_read, SYS_readv, SYS_write, SYS_writev,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("each_read", read),
    ("each_write", write),
    ("each_readv", readv),
    ("each_writev", writev),
    ("each_lseek", lseek),
    ("each_ioctl", ioctl),
    ("each_poll", poll),
];

const NO_FILE: u64 = 999;
const MINUS_ONE: u64 = u64::MAX;
const READ_WRITE: u64 = 2;
const WRITE_ONLY: u64 = 1;
const APPEND: u64 = 0o2000;
const NON_BLOCKING: u64 = 0o4000;

fn pipe(flags: u64) -> Result<[u64; 2], String> {
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), flags])?;
    Ok(ends.map(|fd| fd as u64))
}

fn open(name: &str, flags: u64) -> Result<u64, String> {
    works(SYS_open, &[at(name), flags, 0o644])
}

fn read() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"0123456789")?;
    let fd = open(&name, 0)?;
    let mut room = [0u8; 16];
    gives(SYS_read, &[fd, to(&mut room), 4], 4)?;
    equal!(&room[..5], b"0123\0");
    gives(SYS_read, &[fd, to(&mut room), 0], 0)?;
    gives(SYS_read, &[fd, to(&mut room), 16], 6)?;
    equal!(&room[..6], b"456789");
    gives(SYS_read, &[fd, to(&mut room), 16], 0)?; // the end
    refused(SYS_read, &[NO_FILE, to(&mut room), 1], EBADF)?;
    refused(SYS_read, &[MINUS_ONE, to(&mut room), 1], EBADF)?;
    refused(SYS_read, &[open(&name, WRITE_ONLY)?, KERNEL, 1], EBADF)?;
    refused(SYS_read, &[open("/\0", 0)?, to(&mut room), 1], EISDIR)?;
    gives(SYS_lseek, &[fd, 0, 0], 0)?;
    for bad in [0, NOWHERE, KERNEL] {
        refused(SYS_read, &[fd, bad, 4], EFAULT)?;
    }
    gives(SYS_read, &[fd, to(&mut room), 1], 1)?; // nothing was lost by that
    equal!(room[0], b'0');
    refused(SYS_read, &[fd, to(&mut room), 1 << 63], EFAULT)?;
    let ends = pipe(NON_BLOCKING)?;
    refused(SYS_read, &[ends[0], to(&mut room), 1], EAGAIN)?;
    refused(SYS_read, &[ends[1], to(&mut room), 1], EBADF)?;
    gives(SYS_write, &[ends[1], at(b"abc"), 3], 3)?;
    gives(SYS_read, &[ends[0], to(&mut room), 16], 3)?;
    gives(SYS_close, &[ends[1]], 0)?;
    gives(SYS_read, &[ends[0], to(&mut room), 16], 0)?;
    Ok(())
}

fn write() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"")?;
    let fd = open(&name, READ_WRITE)?;
    gives(SYS_write, &[fd, at(b"abc"), 3], 3)?;
    gives(SYS_write, &[fd, at(b"abc"), 0], 0)?;
    // Behind a gap, which reads as zeros.
    gives(SYS_lseek, &[fd, 5, 0], 5)?;
    gives(SYS_write, &[fd, at(b"d"), 1], 1)?;
    let appending = open(&name, WRITE_ONLY | APPEND)?;
    gives(SYS_lseek, &[appending, 0, 0], 0)?;
    gives(SYS_write, &[appending, at(b"e"), 1], 1)?;
    gives(SYS_lseek, &[appending, 0, 1], 7)?;
    let mut room = [9u8; 16];
    gives(SYS_lseek, &[fd, 0, 0], 0)?;
    gives(SYS_read, &[fd, to(&mut room), 16], 7)?;
    equal!(&room[..7], b"abc\0\0de");
    gives(SYS_write, &[open("/dev/null\0", WRITE_ONLY)?, at(&room), 16], 16)?;
    refused(SYS_write, &[NO_FILE, at(b"x"), 1], EBADF)?;
    refused(SYS_write, &[open(&name, 0)?, at(b"x"), 1], EBADF)?;
    refused(SYS_write, &[open("/\0", 0)?, at(b"x"), 1], EBADF)?;
    for bad in [0, NOWHERE, KERNEL] {
        refused(SYS_write, &[fd, bad, 4], EFAULT)?;
    }
    let ends = pipe(NON_BLOCKING)?;
    refused(SYS_write, &[ends[0], at(b"x"), 1], EBADF)?;
    let much = vec![1u8; 1 << 17];
    gives(SYS_write, &[ends[1], at(&much[..]), 1 << 17], 1 << 16)?; // what a pipe holds
    refused(SYS_write, &[ends[1], at(b"x"), 1], EAGAIN)?;
    gives(SYS_close, &[ends[0]], 0)?;
    crate::linux::set_signal(libc::SIGPIPE, crate::linux::Disposition::Ignore).map_err(|e| e.to_string())?;
    refused(SYS_write, &[ends[1], at(b"x"), 1], EPIPE)?;
    Ok(())
}

fn readv() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"0123456789")?;
    let fd = open(&name, 0)?;
    let (mut first, mut second) = ([0u8; 4], [0u8; 8]);
    let vector = [to(&mut first), 4, 0, 0, to(&mut second), 8];
    gives(SYS_readv, &[fd, at(&vector), 3], 10)?;
    equal!((&first[..], &second[..7]), (&b"0123"[..], &b"456789\0"[..]));
    gives(SYS_readv, &[fd, at(&vector), 3], 0)?;
    gives(SYS_readv, &[fd, 0, 0], 0)?;
    refused(SYS_readv, &[fd, at(&vector), 1025], EINVAL)?;
    refused(SYS_readv, &[fd, at(&vector), u64::MAX], EINVAL)?;
    refused(SYS_readv, &[fd, at(&[to(&mut first), 1 << 63]), 1], EINVAL)?;
    refused(SYS_readv, &[fd, KERNEL, 1], EFAULT)?;
    gives(SYS_lseek, &[fd, 0, 0], 0)?;
    refused(SYS_readv, &[fd, at(&[KERNEL, 4]), 1], EFAULT)?;
    gives(SYS_readv, &[fd, at(&[to(&mut first), 4, NOWHERE, 4]), 2], 4)?; // what went before counts
    refused(SYS_readv, &[NO_FILE, at(&vector), 3], EBADF)?;
    refused(SYS_readv, &[open(&name, WRITE_ONLY)?, at(&vector), 3], EBADF)?;
    refused(SYS_readv, &[open("/\0", 0)?, at(&vector), 3], EISDIR)?;
    Ok(())
}

fn writev() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"")?;
    let fd = open(&name, READ_WRITE)?;
    let vector = [at(b"01"), 2, 0, 0, at(b"234"), 3];
    gives(SYS_writev, &[fd, at(&vector), 3], 5)?;
    gives(SYS_writev, &[fd, 0, 0], 0)?;
    equal!(std::fs::read(&name[..name.len() - 1]).map_err(|e| e.to_string())?, b"01234");
    refused(SYS_writev, &[fd, at(&vector), 1025], EINVAL)?;
    refused(SYS_writev, &[fd, at(&[at(b"01"), u64::MAX]), 1], EINVAL)?;
    refused(SYS_writev, &[fd, NOWHERE, 1], EFAULT)?;
    refused(SYS_writev, &[fd, at(&[NOWHERE, 4]), 1], EFAULT)?;
    refused(SYS_writev, &[NO_FILE, at(&vector), 3], EBADF)?;
    refused(SYS_writev, &[open(&name, 0)?, at(&vector), 3], EBADF)?;
    Ok(())
}

fn lseek() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"0123456789")?;
    let fd = open(&name, READ_WRITE)?;
    gives(SYS_lseek, &[fd, 4, 0], 4)?;
    gives(SYS_lseek, &[fd, -1i64 as u64, 1], 3)?;
    gives(SYS_lseek, &[fd, 2, 2], 12)?;
    let mut byte = [0u8];
    gives(SYS_read, &[fd, to(&mut byte), 1], 0)?;
    gives(SYS_lseek, &[fd, 3, 3], 3)?; // data
    gives(SYS_lseek, &[fd, 3, 4], 10)?; // a hole: the end
    refused(SYS_lseek, &[fd, 10, 3], ENXIO)?;
    refused(SYS_lseek, &[fd, 10, 4], ENXIO)?;
    refused(SYS_lseek, &[fd, 0, 5], EINVAL)?;
    refused(SYS_lseek, &[fd, -1i64 as u64, 0], EINVAL)?;
    refused(SYS_lseek, &[fd, -11i64 as u64, 2], EINVAL)?;
    gives(SYS_lseek, &[fd, 0, 1], 10)?; // where the last that worked left it
    refused(SYS_lseek, &[NO_FILE, 0, 0], EBADF)?;
    refused(SYS_lseek, &[pipe(0)?[0], 0, 0], ESPIPE)?;
    // A directory is read from its start again.
    let directory = open(&folder.path(""), 0)?;
    gives(SYS_lseek, &[directory, 0, 0], 0)?;
    Ok(())
}

fn ioctl() -> Result<(), String> {
    const HOW_MANY: u64 = 0x541b; // FIONREAD
    const NOT_BLOCKING: u64 = 0x5421; // FIONBIO
    const CLOSE_ON_EXEC: u64 = 0x5451; // FIOCLEX
    const NO_CLOSE_ON_EXEC: u64 = 0x5450;
    const GET_TERMINAL: u64 = 0x5401; // TCGETS
    const GET_WINDOW: u64 = 0x5413; // TIOCGWINSZ
    let folder = Folder::new()?;
    let name = folder.file("file", b"0123456789")?;
    let fd = open(&name, 0)?;
    let ends = pipe(0)?;
    let mut count = -1i32;
    gives(SYS_ioctl, &[ends[0], HOW_MANY, to(&mut count)], 0)?;
    equal!(count, 0);
    gives(SYS_write, &[ends[1], at(b"12345"), 5], 5)?;
    gives(SYS_ioctl, &[ends[0], HOW_MANY, to(&mut count)], 0)?;
    equal!(count, 5);
    gives(SYS_lseek, &[fd, 4, 0], 4)?;
    gives(SYS_ioctl, &[fd, HOW_MANY, to(&mut count)], 0)?;
    equal!(count, 6);
    gives(SYS_ioctl, &[fd, CLOSE_ON_EXEC], 0)?;
    gives(SYS_fcntl, &[fd, 1], 1)?;
    gives(SYS_ioctl, &[fd, NO_CLOSE_ON_EXEC], 0)?;
    gives(SYS_fcntl, &[fd, 1], 0)?;
    gives(SYS_ioctl, &[ends[0], NOT_BLOCKING, at(&1i32)], 0)?;
    ensure!(works(SYS_fcntl, &[ends[0], 3])? & NON_BLOCKING != 0);
    gives(SYS_ioctl, &[ends[0], NOT_BLOCKING, at(&0i32)], 0)?;
    ensure!(works(SYS_fcntl, &[ends[0], 3])? & NON_BLOCKING == 0);
    let mut terminal = [0u8; 64];
    for file in [fd, ends[0], open("/dev/null\0", 0)?, open("/\0", 0)?] {
        refused(SYS_ioctl, &[file, GET_TERMINAL, to(&mut terminal)], ENOTTY)?;
        refused(SYS_ioctl, &[file, GET_WINDOW, to(&mut terminal)], ENOTTY)?;
        refused(SYS_ioctl, &[file, 0x1234_5678, to(&mut terminal)], ENOTTY)?;
    }
    refused(SYS_ioctl, &[NO_FILE, HOW_MANY, to(&mut count)], EBADF)?;
    refused(SYS_ioctl, &[NO_FILE, CLOSE_ON_EXEC], EBADF)?;
    refused(SYS_ioctl, &[ends[0], HOW_MANY, NOWHERE], EFAULT)?;
    refused(SYS_ioctl, &[ends[0], NOT_BLOCKING, KERNEL], EFAULT)?;
    // The terminal, where there is one.
    if super::call(SYS_ioctl, [1, GET_TERMINAL, to(&mut terminal), 0, 0, 0]).is_ok() {
        let mut window = [0u16; 4];
        gives(SYS_ioctl, &[1, GET_WINDOW, to(&mut window)], 0)?;
        refused(SYS_ioctl, &[1, GET_TERMINAL, KERNEL], EFAULT)?;
        refused(SYS_ioctl, &[1, GET_WINDOW, NOWHERE], EFAULT)?;
        refused(SYS_ioctl, &[1, 0x54ff, to(&mut window)], ENOTTY)?;
    }
    Ok(())
}

/// struct pollfd.
#[repr(C)]
struct Asked {
    fd: i32,
    events: i16,
    found: i16,
}

fn poll() -> Result<(), String> {
    const IN: i16 = 1;
    const OUT: i16 = 4;
    const ERROR: i16 = 8;
    const HANG_UP: i16 = 16;
    const INVALID: i16 = 32;
    let ends = pipe(0)?;
    let asked = |fd: u64, events: i16| Asked { fd: fd as i32, events, found: -1 };
    let mut two = [asked(ends[0], IN), asked(ends[1], OUT)];
    gives(SYS_poll, &[to(&mut two), 2, MINUS_ONE], 1)?;
    equal!((two[0].found, two[1].found), (0, OUT));
    gives(SYS_poll, &[to(&mut two), 1, 0], 0)?;
    gives(SYS_poll, &[to(&mut two), 1, 2], 0)?; // two milliseconds
    gives(SYS_poll, &[0, 0, 1], 0)?;
    gives(SYS_write, &[ends[1], at(b"x"), 1], 1)?;
    gives(SYS_poll, &[to(&mut two), 2, MINUS_ONE], 2)?;
    equal!((two[0].found, two[1].found), (IN, OUT));
    let folder = Folder::new()?;
    let name = folder.file("file", b"")?;
    let mut others = [asked(NO_FILE, IN), asked(MINUS_ONE, IN), asked(open(&name, 0)?, IN | OUT)];
    gives(SYS_poll, &[to(&mut others), 3, MINUS_ONE], 2)?;
    equal!((others[0].found, others[1].found, others[2].found), (INVALID, 0, IN | OUT));
    gives(SYS_close, &[ends[1]], 0)?;
    gives(SYS_poll, &[to(&mut two), 1, MINUS_ONE], 1)?;
    equal!(two[0].found, IN | HANG_UP);
    let ends = pipe(0)?;
    gives(SYS_close, &[ends[0]], 0)?;
    let mut writer = [asked(ends[1], OUT)];
    gives(SYS_poll, &[to(&mut writer), 1, MINUS_ONE], 1)?;
    equal!(writer[0].found, OUT | ERROR);
    refused(SYS_poll, &[KERNEL, 1, 0], EFAULT)?;
    refused(SYS_poll, &[NOWHERE, 1, 0], EFAULT)?;
    refused(SYS_poll, &[to(&mut two), 1 << 30, 0], EINVAL)?;
    // Woken by a child.
    let ends = pipe(0)?;
    let mut reader = [asked(ends[0], IN)];
    let ended = in_child(|| match crate::linux::fork() {
        Ok(crate::linux::Fork::Child) => {
            let _ = crate::linux::write_all(ends[1] as i32, b"x");
            0
        }
        _ => u8::from(gives(SYS_poll, &[to(&mut reader), 1, MINUS_ONE], 1).is_err() || reader[0].found != IN),
    })?;
    equal!(ended, Ended::Exit(0));
    Ok(())
}

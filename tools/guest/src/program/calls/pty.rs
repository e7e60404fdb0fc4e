//! Pairs of pseudo-terminals: what is typed and shown, whose terminal a slave is, and what either end hears when the other closes.

use super::each::{at, gives, refused, to, works};
use super::{Check, Ended, call, ensure, equal};
use crate::linux::{self, Fork};
use libc::{
    EAGAIN, EIO, ENOENT, ENOTTY, ENXIO, EPERM, SYS_close, SYS_fstat, SYS_ioctl, SYS_kill, SYS_open, SYS_poll, SYS_read,
    SYS_rt_sigprocmask, SYS_rt_sigtimedwait, SYS_setpgid, SYS_setsid, SYS_write,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("pty_line", line),
    ("pty_settings", settings),
    ("pty_hang_up", hang_up),
    ("pty_full", full),
    ("pty_jobs", jobs),
    ("pty_background", background),
    ("pty_controlling", controlling),
];

const READ_WRITE: u64 = 2;
const NOT_OURS: u64 = 0o400; // O_NOCTTY
const NO_WAIT: u64 = 0o4000;
const NUMBER: u64 = 0x8004_5430; // TIOCGPTN
const LOCK: u64 = 0x4004_5431; // TIOCSPTLCK
const PEER: u64 = 0x5441; // TIOCGPTPEER
const GET_SETTINGS: u64 = 0x5401; // TCGETS
const SET_SETTINGS: u64 = 0x5402; // TCSETS
const TAKE: u64 = 0x540e; // TIOCSCTTY
const GROUP: u64 = 0x540f; // TIOCGPGRP
const SET_GROUP: u64 = 0x5410; // TIOCSPGRP
const WINDOW: u64 = 0x5413; // TIOCGWINSZ
const SET_WINDOW: u64 = 0x5414; // TIOCSWINSZ
const SESSION: u64 = 0x5429; // TIOCGSID
const UNREAD: u64 = 0x541b; // FIONREAD
const MASTER: &[u8] = b"/dev/ptmx\0";

/// A master that is unlocked, and the path of its slave.
pub(super) fn master(flags: u64) -> Result<(u64, Vec<u8>), String> {
    let master = works(SYS_open, &[at(&MASTER[0]), READ_WRITE | NOT_OURS | flags])?;
    let mut number = 0i32;
    gives(SYS_ioctl, &[master, NUMBER, to(&mut number)], 0)?;
    let path = format!("/dev/pts/{number}\0").into_bytes();
    refused(SYS_open, &[at(&path[0]), READ_WRITE | NOT_OURS], EIO)?; // locked
    gives(SYS_ioctl, &[master, LOCK, at(&0i32)], 0)?;
    Ok((master, path))
}

/// Both ends.
fn pair() -> Result<(u64, u64, Vec<u8>), String> {
    let (master, path) = master(0)?;
    let slave = works(SYS_open, &[at(&path[0]), READ_WRITE | NOT_OURS])?;
    Ok((master, slave, path))
}

fn read(fd: u64) -> Result<String, String> {
    let mut bytes = [0u8; 256];
    let n = works(SYS_read, &[fd, to(&mut bytes), 256])?;
    Ok(String::from_utf8_lossy(&bytes[..n as usize]).into_owned())
}

/// Reads until all of `wanted` has come, and it alone.
fn reads(fd: u64, wanted: &str) -> Result<(), String> {
    let mut got = String::new();
    while got.len() < wanted.len() {
        match read(fd)? {
            more if more.is_empty() => break,
            more => got += &more,
        }
    }
    equal!(got, wanted);
    Ok(())
}

fn write(fd: u64, text: &str) -> Result<(), String> {
    gives(SYS_write, &[fd, text.as_ptr() as u64, text.len() as u64], text.len() as u64)
}

fn close(fd: u64) -> Result<(), String> {
    gives(SYS_close, &[fd], 0)
}

fn ready(fd: u64) -> Result<u64, String> {
    let mut asked = [fd | 5 << 32];
    works(SYS_poll, &[to(&mut asked), 1, 0])?;
    Ok(asked[0] >> 48)
}

fn line() -> Result<(), String> {
    let (master, slave, path) = pair()?;
    equal!(ready(slave)?, 4);
    write(master, "hi\n")?;
    // The line, and its echo.
    equal!(ready(slave)?, 5);
    let mut unread = 0i32;
    gives(SYS_ioctl, &[slave, UNREAD, to(&mut unread)], 0)?;
    equal!(unread, 3);
    reads(slave, "hi\n")?;
    reads(master, "hi\r\n")?;
    // Half a line is none; it can be edited.
    write(master, "ab\x7fc")?;
    equal!(ready(slave)?, 4);
    write(master, "\n")?;
    reads(slave, "ac\n")?;
    reads(master, "ab\x08 \x08c\r\n")?;
    write(slave, "out\n")?;
    reads(master, "out\r\n")?;
    // Both are terminals; the slave is where its path says.
    let (mut status, mut again) = ([0u64; 18], [0u64; 18]);
    gives(SYS_fstat, &[slave, to(&mut status)], 0)?;
    equal!([status[3] & 0o170_000, status[5] >> 8 & 0xfff], [0o020_000, 136]);
    gives(libc::SYS_stat, &[at(&path[0]), to(&mut again)], 0)?;
    equal!([status[0], status[1], status[5]], [again[0], again[1], again[5]]);
    // The end of the file is typed.
    write(master, "\x04")?;
    gives(SYS_read, &[slave, to(&mut [0u8; 8]), 8], 0)?;
    // The slave once more, without a path.
    let peer = works(SYS_ioctl, &[master, PEER, READ_WRITE | NOT_OURS])?;
    write(peer, "peer")?;
    reads(master, "peer")?;
    [peer, slave, master].into_iter().try_for_each(close)
}

fn settings() -> Result<(), String> {
    let (master, slave, _) = pair()?;
    let mut old = [0u8; 36];
    gives(SYS_ioctl, &[slave, GET_SETTINGS, to(&mut old)], 0)?;
    // Raw: no lines, no echo, no output processing; what one end sets the other has.
    let mut raw = old;
    raw[4] &= !1; // OPOST
    raw[12] &= !(0o2 | 0o10 | 0o1); // ICANON, ECHO, ISIG
    gives(SYS_ioctl, &[master, SET_SETTINGS, at(&raw)], 0)?;
    let mut now = [0u8; 36];
    gives(SYS_ioctl, &[slave, GET_SETTINGS, to(&mut now)], 0)?;
    equal!(now, raw);
    write(master, "x\x03")?;
    reads(slave, "x\x03")?;
    write(slave, "a\nb")?;
    reads(master, "a\nb")?;
    let mut window = [0u16; 4];
    gives(SYS_ioctl, &[slave, WINDOW, to(&mut window)], 0)?;
    equal!(window, [0; 4]);
    gives(SYS_ioctl, &[master, SET_WINDOW, at(&[33u16, 99, 0, 0])], 0)?;
    gives(SYS_ioctl, &[slave, WINDOW, to(&mut window)], 0)?;
    equal!(window, [33, 99, 0, 0]);
    // Nobody's terminal.
    let mut group = 0i32;
    refused(SYS_ioctl, &[slave, GROUP, to(&mut group)], ENOTTY)?;
    refused(SYS_ioctl, &[slave, SESSION, to(&mut group)], ENOTTY)?;
    refused(SYS_ioctl, &[master, SESSION, to(&mut group)], ENOTTY)?;
    refused(SYS_ioctl, &[slave, NUMBER, to(&mut group)], ENOTTY)?;
    [slave, master].into_iter().try_for_each(close)
}

fn hang_up() -> Result<(), String> {
    let (master, slave, path) = pair()?;
    write(slave, "last")?;
    close(slave)?;
    // What was written can still be read.
    equal!(ready(master)? & (1 | 16), 1 | 16);
    reads(master, "last")?;
    refused(SYS_read, &[master, to(&mut [0u8; 8]), 8], EIO)?;
    let slave = works(SYS_open, &[at(&path[0]), READ_WRITE | NOT_OURS])?;
    equal!(ready(master)? & 16, 0);
    write(master, "kept\n")?;
    close(master)?;
    equal!(ready(slave)? & (1 | 8 | 16), 1 | 8 | 16);
    gives(SYS_read, &[slave, to(&mut [0u8; 8]), 8], 0)?;
    refused(SYS_write, &[slave, at(b"x"), 1], EIO)?;
    refused(SYS_ioctl, &[slave, WINDOW, to(&mut [0u16; 4])], EIO)?;
    refused(SYS_open, &[at(&path[0]), READ_WRITE | NOT_OURS], ENOENT)?;
    close(slave)?;
    // A master whose slave was never open waits for it.
    let (master, _) = self::master(NO_WAIT)?;
    refused(SYS_read, &[master, to(&mut [0u8; 8]), 8], EAGAIN)?;
    equal!(ready(master)? & 16, 0);
    close(master)
}

/// Who writes more than there is room for waits, and loses nothing.
fn full() -> Result<(), String> {
    const LINES: usize = 4000;
    let (master, slave, _) = pair()?;
    let child = match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => {
            let done = (0..LINES).try_for_each(|i| write(slave, &format!("line {i:5}\n")));
            linux::exit_now(u8::from(done.is_err()))
        }
        Fork::Parent(pid) => pid,
    };
    close(slave)?;
    let mut got = String::new();
    let mut bytes = [0u8; 256];
    while let Ok(n @ 1..) = call(SYS_read, [master, to(&mut bytes), 256, 0, 0, 0]) {
        got += &String::from_utf8_lossy(&bytes[..n as usize]);
    }
    equal!(linux::wait_for(child).map_err(|e| e.to_string())?, Ended::Exit(0));
    equal!(got.lines().count(), LINES);
    ensure!(got.lines().enumerate().all(|(i, l)| l == format!("line {i:5}")));
    close(master)
}

/// Block a signal, so that it waits to be taken.
fn keep(signal: i32) -> Result<(), String> {
    gives(SYS_rt_sigprocmask, &[0, at(&(1u64 << (signal - 1))), 0, 8], 0)
}

/// Wait for a signal that is kept.
fn comes(signal: i32) -> Result<(), String> {
    gives(SYS_rt_sigtimedwait, &[at(&(1u64 << (signal - 1))), 0, 0, 8], signal as u64)
}

/// A child that leads a session whose terminal the slave is; `master` is the parent's alone. It runs `work`; its status says whether that went well.
fn leader(master: u64, path: &[u8], work: impl FnOnce(u64) -> Result<(), String>) -> Result<i32, String> {
    match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => {
            let done = works(SYS_setsid, &[]).and_then(|_| {
                close(master)?;
                // By the open alone.
                let slave = works(SYS_open, &[at(&path[0]), READ_WRITE])?;
                work(slave)
            });
            if let Err(why) = &done {
                eprintln!("leader: {why}");
            }
            linux::exit_now(u8::from(done.is_err()))
        }
        Fork::Parent(pid) => Ok(pid),
    }
}

fn waited(pid: i32) -> Result<Ended, String> {
    linux::wait_for(pid).map_err(|e| e.to_string())
}

fn jobs() -> Result<(), String> {
    // Ctrl-C goes to the foreground group.
    let (master, path) = master(0)?;
    let child = leader(master, &path, |slave| {
        let (mut group, mut session, own) = (0i32, 0i32, linux::own_pid());
        gives(SYS_ioctl, &[slave, GROUP, to(&mut group)], 0)?;
        gives(SYS_ioctl, &[slave, SESSION, to(&mut session)], 0)?;
        equal!([group, session], [own, own]);
        write(slave, "r")?;
        let _ = call(SYS_read, [slave, to(&mut [0u8; 8]), 8, 0, 0, 0]);
        Err("no signal came".into())
    })?;
    reads(master, "r")?;
    let mut group = 0i32;
    gives(SYS_ioctl, &[master, GROUP, to(&mut group)], 0)?;
    equal!(group, child);
    write(master, "\x03")?;
    equal!(waited(child)?, Ended::Signal(libc::SIGINT));
    close(master)?;
    // The window's size, and the hang-up.
    let (master, path) = self::master(0)?;
    let child = leader(master, &path, |slave| {
        [libc::SIGWINCH, libc::SIGHUP].into_iter().try_for_each(keep)?;
        write(slave, "r")?;
        comes(libc::SIGWINCH)?;
        let mut window = [0u16; 4];
        gives(SYS_ioctl, &[slave, WINDOW, to(&mut window)], 0)?;
        equal!(window, [5, 6, 0, 0]);
        write(slave, "w")?;
        comes(libc::SIGHUP)?;
        gives(SYS_read, &[slave, to(&mut [0u8; 8]), 8], 0)?;
        refused(SYS_write, &[slave, at(b"x"), 1], EIO)
    })?;
    reads(master, "r")?;
    gives(SYS_ioctl, &[master, SET_WINDOW, at(&[5u16, 6, 0, 0])], 0)?;
    reads(master, "w")?;
    close(master)?;
    equal!(waited(child)?, Ended::Exit(0));
    Ok(())
}

/// A group in the background that reads is stopped.
fn background() -> Result<(), String> {
    let (master, path) = master(0)?;
    let child = leader(master, &path, |slave| {
        let reader = match linux::fork().map_err(|e| e.to_string())? {
            Fork::Child => {
                let _ = call(SYS_setpgid, [0; 6]);
                let _ = call(SYS_read, [slave, to(&mut [0u8; 8]), 8, 0, 0, 0]);
                linux::exit_now(9)
            }
            Fork::Parent(pid) => pid,
        };
        let mut status = 0i32;
        // WUNTRACED
        gives(libc::SYS_wait4, &[reader as u64, to(&mut status), 2, 0], reader as u64)?;
        equal!(status, libc::SIGTTIN << 8 | 0x7f);
        // To the foreground: it reads on.
        gives(SYS_ioctl, &[slave, SET_GROUP, at(&reader)], 0)?;
        gives(SYS_kill, &[reader as u64, libc::SIGCONT as u64], 0)?;
        write(slave, "r")?;
        equal!(waited(reader)?, Ended::Exit(9));
        Ok(())
    })?;
    reads(master, "r")?;
    write(master, "line\n")?;
    equal!(waited(child)?, Ended::Exit(0));
    close(master)
}

/// /dev/tty is the session's terminal, and there is one at most.
fn controlling() -> Result<(), String> {
    const OWN: &[u8] = b"/dev/tty\0";
    let (master, path) = master(0)?;
    let (other, other_path) = self::master(0)?;
    let child = leader(master, &path, |_| {
        let own = works(SYS_open, &[at(&OWN[0]), READ_WRITE])?;
        write(own, "own")?;
        // Another terminal does not become this session's.
        let slave = works(SYS_open, &[at(&other_path[0]), READ_WRITE])?;
        refused(SYS_ioctl, &[slave, GROUP, to(&mut 0i32)], ENOTTY)?;
        refused(SYS_ioctl, &[slave, TAKE, 0], EPERM)
    })?;
    reads(master, "own")?;
    equal!(waited(child)?, Ended::Exit(0));
    // Its leader is gone: the terminal is free, and the next leader takes it.
    let child = leader(master, &path, |slave| {
        let mut session = 0i32;
        gives(SYS_ioctl, &[slave, SESSION, to(&mut session)], 0)?;
        equal!(session, linux::own_pid());
        Ok(())
    })?;
    equal!(waited(child)?, Ended::Exit(0));
    let child = match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => {
            let done = works(SYS_setsid, &[]).and_then(|_| refused(SYS_open, &[at(&OWN[0]), READ_WRITE], ENXIO));
            linux::exit_now(u8::from(done.is_err()))
        }
        Fork::Parent(pid) => pid,
    };
    equal!(waited(child)?, Ended::Exit(0));
    [other, master].into_iter().try_for_each(close)
}

//! Packet mode of a pseudo-terminal's master (TIOCPKT), and what holds the slave's output (TCXONC).

use super::each::{at, gives, refused, to, works};
use super::{Check, ensure, equal, is_quiesce};
use crate::linux;
use libc::{EAGAIN, EFAULT, EINVAL, ENOTTY, SYS_ioctl, SYS_open, SYS_poll, SYS_read, SYS_write};

/// All of them.
pub const CHECKS: &[(&str, Check)] =
    &[("pty_packet_data", data), ("pty_packet_status", status), ("pty_packet_off", off), ("pty_output_held", held)];

const READ_WRITE_ALONE: u64 = 0o402; // O_RDWR | O_NOCTTY
const NO_WAIT: u64 = 0o4000;
const PACKET: u64 = 0x5420; // TIOCPKT
const IS_PACKET: u64 = 0x8004_5438; // TIOCGPKT
const GET: u64 = 0x5401; // TCGETS
const SET: u64 = 0x5402; // TCSETS
const SET_FLUSH: u64 = 0x5404; // TCSETSF
const FLOW: u64 = 0x540a; // TCXONC
const FLUSH: u64 = 0x540b; // TCFLSH
const FLUSH_READ: u8 = 1;
const FLUSH_WRITE: u8 = 2;
const STOP: u8 = 4;
const START: u8 = 8;
const NO_STOP: u8 = 16;
const DO_STOP: u8 = 32;

/// Both ends, without echo; the master reads without waiting.
fn pair() -> Result<[u64; 2], String> {
    let (master, path) = super::pty::master(NO_WAIT)?;
    let slave = works(SYS_open, &[at(&path[0]), READ_WRITE_ALONE | NO_WAIT])?;
    let mut settings = get(slave)?;
    settings[12] &= !0o10; // ECHO
    settings[4] &= !1; // OPOST
    gives(SYS_ioctl, &[slave, SET, at(&settings)], 0)?;
    Ok([master, slave])
}

fn get(fd: u64) -> Result<[u8; 36], String> {
    let mut settings = [0u8; 36];
    gives(SYS_ioctl, &[fd, GET, to(&mut settings)], 0)?;
    Ok(settings)
}

fn packets() -> Result<[u64; 2], String> {
    let ends = pair()?;
    gives(SYS_ioctl, &[ends[0], PACKET, at(&1i32)], 0)?;
    Ok(ends)
}

fn write(fd: u64, bytes: &[u8]) -> Result<(), String> {
    gives(SYS_write, &[fd, at(bytes), bytes.len() as u64], bytes.len() as u64)
}

/// What the master can read within a second; on Linux it comes by way of a worker.
fn read(master: u64, len: usize) -> Result<Vec<u8>, String> {
    let (mut bytes, mut asked) = (vec![0xffu8; 64], master | 3 << 32);
    works(SYS_poll, &[to(&mut asked), 1, 1000])?;
    let n = works(SYS_read, &[master, to(&mut bytes[..]), len as u64])?;
    bytes.truncate(n as usize);
    Ok(bytes)
}

/// What poll(2) says of the master.
fn ready(master: u64) -> Result<u64, String> {
    let mut asked = master | 3 << 32;
    works(SYS_poll, &[to(&mut asked), 1, 0])?;
    Ok(asked >> 48)
}

/// The next read gives `wanted` as status byte and nothing else, and poll says that it is urgent.
#[track_caller]
fn says(master: u64, wanted: u8) -> Result<(), String> {
    let line = std::panic::Location::caller().line();
    let mut asked = master | 3 << 32;
    works(SYS_poll, &[to(&mut asked), 1, 1000])?;
    equal!((line, asked >> 48), (line, 3));
    equal!((line, read(master, 64)?), (line, vec![wanted]));
    equal!((line, ready(master)? & 2), (line, 0));
    Ok(())
}

fn data() -> Result<(), String> {
    let [master, slave] = packets()?;
    let mut on = 0i32;
    gives(SYS_ioctl, &[master, IS_PACKET, to(&mut on)], 0)?;
    equal!(on, 1);
    refused(SYS_read, &[master, to(&mut on), 4], EAGAIN)?;
    write(slave, b"abc")?;
    equal!(read(master, 64)?, b"\0abc");
    write(slave, b"defg")?;
    equal!(read(master, 3)?, b"\0de");
    equal!(ready(master)?, 1);
    equal!(read(master, 64)?, b"\0fg");
    refused(SYS_read, &[master, to(&mut on), 4], EAGAIN)?;
    // What is typed is as ever.
    write(master, b"typed\n")?;
    let mut room = [0u8; 8];
    gives(SYS_read, &[slave, to(&mut room), 8], 6)?;
    refused(SYS_ioctl, &[slave, PACKET, at(&1i32)], ENOTTY)?;
    refused(SYS_ioctl, &[slave, IS_PACKET, to(&mut on)], ENOTTY)?;
    refused(SYS_ioctl, &[master, PACKET, 8], EFAULT)
}

fn status() -> Result<(), String> {
    let [master, slave] = packets()?;
    // The slave drops its input, its output, both; several are told together.
    gives(SYS_ioctl, &[slave, FLUSH, 0], 0)?;
    says(master, FLUSH_READ)?;
    gives(SYS_ioctl, &[slave, FLUSH, 1], 0)?;
    says(master, FLUSH_WRITE)?;
    gives(SYS_ioctl, &[slave, FLUSH, 0], 0)?;
    gives(SYS_ioctl, &[slave, FLUSH, 1], 0)?;
    says(master, FLUSH_READ | FLUSH_WRITE)?;
    // What the master drops it knows.
    gives(SYS_ioctl, &[master, FLUSH, 2], 0)?;
    equal!(ready(master)?, 0);
    let mut settings = get(slave)?;
    gives(SYS_ioctl, &[slave, SET_FLUSH, at(&settings)], 0)?;
    says(master, FLUSH_READ)?;
    // Output stops and goes on, by what is typed and by the program; of two the last is told.
    write(master, b"\x13")?;
    says(master, STOP)?;
    write(master, b"\x13")?;
    equal!(ready(master)?, 0);
    write(master, b"\x11")?;
    says(master, START)?;
    if is_quiesce() {
        write(master, b"\x13\x11")?; // Linux's worker may be between the two
        says(master, START)?;
    }
    gives(SYS_ioctl, &[slave, FLOW, 0], 0)?;
    says(master, STOP)?;
    gives(SYS_ioctl, &[slave, FLOW, 1], 0)?;
    says(master, START)?;
    // ^S and ^Q lose and get their meaning.
    settings[1] &= !0o4; // IXON, 0o2000
    gives(SYS_ioctl, &[slave, SET, at(&settings)], 0)?;
    says(master, NO_STOP)?;
    gives(SYS_ioctl, &[slave, SET, at(&settings)], 0)?;
    equal!(ready(master)?, 0);
    settings[1] |= 0o4;
    gives(SYS_ioctl, &[master, SET, at(&settings)], 0)?;
    says(master, DO_STOP)?;
    settings[17 + 9] = 0x14; // VSTOP
    gives(SYS_ioctl, &[slave, SET, at(&settings)], 0)?;
    says(master, NO_STOP)?;
    // A signal drops what was typed and written; the status goes before the data, alone.
    write(slave, b"data")?;
    write(master, b"half\x03")?;
    // Linux's worker looks at what was typed later.
    while !is_quiesce() && ready(master)? & libc::POLLPRI as u64 == 0 {
        std::thread::yield_now();
    }
    equal!(read(master, 64)?, [FLUSH_READ | FLUSH_WRITE]);
    ensure!(ready(master)? & 1 == 0 || !is_quiesce()); // Linux's worker may have taken it to the other end by then
    write(slave, b"more")?;
    let mut rest = Vec::new();
    while !rest.ends_with(b"more") {
        let packet = read(master, 64)?;
        equal!(packet[0], 0);
        rest.extend_from_slice(&packet[1..]);
    }
    ensure!(rest == b"more" || !is_quiesce());
    // With NOFLSH it drops nothing.
    settings[12] |= 0o200;
    gives(SYS_ioctl, &[slave, SET, at(&settings)], 0)?;
    write(slave, b"data")?;
    write(master, b"\x03")?;
    equal!(read(master, 64)?, b"\0data");
    Ok(())
}

fn off() -> Result<(), String> {
    let [master, slave] = packets()?;
    gives(SYS_ioctl, &[slave, FLUSH, 0], 0)?;
    gives(SYS_ioctl, &[master, PACKET, at(&0i32)], 0)?;
    equal!(ready(master)?, 0);
    gives(SYS_ioctl, &[slave, FLUSH, 0], 0)?;
    write(slave, b"plain")?;
    equal!(read(master, 64)?, b"plain");
    // What happened before it is on again is not told.
    gives(SYS_ioctl, &[master, PACKET, at(&7i32)], 0)?;
    equal!(ready(master)?, 0);
    let mut on = 0i32;
    gives(SYS_ioctl, &[master, IS_PACKET, to(&mut on)], 0)?;
    equal!(on, 1);
    Ok(())
}

/// What is typed stops or starts the slave's output: waits for it.
fn types(ends: [u64; 2], byte: u8, starts: bool) -> Result<(), String> {
    write(ends[0], &[byte])?;
    let end = linux::monotonic_ns() + 1_000_000_000;
    loop {
        let mut asked = ends[1] | 4 << 32;
        works(SYS_poll, &[to(&mut asked), 1, 0])?;
        if (asked >> 48 & 4 != 0) == starts {
            return Ok(());
        }
        ensure!(linux::monotonic_ns() < end);
    }
}

fn held() -> Result<(), String> {
    let ends = pair()?;
    let [master, slave] = ends;
    gives(SYS_ioctl, &[slave, FLOW, 0], 0)?;
    refused(SYS_write, &[slave, at(b"x"), 1], EAGAIN)?;
    // What is typed starts no output that the program holds; what is typed to stop it the program does not start.
    types(ends, 0x11, false)?;
    refused(SYS_write, &[slave, at(b"x"), 1], EAGAIN)?;
    gives(SYS_ioctl, &[slave, FLOW, 1], 0)?;
    write(slave, b"on")?;
    equal!(read(master, 64)?, b"on");
    types(ends, 0x13, false)?;
    refused(SYS_write, &[slave, at(b"x"), 1], EAGAIN)?;
    gives(SYS_ioctl, &[slave, FLOW, 1], 0)?;
    refused(SYS_write, &[slave, at(b"x"), 1], EAGAIN)?;
    types(ends, 0x11, true)?;
    write(slave, b"on")?;
    equal!(read(master, 64)?, b"on");
    // Without IXON nothing that is typed could start it: it starts by itself.
    types(ends, 0x13, false)?;
    refused(SYS_write, &[slave, at(b"x"), 1], EAGAIN)?;
    let mut settings = get(slave)?;
    settings[1] &= !0o4;
    gives(SYS_ioctl, &[slave, SET, at(&settings)], 0)?;
    write(slave, b"on")?;
    equal!(read(master, 64)?, b"on");
    // The characters themselves, to the other end.
    gives(SYS_ioctl, &[slave, FLOW, 2], 0)?;
    equal!(read(master, 64)?, b"\x13");
    gives(SYS_ioctl, &[slave, FLOW, 3], 0)?;
    equal!(read(master, 64)?, b"\x11");
    refused(SYS_ioctl, &[slave, FLOW, 4], EINVAL)
}

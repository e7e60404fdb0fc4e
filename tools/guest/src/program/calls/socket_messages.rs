//! Several messages in one call: sendmmsg and recvmmsg.

use super::each::{NOWHERE, at, gives, refused, to, works};
use super::socket::{DATAGRAM, DONTWAIT, RECORD, STREAM, pair};
use super::{Check, ensure, equal};
use libc::{
    EAGAIN, EBADF, EFAULT, EINVAL, ENOTSOCK, EPIPE, SYS_close, SYS_getsockopt, SYS_pipe2, SYS_read, SYS_recvfrom,
    SYS_recvmmsg, SYS_sendmmsg, SYS_sendto,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("socket_many_messages", many),
    ("socket_many_error", error_kept),
    ("socket_many_cut", cut),
    ("socket_many_refused", not),
];

const WAITFORONE: u64 = 0x1_0000;
const NO_FILE: u64 = 999;
const NOSIGNAL: u64 = 0x4000;

/// struct mmsghdr of a message with one part, and how many bytes it has had.
const WORDS: usize = 8;

/// As many headers as parts, which they name.
fn headers(parts: &[[u64; 2]]) -> Vec<[u64; WORDS]> {
    parts.iter().map(|part| [0, 0, at(part), 1, 0, 0, 0, u64::MAX]).collect()
}

fn lengths(headers: &[[u64; WORDS]]) -> Vec<u32> {
    headers.iter().map(|h| h[7] as u32).collect()
}

fn many() -> Result<(), String> {
    let ends = pair(DATAGRAM)?;
    let sent = [[at(b"one"), 3], [at(b"three"), 5], [at(b""), 0]];
    let mut out = headers(&sent);
    gives(SYS_sendmmsg, &[ends[0], to(&mut out[..]), 3, 0], 3)?;
    equal!(lengths(&out), [3, 5, 0]);
    let mut rooms = [[0u8; 8]; 4];
    let parts = rooms.each_mut().map(|room| [to(room), 8]);
    let mut into = headers(&parts);
    gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 2, 0, 0], 2)?;
    equal!(
        (lengths(&into), &rooms[0][..3], &rooms[1][..5]),
        (vec![3, 5, u32::MAX, u32::MAX], &b"one"[..], &b"three"[..])
    );
    // What is there, without waiting for the rest.
    gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 4, DONTWAIT, 0], 1)?;
    equal!(into[0][7] as u32, 0);
    gives(SYS_sendmmsg, &[ends[0], to(&mut out[..]), 2, 0], 2)?;
    gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 4, WAITFORONE, 0], 2)?;
    // A time that is over at once lets one message through; what is left of it is told.
    gives(SYS_sendmmsg, &[ends[0], to(&mut out[..]), 2, 0], 2)?;
    let mut time = [0u64, 0];
    gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 4, 0, to(&mut time)], 1)?;
    equal!(time, [0, 0]);
    let mut time = [5u64, 0];
    gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 1, 0, to(&mut time)], 1)?;
    equal!(time[0] <= 5, true);
    gives(SYS_sendmmsg, &[ends[0], to(&mut out[..]), 0, 0], 0)?;
    gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 0, 0, 0], 0)?;
    // Without a message the time, here in a constant that nobody can write, stays as it is.
    const LIMIT: &[u64; 2] = &[5, 7];
    gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 0, 0, at(LIMIT)], 0)?;
    // The first that fails ends the call; what went before counts.
    out[1][2] = NOWHERE;
    gives(SYS_sendmmsg, &[ends[0], to(&mut out[..]), 3, 0], 1)?;
    gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 4, DONTWAIT, 0], 1)?;
    Ok(())
}

/// What goes wrong after the first message that is received is what the next call is told, whichever that is, once; sending forgets it.
fn error_kept() -> Result<(), String> {
    let mut room = [0u8; 8];
    let (mut error, mut len) = (0u32, 4u32);
    for kind in [DATAGRAM, RECORD] {
        let ends = pair(kind)?;
        for told_by in 0..5 {
            for byte in *b"abc" {
                gives(SYS_sendto, &[ends[0], at(&byte), 1, 0, 0, 0], 1)?;
            }
            let parts = [[to(&mut room), 8]; 3];
            let mut into = headers(&parts);
            into[1][2] = NOWHERE;
            gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 3, 0, 0], 1)?;
            into[1][2] = into[0][2];
            match told_by {
                0 => refused(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 3, DONTWAIT, 0], EFAULT)?,
                1 => refused(SYS_recvfrom, &[ends[1], to(&mut room), 8, DONTWAIT, 0, 0], EFAULT)?,
                2 => refused(SYS_sendto, &[ends[1], at(b"d"), 1, DONTWAIT, 0, 0], EFAULT)?,
                3 => refused(SYS_read, &[ends[1], to(&mut room), 8], EFAULT)?,
                _ => {
                    gives(SYS_getsockopt, &[ends[1], 1, 4, to(&mut error), to(&mut len)], 0)?;
                    equal!(error, EFAULT as u32);
                }
            }
            gives(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 3, DONTWAIT, 0], 2)?;
            // Nothing more is no error to be told.
            refused(SYS_recvmmsg, &[ends[1], to(&mut into[..]), 3, DONTWAIT, 0], EAGAIN)?;
            gives(SYS_getsockopt, &[ends[1], 1, 4, to(&mut error), to(&mut len)], 0)?;
            equal!(error, 0);
        }
        let parts = [[at(b"e"), 1]; 2];
        let mut out = headers(&parts);
        out[1][2] = NOWHERE;
        gives(SYS_sendmmsg, &[ends[0], to(&mut out[..]), 2, 0], 1)?;
        gives(SYS_getsockopt, &[ends[0], 1, 4, to(&mut error), to(&mut len)], 0)?;
        equal!(error, 0);
    }
    Ok(())
}

/// A stream takes a part of a message: no byte of the next one follows it.
fn cut() -> Result<(), String> {
    let ends = pair(STREAM)?;
    let size = 64u64;
    let (first, second) = (vec![1u8; 1 << 20], vec![2u8; size as usize]);
    let parts = [[at(&first[..]), first.len() as u64], [at(&second[..]), size]];
    let mut out = headers(&parts);
    gives(SYS_sendmmsg, &[ends[0], to(&mut out[..]), 2, DONTWAIT | NOSIGNAL], 1)?;
    let sent = u64::from(out[0][7] as u32);
    ensure!(sent > 0 && sent < first.len() as u64);
    equal!(out[1][7], u64::MAX);
    let mut room = vec![0u8; 64 << 10];
    let mut got = 0;
    while got < sent {
        let len = works(SYS_recvfrom, &[ends[1], to(&mut room[..]), room.len() as u64, DONTWAIT, 0, 0])?;
        ensure!(room[..len as usize].iter().all(|&byte| byte == 1));
        got += len;
    }
    equal!(got, sent);
    refused(SYS_recvfrom, &[ends[1], to(&mut room[..]), size, DONTWAIT, 0, 0], EAGAIN)
}

fn not() -> Result<(), String> {
    let ends = pair(STREAM)?;
    let parts = [[at(b"one"), 3]];
    let mut out = headers(&parts);
    let mut pipe = [0i32; 2];
    works(SYS_pipe2, &[to(&mut pipe), 0])?;
    for call in [SYS_sendmmsg, SYS_recvmmsg] {
        refused(call, &[NO_FILE, to(&mut out[..]), 1, 0, 0], EBADF)?;
        refused(call, &[pipe[0] as u64, to(&mut out[..]), 1, 0, 0], ENOTSOCK)?;
        refused(call, &[ends[0], NOWHERE, 1, DONTWAIT, 0], EFAULT)?;
    }
    refused(SYS_recvmmsg, &[ends[0], to(&mut out[..]), 1, DONTWAIT, 0], EAGAIN)?;
    let mut bad = [0, 1_000_000_000];
    refused(SYS_recvmmsg, &[ends[0], to(&mut out[..]), 1, 0, to(&mut bad)], EINVAL)?;
    refused(SYS_recvmmsg, &[ends[0], to(&mut out[..]), 1, 0, NOWHERE], EFAULT)?;
    gives(SYS_close, &[ends[1]], 0)?;
    refused(SYS_sendmmsg, &[ends[0], to(&mut out[..]), 1, NOSIGNAL], EPIPE)
}

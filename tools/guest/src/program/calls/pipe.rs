//! Pipes: what comes through one word at a time is whole and wakes whom it should, whoever else waits or closes.

use super::each::{gives, to, works};
use super::socket_waits::while_asleep;
use super::{Check, ensure, equal};
use crate::linux;
use libc::{SYS_close, SYS_dup2, SYS_poll, SYS_read, SYS_write};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("pipe_closed_while_read", closed_while_read),
    ("pipe_several_wait", several_wait),
    ("pipe_full_for_a_word", full_for_a_word),
    ("pipe_words_in_order", words_in_order),
];

fn ends() -> Result<(u64, u64), String> {
    let (reader, writer) = linux::pipe().map_err(|e| e.to_string())?;
    Ok((reader as u64, writer as u64))
}

fn close_both((reader, writer): (u64, u64)) -> Result<(), String> {
    gives(SYS_close, &[reader], 0)?;
    gives(SYS_close, &[writer], 0)
}

/// read(2) of at most a word; what came.
fn get(fd: u64, most: u64) -> Result<Vec<u8>, String> {
    let mut word = [0u8; 8];
    let n = works(SYS_read, &[fd, to(&mut word), most])?;
    Ok(word[..n as usize].to_vec())
}

fn put(fd: u64, bytes: &[u8]) -> Result<(), String> {
    gives(SYS_write, &[fd, bytes.as_ptr() as u64, bytes.len() as u64], bytes.len() as u64)
}

/// Who is in read(2) goes on with the file, though another thread closes its descriptor and gives the number away.
fn closed_while_read() -> Result<(), String> {
    let (reader, writer) = ends()?;
    let other = ends()?;
    let got = while_asleep(
        move || get(reader, 8),
        |_| {
            gives(SYS_dup2, &[other.0, reader], reader)?;
            put(writer, b"here")
        },
    )??;
    equal!(got, b"here");
    put(other.1, b"there")?;
    equal!(get(reader, 8)?, b"there");
    close_both(other)?;
    close_both((reader, writer))
}

/// Two that read and one that polls: each byte wakes whom it is for.
fn several_wait() -> Result<(), String> {
    let (reader, writer) = ends()?;
    let poll = move || {
        let mut asked = libc::pollfd { fd: reader as i32, events: libc::POLLIN, revents: 0 };
        // Woken by bytes that the others take, it waits on.
        works(SYS_poll, &[to(&mut asked), 1, u64::MAX]).map(|n| (n, asked.revents))
    };
    let mut first = Vec::new();
    let mut second = Vec::new();
    let polled = while_asleep(poll, |_| {
        first = while_asleep(
            move || get(reader, 1),
            |_| {
                second = while_asleep(
                    move || get(reader, 1),
                    |_| {
                        put(writer, b"x")?;
                        put(writer, b"x")
                    },
                )??;
                Ok(())
            },
        )??;
        put(writer, b"y")
    })??;
    equal!((first, second), (b"x".to_vec(), b"x".to_vec()));
    equal!(polled, (1, libc::POLLIN));
    equal!(get(reader, 8)?, b"y");
    close_both((reader, writer))
}

/// Who waits for room for a byte gets it when enough words are taken out.
fn full_for_a_word() -> Result<(), String> {
    const CAPACITY: usize = 65536;
    let (reader, writer) = ends()?;
    put(writer, &vec![7; CAPACITY])?;
    while_asleep(
        move || put(writer, b"z"),
        |_| {
            // Linux makes room by pages.
            for _ in 0..512 {
                equal!(get(reader, 8)?, [7; 8]);
            }
            Ok(())
        },
    )??;
    let mut left = CAPACITY - 4096;
    while left > 0 {
        let got = get(reader, 8.min(left as u64))?;
        ensure!(got.iter().all(|&b| b == 7));
        left -= got.len();
    }
    equal!(get(reader, 8)?, b"z");
    close_both((reader, writer))
}

/// Round the pipe's memory more than once, with something in it all the time.
fn words_in_order() -> Result<(), String> {
    let (reader, writer) = ends()?;
    let (mut sent, mut seen) = (0u32, 0u32);
    let next = |n: &mut u32, len: usize| -> Vec<u8> {
        (0..len)
            .map(|_| {
                *n += 1;
                (*n % 251) as u8
            })
            .collect()
    };
    put(writer, &next(&mut sent, 5))?;
    for round in 0..24_000 {
        let len = 1 + round % 8;
        put(writer, &next(&mut sent, len))?;
        equal!(get(reader, len as u64)?, next(&mut seen, len));
    }
    equal!(get(reader, 5)?, next(&mut seen, 5));
    close_both((reader, writer))
}

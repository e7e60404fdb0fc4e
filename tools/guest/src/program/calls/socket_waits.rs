//! Unix sockets: who waits, for whom, and what ends it. Each wait is seen to begin before what ends it is done.

use super::each::{NOWHERE, at, gives, refused, to, works};
use super::socket::{
    Address, DATAGRAM, DONTWAIT, IN, LEVEL, NOSIGNAL, OUT, STREAM, bound, connected, get, pair, put, ready, socket,
};
use super::thread::until_asleep;
use super::{Check, Ended, call, ensure, equal, in_child};
use libc::{
    EAGAIN, ECONNREFUSED, EFAULT, EINTR, EINVAL, EPIPE, SYS_accept, SYS_close, SYS_connect, SYS_gettid, SYS_listen,
    SYS_read, SYS_readv, SYS_recvfrom, SYS_sendto, SYS_setsockopt, SYS_shutdown, SYS_tgkill, SYS_write,
};
use std::sync::mpsc;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("socket_waits_for_peer", peer),
    ("socket_waits_for_accept", backlog),
    ("socket_waits_for_room", room),
    ("socket_waits_for_all", all),
    ("socket_waits_to_send", datagrams),
    ("socket_listener_ends", listener_ends),
    ("socket_time_limit", time_limit),
    ("socket_fault", fault),
];

const WAITALL: u64 = 0x100;

/// What a thread gives that runs `waits`, and is asleep in it before `then` is called with its id.
pub(super) fn while_asleep<R: Send + 'static>(
    waits: impl FnOnce() -> R + Send + 'static,
    then: impl FnOnce(u64) -> Result<(), String>,
) -> Result<R, String> {
    let (tell, told) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let _ = tell.send(call(SYS_gettid, [0; 6]));
        waits()
    });
    let tid = told.recv().map_err(|e| e.to_string())?.map_err(|e| format!("gettid: error {e}"))?;
    until_asleep(&[tid]);
    then(tid)?;
    waiter.join().map_err(|_| "the thread panicked".into())
}

fn peer() -> Result<(), String> {
    let address = Address::own("peer");
    let listener = bound(STREAM, &address)?;
    gives(SYS_listen, &[listener, 5], 0)?;
    let mut client = 0;
    let server = while_asleep(
        move || works(SYS_accept, &[listener, 0, 0]),
        |_| {
            client = connected(STREAM, &address)?;
            Ok(())
        },
    )??;
    while_asleep(move || get(server, b"late"), |_| put(client, b"late"))??;
    // The end is heard too.
    while_asleep(move || get(client, b""), |_| gives(SYS_close, &[server], 0))?
}

fn backlog() -> Result<(), String> {
    let address = Address::own("backlog");
    let listener = bound(STREAM, &address)?;
    gives(SYS_listen, &[listener, 0], 0)?;
    connected(STREAM, &address)?;
    while_asleep(
        || connected(STREAM, &Address::own("backlog")),
        |_| {
            works(SYS_accept, &[listener, 0, 0])?;
            Ok(())
        },
    )??;
    Ok(())
}

fn room() -> Result<(), String> {
    const MORE: u64 = 400_000;
    let [one, other] = pair(STREAM)?;
    let block = vec![7u8; 10_000];
    let mut written = 0;
    while let Ok(n) = call(SYS_sendto, [one, at(&block[..]), 10_000, DONTWAIT, 0, 0]) {
        written += n;
    }
    equal!(super::errno(), EAGAIN);
    ensure!(written >= 65_536);
    equal!(ready(one, OUT)?, 0);
    // Who writes waits until somebody reads, as often as it takes.
    let read_all = |_| {
        let mut room = vec![0u8; 50_000];
        let mut left = written + MORE;
        while left > 0 {
            left -= works(SYS_read, &[other, to(&mut room[..]), 50_000])?.min(left);
        }
        refused(SYS_recvfrom, &[other, to(&mut room[..]), 1, DONTWAIT, 0, 0], EAGAIN)
    };
    while_asleep(move || put(one, &vec![8u8; MORE as usize]), read_all)??;
    // A peer that is gone is told by a signal.
    gives(SYS_close, &[other], 0)?;
    let ended = in_child(|| {
        let _ = call(SYS_write, [one, at("x"), 1, 0, 0, 0]);
        0
    })?;
    equal!(ended, Ended::Signal(libc::SIGPIPE));
    refused(SYS_sendto, &[one, at("x"), 1, NOSIGNAL, 0, 0], EPIPE)
}

fn all() -> Result<(), String> {
    // Both wait in turn: neither side can go on alone.
    const BYTES: u64 = 500_000;
    let [one, other] = pair(STREAM)?;
    let mut got = vec![0u8; BYTES as usize];
    let read = |_| gives(SYS_recvfrom, &[other, to(&mut got[..]), BYTES, WAITALL, 0, 0], BYTES);
    while_asleep(move || put(one, &vec![9u8; BYTES as usize]), read)??;
    ensure!(got.iter().all(|&b| b == 9));
    // The end comes first: what there was.
    put(one, b"some")?;
    let mut got = [0u8; 8];
    gives(SYS_shutdown, &[one, 1], 0)?;
    gives(SYS_recvfrom, &[other, to(&mut got), 8, WAITALL, 0, 0], 4)
}

fn datagrams() -> Result<(), String> {
    let address = Address::own("datagrams");
    let receiver = bound(DATAGRAM, &address)?;
    let sender = connected(DATAGRAM, &address)?;
    let fill = |fd: u64| {
        let block = [1u8; 4000];
        while call(SYS_sendto, [fd, at(&block), 4000, DONTWAIT, 0, 0]).is_ok() {}
        super::errno()
    };
    equal!(fill(sender), EAGAIN);
    let mut block = [0u8; 4000];
    while_asleep(
        move || gives(SYS_sendto, &[sender, at("last"), 4, 0, 0, 0], 4),
        |_| {
            // As many as were there; the last comes behind them.
            while works(SYS_read, &[receiver, to(&mut block), 4000])? == 4000 {}
            Ok(())
        },
    )??;
    // Of a pair, poll tells whether there is room.
    let [one, other] = pair(DATAGRAM)?;
    equal!(fill(one), EAGAIN);
    equal!(ready(one, IN | OUT)?, 0);
    while call(SYS_recvfrom, [other, to(&mut block), 4000, DONTWAIT, 0, 0]).is_ok() {}
    equal!(ready(one, IN | OUT)?, OUT as u64);
    Ok(())
}

fn listener_ends() -> Result<(), String> {
    let address = Address::own("ends");
    let listener = bound(STREAM, &address)?;
    gives(SYS_listen, &[listener, 5], 0)?;
    let stopped = while_asleep(
        move || refused(SYS_accept, &[listener, 0, 0], EINVAL),
        |_| gives(SYS_shutdown, &[listener, 2], 0),
    )?;
    stopped?;
    refused(SYS_connect, &[socket(STREAM)?, at(&address.0), address.1], ECONNREFUSED)
}

fn time_limit() -> Result<(), String> {
    const RCVTIMEO: u64 = 20;
    extern "C" fn heard(_: i32) {}
    // SAFETY: (1) the handler does nothing. C libraries ask for SA_RESTART here.
    unsafe { libc::signal(libc::SIGUSR1, heard as *const () as usize) };
    let own = crate::linux::own_pid() as u64;
    let [one, other] = pair(STREAM)?;
    // Without a limit the call goes on after the handler.
    let read = while_asleep(
        move || get(one, b"late"),
        |tid| {
            gives(SYS_tgkill, &[own, tid, libc::SIGUSR1 as u64], 0)?;
            put(other, b"late")
        },
    )?;
    read?;
    // With one it would begin anew, and so it ends.
    gives(SYS_setsockopt, &[one, LEVEL, RCVTIMEO, at(&[1000u64, 0]), 16], 0)?;
    while_asleep(
        move || refused(SYS_read, &[one, to(&mut [0u8; 4]), 4], EINTR),
        |tid| gives(SYS_tgkill, &[own, tid, libc::SIGUSR1 as u64], 0),
    )?
}

fn fault() -> Result<(), String> {
    let [one, other] = pair(STREAM)?;
    put(one, b"0123456789")?;
    refused(SYS_read, &[other, NOWHERE, 10], EFAULT)?;
    // Memory for the first four alone: Linux gives none of them, or all four. The others stay either way.
    let mut room = [0u8; 4];
    let parts = [to(&mut room), 4, NOWHERE, 6];
    match call(SYS_readv, [other, at(&parts), 2, 0, 0, 0]) {
        Ok(4) => get(other, b"456789"),
        refused => {
            equal!(refused, Err(EFAULT));
            get(other, b"0123456789")
        }
    }
}

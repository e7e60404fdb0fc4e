//! Unix sockets: names, connections, messages, and what comes beside their bytes.

use super::each::{Folder, KERNEL, NOWHERE, at, gives, refused, to, works};
use super::{Check, Ended, call, ensure, equal, in_child};
use libc::{
    EADDRINUSE, EAFNOSUPPORT, EAGAIN, EBADF, ECONNREFUSED, ECONNRESET, EFAULT, EINVAL, EISCONN, EMSGSIZE, ENOENT,
    ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPIPE, EPROTOTYPE, ETOOMANYREFS, SYS_accept, SYS_accept4, SYS_bind, SYS_close,
    SYS_connect, SYS_fcntl, SYS_getpeername, SYS_getpid, SYS_getsockname, SYS_getsockopt, SYS_listen, SYS_pipe2,
    SYS_poll, SYS_read, SYS_recvfrom, SYS_recvmsg, SYS_sendmsg, SYS_sendto, SYS_setsockopt, SYS_shutdown, SYS_socket,
    SYS_socketpair, SYS_unlink, SYS_write,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("socket_stream", stream),
    ("socket_abstract", abstract_names),
    ("socket_refused", refused_connections),
    ("socket_datagram", datagram),
    ("socket_record", record),
    ("socket_descriptors", descriptors),
    ("socket_credentials", credentials),
    ("socket_poll", poll),
    ("socket_options", options),
    ("socket_in_itself", in_itself),
    ("socket_nested", nested),
    ("socket_many_passed", many_passed),
    ("socket_errors", errors),
];

pub(super) const UNIX: u64 = 1;
pub(super) const STREAM: u64 = 1;
pub(super) const DATAGRAM: u64 = 2;
pub(super) const RECORD: u64 = 5;
pub(super) const NONBLOCK: u64 = 0o4000;
pub(super) const DONTWAIT: u64 = 0x40;
pub(super) const NOSIGNAL: u64 = 0x4000;
const PEEK: u64 = 2;
const TRUNC: u64 = 0x20;
pub(super) const LEVEL: u64 = 1;

/// struct sockaddr_un and its length.
pub(super) struct Address(pub [u8; 110], pub u64);

impl Address {
    fn new(name: &[u8]) -> Address {
        let mut bytes = [0; 110];
        bytes[0] = UNIX as u8;
        bytes[2..2 + name.len()].copy_from_slice(name);
        Address(bytes, 2 + name.len() as u64)
    }

    pub(super) fn own(what: &str) -> Address {
        Address::new(format!("\0calls-{what}-{}", crate::linux::own_pid()).as_bytes())
    }
}

pub(super) fn socket(kind: u64) -> Result<u64, String> {
    works(SYS_socket, &[UNIX, kind, 0])
}

pub(super) fn pair(kind: u64) -> Result<[u64; 2], String> {
    let mut ends = [0i32; 2];
    gives(SYS_socketpair, &[UNIX, kind, 0, to(&mut ends)], 0)?;
    Ok(ends.map(|fd| fd as u64))
}

pub(super) fn bound(kind: u64, address: &Address) -> Result<u64, String> {
    let fd = socket(kind)?;
    gives(SYS_bind, &[fd, at(&address.0), address.1], 0)?;
    Ok(fd)
}

pub(super) fn connected(kind: u64, address: &Address) -> Result<u64, String> {
    let fd = socket(kind)?;
    gives(SYS_connect, &[fd, at(&address.0), address.1], 0)?;
    Ok(fd)
}

pub(super) fn put(fd: u64, bytes: &[u8]) -> Result<(), String> {
    gives(SYS_write, &[fd, at(bytes), bytes.len() as u64], bytes.len() as u64)
}

pub(super) fn get(fd: u64, wanted: &[u8]) -> Result<(), String> {
    let mut room = [0u8; 64];
    gives(SYS_read, &[fd, to(&mut room), 64], wanted.len() as u64)?;
    equal!(&room[..wanted.len()], wanted);
    Ok(())
}

fn name_of(call: i64, fd: u64) -> Result<Vec<u8>, String> {
    let (mut address, mut len) = ([0u8; 110], 110u32);
    gives(call, &[fd, to(&mut address), to(&mut len)], 0)?;
    Ok(address[..len as usize].to_vec())
}

pub(super) fn ready(fd: u64, asked: u16) -> Result<u64, String> {
    let mut asked = [fd | (asked as u64) << 32];
    works(SYS_poll, &[to(&mut asked), 1, 0])?;
    Ok(asked[0] >> 48)
}

fn stream() -> Result<(), String> {
    let folder = Folder::new()?;
    let path = folder.path("stream");
    let address = Address::new(path.as_bytes());
    let listener = bound(STREAM, &address)?;
    gives(SYS_listen, &[listener, 5], 0)?;
    let name = address.0[..address.1 as usize].to_vec();
    equal!(&name_of(SYS_getsockname, listener)?, &name);
    refused(SYS_connect, &[socket(DATAGRAM)?, at(&address.0), address.1], EPROTOTYPE)?;
    let client = connected(STREAM, &address)?;
    put(client, b"early")?;
    let (mut from, mut len) = ([9u8; 110], 110u32);
    let server = works(SYS_accept4, &[listener, to(&mut from), to(&mut len), 0o2000000])?;
    equal!((len, from[0]), (2, 1)); // the client has no name
    gives(SYS_fcntl, &[server, 1], 1)?;
    get(server, b"early")?;
    put(server, b"one")?;
    put(server, b"two")?;
    get(client, b"onetwo")?;
    equal!(&name_of(SYS_getpeername, client)?, &name);
    equal!(&name_of(SYS_getsockname, server)?, &name);
    equal!(name_of(SYS_getpeername, server)?, [1, 0]);
    // Looked at, and taken in parts.
    put(client, b"abcdef")?;
    let mut room = [0u8; 4];
    gives(SYS_recvfrom, &[server, to(&mut room), 4, PEEK, 0, 0], 4)?;
    gives(SYS_recvfrom, &[server, to(&mut room), 4, 0, 0, 0], 4)?;
    equal!(&room, b"abcd");
    get(server, b"ef")?;
    refused(SYS_recvfrom, &[server, to(&mut room), 4, DONTWAIT, 0, 0], EAGAIN)?;
    // Each direction ends on its own.
    gives(SYS_shutdown, &[client, 1], 0)?;
    gives(SYS_read, &[server, to(&mut room), 4], 0)?;
    put(server, b"last")?;
    gives(SYS_close, &[server], 0)?;
    get(client, b"last")?;
    gives(SYS_read, &[client, to(&mut room), 4], 0)?;
    refused(SYS_sendto, &[client, at("x"), 1, NOSIGNAL, 0, 0], EPIPE)?;
    // Unread bytes at the end are told.
    let client = connected(STREAM, &address)?;
    let server = works(SYS_accept, &[listener, 0, 0])?;
    put(client, b"unread")?;
    gives(SYS_close, &[server], 0)?;
    refused(SYS_read, &[client, to(&mut room), 4], ECONNRESET)?;
    gives(SYS_read, &[client, to(&mut room), 4], 0)?;
    // Behind what the peer had sent.
    let client = connected(STREAM, &address)?;
    let server = works(SYS_accept, &[listener, 0, 0])?;
    put(client, b"unread")?;
    put(server, b"last")?;
    gives(SYS_close, &[server], 0)?;
    get(client, b"last")?;
    refused(SYS_read, &[client, to(&mut room), 4], ECONNRESET)?;
    gives(SYS_read, &[client, to(&mut room), 4], 0)?;
    // The name stays; nobody listens.
    gives(SYS_close, &[listener], 0)?;
    refused(SYS_connect, &[socket(STREAM)?, at(&address.0), address.1], ECONNREFUSED)?;
    refused(SYS_bind, &[socket(STREAM)?, at(&address.0), address.1], EADDRINUSE)?;
    gives(SYS_unlink, &[at(path.as_str())], 0)?;
    refused(SYS_connect, &[socket(STREAM)?, at(&address.0), address.1], ENOENT)
}

fn abstract_names() -> Result<(), String> {
    let address = Address::own("abstract");
    let one = bound(STREAM, &address)?;
    refused(SYS_bind, &[socket(STREAM)?, at(&address.0), address.1], EADDRINUSE)?;
    refused(SYS_bind, &[one, at(&address.0), address.1], EINVAL)?;
    equal!(&name_of(SYS_getsockname, one)?[..], &address.0[..address.1 as usize]);
    gives(SYS_close, &[one], 0)?;
    let again = bound(STREAM, &address)?;
    gives(SYS_close, &[again], 0)?;
    // The family alone: a free name.
    let fd = socket(DATAGRAM)?;
    gives(SYS_bind, &[fd, at(&address.0), 2], 0)?;
    let name = name_of(SYS_getsockname, fd)?;
    equal!((name.len(), name[2]), (8, 0));
    Ok(())
}

fn refused_connections() -> Result<(), String> {
    let address = Address::own("refused");
    let connect = |fd: u64, error| refused(SYS_connect, &[fd, at(&address.0), address.1], error);
    connect(socket(STREAM)?, ECONNREFUSED)?;
    let listener = bound(STREAM, &address)?;
    connect(socket(STREAM)?, ECONNREFUSED)?; // bound, but it does not listen
    connect(socket(DATAGRAM)?, ECONNREFUSED)?; // abstract names are each type's own
    gives(SYS_listen, &[listener, 0], 0)?;
    let first = connected(STREAM, &address)?;
    // As many wait as may.
    connect(socket(STREAM | NONBLOCK)?, EAGAIN)?;
    gives(SYS_fcntl, &[listener, 4, NONBLOCK], 0)?;
    works(SYS_accept, &[listener, 0, 0])?;
    refused(SYS_accept, &[listener, 0, 0], EAGAIN)?;
    connect(first, EISCONN)?;
    refused(SYS_accept4, &[listener, 0, 0, 1], EINVAL)?;
    refused(SYS_accept, &[first, 0, 0], EINVAL)?;
    refused(SYS_accept, &[socket(DATAGRAM)?, 0, 0], EOPNOTSUPP)?;
    refused(SYS_listen, &[socket(DATAGRAM)?, 1], EOPNOTSUPP)?;
    refused(SYS_listen, &[socket(STREAM)?, 1], EINVAL)?;
    // Who was never accepted is told.
    let late = connected(STREAM, &address)?;
    gives(SYS_close, &[listener], 0)?;
    refused(SYS_read, &[late, to(&mut [0u8; 4]), 4], ECONNRESET)?;
    connect(socket(STREAM)?, ECONNREFUSED)
}

fn datagram() -> Result<(), String> {
    let (here, there) = (Address::own("here"), Address::own("there"));
    let (one, other) = (bound(DATAGRAM, &here)?, bound(DATAGRAM, &there)?);
    let send = |text: &[u8]| [one, at(text), text.len() as u64, 0, at(&there.0), there.1];
    gives(SYS_sendto, &send(b"first"), 5)?;
    gives(SYS_sendto, &send(b""), 0)?;
    gives(SYS_sendto, &send(b"third"), 5)?;
    let (mut room, mut from, mut len) = ([0u8; 64], [0u8; 110], 110u32);
    gives(SYS_recvfrom, &[other, to(&mut room), 3, TRUNC, to(&mut from), to(&mut len)], 5)?;
    equal!((&room[..4], len as u64), (&b"fir\0"[..], here.1));
    equal!(&from[..len as usize], &here.0[..here.1 as usize]);
    gives(SYS_read, &[other, to(&mut room), 64], 0)?;
    get(other, b"third")?;
    // Connected, it needs no name; and it hears that one alone.
    gives(SYS_connect, &[one, at(&there.0), there.1], 0)?;
    put(one, b"again")?;
    get(other, b"again")?;
    let stranger = socket(DATAGRAM)?;
    refused(SYS_sendto, &[stranger, at("x"), 1, 0, at(&here.0), here.1], libc::EPERM)?;
    refused(SYS_sendto, &[stranger, at("x"), 1, 0, 0, 0], ENOTCONN)?;
    gives(SYS_close, &[other], 0)?;
    refused(SYS_sendto, &[one, at("x"), 1, 0, 0, 0], ECONNREFUSED)?;
    let [one, other] = pair(DATAGRAM)?;
    put(one, b"pair")?;
    get(other, b"pair")?;
    let large = vec![0u8; 400_000];
    refused(SYS_sendto, &[one, at(&large[..]), 400_000, 0, 0, 0], EMSGSIZE)
}

fn record() -> Result<(), String> {
    let [one, other] = pair(RECORD)?;
    put(one, b"first")?;
    put(one, b"second")?;
    get(other, b"first")?;
    get(other, b"second")?;
    put(other, b"answer")?;
    gives(SYS_close, &[other], 0)?;
    get(one, b"answer")?;
    gives(SYS_read, &[one, to(&mut [0u8; 4]), 4], 0)?;
    refused(SYS_sendto, &[one, at("x"), 1, NOSIGNAL, 0, 0], EPIPE)?;
    let address = Address::own("record");
    let listener = bound(RECORD, &address)?;
    gives(SYS_listen, &[listener, 1], 0)?;
    let client = connected(RECORD, &address)?;
    let server = works(SYS_accept, &[listener, 0, 0])?;
    put(client, b"request")?;
    get(server, b"request")?;
    refused(SYS_read, &[socket(RECORD)?, to(&mut [0u8; 4]), 4], ENOTCONN)
}

/// struct msghdr of one stretch and control bytes.
struct Message {
    head: [u64; 7],
    stretch: Box<[u64; 2]>,
    control: Box<[u64; 32]>,
}

impl Message {
    fn new(bytes: &[u8], control_len: u64) -> Message {
        let mut m =
            Message { head: [0; 7], stretch: Box::new([at(bytes), bytes.len() as u64]), control: Box::new([0; 32]) };
        m.head[2] = at(&*m.stretch);
        m.head[3] = 1;
        m.head[4] = if control_len == 0 { 0 } else { at(&*m.control) };
        m.head[5] = control_len;
        m
    }

    /// One control message of `kind` with `data`.
    fn with(bytes: &[u8], kind: u64, data: &[u32]) -> Message {
        let mut m = Message::new(bytes, 16 + 4 * data.len() as u64);
        m.control[..2].copy_from_slice(&[16 + 4 * data.len() as u64, LEVEL | kind << 32]);
        for (i, word) in data.iter().enumerate() {
            m.control[2 + i / 2] |= (*word as u64) << (32 * (i % 2));
        }
        m
    }

    fn flags(&self) -> u64 {
        self.head[6]
    }
}

const RIGHTS: u64 = 1;
const CREDENTIALS: u64 = 2;
const CTRUNC: u64 = 8;

fn descriptors() -> Result<(), String> {
    let [one, other] = pair(STREAM)?;
    let mut pipe = [0i32; 2];
    gives(SYS_pipe2, &[to(&mut pipe), 0], 0)?;
    let message = Message::with(b"with", RIGHTS, &[pipe[1] as u32, pipe[1] as u32]);
    put(one, b"plain")?;
    gives(SYS_sendmsg, &[one, at(&message.head), 0], 4)?;
    gives(SYS_close, &[pipe[1] as u64], 0)?;
    put(one, b"behind")?;
    // To the end of the message that they came with.
    let room = [0u8; 64];
    let mut got = Message::new(&room, 256);
    gives(SYS_recvmsg, &[other, to(&mut got.head), 0x4000_0000], 9)?;
    equal!(&room[..9], b"plainwith");
    equal!((got.head[5], got.control[0], got.control[1]), (24, 24, LEVEL | RIGHTS << 32));
    let [a, b] = [got.control[2] & 0xffff_ffff, got.control[2] >> 32];
    gives(SYS_fcntl, &[a, 1], 1)?; // closed by execve
    put(a, b"through")?;
    get(pipe[0] as u64, b"through")?;
    gives(SYS_close, &[a], 0)?;
    gives(SYS_close, &[b], 0)?;
    gives(SYS_read, &[pipe[0] as u64, at(&room), 4], 0)?; // that was the last writer
    get(other, b"behind")?;
    // No room for it: closed, and said.
    let message = Message::with(b"x", RIGHTS, &[one as u32]);
    let [three, four] = pair(STREAM)?;
    gives(SYS_sendmsg, &[three, at(&message.head), 0], 1)?;
    let mut got = Message::new(&room, 0);
    gives(SYS_recvmsg, &[four, to(&mut got.head), 0], 1)?;
    equal!((got.flags() & CTRUNC, got.head[5]), (CTRUNC, 0));
    // Never received: closed with the socket.
    gives(SYS_pipe2, &[to(&mut pipe), 0], 0)?;
    let message = Message::with(b"x", RIGHTS, &[pipe[1] as u32]);
    gives(SYS_sendmsg, &[three, at(&message.head), 0], 1)?;
    gives(SYS_close, &[pipe[1] as u64], 0)?;
    gives(SYS_close, &[four], 0)?;
    gives(SYS_read, &[pipe[0] as u64, at(&room), 4], 0)?;
    let bad = Message::with(b"x", RIGHTS, &[999]);
    refused(SYS_sendmsg, &[one, at(&bad.head), 0], EBADF)?;
    let mut short = Message::with(b"x", RIGHTS, &[one as u32]);
    short.control[0] = 8;
    refused(SYS_sendmsg, &[one, at(&short.head), 0], EINVAL)
}

fn credentials() -> Result<(), String> {
    const PASSCRED: u64 = 16;
    const PEERCRED: u64 = 17;
    let own = works(SYS_getpid, &[])?;
    let [one, other] = pair(DATAGRAM)?;
    gives(SYS_setsockopt, &[other, LEVEL, PASSCRED, at(&1u32), 4], 0)?;
    let ended = in_child(|| u8::from(put(one, b"child").is_err()))?;
    equal!(ended, Ended::Exit(0));
    let room = [0u8; 64];
    let mut got = Message::new(&room, 256);
    gives(SYS_recvmsg, &[other, to(&mut got.head), 0], 5)?;
    equal!((got.control[0], got.control[1]), (28, LEVEL | CREDENTIALS << 32));
    let child = got.control[2] & 0xffff_ffff;
    ensure!(child != own && child != 0);
    let message = Message::with(b"own", CREDENTIALS, &[own as u32, 0, 0]);
    gives(SYS_sendmsg, &[one, at(&message.head), 0], 3)?;
    gives(SYS_recvmsg, &[other, to(&mut got.head), 0], 3)?;
    equal!(got.control[2] & 0xffff_ffff, own);
    let (mut peer, mut len) = ([0u32; 3], 12u32);
    gives(SYS_getsockopt, &[one, LEVEL, PEERCRED, to(&mut peer), to(&mut len)], 0)?;
    equal!((peer[0] as u64, len), (own, 12));
    Ok(())
}

pub(super) const IN: u16 = 1;
pub(super) const OUT: u16 = 4;
const HUP: u64 = 0x10;

fn poll() -> Result<(), String> {
    let address = Address::own("poll");
    let listener = bound(STREAM, &address)?;
    equal!(ready(socket(STREAM)?, IN | OUT)?, OUT as u64 | HUP);
    gives(SYS_listen, &[listener, 5], 0)?;
    equal!(ready(listener, IN | OUT)?, 0);
    let client = connected(STREAM, &address)?;
    equal!(ready(listener, IN | OUT)?, IN as u64);
    let server = works(SYS_accept, &[listener, 0, 0])?;
    equal!(ready(listener, IN | OUT)?, 0);
    equal!(ready(client, IN | OUT)?, OUT as u64);
    put(server, b"x")?;
    equal!(ready(client, IN | OUT)?, (IN | OUT) as u64);
    get(client, b"x")?;
    gives(SYS_shutdown, &[server, 1], 0)?;
    equal!(ready(client, IN | OUT | 0x2000)?, (IN | OUT | 0x2000) as u64);
    gives(SYS_close, &[server], 0)?;
    equal!(ready(client, IN | OUT)?, (IN | OUT) as u64 | HUP);
    Ok(())
}

fn options() -> Result<(), String> {
    let fd = socket(STREAM)?;
    let get = |name: u64| -> Result<u32, String> {
        let (mut value, mut len) = (9u32, 4u32);
        gives(SYS_getsockopt, &[fd, LEVEL, name, to(&mut value), to(&mut len)], 0)?;
        equal!(len, 4);
        Ok(value)
    };
    equal!([get(3)?, get(4)?, get(30)?, get(38)?, get(39)?], [1, 0, 0, 0, 1]);
    ensure!(get(7)? >= 65_536 && get(8)? >= 65_536);
    // A time limit for receiving.
    let [one, _other] = pair(STREAM)?;
    gives(SYS_setsockopt, &[one, LEVEL, 20, at(&[0u64, 2000]), 16], 0)?;
    refused(SYS_read, &[one, to(&mut [0u8; 4]), 4], EAGAIN)?;
    let (mut time, mut len) = ([9u64; 2], 16u32);
    gives(SYS_getsockopt, &[one, LEVEL, 20, to(&mut time), to(&mut len)], 0)?;
    ensure!(time[0] == 0 && time[1] >= 2000);
    refused(SYS_getsockopt, &[fd, LEVEL, 3, KERNEL, to(&mut len)], EFAULT)?;
    refused(SYS_getsockopt, &[fd, LEVEL, 999, to(&mut time), to(&mut len)], libc::ENOPROTOOPT)?;
    refused(SYS_setsockopt, &[fd, LEVEL, 999, at(&1u32), 4], libc::ENOPROTOOPT)?;
    refused(SYS_setsockopt, &[fd, LEVEL, 16, at(&1u32), 3], EINVAL)
}

/// A pipe whose writing end is closed here, sent by `send` in a message: once nobody can receive that, its reader is told.
fn ends_with(send: impl FnOnce(u64) -> Result<(), String>) -> Result<(), String> {
    let mut pipe = [0i32; 2];
    gives(SYS_pipe2, &[to(&mut pipe), 0], 0)?;
    send(pipe[1] as u64)?;
    let mut asked = [pipe[0] as u64 | (IN as u64) << 32];
    // Linux looks for circles when a socket is closed.
    let mut looks = 0;
    while works(SYS_poll, &[to(&mut asked), 1, 10])? == 0 {
        looks += 1;
        ensure!(looks < 1000); // ten seconds
        for fd in pair(STREAM)? {
            gives(SYS_close, &[fd], 0)?;
        }
    }
    gives(SYS_close, &[pipe[0] as u64], 0)
}

fn in_itself() -> Result<(), String> {
    // A socket on its way through itself: refused, or taken and collected later, with what else is in the message.
    for _ in 0..50 {
        ends_with(|written| {
            let [one, other] = pair(STREAM)?;
            let message = Message::with(b"x", RIGHTS, &[one as u32, other as u32, written as u32]);
            match call(SYS_sendmsg, [other, at(&message.head), 0, 0, 0, 0]) {
                Ok(1) => {}
                refused => equal!(refused, Err(ETOOMANYREFS)),
            }
            for fd in [written, one, other] {
                gives(SYS_close, &[fd], 0)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn nested() -> Result<(), String> {
    // Each socket's inbox has the one before: the last close is the end of all.
    ends_with(|written| {
        let (mut carried, mut depth) = (written, 0);
        while depth < 1000 {
            let [one, other] = pair(STREAM)?;
            let message = Message::with(b"x", RIGHTS, &[carried as u32]);
            let sent = call(SYS_sendmsg, [one, at(&message.head), 0, 0, 0, 0]);
            gives(SYS_close, &[one], 0)?;
            if sent != Ok(1) {
                // Linux, from a few on.
                equal!(sent, Err(ETOOMANYREFS));
                gives(SYS_close, &[other], 0)?;
                break;
            }
            gives(SYS_close, &[carried], 0)?;
            (carried, depth) = (other, depth + 1);
        }
        ensure!(depth == 1000 || depth > 2 && !super::is_quiesce());
        gives(SYS_close, &[carried], 0)
    })
}

fn many_passed() -> Result<(), String> {
    // What nobody receives is not for nothing: so many at once, and none is left after it.
    for _ in 0..2 {
        let mut pairs = Vec::new();
        let refusal = loop {
            let [one, other] = pair(STREAM)?;
            pairs.extend([one, other]);
            let message = Message::with(b"x", RIGHTS, &[one as u32; 50]);
            match call(SYS_sendmsg, [pairs[0], at(&message.head), DONTWAIT, 0, 0, 0]) {
                Ok(1) => ensure!(pairs.len() < 1000),
                refused => break refused,
            }
        };
        ensure!(refusal == Err(ETOOMANYREFS) || refusal == Err(EAGAIN) && !super::is_quiesce());
        for fd in pairs {
            gives(SYS_close, &[fd], 0)?;
        }
    }
    Ok(())
}

fn errors() -> Result<(), String> {
    refused(SYS_socket, &[99, STREAM, 0], EAFNOSUPPORT)?;
    refused(SYS_socket, &[UNIX, 4, 0], libc::ESOCKTNOSUPPORT)?;
    refused(SYS_socket, &[UNIX, 11, 0], EINVAL)?;
    refused(SYS_socket, &[UNIX, STREAM, 7], libc::EPROTONOSUPPORT)?;
    refused(SYS_socket, &[UNIX, STREAM | 1 << 20, 0], EINVAL)?;
    let (fd, fine) = (socket(STREAM)?, Address::own("errors"));
    let mut pipe = [0i32; 2];
    gives(SYS_pipe2, &[to(&mut pipe), 0], 0)?;
    let pipe = pipe[0] as u64;
    for (wrong, error) in [(pipe, ENOTSOCK), (999, EBADF)] {
        refused(SYS_bind, &[wrong, at(&fine.0), fine.1], error)?;
        refused(SYS_listen, &[wrong, 1], error)?;
        refused(SYS_connect, &[wrong, at(&fine.0), fine.1], error)?;
        refused(SYS_accept, &[wrong, 0, 0], error)?;
        refused(SYS_getsockname, &[wrong, 0, 0], error)?;
        refused(SYS_sendto, &[wrong, at("x"), 1, 0, 0, 0], error)?;
        refused(SYS_recvfrom, &[wrong, at("x"), 1, 0, 0, 0], error)?;
        refused(SYS_sendmsg, &[wrong, at(&Message::new(b"x", 0).head), 0], error)?;
        refused(SYS_recvmsg, &[wrong, at(&Message::new(b"x", 0).head), 0], error)?;
        refused(SYS_shutdown, &[wrong, 0], error)?;
    }
    refused(SYS_bind, &[fd, at(&fine.0), 1], EINVAL)?;
    refused(SYS_bind, &[fd, at(&fine.0), 111], EINVAL)?;
    refused(SYS_bind, &[fd, KERNEL, 20], EFAULT)?;
    refused(SYS_connect, &[fd, KERNEL, 20], EFAULT)?;
    let mut inet = fine.0;
    inet[0] = 2;
    refused(SYS_bind, &[fd, at(&inet), fine.1], EINVAL)?;
    refused(SYS_connect, &[fd, at(&inet), fine.1], EINVAL)?;
    refused(SYS_getpeername, &[fd, at(&inet), at(&110u32)], ENOTCONN)?;
    refused(SYS_getsockname, &[fd, NOWHERE, NOWHERE], EFAULT)?;
    refused(SYS_read, &[fd, to(&mut [0u8; 4]), 4], EINVAL)?;
    refused(SYS_sendto, &[fd, at("x"), 1, 0, 0, 0], ENOTCONN)?;
    refused(SYS_sendto, &[fd, at("x"), 1, 0, at(&fine.0), fine.1], EOPNOTSUPP)?;
    let [one, other] = pair(STREAM)?;
    refused(SYS_sendto, &[one, at("x"), 1, 0, at(&fine.0), fine.1], EISCONN)?;
    refused(SYS_sendto, &[one, KERNEL, 1, 0, 0, 0], EFAULT)?;
    refused(SYS_sendmsg, &[one, NOWHERE, 0], EFAULT)?;
    refused(SYS_recvmsg, &[other, NOWHERE, 0], EFAULT)
}

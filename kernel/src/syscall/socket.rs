//! System calls about sockets. There are those within the machine (AF_UNIX) and no network.
//!
//! Source: socket(2), bind(2), listen(2), accept(2), connect(2), socketpair(2), shutdown(2), getsockname(2), getsockopt(2), socket(7), unix(7).

use super::file::file;
use super::table::Calls;
use crate::errno::{EAFNOSUPPORT, EINVAL, ENOPROTOOPT, ENOTSOCK, EOPNOTSUPP, EPROTONOSUPPORT, ESOCKTNOSUPPORT, Errno};
use crate::fs::current;
use crate::fs::open_file::{OpenFile, flag};
use crate::fs::unix_socket::{self, Address, CAPACITY, Credentials, Kind, Socket};
use crate::mm::user_copy;
use crate::process::missing;
use crate::system_call;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::Ordering;

/// Numbers and handlers. Those that transfer are in `socket_message`.
pub const CALLS: Calls = &[
    (41, socket),
    (42, connect),
    (43, accept),
    (48, shutdown),
    (49, bind),
    (50, listen),
    (51, getsockname),
    (52, getpeername),
    (53, socketpair),
    (54, setsockopt),
    (55, getsockopt),
    (288, accept4),
];

const UNIX: u64 = 1;
/// The highest type there is (SOCK_PACKET).
const LAST_TYPE: u32 = 10;
/// struct sockaddr_un: family, then the path.
const PATH_AT: u64 = 2;
const LONGEST_ADDRESS: u64 = 110;

/// A descriptor's socket, kept open.
pub(super) struct Held {
    open: Arc<OpenFile>,
    socket: Arc<Socket>,
}

impl Deref for Held {
    type Target = Arc<Socket>;
    fn deref(&self) -> &Arc<Socket> {
        &self.socket
    }
}

/// The socket of a descriptor argument. EBADF, ENOTSOCK.
pub(super) fn held(fd: u64) -> Result<Held, Errno> {
    let open = file(fd)?;
    let socket = open.file.clone().as_socket().ok_or(ENOTSOCK)?;
    Ok(Held { open, socket })
}

impl Held {
    pub(super) fn is_nonblocking(&self) -> bool {
        self.open.flags() & flag::NONBLOCK != 0
    }
}

/// What a call that makes sockets asks for: the kind, and the descriptor's flags.
fn kind(domain: u64, kind: u64, protocol: u64) -> Result<(Kind, u32), Errno> {
    let (kind, flags) = (kind as u32 & 0xf, kind as u32 & !0xf);
    if flags & !(flag::CLOEXEC | flag::NONBLOCK) != 0 || kind > LAST_TYPE {
        return Err(EINVAL);
    }
    if domain as u32 as u64 != UNIX {
        return Err(EAFNOSUPPORT);
    }
    if protocol as u32 as u64 > UNIX {
        return Err(EPROTONOSUPPORT);
    }
    let kind = match kind {
        1 => Kind::Stream,
        2 | 3 => Kind::Datagram, // SOCK_RAW is taken for it
        5 => Kind::Record,
        _ => return Err(ESOCKTNOSUPPORT),
    };
    Ok((kind, flags))
}

fn open(socket: Arc<Socket>, flags: u32) -> Arc<OpenFile> {
    OpenFile::new(socket, flag::RDWR | flags & flag::NONBLOCK, None)
}

/// sun_path of an address argument, up to its NUL if it is a path; empty: the family alone.
pub(super) fn read_address(at: u64, len: u64) -> Result<Vec<u8>, Errno> {
    let len = len as u32 as u64;
    if !(PATH_AT..=LONGEST_ADDRESS).contains(&len) {
        return Err(EINVAL);
    }
    let mut bytes = [0u8; LONGEST_ADDRESS as usize];
    let bytes = &mut bytes[..len as usize];
    user_copy::read_bytes(at, bytes)?;
    let (family, name) = bytes.split_at(PATH_AT as usize);
    if family != (UNIX as u16).to_le_bytes() {
        return Err(EINVAL);
    }
    let end = match name.first() {
        Some(0) | None => name.len(),
        Some(_) => name.iter().position(|&b| b == 0).unwrap_or(name.len()),
    };
    Ok(name[..end].to_vec())
}

/// Write `address` to `at`, as far as there is room; how long it is.
pub(super) fn put_address(at: u64, room: u64, address: Option<&Address>) -> Result<u32, Errno> {
    let mut bytes = (UNIX as u16).to_le_bytes().to_vec();
    if let Some(Address(name)) = address {
        bytes.extend_from_slice(name);
        if name.first() != Some(&0) {
            bytes.push(0);
        }
    }
    let n = bytes.len().min(room as usize);
    user_copy::write_bytes(at, &bytes[..n])?;
    Ok(bytes.len() as u32)
}

/// Write `address` to `at`, and to `len_at`, which has the room, how long it is.
pub(super) fn write_address(at: u64, len_at: u64, address: Option<&Address>) -> Result<(), Errno> {
    let room: i32 = user_copy::read(len_at)?;
    if room < 0 {
        return Err(EINVAL);
    }
    let len = put_address(at, room as u64, address)?;
    Ok(user_copy::write(len_at, &len)?)
}

system_call! {
    /// socket(2)
    socket(domain, what, protocol) {
        let (kind, flags) = kind(domain, what, protocol)?;
        Ok(current::files().install(open(Socket::new(kind), flags), flags & flag::CLOEXEC != 0)? as u64)
    }
}
system_call! {
    /// socketpair(2)
    socketpair(domain, what, protocol, at) {
        let (kind, flags) = kind(domain, what, protocol)?;
        let files = current::files();
        // Both are sockets of files from the start, so that each is closed as a socket is.
        let [one, other] = unix_socket::new_pair(kind)
            .map(|end| open(end, flags))
            .map(|end| files.install(end, flags & flag::CLOEXEC != 0));
        let written = match (one, other) {
            (Ok(a), Ok(b)) => user_copy::write(at, &[a as u32, b as u32]).map_err(Into::into),
            (Err(e), _) | (_, Err(e)) => Err(e),
        };
        if written.is_err() {
            for fd in [one, other].into_iter().flatten() {
                let _ = files.close(fd);
            }
        }
        written.map(|()| 0)
    }
}
system_call! {
    /// bind(2)
    bind(fd, at, len) {
        let socket = held(fd)?;
        unix_socket::bind(&socket, &read_address(at, len)?)?;
        Ok(0)
    }
}
system_call! {
    /// listen(2)
    listen(fd, backlog) {
        let socket = held(fd)?;
        unix_socket::listen(&socket, backlog)?;
        Ok(0)
    }
}
system_call! {
    /// connect(2). AF_UNSPEC ends a datagram socket's connection.
    connect(fd, at, len) {
        let socket = held(fd)?;
        if socket.kind == Kind::Datagram && len as u32 >= 2 && user_copy::read::<u16>(at)? == 0 {
            unix_socket::connect(&socket, &[], true)?;
            return Ok(0);
        }
        let name = read_address(at, len)?;
        if name.is_empty() {
            return Err(EINVAL);
        }
        unix_socket::connect(&socket, &name, socket.is_nonblocking())?;
        Ok(0)
    }
}

fn accept_with(fd: u64, at: u64, len_at: u64, flags: u32) -> Result<u64, Errno> {
    if flags & !(flag::CLOEXEC | flag::NONBLOCK) != 0 {
        return Err(EINVAL);
    }
    let listener = held(fd)?;
    // Before a connection is taken off the queue: without a number for it, it stays there.
    let number = current::files().reserve()?;
    let fd = number.number();
    let new = unix_socket::accept(&listener, listener.is_nonblocking())?;
    let peer = new.peer_address().ok().flatten();
    let new = open(new, flags);
    if at != 0 {
        write_address(at, len_at, peer.as_deref())?;
    }
    number.fill(new, flags & flag::CLOEXEC != 0);
    Ok(fd as u64)
}

system_call! {
    /// accept(2)
    accept(fd, at, len_at) { accept_with(fd, at, len_at, 0) }
}
system_call! {
    /// accept4(2)
    accept4(fd, at, len_at, flags) { accept_with(fd, at, len_at, flags as u32) }
}
system_call! {
    /// shutdown(2)
    shutdown(fd, how) {
        held(fd)?.shut_down(how)?;
        Ok(0)
    }
}
system_call! {
    /// getsockname(2)
    getsockname(fd, at, len_at) {
        write_address(at, len_at, held(fd)?.address().as_deref())?;
        Ok(0)
    }
}
system_call! {
    /// getpeername(2)
    getpeername(fd, at, len_at) {
        write_address(at, len_at, held(fd)?.peer_address()?.as_deref())?;
        Ok(0)
    }
}

/// Options at the level of sockets (asm-generic/socket.h).
mod option {
    #![allow(missing_docs)]
    pub const LEVEL: u64 = 1;
    pub const REUSEADDR: u64 = 2;
    pub const TYPE: u64 = 3;
    pub const ERROR: u64 = 4;
    pub const BROADCAST: u64 = 6;
    pub const SNDBUF: u64 = 7;
    pub const RCVBUF: u64 = 8;
    pub const KEEPALIVE: u64 = 9;
    pub const PASSCRED: u64 = 16;
    pub const PEERCRED: u64 = 17;
    pub const RCVTIMEO: u64 = 20;
    pub const SNDTIMEO: u64 = 21;
    pub const ACCEPTCONN: u64 = 30;
    pub const PROTOCOL: u64 = 38;
    pub const DOMAIN: u64 = 39;
}

const NS: u64 = 1_000_000_000;
const GETSOCKOPT: u32 = 55;
const SETSOCKOPT: u32 = 54;

system_call! {
    /// getsockopt(2)
    getsockopt(fd, level, name, at, len_at) {
        use option::*;
        let socket = held(fd)?;
        let room: i32 = user_copy::read(len_at)?;
        if level != LEVEL {
            return Err(EOPNOTSUPP);
        }
        if room < 0 {
            return Err(EINVAL);
        }
        let number = |value: u32| value.to_le_bytes().to_vec();
        let time = |ns: u64| [ns / NS, ns % NS / 1000].map(u64::to_le_bytes).concat();
        let value = match name {
            TYPE => number(match socket.kind { Kind::Stream => 1, Kind::Datagram => 2, Kind::Record => 5 }),
            ERROR => number(socket.take_error() as u32),
            SNDBUF | RCVBUF => number(CAPACITY as u32),
            REUSEADDR | BROADCAST | KEEPALIVE | PROTOCOL => number(0),
            DOMAIN => number(UNIX as u32),
            PASSCRED => number(socket.wants_credentials.load(Ordering::Relaxed) as u32),
            PEERCRED => {
                let nobody = Credentials { pid: 0, uid: u32::MAX, gid: u32::MAX };
                let Credentials { pid, uid, gid } = socket.peer_credentials().unwrap_or(nobody);
                [pid, uid, gid].map(u32::to_le_bytes).concat()
            }
            RCVTIMEO => time(socket.receive_limit_ns.load(Ordering::Relaxed)),
            SNDTIMEO => time(socket.send_limit_ns.load(Ordering::Relaxed)),
            ACCEPTCONN => number(socket.listens() as u32),
            _ => {
                missing::note_operation(GETSOCKOPT, name);
                return Err(ENOPROTOOPT);
            }
        };
        let n = value.len().min(room as usize);
        user_copy::write_bytes(at, &value[..n])?;
        user_copy::write(len_at, &(n as u32))?;
        Ok(0)
    }
}
system_call! {
    /// setsockopt(2). Buffers have one size; what is about networks changes nothing.
    setsockopt(fd, level, name, at, len) {
        use option::*;
        let socket = held(fd)?;
        if level != LEVEL {
            return Err(EOPNOTSUPP);
        }
        if (len as i32) < 4 {
            return Err(EINVAL);
        }
        let value: u32 = user_copy::read(at)?;
        match name {
            REUSEADDR | BROADCAST | KEEPALIVE | SNDBUF | RCVBUF => {}
            PASSCRED => socket.wants_credentials.store(value != 0, Ordering::Relaxed),
            RCVTIMEO | SNDTIMEO => {
                if (len as i32) < 16 {
                    return Err(EINVAL);
                }
                let [seconds, us]: [u64; 2] = user_copy::read(at)?;
                if us >= 1_000_000 {
                    return Err(crate::errno::EDOM);
                }
                // A time before now is none to wait.
                let ns = if (seconds as i64) < 0 { 1 } else { seconds.saturating_mul(NS).saturating_add(us * 1000) };
                let limit = if name == RCVTIMEO { &socket.receive_limit_ns } else { &socket.send_limit_ns };
                limit.store(ns, Ordering::Relaxed);
            }
            TYPE | ERROR | PEERCRED | ACCEPTCONN | PROTOCOL | DOMAIN => return Err(ENOPROTOOPT),
            _ => {
                missing::note_operation(SETSOCKOPT, name);
                return Err(ENOPROTOOPT);
            }
        }
        Ok(0)
    }
}

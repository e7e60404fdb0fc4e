//! System calls that send and receive through sockets, with descriptors and credentials beside the bytes.
//!
//! Source: send(2), recv(2), cmsg(3), unix(7).

use super::file::{buffer, place_or_file, stretches};
use super::socket::{Held, held, put_address, read_address, write_address};
use super::table::Calls;
use super::time::read_duration;
use crate::arch::tsc;
use crate::errno::{EAGAIN, EINVAL, EMSGSIZE, ENOBUFS, EOPNOTSUPP, ERESTARTSYS, ESRCH, Errno};
use crate::fs::current;
use crate::fs::unix_socket::{Address, Credentials, Extra, Options, Passed, To};
use crate::fs::user_buffer::UserBuffer;
use crate::mm::user_copy;
use crate::process::tree;
use crate::system_call;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Numbers and handlers.
pub const CALLS: Calls =
    &[(44, sendto), (45, recvfrom), (46, sendmsg), (47, recvmsg), (299, recvmmsg), (307, sendmmsg)];

const OOB: u64 = 1;
const PEEK: u64 = 2;
const CTRUNC: u32 = 8;
const TRUNC: u64 = 0x20;
const DONTWAIT: u64 = 0x40;
const WAITALL: u64 = 0x100;
const NOSIGNAL: u64 = 0x4000;
const CMSG_CLOEXEC: u64 = 0x4000_0000;

/// struct msghdr.
const HEADER_BYTES: usize = 56;
const NAME_LEN_AT: u64 = 8;
const CONTROL_LEN_AT: u64 = 40;
const FLAGS_AT: u64 = 48;

/// struct cmsghdr: length, level, type.
const CONTROL_HEADER: u64 = 16;
const SOCKET_LEVEL: u32 = 1;
const RIGHTS: u32 = 1;
const CREDENTIALS: u32 = 2;
/// Descriptors in one message at most (Linux's SCM_MAX_FD).
const MOST_FILES: usize = 253;
/// Bytes of control messages that are looked at.
const MOST_CONTROL: u64 = 20_480;

fn options(socket: &Held, flags: u64) -> Result<Options, Errno> {
    if flags & OOB != 0 {
        return Err(EOPNOTSUPP);
    }
    let has = |f: u64| flags & f != 0;
    let nonblock = socket.is_nonblocking() || has(DONTWAIT);
    Ok(Options { nonblock, no_signal: has(NOSIGNAL), peek: has(PEEK), wait_all: has(WAITALL) })
}

/// The target of an address argument.
fn send_to(
    socket: &Held,
    name: Option<Vec<u8>>,
    from: &mut UserBuffer,
    extra: Extra,
    flags: u64,
) -> Result<u64, Errno> {
    let to = match &name {
        None => To::Peer,
        Some(name) if name.is_empty() => return Err(EINVAL),
        Some(name) => To::Name(name),
    };
    Ok(socket.send(from, to, extra, &options(socket, flags)?)? as u64)
}

system_call! {
    /// sendto(2)
    sendto(fd, at, len, flags, name, name_len) {
        let socket = held(fd)?;
        let name = if name == 0 || name_len as u32 == 0 { None } else { Some(read_address(name, name_len)?) };
        send_to(&socket, name, &mut buffer(at, len)?, Extra::none(), flags)
    }
}
system_call! {
    /// recvfrom(2)
    recvfrom(fd, at, len, flags, name, name_len_at) {
        let socket = held(fd)?;
        let received = socket.receive(&mut buffer(at, len)?, &options(&socket, flags)?)?;
        if name != 0 {
            write_sender(received.from(), name, name_len_at)?;
        }
        Ok(if flags & TRUNC != 0 { received.full_len } else { received.len } as u64)
    }
}

/// The sender's address; nothing if it has none.
fn write_sender(from: Option<&Address>, at: u64, len_at: u64) -> Result<(), Errno> {
    match from {
        Some(from) => write_address(at, len_at, Some(from)),
        None => Ok(user_copy::write(len_at, &0u32)?),
    }
}

/// What the control messages at `at` say.
fn read_control(at: u64, len: u64) -> Result<Extra, Errno> {
    let (mut extra, mut files) = (Extra::none(), Vec::new());
    if len > MOST_CONTROL {
        return Err(ENOBUFS);
    }
    let mut offset = 0;
    while len - offset >= CONTROL_HEADER {
        let [size, kind]: [u64; 2] = user_copy::read(at.wrapping_add(offset))?;
        if size < CONTROL_HEADER || size > len - offset {
            return Err(EINVAL);
        }
        let (data, data_len) = (at.wrapping_add(offset + CONTROL_HEADER), size - CONTROL_HEADER);
        match (kind as u32, (kind >> 32) as u32) {
            (SOCKET_LEVEL, RIGHTS) => {
                let count = data_len as usize / 4;
                if files.len() + count > MOST_FILES {
                    return Err(EINVAL);
                }
                for i in 0..count {
                    let fd: i32 = user_copy::read(data + 4 * i as u64)?;
                    files.push(place_or_file(fd as u32 as u64)?);
                }
            }
            (SOCKET_LEVEL, CREDENTIALS) => {
                if data_len != 12 {
                    return Err(EINVAL);
                }
                let [pid, uid, gid]: [u32; 3] = user_copy::read(data)?;
                // All are the same user, who may name any process that there is.
                tree::find(pid).ok_or(ESRCH)?;
                extra.credentials = Credentials { pid, uid, gid };
            }
            (SOCKET_LEVEL, _) => return Err(EINVAL),
            _ => {}
        }
        offset = offset.saturating_add(size.next_multiple_of(8)).min(len);
    }
    extra.files = Passed::new(files)?;
    Ok(extra)
}

/// Sends the message whose struct msghdr is at `at`: how many bytes went, and whether those were all.
fn send_message(socket: &Held, at: u64, flags: u64) -> Result<(u64, bool), Errno> {
    let [name, name_len, parts, count, control, control_len, _]: [u64; HEADER_BYTES / 8] = user_copy::read(at)?;
    if count > 1024 {
        return Err(EMSGSIZE);
    }
    let parts = stretches(parts, count)?;
    let wanted: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let has_name = name != 0 && name_len as u32 != 0;
    let name = if has_name { Some(read_address(name, name_len as u32 as u64)?) } else { None };
    let extra = if control == 0 || control_len == 0 { Extra::none() } else { read_control(control, control_len)? };
    let sent = send_to(socket, name, &mut UserBuffer::of(&parts), extra, flags)?;
    Ok((sent, sent == wanted))
}

system_call! {
    /// sendmsg(2)
    sendmsg(fd, at, flags) { send_message(&held(fd)?, at, flags).map(|(sent, _)| sent) }
}

/// One message after the other, while `one` gives how many bytes each had, for which its struct mmsghdr has a word. How many there were, and what
/// went wrong after them; the error alone only if it was the first's.
fn each_message(
    at: u64,
    count: u64,
    mut one: impl FnMut(u64) -> Result<Option<u64>, Errno>,
) -> Result<(u64, Option<Errno>), Errno> {
    // struct mmsghdr: struct msghdr, then the bytes of the message in 32 bits.
    const STEP: u64 = HEADER_BYTES as u64 + 8;
    let mut done = 0;
    let mut next = |at: u64| match one(at)? {
        Some(len) => Ok(user_copy::write(at.wrapping_add(HEADER_BYTES as u64), &(len as u32)).map(|()| true)?),
        None => Ok(false),
    };
    while done < count {
        match next(at.wrapping_add(done * STEP)) {
            Ok(true) => done += 1,
            Ok(false) => break,
            Err(e) if done > 0 => return Ok((done, Some(e))),
            Err(e) => return Err(e),
        }
    }
    Ok((done, None))
}

system_call! {
    /// sendmmsg(2): a message of which a part alone went is the last, or the next one's bytes would come where the rest of it belongs. What went wrong
    /// after the first is lost.
    sendmmsg(fd, at, count, flags) {
        let socket = held(fd)?;
        let mut cut = false;
        each_message(at, (count as u32 as u64).min(1024), |at| {
            if cut {
                return Ok(None);
            }
            let (sent, whole) = send_message(&socket, at, flags)?;
            cut = !whole;
            Ok(Some(sent))
        })
        .map(|(done, _)| done)
    }
}
system_call! {
    /// recvmmsg(2): the time is looked at between messages alone, as in Linux. What went wrong after the first is what the next call is told.
    recvmmsg(fd, at, count, flags, timeout_at) {
        const WAITFORONE: u64 = 0x1_0000;
        let limit_ns = if timeout_at == 0 { None } else { Some(read_duration(timeout_at)?) };
        let socket = held(fd)?;
        socket.fail_if_told()?;
        let start_ns = tsc::now_ns();
        let mut is_over = false;
        let mut any = false;
        let (done, error) = each_message(at, (count as u32 as u64).min(1024), |at| {
            if is_over {
                return Ok(None);
            }
            let later = if any && flags & WAITFORONE != 0 { DONTWAIT } else { 0 };
            let len = receive_message(&socket, at, flags & !WAITFORONE | later)?;
            any = true;
            is_over = limit_ns.is_some_and(|limit| tsc::now_ns() - start_ns >= limit);
            Ok(Some(len))
        })?;
        // Nothing was there, or a signal came: the next call finds out itself.
        if let Some(error) = error.filter(|&e| e != EAGAIN && e.0 < ERESTARTSYS.0) {
            socket.keep_error(error);
        }
        // A call that took no message looked at no time.
        if let Some(limit) = limit_ns.filter(|_| done > 0) {
            let left = limit.saturating_sub(tsc::now_ns() - start_ns);
            user_copy::write(timeout_at, &[left / 1_000_000_000, left % 1_000_000_000])?;
        }
        Ok(done)
    }
}

/// Control messages as they are written, one after the other.
struct Control {
    at: u64,
    left: u64,
    written: u64,
    cut: bool,
}

impl Control {
    /// One message, cut where there is no room for all of it.
    fn put(&mut self, kind: u32, data: &[u8]) -> Result<(), Errno> {
        let size = CONTROL_HEADER + data.len() as u64;
        if self.left < CONTROL_HEADER {
            self.cut = true;
            return Ok(());
        }
        let shown = size.min(self.left);
        self.cut |= shown < size;
        user_copy::write(self.at, &[shown, SOCKET_LEVEL as u64 | (kind as u64) << 32])?;
        user_copy::write_bytes(self.at + CONTROL_HEADER, &data[..(shown - CONTROL_HEADER) as usize])?;
        let step = shown.next_multiple_of(8).min(self.left);
        (self.at, self.left, self.written) = (self.at + step, self.left - step, self.written + step);
        Ok(())
    }

    /// As many of `files` as there is room for become descriptors, once the program has their numbers; the others are closed.
    fn put_files(&mut self, files: Passed, close_on_exec: bool) -> Result<(), Errno> {
        let room = self.left.saturating_sub(CONTROL_HEADER) / 4;
        let files = files.take();
        let table = current::files();
        let numbers: Vec<_> = files.iter().take(room as usize).map_while(|_| table.reserve().ok()).collect();
        self.cut |= numbers.len() < files.len();
        if numbers.is_empty() {
            return Ok(());
        }
        let told: Vec<u8> = numbers.iter().flat_map(|n| n.number().to_le_bytes()).collect();
        self.put(RIGHTS, &told)?;
        numbers.into_iter().zip(files).for_each(|(number, file)| number.fill(file, close_on_exec));
        Ok(())
    }
}

/// Receives a message into what the struct msghdr at `at` names.
fn receive_message(socket: &Held, at: u64, flags: u64) -> Result<u64, Errno> {
    let [name, name_len, parts, count, control, control_len, _]: [u64; HEADER_BYTES / 8] = user_copy::read(at)?;
    if count > 1024 {
        return Err(EMSGSIZE);
    }
    let parts = stretches(parts, count)?;
    let room = name_len as i32;
    if name != 0 && room < 0 {
        return Err(EINVAL);
    }
    let received = socket.receive(&mut UserBuffer::of(&parts), &options(socket, flags)?)?;
    let mut out = if received.len < received.full_len { TRUNC as u32 } else { 0 };
    if name != 0 {
        let len = match received.from() {
            Some(from) => put_address(name, room as u64, Some(from))?,
            None => 0,
        };
        user_copy::write(at + NAME_LEN_AT, &len)?;
    }
    let room = if control == 0 { 0 } else { control_len };
    let mut messages = Control { at: control, left: room, written: 0, cut: false };
    if let Some(extra) = received.extra {
        if socket.wants_credentials.load(Ordering::Relaxed) {
            let Credentials { pid, uid, gid } = extra.credentials;
            messages.put(CREDENTIALS, &[pid, uid, gid].map(u32::to_le_bytes).concat())?;
        }
        if !extra.files.is_empty() {
            messages.put_files(extra.files, flags & CMSG_CLOEXEC != 0)?;
        }
    }
    if messages.cut {
        out |= CTRUNC;
    }
    if flags & CMSG_CLOEXEC != 0 {
        out |= CMSG_CLOEXEC as u32;
    }
    user_copy::write(at + CONTROL_LEN_AT, &messages.written)?;
    user_copy::write(at + FLAGS_AT, &out)?;
    Ok(if flags & TRUNC != 0 { received.full_len } else { received.len } as u64)
}

system_call! {
    /// recvmsg(2)
    recvmsg(fd, at, flags) { receive_message(&held(fd)?, at, flags) }
}

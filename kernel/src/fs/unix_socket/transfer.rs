//! Sending and receiving.
//!
//! Process context. User memory is touched with no lock held. Source: send(2), recv(2), unix(7).

use super::inbox::{Extra, Inbox, Message};
use super::passing::Passed;
use super::{Address, CAPACITY, Kind, RECEIVE, Role, SEND, Socket, address, limit, passing, wait};
use crate::errno::{self, Errno};
use crate::fs::current;
use crate::fs::user_buffer::UserBuffer;
use crate::mm::frame;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Bytes of a stream that are moved at once.
const CHUNK: usize = 32 << 10;
/// Small writes to a stream are one message up to this.
const JOINED: usize = 4096;
/// A message has at most so many bytes.
const LONGEST: usize = CAPACITY - 1024;

/// How to send or receive (MSG_*).
#[derive(Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Options {
    pub nonblock: bool,
    /// No SIGPIPE.
    pub no_signal: bool,
    /// Leave it to be received again.
    pub peek: bool,
    /// Wait for all that was asked for.
    pub wait_all: bool,
}

/// Whom to send to.
pub enum To<'a> {
    /// The one that it is connected to.
    Peer,
    /// Who has this name.
    Name(&'a [u8]),
}

/// What was received.
#[derive(Default)]
pub struct Received {
    /// Bytes in the program's buffer.
    pub len: usize,
    /// Bytes of the message.
    pub full_len: usize,
    /// What came beside them.
    pub extra: Option<Extra>,
}

impl Received {
    /// The sender's address.
    pub fn from(&self) -> Option<&Address> {
        self.extra.as_ref()?.from.as_deref()
    }
}

/// Zeroed bytes for a message. ENOMEM also where programs that run need what is left: a message stays as long as nobody receives it.
fn buffer(len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    if !frame::above_reserve(1) || bytes.try_reserve_exact(len).is_err() {
        return Err(errno::ENOMEM);
    }
    bytes.resize(len, 0);
    Ok(bytes)
}

impl Socket {
    /// Send what `from` has, with `extra`. Errors: EPIPE (of a stream with SIGPIPE), ENOTCONN, EISCONN, EOPNOTSUPP, EAGAIN, EMSGSIZE, ECONNREFUSED,
    /// EPERM where the receiver hears another alone, ETOOMANYREFS, EFAULT, ENOMEM.
    pub fn send(&self, from: &mut UserBuffer, to: To, extra: Extra, options: &Options) -> Result<usize, Errno> {
        match self.kind {
            Kind::Stream => {
                let sent = self.send_stream(from, to, extra, options);
                if sent == Err(errno::EPIPE) && !options.no_signal {
                    current::raise_sigpipe();
                }
                sent
            }
            _ => self.send_message(from, to, extra, options),
        }
    }

    fn send_stream(&self, from: &mut UserBuffer, to: To, mut extra: Extra, options: &Options) -> Result<usize, Errno> {
        let peer = {
            let state = self.state.lock();
            let connected = match (&state.role, to) {
                (Role::Connected(_), To::Name(_)) => return Err(errno::EISCONN),
                (_, To::Name(_)) => return Err(errno::EOPNOTSUPP),
                (Role::Connected(peer), To::Peer) => peer.upgrade(),
                (_, To::Peer) => return Err(errno::ENOTCONN),
            };
            connected.filter(|_| state.ended & SEND == 0)
        };
        let peer = peer.ok_or(errno::EPIPE)?;
        extra.from = self.address();
        let (mut done, mut extra) = (0, Some(extra));
        while from.left() > 0 {
            let sent = (|| {
                self.fail_if_told()?;
                let mut bytes = buffer(from.left().min(CHUNK))?;
                let n = from.take(&mut bytes)?;
                bytes.truncate(n);
                // Files go with the first bytes.
                let extra = extra.take().unwrap_or_else(Extra::none);
                self.put(&peer, Message { bytes, start: 0, extra }, options)?;
                Ok(n)
            })();
            match sent {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn send_message(&self, from: &mut UserBuffer, to: To, mut extra: Extra, options: &Options) -> Result<usize, Errno> {
        let is_record = self.kind == Kind::Record;
        let target = match (to, &self.state.lock().role) {
            (To::Name(name), _) if !is_record => Some(name),
            (_, Role::Connected(_)) => None,
            _ => return Err(errno::ENOTCONN),
        };
        let len = from.left();
        if len > LONGEST {
            return Err(errno::EMSGSIZE);
        }
        self.fail_if_told()?;
        let gone = if is_record { errno::EPIPE } else { errno::ECONNREFUSED };
        let target = match target {
            Some(name) => address::find(name, self.kind)?,
            None => self.peer().ok_or(gone)?,
        };
        let mut bytes = buffer(len)?;
        from.take(&mut bytes)?;
        extra.from = self.address();
        self.put(&target, Message { bytes, start: 0, extra }, options)?;
        Ok(len)
    }

    /// Put `message` into the inbox of `target` when there is room.
    fn put(&self, target: &Arc<Socket>, message: Message, options: &Options) -> Result<(), Errno> {
        let is_datagram = self.kind == Kind::Datagram;
        // Who receives from a connection wakes its peer; who receives datagrams wakes all who wait to send some.
        let queue = if is_datagram { &target.sendable } else { &self.sendable };
        let len = message.bytes.len();
        let mut message = Some(message);
        let attempt = || {
            if self.state.lock().ended & SEND != 0 {
                return Some(Err(errno::EPIPE));
            }
            // Where there is no room, no circle is looked for.
            let fits = target.state.lock().inbox.fits(len);
            let _passing = match passing::allow(&message.as_ref()?.extra.files, target) {
                Err(e) if fits => return Some(Err(e)),
                allowed => allowed,
            };
            let mut state = target.state.lock();
            if state.closed {
                return Some(Err(if is_datagram { errno::ECONNREFUSED } else { errno::EPIPE }));
            }
            if state.ended & RECEIVE != 0 {
                return Some(Err(errno::EPIPE));
            }
            if let (true, Role::Connected(other)) = (is_datagram, &state.role)
                && !core::ptr::eq(other.as_ptr(), self)
            {
                return Some(Err(errno::EPERM));
            }
            if !fits || !state.inbox.fits(len) {
                return None;
            }
            let message = message.take()?;
            match self.kind {
                Kind::Stream => join(&mut state.inbox, message),
                _ => state.inbox.push(message),
            }
            Some(Ok(()))
        };
        wait(queue, options.nonblock, limit(&self.send_limit_ns), attempt)?;
        target.receivable.wake_all();
        Ok(())
    }

    /// Receive into `to`. Errors: EAGAIN, ENOTCONN, EINVAL (a stream that is not connected), ECONNRESET, EFAULT, ENOMEM.
    pub fn receive(&self, to: &mut UserBuffer, options: &Options) -> Result<Received, Errno> {
        match self.kind {
            Kind::Stream => self.receive_stream(to, options),
            _ => self.receive_message(to, options),
        }
    }

    /// Wait until the inbox has something, and give what `take` makes of it; `None` at the end.
    fn take_when_there<R>(
        &self,
        options: &Options,
        mut take: impl FnMut(&mut Inbox) -> Result<R, Errno>,
    ) -> Result<Option<R>, Errno> {
        let look = || {
            let mut state = self.state.lock();
            // A stream says what went wrong behind the bytes that came before, others at once.
            if state.error != 0 && (self.kind != Kind::Stream || state.inbox.is_empty()) {
                return Some(Err(Errno(core::mem::take(&mut state.error))));
            }
            if !state.inbox.is_empty() {
                return Some(take(&mut state.inbox).map(Some));
            }
            if state.ended & RECEIVE != 0 {
                return Some(Ok(None));
            }
            match (self.kind, &state.role) {
                (Kind::Datagram, _) | (_, Role::Connected(_)) => None,
                (Kind::Stream, _) => Some(Err(errno::EINVAL)),
                (Kind::Record, _) => Some(Err(errno::ENOTCONN)),
            }
        };
        let found = wait(&self.receivable, options.nonblock, limit(&self.receive_limit_ns), look);
        if matches!(found, Ok(Some(_))) && !options.peek {
            self.wake_senders();
        }
        found
    }

    fn receive_stream(&self, to: &mut UserBuffer, options: &Options) -> Result<Received, Errno> {
        let apart = self.wants_credentials.load(Ordering::Relaxed);
        let mut received = Received::default();
        // Nothing asked for: nothing waited for.
        while to.left() > 0 {
            // What the next call is told (an error, the end) stays for it.
            if received.len > 0 && !options.wait_all && self.state.lock().inbox.is_empty() {
                break;
            }
            let most = if options.peek { to.left() } else { to.left().min(CHUNK) };
            let nonblock = options.nonblock || received.len > 0 && !options.wait_all;
            let found = self.take_when_there(&Options { nonblock, ..*options }, |inbox| {
                gather(inbox, most, options.peek, apart, received.extra.as_ref())
            });
            let (bytes, extra) = match found {
                Ok(Some(Some(found))) => found,
                Ok(_) => break, // the end, or another sender's
                Err(_) if received.len > 0 => break,
                Err(e) => return Err(e),
            };
            let (len, has_files) = (bytes.len(), !extra.files.is_empty());
            let n = to.put(&bytes).unwrap_or(0);
            if n == 0 {
                self.put_back(Message { bytes, start: 0, extra }, options);
                if received.len == 0 {
                    return Err(errno::EFAULT);
                }
                break;
            }
            if n < len {
                self.put_back(Message { bytes, start: n, extra: extra.rest() }, options);
            }
            received.len += n;
            if has_files || received.extra.is_none() {
                received.extra = Some(extra);
            }
            if options.peek || has_files || n < len {
                break;
            }
        }
        received.full_len = received.len;
        Ok(received)
    }

    /// The program had no memory for `message`, or for its end: as if it had not been taken.
    fn put_back(&self, mut message: Message, options: &Options) {
        if options.peek {
            return;
        }
        // It has been out of the inbox: a circle may have been made without it, which it may not close.
        let passing = passing::allow(&message.extra.files, self);
        let dropped = if passing.is_err() { core::mem::take(&mut message.extra.files) } else { Passed::default() };
        self.state.lock().inbox.put_back(message);
        drop(passing);
        drop(dropped);
        self.receivable.wake_all();
    }

    fn receive_message(&self, to: &mut UserBuffer, options: &Options) -> Result<Received, Errno> {
        let room = to.left();
        let found = self.take_when_there(options, |inbox| {
            if !options.peek {
                let message = inbox.pop();
                return Ok(message.map(|m| (m.bytes.len(), m.bytes, m.extra)));
            }
            let Some(message) = inbox.get_mut(0) else { return Ok(None) };
            let shown = &message.bytes[..message.bytes.len().min(room)];
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(shown.len()).map_err(|_| errno::ENOMEM)?;
            bytes.extend_from_slice(shown);
            Ok(Some((message.bytes.len(), bytes, message.extra.clone())))
        })?;
        let Some((full_len, bytes, extra)) = found.flatten() else { return Ok(Received::default()) };
        let len = to.put(&bytes[..bytes.len().min(room)])?;
        Ok(Received { len, full_len, extra: Some(extra) })
    }
}

/// Add `message` of a stream, as part of the last one where nothing keeps them apart.
fn join(inbox: &mut Inbox, message: Message) {
    if !message.extra.files.is_empty() || !inbox.append(&message, JOINED) {
        inbox.push(message);
    }
}

/// Take up to `most` bytes of a stream, and what came beside them: to the end of a message that has files, and if `apart` to the end of
/// what one sender sent, which is `before`'s if that is there; `None` at that end.
fn gather(
    inbox: &mut Inbox,
    most: usize,
    peek: bool,
    apart: bool,
    before: Option<&Extra>,
) -> Result<Option<(Vec<u8>, Extra)>, Errno> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(most.min(inbox.bytes())).map_err(|_| errno::ENOMEM)?;
    let mut extra: Option<Extra> = None;
    let mut at = 0;
    while bytes.len() < most {
        let Some(message) = inbox.get_mut(at) else { break };
        let sender = extra.as_ref().or(before).map(|e| e.credentials);
        if apart && sender.is_some_and(|s| s != message.extra.credentials) {
            break;
        }
        let left = &message.bytes[message.start..];
        let n = left.len().min(most - bytes.len());
        bytes.extend_from_slice(&left[..n]);
        let (is_all, has_files) = (n == left.len(), !message.extra.files.is_empty());
        if has_files || extra.is_none() {
            let mut taken = message.extra.rest();
            taken.files = if peek { message.extra.files.clone() } else { core::mem::take(&mut message.extra.files) };
            extra = Some(taken);
        }
        if peek {
            at += 1;
        } else {
            inbox.consume(n);
            if is_all {
                inbox.pop();
            }
        }
        if has_files || !is_all {
            break;
        }
    }
    Ok(extra.map(|extra| (bytes, extra)))
}

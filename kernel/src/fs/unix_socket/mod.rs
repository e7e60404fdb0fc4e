//! Unix sockets: streams, datagrams and records within the machine, with descriptors and credentials on the way.
//!
//! Process context. Each socket has an inbox, into which its peer puts messages; a stream's reader joins them again. Two sockets' states
//! have one rank and are never locked together. A peer is known weakly: who closes is gone at once, and what it sent
//! stays. Descriptors on their way are kept open by the inbox that they lie in, which `passing` keeps from being its own, and counts.
//! Source: unix(7), socket(7), send(2), recv(2).

mod address;
mod connection;
mod inbox;
mod passing;
mod transfer;

pub use address::{Address, bind};
pub use connection::{accept, connect, listen, new_pair};
pub use inbox::{Credentials, Extra};
pub use passing::Passed;
pub use transfer::{Options, To};

use super::inode::{Stat, device_number, mode, new_ino};
use super::open_file::{File, How, poll};
use super::user_buffer::UserBuffer;
use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use inbox::Inbox;

/// Bytes that an inbox takes (Linux's default of SO_SNDBUF).
pub const CAPACITY: usize = 212_992;

/// What a socket carries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Bytes.
    Stream,
    /// Messages, each on its own.
    Datagram,
    /// Messages over a connection.
    Record,
}

/// Bits of `State::ended`: this end receives (sends) no more.
const RECEIVE: u8 = 1;
const SEND: u8 = 2;

enum Role {
    Alone,
    /// Connections that nobody has accepted yet, and how many there may be.
    Listens(VecDeque<Arc<Socket>>, usize),
    /// A datagram socket may be connected to one that is gone.
    Connected(Weak<Socket>),
}

struct State {
    role: Role,
    address: Option<Arc<Address>>,
    /// The peer's, as it was when they were connected.
    peer_address: Option<Arc<Address>>,
    peer_credentials: Option<Credentials>,
    inbox: Inbox,
    ended: u8,
    /// What the next call is told (SO_ERROR); 0: nothing.
    error: u64,
    closed: bool,
}

/// One socket.
pub struct Socket {
    /// What it carries.
    pub kind: Kind,
    state: SpinLock<State, { rank::FILE }>,
    /// Woken when there may be something to receive or to accept.
    receivable: WaitQueue,
    /// Woken when the peer's inbox may have room, and for datagrams also when this one may.
    sendable: WaitQueue,
    /// SO_PASSCRED.
    pub wants_credentials: AtomicBool,
    /// SO_RCVTIMEO in ns; 0: none.
    pub receive_limit_ns: AtomicU64,
    /// SO_SNDTIMEO, likewise.
    pub send_limit_ns: AtomicU64,
    ino: u64,
}

impl Socket {
    /// One that is neither bound nor connected.
    pub fn new(kind: Kind) -> Arc<Socket> {
        let state = State {
            role: Role::Alone,
            address: None,
            peer_address: None,
            peer_credentials: None,
            inbox: Inbox::default(),
            ended: 0,
            error: 0,
            closed: false,
        };
        Arc::new(Socket {
            kind,
            state: SpinLock::new(state),
            receivable: WaitQueue::new(),
            sendable: WaitQueue::new(),
            wants_credentials: AtomicBool::new(false),
            receive_limit_ns: AtomicU64::new(0),
            send_limit_ns: AtomicU64::new(0),
            ino: new_ino(),
        })
    }

    fn is_connection(&self) -> bool {
        self.kind != Kind::Datagram
    }

    /// The socket at the other end, if it is still there.
    fn peer(&self) -> Option<Arc<Socket>> {
        match &self.state.lock().role {
            Role::Connected(peer) => peer.upgrade(),
            _ => None,
        }
    }

    /// Whether `sender`, which is connected to this one, is told that it may send.
    fn has_room_for(&self, sender: &Socket) -> bool {
        let state = self.state.lock();
        // Who receives datagrams wakes its own peer alone. Others are told at once, and sending tells them to wait.
        let tells =
            self.is_connection() || matches!(&state.role, Role::Connected(p) if core::ptr::eq(p.as_ptr(), sender));
        !tells || state.inbox.has_room()
    }

    /// There is room in the inbox: for who is connected to it, and for datagrams of anybody.
    fn wake_senders(&self) {
        if let Some(peer) = self.peer() {
            peer.sendable.wake_all();
        }
        if !self.is_connection() {
            self.sendable.wake_all();
        }
    }

    fn wake(&self) {
        self.receivable.wake_all();
        self.sendable.wake_all();
    }

    fn end(&self, what: u8) {
        self.state.lock().ended |= what;
        self.wake();
    }

    /// shutdown(2): 0 receiving, 1 sending, 2 both. What has been received can still be read.
    pub fn shut_down(&self, how: u64) -> Result<(), Errno> {
        let what = match how as i32 {
            0 => RECEIVE,
            1 => SEND,
            2 => RECEIVE | SEND,
            _ => return Err(errno::EINVAL),
        };
        self.end(what);
        if self.is_connection()
            && let Some(peer) = self.peer()
        {
            let peers = ((what & RECEIVE != 0) as u8 * SEND) | ((what & SEND != 0) as u8 * RECEIVE);
            peer.end(peers);
        }
        Ok(())
    }

    /// Nobody has it open any more, or shall have. What was on its way to it, for the caller to drop.
    fn close(&self) -> Vec<Passed> {
        let mut state = self.state.lock();
        if core::mem::replace(&mut state.closed, true) {
            return Vec::new();
        }
        let unread = !state.inbox.is_empty();
        let mut left = state.inbox.take_files();
        let role = core::mem::replace(&mut state.role, Role::Alone);
        let address = state.address.take();
        state.ended = RECEIVE | SEND;
        drop(state);
        if let Some(address) = address {
            address.forget(self);
        }
        match role {
            Role::Connected(peer) if self.is_connection() => {
                if let Some(peer) = peer.upgrade() {
                    let mut state = peer.state.lock();
                    if unread {
                        state.error = errno::ECONNRESET.0;
                    }
                    drop(state);
                    peer.end(RECEIVE | SEND);
                }
            }
            Role::Listens(waiting, _) => {
                for embryo in waiting {
                    // Its peer is told as if something had been left unread.
                    if let Some(peer) = embryo.peer() {
                        peer.state.lock().error = errno::ECONNRESET.0;
                    }
                    left.append(&mut embryo.close());
                }
            }
            _ => {}
        }
        // Who waits for room in this inbox is told that there is none.
        self.wake();
        left
    }

    /// SO_ERROR: what waits to be told, once.
    pub fn take_error(&self) -> u64 {
        core::mem::take(&mut self.state.lock().error)
    }

    /// `error` is what the next call is told.
    pub fn keep_error(&self, error: Errno) {
        self.state.lock().error = error.0;
    }

    /// What waits to be told, once, as the next call's failure.
    pub fn fail_if_told(&self) -> Result<(), Errno> {
        match self.take_error() {
            0 => Ok(()),
            error => Err(Errno(error)),
        }
    }

    /// Whether it listens (SO_ACCEPTCONN).
    pub fn listens(&self) -> bool {
        matches!(self.state.lock().role, Role::Listens(..))
    }

    /// SO_PEERCRED: who connected, or listened, at the other end.
    pub fn peer_credentials(&self) -> Option<Credentials> {
        self.state.lock().peer_credentials
    }

    /// Its address.
    pub fn address(&self) -> Option<Arc<Address>> {
        self.state.lock().address.clone()
    }

    /// The peer's address. ENOTCONN.
    pub fn peer_address(&self) -> Result<Option<Arc<Address>>, Errno> {
        let state = self.state.lock();
        let Role::Connected(peer) = &state.role else { return Err(errno::ENOTCONN) };
        let (peer, known) = (peer.upgrade(), state.peer_address.clone());
        drop(state);
        Ok(peer.and_then(|p| p.address()).or(known))
    }
}

impl File for Socket {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let options = Options { nonblock: how.nonblock(), ..Default::default() };
        self.receive(to, &options).map(|received| received.len)
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let options = Options { nonblock: how.nonblock(), ..Default::default() };
        self.send(from, To::Peer, Extra::none(), &options)
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let state = self.state.lock();
        let mut now = 0;
        if state.error != 0 {
            now |= poll::ERR;
        }
        if state.ended & RECEIVE != 0 {
            now |= poll::IN | poll::RDNORM | poll::RDHUP;
        }
        if state.ended == RECEIVE | SEND {
            now |= poll::HUP;
        }
        if !state.inbox.is_empty() {
            now |= poll::IN | poll::RDNORM;
        }
        let peer = match &state.role {
            Role::Listens(waiting, _) => {
                return now | if waiting.is_empty() { 0 } else { poll::IN | poll::RDNORM };
            }
            Role::Alone => {
                let hung_up = if self.is_connection() { poll::HUP } else { 0 };
                return now | hung_up | poll::OUT | poll::WRNORM;
            }
            Role::Connected(peer) => peer.upgrade(),
        };
        drop(state);
        if peer.is_none_or(|peer| peer.has_room_for(self)) {
            now |= poll::OUT | poll::WRNORM;
        }
        now
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.receivable), Some(&self.sendable)]
    }

    fn stat(&self) -> Stat {
        Stat { dev: device_number::ANONYMOUS, ino: self.ino, mode: mode::SOCK | 0o777, nlink: 1, ..Stat::default() }
    }

    fn release(&self, _: u32) {
        drop(self.close());
    }

    fn readable_bytes(&self) -> Option<usize> {
        let state = self.state.lock();
        Some(if self.kind == Kind::Stream { state.inbox.bytes() } else { state.inbox.first_len() })
    }

    fn as_socket(self: Arc<Self>) -> Option<Arc<Socket>> {
        Some(self)
    }
}

/// Wait in `queue` until `ready` gives something; EAGAIN at once if `nonblock`, or after `limit_ns` if that is not 0.
fn wait<R>(
    queue: &WaitQueue,
    nonblock: bool,
    limit_ns: u64,
    mut ready: impl FnMut() -> Option<Result<R, Errno>>,
) -> Result<R, Errno> {
    if nonblock {
        return ready().unwrap_or(Err(errno::EAGAIN));
    }
    let deadline_tsc = (limit_ns != 0).then(|| tsc::now().saturating_add(tsc::ns_to_ticks(limit_ns)));
    match super::waiting::wait_any(&[queue], deadline_tsc, ready) {
        Ok(result) => result.unwrap_or(Err(errno::EAGAIN)),
        // Started again, it would wait for the whole limit once more (signal(7)).
        Err(errno::ERESTARTSYS) if limit_ns != 0 => Err(errno::EINTR),
        Err(e) => Err(e),
    }
}

/// A time limit as `wait` takes it.
fn limit(of: &AtomicU64) -> u64 {
    of.load(Ordering::Relaxed)
}

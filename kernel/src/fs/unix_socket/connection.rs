//! Connections: pairs, listening, connecting, accepting.
//!
//! Process context. Source: socketpair(2), listen(2), connect(2), accept(2).

use super::inbox::Credentials;
use super::{Kind, RECEIVE, Role, Socket, address, limit, wait};
use crate::errno::{self, Errno};
use crate::mm::frame;
use alloc::collections::VecDeque;
use alloc::sync::Arc;

/// Connections that wait at most (Linux's net.core.somaxconn).
const MOST_WAITING: usize = 4096;

/// `one` has `other` as its peer from now on.
fn join(one: &Socket, other: &Arc<Socket>, credentials: Credentials) {
    let peer_address = other.address();
    let mut state = one.state.lock();
    state.role = Role::Connected(Arc::downgrade(other));
    state.peer_address = peer_address;
    state.peer_credentials = Some(credentials);
}

/// Two that are connected.
pub fn new_pair(kind: Kind) -> [Arc<Socket>; 2] {
    let (one, other) = (Socket::new(kind), Socket::new(kind));
    let me = Credentials::own();
    join(&one, &other, me);
    join(&other, &one, me);
    [one, other]
}

/// listen(2). EOPNOTSUPP for datagrams; EINVAL: it is connected, or has no address.
pub fn listen(socket: &Socket, backlog: u64) -> Result<(), Errno> {
    if !socket.is_connection() {
        return Err(errno::EOPNOTSUPP);
    }
    // Negative is as much as there can be.
    let most = (backlog as u32 as usize).min(MOST_WAITING);
    let mut state = socket.state.lock();
    if state.address.is_none() {
        return Err(errno::EINVAL);
    }
    match &mut state.role {
        Role::Connected(_) => return Err(errno::EINVAL),
        Role::Listens(_, old) => *old = most,
        Role::Alone => state.role = Role::Listens(VecDeque::new(), most),
    }
    state.peer_credentials = Some(Credentials::own());
    drop(state);
    socket.sendable.wake_all();
    Ok(())
}

/// connect(2) to what has `name`; for datagrams it may be empty, which ends a connection. ECONNREFUSED, EPROTOTYPE, EISCONN, EINVAL, EAGAIN
/// where as many wait as may, and the errors of paths.
pub fn connect(socket: &Arc<Socket>, name: &[u8], nonblock: bool) -> Result<(), Errno> {
    if socket.kind == Kind::Datagram {
        let role = if name.is_empty() {
            Role::Alone
        } else {
            Role::Connected(Arc::downgrade(&address::find(name, socket.kind)?))
        };
        socket.state.lock().role = role;
        socket.wake();
        return Ok(());
    }
    match socket.state.lock().role {
        Role::Alone => {}
        Role::Listens(..) => return Err(errno::EINVAL),
        Role::Connected(_) => return Err(errno::EISCONN),
    }
    let listener = address::find(name, socket.kind)?;
    if !frame::above_reserve(1) {
        return Err(errno::ENOMEM);
    }
    let embryo = Socket::new(socket.kind);
    let (mine, its_address) = (Credentials::own(), listener.address());
    join(&embryo, socket, mine);
    embryo.state.lock().address = its_address.clone();
    let queue = || {
        let mut state = listener.state.lock();
        if state.ended & RECEIVE != 0 {
            return Some(Err(errno::ECONNREFUSED));
        }
        let credentials = state.peer_credentials;
        match &mut state.role {
            Role::Listens(waiting, most) if waiting.len() <= *most => {
                waiting.push_back(embryo.clone());
                Some(Ok(credentials.unwrap_or(mine)))
            }
            Role::Listens(..) => None,
            _ => Some(Err(errno::ECONNREFUSED)),
        }
    };
    // Who accepts it before this socket knows its peer finds it connected to one that says nothing yet.
    let credentials = wait(&listener.sendable, nonblock, limit(&socket.send_limit_ns), queue)?;
    let mut state = socket.state.lock();
    if !matches!(state.role, Role::Alone) {
        drop(state);
        // Another thread was first: this connection goes, and not with the other's.
        embryo.state.lock().role = Role::Alone;
        drop(embryo.close());
        return Err(errno::EISCONN);
    }
    state.role = Role::Connected(Arc::downgrade(&embryo));
    state.peer_address = its_address;
    state.peer_credentials = Some(credentials);
    drop(state);
    listener.receivable.wake_all();
    Ok(())
}

/// accept(2): the connection that has waited longest. EINVAL: it does not listen, or was shut down. EOPNOTSUPP for datagrams, EAGAIN.
pub fn accept(listener: &Socket, nonblock: bool) -> Result<Arc<Socket>, Errno> {
    if !listener.is_connection() {
        return Err(errno::EOPNOTSUPP);
    }
    let next = || {
        let mut state = listener.state.lock();
        let is_over = state.ended & RECEIVE != 0;
        match &mut state.role {
            Role::Listens(waiting, _) if !waiting.is_empty() || !is_over => waiting.pop_front().map(Ok),
            _ => Some(Err(errno::EINVAL)),
        }
    };
    let found = wait(&listener.receivable, nonblock, limit(&listener.receive_limit_ns), next)?;
    listener.sendable.wake_all();
    Ok(found)
}

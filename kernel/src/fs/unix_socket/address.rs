//! Names of Unix sockets: a path, or bytes without one (abstract).
//!
//! Process context. A path leads to an inode that knows its socket; abstract names are in a table. Both know it weakly.
//! Source: unix(7), "Address format".

use super::{Kind, Socket};
use crate::errno::{self, Errno};
use crate::fs::inode::{Inode, Kind as InodeKind, mode};
use crate::fs::{current, place, tree};
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use kcore::map_memory::give_back;

/// sun_path of a bound socket, as the program gave it: a path without its NUL, or a NUL and the abstract name.
pub struct Address(pub Vec<u8>);

/// Abstract names, each kind's own.
type Names = BTreeMap<(Kind, Vec<u8>), Weak<Socket>>;
static ABSTRACT: SpinLock<Names, { rank::PROCESS_PART }> = SpinLock::new(BTreeMap::new());

impl Address {
    fn is_abstract(&self) -> bool {
        self.0.first() == Some(&0)
    }

    /// Its socket is closed: an abstract name is free again, a path stays.
    pub(super) fn forget(&self, socket: &Socket) {
        if !self.is_abstract() {
            return;
        }
        let name = (socket.kind, self.0.clone());
        let mut names = ABSTRACT.lock();
        let mine = names.get(&name).is_some_and(|s| core::ptr::eq(s.as_ptr(), socket));
        let gone = if mine { names.remove(&name) } else { None };
        give_back(&mut names);
        drop(names);
        drop(gone);
    }
}

/// A name that nobody has, for `socket`.
fn free_name(socket: &Arc<Socket>) -> Arc<Address> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    loop {
        let name = format!("\0{:05x}", NEXT.fetch_add(1, Ordering::Relaxed) & 0xf_ffff).into_bytes();
        // There are more names than sockets.
        if let Ok(address) = take_name(socket, name) {
            return address;
        }
    }
}

/// `socket` has the abstract `name` from now on. EADDRINUSE.
fn take_name(socket: &Arc<Socket>, name: Vec<u8>) -> Result<Arc<Address>, Errno> {
    let key = (socket.kind, name.clone());
    let mut names = ABSTRACT.lock();
    if names.contains_key(&key) {
        return Err(errno::EADDRINUSE);
    }
    names.insert(key, Arc::downgrade(socket));
    Ok(Arc::new(Address(name)))
}

/// `socket` is what the path `name` leads to.
fn make_inode(socket: &Arc<Socket>, name: &[u8]) -> Result<Arc<Address>, Errno> {
    let found = place::find(&current::work_dir().place(), name, false)?;
    if found.child.is_some() {
        return Err(errno::EADDRINUSE);
    }
    let permissions = 0o777 & !current::work_dir().umask();
    let inode = Inode::new(mode::SOCK | permissions, InodeKind::Socket(Arc::downgrade(socket)));
    tree::create(&found, inode).map_err(|e| if e == errno::EEXIST { errno::EADDRINUSE } else { e })?;
    Ok(Arc::new(Address(name.to_vec())))
}

/// bind(2) to `name`; empty: to a free abstract name. EINVAL: it has an address. EADDRINUSE, and the errors of paths.
pub fn bind(socket: &Arc<Socket>, name: &[u8]) -> Result<(), Errno> {
    if socket.state.lock().address.is_some() {
        return Err(errno::EINVAL);
    }
    let address = match name {
        [] => free_name(socket),
        [0, ..] => take_name(socket, name.to_vec())?,
        path => make_inode(socket, path)?,
    };
    let mut state = socket.state.lock();
    if state.address.is_some() {
        drop(state);
        // Another thread was first.
        address.forget(socket);
        return Err(errno::EINVAL);
    }
    state.address = Some(address);
    Ok(())
}

/// The socket that has `name`. ECONNREFUSED: nobody has it. EPROTOTYPE: it is of another kind.
pub fn find(name: &[u8], kind: Kind) -> Result<Arc<Socket>, Errno> {
    let socket = if name.first() == Some(&0) {
        ABSTRACT.lock().get(&(kind, name.to_vec())).and_then(Weak::upgrade)
    } else {
        let found = place::resolve(&current::work_dir().place(), name, true)?;
        match &found.inode.kind {
            InodeKind::Socket(socket) => socket.upgrade(),
            _ => None,
        }
    };
    let socket = socket.filter(|s| !s.state.lock().closed).ok_or(errno::ECONNREFUSED)?;
    if socket.kind == kind { Ok(socket) } else { Err(errno::EPROTOTYPE) }
}

//! Open files on their way through sockets.
//!
//! A socket that lay in its own inbox, or in the inbox of one that lies in its own, would be kept open by nobody but itself, for ever. So a
//! message that would make such a circle is refused (ETOOMANYREFS), which is stricter than Linux, where a collector finds it
//! later. Every other descriptor may be passed. Circles are made by sending alone, and sending sockets is serialised here.

use super::{Role, Socket};
use crate::errno::{self, Errno};
use crate::fs::OpenFile;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Files on their way at most, of all processes: what a search for circles looks at, and what nobody's limit of descriptors counts.
const MOST: usize = 4096;
static ON_THEIR_WAY: AtomicUsize = AtomicUsize::new(0);

/// Files that a message carries; each is counted until it is taken or dropped.
#[derive(Default)]
pub struct Passed(Vec<Arc<OpenFile>>);

impl Passed {
    /// ETOOMANYREFS: too many are on their way.
    pub fn new(files: Vec<Arc<OpenFile>>) -> Result<Passed, Errno> {
        let passed = Passed(files);
        // It counts down again when it is dropped.
        let before = ON_THEIR_WAY.fetch_add(passed.0.len(), Ordering::Relaxed);
        if before + passed.0.len() > MOST { Err(errno::ETOOMANYREFS) } else { Ok(passed) }
    }

    /// No files.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// They have arrived.
    pub fn take(mut self) -> Vec<Arc<OpenFile>> {
        self.uncount()
    }

    fn uncount(&mut self) -> Vec<Arc<OpenFile>> {
        ON_THEIR_WAY.fetch_sub(self.0.len(), Ordering::Relaxed);
        core::mem::take(&mut self.0)
    }

    fn sockets(&self) -> impl Iterator<Item = Arc<Socket>> {
        self.0.iter().filter_map(|open| open.file.clone().as_socket())
    }
}

impl Clone for Passed {
    /// For who looks and leaves them: it ends within the call, and goes over the limit if need be.
    fn clone(&self) -> Passed {
        ON_THEIR_WAY.fetch_add(self.0.len(), Ordering::Relaxed);
        Passed(self.0.clone())
    }
}

impl Drop for Passed {
    /// The files may be sockets with files in their inboxes, and so on: one after the other, for kernel stacks are small.
    fn drop(&mut self) {
        let mut files = self.uncount();
        while let Some(open) = files.pop() {
            let Some(open) = Arc::into_inner(open) else { continue };
            if let Some(socket) = open.file.clone().as_socket() {
                for mut left in socket.close() {
                    files.append(&mut left.uncount());
                }
            }
        }
    }
}

static PASSING: SpinLock<(), { rank::PROCESS }> = SpinLock::new(());

/// Whether `files` may be put into the inbox of `to`: as long as the caller keeps what this gives, without sleeping. ETOOMANYREFS: one of them
/// would then lie in itself.
pub fn allow(files: &Passed, to: &Socket) -> Result<Option<impl Sized + use<>>, Errno> {
    let mut open: Vec<Arc<Socket>> = files.sockets().collect();
    if open.is_empty() {
        return Ok(None);
    }
    let passing = PASSING.lock();
    let mut seen: Vec<*const Socket> = Vec::new();
    while let Some(socket) = open.pop() {
        if core::ptr::eq(&*socket, to) {
            return Err(errno::ETOOMANYREFS);
        }
        let Err(place) = seen.binary_search(&Arc::as_ptr(&socket)) else { continue };
        seen.insert(place, Arc::as_ptr(&socket));
        let state = socket.state.lock();
        open.extend(state.inbox.passed().flat_map(Passed::sockets));
        if let Role::Listens(waiting, _) = &state.role {
            open.extend(waiting.iter().cloned());
        }
    }
    Ok(Some(passing))
}

//! A process's working directory, root and umask: what CLONE_FS shares and fork copies.

use super::place::Place;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// All three. The process holds it in an `Arc`.
pub struct WorkDir {
    place: SpinLock<Arc<Place>, { rank::PROCESS_PART }>,
    /// Where its absolute paths start, and `..` ends (chroot).
    root: SpinLock<Arc<Place>, { rank::PROCESS_PART }>,
    /// Whether that is not the machine's own, for which nobody takes the lock.
    has_root: AtomicBool,
    umask: AtomicU32,
}

impl WorkDir {
    /// `/` and 022, as Linux's init has them.
    pub fn new() -> Arc<WorkDir> {
        let (place, root) = (SpinLock::new(super::root()), SpinLock::new(super::root()));
        Arc::new(WorkDir { place, root, has_root: AtomicBool::new(false), umask: AtomicU32::new(0o022) })
    }

    /// A copy for a forked process.
    pub fn clone_dir(&self) -> Arc<WorkDir> {
        let (place, root) = (SpinLock::new(self.place()), SpinLock::new(self.root()));
        let has_root = AtomicBool::new(self.has_root.load(Ordering::Acquire));
        Arc::new(WorkDir { place, root, has_root, umask: AtomicU32::new(self.umask()) })
    }

    /// The working directory.
    pub fn place(&self) -> Arc<Place> {
        self.place.lock().clone()
    }

    /// Its root.
    pub fn root(&self) -> Arc<Place> {
        if !self.has_root.load(Ordering::Acquire) {
            return super::root();
        }
        self.root.lock().clone()
    }

    /// chroot(2). The caller checked that it is a directory.
    pub fn set_root(&self, place: Arc<Place>) {
        let old = core::mem::replace(&mut *self.root.lock(), place);
        self.has_root.store(true, Ordering::Release);
        drop(old);
    }

    /// Change the working directory. The caller checked that it is a directory.
    pub fn set_place(&self, place: Arc<Place>) {
        let old = core::mem::replace(&mut *self.place.lock(), place);
        drop(old);
    }

    /// Permission bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Set them; returns the old ones.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}

//! Mounts: what covers which directory. /proc, /sys and /dev are there from boot on.
//!
//! Process context. mount(2) knows the kernel's own file systems only.

use super::inode::Inode;
use super::place::Place;
use crate::errno::{self, Errno};
use crate::spin_lock::{SpinLock, rank};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;

struct Mount {
    covered: Arc<Inode>,
    root: Arc<Inode>,
    kind: &'static str,
    path: Vec<u8>,
}

static MOUNTS: SpinLock<Vec<Mount>, { rank::FILE }> = SpinLock::new(Vec::new());

/// Types that mount(2) takes, and /proc/filesystems shows.
pub const TYPES: [&str; 6] = ["sysfs", "tmpfs", "proc", "devtmpfs", "tracefs", "debugfs"];

/// The root of what is mounted on `inode`.
pub fn covering(inode: &Arc<Inode>) -> Option<Arc<Inode>> {
    MOUNTS.lock().iter().rev().find(|m| Arc::ptr_eq(&m.covered, inode)).map(|m| m.root.clone())
}

/// Cover `place` by `root`.
pub fn attach(place: &Place, root: Arc<Inode>, kind: &'static str) {
    let mount = Mount { covered: place.inode.clone(), root, kind, path: place.path() };
    MOUNTS.lock().push(mount);
    place.inode.covered.store(true, Ordering::Release);
}

/// mount(2) of a type on a directory. On the place where the type is mounted already: nothing.
pub fn mount(place: &Arc<Place>, kind: &[u8]) -> Result<(), Errno> {
    let kind = TYPES.iter().find(|t| t.as_bytes() == kind).copied().ok_or(errno::ENODEV)?;
    if !place.inode.is_dir() {
        return Err(errno::ENOTDIR);
    }
    if MOUNTS.lock().iter().any(|m| m.kind == kind && Arc::ptr_eq(&m.root, &place.inode)) {
        return Ok(());
    }
    let root = match kind {
        "proc" => super::proc::root_inode(),
        "sysfs" => super::sys::root_inode(),
        "devtmpfs" if MOUNTS.lock().iter().all(|m| m.kind != "devtmpfs") => super::device::new_directory(),
        // Its one directory is shared by all mounts, as in Linux.
        "devtmpfs" => {
            let mounts = MOUNTS.lock();
            mounts.iter().find(|m| m.kind == "devtmpfs").map(|m| m.root.clone()).ok_or(errno::ENODEV)?
        }
        "tracefs" => super::sys::tracing_root_inode(),
        "debugfs" => Inode::new_directory(0o555),
        _ => Inode::new_directory(0o1777),
    };
    attach(place, root, kind);
    Ok(())
}

/// umount2(2): take away what covers the directory whose place (root of the mount) is given.
pub fn unmount(place: &Arc<Place>) -> Result<(), Errno> {
    let mut mounts = MOUNTS.lock();
    let at = mounts.iter().rposition(|m| Arc::ptr_eq(&m.root, &place.inode)).ok_or(errno::EINVAL)?;
    let gone = mounts.remove(at);
    let still = mounts.iter().any(|m| Arc::ptr_eq(&m.covered, &gone.covered));
    gone.covered.covered.store(still, Ordering::Release);
    drop(mounts);
    Ok(())
}

/// /proc/mounts.
pub fn describe(out: &mut String) {
    let _ = writeln!(out, "rootfs / rootfs rw 0 0");
    let mounts = MOUNTS.lock();
    for m in mounts.iter() {
        let path = String::from_utf8_lossy(&m.path);
        let _ = writeln!(out, "{0} {path} {0} rw,relatime 0 0", m.kind);
    }
}

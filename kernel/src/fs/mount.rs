//! Mounts: what covers which directory. /proc, /sys and /dev are there from boot on.
//!
//! Process context. mount(2) knows the kernel's own file systems only. The table is read under SRCU and replaced as a whole: who walks a path
//! takes no lock for it, and who lists it may be preempted and may sleep.

use super::inode::Inode;
use super::place::Place;
use crate::errno::{self, Errno};
use crate::rcu::srcu::{self, SrcuCell};
use crate::spin_lock::{SpinLock, rank};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};

/// The mount that the root is.
pub const OF_ROOT: u64 = 0;
/// The mount of what is in no directory, as pipes are.
pub const NOWHERE: u64 = u64::MAX;
/// The number of the next mount. None is given twice.
static NEXT: AtomicU64 = AtomicU64::new(OF_ROOT + 1);

#[derive(Clone)]
struct Mount {
    id: u64,
    covered: Arc<Inode>,
    root: Arc<Inode>,
    kind: &'static str,
    path: Vec<u8>,
}

static MOUNTS: SrcuCell<Vec<Mount>> = SrcuCell::new(&srcu::MOUNTS);
/// Held while the table is replaced.
static CHANGING: SpinLock<(), { rank::FILE }> = SpinLock::new(());

/// Types that mount(2) takes, and /proc/filesystems shows.
pub const TYPES: [&str; 7] = ["sysfs", "tmpfs", "proc", "devtmpfs", "devpts", "tracefs", "debugfs"];

/// The root of what is mounted on `inode`, and the mount's number.
pub fn covering(inode: &Arc<Inode>) -> Option<(Arc<Inode>, u64)> {
    MOUNTS.read()?.iter().rev().find(|m| Arc::ptr_eq(&m.covered, inode)).map(|m| (m.root.clone(), m.id))
}

/// A changed copy comes in the table's place if `change` says so.
fn replace<R>(change: impl FnOnce(&mut Vec<Mount>) -> Result<R, Errno>) -> Result<R, Errno> {
    let serial = CHANGING.lock();
    let mut mounts = MOUNTS.read().map_or_else(Vec::new, |table| table.clone());
    let result = change(&mut mounts)?;
    MOUNTS.replace(mounts);
    drop(serial);
    Ok(result)
}

/// Whether a mount of which `is` holds is there; its root.
fn find(is: impl Fn(&Mount) -> bool) -> Option<Arc<Inode>> {
    MOUNTS.read()?.iter().find(|m| is(m)).map(|m| m.root.clone())
}

/// Cover `place` by `root`.
fn attach(place: &Place, root: Arc<Inode>, kind: &'static str) -> Result<(), Errno> {
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mount = Mount { id, covered: place.inode.clone(), root, kind, path: place.path() };
    replace(|mounts| {
        mounts.push(mount);
        // Who looks too soon does not find it in the table.
        place.inode.covered.store(true, Ordering::Release);
        Ok(())
    })
}

/// mount(2) of a type on a directory. On the place where the type is mounted already: nothing.
pub fn mount(place: &Arc<Place>, kind: &[u8]) -> Result<(), Errno> {
    let kind = TYPES.iter().find(|t| t.as_bytes() == kind).copied().ok_or(errno::ENODEV)?;
    if !place.inode.is_dir() {
        return Err(errno::ENOTDIR);
    }
    if find(|m| m.kind == kind && Arc::ptr_eq(&m.root, &place.inode)).is_some() {
        return Ok(());
    }
    let root = match kind {
        "proc" => super::proc::root_inode(),
        "sysfs" => super::sys::root_inode(),
        // Its one directory is shared by all mounts, as in Linux.
        "devtmpfs" => find(|m| m.kind == "devtmpfs").unwrap_or_else(super::device::new_directory),
        "devpts" => super::device::pts_root_inode(),
        "tracefs" => super::sys::tracing_root_inode(),
        "debugfs" => Inode::new_directory(0o555),
        _ => Inode::new_directory(0o1777),
    };
    attach(place, root, kind)
}

/// umount2(2): take away what covers the directory whose place (root of the mount) is given.
pub fn unmount(place: &Arc<Place>) -> Result<(), Errno> {
    replace(|mounts| {
        let at = mounts.iter().rposition(|m| Arc::ptr_eq(&m.root, &place.inode)).ok_or(errno::EINVAL)?;
        let gone = mounts.remove(at);
        let still = mounts.iter().any(|m| Arc::ptr_eq(&m.covered, &gone.covered));
        gone.covered.covered.store(still, Ordering::Release);
        Ok(())
    })
}

/// /proc/mounts.
pub fn describe(out: &mut String) {
    let _ = writeln!(out, "rootfs / rootfs rw 0 0");
    let Some(mounts) = MOUNTS.read() else { return };
    for m in mounts.iter() {
        let path = String::from_utf8_lossy(&m.path);
        let _ = writeln!(out, "{0} {path} {0} rw,relatime 0 0", m.kind);
    }
}

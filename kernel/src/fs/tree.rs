//! Changing the tree: creating, removing, linking and renaming.
//!
//! Process context. TREE serialises all changes, so a directory's own lock is held only for one map operation at a time.

use super::inode::{Directory, Inode, Kind, mode};
use super::pipe::Pipe;
use super::place::{Found, NAME_MAX, Place};
use crate::errno::{self, Errno};
use crate::mm::file_pages::FilePages;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;

static TREE: SpinLock<(), { rank::PROCESS_PART }> = SpinLock::new(());

fn directory(inode: &Inode) -> Result<&SpinLock<Directory, { rank::FILE }>, Errno> {
    match &inode.kind {
        Kind::Directory(d) => Ok(d),
        // Generated directories cannot be changed.
        Kind::Virtual(_) => Err(errno::EPERM),
        _ => Err(errno::ENOTDIR),
    }
}

/// Put `inode` under `name` in `parent`, where nothing of that name is.
pub fn insert(parent: &Inode, name: &[u8], inode: Arc<Inode>) -> Result<(), Errno> {
    if name.len() > NAME_MAX {
        return Err(errno::ENAMETOOLONG);
    }
    let mut d = directory(parent)?.lock();
    if d.dead {
        return Err(errno::ENOENT);
    }
    if d.entries.contains_key(name) {
        return Err(errno::EEXIST);
    }
    let number = d.next;
    d.next += 1;
    if inode.is_dir() {
        parent.nlink.fetch_add(1, Ordering::Relaxed);
    }
    d.entries.insert(name.into(), (number, inode));
    drop(d);
    Ok(())
}

/// Create what a path names and does not exist yet. A name that ends with a slash is for directories only.
pub fn create(found: &Found, inode: Arc<Inode>) -> Result<Arc<Place>, Errno> {
    if found.child.is_some() {
        return Err(errno::EEXIST);
    }
    if found.slash && !inode.is_dir() {
        return Err(errno::ENOENT);
    }
    if !crate::mm::frame::above_reserve(2) {
        return Err(errno::ENOSPC);
    }
    let _tree = TREE.lock();
    insert(&found.parent.inode, &found.name, inode.clone())?;
    found.parent.inode.touch();
    Ok(found.parent.with_child(&found.name, inode))
}

/// A new inode of the type in `mode_bits` (mknod's), not yet anywhere. `device`: encoded number.
pub fn new_node(mode_bits: u32, device: u64) -> Result<Arc<Inode>, Errno> {
    let permissions = mode_bits & 0o7777;
    let kind = match mode_bits & mode::FMT {
        0 | mode::REG => {
            return Ok(Inode::new(mode::REG | permissions, Kind::Regular(FilePages::zeros(0))));
        }
        mode::CHR | mode::BLK => {
            let (major, minor) = super::inode::decode_device(device);
            Kind::Device { major, minor }
        }
        mode::FIFO => Kind::Fifo(Pipe::new()),
        mode::SOCK => Kind::Socket(Weak::new()),
        mode::DIR => return Err(errno::EPERM),
        _ => return Err(errno::EINVAL),
    };
    Ok(Inode::new(mode_bits & (mode::FMT | 0o7777), kind))
}

/// A new symbolic link, not yet anywhere.
pub fn new_symlink(target: &[u8]) -> Arc<Inode> {
    Inode::new(mode::LNK | 0o777, Kind::Symlink(target.into()))
}

/// Take the name `name` out of `parent`.
fn take(parent: &Inode, name: &[u8]) -> Result<Arc<Inode>, Errno> {
    let (_, inode) = directory(parent)?.lock().entries.remove(name).ok_or(errno::ENOENT)?;
    if inode.is_dir() {
        parent.nlink.fetch_sub(1, Ordering::Relaxed);
    }
    parent.touch();
    Ok(inode)
}

/// Mark a directory as gone if it is empty.
fn kill_if_empty(inode: &Inode) -> Result<(), Errno> {
    let mut d = directory(inode)?.lock();
    if !d.entries.is_empty() {
        return Err(errno::ENOTEMPTY);
    }
    d.dead = true;
    inode.nlink.store(0, Ordering::Relaxed);
    Ok(())
}

/// unlink(2).
pub fn unlink(found: &Found) -> Result<(), Errno> {
    let child = found.child.as_ref().ok_or(errno::ENOENT)?;
    if child.inode.is_dir() {
        return Err(errno::EISDIR);
    }
    if found.slash {
        return Err(errno::ENOTDIR);
    }
    let tree = TREE.lock();
    let gone = take(&found.parent.inode, &found.name)?;
    gone.nlink.fetch_sub(1, Ordering::Relaxed);
    drop(tree);
    Ok(())
}

/// rmdir(2).
pub fn remove_directory(found: &Found) -> Result<(), Errno> {
    match &found.name[..] {
        b"." => return Err(errno::EINVAL),
        b".." => return Err(errno::ENOTEMPTY),
        b"" => return Err(errno::EBUSY),
        _ => {}
    }
    let child = found.child.as_ref().ok_or(errno::ENOENT)?;
    if !child.inode.is_dir() {
        return Err(errno::ENOTDIR);
    }
    let tree = TREE.lock();
    let really = found.parent.inode.lookup(&found.name)?;
    if really.covered.load(Ordering::Acquire) {
        return Err(errno::EBUSY);
    }
    directory(&found.parent.inode)?;
    kill_if_empty(&really)?;
    let gone = take(&found.parent.inode, &found.name)?;
    drop(tree);
    drop(gone);
    Ok(())
}

/// link(2): another name for `old`.
pub fn link(old: &Place, new: &Found) -> Result<(), Errno> {
    if old.inode.is_dir() {
        return Err(errno::EPERM);
    }
    if old.inode.dev != new.parent.inode.dev {
        return Err(errno::EXDEV);
    }
    create(new, old.inode.clone())?;
    old.inode.nlink.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// rename(2). `no_replace`: EEXIST if the new name exists (RENAME_NOREPLACE).
pub fn rename(old: &Found, new: &Found, no_replace: bool) -> Result<(), Errno> {
    if !old.is_plain_name() || !new.is_plain_name() {
        return Err(if no_replace && new.child.is_some() { errno::EEXIST } else { errno::EBUSY });
    }
    let moved = old.child.as_ref().ok_or(errno::ENOENT)?;
    if old.slash && !moved.inode.is_dir() || new.slash && !moved.inode.is_dir() {
        return Err(errno::ENOTDIR);
    }
    if no_replace && new.child.is_some() {
        return Err(errno::EEXIST);
    }
    if old.parent.inode.dev != new.parent.inode.dev {
        return Err(errno::EXDEV);
    }
    // A directory must not move into itself.
    let mut above = Some(&new.parent);
    while let Some(place) = above {
        if Arc::ptr_eq(&place.inode, &moved.inode) {
            return Err(errno::EINVAL);
        }
        above = place.parent.as_ref();
    }
    // Nor does anything take the place of a directory that it lies in: that one is not empty.
    let mut above = new.child.as_ref().and(Some(&old.parent));
    while let Some(place) = above {
        if new.child.as_ref().is_some_and(|target| Arc::ptr_eq(&place.inode, &target.inode)) {
            return Err(errno::ENOTEMPTY);
        }
        above = place.parent.as_ref();
    }
    let tree = TREE.lock();
    let inode = old.parent.inode.lookup(&old.name)?;
    if inode.covered.load(Ordering::Acquire) {
        return Err(errno::EBUSY);
    }
    directory(&old.parent.inode)?;
    let mut replaced = None;
    match new.parent.inode.lookup(&new.name) {
        Ok(target) if Arc::ptr_eq(&target, &inode) => return Ok(()),
        Ok(target) => {
            if target.covered.load(Ordering::Acquire) {
                return Err(errno::EBUSY);
            }
            match (inode.is_dir(), target.is_dir()) {
                (true, false) => return Err(errno::ENOTDIR),
                (false, true) => return Err(errno::EISDIR),
                (true, true) => kill_if_empty(&target)?,
                (false, false) => {
                    target.nlink.fetch_sub(1, Ordering::Relaxed);
                }
            }
            replaced = Some(take(&new.parent.inode, &new.name)?);
        }
        Err(errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    insert(&new.parent.inode, &new.name, inode)?;
    let gone = take(&old.parent.inode, &old.name)?;
    new.parent.inode.touch();
    drop(tree);
    drop((gone, replaced));
    Ok(())
}

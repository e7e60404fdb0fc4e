//! Places: an inode together with the way by which it was reached; and path resolution.
//!
//! Process context. A place knows its parent, so `..` and getcwd need nothing else; a rename does not change places that exist already.
//! Source: path_resolution(7).

use super::inode::Inode;
use crate::errno::{self, Errno};
use crate::mm::address_space::Name;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// The longest name (Linux's NAME_MAX).
pub const NAME_MAX: usize = 255;
/// The longest path with its NUL (Linux's PATH_MAX).
pub const PATH_MAX: usize = 4096;
/// Symbolic links followed in one resolution (Linux's MAXSYMLINKS).
const MAX_LINKS: u32 = 40;

/// An inode and how it was reached.
pub struct Place {
    /// What is there.
    pub inode: Arc<Inode>,
    /// Its name in the parent; empty for the root, a text like `pipe:[7]` for what is in no directory.
    pub name: Box<[u8]>,
    /// The directory that it is in, if any.
    pub parent: Option<Arc<Place>>,
    /// The mount that it is in (`mount::covering`). Device numbers do not tell: several file systems have the root's.
    pub mount: u64,
}

impl Place {
    /// Whether it is where `other` is, however either was reached.
    pub fn is(&self, other: &Place) -> bool {
        self.mount == other.mount && self.inode.is(&other.inode)
    }

    /// The absolute path.
    pub fn path(&self) -> Vec<u8> {
        self.path_below(None)
    }

    /// The path as a process with the root `root` has it. `None`: it is not below that.
    pub fn path_from(&self, root: &Place) -> Option<Vec<u8>> {
        let mut at = self;
        while !at.is(root) {
            at = at.parent.as_ref()?;
        }
        Some(self.path_below(Some(root)))
    }

    /// As a link in /proc shows it to the running process: from its root, or the whole where it is not below that.
    pub fn shown_path(&self) -> Vec<u8> {
        self.path_from(&super::current::root()).unwrap_or_else(|| self.path())
    }

    fn path_below(&self, root: Option<&Place>) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent
            && root.is_none_or(|root| !at.is(root))
        {
            names.push(&at.name);
            at = parent;
        }
        if names.is_empty() && root.is_some() {
            return b"/".to_vec();
        }
        if names.is_empty() {
            // What is in no directory has a name for people.
            return if self.name.is_empty() { b"/".to_vec() } else { self.name.to_vec() };
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    /// What a mapping of the file is called.
    pub fn name_for_maps(&self) -> Name {
        Name { path: self.path().into(), file: (self.inode.dev, self.inode.ino) }
    }

    /// The entry `name` of this directory, through what is mounted on it.
    pub fn child(self: &Arc<Place>, name: &[u8]) -> Result<Arc<Place>, Errno> {
        if name.len() > NAME_MAX {
            return Err(errno::ENAMETOOLONG);
        }
        let inode = self.inode.lookup(name)?;
        Ok(self.with_child(name, inode))
    }

    /// The place of `inode` under `name` in this directory.
    pub fn with_child(self: &Arc<Place>, name: &[u8], mut inode: Arc<Inode>) -> Arc<Place> {
        let mut mount = self.mount;
        while inode.covered.load(Ordering::Acquire) {
            match super::mount::covering(&inode) {
                Some(covering) => (inode, mount) = covering,
                None => break,
            }
        }
        Arc::new(Place { inode, name: name.into(), parent: Some(self.clone()), mount })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A long chain must not be dropped by recursion: kernel stacks are small.
        let mut next = self.parent.take();
        while let Some(parent) = next {
            match Arc::into_inner(parent) {
                Some(mut alone) => next = alone.parent.take(),
                None => break,
            }
        }
    }
}

/// Where a path led.
pub struct Found {
    /// The directory that holds the last name.
    pub parent: Arc<Place>,
    /// The last name; `.`, `..` or empty (root) where the path ended so.
    pub name: Vec<u8>,
    /// What is there, if it exists.
    pub child: Option<Arc<Place>>,
    /// The path ended with a slash: only a directory will do.
    pub slash: bool,
}

impl Found {
    /// Whether the last component is a name proper, that could be created or removed.
    pub fn is_plain_name(&self) -> bool {
        !matches!(&self.name[..], b"" | b"." | b"..")
    }
}

/// What a path may not do: the bits of openat2(2)'s `resolve`, Linux's numbers (linux/openat2.h).
pub mod rule {
    /// Enter or leave a mount.
    pub const NO_XDEV: u64 = 1;
    /// Follow a link whose target is no path, as those in /proc/PID/fd are.
    pub const NO_MAGICLINKS: u64 = 2;
    /// Follow a symbolic link.
    pub const NO_SYMLINKS: u64 = 4;
    /// Leave the directory that it starts in: a path that would is refused.
    pub const BENEATH: u64 = 8;
    /// The same, but that directory is its root.
    pub const IN_ROOT: u64 = 16;
    /// Wait for what is not in memory: nothing has to.
    pub const CACHED: u64 = 32;
}

/// Follow `path` from `start` (or the root). `follow`: a symbolic link at the end is followed. The last name may be missing.
pub fn find(start: &Arc<Place>, path: &[u8], follow: bool) -> Result<Found, Errno> {
    find_by(start, path, follow, 0)
}

/// What one resolution starts from.
struct Walk<'a> {
    start: &'a Arc<Place>,
    rules: u64,
    /// The caller's root, once it was needed: a chroot meanwhile does not move it.
    root: Option<Arc<Place>>,
}

impl Walk<'_> {
    fn root(&mut self) -> &Arc<Place> {
        self.root.get_or_insert_with(super::current::root)
    }

    /// Where an absolute path starts.
    fn top(&mut self) -> Result<Arc<Place>, Errno> {
        match () {
            () if self.rules & rule::IN_ROOT != 0 => Ok(self.start.clone()),
            () if self.rules & rule::BENEATH != 0 => Err(errno::EXDEV),
            () => Ok(self.root().clone()),
        }
    }

    /// The directory above `at`.
    fn above(&mut self, at: &Arc<Place>) -> Result<Arc<Place>, Errno> {
        if self.rules & (rule::BENEATH | rule::IN_ROOT) != 0 && Arc::ptr_eq(at, self.start) {
            return if self.rules & rule::BENEATH != 0 { Err(errno::EXDEV) } else { Ok(at.clone()) };
        }
        match &at.parent {
            Some(parent) if !at.is(self.root()) => Ok(parent.clone()),
            _ => Ok(at.clone()),
        }
    }
}

/// `find` under `rules` (`rule`).
pub fn find_by(start: &Arc<Place>, path: &[u8], follow: bool, rules: u64) -> Result<Found, Errno> {
    if path.is_empty() {
        return Err(errno::ENOENT);
    }
    if path.len() >= PATH_MAX {
        return Err(errno::ENAMETOOLONG);
    }
    let mut expanded: Vec<u8>;
    let mut rest = path;
    let mut walk = Walk { start, rules, root: None };
    let mut at = if path[0] == b'/' { walk.top()? } else { start.clone() };
    let mut links = 0;
    loop {
        let begin = rest.iter().position(|&b| b != b'/').unwrap_or(rest.len());
        rest = &rest[begin..];
        let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        let is_last = tail.iter().all(|&b| b == b'/');
        let slash = is_last && !tail.is_empty();
        let next = match name {
            b"" => return Ok(Found { parent: at.clone(), name: Vec::new(), child: Some(at), slash: true }),
            b"." | b".." if !at.inode.is_dir() => return Err(errno::ENOTDIR),
            b"." => at.clone(),
            b".." => walk.above(&at)?,
            _ => match at.child(name) {
                Ok(place) => place,
                Err(errno::ENOENT) if is_last => {
                    return Ok(Found { parent: at, name: name.to_vec(), child: None, slash });
                }
                Err(e) => return Err(e),
            },
        };
        if rules & rule::NO_XDEV != 0 && next.mount != at.mount {
            return Err(errno::EXDEV);
        }
        if next.inode.is_symlink() && (!is_last || follow || slash) {
            links += 1;
            if links > MAX_LINKS || rules & rule::NO_SYMLINKS != 0 {
                return Err(errno::ELOOP);
            }
            if let Some(place) = next.inode.link_place() {
                let place = place?;
                if rules & rule::NO_MAGICLINKS != 0 {
                    return Err(errno::ELOOP);
                }
                let leaves = rules & rule::NO_XDEV != 0 && place.mount != at.mount;
                if leaves || rules & (rule::BENEATH | rule::IN_ROOT) != 0 {
                    return Err(errno::EXDEV);
                }
                if !is_last {
                    at = place;
                    rest = tail;
                    continue;
                }
                if slash && !place.inode.is_dir() {
                    return Err(errno::ENOTDIR);
                }
                return Ok(Found { parent: at, name: name.to_vec(), child: Some(place), slash });
            }
            let mut target = next.inode.link_target()?;
            if target.is_empty() {
                return Err(errno::ENOENT);
            }
            target.extend_from_slice(tail);
            if target.len() >= PATH_MAX {
                return Err(errno::ENAMETOOLONG);
            }
            expanded = target;
            rest = &expanded;
            if rest[0] == b'/' {
                let root = walk.top()?;
                if rules & rule::NO_XDEV != 0 && root.mount != at.mount {
                    return Err(errno::EXDEV);
                }
                at = root;
            }
            continue;
        }
        if is_last {
            if slash && !next.inode.is_dir() {
                return Err(errno::ENOTDIR);
            }
            return Ok(Found { parent: at, name: name.to_vec(), child: Some(next), slash });
        }
        at = next;
        rest = tail;
    }
}

/// Follow `path` to something that exists.
pub fn resolve(start: &Arc<Place>, path: &[u8], follow: bool) -> Result<Arc<Place>, Errno> {
    find(start, path, follow)?.child.ok_or(errno::ENOENT)
}

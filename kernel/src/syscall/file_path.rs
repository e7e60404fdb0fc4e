//! System calls that open, create, remove and rename by path.

use super::file::place_or_file;
use crate::errno::{self, Errno};
use crate::fs::current;
use crate::fs::inode::{Inode, mode};
use crate::fs::open_file::{OpenFile, flag};
use crate::fs::place::{self, Found, PATH_MAX, Place, rule};
use crate::fs::{mount as mounts, tree};
use crate::mm::user_copy;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

const AT_FDCWD: i32 = -100;
const AT_REMOVEDIR: u64 = 0x200;
const AT_SYMLINK_FOLLOW: u64 = 0x400;
const AT_EMPTY_PATH: u64 = 0x1000;
const CWD: u64 = AT_FDCWD as u64;
/// x86-64 programs always get it.
const O_LARGEFILE: u32 = 0o100000;

/// A path argument.
pub(super) fn path_argument(at: u64) -> Result<Vec<u8>, Errno> {
    user_copy::read_string(at, PATH_MAX)?.ok_or(errno::ENAMETOOLONG)
}

/// Where a relative path starts.
pub(super) fn start(dirfd: u64, path: &[u8]) -> Result<Arc<Place>, Errno> {
    if path.first() == Some(&b'/') {
        return Ok(current::root());
    }
    if dirfd as i32 == AT_FDCWD {
        return Ok(current::work_dir().place());
    }
    let place = place_or_file(dirfd)?.place.clone().ok_or(errno::ENOTDIR)?;
    if place.inode.is_dir() || path.is_empty() { Ok(place) } else { Err(errno::ENOTDIR) }
}

fn find(dirfd: u64, path: &[u8], follow: bool) -> Result<Found, Errno> {
    place::find(&start(dirfd, path)?, path, follow)
}

pub(super) fn open(path: u64, flags: u64, mode: u64) -> Result<usize, Errno> {
    openat(CWD, path, flags, mode)
}

pub(super) fn creat(path: u64, mode: u64) -> Result<usize, Errno> {
    openat(CWD, path, (flag::CREAT | flag::WRONLY | flag::TRUNC) as u64, mode)
}

/// Whether Linux, from 6.4 on, refuses `flags` before it looks at the path: a directory is not made by opening it, and a file without a name
/// needs a directory to lie in and somebody who writes to it.
fn contradict(flags: u32) -> bool {
    const BOTH: u32 = flag::CREAT | flag::DIRECTORY;
    let unnamed = flags & flag::TMPFILE & !flag::DIRECTORY != 0;
    let fits = flags & flag::DIRECTORY != 0 && flags & flag::ACCMODE != flag::RDONLY;
    flags & flag::PATH == 0 && (flags & BOTH == BOTH || unnamed && !fits)
}

pub(super) fn openat(dirfd: u64, path: u64, flags: u64, mode: u64) -> Result<usize, Errno> {
    let flags = flags as u32;
    if contradict(flags) {
        return Err(errno::EINVAL);
    }
    let path = path_argument(path)?;
    let open = open_path(&start(dirfd, &path)?, &path, flags, mode as u32, 0)?;
    Ok(current::files().install(open, flags & flag::CLOEXEC != 0)? as usize)
}

/// openat2(2): what open(2) ignores is refused.
pub(super) fn openat2(dirfd: u64, path: u64, how: u64, size: u64) -> Result<usize, Errno> {
    /// struct open_how as it was first: flags, mode, resolve.
    const WORDS: u64 = 3;
    const PAGE: u64 = 4096;
    /// O_DSYNC, FASYNC, O_DIRECT, O_LARGEFILE, O_NOATIME, O_SYNC beside those of `flag`.
    const OTHERS: u32 = 0o10_000 | 0o20_000 | 0o40_000 | O_LARGEFILE | 0o1_000_000 | 0o4_000_000;
    const FLAGS: u32 = flag::ACCMODE
        | flag::NOT_KEPT
        | flag::APPEND
        | flag::NONBLOCK
        | flag::DIRECTORY
        | flag::NOFOLLOW
        | flag::PATH
        | flag::TMPFILE
        | OTHERS;
    const WITH_PATH: u32 = flag::PATH | flag::DIRECTORY | flag::NOFOLLOW | flag::CLOEXEC;
    const RULES: u64 = 2 * rule::CACHED - 1;
    if size < WORDS * 8 {
        return Err(errno::EINVAL);
    }
    if size > PAGE {
        return Err(errno::E2BIG);
    }
    let [wide_flags, mode, rules]: [u64; WORDS as usize] = user_copy::read(how)?;
    for at in how + WORDS * 8..how + size {
        if user_copy::read::<u8>(at)? != 0 {
            return Err(errno::E2BIG);
        }
    }
    let flags = wide_flags as u32;
    let makes = flags & flag::CREAT != 0 || flags & flag::TMPFILE == flag::TMPFILE;
    let both = rule::BENEATH | rule::IN_ROOT;
    if wide_flags & !u64::from(FLAGS) != 0
        || mode & !if makes { 0o7777 } else { 0 } != 0
        || rules & !RULES != 0
        || rules & both == both
        || flags & flag::PATH != 0 && flags & !WITH_PATH != 0
        || contradict(flags)
    {
        return Err(errno::EINVAL);
    }
    if rules & rule::CACHED != 0 && (makes || flags & flag::TRUNC != 0) {
        return Err(errno::EAGAIN);
    }
    let path = path_argument(path)?;
    // An absolute path has a start too where that is to be its root.
    let start = start(dirfd, if rules & rule::IN_ROOT == 0 { &path } else { b"." })?;
    let open = open_path(&start, &path, flags, mode as u32, rules)?;
    Ok(current::files().install(open, flags & flag::CLOEXEC != 0)? as usize)
}

/// Opens what `path` leads to. `flags` do not contradict each other.
fn open_path(start: &Arc<Place>, path: &[u8], flags: u32, mode_bits: u32, rules: u64) -> Result<Arc<OpenFile>, Errno> {
    let follow = flags & flag::NOFOLLOW == 0 && flags & (flag::CREAT | flag::EXCL) != flag::CREAT | flag::EXCL;
    let found = place::find_by(start, path, follow, rules)?;
    if flags & flag::PATH != 0 {
        let place = found.child.ok_or(errno::ENOENT)?;
        if flags & flag::DIRECTORY != 0 && !place.inode.is_dir() {
            return Err(errno::ENOTDIR);
        }
        let kept = flag::PATH | flags & (flag::DIRECTORY | flag::NOFOLLOW);
        return Ok(OpenFile::new(place.inode.clone(), kept, Some(place)));
    }
    let permissions = mode_bits & 0o7777 & !current::work_dir().umask();
    if flags & flag::TMPFILE == flag::TMPFILE {
        let directory = found.child.ok_or(errno::ENOENT)?;
        if !directory.inode.is_dir() {
            return Err(errno::ENOTDIR);
        }
        let inode = tree::new_node(mode::REG | permissions, 0)?;
        inode.nlink.store(0, Ordering::Relaxed);
        let place = directory.with_child(b"#unnamed (deleted)", inode.clone());
        return Ok(OpenFile::new(inode, flags | O_LARGEFILE, Some(place)));
    }
    let (place, new) = match &found.child {
        Some(_) if flags & (flag::CREAT | flag::EXCL) == flag::CREAT | flag::EXCL => return Err(errno::EEXIST),
        Some(place) => (place.clone(), false),
        None if flags & flag::CREAT == 0 => return Err(errno::ENOENT),
        None if found.slash => return Err(errno::EISDIR),
        None => match tree::create(&found, tree::new_node(mode::REG | permissions, 0)?) {
            Ok(place) => (place, true),
            // Another thread was faster.
            Err(errno::EEXIST) if flags & flag::EXCL == 0 => (found.parent.child(&found.name)?, false),
            Err(e) => return Err(e),
        },
    };
    let inode = &place.inode;
    if inode.is_symlink() {
        return Err(errno::ELOOP);
    }
    if flags & flag::DIRECTORY != 0 && !inode.is_dir() {
        return Err(errno::ENOTDIR);
    }
    let writes = flags & flag::ACCMODE != flag::RDONLY;
    if inode.is_dir() && (writes || flags & flag::CREAT != 0) {
        return Err(errno::EISDIR);
    }
    if writes {
        inode.may_be_written()?;
    }
    let opened = inode.open(flags)?;
    if flags & flag::TRUNC != 0 && !new && writes {
        inode.truncate(0)?;
    }
    Ok(OpenFile::new(opened, flags | O_LARGEFILE, Some(place)))
}

pub(super) fn truncate(path: u64, len: u64) -> Result<usize, Errno> {
    let path = path_argument(path)?;
    if (len as i64) < 0 {
        return Err(errno::EINVAL);
    }
    let place = find(CWD, &path, true)?.child.ok_or(errno::ENOENT)?;
    match place.inode.file_type() {
        mode::REG => place.inode.may_be_written().and_then(|()| place.inode.truncate(len)).map(|()| 0),
        mode::DIR => Err(errno::EISDIR),
        _ => Err(errno::EINVAL),
    }
}

pub(super) fn getcwd(at: u64, len: u64) -> Result<usize, Errno> {
    let place = current::work_dir().place();
    if place.inode.is_removed_directory() {
        return Err(errno::ENOENT);
    }
    // As Linux has it for a directory that lies outside the process's root.
    let outside = || [b"(unreachable)".as_slice(), &place.path()].concat();
    let mut path = place.path_from(&current::root()).unwrap_or_else(outside);
    path.push(0);
    if path.len() as u64 > len {
        return Err(errno::ERANGE);
    }
    user_copy::write_bytes(at, &path)?;
    Ok(path.len())
}

fn change_dir(place: Arc<Place>) -> Result<usize, Errno> {
    if !place.inode.is_dir() {
        return Err(errno::ENOTDIR);
    }
    current::work_dir().set_place(place);
    Ok(0)
}

pub(super) fn chdir(path: u64) -> Result<usize, Errno> {
    let path = path_argument(path)?;
    change_dir(find(CWD, &path, true)?.child.ok_or(errno::ENOENT)?)
}

pub(super) fn fchdir(fd: u64) -> Result<usize, Errno> {
    change_dir(place_or_file(fd)?.place.clone().ok_or(errno::ENOTDIR)?)
}

/// chroot(2): every process may.
pub(super) fn chroot(path: u64) -> Result<usize, Errno> {
    let path = path_argument(path)?;
    let place = find(CWD, &path, true)?.child.ok_or(errno::ENOENT)?;
    if !place.inode.is_dir() {
        return Err(errno::ENOTDIR);
    }
    current::work_dir().set_root(place);
    Ok(0)
}

pub(super) fn umask(mask: u64) -> Result<usize, Errno> {
    Ok(current::work_dir().set_umask(mask as u32) as usize)
}

pub(super) fn mkdir(path: u64, mode: u64) -> Result<usize, Errno> {
    mkdirat(CWD, path, mode)
}

pub(super) fn mkdirat(dirfd: u64, path: u64, mode_bits: u64) -> Result<usize, Errno> {
    let path = path_argument(path)?;
    let found = find(dirfd, &path, false)?;
    if found.child.is_some() {
        return Err(errno::EEXIST);
    }
    let permissions = mode_bits as u32 & 0o1777 & !current::work_dir().umask();
    tree::create(&found, Inode::new_directory(permissions)).map(|_| 0)
}

pub(super) fn mknod(path: u64, mode: u64, device: u64) -> Result<usize, Errno> {
    mknodat(CWD, path, mode, device)
}

pub(super) fn mknodat(dirfd: u64, path: u64, mode_bits: u64, device: u64) -> Result<usize, Errno> {
    let path = path_argument(path)?;
    let found = find(dirfd, &path, false)?;
    if found.child.is_some() {
        return Err(errno::EEXIST);
    }
    let bits = mode_bits as u32;
    let inode = tree::new_node(bits & mode::FMT | bits & 0o7777 & !current::work_dir().umask(), device)?;
    tree::create(&found, inode).map(|_| 0)
}

pub(super) fn rmdir(path: u64) -> Result<usize, Errno> {
    unlinkat(CWD, path, AT_REMOVEDIR)
}

pub(super) fn unlink(path: u64) -> Result<usize, Errno> {
    unlinkat(CWD, path, 0)
}

pub(super) fn unlinkat(dirfd: u64, path: u64, flags: u64) -> Result<usize, Errno> {
    if flags & !AT_REMOVEDIR != 0 {
        return Err(errno::EINVAL);
    }
    let path = path_argument(path)?;
    let found = find(dirfd, &path, false)?;
    if flags & AT_REMOVEDIR != 0 { tree::remove_directory(&found) } else { tree::unlink(&found) }.map(|()| 0)
}

pub(super) fn rename(old: u64, new: u64) -> Result<usize, Errno> {
    renameat2(CWD, old, CWD, new, 0)
}

pub(super) fn renameat(old_dir: u64, old: u64, new_dir: u64, new: u64) -> Result<usize, Errno> {
    renameat2(old_dir, old, new_dir, new, 0)
}

pub(super) fn renameat2(old_dir: u64, old: u64, new_dir: u64, new: u64, flags: u64) -> Result<usize, Errno> {
    const NOREPLACE: u64 = 1;
    if flags & !NOREPLACE != 0 {
        return Err(errno::EINVAL);
    }
    let (old, new) = (path_argument(old)?, path_argument(new)?);
    let (old, new) = (find(old_dir, &old, false)?, find(new_dir, &new, false)?);
    tree::rename(&old, &new, flags & NOREPLACE != 0).map(|()| 0)
}

pub(super) fn link(old: u64, new: u64) -> Result<usize, Errno> {
    linkat(CWD, old, CWD, new, 0)
}

pub(super) fn linkat(old_dir: u64, old: u64, new_dir: u64, new: u64, flags: u64) -> Result<usize, Errno> {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(errno::EINVAL);
    }
    let (old, new) = (path_argument(old)?, path_argument(new)?);
    let place = if old.is_empty() && flags & AT_EMPTY_PATH != 0 {
        start(old_dir, b"")?
    } else {
        find(old_dir, &old, flags & AT_SYMLINK_FOLLOW != 0)?.child.ok_or(errno::ENOENT)?
    };
    tree::link(&place, &find(new_dir, &new, false)?).map(|()| 0)
}

pub(super) fn symlink(target: u64, path: u64) -> Result<usize, Errno> {
    symlinkat(target, CWD, path)
}

pub(super) fn symlinkat(target: u64, dirfd: u64, path: u64) -> Result<usize, Errno> {
    let (target, path) = (path_argument(target)?, path_argument(path)?);
    if target.is_empty() {
        return Err(errno::ENOENT);
    }
    tree::create(&find(dirfd, &path, false)?, tree::new_symlink(&target)).map(|_| 0)
}

pub(super) fn mount(_source: u64, target: u64, kind: u64, flags: u64, _data: u64) -> Result<usize, Errno> {
    const REMOUNT: u64 = 32;
    const BIND: u64 = 4096;
    const PROPAGATION: u64 = 0x1e_0000;
    let target = path_argument(target)?;
    let place = find(CWD, &target, true)?.child.ok_or(errno::ENOENT)?;
    if flags & (REMOUNT | PROPAGATION) != 0 {
        return Ok(0);
    }
    if flags & BIND != 0 {
        return Err(errno::EINVAL);
    }
    if kind == 0 {
        return Err(errno::EINVAL);
    }
    let kind = path_argument(kind)?;
    mounts::mount(&place, &kind).map(|()| 0)
}

pub(super) fn umount2(target: u64, flags: u64) -> Result<usize, Errno> {
    const KNOWN: u64 = 0xf;
    if flags & !KNOWN != 0 {
        return Err(errno::EINVAL);
    }
    let target = path_argument(target)?;
    let place = find(CWD, &target, true)?.child.ok_or(errno::ENOENT)?;
    mounts::unmount(&place).map(|()| 0)
}

//! System calls that ask about files or change what stat shows.

use super::file::{file, place_or_file};
use super::file_path::{path_argument, start};
use crate::errno::{self, Errno};
use crate::fs::inode::{Inode, Kind, Stat, decode_device, mode, wall_ns};
use crate::fs::place::{self, Place};
use crate::mm::user_copy;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

pub(super) const CWD: u64 = -100i64 as u64;
const AT_SYMLINK_NOFOLLOW: u64 = 0x100;
const AT_EMPTY_PATH: u64 = 0x1000;
const BLOCK: u64 = 4096;

/// What a path argument leads to.
pub(super) fn place_at(dirfd: u64, path: u64, follow: bool) -> Result<Arc<Place>, Errno> {
    let path = path_argument(path)?;
    place::resolve(&start(dirfd, &path)?, &path, follow)
}

/// The inode of a call that takes AT_EMPTY_PATH; nothing where that names what is in no directory.
fn inode_at(dirfd: u64, path: u64, flags: u64) -> Result<Option<Arc<Inode>>, Errno> {
    if flags & AT_EMPTY_PATH != 0 && path_argument(path)?.is_empty() {
        return match dirfd as i32 == CWD as i32 {
            true => Ok(Some(start(dirfd, b"")?.inode.clone())),
            false => Ok(place_or_file(dirfd)?.inode().cloned()),
        };
    }
    Ok(Some(place_at(dirfd, path, flags & AT_SYMLINK_NOFOLLOW == 0)?.inode.clone()))
}

/// struct stat of x86-64 (asm/stat.h) as 18 words.
fn write_stat(at: u64, s: &Stat) -> Result<usize, Errno> {
    let (seconds, ns) = (s.mtime_ns / 1_000_000_000, s.mtime_ns % 1_000_000_000);
    let words: [u64; 18] = [
        s.dev,
        s.ino,
        s.nlink as u64,
        s.mode as u64 | (s.uid as u64) << 32,
        s.gid as u64,
        s.rdev,
        s.size,
        BLOCK,
        s.size.div_ceil(512),
        seconds,
        ns,
        seconds,
        ns,
        seconds,
        ns,
        0,
        0,
        0,
    ];
    user_copy::write(at, &words)?;
    Ok(0)
}

pub(super) fn stat(path: u64, at: u64) -> Result<usize, Errno> {
    write_stat(at, &place_at(CWD, path, true)?.inode.stat())
}

pub(super) fn lstat(path: u64, at: u64) -> Result<usize, Errno> {
    write_stat(at, &place_at(CWD, path, false)?.inode.stat())
}

pub(super) fn fstat(fd: u64, at: u64) -> Result<usize, Errno> {
    write_stat(at, &place_or_file(fd)?.stat())
}

/// What newfstatat and statx look at.
fn stat_at(dirfd: u64, path: u64, flags: u64) -> Result<Stat, Errno> {
    if flags & AT_EMPTY_PATH != 0 {
        // A null path counts as an empty one since Linux 6.11.
        let empty = path == 0 || path_argument(path)?.is_empty();
        if empty {
            return if dirfd as i32 == CWD as i32 {
                Ok(start(dirfd, b"")?.inode.stat())
            } else {
                Ok(place_or_file(dirfd)?.stat())
            };
        }
    }
    Ok(place_at(dirfd, path, flags & AT_SYMLINK_NOFOLLOW == 0)?.inode.stat())
}

pub(super) fn newfstatat(dirfd: u64, path: u64, at: u64, flags: u64) -> Result<usize, Errno> {
    // AT_NO_AUTOMOUNT: there are no automounts.
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | 0x800) != 0 {
        return Err(errno::EINVAL);
    }
    write_stat(at, &stat_at(dirfd, path, flags)?)
}

pub(super) fn statx(dirfd: u64, path: u64, flags: u64, mask: u64, at: u64) -> Result<usize, Errno> {
    const BASIC: u32 = 0x7ff;
    const SYNC_TYPE: u64 = 0x6000; // one of the two, or none
    if mask & 0x8000_0000 != 0
        || flags & SYNC_TYPE == SYNC_TYPE
        || flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | 0x800 | SYNC_TYPE) != 0
    {
        return Err(errno::EINVAL);
    }
    let s = stat_at(dirfd, path, flags)?;
    let (rmajor, rminor) = decode_device(s.rdev);
    let mut out = [0u8; 256];
    let mut put = |offset: usize, bytes: &[u8]| out[offset..offset + bytes.len()].copy_from_slice(bytes);
    // struct statx (linux/stat.h).
    put(0, &BASIC.to_le_bytes());
    put(4, &(BLOCK as u32).to_le_bytes());
    put(16, &s.nlink.to_le_bytes());
    put(20, &s.uid.to_le_bytes());
    put(24, &s.gid.to_le_bytes());
    put(28, &(s.mode as u16).to_le_bytes());
    put(32, &s.ino.to_le_bytes());
    put(40, &s.size.to_le_bytes());
    put(48, &s.size.div_ceil(512).to_le_bytes());
    for time in [64, 80, 96, 112] {
        put(time, &(s.mtime_ns / 1_000_000_000).to_le_bytes());
        put(time + 8, &((s.mtime_ns % 1_000_000_000) as u32).to_le_bytes());
    }
    put(128, &rmajor.to_le_bytes());
    put(132, &rminor.to_le_bytes());
    put(140, &(s.dev as u32).to_le_bytes());
    user_copy::write_bytes(at, &out)?;
    Ok(0)
}

pub(super) fn getdents64(fd: u64, at: u64, len: u64) -> Result<usize, Errno> {
    let open = file(fd)?;
    let place = open.place.as_ref().ok_or(errno::ENOTDIR)?;
    let entries = place.inode.list()?;
    if place.inode.is_removed_directory() {
        return Err(errno::ENOENT);
    }
    let offset = open.offset.load(Ordering::Relaxed);
    let above = place.parent.as_ref().map_or(place.inode.ino, |p| p.inode.ino);
    let dots = [(1, &b"."[..], place.inode.ino, mode::DIR), (2, &b".."[..], above, mode::DIR)];
    let all = dots.into_iter().chain(entries.iter().map(|e| (e.cookie, &e.name[..], e.ino, e.mode)));
    let room = (len as usize).min(32 * 1024);
    let mut out: Vec<u8> = Vec::new();
    let mut reached = offset;
    for (cookie, name, ino, mode_bits) in all.filter(|e| e.0 > offset) {
        // struct linux_dirent64: inode, offset, record length, type, name with its NUL.
        let size = (19 + name.len() + 1).next_multiple_of(8);
        if out.len() + size > room {
            if out.is_empty() {
                return Err(errno::EINVAL);
            }
            break;
        }
        let end = out.len() + size;
        out.extend_from_slice(&ino.to_le_bytes());
        out.extend_from_slice(&cookie.to_le_bytes());
        out.extend_from_slice(&(size as u16).to_le_bytes());
        out.push((mode_bits >> 12) as u8);
        out.extend_from_slice(name);
        out.resize(end, 0);
        reached = cookie;
    }
    user_copy::write_bytes(at, &out)?;
    open.offset.store(reached, Ordering::Relaxed);
    Ok(out.len())
}

pub(super) fn readlink(path: u64, at: u64, len: u64) -> Result<usize, Errno> {
    readlinkat(CWD, path, at, len)
}

pub(super) fn readlinkat(dirfd: u64, path: u64, at: u64, len: u64) -> Result<usize, Errno> {
    if len as i32 <= 0 {
        return Err(errno::EINVAL);
    }
    let text = path_argument(path)?;
    let place = if text.is_empty() && dirfd as i32 != CWD as i32 {
        start(dirfd, b"")?
    } else {
        place::resolve(&start(dirfd, &text)?, &text, false)?
    };
    let target = place.inode.link_target()?;
    let n = target.len().min(len as u32 as usize);
    user_copy::write_bytes(at, &target[..n])?;
    Ok(n)
}

/// access(2) as root on what has the mode `mode_bits`: everything but executing what nobody may execute.
fn check_access(mode_bits: u32, wanted: u64) -> Result<usize, Errno> {
    const EXECUTE: u64 = 1;
    let executable = mode_bits & mode::FMT == mode::DIR || mode_bits & 0o111 != 0;
    if wanted & EXECUTE != 0 && !executable { Err(errno::EACCES) } else { Ok(0) }
}

pub(super) fn access(path: u64, wanted: u64) -> Result<usize, Errno> {
    faccessat(CWD, path, wanted)
}

pub(super) fn faccessat(dirfd: u64, path: u64, wanted: u64) -> Result<usize, Errno> {
    faccessat2(dirfd, path, wanted, 0)
}

pub(super) fn faccessat2(dirfd: u64, path: u64, wanted: u64, flags: u64) -> Result<usize, Errno> {
    const AT_EACCESS: u64 = 0x200;
    if wanted & !7 != 0 || flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(errno::EINVAL);
    }
    let mode_bits = match inode_at(dirfd, path, flags)? {
        Some(inode) => inode.mode.load(Ordering::Relaxed),
        None => place_or_file(dirfd)?.stat().mode,
    };
    check_access(mode_bits, wanted)
}

fn set_mode(inode: &Inode, bits: u64) -> Result<usize, Errno> {
    let kept = inode.mode.load(Ordering::Relaxed) & mode::FMT;
    inode.mode.store(kept | bits as u32 & 0o7777, Ordering::Relaxed);
    Ok(0)
}

pub(super) fn chmod(path: u64, bits: u64) -> Result<usize, Errno> {
    fchmodat(CWD, path, bits)
}

pub(super) fn fchmodat(dirfd: u64, path: u64, bits: u64) -> Result<usize, Errno> {
    set_mode(&place_at(dirfd, path, true)?.inode, bits)
}

pub(super) fn fchmodat2(dirfd: u64, path: u64, bits: u64, flags: u64) -> Result<usize, Errno> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(errno::EINVAL);
    }
    match inode_at(dirfd, path, flags)? {
        // A symbolic link has no mode of its own.
        Some(inode) if inode.is_symlink() => Err(errno::EOPNOTSUPP),
        Some(inode) => set_mode(&inode, bits),
        None => Ok(0),
    }
}

pub(super) fn fchmod(fd: u64, bits: u64) -> Result<usize, Errno> {
    let open = file(fd)?;
    open.inode().map_or(Ok(0), |inode| set_mode(inode, bits))
}

fn set_owner(inode: &Inode, uid: u64, gid: u64) -> Result<usize, Errno> {
    for (field, id) in [(&inode.uid, uid as u32), (&inode.gid, gid as u32)] {
        if id != u32::MAX {
            field.store(id, Ordering::Relaxed);
        }
    }
    Ok(0)
}

pub(super) fn chown(path: u64, uid: u64, gid: u64) -> Result<usize, Errno> {
    fchownat(CWD, path, uid, gid, 0)
}

pub(super) fn lchown(path: u64, uid: u64, gid: u64) -> Result<usize, Errno> {
    fchownat(CWD, path, uid, gid, AT_SYMLINK_NOFOLLOW)
}

pub(super) fn fchownat(dirfd: u64, path: u64, uid: u64, gid: u64, flags: u64) -> Result<usize, Errno> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(errno::EINVAL);
    }
    inode_at(dirfd, path, flags)?.map_or(Ok(0), |inode| set_owner(&inode, uid, gid))
}

pub(super) fn fchown(fd: u64, uid: u64, gid: u64) -> Result<usize, Errno> {
    let open = file(fd)?;
    open.inode().map_or(Ok(0), |inode| set_owner(inode, uid, gid))
}

/// Set the one time that is kept from a (seconds, nanoseconds) pair; UTIME_NOW and UTIME_OMIT as in utimensat(2).
fn set_time(inode: &Inode, time: Option<[u64; 2]>) -> Result<usize, Errno> {
    const NOW: u64 = 0x3fff_ffff;
    const OMIT: u64 = 0x3fff_fffe;
    let ns = match time {
        None | Some([_, NOW]) => wall_ns(),
        Some([_, OMIT]) => return Ok(0),
        Some([seconds, ns]) if ns < 1_000_000_000 => seconds.saturating_mul(1_000_000_000).saturating_add(ns),
        Some(_) => return Err(errno::EINVAL),
    };
    inode.mtime_ns.store(ns, Ordering::Relaxed);
    Ok(0)
}

pub(super) fn utimensat(dirfd: u64, path: u64, times: u64, flags: u64) -> Result<usize, Errno> {
    let time = match times {
        0 => None,
        at => {
            let [_, _, seconds, ns]: [u64; 4] = user_copy::read(at)?;
            Some([seconds, ns])
        }
    };
    // Without a path it is the descriptor's file; the working directory is none.
    if path == 0 && dirfd as i32 != CWD as i32 {
        if flags != 0 {
            return Err(errno::EINVAL);
        }
        return file(dirfd)?.inode().map_or(Ok(0), |inode| set_time(inode, time));
    }
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(errno::EINVAL);
    }
    inode_at(dirfd, path, flags)?.map_or(Ok(0), |inode| set_time(&inode, time))
}

pub(super) fn utimes(path: u64, times: u64) -> Result<usize, Errno> {
    futimesat(CWD, path, times)
}

pub(super) fn futimesat(dirfd: u64, path: u64, times: u64) -> Result<usize, Errno> {
    let time = match times {
        0 => None,
        at => {
            let [_, _, seconds, us]: [u64; 4] = user_copy::read(at)?;
            Some([seconds, us.saturating_mul(1000)])
        }
    };
    if path == 0 && dirfd as i32 != CWD as i32 {
        return file(dirfd)?.inode().map_or(Ok(0), |inode| set_time(inode, time));
    }
    set_time(&place_at(dirfd, path, true)?.inode, time)
}

pub(super) fn utime(path: u64, times: u64) -> Result<usize, Errno> {
    let time = match times {
        0 => None,
        at => {
            let [_, seconds]: [u64; 2] = user_copy::read(at)?;
            Some([seconds, 0])
        }
    };
    set_time(&place_at(CWD, path, true)?.inode, time)
}

/// struct statfs of x86-64 (asm-generic/statfs.h) as 15 words.
fn write_statfs(at: u64, inode: Option<&Inode>) -> Result<usize, Errno> {
    const RAMFS: u64 = 0x8584_58f6;
    const PROC: u64 = 0x9fa0;
    const SYSFS: u64 = 0x6265_6572;
    const DEVPTS: u64 = 0x1cd1;
    const PIPEFS: u64 = 0x5049_5045;
    let kind = match inode.map(|i| i.dev) {
        Some(crate::fs::inode::device_number::PROC) => PROC,
        Some(crate::fs::inode::device_number::SYS) => SYSFS,
        Some(crate::fs::inode::device_number::PTS) => DEVPTS,
        Some(_) => RAMFS,
        None => PIPEFS,
    };
    let memory = inode.is_some_and(|i| matches!(i.kind, Kind::Directory(_) | Kind::Regular(_)));
    let (all, free) =
        if memory { (crate::mm::frame::ram_bytes() / BLOCK, crate::mm::frame::free_bytes() / BLOCK) } else { (0, 0) };
    let words: [u64; 15] = [kind, BLOCK, all, free, free, 0, 0, 0, 255, BLOCK, 0, 0, 0, 0, 0];
    user_copy::write(at, &words)?;
    Ok(0)
}

pub(super) fn statfs(path: u64, at: u64) -> Result<usize, Errno> {
    write_statfs(at, Some(&place_at(CWD, path, true)?.inode))
}

pub(super) fn fstatfs(fd: u64, at: u64) -> Result<usize, Errno> {
    let open = place_or_file(fd)?;
    write_statfs(at, open.inode().map(|i| &**i))
}

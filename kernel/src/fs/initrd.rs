//! Unpacking the root file system's archive: newc cpio, plain, gzip or zstd, several one after another.
//!
//! Boot, once. File contents are not touched: regular files keep pointing into the archive, which stays in memory. What was compressed is
//! expanded in a stream (`expanded`), and its own pages are given back meanwhile.
//! A broken archive is named with the offset, and what was unpacked until then stays.

use super::expanded::{Area, Input};
use super::inode::{Inode, Kind, encode_device, mode};
use super::place::{self, Place};
use super::{gzip, tree, zstd};
use crate::errno::{self, Errno};
use crate::mm::file_pages::FilePages;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::cpio::{self, CpioErrorKind, Entry};

/// Bytes of archives that files lie in, and that stay therefore.
static KEPT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes of archives that stay in memory as the content of files.
pub fn kept_bytes() -> u64 {
    KEPT_BYTES.load(Ordering::Relaxed)
}

/// How the bytes at some place are compressed.
#[derive(Clone, Copy)]
enum Compression {
    Gzip,
    Zstd,
}

fn compression(bytes: &[u8]) -> Option<Compression> {
    match () {
        () if gzip::is_gzip(bytes) => Some(Compression::Gzip),
        () if zstd::is_zstd(bytes) => Some(Compression::Zstd),
        () => None,
    }
}

/// Unpack `archive` below `root`.
///
/// # Safety
/// 1. It lies in the direct map, in pages of its own; 2. nobody looks at it any more but through files.
pub unsafe fn unpack(root: &Arc<Place>, archive: &'static [u8]) {
    let mut rest = archive;
    let mut base = 0;
    while !rest.is_empty() {
        let Some(kind) = compression(rest) else {
            match unpack_plain(root, rest, Some(base)) {
                Some(foreign) => {
                    rest = &rest[foreign..];
                    base += foreign;
                    continue;
                }
                None => return,
            }
        };
        // SAFETY: 1. as of the caller; 2. no file points behind `base`, and `rest` goes on where the input ends.
        let mut input = unsafe { Input::new(rest) };
        let Some(mut area) = Area::new() else {
            crate::warning!("initrd: data at offset {base}: no addresses are left for what they expand to");
            return;
        };
        let (name, done) = match kind {
            Compression::Gzip => ("gzip", gzip::expand(&mut input, &mut area).map_err(String::from)),
            Compression::Zstd => ("zstd", zstd::expand(&mut input, &mut area)),
        };
        if let Err(why) = done {
            crate::warning!("initrd: {name} data at offset {base}: {why}");
            return;
        }
        unpack_plain(root, area.finish(), None);
        let used = input.used();
        rest = &rest[used..];
        base += used;
        // Between archives: padding.
        let zeros = rest.iter().position(|&b| b != 0).unwrap_or(rest.len());
        rest = &rest[zeros..];
        base += zeros;
    }
}

/// A file with several names: (archive, device, inode number) and what it became.
type Linked = ((u32, u32, u32, u32), Arc<Inode>);

/// Unpack what is plain cpio. `Some(offset)` where compressed bytes begin.
fn unpack_plain(root: &Arc<Place>, archive: &'static [u8], base: Option<usize>) -> Option<usize> {
    let mut linked: Vec<Linked> = Vec::new();
    for entry in cpio::entries(archive) {
        match entry {
            Ok(entry) => {
                if let Err(e) = unpack_entry(root, &entry, &mut linked) {
                    crate::warning!("initrd: {} (at offset {}): error {}", entry.path, entry.offset, e.0);
                }
            }
            Err(e)
                if e.what == CpioErrorKind::NotNewc
                    && compression(archive.get(e.offset..).unwrap_or(&[])).is_some() =>
            {
                KEPT_BYTES.fetch_add(e.offset as u64, Ordering::Relaxed);
                return Some(e.offset);
            }
            Err(e) => match base {
                Some(0) => crate::warning!("initrd: {e}"),
                Some(base) => crate::warning!("initrd: after offset {base}: {e}"),
                None => crate::warning!("initrd: expanded: {e}"),
            },
        }
    }
    KEPT_BYTES.fetch_add(archive.len() as u64, Ordering::Relaxed);
    None
}

/// Archives without entries for their directories are common: make what is missing above `name`.
fn make_parents(root: &Arc<Place>, name: &[u8]) -> Result<(), Errno> {
    for (end, _) in name.iter().enumerate().filter(|(_, b)| **b == b'/') {
        let found = place::find(root, &name[..end], true)?;
        if found.child.is_none() {
            tree::create(&found, Inode::new_directory(0o755))?;
        }
    }
    Ok(())
}

fn unpack_entry(root: &Arc<Place>, entry: &Entry<'static>, linked: &mut Vec<Linked>) -> Result<(), Errno> {
    let name = entry.name().as_bytes();
    if name.is_empty() {
        root.inode.mode.store(mode::DIR | entry.mode & 0o7777, Ordering::Relaxed);
        return Ok(());
    }
    let mut found = match place::find(root, name, false) {
        Err(errno::ENOENT) => {
            make_parents(root, name)?;
            place::find(root, name, false)?
        }
        found => found?,
    };
    if let Some(there) = &found.child {
        if entry.is_dir() && there.inode.is_dir() {
            there.inode.mode.store(mode::DIR | entry.mode & 0o7777, Ordering::Relaxed);
            return Ok(());
        }
        if there.inode.is_dir() {
            tree::remove_directory(&found)?;
        } else {
            tree::unlink(&found)?;
        }
        found.child = None;
    }
    let key = (entry.archive, entry.devmajor, entry.devminor, entry.ino);
    let several = entry.is_file() && entry.nlink > 1;
    if several && let Some((_, inode)) = linked.iter().find(|l| l.0 == key) {
        if let (Kind::Regular(pages), false) = (&inode.kind, entry.data.is_empty()) {
            pages.set_archived(entry.data);
        }
        tree::create(&found, inode.clone())?;
        inode.nlink.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let inode = match entry.mode & mode::FMT {
        mode::DIR => Inode::new_directory(entry.mode),
        mode::REG => {
            let pages = FilePages::archived(entry.data);
            Inode::new(mode::REG | entry.mode & 0o7777, Kind::Regular(pages))
        }
        mode::LNK => tree::new_symlink(entry.data),
        _ => tree::new_node(entry.mode, encode_device(entry.rdevmajor, entry.rdevminor))?,
    };
    inode.mtime_ns.store(entry.mtime as u64 * 1_000_000_000, Ordering::Relaxed);
    inode.uid.store(entry.uid, Ordering::Relaxed);
    inode.gid.store(entry.gid, Ordering::Relaxed);
    if several {
        linked.push((key, inode.clone()));
    }
    tree::create(&found, inode)?;
    Ok(())
}

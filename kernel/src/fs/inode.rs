//! Inodes: directories, files, links, devices and generated files, all in memory.
//!
//! Process context. A directory's lock and a file's lock have the same rank and are never held together; changes of the tree are serialised by
//! `tree::TREE`. User memory is never touched with a lock held.

use super::generated::{Generated, VirtualDir};
use super::open_file::{File, How};
use super::pipe::Pipe;
use super::place::Place;
use super::unix_socket::Socket;
use super::user_buffer::UserBuffer;
use crate::errno::{self, Errno};
use crate::mm::file_pages::FilePages;
use crate::spin_lock::{SpinLock, rank};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// File types in `mode` (Linux stat.h).
pub mod mode {
    #![allow(missing_docs)]
    pub const FMT: u32 = 0o170_000;
    pub const SOCK: u32 = 0o140_000;
    pub const LNK: u32 = 0o120_000;
    pub const REG: u32 = 0o100_000;
    pub const BLK: u32 = 0o060_000;
    pub const DIR: u32 = 0o040_000;
    pub const CHR: u32 = 0o020_000;
    pub const FIFO: u32 = 0o010_000;
}

/// Entries of a directory in memory.
pub struct Directory {
    pub(super) entries: BTreeMap<Box<[u8]>, (u64, Arc<Inode>)>,
    /// Number of the next entry: readers go on behind the last one that they saw.
    pub(super) next: u64,
    /// Removed: nothing may be created in it.
    pub(super) dead: bool,
}

/// Makes the text of a generated link. The argument is the link's.
pub type LinkText = fn(u64) -> Result<Vec<u8>, Errno>;
/// Finds what a generated link leads to, whatever its text is.
pub type LinkPlace = fn(u64) -> Result<Arc<Place>, Errno>;

/// What an inode is.
pub enum Kind {
    /// A directory in memory.
    Directory(SpinLock<Directory, { rank::FILE }>),
    /// A regular file in memory.
    Regular(Arc<FilePages>),
    /// A symbolic link.
    Symlink(Box<[u8]>),
    /// A character or block device.
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo(Arc<Pipe>),
    /// A socket's name.
    Socket(Weak<Socket>),
    /// A file whose text is made when it is read.
    Generated(Generated),
    /// A symbolic link whose target is made when it is read. With the second function it leads to what that gives, whatever its
    /// text is.
    GeneratedLink(LinkText, Option<LinkPlace>, u64),
    /// A file that gives each opener something of its own.
    Special(fn(u64) -> Arc<dyn File>, u64),
    /// A directory of generated files.
    Virtual(VirtualDir),
}

/// One inode.
pub struct Inode {
    /// Number, unique within `dev`.
    pub ino: u64,
    /// Number of the file system.
    pub dev: u64,
    /// Type and permissions.
    pub mode: AtomicU32,
    /// Names that lead here.
    pub nlink: AtomicU32,
    /// Owner.
    pub uid: AtomicU32,
    /// Group.
    pub gid: AtomicU32,
    /// Time of the last change of content, ns since 1970.
    pub mtime_ns: AtomicU64,
    /// Something is mounted on it.
    pub covered: AtomicBool,
    /// How often it is open for writing, and how many processes run it: ETXTBSY keeps one of them 0.
    pub(super) writers: AtomicU32,
    pub(super) runners: AtomicU32,
    /// What it is.
    pub kind: Kind,
}

/// What stat(2) tells.
#[derive(Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub mtime_ns: u64,
}

/// One entry as getdents(2) tells it.
pub struct DirEntry {
    /// Where a reader goes on after it; rising.
    pub cookie: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: u64,
    /// Type bits of the mode.
    pub mode: u32,
}

/// File systems' numbers.
pub mod device_number {
    /// The root file system.
    pub const RAM: u64 = 1;
    /// /proc
    pub const PROC: u64 = 2;
    /// /sys
    pub const SYS: u64 = 3;
    /// /dev/pts
    pub const PTS: u64 = 5;
    /// Pipes and the like.
    pub const ANONYMOUS: u64 = 4;
}

/// Linux's encoding of a device number for user space (new_encode_dev, extended as stat shows it).
pub const fn encode_device(major: u32, minor: u32) -> u64 {
    (minor as u64 & 0xff) | (major as u64 & 0xfff) << 8 | (minor as u64 & !0xff) << 12
}

/// The reverse of `encode_device`.
pub const fn decode_device(device: u64) -> (u32, u32) {
    (((device >> 8) & 0xfff) as u32, ((device & 0xff) | ((device >> 12) & 0xfff00)) as u32)
}

/// Wall time, ns since 1970.
pub fn wall_ns() -> u64 {
    crate::time::wall::now_ns()
}

static NEXT_INO: AtomicU64 = AtomicU64::new(2);

/// An inode number that was never used on a file system in memory.
pub fn new_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

impl Inode {
    /// An inode with no name yet.
    pub fn build(dev: u64, ino: u64, mode: u32, kind: Kind) -> Arc<Inode> {
        Arc::new(Inode {
            ino,
            dev,
            mode: AtomicU32::new(mode),
            nlink: AtomicU32::new(if mode & mode::FMT == mode::DIR { 2 } else { 1 }),
            uid: AtomicU32::new(0),
            gid: AtomicU32::new(0),
            mtime_ns: AtomicU64::new(0),
            covered: AtomicBool::new(false),
            writers: AtomicU32::new(0),
            runners: AtomicU32::new(0),
            kind,
        })
    }

    /// A new inode of the root file system.
    pub fn new(mode: u32, kind: Kind) -> Arc<Inode> {
        let inode = Self::build(device_number::RAM, new_ino(), mode, kind);
        inode.mtime_ns.store(wall_ns(), Ordering::Relaxed);
        inode
    }

    /// A new empty directory.
    pub fn new_directory(permissions: u32) -> Arc<Inode> {
        let directory = Directory { entries: BTreeMap::new(), next: 3, dead: false };
        Self::new(mode::DIR | permissions & 0o7777, Kind::Directory(SpinLock::new(directory)))
    }

    /// ETXTBSY for a program that runs and is to be written.
    pub fn may_be_written(&self) -> Result<(), Errno> {
        if self.runners.load(Ordering::SeqCst) > 0 { Err(errno::ETXTBSY) } else { Ok(()) }
    }

    /// Whether it is the same as `other`. A generated directory has a new one at each lookup, which its numbers tell.
    pub fn is(&self, other: &Inode) -> bool {
        let generated = matches!((&self.kind, &other.kind), (Kind::Virtual(_), Kind::Virtual(_)));
        core::ptr::eq(self, other) || generated && (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// Type bits.
    pub fn file_type(&self) -> u32 {
        self.mode.load(Ordering::Relaxed) & mode::FMT
    }

    /// Whether it is a directory of any kind.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory(_) | Kind::Virtual(_))
    }

    /// The entry `name` of a directory.
    pub fn lookup(&self, name: &[u8]) -> Result<Arc<Inode>, Errno> {
        match &self.kind {
            Kind::Directory(d) => d.lock().entries.get(name).map(|e| e.1.clone()).ok_or(errno::ENOENT),
            Kind::Virtual(v) => v.lookup(self, name).ok_or(errno::ENOENT),
            _ => Err(errno::ENOTDIR),
        }
    }

    /// All entries of a directory by rising cookie, `.` and `..` apart; cookies start at 3.
    pub fn list(&self) -> Result<Vec<DirEntry>, Errno> {
        match &self.kind {
            Kind::Directory(d) => {
                let d = d.lock();
                let mut out: Vec<DirEntry> = d
                    .entries
                    .iter()
                    .map(|(name, (cookie, inode))| DirEntry {
                        cookie: *cookie,
                        name: name.to_vec(),
                        ino: inode.ino,
                        mode: inode.mode.load(Ordering::Relaxed),
                    })
                    .collect();
                drop(d);
                out.sort_unstable_by_key(|e| e.cookie);
                Ok(out)
            }
            Kind::Virtual(v) => Ok(v.list(self)),
            _ => Err(errno::ENOTDIR),
        }
    }

    /// Whether it is a directory that has been removed.
    pub fn is_removed_directory(&self) -> bool {
        matches!(&self.kind, Kind::Directory(d) if d.lock().dead)
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        matches!(self.kind, Kind::Symlink(_) | Kind::GeneratedLink(..))
    }

    /// Target of a symbolic link.
    pub fn link_target(&self) -> Result<Vec<u8>, Errno> {
        match &self.kind {
            Kind::Symlink(target) => Ok(target.to_vec()),
            Kind::GeneratedLink(make, _, argument) => make(*argument),
            _ => Err(errno::EINVAL),
        }
    }

    /// Where a link leads that is more than its text.
    pub fn link_place(&self) -> Option<Result<Arc<Place>, Errno>> {
        match &self.kind {
            Kind::GeneratedLink(_, Some(place), argument) => Some(place(*argument)),
            _ => None,
        }
    }

    /// Bytes of content.
    pub fn content_len(&self) -> u64 {
        match &self.kind {
            Kind::Regular(pages) => pages.len(),
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// Set a regular file's length.
    pub fn truncate(&self, len: u64) -> Result<(), Errno> {
        match &self.kind {
            Kind::Regular(pages) => {
                if len > i64::MAX as u64 {
                    return Err(errno::EFBIG);
                }
                let shorter = len < pages.len();
                pages.truncate(len);
                // More owners than this inode: somebody has it mapped.
                if shorter && Arc::strong_count(pages) > 1 {
                    let spaces = crate::process::tree::all().into_iter().filter_map(|p| p.address_space.lock().clone());
                    spaces.for_each(|space| space.forget_beyond(pages, len));
                }
                self.touch();
                Ok(())
            }
            Kind::Directory(_) | Kind::Virtual(_) => Err(errno::EISDIR),
            // Generated files and devices have no length to set; O_TRUNC is common on them.
            _ => Ok(()),
        }
    }

    /// The content changed now.
    pub fn touch(&self) {
        self.mtime_ns.store(wall_ns(), Ordering::Relaxed);
    }

    /// stat(2).
    pub fn stat(&self) -> Stat {
        let rdev = match self.kind {
            Kind::Device { major, minor } => encode_device(major, minor),
            _ => 0,
        };
        Stat {
            dev: self.dev,
            ino: self.ino,
            mode: self.mode.load(Ordering::Relaxed),
            nlink: self.nlink.load(Ordering::Relaxed),
            uid: self.uid.load(Ordering::Relaxed),
            gid: self.gid.load(Ordering::Relaxed),
            rdev,
            size: self.content_len(),
            mtime_ns: self.mtime_ns.load(Ordering::Relaxed),
        }
    }

    fn take_entries(&mut self) -> BTreeMap<Box<[u8]>, (u64, Arc<Inode>)> {
        match &self.kind {
            Kind::Directory(d) => core::mem::take(&mut d.lock().entries),
            _ => BTreeMap::new(),
        }
    }

    /// What an open of this inode reads and writes.
    pub fn open(self: &Arc<Inode>, flags: u32) -> Result<Arc<dyn File>, Errno> {
        match &self.kind {
            Kind::Device { major, minor } => super::device::open(*major, *minor, flags),
            Kind::Fifo(pipe) if self.dev == device_number::ANONYMOUS => Ok(pipe.open_again(flags)),
            Kind::Fifo(pipe) => pipe.open_named(flags),
            Kind::Socket(_) => Err(errno::ENXIO),
            Kind::Generated(g) => g.open(flags),
            Kind::Special(make, argument) => Ok(make(*argument)),
            _ => Ok(self.clone()),
        }
    }
}

impl Drop for Inode {
    /// A deep tree must not be dropped by recursion: kernel stacks are small.
    fn drop(&mut self) {
        let mut entries = self.take_entries();
        let mut below = Vec::new();
        loop {
            below.extend(entries.into_values().map(|(_, inode)| inode));
            let Some(next) = below.pop() else { return };
            entries = Arc::into_inner(next).map_or(BTreeMap::new(), |mut alone| alone.take_entries());
        }
    }
}

/// Regular files and directories are open as themselves.
impl File for Inode {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let Kind::Regular(pages) = &self.kind else { return Err(errno::EISDIR) };
        if let Some(bytes) = pages.unchanged() {
            let start = (how.offset as usize).min(bytes.len());
            return to.put(&bytes[start..]);
        }
        let mut done = 0;
        let mut bounce = [0u8; 1024];
        while to.left() > 0 {
            let wanted = to.left().min(bounce.len());
            let n = pages.read(how.offset.saturating_add(done as u64), &mut bounce[..wanted]);
            if n == 0 {
                break;
            }
            match to.put(&bounce[..n]) {
                Ok(put) => done += put,
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            }
        }
        Ok(done)
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let Kind::Regular(pages) = &self.kind else { return Err(errno::EISDIR) };
        let mut done = 0;
        let mut bounce = [0u8; 1024];
        while from.left() > 0 {
            let step = (|| {
                let n = from.take(&mut bounce)?;
                if how.append() {
                    pages.append(&bounce[..n])?;
                } else {
                    pages.write(how.offset.saturating_add(done as u64), &bounce[..n])?;
                }
                Ok(n)
            })();
            match step {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        self.touch();
        Ok(done)
    }

    fn size(&self) -> u64 {
        self.content_len()
    }

    fn readable_bytes(&self) -> Option<usize> {
        Some(self.content_len() as usize)
    }
}

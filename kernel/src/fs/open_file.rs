//! Open files: the trait that everything readable or writable has, and the open-file description that descriptors share.
//!
//! Process context. Nothing here sleeps with a lock held; closing is dropping the last reference.

use super::epoll::Epoll;
use super::inode::{Inode, Stat, mode};
use super::mount;
use super::place::Place;
use super::signal_file::SignalFile;
use super::timer_file::TimerFile;
use super::unix_socket::Socket;
use super::user_buffer::UserBuffer;
use crate::errno::{self, Errno};
use crate::mm::address_space::Content;
use crate::process::Process;
use crate::sched::wait_queue::WaitQueue;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Flags of open(2), Linux's x86 numbers (asm-generic/fcntl.h).
pub mod flag {
    #![allow(missing_docs)]
    pub const ACCMODE: u32 = 3;
    pub const RDONLY: u32 = 0;
    pub const WRONLY: u32 = 1;
    pub const RDWR: u32 = 2;
    pub const CREAT: u32 = 0o100;
    pub const EXCL: u32 = 0o200;
    pub const NOCTTY: u32 = 0o400;
    pub const TRUNC: u32 = 0o1000;
    pub const APPEND: u32 = 0o2000;
    pub const NONBLOCK: u32 = 0o4000;
    pub const DIRECTORY: u32 = 0o200000;
    pub const NOFOLLOW: u32 = 0o400000;
    pub const CLOEXEC: u32 = 0o2000000;
    pub const PATH: u32 = 0o10000000;
    pub const TMPFILE: u32 = 0o20200000;
    /// What F_SETFL may change.
    pub const SETTABLE: u32 = APPEND | NONBLOCK | 0o40000 | 0o20000 | 0o1000000;
    /// What F_GETFL does not show.
    pub const NOT_KEPT: u32 = CREAT | EXCL | TRUNC | NOCTTY | CLOEXEC;
}

/// Bits of poll(2).
pub mod poll {
    #![allow(missing_docs)]
    pub const IN: u32 = 1;
    pub const PRI: u32 = 2;
    pub const OUT: u32 = 4;
    pub const ERR: u32 = 8;
    pub const HUP: u32 = 16;
    pub const NVAL: u32 = 32;
    pub const RDNORM: u32 = 0x40;
    pub const WRNORM: u32 = 0x100;
    pub const RDHUP: u32 = 0x2000;
    /// Ready for everything, as a regular file is.
    pub const ALWAYS: u32 = IN | OUT | RDNORM | WRNORM;
}

/// How one transfer is to be done.
#[derive(Clone, Copy)]
pub struct How {
    /// Where in the file; streams ignore it.
    pub offset: u64,
    /// Status flags (`flag`). One word with the offset beside it: both are handed over in registers.
    pub flags: u32,
}

impl How {
    /// EAGAIN instead of waiting.
    #[inline(always)]
    pub const fn nonblock(self) -> bool {
        self.flags & flag::NONBLOCK != 0
    }

    /// Write at the end.
    #[inline(always)]
    pub const fn append(self) -> bool {
        self.flags & flag::APPEND != 0
    }
}

/// Something that can be open.
pub trait File: Send + Sync {
    /// Read at `how.offset`; 0 at the end.
    fn read(&self, _to: &mut UserBuffer, _how: How) -> Result<usize, Errno> {
        Err(errno::EINVAL)
    }
    /// Write at `how.offset`.
    fn write(&self, _from: &mut UserBuffer, _how: How) -> Result<usize, Errno> {
        Err(errno::EINVAL)
    }
    /// What mmap(2) of `len` bytes from `offset` on shows, of a file that is not a regular one. Read-only.
    fn mapping(&self, _offset: u64, _len: u64) -> Result<Content, Errno> {
        Err(errno::ENODEV)
    }
    /// Whether there is an offset; streams have none.
    fn is_seekable(&self) -> bool {
        true
    }
    /// Where SEEK_END is.
    fn size(&self) -> u64 {
        0
    }
    /// ioctl(2): `argument` is a number or a user address.
    fn ioctl(&self, _request: u32, _argument: u64) -> Result<i64, Errno> {
        Err(errno::ENOTTY)
    }
    /// What poll(2) says now to a descriptor of access mode `access`.
    fn poll(&self, _access: u32) -> u32 {
        poll::ALWAYS
    }
    /// The queues that are woken when `poll` may have changed.
    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [None, None]
    }
    /// Adds the files by whose queues `poll` may change besides its own: those that an epoll watches.
    fn watched_files(&self, _files: &mut Vec<Arc<dyn File>>) {}
    /// The epoll that it is.
    fn as_epoll(&self) -> Option<&Epoll> {
        None
    }
    /// The timer that it is.
    fn as_timer(self: Arc<Self>) -> Option<Arc<TimerFile>> {
        None
    }
    /// The signalfd that it is.
    fn as_signals(&self) -> Option<&SignalFile> {
        None
    }
    /// The process that it stands for.
    fn as_process(&self) -> Option<&Arc<Process>> {
        None
    }
    /// What fstat shows, of a file that is not in a directory.
    fn stat(&self) -> Stat {
        Stat::default()
    }
    /// For programs: the open-file description is about to go. `access` is its access mode.
    fn release(&self, _access: u32) {}
    /// An inode by which it can be opened again, of a file that is not in a directory.
    fn inode(self: Arc<Self>) -> Option<Arc<Inode>> {
        None
    }
    /// The socket that it is.
    fn as_socket(self: Arc<Self>) -> Option<Arc<Socket>> {
        None
    }
    /// Bytes that can be read now (FIONREAD).
    fn readable_bytes(&self) -> Option<usize> {
        None
    }
}

/// An open-file description (POSIX): what dup and fork share.
pub struct OpenFile {
    /// What is open.
    pub file: Arc<dyn File>,
    /// The same, found by no arithmetic: where an `Arc` has a value of a size that only its methods' table tells takes five instructions.
    direct: Direct,
    /// Where reads and writes go on.
    pub offset: AtomicU64,
    flags: AtomicU32,
    /// What its access mode allows: neither of a descriptor that only says where a file is (O_PATH). Nothing changes it.
    readable: bool,
    writable: bool,
    /// It has an offset.
    seekable: bool,
    /// Where it was found; pipes and the like are nowhere.
    pub place: Option<Arc<Place>>,
}

/// A file that somebody keeps.
struct Direct(NonNull<dyn File>);
// SAFETY: a shared reference to a `File`, which is `Sync`.
unsafe impl Send for Direct {}
// SAFETY: as above.
unsafe impl Sync for Direct {}

impl OpenFile {
    #[inline(always)]
    fn direct(&self) -> &dyn File {
        // SAFETY: it is `self.file`'s, which stays as long as `self` does; nobody has it mutably.
        unsafe { self.direct.0.as_ref() }
    }

    /// Open `file` with open(2)'s `flags`.
    pub fn new(file: Arc<dyn File>, flags: u32, place: Option<Arc<Place>>) -> Arc<OpenFile> {
        let seekable = file.is_seekable();
        if let Some(place) = &place
            && flags & flag::ACCMODE != flag::RDONLY
        {
            place.inode.writers.fetch_add(1, Ordering::SeqCst);
        }
        let readable = flags & flag::ACCMODE != flag::WRONLY && flags & flag::PATH == 0;
        let writable = flags & flag::ACCMODE != flag::RDONLY && flags & flag::PATH == 0;
        let (offset, flags) = (AtomicU64::new(0), AtomicU32::new(flags & !flag::NOT_KEPT));
        let direct = Direct(NonNull::from(&*file));
        Arc::new(OpenFile { file, direct, offset, flags, readable, writable, seekable, place })
    }

    /// Access mode and status flags.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// F_SETFL.
    pub fn set_flags(&self, flags: u32) {
        let kept = self.flags() & !flag::SETTABLE;
        self.flags.store(kept | flags & flag::SETTABLE, Ordering::Relaxed);
    }

    /// O_NONBLOCK on or off (FIONBIO).
    pub fn set_nonblock(&self, on: bool) {
        let rest = self.flags() & !flag::NONBLOCK;
        self.flags.store(if on { rest | flag::NONBLOCK } else { rest }, Ordering::Relaxed);
    }

    /// Whether it is a pipe, with or without a name.
    pub fn is_pipe(&self) -> bool {
        self.stat().mode & mode::FMT == mode::FIFO
    }

    /// Whether it was opened for reading.
    #[inline]
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether it was opened for writing.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether it only says where a file is (O_PATH).
    #[inline]
    pub fn is_path_only(&self) -> bool {
        self.flags() & flag::PATH != 0
    }

    /// The inode, of a file that is in a directory.
    pub fn inode(&self) -> Option<&Arc<Inode>> {
        self.place.as_ref().map(|p| &p.inode)
    }

    /// Where it is, as a link in /proc shows it to the running process, or what it is.
    pub fn shown_path(&self) -> Vec<u8> {
        let Some(place) = &self.place else {
            let pipe = || alloc::format!("pipe:[{}]", self.file.stat().ino).into_bytes();
            return if self.is_pipe() { pipe() } else { b"anon_inode:[eventfd]".to_vec() };
        };
        place.shown_path()
    }

    /// Where it was found, or a place of its own for what is in no directory. ENXIO if it cannot be opened again.
    pub fn place_or_own(&self) -> Result<Arc<Place>, Errno> {
        if let Some(place) = &self.place {
            return Ok(place.clone());
        }
        let inode = self.file.clone().inode().ok_or(errno::ENXIO)?;
        Ok(Arc::new(Place { inode, name: self.shown_path().into(), parent: None, mount: mount::NOWHERE }))
    }

    /// fstat.
    pub fn stat(&self) -> Stat {
        self.inode().map_or_else(|| self.file.stat(), |inode| inode.stat())
    }

    /// read(2), or pread(2) with an offset.
    #[inline]
    pub fn read(&self, to: &mut UserBuffer, at: Option<u64>) -> Result<usize, Errno> {
        self.read_with(to, at, 0)
    }

    /// The same with further status flags for this one transfer.
    #[inline]
    pub fn read_with(&self, to: &mut UserBuffer, at: Option<u64>, more: u32) -> Result<usize, Errno> {
        if !self.readable {
            return Err(errno::EBADF);
        }
        let flags = self.flags() | more;
        match at {
            Some(at) => self.direct().read(to, How { offset: at, flags }),
            None if !self.seekable => self.direct().read(to, How { offset: 0, flags }),
            None => {
                let offset = self.offset.load(Ordering::Relaxed);
                let n = self.direct().read(to, How { offset, flags })?;
                self.offset.store(offset.saturating_add(n as u64), Ordering::Relaxed);
                Ok(n)
            }
        }
    }

    /// write(2), or pwrite(2) with an offset.
    #[inline]
    pub fn write(&self, from: &mut UserBuffer, at: Option<u64>) -> Result<usize, Errno> {
        self.write_with(from, at, 0, 0)
    }

    /// The same with further status flags for this one transfer, and without some.
    #[inline]
    pub fn write_with(&self, from: &mut UserBuffer, at: Option<u64>, more: u32, less: u32) -> Result<usize, Errno> {
        if !self.writable {
            return Err(errno::EBADF);
        }
        let flags = self.flags() & !less | more;
        match at {
            Some(at) => self.direct().write(from, How { offset: at, flags }),
            None if !self.seekable => self.direct().write(from, How { offset: 0, flags }),
            None => {
                let append = flags & flag::APPEND != 0;
                let offset = if append { self.file.size() } else { self.offset.load(Ordering::Relaxed) };
                let n = self.direct().write(from, How { offset, flags })?;
                self.offset.store(offset.saturating_add(n as u64), Ordering::Relaxed);
                Ok(n)
            }
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let access = self.flags() & flag::ACCMODE;
        self.file.release(access);
        if let Some(inode) = self.inode()
            && access != flag::RDONLY
        {
            inode.writers.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

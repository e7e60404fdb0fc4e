//! The pages of a regular file, or of memory that address spaces share: what read, write and every mapping of it see.
//!
//! Process context. A page is a frame from the first write or shared mapping on; until then it is the archive's, which stays in memory, or a
//! hole. A frame has one user here and one for each entry of a page table. The lock is taken inside an address space's, and user memory is never
//! touched under it. Running out of memory is an error, never a panic, for the pages themselves.

use super::page_fault::{FaultError, ZERO_PAGE, copy_frame};
use super::{frame, kernel_map};
use crate::arch::page_table::{DIRECT_MAP, PAGE_SIZE, VMAP_START, phys_to_virt};
use crate::errno::{EFBIG, ENOMEM, ENOSPC, Errno};
use crate::spin_lock::{SpinLock, rank};
use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes in memory that files and mappings share.
pub struct FilePages {
    inner: SpinLock<Inner, { rank::FILE }>,
}

struct Inner {
    /// What the archive has of it, where no page is in front. Never longer than `len`.
    archived: &'static [u8],
    /// Frames by page number. Behind `len` the last one is zero.
    pages: BTreeMap<u64, u64>,
    len: u64,
    /// A page may differ from the archive's.
    changed: bool,
    /// Pages made to be read only: one copy of the archive's for all.
    copies: u64,
}

/// Frames that files have.
static FRAMES: AtomicU64 = AtomicU64::new(0);
/// Of them, pages that files keep for whoever reads them next.
static COPIES: AtomicU64 = AtomicU64::new(0);

/// Frames that files keep although nobody may have them mapped: copies of the archive's bytes, until the file goes.
pub fn kept_frames() -> u64 {
    COPIES.load(Ordering::Relaxed)
}

/// Bytes of the frames that files and shared memory have; what lies in the root archive is not among them.
pub fn frame_bytes() -> u64 {
    FRAMES.load(Ordering::Relaxed) * PAGE_SIZE
}

/// A page to be mapped read-only.
pub enum Page {
    /// The kernel's for good: not counted.
    InPlace(u64),
    /// With one user more.
    Counted(u64),
}

impl FilePages {
    /// `len` bytes of zeros; no page is made yet.
    pub fn zeros(len: u64) -> Arc<Self> {
        Self::with(&[], len)
    }

    /// A file of the root archive.
    pub fn archived(bytes: &'static [u8]) -> Arc<Self> {
        Self::with(bytes, bytes.len() as u64)
    }

    fn with(archived: &'static [u8], len: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: SpinLock::new(Inner { archived, pages: BTreeMap::new(), len, changed: false, copies: 0 }),
        })
    }

    /// Becomes a file of the root archive: of several names with one inode, one archive entry has the bytes.
    pub fn set_archived(&self, bytes: &'static [u8]) {
        let mut inner = self.inner.lock();
        inner.cut_to(0);
        (inner.archived, inner.len) = (bytes, bytes.len() as u64);
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.inner.lock().len
    }

    /// All bytes, if they are still the archive's.
    pub fn unchanged(&self) -> Option<&'static [u8]> {
        let inner = self.inner.lock();
        (!inner.changed).then_some(inner.archived)
    }

    /// All bytes; a copy of what has changed. ENOMEM.
    pub fn whole(&self) -> Result<Cow<'static, [u8]>, Errno> {
        if let Some(bytes) = self.unchanged() {
            return Ok(Cow::Borrowed(bytes));
        }
        let len = usize::try_from(self.len()).map_err(|_| ENOMEM)?;
        let mut all = Vec::new();
        all.try_reserve_exact(len).map_err(|_| ENOMEM)?;
        all.resize(len, 0);
        let read = self.read(0, &mut all);
        all.truncate(read);
        Ok(Cow::Owned(all))
    }

    /// Copy from offset `at`; how many bytes were there.
    pub fn read(&self, at: u64, out: &mut [u8]) -> usize {
        let inner = self.inner.lock();
        let len = inner.len.saturating_sub(at).min(out.len() as u64) as usize;
        for (number, start, part) in pieces(at, len) {
            let part = &mut out[part];
            if let Some(&phys) = inner.pages.get(&number) {
                let from = (phys_to_virt(phys) as usize + start) as *const u8;
                // SAFETY: 1. a frame in the direct map that the lock keeps; 2. `start` and the part lie in one page; 3. programs that have
                // it mapped may write meanwhile: bytes are copied raw, no reference is made.
                unsafe { core::ptr::copy_nonoverlapping(from, part.as_mut_ptr(), part.len()) };
                continue;
            }
            let there = inner.archived_page(number).get(start..).unwrap_or(&[]);
            let given = there.len().min(part.len());
            part[..given].copy_from_slice(&there[..given]);
            part[given..].fill(0);
        }
        len
    }

    /// Write at offset `at`. EFBIG; ENOSPC where programs need what memory is left: the pages before are written then.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.inner.lock().write(at, bytes)
    }

    /// Write behind the end (O_APPEND). Errors as of `write`.
    pub fn append(&self, bytes: &[u8]) -> Result<(), Errno> {
        let mut inner = self.inner.lock();
        let at = inner.len;
        inner.write(at, bytes)
    }

    /// Set the length; what is new reads as zeros. Whoever has pages beyond it mapped keeps them: see
    /// [`AddressSpace::forget_beyond`](super::address_space::AddressSpace::forget_beyond).
    pub fn truncate(&self, len: u64) {
        let mut inner = self.inner.lock();
        if len < inner.len {
            inner.cut_to(len);
        }
        inner.len = len;
        inner.changed |= len as usize != inner.archived.len();
    }

    /// Whether the page at byte `offset` is in memory, for mincore(2).
    pub fn is_resident(&self, offset: u64) -> bool {
        let inner = self.inner.lock();
        let number = offset / PAGE_SIZE;
        inner.pages.contains_key(&number) || !inner.archived_page(number).is_empty()
    }

    /// The page at byte `offset` for a private mapping that reads it.
    pub(super) fn page_to_read(&self, offset: u64) -> Result<Page, FaultError> {
        let mut inner = self.inner.lock();
        let number = inner.number_of(offset)?;
        if let Some(&phys) = inner.pages.get(&number) {
            frame::share(phys);
            return Ok(Page::Counted(phys));
        }
        let bytes = inner.archived_page(number);
        let at = bytes.as_ptr() as u64;
        if bytes.is_empty() {
            return Ok(Page::InPlace(kernel_map::virt_to_phys(&raw const ZERO_PAGE as u64)));
        }
        if at.is_multiple_of(PAGE_SIZE) && bytes.len() as u64 == PAGE_SIZE {
            // What was expanded lies in the area of mappings.
            let direct = (DIRECT_MAP..VMAP_START).contains(&at);
            let frame = if direct { Some(kernel_map::virt_to_phys(at)) } else { kernel_map::frame_at(at) };
            return frame.map(Page::InPlace).ok_or(FaultError::Bus);
        }
        let phys = frame_with(bytes).ok_or(FaultError::NoMemory)?;
        // One copy for all; where memory is short each gets its own.
        if frame::above_reserve(2) {
            frame::share(phys);
            inner.keep(number, phys);
            inner.copies += 1;
            COPIES.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Page::Counted(phys))
    }

    /// A new frame with the page at byte `offset`, for a private mapping that writes it.
    pub(super) fn copy_of_page(&self, offset: u64) -> Result<u64, FaultError> {
        let inner = self.inner.lock();
        let number = inner.number_of(offset)?;
        let copy = match inner.pages.get(&number) {
            None => frame_with(inner.archived_page(number)),
            Some(&from) => frame::alloc().inspect(|&to| {
                // SAFETY: 1. both are frames in the direct map; 2. `to` is new; 3. the lock keeps `from` in the file.
                unsafe { copy_frame(to, from) }
            }),
        };
        copy.ok_or(FaultError::NoMemory)
    }

    /// The page at byte `offset` itself, with one user more, for a shared mapping.
    pub(super) fn page_to_share(&self, offset: u64) -> Result<u64, FaultError> {
        let mut inner = self.inner.lock();
        let number = inner.number_of(offset)?;
        inner.changed = true;
        let phys = inner.own_page(number).ok_or(FaultError::NoMemory)?;
        frame::share(phys);
        Ok(phys)
    }
}

impl Inner {
    /// The page number of byte `offset`. SIGBUS behind the last page.
    fn number_of(&self, offset: u64) -> Result<u64, FaultError> {
        let number = offset / PAGE_SIZE;
        if number < self.len.div_ceil(PAGE_SIZE) { Ok(number) } else { Err(FaultError::Bus) }
    }

    /// What the archive has of a page; empty for a hole.
    fn archived_page(&self, number: u64) -> &'static [u8] {
        let start = number.saturating_mul(PAGE_SIZE).min(self.archived.len() as u64) as usize;
        let rest = &self.archived[start..];
        &rest[..rest.len().min(PAGE_SIZE as usize)]
    }

    /// The frame of a page, made if there is none. `None` without memory.
    fn own_page(&mut self, number: u64) -> Option<u64> {
        if let Some(&phys) = self.pages.get(&number) {
            return Some(phys);
        }
        let phys = frame_with(self.archived_page(number))?;
        self.keep(number, phys);
        Some(phys)
    }

    /// The frame is the file's from now on.
    fn keep(&mut self, number: u64, phys: u64) {
        self.pages.insert(number, phys);
        FRAMES.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        if at.saturating_add(bytes.len() as u64) > i64::MAX as u64 {
            return Err(EFBIG);
        }
        self.changed = true;
        for (number, start, part) in pieces(at, bytes.len()) {
            if !self.pages.contains_key(&number) && !frame::above_reserve(4) {
                return Err(ENOSPC);
            }
            let phys = self.own_page(number).ok_or(ENOSPC)?;
            let part = &bytes[part];
            // SAFETY: 1. a frame in the direct map that the lock keeps; 2. `start` and the part lie in one page; 3. programs that have it
            // mapped may write meanwhile: bytes are copied raw, no reference is made.
            unsafe {
                core::ptr::copy_nonoverlapping(
                    part.as_ptr(),
                    (phys_to_virt(phys) as usize + start) as *mut u8,
                    part.len(),
                );
            }
            self.len = self.len.max(at + (part.as_ptr() as usize - bytes.as_ptr() as usize + part.len()) as u64);
        }
        Ok(())
    }

    /// Drop what lies at `len` and beyond.
    fn cut_to(&mut self, len: u64) {
        let gone = self.pages.split_off(&len.div_ceil(PAGE_SIZE));
        FRAMES.fetch_sub(gone.len() as u64, Ordering::Relaxed);
        gone.into_values().for_each(frame::release);
        let start = (len % PAGE_SIZE) as usize;
        if let (Some(&phys), true) = (self.pages.get(&(len / PAGE_SIZE)), start > 0) {
            // SAFETY: 1. a frame in the direct map that the lock keeps; 2. up to its end.
            unsafe {
                let tail = (phys_to_virt(phys) as usize + start) as *mut u8;
                core::ptr::write_bytes(tail, 0, PAGE_SIZE as usize - start);
            }
        }
        self.archived = &self.archived[..self.archived.len().min(len as usize)];
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        COPIES.fetch_sub(self.copies, Ordering::Relaxed);
        FRAMES.fetch_sub(self.pages.len() as u64, Ordering::Relaxed);
        self.pages.values().for_each(|&phys| frame::release(phys));
    }
}

/// The parts of `len` bytes from `at` on that lie in one page each: page number, where in the page, which of the bytes.
fn pieces(at: u64, len: usize) -> impl Iterator<Item = (u64, usize, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let from = at + done as u64;
        let start = (from % PAGE_SIZE) as usize;
        let part = done..(done + PAGE_SIZE as usize - start).min(len);
        done = part.end;
        Some((from / PAGE_SIZE, start, part))
    })
}

/// A new frame with `bytes`, at most one page of them, and zeros behind them. `None` without memory.
fn frame_with(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return frame::alloc_zeroed();
    }
    let phys = frame::alloc()?;
    if (bytes.len() as u64) < PAGE_SIZE {
        frame::clear(phys);
    }
    let to = phys_to_virt(phys);
    // SAFETY: 1. the frame is ours alone; 2. the content is at most one page and is read only.
    unsafe {
        if bytes.len() as u64 == PAGE_SIZE {
            core::arch::asm!(
                "rep movsq",
                inout("rdi") to => _, inout("rsi") bytes.as_ptr() => _, inout("rcx") PAGE_SIZE / 8 => _,
                options(nostack, preserves_flags)
            );
        } else {
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len());
        }
    }
    Some(phys)
}

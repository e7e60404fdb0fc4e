//! The bytes of a regular file: the archive's own until the first write, pages after that. Holes cost nothing.
//!
//! Called under the inode's lock. Running out of memory is an error, never a panic, for the pages themselves.

use crate::arch::page_table::phys_to_virt;
use crate::errno::{self, Errno};
use crate::mm::frame;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

const PAGE: usize = 4096;

/// Pages by number.
type Pages = BTreeMap<u64, Page>;

/// The bytes.
pub enum Content {
    /// As the archive has them, which stays in memory.
    Archived(&'static [u8]),
    /// Pages by number, and the length.
    Pages(Pages, u64),
}

/// A file's whole content, as exec and mmap want it.
#[derive(Clone)]
pub enum Bytes {
    /// In the archive.
    Archived(&'static [u8]),
    /// A copy.
    Copied(Arc<Vec<u8>>),
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Archived(b) => b,
            Bytes::Copied(b) => b,
        }
    }
}

/// One page of a file: a frame that goes back when the file shrinks or goes.
pub struct Page(u64);

impl Page {
    /// Zeros. ENOSPC where programs need what memory is left.
    fn new() -> Result<Self, Errno> {
        if !frame::above_reserve(4) {
            return Err(errno::ENOSPC);
        }
        frame::alloc_zeroed().map(Self).ok_or(errno::ENOSPC)
    }
}

impl Deref for Page {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: 1. the frame is this page's alone until it is dropped; 2. the direct map maps it whole.
        unsafe { core::slice::from_raw_parts(phys_to_virt(self.0) as *const u8, PAGE) }
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed alone.
        unsafe { core::slice::from_raw_parts_mut(phys_to_virt(self.0) as *mut u8, PAGE) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        frame::release(self.0);
    }
}

impl Content {
    /// Nothing.
    pub const fn new() -> Self {
        Content::Archived(&[])
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Content::Archived(b) => b.len() as u64,
            Content::Pages(_, len) => *len,
        }
    }

    /// The bytes, if they are still the archive's.
    pub fn archived(&self) -> Option<&'static [u8]> {
        match self {
            Content::Archived(b) => Some(b),
            Content::Pages(..) => None,
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> Result<Bytes, Errno> {
        match self {
            Content::Archived(b) => Ok(Bytes::Archived(b)),
            Content::Pages(_, len) => {
                let len = usize::try_from(*len).map_err(|_| errno::ENOMEM)?;
                let mut all = Vec::new();
                all.try_reserve_exact(len).map_err(|_| errno::ENOMEM)?;
                all.resize(len, 0);
                let n = self.read(0, &mut all);
                all.truncate(n);
                Ok(Bytes::Copied(Arc::new(all)))
            }
        }
    }

    /// Copy from offset `at`; how many bytes were there.
    pub fn read(&self, at: u64, out: &mut [u8]) -> usize {
        let n = self.len().saturating_sub(at).min(out.len() as u64) as usize;
        match self {
            Content::Archived(b) if n > 0 => out[..n].copy_from_slice(&b[at as usize..at as usize + n]),
            Content::Archived(_) => {}
            Content::Pages(pages, _) => {
                let mut done = 0;
                while done < n {
                    let (page, start) = ((at + done as u64) / PAGE as u64, (at + done as u64) as usize % PAGE);
                    let step = (PAGE - start).min(n - done);
                    match pages.get(&page) {
                        Some(p) => out[done..done + step].copy_from_slice(&p[start..start + step]),
                        None => out[done..done + step].fill(0),
                    }
                    done += step;
                }
            }
        }
        n
    }

    fn pages(&mut self) -> Result<(&mut Pages, &mut u64), Errno> {
        if let Content::Archived(bytes) = *self {
            let mut pages = BTreeMap::new();
            for (number, chunk) in bytes.chunks(PAGE).enumerate() {
                let mut page = Page::new()?;
                page[..chunk.len()].copy_from_slice(chunk);
                pages.insert(number as u64, page);
            }
            *self = Content::Pages(pages, bytes.len() as u64);
        }
        match self {
            Content::Pages(pages, len) => Ok((pages, len)),
            Content::Archived(_) => Err(errno::EIO),
        }
    }

    /// Write at offset `at`, which together with the length fits into i64.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let (pages, len) = self.pages()?;
        let mut done = 0;
        while done < bytes.len() {
            let (number, start) = ((at + done as u64) / PAGE as u64, (at + done as u64) as usize % PAGE);
            let step = (PAGE - start).min(bytes.len() - done);
            let page = match pages.entry(number) {
                alloc::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
                alloc::collections::btree_map::Entry::Vacant(e) => e.insert(Page::new()?),
            };
            page[start..start + step].copy_from_slice(&bytes[done..done + step]);
            done += step;
        }
        *len = (*len).max(at + bytes.len() as u64);
        Ok(())
    }

    /// Set the length; what is new reads as zeros.
    pub fn truncate(&mut self, to: u64) -> Result<(), Errno> {
        match self {
            Content::Archived(b) if to <= b.len() as u64 => {
                *b = &b[..to as usize];
                return Ok(());
            }
            _ => {}
        }
        let (pages, len) = self.pages()?;
        if to < *len {
            pages.split_off(&to.div_ceil(PAGE as u64));
            if let Some(page) = pages.get_mut(&(to / PAGE as u64)) {
                page[to as usize % PAGE..].fill(0);
            }
        }
        *len = to;
        Ok(())
    }
}

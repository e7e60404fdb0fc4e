//! What the expansion of a compressed root archive reads and writes: the compressed bytes, whose pages are given back as they are used, and a
//! growing range of addresses with the result, in which the files of the root then lie. So no byte is in memory twice. Boot only.

use crate::arch::page_table::{DIRECT_MAP, PAGE_SIZE};
use crate::mm::{frame, kernel_map};

/// Pages that are given back, and made, at once.
const STEP: u64 = 64;

/// Compressed bytes.
pub struct Input {
    bytes: &'static [u8],
    at: usize,
    /// Physical address of the first page that was not given back.
    kept_from: u64,
}

impl Input {
    /// Those of the root archive from somewhere on.
    ///
    /// # Safety
    /// 1. `bytes` lie in the direct map, in pages that are the archive's alone; 2. nobody reads them but through this.
    pub unsafe fn new(bytes: &'static [u8]) -> Self {
        let start = bytes.as_ptr() as u64 - DIRECT_MAP;
        Self { bytes, at: 0, kept_from: start.next_multiple_of(PAGE_SIZE) }
    }

    /// What was not used yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    /// How many bytes were used.
    pub fn used(&self) -> usize {
        self.at
    }

    /// `count` bytes more were used, and are not looked at again.
    pub fn advance(&mut self, count: usize) {
        self.at = (self.at + count).min(self.bytes.len());
        let here = self.bytes.as_ptr() as u64 - DIRECT_MAP + self.at as u64;
        let end = here & !(PAGE_SIZE - 1);
        if end >= self.kept_from + STEP * PAGE_SIZE || self.at == self.bytes.len() && end > self.kept_from {
            // SAFETY: 1. pages of the archive's alone, by `new`; 2. all of their bytes are behind `at`, where `rest` does not reach.
            unsafe { frame::add(self.kept_from, end) };
            self.kept_from = end;
        }
    }
}

impl ruzstd::io::Read for &mut Input {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, ruzstd::io::Error> {
        let count = self.rest().len().min(out.len());
        out[..count].copy_from_slice(&self.rest()[..count]);
        self.advance(count);
        Ok(count)
    }
}

/// The result.
pub struct Area {
    bottom: u64,
    pages: u64,
    /// Pages that there are addresses for: as many as the machine has.
    most: u64,
    len: usize,
}

impl Area {
    /// Nothing yet. `None` where no addresses are left.
    pub fn new() -> Option<Self> {
        let most = frame::ram_bytes() / PAGE_SIZE + STEP;
        Some(Self { bottom: kernel_map::reserve(1, most)?, pages: 0, most, len: 0 })
    }

    /// Bytes made so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All that is there: what was made, and room behind it, at least one byte. `None` without memory.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        if self.len as u64 == self.pages * PAGE_SIZE {
            if frame::free_bytes() < frame::reserve_bytes() + STEP * PAGE_SIZE || self.pages + STEP > self.most {
                return None;
            }
            kernel_map::fill(self.bottom + self.pages * PAGE_SIZE, STEP)?;
            self.pages += STEP;
        }
        // SAFETY: 1. so many pages were mapped at `bottom` for good, zeroed; 2. nobody else has these addresses, and the borrow of `self`
        // keeps the slice alone.
        Some(unsafe { core::slice::from_raw_parts_mut(self.bottom as *mut u8, (self.pages * PAGE_SIZE) as usize) })
    }

    /// `count` bytes more were made.
    pub fn made(&mut self, count: usize) {
        self.len += count;
    }

    /// The result, for good.
    pub fn finish(self) -> &'static [u8] {
        kernel_map::give_up(self.bottom + self.pages * PAGE_SIZE, self.bottom + self.most * PAGE_SIZE);
        // SAFETY: as in `room`; nobody writes any more, for `self` is gone.
        unsafe { core::slice::from_raw_parts(self.bottom as *const u8, self.len) }
    }
}

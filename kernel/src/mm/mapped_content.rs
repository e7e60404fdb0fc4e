//! What regions that are not anonymous show: the bytes of a file, memory that address spaces share.
//!
//! Process context. Owned by `address_space`; exec and mmap make them.

use super::frame;
use super::page_fault::FaultError;
use crate::arch::page_table::PAGE_SIZE;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Memory that several address spaces share: pages by index, made on first use.
pub struct SharedMemory {
    pages: SpinLock<Vec<u64>, { rank::FILE }>,
}

impl SharedMemory {
    /// `len` bytes of zeros, no page made yet. `None` without memory.
    pub fn new(len: u64) -> Option<Arc<Self>> {
        let count = len.div_ceil(PAGE_SIZE) as usize;
        let mut pages = Vec::new();
        pages.try_reserve_exact(count).ok()?;
        pages.resize(count, 0);
        Some(Arc::new(Self { pages: SpinLock::new(pages) }))
    }

    /// The page at byte `offset`, with one user more. `Err(None)`: beyond the end; `Err(Some(()))`: no memory.
    pub(super) fn page(&self, offset: u64) -> Result<u64, FaultError> {
        let mut pages = self.pages.lock();
        let slot = pages.get_mut((offset / PAGE_SIZE) as usize).ok_or(FaultError::Bus)?;
        if *slot == 0 {
            *slot = frame::alloc_zeroed().ok_or(FaultError::NoMemory)?;
        }
        frame::share(*slot);
        Ok(*slot)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        self.pages.lock().iter().filter(|&&p| p != 0).for_each(|&p| frame::release(p));
    }
}

/// The content of a file, as it was when it was mapped.
#[derive(Clone)]
pub enum FileBytes {
    /// In memory for ever (the root archive): pages may be shared.
    Static(&'static [u8]),
    /// The first so many bytes of a copy.
    Owned(Arc<Vec<u8>>, usize),
}

impl FileBytes {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Static(b) => b,
            Self::Owned(b, len) => &b[..*len],
        }
    }

    /// The same without what is at `len` and beyond.
    pub fn cut(&self, len: usize) -> Self {
        match self {
            Self::Static(b) => Self::Static(&b[..len.min(b.len())]),
            Self::Owned(b, old) => Self::Owned(b.clone(), len.min(*old)),
        }
    }
}

//! What regions that are not anonymous show: the pages of a file or of shared memory, and what it is called.
//!
//! Owned by `address_space`; exec and mmap make them.

use super::file_pages::FilePages;
use alloc::boxed::Box;
use alloc::sync::Arc;

/// A file, or memory that address spaces share, as it is mapped.
#[derive(Clone)]
pub struct Mapped {
    /// Its pages.
    pub pages: Arc<FilePages>,
    /// Whether a shared mapping may have the right to write: the file was open for it.
    pub writable: bool,
    /// What /proc/PID/maps says of it.
    pub name: Arc<Name>,
}

impl Mapped {
    /// Whether both are mapped in the same way, so that one slot does for them.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pages, &other.pages) && self.writable == other.writable
    }
}

/// What a mapping is called.
pub struct Name {
    /// The absolute path when it was mapped.
    pub path: Box<[u8]>,
    /// Device number and inode number of the file.
    pub file: (u64, u64),
}

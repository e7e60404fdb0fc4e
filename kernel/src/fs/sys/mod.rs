//! /sys.

use super::generated::{Item, new_root};
use super::inode::{Inode, device_number};
use alloc::sync::Arc;

static ROOT: &[Item] = &[];

/// A root of it.
pub fn root_inode() -> Arc<Inode> {
    new_root(device_number::SYS, ROOT)
}

//! System calls about extended attributes: no file system here has them. Lists are empty; who asks for one, or sets it, is told.
//!
//! Source: getxattr(2), setxattr(2), listxattr(2), removexattr(2), xattr(7).

use super::file::file;
use super::file_stat::{CWD, place_at};
use crate::errno::{E2BIG, EINVAL, EOPNOTSUPP, ERANGE, Errno};
use crate::mm::user_copy;

/// The longest name (Linux's XATTR_NAME_MAX), and the longest value (XATTR_SIZE_MAX).
const NAME_MAX: usize = 255;
const SIZE_MAX: u64 = 65536;
/// XATTR_CREATE | XATTR_REPLACE.
const FLAGS: u64 = 3;

/// The file of a call: by a path, whose last link is followed or not, or by a descriptor.
#[derive(Clone, Copy)]
enum Of {
    Path(u64, bool),
    Descriptor(u64),
}

impl Of {
    /// There is such a file.
    fn check(self) -> Result<(), Errno> {
        match self {
            Of::Path(path, follow) => place_at(CWD, path, follow).map(drop),
            Of::Descriptor(fd) => file(fd).map(drop),
        }
    }
}

/// A name argument, of which only the length can be wrong.
fn check_name(at: u64) -> Result<(), Errno> {
    let name = user_copy::read_string(at, NAME_MAX + 1)?.ok_or(ERANGE)?;
    if name.is_empty() { Err(ERANGE) } else { Ok(()) }
}

fn set(of: Of, name: u64, value: u64, len: u64, flags: u64) -> Result<usize, Errno> {
    of.check()?;
    if flags & !FLAGS != 0 {
        return Err(EINVAL);
    }
    check_name(name)?;
    if len > SIZE_MAX {
        return Err(E2BIG);
    }
    user_copy::check(value, len)?;
    Err(EOPNOTSUPP)
}

/// Both look at the name alone.
fn get_or_remove(of: Of, name: u64) -> Result<usize, Errno> {
    of.check()?;
    check_name(name)?;
    Err(EOPNOTSUPP)
}

pub(super) fn setxattr(path: u64, name: u64, value: u64, len: u64, flags: u64) -> Result<usize, Errno> {
    set(Of::Path(path, true), name, value, len, flags)
}

pub(super) fn lsetxattr(path: u64, name: u64, value: u64, len: u64, flags: u64) -> Result<usize, Errno> {
    set(Of::Path(path, false), name, value, len, flags)
}

pub(super) fn fsetxattr(fd: u64, name: u64, value: u64, len: u64, flags: u64) -> Result<usize, Errno> {
    set(Of::Descriptor(fd), name, value, len, flags)
}

pub(super) fn getxattr(path: u64, name: u64, _value: u64, _len: u64) -> Result<usize, Errno> {
    get_or_remove(Of::Path(path, true), name)
}

pub(super) fn lgetxattr(path: u64, name: u64, _value: u64, _len: u64) -> Result<usize, Errno> {
    get_or_remove(Of::Path(path, false), name)
}

pub(super) fn fgetxattr(fd: u64, name: u64, _value: u64, _len: u64) -> Result<usize, Errno> {
    get_or_remove(Of::Descriptor(fd), name)
}

pub(super) fn listxattr(path: u64, _list: u64, _len: u64) -> Result<usize, Errno> {
    Of::Path(path, true).check().map(|()| 0)
}

pub(super) fn llistxattr(path: u64, _list: u64, _len: u64) -> Result<usize, Errno> {
    Of::Path(path, false).check().map(|()| 0)
}

pub(super) fn flistxattr(fd: u64, _list: u64, _len: u64) -> Result<usize, Errno> {
    Of::Descriptor(fd).check().map(|()| 0)
}

pub(super) fn removexattr(path: u64, name: u64) -> Result<usize, Errno> {
    get_or_remove(Of::Path(path, true), name)
}

pub(super) fn lremovexattr(path: u64, name: u64) -> Result<usize, Errno> {
    get_or_remove(Of::Path(path, false), name)
}

pub(super) fn fremovexattr(fd: u64, name: u64) -> Result<usize, Errno> {
    get_or_remove(Of::Descriptor(fd), name)
}

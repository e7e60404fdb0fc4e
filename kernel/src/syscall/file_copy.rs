//! System calls that move bytes with more words than read and write have: at an offset with flags, and from file to file.
//!
//! Source: preadv2(2), copy_file_range(2), sendfile(2), readahead(2), sync_file_range(2).

use super::file::{file, seekable, stretches};
use super::process_memory::chunk;
use crate::errno::{EBADF, EINVAL, EISDIR, EOPNOTSUPP, EOVERFLOW, ESPIPE, EXDEV, Errno};
use crate::fs::inode::{Inode, Kind, mode};
use crate::fs::open_file::{OpenFile, flag};
use crate::fs::user_buffer::UserBuffer;
use crate::mm::user_copy;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// The flags of preadv2 and pwritev2 as status flags, those that come and those that go. All is in memory: the one about polling for the device and those about writing
/// it back have nothing to do.
fn status_flags(flags: u64) -> Result<(u32, u32), Errno> {
    const HIPRI: u32 = 1;
    const DSYNC: u32 = 2;
    const SYNC: u32 = 4;
    const NOWAIT: u32 = 8;
    const APPEND: u32 = 16;
    const NOAPPEND: u32 = 32;
    let flags = flags as u32;
    if flags & !(HIPRI | DSYNC | SYNC | NOWAIT | APPEND | NOAPPEND) != 0 {
        return Err(EOPNOTSUPP);
    }
    if flags & (APPEND | NOAPPEND) == APPEND | NOAPPEND {
        return Err(EINVAL);
    }
    let when = |bit, status| if flags & bit != 0 { status } else { 0 };
    Ok((when(NOWAIT, flag::NONBLOCK) | when(APPEND, flag::APPEND), when(NOAPPEND, flag::APPEND)))
}

/// The file, and the offset if it is not to be the file's own.
fn at_offset(fd: u64, offset: u64) -> Result<(Arc<OpenFile>, Option<u64>), Errno> {
    match offset {
        u64::MAX => Ok((file(fd)?, None)),
        _ => Ok((seekable(fd, offset)?, Some(offset))),
    }
}

/// The high half of the offset is for machines with words of 32 bits.
pub(super) fn preadv2(fd: u64, at: u64, count: u64, offset: u64, _high: u64, flags: u64) -> Result<usize, Errno> {
    let (open, offset) = at_offset(fd, offset)?;
    open.read_with(&mut UserBuffer::of(&stretches(at, count)?), offset, status_flags(flags)?.0)
}

pub(super) fn pwritev2(fd: u64, at: u64, count: u64, offset: u64, _high: u64, flags: u64) -> Result<usize, Errno> {
    let (open, offset) = at_offset(fd, offset)?;
    let (more, less) = status_flags(flags)?;
    open.write_with(&mut UserBuffer::of(&stretches(at, count)?), offset, more, less)
}

/// What one call copies at most: less than asked for is allowed, and signals come between the calls.
const MOST_COPIED: u64 = 16 << 20;

/// What can be copied from and to. A directory on either side is EISDIR, whatever the other is; else what is no regular file is EINVAL.
fn regular<'a>(input: &'a OpenFile, output: &'a OpenFile) -> Result<[&'a Arc<Inode>; 2], Errno> {
    let inodes = [input.inode(), output.inode()];
    let is = |inode: Option<&Arc<Inode>>, kind| inode.is_some_and(|inode| inode.file_type() == kind);
    if inodes.iter().any(|inode| is(*inode, mode::DIR)) {
        return Err(EISDIR);
    }
    match inodes {
        [Some(source), Some(target)] if inodes.iter().all(|inode| is(*inode, mode::REG)) => Ok([source, target]),
        _ => Err(EINVAL),
    }
}

/// copy_file_range(2) between files in memory, by way of a page.
pub(super) fn copy_file_range(
    input: u64,
    input_offset_at: u64,
    output: u64,
    output_offset_at: u64,
    len: u64,
    flags: u64,
) -> Result<usize, Errno> {
    let (input, output) = (file(input)?, file(output)?);
    let offset_of = |open: &OpenFile, at| match at {
        0 => Ok(open.offset.load(Ordering::Relaxed)),
        at => user_copy::read::<u64>(at),
    };
    let (mut from, mut to) = (offset_of(&input, input_offset_at)?, offset_of(&output, output_offset_at)?);
    if flags != 0 {
        return Err(EINVAL);
    }
    let [source, target] = regular(&input, &output)?;
    if !input.is_readable() || !output.is_writable() || output.flags() & flag::APPEND != 0 {
        return Err(EBADF);
    }
    // What is made when it is read is of another file system.
    let (Kind::Regular(pages), Kind::Regular(_)) = (&source.kind, &target.kind) else { return Err(EXDEV) };
    let ends = |start: u64| start.checked_add(len).filter(|_| start <= i64::MAX as u64);
    let (Some(_), Some(_)) = (ends(from), ends(to)) else {
        return Err(if (from | to) as i64 >= 0 { EOVERFLOW } else { EINVAL });
    };
    let len = len.min(source.content_len().saturating_sub(from));
    if Arc::ptr_eq(source, target) && from < to + len && to < from + len {
        return Err(EINVAL);
    }
    let len = len.min(MOST_COPIED);
    let mut page = chunk()?;
    let mut done = 0;
    while done < len {
        let wanted = (len - done).min(page.len() as u64) as usize;
        let got = pages.read(from, &mut page[..wanted]);
        if got == 0 {
            break;
        }
        let put = match output.write(&mut UserBuffer::kernel(&page[..got]), Some(to)) {
            Ok(put) => put as u64,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        (done, from, to) = (done + put, from + put, to + put);
        if put < got as u64 {
            break;
        }
    }
    for (open, at, offset) in [(&input, input_offset_at, from), (&output, output_offset_at, to)] {
        match at {
            0 => open.offset.store(offset, Ordering::Relaxed),
            at => user_copy::write(at, &offset)?,
        }
    }
    Ok(done as usize)
}

/// readahead(2): what is in memory cannot come sooner.
pub(super) fn readahead(fd: u64, _offset: u64, _count: u64) -> Result<usize, Errno> {
    let open = file(fd)?;
    if !open.is_readable() {
        return Err(EBADF);
    }
    let is_regular = open.inode().is_some_and(|inode| inode.file_type() == mode::REG);
    if is_regular { Ok(0) } else { Err(EINVAL) }
}

/// sync_file_range(2): nothing is behind the memory that a file lies in.
pub(super) fn sync_file_range(fd: u64, offset: u64, len: u64, flags: u64) -> Result<usize, Errno> {
    const ALL: u64 = 7;
    let open = file(fd)?;
    let end = (offset as i64).checked_add(len as i64);
    if flags & !ALL != 0 || (offset as i64) < 0 || end.is_none_or(|end| end < offset as i64) {
        return Err(EINVAL);
    }
    match open.inode().map(|inode| inode.file_type()) {
        Some(mode::REG | mode::DIR | mode::LNK) => Ok(0),
        _ => Err(ESPIPE),
    }
}

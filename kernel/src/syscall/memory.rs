//! System calls about memory.

use super::table::Calls;
use crate::arch::page_table::{PAGE_SIZE, USER_END};
use crate::errno::{EACCES, EBADF, EINVAL, ENOMEM, EOPNOTSUPP, EOVERFLOW, Errno};
use crate::fs::inode::Kind;
use crate::fs::open_file::flag;
use crate::mm::address_space::{AddressSpace, Content, Place, SharedMemory, affordable};
use crate::process::current_thread;
use crate::process::exec::mappable;
use crate::system_call;
use core::sync::atomic::Ordering;
use kcore::vma::Prot;

/// Numbers and handlers.
pub const CALLS: Calls = &[
    (9, mmap),
    (10, mprotect),
    (11, munmap),
    (12, brk),
    (25, mremap),
    (26, msync),
    (28, madvise),
    (149, nothing), // mlock
    (150, nothing), // munlock
    (151, nothing), // mlockall
    (152, nothing), // munlockall
];

fn space() -> Result<&'static AddressSpace, Errno> {
    current_thread().address_space().map(|a| &**a).ok_or(ENOMEM)
}

/// PROT_READ, PROT_WRITE, PROT_EXEC.
const RIGHTS: u64 = 7;

fn prot_of(bits: u64) -> Result<Prot, Errno> {
    Prot::from_linux(bits).ok_or(EINVAL)
}

mod map {
    pub const SHARED: u64 = 1;
    pub const PRIVATE: u64 = 2;
    pub const SHARED_VALIDATE: u64 = 3;
    pub const TYPE: u64 = 0xf;
    pub const FIXED: u64 = 0x10;
    pub const ANONYMOUS: u64 = 0x20;
    pub const GROWSDOWN: u64 = 0x100;
    pub const NORESERVE: u64 = 0x4000;
    pub const POPULATE: u64 = 0x8000;
    pub const FIXED_NOREPLACE: u64 = 0x10_0000;
}

/// What `len` bytes of an open file from `offset` on show when they are mapped. It has to be open for reading.
fn file_content(fd: i32, offset: u64, len: u64, prot: Prot) -> Result<Content, Errno> {
    let open = current_thread().files().ok_or(EBADF)?.file(fd)?;
    if open.flags() & flag::PATH != 0 {
        return Err(EBADF);
    }
    if open.flags() & flag::ACCMODE == flag::WRONLY {
        return Err(EACCES);
    }
    match open.inode().map(|inode| &inode.kind) {
        Some(Kind::Regular(content)) => Ok(Content::File(mappable(content.lock().bytes()?), offset)),
        _ => open.file.mapping(offset, len).and_then(|content| if prot.write() { Err(EACCES) } else { Ok(content) }),
    }
}

system_call! {
    /// mmap(2)
    mmap(address, len, prot, flags, fd, offset) {
        let prot = prot_of(prot & RIGHTS)?; // others mean nothing here
        if len == 0 || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        // A file's bytes are numbered by a signed 64-bit offset.
        if flags & map::ANONYMOUS == 0 && offset.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
            return Err(EOVERFLOW);
        }
        if flags & map::NORESERVE == 0 && prot.write() && (flags & map::TYPE == map::PRIVATE || flags & map::ANONYMOUS != 0) {
            affordable(len)?;
        }
        let content = match (flags & map::TYPE, flags & map::ANONYMOUS != 0) {
            (map::PRIVATE, true) if flags & map::GROWSDOWN != 0 => Content::Stack,
            (map::PRIVATE, true) => Content::Anonymous,
            (map::SHARED | map::SHARED_VALIDATE, true) => Content::Shared(SharedMemory::new(len).ok_or(ENOMEM)?, 0),
            (map::PRIVATE, false) => file_content(fd as i32, offset, len, prot)?,
            // A shared view of a file can only be one that nobody writes through.
            (map::SHARED | map::SHARED_VALIDATE, false) => {
                let content = file_content(fd as i32, offset, len, prot)?;
                if prot.write() {
                    return Err(EACCES);
                }
                match content {
                    Content::File(bytes, offset) => Content::FileView(bytes, offset),
                    other => other,
                }
            }
            _ => return Err(EINVAL),
        };
        let place = if flags & map::FIXED_NOREPLACE != 0 {
            Place::FixedNoReplace(address)
        } else if flags & map::FIXED != 0 {
            Place::Fixed(address)
        } else {
            Place::Anywhere(address)
        };
        let space = space()?;
        let at = space.map(place, len, prot, content)?;
        if flags & map::POPULATE != 0 {
            populate(space, at, len, prot);
        }
        Ok(at)
    }
}

/// Bring pages in ahead; what cannot be brought in comes, or fails, at its first use.
fn populate(space: &AddressSpace, start: u64, len: u64, prot: Prot) {
    use kcore::vma::Access;
    let access = if prot.write() { Access::Write } else { Access::Read };
    let mut at = start;
    let interrupted = || crate::sched::current().signal_pending.load(Ordering::Relaxed);
    while at < start + len && prot != Prot::NONE && !interrupted() && space.fault(at, access).is_ok() {
        at += PAGE_SIZE;
    }
}

system_call! {
    /// munmap(2)
    munmap(address, len) {
        space()?.unmap(address, len)?;
        Ok(0)
    }
}
system_call! {
    /// mprotect(2)
    mprotect(address, len, prot) {
        const SEM: u64 = 8; // means nothing on this machine
        const GROWSDOWN: u64 = 0x0100_0000;
        space()?.protect(address, len, prot_of(prot & !(GROWSDOWN | SEM))?, prot & GROWSDOWN != 0)?;
        Ok(0)
    }
}
system_call! {
    /// brk(2)
    brk(address) { Ok(space()?.set_brk(address)) }
}
system_call! {
    /// mremap(2)
    mremap(old, old_len, new_len, flags, new) {
        const MAYMOVE: u64 = 1;
        const FIXED: u64 = 2;
        if flags & !(MAYMOVE | FIXED) != 0 || flags & FIXED != 0 && flags & MAYMOVE == 0 {
            return Err(EINVAL);
        }
        space()?.remap(old, old_len, new_len, flags & MAYMOVE != 0, (flags & FIXED != 0).then_some(new))
    }
}
system_call! {
    /// msync(2): there is nothing behind memory to write to.
    msync(address, len, flags) {
        if !address.is_multiple_of(PAGE_SIZE) || flags & !7 != 0 || flags & 5 == 5 {
            return Err(EINVAL);
        }
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(ENOMEM)?;
        if space()?.covers(address, len, Prot::NONE) { Ok(0) } else { Err(ENOMEM) }
    }
}
system_call! {
    /// madvise(2)
    madvise(address, len, advice) {
        const DONTNEED: u64 = 4;
        if !address.is_multiple_of(PAGE_SIZE) || address.checked_add(len).is_none_or(|end| end > USER_END) {
            return Err(EINVAL);
        }
        match advice {
            DONTNEED if len > 0 => space()?.forget(address, len)?,
            // NORMAL RANDOM SEQUENTIAL WILLNEED FREE, DONTFORK.. KSM, (NO)HUGEPAGE, (DO/DONT)DUMP, COLD PAGEOUT: only advice
            0..=4 | 8 | 12..=17 | 20 | 21 => {}
            9..=11 | 18 | 19 => return Err(EOPNOTSUPP), // REMOVE, DONTFORK, DOFORK, WIPEONFORK: would change what a program sees
            _ => return Err(EINVAL),
        }
        Ok(0)
    }
}
system_call! {
    /// mlock(2) and the like: memory is never swapped.
    nothing() { Ok(0) }
}

//! System calls about memory.

use super::table::Calls;
use crate::arch::page_table::{PAGE_SIZE, USER_END};
use crate::errno::{EACCES, EBADF, EINVAL, ENOMEM, ENOSPC, EOPNOTSUPP, EOVERFLOW, Errno};
use crate::fs::inode::Kind;
use crate::fs::open_file::flag;
use crate::mm::address_space::{AddressSpace, Content, Mapped, Name, Place, affordable};
use crate::mm::file_pages::FilePages;
use crate::mm::user_copy;
use crate::process::current_thread;
use crate::system_call;
use alloc::sync::Arc;
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
    (27, mincore),
    (28, madvise),
    (149, mlock),
    (150, munlock),
    (151, mlockall),
    (152, munlockall),
    (325, mlock2),
    (329, pkey_mprotect),
    (330, pkey_alloc),
    (331, pkey_free),
];

fn space() -> Result<&'static AddressSpace, Errno> {
    current_thread().address_space().map(|a| &**a).ok_or(ENOMEM)
}

/// PROT_READ, PROT_WRITE, PROT_EXEC.
const RIGHTS: u64 = 7;

/// Whether a signal waits for the running thread.
fn interrupted() -> bool {
    crate::sched::current().signal_pending.load(Ordering::Relaxed)
}

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
    pub const LOCKED: u64 = 0x2000;
    pub const NORESERVE: u64 = 0x4000;
    pub const POPULATE: u64 = 0x8000;
    pub const FIXED_NOREPLACE: u64 = 0x10_0000;
}

/// What `len` bytes of an open file from `offset` on show when they are mapped. It has to be open for reading, and for writing too where what is
/// `shared` may be written.
fn file_content(fd: i32, offset: u64, len: u64, prot: Prot, shared: bool) -> Result<Content, Errno> {
    let open = current_thread().files().ok_or(EBADF)?.file(fd)?;
    if open.is_path_only() {
        return Err(EBADF);
    }
    let access = open.flags() & flag::ACCMODE;
    let writable = access == flag::RDWR;
    if access == flag::WRONLY || shared && prot.write() && !writable {
        return Err(EACCES);
    }
    let Some(Kind::Regular(pages)) = open.inode().map(|inode| &inode.kind) else {
        let content = open.file.mapping(offset, len)?;
        return if prot.write() { Err(EACCES) } else { Ok(content) };
    };
    let name = open.place.as_ref().map_or(Name { path: [].into(), file: (0, 0) }, |place| place.name_for_maps());
    let mapped = Mapped { pages: pages.clone(), writable, name: Arc::new(name) };
    Ok(if shared { Content::Shared(mapped, offset) } else { Content::File(mapped, offset) })
}

/// Memory that a process shares with its children.
fn shared_zeros(len: u64) -> Content {
    let name = Name { path: b"/dev/zero (deleted)".as_slice().into(), file: (0, 0) };
    Content::Shared(Mapped { pages: FilePages::zeros(len), writable: true, name: Arc::new(name) }, 0)
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
            (map::SHARED | map::SHARED_VALIDATE, true) => shared_zeros(len),
            (map::PRIVATE, false) => file_content(fd as i32, offset, len, prot, false)?,
            (map::SHARED | map::SHARED_VALIDATE, false) => file_content(fd as i32, offset, len, prot, true)?,
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
        if flags & (map::POPULATE | map::LOCKED) != 0 || space.lock_future.load(Ordering::Relaxed) {
            // What cannot be brought in now comes, or fails, at its first use.
            let _ = space.populate(at..at + len, interrupted);
        }
        Ok(at)
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
    /// pkey_mprotect(2): without a key it is mprotect.
    pkey_mprotect(address, len, prot, key) {
        if key as i32 != -1 {
            return Err(EINVAL);
        }
        match mprotect(address, len, prot, 0, 0, 0) {
            0 => Ok(0),
            error => Err(Errno(error.unsigned_abs())),
        }
    }
}
system_call! {
    /// pkey_alloc(2): no keys are kept, so none is left.
    pkey_alloc(flags, rights) {
        const RIGHTS: u64 = 3;
        Err(if flags != 0 || rights & !RIGHTS != 0 { EINVAL } else { ENOSPC })
    }
}
system_call! {
    /// pkey_free(2)
    pkey_free(_key) { Err(EINVAL) }
}
system_call! {
    /// brk(2)
    brk(address) {
        let space = space()?;
        if !space.lock_future.load(Ordering::Relaxed) {
            return Ok(space.set_brk(address));
        }
        let before = space.set_brk(0);
        let now = space.set_brk(address);
        if before < now {
            let _ = space.populate(before & !(PAGE_SIZE - 1)..now, interrupted);
        }
        Ok(now)
    }
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
    /// mincore(2)
    mincore(address, len, vector) {
        if !address.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let end = address.checked_add(len).filter(|&end| end <= USER_END).ok_or(ENOMEM)?;
        let space = space()?;
        for (at, to) in (address..end).step_by(PAGE_SIZE as usize).zip(vector..) {
            user_copy::write(to, &u8::from(space.is_resident(at).ok_or(ENOMEM)?))?;
        }
        Ok(0)
    }
}

/// mlock(2): bring the pages in, which then stay.
fn lock_range(address: u64, len: u64) -> Result<u64, Errno> {
    let start = address & !(PAGE_SIZE - 1);
    let end = address.checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE)).ok_or(EINVAL)?;
    space()?.populate(start..end, interrupted).map(|()| 0)
}

system_call! {
    /// mlock(2)
    mlock(address, len) { lock_range(address, len) }
}
system_call! {
    /// mlock2(2)
    mlock2(address, len, flags) {
        const ONFAULT: u64 = 1;
        match flags {
            0 => lock_range(address, len),
            ONFAULT => munlock_range(address, len), // pages come by themselves and stay
            _ => Err(EINVAL),
        }
    }
}

/// munlock(2): memory is never swapped, so nothing changes.
fn munlock_range(address: u64, len: u64) -> Result<u64, Errno> {
    let start = address & !(PAGE_SIZE - 1);
    let end = address.checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE)).ok_or(EINVAL)?;
    if space()?.covers(start, end - start, Prot::NONE) { Ok(0) } else { Err(ENOMEM) }
}

system_call! {
    /// munlock(2)
    munlock(address, len) { munlock_range(address, len) }
}
system_call! {
    /// mlockall(2)
    mlockall(flags) {
        const CURRENT: u64 = 1;
        const FUTURE: u64 = 2;
        const ONFAULT: u64 = 4;
        if flags & !(CURRENT | FUTURE | ONFAULT) != 0 || flags & (CURRENT | FUTURE) == 0 {
            return Err(EINVAL);
        }
        let space = space()?;
        space.lock_future.store(flags & FUTURE != 0 && flags & ONFAULT == 0, Ordering::Relaxed);
        if flags & CURRENT != 0 && flags & ONFAULT == 0 {
            // As on Linux: what cannot be brought in is no error.
            let _ = space.populate(0..USER_END, interrupted);
        }
        Ok(0)
    }
}
system_call! {
    /// munlockall(2)
    munlockall() {
        space()?.lock_future.store(false, Ordering::Relaxed);
        Ok(0)
    }
}

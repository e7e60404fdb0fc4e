//! The listed calls about memory: mmap, mprotect, munmap, mremap, brk.

use super::each::{Folder, KERNEL, at, gives, refused, seen, to, works};
use super::{Check, dies, ensure, equal};
use libc::{
    EACCES, EBADF, EEXIST, EFAULT, EINVAL, ENODEV, ENOMEM, EOVERFLOW, SYS_brk, SYS_close, SYS_mmap, SYS_mprotect,
    SYS_mremap, SYS_munmap, SYS_open, SYS_pipe2,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("each_mmap", mmap),
    ("each_mprotect", mprotect),
    ("each_munmap", munmap),
    ("each_mremap", mremap),
    ("each_brk", brk),
];

const PAGE: u64 = 4096;
const SHARED: u64 = 1;
const PRIVATE: u64 = 2;
const FIXED: u64 = 0x10;
const ANONYMOUS: u64 = 0x20;
const ANY: u64 = u64::MAX;

fn pages(count: u64) -> Result<u64, String> {
    works(SYS_mmap, &[0, count * PAGE, 3, PRIVATE | ANONYMOUS, ANY, 0])
}

fn byte(address: u64) -> u8 {
    // SAFETY: (1) callers pass mapped memory, or mean the fault in a child.
    unsafe { (address as *const u8).read_volatile() }
}

fn set(address: u64, value: u8) {
    // SAFETY: (1) as `byte`.
    unsafe { (address as *mut u8).write_volatile(value) }
}

fn mmap() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"content")?;
    let read_only = works(SYS_open, &[at(name.as_str()), 0])?;
    let write_only = works(SYS_open, &[at(name.as_str()), 1])?;
    let directory = works(SYS_open, &[at(c"/".to_bytes_with_nul()), 0])?;
    let mut pipe = [0i32; 2];
    works(SYS_pipe2, &[to(&mut pipe), 0])?;
    let of = |fd: u64, rights: u64, flags: u64| [0, PAGE, rights, flags, fd, 0];
    let private = works(SYS_mmap, &of(read_only, 3, PRIVATE))?;
    equal!((byte(private), byte(private + 7)), (b'c', 0));
    let shared = works(SYS_mmap, &of(read_only, 1, SHARED))?;
    equal!(byte(shared), b'c');
    works(SYS_mmap, &of(ANY, 3, SHARED | ANONYMOUS))?;
    works(SYS_mmap, &of(ANY, 0, PRIVATE | ANONYMOUS))?;
    // POPULATE, NORESERVE and STACK change nothing that a program sees; unknown rights and flags are ignored.
    let populated = works(SYS_mmap, &of(ANY, 3, PRIVATE | ANONYMOUS | 0x8000 | 0x4000 | 0x2_0000))?;
    equal!(byte(populated), 0);
    works(SYS_mmap, &of(ANY, 3 | 0x70, PRIVATE | ANONYMOUS))?;
    works(SYS_mmap, &of(ANY, 3, PRIVATE | ANONYMOUS | 0x1000_0000))?;
    refused(SYS_mmap, &[0, 0, 3, PRIVATE | ANONYMOUS, ANY, 0], EINVAL)?;
    refused(SYS_mmap, &[0, PAGE, 3, ANONYMOUS, ANY, 0], EINVAL)?;
    refused(SYS_mmap, &[0, PAGE, 3, PRIVATE, read_only, 100], EINVAL)?;
    refused(SYS_mmap, &[1, PAGE, 3, PRIVATE | ANONYMOUS | FIXED, ANY, 0], EINVAL)?;
    refused(SYS_mmap, &[private, PAGE, 3, PRIVATE | ANONYMOUS | 0x10_0000, ANY, 0], EEXIST)?;
    refused(SYS_mmap, &[KERNEL, PAGE, 3, PRIVATE | ANONYMOUS | FIXED, ANY, 0], ENOMEM)?;
    refused(SYS_mmap, &[0, u64::MAX - PAGE + 2, 3, PRIVATE | ANONYMOUS, ANY, 0], ENOMEM)?;
    refused(SYS_mmap, &[0, 1 << 48, 1, PRIVATE | ANONYMOUS, ANY, 0], ENOMEM)?;
    refused(SYS_mmap, &of(999, 1, PRIVATE), EBADF)?;
    refused(SYS_mmap, &of(ANY, 1, PRIVATE), EBADF)?;
    refused(SYS_mmap, &of(write_only, 1, PRIVATE), EACCES)?;
    refused(SYS_mmap, &of(write_only, 2, SHARED), EACCES)?;
    refused(SYS_mmap, &of(read_only, 3, SHARED), EACCES)?;
    refused(SYS_mmap, &of(pipe[0] as u64, 1, PRIVATE), ENODEV)?;
    refused(SYS_mmap, &of(directory, 1, PRIVATE), ENODEV)?;
    refused(SYS_mmap, &[0, 2 * PAGE, 1, PRIVATE, read_only, u64::MAX - PAGE + 1], EOVERFLOW)?;
    // The mapping stays when the descriptor goes.
    works(SYS_close, &[read_only])?;
    equal!(byte(shared + 6), b't');
    Ok(())
}

fn mprotect() -> Result<(), String> {
    const GROWS_DOWN: u64 = 0x0100_0000;
    const GROWS_UP: u64 = 0x0200_0000;
    let start = pages(4)?;
    set(start, 1);
    gives(SYS_mprotect, &[start, PAGE, 1], 0)?;
    dies(|| set(start, 2))?;
    gives(SYS_mprotect, &[start, 1, 3], 0)?; // a part stands for its page
    set(start, 3);
    gives(SYS_mprotect, &[start, 0, 0], 0)?; // nothing
    gives(SYS_mprotect, &[start + 4 * PAGE, 0, 1], 0)?;
    equal!(byte(start), 3);
    refused(SYS_mprotect, &[start + 1, PAGE, 1], EINVAL)?;
    refused(SYS_mprotect, &[start, PAGE, 0x10], EINVAL)?;
    refused(SYS_mprotect, &[start, PAGE, 1 | GROWS_DOWN | GROWS_UP], EINVAL)?;
    refused(SYS_mprotect, &[start, PAGE, 1 | GROWS_DOWN], EINVAL)?; // no stack
    refused(SYS_mprotect, &[start, u64::MAX - PAGE + 1, 1], ENOMEM)?;
    refused(SYS_mprotect, &[KERNEL & !0xfff, PAGE, 1], ENOMEM)?;
    // Up to the first hole it is done.
    gives(SYS_munmap, &[start + 2 * PAGE, PAGE], 0)?;
    refused(SYS_mprotect, &[start + 2 * PAGE, PAGE, 1], ENOMEM)?;
    refused(SYS_mprotect, &[start + PAGE, 3 * PAGE, 1], ENOMEM)?;
    dies(|| set(start + PAGE, 1))?;
    set(start + 3 * PAGE, 1);
    // A file that is open for reading is not written through a shared view.
    let folder = Folder::new()?;
    let name = folder.file("file", b"content")?;
    let fd = works(SYS_open, &[at(name.as_str()), 0])?;
    let shared = works(SYS_mmap, &[0, PAGE, 1, SHARED, fd, 0])?;
    refused(SYS_mprotect, &[shared, PAGE, 3], EACCES)?;
    gives(SYS_mprotect, &[shared, PAGE, 0], 0)?;
    gives(SYS_mprotect, &[shared, PAGE, 5], 0)?;
    equal!(byte(shared), b'c');
    Ok(())
}

fn munmap() -> Result<(), String> {
    let start = pages(4)?;
    set(start + 3 * PAGE, 7);
    gives(SYS_munmap, &[start + PAGE, 1], 0)?;
    dies(|| _ = byte(start + PAGE))?;
    gives(SYS_munmap, &[start, 3 * PAGE], 0)?; // over the hole
    equal!(byte(start + 3 * PAGE), 7);
    gives(SYS_munmap, &[start, 4 * PAGE], 0)?;
    gives(SYS_munmap, &[start, 4 * PAGE], 0)?; // nothing there
    refused(SYS_munmap, &[start + 1, PAGE], EINVAL)?;
    refused(SYS_munmap, &[start, 0], EINVAL)?;
    refused(SYS_munmap, &[start, 1 << 48], EINVAL)?;
    refused(SYS_munmap, &[start, u64::MAX], EINVAL)?;
    refused(SYS_munmap, &[KERNEL & !0xfff, PAGE], EINVAL)?;
    Ok(())
}

fn mremap() -> Result<(), String> {
    const MAY_MOVE: u64 = 1;
    const TO: u64 = 2;
    let start = pages(8)?;
    set(start, 5);
    set(start + 3 * PAGE, 6);
    gives(SYS_mremap, &[start, 8 * PAGE, 4 * PAGE, 0], start)?;
    dies(|| _ = byte(start + 4 * PAGE))?;
    gives(SYS_mremap, &[start, 4 * PAGE, 8 * PAGE - 1, 0], start)?; // the room is free again
    equal!(byte(start + 4 * PAGE), 0);
    let room = pages(8)?;
    gives(SYS_mremap, &[start, 4 * PAGE, 6 * PAGE, MAY_MOVE | TO, room], room)?;
    equal!((byte(room), byte(room + 3 * PAGE), byte(room + 5 * PAGE)), (5, 6, 0));
    dies(|| _ = byte(start))?;
    equal!(byte(start + 4 * PAGE), 0);
    refused(SYS_mremap, &[room + 1, PAGE, PAGE, 0], EINVAL)?;
    refused(SYS_mremap, &[room, PAGE, 0, 0], EINVAL)?;
    refused(SYS_mremap, &[room, PAGE, PAGE, 0x40], EINVAL)?;
    refused(SYS_mremap, &[room, PAGE, PAGE, TO, start], EINVAL)?;
    refused(SYS_mremap, &[room, 2 * PAGE, 2 * PAGE, MAY_MOVE | TO, room + PAGE], EINVAL)?; // onto itself
    refused(SYS_mremap, &[room, PAGE, PAGE, MAY_MOVE | TO, start + 1], EINVAL)?;
    refused(SYS_mremap, &[room, 0, PAGE, MAY_MOVE], EINVAL)?; // a second view is for shared memory
    refused(SYS_mremap, &[start, PAGE, 2 * PAGE, MAY_MOVE], EFAULT)?;
    refused(SYS_mremap, &[room, PAGE, 2 * PAGE, 0], ENOMEM)?; // its neighbour is in the way
    refused(SYS_mremap, &[room, PAGE, 1 << 46, MAY_MOVE], ENOMEM)?;
    let shared = works(SYS_mmap, &[0, PAGE, 3, SHARED | ANONYMOUS, ANY, 0])?;
    let view = works(SYS_mremap, &[shared, 0, PAGE, MAY_MOVE])?;
    set(shared, 9);
    ensure!(view != shared && byte(view) == 9);
    Ok(())
}

fn brk() -> Result<(), String> {
    let start = works(SYS_brk, &[0])?;
    gives(SYS_brk, &[start + 3 * PAGE + 5], start + 3 * PAGE + 5)?;
    set(start + 3 * PAGE, 1);
    gives(SYS_brk, &[start + 1], start + 1)?;
    dies(|| set(start + 3 * PAGE, 1))?;
    // Refused: it says where the break is.
    for wanted in [1, KERNEL, u64::MAX] {
        gives(SYS_brk, &[wanted], start + 1)?;
        seen(SYS_brk, Err(()));
    }
    gives(SYS_brk, &[start], start)?;
    // Not through another mapping.
    let wall = works(SYS_mmap, &[start + 16 * PAGE, PAGE, 3, PRIVATE | ANONYMOUS | 0x10_0000, ANY, 0]);
    if let Ok(wall) = wall {
        gives(SYS_brk, &[wall + PAGE], start)?;
        equal!(works(SYS_munmap, &[wall, PAGE])?, 0);
    }
    gives(SYS_brk, &[start], start)?;
    Ok(())
}

//! Memory: mappings, rights, copies on write, growth.

use super::{Check, call, dies, ensure, equal, in_child, own_path};
use crate::linux::Ended;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("map_and_unmap", map_and_unmap),
    ("map_errors", map_errors),
    ("fixed", fixed),
    ("rights", rights),
    ("shared", shared),
    ("remap", remap),
    ("break", program_break),
    ("forget", forget),
    ("file", file),
    ("stack", stack),
    ("copy_on_write", copy_on_write),
    ("kernel_writes", kernel_writes),
    ("big", big),
];

const PAGE: usize = 4096;
const RW: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// `pages` pages of private zeros.
fn map(pages: usize, rights: c_int) -> Result<*mut u8, String> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping at no fixed place.
    let at = unsafe { libc::mmap(null_mut(), pages * PAGE, rights, flags, -1, 0) };
    if at == libc::MAP_FAILED { Err("mmap failed".into()) } else { Ok(at.cast()) }
}

fn read(at: *mut u8, offset: usize) -> u8 {
    // SAFETY: (1) callers pass mapped memory, or mean the fault in a child.
    unsafe { at.add(offset).read_volatile() }
}

fn write(at: *mut u8, offset: usize, value: u8) {
    // SAFETY: (1) as `read`.
    unsafe { at.add(offset).write_volatile(value) }
}

fn protect(at: *mut u8, pages: usize, rights: c_int) -> c_int {
    // SAFETY: (1) a mapping of the check's own.
    unsafe { libc::mprotect(at.cast(), pages * PAGE, rights) }
}

fn unmap(at: *mut u8, pages: usize) -> c_int {
    // SAFETY: (1) a mapping of the check's own.
    unsafe { libc::munmap(at.cast(), pages * PAGE) }
}

fn map_and_unmap() -> Result<(), String> {
    let at = map(16, RW)?;
    for i in 0..16 {
        equal!(read(at, i * PAGE), 0);
        write(at, i * PAGE + 7, i as u8 + 1);
    }
    for i in 0..16 {
        equal!(read(at, i * PAGE + 7), i as u8 + 1);
        equal!(read(at, i * PAGE + 8), 0);
    }
    // SAFETY: (1) within the mapping.
    equal!(unmap(unsafe { at.add(4 * PAGE) }, 8), 0);
    equal!(read(at, 3 * PAGE + 7), 4);
    equal!(read(at, 12 * PAGE + 7), 13);
    dies(|| _ = read(at, 4 * PAGE))?;
    dies(|| write(at, 11 * PAGE, 1))?;
    equal!(unmap(at, 16), 0);
    equal!(unmap(at, 16), 0);
    dies(|| _ = read(at, 0))?;
    Ok(())
}

fn map_errors() -> Result<(), String> {
    const ANONYMOUS: u64 = 0x22;
    let mmap = |at: u64, len: u64, flags: u64, fd: i64| call(libc::SYS_mmap, [at, len, 3, flags, fd as u64, 0]);
    equal!(mmap(0, 0, ANONYMOUS, -1), Err(libc::EINVAL));
    equal!(mmap(0, 4096, 0x20, -1), Err(libc::EINVAL)); // neither shared nor private
    equal!(mmap(0, 4096, 2, 77), Err(libc::EBADF));
    equal!(mmap(0, 1 << 47, ANONYMOUS, -1), Err(libc::ENOMEM));
    equal!(mmap(0, u64::MAX - 100, ANONYMOUS, -1), Err(libc::ENOMEM));
    equal!(mmap(4097, 4096, ANONYMOUS | 0x10, -1), Err(libc::EINVAL));
    equal!(mmap(0x7fff_ffff_f000, 4096, ANONYMOUS | 0x10, -1), Err(libc::ENOMEM));
    equal!(mmap(0xffff_8000_0000_0000, 4096, ANONYMOUS | 0x10, -1), Err(libc::ENOMEM));
    equal!(call(libc::SYS_munmap, [1, 4096, 0, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_munmap, [4096, 0, 0, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_munmap, [0xffff_8000_0000_0000, 4096, 0, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_mprotect, [1, 4096, 1, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_mprotect, [65536, 4096, 1, 0, 0, 0]), Err(libc::ENOMEM));
    equal!(call(libc::SYS_madvise, [1, 4096, 4, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_madvise, [65536, 4096, 9999, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_mremap, [65536, 4096, 8192, 1, 0, 0]), Err(libc::EFAULT));
    Ok(())
}

fn fixed() -> Result<(), String> {
    let at = map(4, RW)?;
    write(at, PAGE, 9);
    let mmap = |flags: u64| call(libc::SYS_mmap, [at as u64 + PAGE as u64, PAGE as u64, 3, flags, u64::MAX, 0]);
    equal!(mmap(0x22 | 0x10_0000), Err(libc::EEXIST)); // MAP_FIXED_NOREPLACE
    equal!(read(at, PAGE), 9);
    equal!(mmap(0x22 | 0x10), Ok(at as u64 + PAGE as u64));
    equal!(read(at, PAGE), 0);
    equal!(unmap(at, 4), 0);
    // A hint that is free is followed.
    equal!(mmap(0x22), Ok(at as u64 + PAGE as u64));
    Ok(())
}

fn rights() -> Result<(), String> {
    let at = map(4, RW)?;
    write(at, 0, 1);
    equal!(protect(at, 1, libc::PROT_READ), 0);
    equal!(read(at, 0), 1);
    dies(|| write(at, 0, 2))?;
    equal!(protect(at, 4, libc::PROT_NONE), 0);
    dies(|| _ = read(at, 0))?;
    dies(|| _ = read(at, PAGE))?;
    equal!(protect(at, 4, RW), 0);
    equal!(read(at, 0), 1);
    write(at, 0, 3);
    equal!(read(at, 0), 3);
    // Data is not executed, code is once the rights say so.
    write(at, 0, 0xc3);
    // SAFETY: (1) a `ret`, called as a function without arguments; or the fault that ends a child.
    let run = || unsafe { core::mem::transmute::<*mut u8, extern "C" fn()>(at)() };
    dies(run)?;
    equal!(protect(at, 1, libc::PROT_READ | libc::PROT_EXEC), 0);
    run();
    // The kernel respects them too.
    equal!(call(libc::SYS_uname, [at as u64, 0, 0, 0, 0, 0]), Err(libc::EFAULT));
    equal!(call(libc::SYS_mprotect, [at as u64, 8 * PAGE as u64, 99, 0, 0, 0]), Err(libc::EINVAL));
    Ok(())
}

fn shared() -> Result<(), String> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping.
    let at: *mut u8 = unsafe { libc::mmap(null_mut(), 4 * PAGE, RW, flags, -1, 0) }.cast();
    ensure!(at.cast() != libc::MAP_FAILED);
    write(at, 5, 1);
    let ended = in_child(|| {
        let seen = read(at, 5);
        write(at, 5, 2);
        write(at, 2 * PAGE, 3); // a page that nobody had touched
        seen
    })?;
    equal!(ended, Ended::Exit(1));
    equal!(read(at, 5), 2);
    equal!(read(at, 2 * PAGE), 3);
    equal!(unmap(at, 4), 0);
    Ok(())
}

fn remap() -> Result<(), String> {
    let at = map(4, RW)?;
    for i in 0..4 {
        write(at, i * PAGE, i as u8 + 1);
    }
    // Something behind it, so that it has to move.
    let behind = call(libc::SYS_mmap, [at as u64 + 4 * PAGE as u64, PAGE as u64, 3, 0x22 | 0x10_0000, u64::MAX, 0]);
    ensure!(behind.is_ok() || behind == Err(libc::EEXIST));
    let grow = |flags: u64| call(libc::SYS_mremap, [at as u64, 4 * PAGE as u64, 64 * PAGE as u64, flags, 0, 0]);
    equal!(grow(0), Err(libc::ENOMEM));
    let new = grow(1).map_err(|e| format!("mremap: {e}"))? as *mut u8;
    for i in 0..4 {
        equal!(read(new, i * PAGE), i as u8 + 1);
    }
    equal!(read(new, 63 * PAGE), 0);
    write(new, 63 * PAGE, 1);
    if new != at {
        dies(|| _ = read(at, 0))?;
    }
    equal!(call(libc::SYS_mremap, [new as u64, 64 * PAGE as u64, 2 * PAGE as u64, 0, 0, 0]), Ok(new as u64));
    equal!(read(new, PAGE), 2);
    dies(|| _ = read(new, 2 * PAGE))?;
    Ok(())
}

fn program_break() -> Result<(), String> {
    let brk = |at: u64| call(libc::SYS_brk, [at, 0, 0, 0, 0, 0]).unwrap_or(0);
    let start = brk(0);
    ensure!(start != 0);
    equal!(brk(start + 10_000), start + 10_000);
    let at = start as *mut u8;
    equal!(read(at, 9_999), 0);
    write(at, 9_999, 1);
    equal!(brk(start), start);
    equal!(brk(start + 10_000), start + 10_000);
    equal!(read(at, 9_999), 0);
    equal!(brk(0x7fff_ffff_0000), start + 10_000); // not possible: unchanged
    equal!(brk(start), start);
    Ok(())
}

fn forget() -> Result<(), String> {
    let at = map(4, RW)?;
    write(at, 0, 1);
    write(at, 3 * PAGE, 2);
    equal!(call(libc::SYS_madvise, [at as u64, 2 * PAGE as u64, 4, 0, 0, 0]), Ok(0));
    equal!(read(at, 0), 0);
    equal!(read(at, 3 * PAGE), 2);
    Ok(())
}

fn file() -> Result<(), String> {
    use std::os::fd::AsRawFd;
    let path = own_path();
    let content = std::fs::read(&path).map_err(|e| e.to_string())?;
    let file = std::fs::File::open(&path).map_err(|e| e.to_string())?;
    let pages = content.len().div_ceil(PAGE);
    // SAFETY: (1) a new mapping of an open file.
    let at: *mut u8 =
        unsafe { libc::mmap(null_mut(), content.len(), RW, libc::MAP_PRIVATE, file.as_raw_fd(), 0) }.cast();
    ensure!(at.cast::<c_void>() != libc::MAP_FAILED);
    // SAFETY: (1) mapped to the file's end.
    let seen = unsafe { std::slice::from_raw_parts(at, content.len()) };
    ensure!(seen == &content[..]);
    if !content.len().is_multiple_of(PAGE) {
        equal!(read(at, content.len()), 0); // beyond the end, in the last page
    }
    write(at, 0, 0);
    equal!(std::fs::read(&path).map_err(|e| e.to_string())?[0], 0x7f); // a private copy
    // SAFETY: (1) at an offset.
    let second: *mut u8 =
        unsafe { libc::mmap(null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), PAGE as i64) }
            .cast();
    equal!(read(second, 17), content[PAGE + 17]);
    // Beyond the last page.
    // SAFETY: (1) as above.
    let far: *mut u8 = unsafe {
        libc::mmap(null_mut(), PAGE, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), (pages * PAGE) as i64)
    }
    .cast();
    ensure!(far.cast::<c_void>() != libc::MAP_FAILED);
    equal!(in_child(|| read(far, 0))?, Ended::Signal(libc::SIGBUS));
    Ok(())
}

#[inline(never)]
fn use_stack(bytes: usize) -> usize {
    let mut room = [0u8; 4096];
    std::hint::black_box(&mut room);
    if bytes <= 4096 { room[1].into() } else { use_stack(bytes - 4096) + usize::from(room[0]) }
}

fn stack() -> Result<(), String> {
    equal!(in_child(|| use_stack(3 << 20) as u8)?, Ended::Exit(0));
    equal!(in_child(|| use_stack(64 << 20) as u8)?, Ended::Signal(libc::SIGSEGV));
    Ok(())
}

/// Three generations write the same pages, in both orders.
fn copy_on_write() -> Result<(), String> {
    const PAGES: usize = 32;
    let at = map(PAGES, RW)?;
    for i in 0..PAGES {
        write(at, i * PAGE, 1);
    }
    let all = |value: u8| (0..PAGES).all(|i| read(at, i * PAGE) == value);
    let ended = in_child(|| {
        (0..PAGES / 2).for_each(|i| write(at, i * PAGE, 2));
        let grandchild = in_child(|| {
            let fine = read(at, 0) == 2 && read(at, (PAGES - 1) * PAGE) == 1;
            (0..PAGES).for_each(|i| write(at, i * PAGE, 3));
            u8::from(!(fine && all(3)))
        });
        let fine = read(at, 0) == 2 && read(at, (PAGES - 1) * PAGE) == 1;
        (0..PAGES).for_each(|i| write(at, i * PAGE, 4));
        u8::from(!(fine && all(4) && grandchild == Ok(Ended::Exit(0))))
    })?;
    equal!(ended, Ended::Exit(0));
    ensure!(all(1));
    (0..PAGES).for_each(|i| write(at, i * PAGE, 5));
    ensure!(all(5));
    Ok(())
}

/// The kernel's writes to user memory break sharing as the program's do.
fn kernel_writes() -> Result<(), String> {
    let at = map(2, RW)?;
    write(at, 0, 1);
    let ended =
        in_child(|| u8::from(call(libc::SYS_uname, [at as u64, 0, 0, 0, 0, 0]) != Ok(0) || read(at, 0) != b'L'))?;
    equal!(ended, Ended::Exit(0));
    equal!(read(at, 0), 1);
    // Into a page that is not there yet, and one that shows the page of zeros; across the border of both.
    let at = map(2, RW)?;
    equal!(read(at, 0), 0);
    equal!(call(libc::SYS_uname, [at as u64 + PAGE as u64 - 100, 0, 0, 0, 0, 0]), Ok(0));
    equal!(read(at, PAGE - 100), b'L');
    let other = map(1, RW)?;
    equal!(read(other, 0), 0);
    Ok(())
}

fn big() -> Result<(), String> {
    const PAGES: usize = 1 << 18; // 1 GiB, of which little is touched
    let mmap = |bytes: u64, flags: u64| call(libc::SYS_mmap, [0, bytes, 3, flags, u64::MAX, 0]);
    let at = mmap((PAGES * PAGE) as u64, 0x4022).map_err(|e| format!("mmap: {e}"))? as *mut u8; // MAP_NORESERVE
    for i in (0..PAGES).step_by(4099) {
        write(at, i * PAGE, 1);
    }
    equal!(in_child(|| read(at, 4099 * PAGE) - 1)?, Ended::Exit(0));
    equal!(unmap(at, PAGES), 0);
    // More than the machine has is refused, unless nothing is to be set aside for it or it cannot be written.
    let mut system = [0u64; 14];
    equal!(call(libc::SYS_sysinfo, [system.as_mut_ptr() as u64, 0, 0, 0, 0, 0]), Ok(0));
    let more = system[4] + system[8] + (1 << 30); // RAM, swap
    equal!(mmap(more, 0x22), Err(libc::ENOMEM));
    ensure!(mmap(more, 0x4022).is_ok());
    ensure!(call(libc::SYS_mmap, [0, more, 1, 0x22, u64::MAX, 0]).is_ok());
    let start = call(libc::SYS_brk, [0; 6]).unwrap_or(0);
    equal!(call(libc::SYS_brk, [start + more, 0, 0, 0, 0, 0]), Ok(start));
    Ok(())
}

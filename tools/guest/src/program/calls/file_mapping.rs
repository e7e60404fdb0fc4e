//! Memory that shows a file: shared views that read and write see, private ones, what a shorter file does to both; and memory that is
//! brought in before it is used.

use super::each::{Folder, KERNEL, at, gives, refused, to, works};
use super::{Check, Ended, ensure, equal, in_child};
use libc::{
    EACCES, EFAULT, EINVAL, ENOMEM, SIGBUS, SYS_ftruncate, SYS_lseek, SYS_mincore, SYS_mlock, SYS_mlock2, SYS_mlockall,
    SYS_mmap, SYS_mprotect, SYS_msync, SYS_munlock, SYS_munlockall, SYS_munmap, SYS_open, SYS_pread64, SYS_pwrite64,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("shared_file", shared_file),
    ("shared_file_of_processes", of_processes),
    ("shared_file_rights", rights),
    ("private_file_sees_writes", private_sees_writes),
    ("mapped_file_cut", cut),
    ("mapped_file_names", names),
    ("mincore", mincore),
    ("mlock", mlock),
    ("mlockall_future", mlockall_future),
];

const PAGE: u64 = 4096;
const ANY: u64 = u64::MAX;
const SHARED: u64 = 1;
const PRIVATE: u64 = 2;
const READ_WRITE: u64 = 2;

fn byte(address: u64) -> u8 {
    // SAFETY: (1) callers pass mapped memory, or mean the fault in a child.
    unsafe { (address as *const u8).read_volatile() }
}

fn set(address: u64, value: u8) {
    // SAFETY: (1) as `byte`.
    unsafe { (address as *mut u8).write_volatile(value) }
}

/// A file of `len` bytes `x`, open for reading and writing.
fn file_of(folder: &Folder, len: usize) -> Result<u64, String> {
    let name = folder.file("file", &vec![b'x'; len])?;
    works(SYS_open, &[at(name.as_str()), READ_WRITE])
}

fn map(fd: u64, pages: u64, flags: u64) -> Result<u64, String> {
    works(SYS_mmap, &[0, pages * PAGE, 3, flags, fd, 0])
}

/// The byte of the file at `offset`, by pread(2).
fn in_file(fd: u64, offset: u64) -> Result<u8, String> {
    let mut byte = [0u8];
    gives(SYS_pread64, &[fd, to(&mut byte), 1, offset], 1)?;
    Ok(byte[0])
}

fn shared_file() -> Result<(), String> {
    let folder = Folder::new()?;
    let fd = file_of(&folder, PAGE as usize + 10)?;
    let view = map(fd, 2, SHARED)?;
    equal!((byte(view), byte(view + PAGE + 9), byte(view + PAGE + 10)), (b'x', b'x', 0));
    set(view + 5, b'a');
    equal!(in_file(fd, 5)?, b'a');
    gives(SYS_pwrite64, &[fd, at(b"bc".as_slice()), 2, PAGE - 1], 2)?;
    equal!((byte(view + PAGE - 1), byte(view + PAGE)), (b'b', b'c'));
    // What is written behind the end is not in the file, and the length stays.
    set(view + PAGE + 100, b'z');
    gives(SYS_lseek, &[fd, 0, 2], PAGE + 10)?;
    // A second view of the same pages, also at an offset.
    let second = works(SYS_mmap, &[0, PAGE, 1, SHARED, fd, PAGE])?;
    set(view + PAGE, b'd');
    equal!(byte(second), b'd');
    gives(SYS_msync, &[view, 2 * PAGE, 4], 0)?;
    gives(SYS_munmap, &[view, 2 * PAGE], 0)?;
    equal!((byte(second), in_file(fd, 5)?), (b'd', b'a'));
    Ok(())
}

/// Parent and child write one file, through views that one of them made after fork.
fn of_processes() -> Result<(), String> {
    let folder = Folder::new()?;
    let fd = file_of(&folder, PAGE as usize)?;
    let view = map(fd, 1, SHARED)?;
    let own = map(fd, 1, PRIVATE)?;
    set(own, b'p');
    let ended = in_child(|| {
        let Ok(child_view) = map(fd, 1, SHARED) else { return 1 };
        set(child_view + 1, b'1');
        set(view + 2, b'2');
        set(own + 3, b'3');
        u8::from(byte(own) != b'p' || byte(child_view) != b'x')
    })?;
    equal!(ended, Ended::Exit(0));
    equal!((byte(view), byte(view + 1), byte(view + 2), byte(view + 3)), (b'x', b'1', b'2', b'x'));
    equal!((byte(own), byte(own + 3), in_file(fd, 1)?), (b'p', b'x', b'1'));
    Ok(())
}

fn rights() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"content")?;
    let read_only = works(SYS_open, &[at(name.as_str()), 0])?;
    let write_only = works(SYS_open, &[at(name.as_str()), 1])?;
    let both = works(SYS_open, &[at(name.as_str()), READ_WRITE])?;
    refused(SYS_mmap, &[0, PAGE, 3, SHARED, read_only, 0], EACCES)?;
    refused(SYS_mmap, &[0, PAGE, 2, SHARED, write_only, 0], EACCES)?;
    let view = works(SYS_mmap, &[0, PAGE, 1, SHARED, read_only, 0])?;
    refused(SYS_mprotect, &[view, PAGE, 3], EACCES)?;
    let view = works(SYS_mmap, &[0, PAGE, 1, SHARED, both, 0])?;
    equal!(byte(view), b'c');
    equal!(
        in_child(|| {
            set(view, b'C');
            0
        })?,
        Ended::Signal(libc::SIGSEGV)
    );
    gives(SYS_mprotect, &[view, PAGE, 3], 0)?;
    set(view, b'C');
    equal!(in_file(both, 0)?, b'C');
    Ok(())
}

/// A private page that was not written shows what others write to the file, at least once it is there for the first time.
fn private_sees_writes() -> Result<(), String> {
    let folder = Folder::new()?;
    let fd = file_of(&folder, 2 * PAGE as usize)?;
    let view = map(fd, 2, PRIVATE)?;
    gives(SYS_pwrite64, &[fd, at(b"w".as_slice()), 1, PAGE], 1)?;
    equal!(byte(view + PAGE), b'w');
    set(view + PAGE, b'o');
    equal!(in_file(fd, PAGE)?, b'w');
    gives(SYS_pwrite64, &[fd, at(b"v".as_slice()), 1, PAGE], 1)?;
    equal!(byte(view + PAGE), b'o');
    Ok(())
}

/// Behind the end of a file that became shorter is SIGBUS, for pages that were written privately too; longer again, it is zeros.
fn cut() -> Result<(), String> {
    let folder = Folder::new()?;
    let fd = file_of(&folder, 3 * PAGE as usize)?;
    let (shared, private) = (map(fd, 3, SHARED)?, map(fd, 3, PRIVATE)?);
    for page in 0..3 {
        set(shared + page * PAGE + 20, b's');
        set(private + page * PAGE + 20, b'p');
    }
    gives(SYS_ftruncate, &[fd, PAGE + 10], 0)?;
    equal!((byte(shared + PAGE + 9), byte(shared + PAGE + 20)), (b'x', 0));
    equal!((byte(private + PAGE + 20), byte(private + 20)), (b'p', b'p'));
    for gone in [shared + 2 * PAGE, private + 2 * PAGE] {
        equal!(in_child(|| byte(gone))?, Ended::Signal(SIGBUS));
        equal!(
            in_child(|| {
                set(gone, 1);
                0
            })?,
            Ended::Signal(SIGBUS)
        );
    }
    gives(SYS_ftruncate, &[fd, 3 * PAGE], 0)?;
    equal!((byte(shared + PAGE + 20), byte(shared + 2 * PAGE + 20), byte(private + 2 * PAGE + 20)), (0, 0, 0));
    set(shared + 2 * PAGE, b'n');
    equal!(in_file(fd, 2 * PAGE)?, b'n');
    Ok(())
}

/// /proc/self/maps says which file each view is of.
fn names() -> Result<(), String> {
    let folder = Folder::new()?;
    let fd = file_of(&folder, 10)?;
    let view = map(fd, 1, SHARED)?;
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| e.to_string())?;
    let line = maps.lines().find(|line| line.starts_with(&format!("{view:x}-"))).ok_or("the view is not in maps")?;
    ensure!(line.contains(" rw-s ") && line.ends_with("/file"));
    let own = super::own_path();
    ensure!(maps.lines().any(|line| line.contains(" r-xp ") && line.ends_with(&own)));
    Ok(())
}

fn mincore() -> Result<(), String> {
    let at = works(SYS_mmap, &[0, 4 * PAGE, 3, PRIVATE | 0x20, ANY, 0])?;
    set(at + PAGE, 1);
    let mut there = [9u8; 4];
    gives(SYS_mincore, &[at, 3 * PAGE + 1, to(&mut there)], 0)?;
    equal!(there.map(|byte| byte & 1), [0, 1, 0, 0]);
    refused(SYS_mincore, &[at + 1, PAGE, to(&mut there)], EINVAL)?;
    refused(SYS_mincore, &[at, PAGE, KERNEL], EFAULT)?;
    gives(SYS_munmap, &[at + PAGE, PAGE], 0)?;
    refused(SYS_mincore, &[at, 4 * PAGE, to(&mut there)], ENOMEM)?;
    refused(SYS_mincore, &[KERNEL & !0xfff, PAGE, to(&mut there)], ENOMEM)?;
    Ok(())
}

/// Which of four pages are in memory.
fn resident(at: u64) -> Result<[u8; 4], String> {
    let mut there = [0u8; 4];
    gives(SYS_mincore, &[at, 4 * PAGE, to(&mut there)], 0)?;
    Ok(there.map(|byte| byte & 1))
}

fn mlock() -> Result<(), String> {
    let at = works(SYS_mmap, &[0, 4 * PAGE, 3, PRIVATE | 0x20, ANY, 0])?;
    gives(SYS_mlock, &[at + PAGE + 5, PAGE], 0)?; // touches two pages
    equal!(resident(at)?, [0, 1, 1, 0]);
    gives(SYS_mlock2, &[at, PAGE, 1], 0)?; // MLOCK_ONFAULT
    equal!(resident(at)?, [0, 1, 1, 0]);
    refused(SYS_mlock2, &[at, PAGE, 2], EINVAL)?;
    gives(SYS_mlock2, &[at, PAGE, 0], 0)?;
    equal!(resident(at)?, [1, 1, 1, 0]);
    gives(SYS_munlock, &[at, 4 * PAGE], 0)?;
    gives(SYS_munmap, &[at + PAGE, PAGE], 0)?;
    refused(SYS_mlock, &[at, 3 * PAGE], ENOMEM)?;
    refused(SYS_munlock, &[at, 3 * PAGE], ENOMEM)?;
    refused(SYS_mlock, &[u64::MAX - 10, 5], EINVAL)?;
    Ok(())
}

/// mlockall(MCL_FUTURE): what is mapped later is there at once; a child of fork starts without.
fn mlockall_future() -> Result<(), String> {
    for flags in [0, 4, 8, 9] {
        refused(SYS_mlockall, &[flags], EINVAL)?;
    }
    let anonymous = [0, 4 * PAGE, 3, PRIVATE | 0x20, ANY, 0];
    gives(SYS_mlockall, &[1 | 2], 0)?;
    let at = works(SYS_mmap, &anonymous)?;
    equal!(resident(at)?, [1; 4]);
    equal!(in_child(|| u8::from(works(SYS_mmap, &anonymous).and_then(resident) != Ok([0; 4])))?, Ended::Exit(0));
    gives(SYS_munlockall, &[], 0)?;
    equal!(resident(works(SYS_mmap, &anonymous)?)?, [0; 4]);
    let populated = works(SYS_mmap, &[0, 4 * PAGE, 3, PRIVATE | 0x20 | 0x8000, ANY, 0])?;
    equal!(resident(populated)?, [1; 4]);
    Ok(())
}

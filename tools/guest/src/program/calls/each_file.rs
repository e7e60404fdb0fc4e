//! The listed calls on names and descriptors: open, openat, close, stat and its kin, fcntl, getdents64, readlink, getcwd, pipe2, dup2,
//! dup3.

use super::each::{Folder, KERNEL, NOWHERE, at, gives, refused, to, works};
use super::{Check, ensure, equal, in_child};
use crate::linux::Ended;
use libc::{
    EBADF, EEXIST, EFAULT, EINVAL, EISDIR, ELOOP, EMFILE, ENAMETOOLONG, ENOENT, ENOTDIR, ERANGE, SYS_close, SYS_dup2,
    SYS_dup3, SYS_fcntl, SYS_fstat, SYS_getcwd, SYS_getdents64, SYS_lseek, SYS_lstat, SYS_newfstatat, SYS_open,
    SYS_openat, SYS_pipe2, SYS_read, SYS_readlink, SYS_stat, SYS_statx, SYS_write,
};
use std::os::unix::fs::symlink;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("each_open", open),
    ("each_openat", openat),
    ("each_close", close),
    ("each_stat", stat),
    ("each_newfstatat", newfstatat),
    ("each_statx", statx),
    ("each_getdents64", getdents64),
    ("each_readlink", readlink),
    ("each_getcwd", getcwd),
    ("each_fcntl", fcntl),
    ("each_pipe2", pipe2),
    ("each_dup", dup),
];

const NO_FILE: u64 = 999;
const HERE: u64 = libc::AT_FDCWD as u64;
const CREATE: u64 = 0o100;
const EXCLUSIVE: u64 = 0o200;
const TRUNCATE: u64 = 0o1000;
const DIRECTORY: u64 = 0o200_000;
const NO_FOLLOW: u64 = 0o400_000;
const CLOSE_ON_EXEC: u64 = 0o2_000_000;

/// A file of ten bytes, a link to it, one to nowhere, and one to itself.
struct Names {
    folder: Folder,
    file: String,
    link: String,
    dangling: String,
    circle: String,
}

fn names() -> Result<Names, String> {
    let folder = Folder::new()?;
    let file = folder.file("file", b"0123456789")?;
    for (target, name) in [("file", "link"), ("nothing", "dangling"), ("circle", "circle")] {
        symlink(target, format!("{}/{name}", folder.0)).map_err(|e| e.to_string())?;
    }
    let [link, dangling, circle] = ["link", "dangling", "circle"].map(|name| folder.path(name));
    Ok(Names { folder, file, link, dangling, circle })
}

fn long(len: usize) -> String {
    "n".repeat(len)
}

fn open() -> Result<(), String> {
    let Names { folder, file, link, dangling, circle } = names()?;
    let open = |name: &str, flags: u64| works(SYS_open, &[at(name), flags, 0o640]);
    let not = |name: &str, flags: u64, error| refused(SYS_open, &[at(name), flags, 0o640], error);
    let fd = open(&link, 2)?;
    let mut room = [0u8; 10];
    gives(SYS_read, &[fd, to(&mut room), 10], 10)?;
    gives(SYS_close, &[fd], 0)?;
    gives(SYS_open, &[at(file.as_str()), CLOSE_ON_EXEC], fd)?; // the lowest that is free
    gives(SYS_fcntl, &[fd, 1], 1)?;
    // SAFETY: (1) takes a number.
    unsafe { libc::umask(0o027) };
    let new = folder.path("new");
    works(SYS_open, &[at(new.as_str()), CREATE | EXCLUSIVE | 1, 0o666])?;
    let mut status = [0u32; 36];
    gives(SYS_stat, &[at(new.as_str()), to(&mut status)], 0)?;
    equal!(status[6], 0o100_640);
    open(&new, CREATE | 1)?;
    open(&dangling, CREATE | 1)?; // makes what the link names
    gives(SYS_stat, &[at(folder.path("nothing").as_str()), to(&mut status)], 0)?;
    let truncated = open(&file, TRUNCATE | 1)?;
    gives(SYS_lseek, &[truncated, 0, 2], 0)?;
    open(&folder.path(""), DIRECTORY)?;
    open(&folder.path("."), 0)?;
    open(&folder.path(&long(255)), CREATE | 1)?;
    not(&folder.path("missing"), 0, ENOENT)?;
    not("\0", 0, ENOENT)?;
    not(&folder.path("missing/file"), CREATE | 1, ENOENT)?;
    not(&folder.path("file/more"), 0, ENOTDIR)?;
    not(&folder.path("file/"), 0, ENOTDIR)?;
    not(&file, DIRECTORY, ENOTDIR)?;
    not(&new, CREATE | EXCLUSIVE | 1, EEXIST)?;
    not(&link, CREATE | EXCLUSIVE | 1, EEXIST)?;
    not(&folder.path(""), 1, EISDIR)?;
    not(&folder.path(""), 2, EISDIR)?;
    not(&folder.path("."), CREATE, EISDIR)?;
    not(&folder.path("unmade/"), CREATE | 1, EISDIR)?;
    not(&circle, 0, ELOOP)?;
    not(&folder.path("circle/more"), 0, ELOOP)?;
    not(&link, NO_FOLLOW, ELOOP)?;
    not(&folder.path(&long(256)), 0, ENAMETOOLONG)?;
    not(&folder.path(&long(256)), CREATE | 1, ENAMETOOLONG)?;
    not(&format!("/{}\0", "./".repeat(2048)), 0, ENAMETOOLONG)?;
    for bad in [0, NOWHERE, KERNEL] {
        refused(SYS_open, &[bad, 0], EFAULT)?;
    }
    // No number is left: in a child, so that the folder can be removed.
    let mut exhausted = || {
        while super::call(SYS_open, [at(new.as_str()), 0, 0, 0, 0, 0]).is_ok() {}
        not(&new, 0, EMFILE)?;
        refused(SYS_pipe2, &[to(&mut status), 0], EMFILE)?;
        refused(SYS_fcntl, &[0, 0, 0], EMFILE)
    };
    equal!(in_child(|| u8::from(exhausted().is_err()))?, Ended::Exit(0));
    Ok(())
}

fn openat() -> Result<(), String> {
    let Names { folder, file, .. } = names()?;
    let directory = works(SYS_openat, &[HERE, at(folder.path("").as_str()), DIRECTORY])?;
    let fd = works(SYS_openat, &[directory, at("file\0"), 0])?;
    works(SYS_openat, &[directory, at("./../\0"), 0])?;
    works(SYS_openat, &[NO_FILE, at(file.as_str()), 0])?; // a whole path needs no start
    works(SYS_openat, &[directory, at("made\0"), CREATE | 1, 0o600])?;
    ensure!(std::fs::metadata(format!("{}/made", folder.0)).is_ok());
    refused(SYS_openat, &[directory, at("missing\0"), 0], ENOENT)?;
    refused(SYS_openat, &[directory, at("\0"), 0], ENOENT)?;
    refused(SYS_openat, &[NO_FILE, at("file\0"), 0], EBADF)?;
    refused(SYS_openat, &[fd, at("file\0"), 0], ENOTDIR)?;
    refused(SYS_openat, &[directory, at("file\0"), CREATE | EXCLUSIVE | 1, 0o600], EEXIST)?;
    refused(SYS_openat, &[directory, KERNEL, 0], EFAULT)?;
    refused(SYS_openat, &[NO_FILE, NOWHERE, 0], EFAULT)?;
    Ok(())
}

fn close() -> Result<(), String> {
    let fd = works(SYS_open, &[at("/\0"), 0])?;
    gives(SYS_close, &[fd], 0)?;
    refused(SYS_close, &[fd], EBADF)?;
    refused(SYS_close, &[NO_FILE], EBADF)?;
    refused(SYS_close, &[u64::MAX], EBADF)?;
    refused(SYS_close, &[1 << 31], EBADF)?;
    Ok(())
}

/// struct stat: mode, size, links, device number that the file is.
fn parts(words: &[u64; 18]) -> (u32, u64, u64, u64) {
    (words[3] as u32, words[6], words[2], words[5])
}

fn stat() -> Result<(), String> {
    let Names { folder, file, link, dangling, circle } = names()?;
    let (mut words, mut others) = ([u64::MAX; 18], [0u64; 18]);
    for (number, name) in [(SYS_stat, &file), (SYS_stat, &link), (SYS_lstat, &file)] {
        gives(number, &[at(name.as_str()), to(&mut words)], 0)?;
        equal!((parts(&words).0 & 0o170_000, parts(&words).1, parts(&words).2), (0o100_000, 10, 1));
        equal!(&words[15..], &[0; 3]);
    }
    gives(SYS_lstat, &[at(link.as_str()), to(&mut others)], 0)?;
    equal!((parts(&others).0, parts(&others).1), (0o120_777, 4));
    ensure!(others[0] == words[0] && others[1] != words[1]); // the same file system, another file
    gives(SYS_lstat, &[at(dangling.as_str()), to(&mut others)], 0)?;
    gives(SYS_lstat, &[at(circle.as_str()), to(&mut others)], 0)?;
    gives(SYS_stat, &[at(folder.path("").as_str()), to(&mut others)], 0)?;
    equal!((parts(&others).0 & 0o170_000, parts(&others).2), (0o040_000, 2));
    gives(SYS_stat, &[at("/dev/null\0"), to(&mut others)], 0)?;
    equal!((parts(&others).0 & 0o170_000, parts(&others).3), (0o020_000, 1 << 8 | 3));
    let fd = works(SYS_open, &[at(file.as_str()), 0])?;
    gives(SYS_fstat, &[fd, to(&mut others)], 0)?;
    equal!(others[1], words[1]);
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), 0])?;
    gives(SYS_fstat, &[ends[0] as u64, to(&mut others)], 0)?;
    equal!(parts(&others).0, 0o010_600);
    // A file without a name is still one.
    std::fs::remove_file(&file[..file.len() - 1]).map_err(|e| e.to_string())?;
    gives(SYS_fstat, &[fd, to(&mut others)], 0)?;
    equal!((parts(&others).1, parts(&others).2), (10, 0));
    for number in [SYS_stat, SYS_lstat] {
        refused(number, &[at(file.as_str()), to(&mut words)], ENOENT)?;
        refused(number, &[at("\0"), to(&mut words)], ENOENT)?;
        refused(number, &[at("/dev/null/more\0"), to(&mut words)], ENOTDIR)?;
        refused(number, &[at(folder.path("circle/more").as_str()), to(&mut words)], ELOOP)?;
        refused(number, &[at(folder.path(&long(256)).as_str()), to(&mut words)], ENAMETOOLONG)?;
        refused(number, &[NOWHERE, to(&mut words)], EFAULT)?;
        refused(number, &[at("/\0"), KERNEL], EFAULT)?;
    }
    refused(SYS_stat, &[at(dangling.as_str()), to(&mut words)], ENOENT)?;
    refused(SYS_stat, &[at(circle.as_str()), to(&mut words)], ELOOP)?;
    refused(SYS_lstat, &[at(folder.path("link/").as_str()), to(&mut words)], ENOENT)?;
    refused(SYS_fstat, &[NO_FILE, to(&mut words)], EBADF)?;
    refused(SYS_fstat, &[fd, NOWHERE], EFAULT)?;
    Ok(())
}

const NO_LINK: u64 = 0x100;
const EMPTY: u64 = 0x1000;

fn newfstatat() -> Result<(), String> {
    let Names { folder, file, link, dangling, .. } = names()?;
    let mut words = [0u64; 18];
    let directory = works(SYS_open, &[at(folder.path("").as_str()), 0])?;
    let fd = works(SYS_open, &[at(file.as_str()), 0])?;
    gives(SYS_newfstatat, &[directory, at("link\0"), to(&mut words), 0], 0)?;
    equal!(parts(&words).1, 10);
    gives(SYS_newfstatat, &[directory, at("link\0"), to(&mut words), NO_LINK], 0)?;
    equal!(parts(&words).1, 4);
    gives(SYS_newfstatat, &[HERE, at(link.as_str()), to(&mut words), 0], 0)?;
    gives(SYS_newfstatat, &[fd, at("\0"), to(&mut words), EMPTY], 0)?;
    equal!(parts(&words).1, 10);
    gives(SYS_newfstatat, &[HERE, at("\0"), to(&mut words), EMPTY], 0)?;
    equal!(parts(&words).0 & 0o170_000, 0o040_000);
    gives(SYS_newfstatat, &[NO_FILE, at(file.as_str()), to(&mut words), 0], 0)?;
    refused(SYS_newfstatat, &[directory, at("\0"), to(&mut words), 0], ENOENT)?;
    refused(SYS_newfstatat, &[HERE, at(dangling.as_str()), to(&mut words), 0], ENOENT)?;
    refused(SYS_newfstatat, &[fd, at("more\0"), to(&mut words), 0], ENOTDIR)?;
    refused(SYS_newfstatat, &[NO_FILE, at("file\0"), to(&mut words), 0], EBADF)?;
    refused(SYS_newfstatat, &[NO_FILE, at("\0"), to(&mut words), EMPTY], EBADF)?;
    refused(SYS_newfstatat, &[HERE, at(file.as_str()), to(&mut words), 1], EINVAL)?;
    refused(SYS_newfstatat, &[HERE, NOWHERE, to(&mut words), 0], EFAULT)?;
    refused(SYS_newfstatat, &[HERE, at(file.as_str()), KERNEL, 0], EFAULT)?;
    Ok(())
}

fn statx() -> Result<(), String> {
    const BASIC: u64 = 0x7ff;
    let Names { folder, file, .. } = names()?;
    let mut out = [0u32; 64];
    let directory = works(SYS_open, &[at(folder.path("").as_str()), 0])?;
    let fd = works(SYS_open, &[at(file.as_str()), 0])?;
    gives(SYS_statx, &[directory, at("link\0"), 0, BASIC, to(&mut out)], 0)?;
    // What it says, links, mode, size.
    equal!((u64::from(out[0]) & BASIC, out[4], out[7] & 0o170_000, out[10]), (BASIC, 1, 0o100_000, 10));
    gives(SYS_statx, &[directory, at("link\0"), NO_LINK, BASIC, to(&mut out)], 0)?;
    equal!((out[7] & 0xffff, out[10]), (0o120_777, 4));
    gives(SYS_statx, &[fd, at("\0"), EMPTY, 0, to(&mut out)], 0)?;
    equal!(out[10], 10);
    gives(SYS_statx, &[HERE, at("/dev/null\0"), 0x2000, BASIC, to(&mut out)], 0)?;
    equal!((out[32], out[33]), (1, 3));
    refused(SYS_statx, &[HERE, at("\0"), 0, BASIC, to(&mut out)], ENOENT)?;
    refused(SYS_statx, &[fd, at("more\0"), 0, BASIC, to(&mut out)], ENOTDIR)?;
    refused(SYS_statx, &[NO_FILE, at("more\0"), 0, BASIC, to(&mut out)], EBADF)?;
    refused(SYS_statx, &[HERE, at(file.as_str()), 0, 1 << 31, to(&mut out)], EINVAL)?;
    refused(SYS_statx, &[HERE, at(file.as_str()), 0x6000, BASIC, to(&mut out)], EINVAL)?;
    refused(SYS_statx, &[HERE, at(file.as_str()), 1, BASIC, to(&mut out)], EINVAL)?;
    refused(SYS_statx, &[HERE, KERNEL, 0, BASIC, to(&mut out)], EFAULT)?;
    refused(SYS_statx, &[HERE, at(file.as_str()), 0, BASIC, NOWHERE], EFAULT)?;
    Ok(())
}

/// The names in what getdents64 wrote, with their types.
fn entries(bytes: &[u8]) -> Vec<(String, u8)> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let [_, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, low, high, kind, name @ ..] = rest {
        let len = usize::from(u16::from_le_bytes([*low, *high]));
        let end = name.iter().position(|&b| b == 0).unwrap_or(0);
        all.push((String::from_utf8_lossy(&name[..end]).into_owned(), *kind));
        rest = rest.get(len..).filter(|_| len > 0).unwrap_or_default();
    }
    all
}

fn getdents64() -> Result<(), String> {
    let Names { folder, file, .. } = names()?;
    let directory = works(SYS_open, &[at(folder.path("").as_str()), DIRECTORY])?;
    let mut room = [0u8; 1024];
    let len = works(SYS_getdents64, &[directory, to(&mut room), 1024])? as usize;
    let mut all = entries(&room[..len]);
    all.sort();
    let wanted = [(".", 4), ("..", 4), ("circle", 10), ("dangling", 10), ("file", 8), ("link", 10)];
    equal!(&all, &wanted.map(|(name, kind)| (name.to_string(), kind)).to_vec());
    gives(SYS_getdents64, &[directory, to(&mut room), 1024], 0)?;
    // From the start again, a little at a time.
    gives(SYS_lseek, &[directory, 0, 0], 0)?;
    let mut little = Vec::new();
    loop {
        match works(SYS_getdents64, &[directory, to(&mut room), 40])? as usize {
            0 => break,
            len => little.extend(entries(&room[..len])),
        }
    }
    little.sort();
    equal!(little, all);
    gives(SYS_lseek, &[directory, 0, 0], 0)?;
    refused(SYS_getdents64, &[directory, to(&mut room), 8], EINVAL)?;
    refused(SYS_getdents64, &[directory, KERNEL, 1024], EFAULT)?;
    refused(SYS_getdents64, &[directory, NOWHERE, 1024], EFAULT)?;
    refused(SYS_getdents64, &[works(SYS_open, &[at(file.as_str()), 0])?, to(&mut room), 1024], ENOTDIR)?;
    refused(SYS_getdents64, &[NO_FILE, to(&mut room), 1024], EBADF)?;
    std::fs::remove_dir_all(&folder.0).map_err(|e| e.to_string())?;
    refused(SYS_getdents64, &[directory, to(&mut room), 1024], ENOENT)?;
    Ok(())
}

fn readlink() -> Result<(), String> {
    let Names { folder, file, dangling, circle, .. } = names()?;
    let mut room = [b'-'; 16];
    gives(SYS_readlink, &[at(dangling.as_str()), to(&mut room), 16], 7)?;
    equal!(&room[..8], b"nothing-");
    gives(SYS_readlink, &[at(circle.as_str()), to(&mut room), 3], 3)?; // cut, without a word
    equal!(&room[..5], b"cirhi");
    refused(SYS_readlink, &[at(file.as_str()), to(&mut room), 16], EINVAL)?;
    refused(SYS_readlink, &[at(circle.as_str()), to(&mut room), 0], EINVAL)?;
    refused(SYS_readlink, &[at(circle.as_str()), to(&mut room), u64::MAX], EINVAL)?;
    refused(SYS_readlink, &[at(folder.path("missing").as_str()), to(&mut room), 16], ENOENT)?;
    refused(SYS_readlink, &[at("\0"), to(&mut room), 16], ENOENT)?;
    refused(SYS_readlink, &[at(folder.path("file/more").as_str()), to(&mut room), 16], ENOTDIR)?;
    refused(SYS_readlink, &[at(folder.path("circle/more").as_str()), to(&mut room), 16], ELOOP)?;
    refused(SYS_readlink, &[KERNEL, to(&mut room), 16], EFAULT)?;
    refused(SYS_readlink, &[at(circle.as_str()), NOWHERE, 16], EFAULT)?;
    Ok(())
}

fn getcwd() -> Result<(), String> {
    let folder = Folder::new()?;
    std::env::set_current_dir(&folder.0).map_err(|e| e.to_string())?;
    let mut room = [b'-'; 64];
    let len = folder.0.len() as u64 + 1;
    gives(SYS_getcwd, &[to(&mut room), 64], len)?;
    equal!(room[..len as usize].to_vec(), format!("{}\0", folder.0).into_bytes());
    gives(SYS_getcwd, &[to(&mut room), len], len)?;
    refused(SYS_getcwd, &[to(&mut room), len - 1], ERANGE)?;
    refused(SYS_getcwd, &[to(&mut room), 0], ERANGE)?;
    refused(SYS_getcwd, &[KERNEL, 64], EFAULT)?;
    refused(SYS_getcwd, &[0, 64], EFAULT)?;
    std::fs::remove_dir(&folder.0).map_err(|e| e.to_string())?;
    refused(SYS_getcwd, &[to(&mut room), 64], ENOENT)?;
    std::env::set_current_dir("/").map_err(|e| e.to_string())?;
    gives(SYS_getcwd, &[to(&mut room), 2], 2)?;
    Ok(())
}

fn fcntl() -> Result<(), String> {
    const DUPLICATE: u64 = 0;
    const GET_FD: u64 = 1;
    const SET_FD: u64 = 2;
    const GET_FL: u64 = 3;
    const SET_FL: u64 = 4;
    const DUPLICATE_CLOEXEC: u64 = 1030;
    const PIPE_SIZE: u64 = 1032;
    const NON_BLOCKING: u64 = 0o4000;
    let Names { folder: _folder, file, .. } = names()?;
    let fd = works(SYS_open, &[at(file.as_str()), 2])?;
    gives(SYS_fcntl, &[fd, DUPLICATE, 100], 100)?;
    gives(SYS_fcntl, &[fd, DUPLICATE, 100], 101)?;
    gives(SYS_fcntl, &[fd, DUPLICATE_CLOEXEC, 100], 102)?;
    gives(SYS_fcntl, &[102, GET_FD], 1)?;
    gives(SYS_fcntl, &[101, GET_FD], 0)?;
    gives(SYS_fcntl, &[101, SET_FD, 3], 0)?;
    gives(SYS_fcntl, &[101, GET_FD], 1)?;
    // Of the flags some can be set, for all descriptors of the open file.
    let flags = works(SYS_fcntl, &[fd, GET_FL])?;
    equal!(flags & 0o3, 2);
    gives(SYS_fcntl, &[100, SET_FL, NON_BLOCKING | 0o2000 | CREATE | 1], 0)?;
    equal!(works(SYS_fcntl, &[fd, GET_FL])?, flags | NON_BLOCKING | 0o2000);
    gives(SYS_fcntl, &[fd, SET_FL, 0], 0)?;
    equal!(works(SYS_fcntl, &[100, GET_FL])?, flags);
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), 0])?;
    gives(SYS_fcntl, &[ends[0] as u64, PIPE_SIZE], 65536)?;
    equal!(works(SYS_fcntl, &[ends[1] as u64, GET_FL])? & 3, 1);
    refused(SYS_fcntl, &[NO_FILE, GET_FD], EBADF)?;
    refused(SYS_fcntl, &[u64::MAX, GET_FL], EBADF)?;
    refused(SYS_fcntl, &[fd, 9999], EINVAL)?;
    refused(SYS_fcntl, &[fd, DUPLICATE, u64::MAX], EINVAL)?;
    refused(SYS_fcntl, &[fd, DUPLICATE, 1 << 30], EINVAL)?;
    refused(SYS_fcntl, &[fd, DUPLICATE_CLOEXEC, 1 << 30], EINVAL)?;
    refused(SYS_fcntl, &[fd, PIPE_SIZE], EBADF)?; // no pipe
    refused(SYS_fcntl, &[fd, 5, NOWHERE], EFAULT)?;
    Ok(())
}

fn pipe2() -> Result<(), String> {
    let mut ends = [-1i32; 2];
    gives(SYS_pipe2, &[to(&mut ends), CLOSE_ON_EXEC | 0o4000], 0)?;
    let [reader, writer] = ends.map(|fd| fd as u64);
    ensure!(reader < writer);
    gives(SYS_fcntl, &[reader, 1], 1)?;
    equal!(works(SYS_fcntl, &[writer, 3])? & 0o4003, 0o4001);
    gives(SYS_write, &[writer, at(b"abc"), 3], 3)?;
    let mut room = [0u8; 4];
    gives(SYS_read, &[reader, to(&mut room), 4], 3)?;
    gives(SYS_close, &[writer], 0)?;
    refused(SYS_pipe2, &[to(&mut ends), 0o100], EINVAL)?;
    refused(SYS_pipe2, &[KERNEL, 0], EFAULT)?;
    refused(SYS_pipe2, &[0, 0], EFAULT)?;
    gives(SYS_pipe2, &[to(&mut ends), 0], 0)?;
    equal!(ends, [writer as i32, writer as i32 + 1]); // what was refused kept no number
    Ok(())
}

fn dup() -> Result<(), String> {
    let Names { folder: _folder, file, .. } = names()?;
    let fd = works(SYS_open, &[at(file.as_str()), CLOSE_ON_EXEC])?;
    gives(SYS_dup2, &[fd, 50], 50)?;
    gives(SYS_fcntl, &[50, 1], 0)?;
    gives(SYS_lseek, &[50, 4, 0], 4)?;
    gives(SYS_lseek, &[fd, 0, 1], 4)?; // one place for both
    gives(SYS_dup2, &[fd, fd], fd)?;
    gives(SYS_fcntl, &[fd, 1], 1)?;
    let mut ends = [0i32; 2];
    works(SYS_pipe2, &[to(&mut ends), 0])?;
    gives(SYS_dup2, &[fd, ends[1] as u64], ends[1] as u64)?; // closes what was there
    let mut room = [0u8; 4];
    gives(SYS_read, &[ends[0] as u64, to(&mut room), 4], 0)?;
    gives(SYS_dup3, &[fd, 51, CLOSE_ON_EXEC], 51)?;
    gives(SYS_fcntl, &[51, 1], 1)?;
    gives(SYS_dup3, &[fd, 51, 0], 51)?;
    gives(SYS_fcntl, &[51, 1], 0)?;
    for number in [SYS_dup2, SYS_dup3] {
        refused(number, &[NO_FILE, 60], EBADF)?;
        refused(number, &[fd, u64::MAX], EBADF)?;
        refused(number, &[fd, 1 << 30], EBADF)?;
        refused(SYS_fcntl, &[60, 1], EBADF)?;
    }
    refused(SYS_dup2, &[NO_FILE, NO_FILE], EBADF)?;
    refused(SYS_dup3, &[fd, fd, 0], EINVAL)?;
    refused(SYS_dup3, &[fd, 60, 1], EINVAL)?;
    // A child has its own numbers for the same open files.
    let ended =
        in_child(|| u8::from(gives(SYS_lseek, &[50, 1, 1], 5).is_err() || gives(SYS_close, &[50], 0).is_err()))?;
    equal!(ended, Ended::Exit(0));
    gives(SYS_lseek, &[50, 0, 1], 5)?;
    Ok(())
}

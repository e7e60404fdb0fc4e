//! openat2: what a path may not do, and what open(2) ignores and this refuses.

use super::each::{Folder, NOWHERE, at, gives, refused, to, works};
use super::{Check, call, ensure, equal, is_quiesce};
use libc::{
    E2BIG, EAGAIN, EBADF, EEXIST, EFAULT, EINVAL, ELOOP, ENOENT, ENOTDIR, EXDEV, SYS_close, SYS_fstat, SYS_mkdir,
    SYS_open, SYS_openat, SYS_openat2, SYS_symlink,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("open_how", open_how),
    ("open_contradictions", contradictions),
    ("open_beneath", beneath),
    ("open_in_root", in_root),
    ("open_links", links),
    ("open_links_of_threads", links_of_threads),
];

const CWD: u64 = libc::AT_FDCWD as u64;
const SIZE: u64 = 24;
const NO_XDEV: u64 = 1;
const NO_MAGICLINKS: u64 = 2;
const NO_SYMLINKS: u64 = 4;
const BENEATH: u64 = 8;
const IN_ROOT: u64 = 16;
const CACHED: u64 = 32;

const CREATE: u64 = libc::O_CREAT as u64;

fn opens(dir: u64, path: &str, how: [u64; 3]) -> Result<u64, String> {
    works(SYS_openat2, &[dir, at(path), at(&how), SIZE])
}

fn not(dir: u64, path: &str, how: [u64; 3], error: i32) -> Result<(), String> {
    refused(SYS_openat2, &[dir, at(path), at(&how), SIZE], error)
}

/// Inode number of an open file.
fn inode(fd: u64) -> Result<u64, String> {
    let mut status = [0u64; 18];
    gives(SYS_fstat, &[fd, to(&mut status)], 0)?;
    gives(SYS_close, &[fd], 0)?;
    Ok(status[1])
}

/// A folder with `file`, `sub/file`, `sub/up` -> `../file`, `sub/whole` -> `/file`; descriptors of it and of `sub`, inodes of the files.
fn tree() -> Result<(Folder, [u64; 2], [u64; 2]), String> {
    let folder = Folder::new()?;
    let names = [folder.file("file", b"1")?, folder.path("sub")];
    gives(SYS_mkdir, &[at(names[1].as_str()), 0o755], 0)?;
    let inner = folder.file("sub/file", b"2")?;
    gives(SYS_symlink, &[at("../file\0"), at(folder.path("sub/up").as_str())], 0)?;
    gives(SYS_symlink, &[at("/file\0"), at(folder.path("sub/whole").as_str())], 0)?;
    let open = |name: &str| works(SYS_open, &[at(name), 0]);
    let inodes = [inode(open(&names[0])?)?, inode(open(&inner)?)?];
    let dirs = [open(&folder.path(""))?, open(&names[1])?];
    Ok((folder, dirs, inodes))
}

fn open_how() -> Result<(), String> {
    let (folder, [top, _], [file, _]) = tree()?;
    equal!(inode(opens(top, "file\0", [0; 3])?)?, file);
    equal!(inode(opens(CWD, &folder.path("file"), [0; 3])?)?, file);
    works(SYS_close, &[opens(top, "new\0", [CREATE | 2, 0o640, 0])?])?;
    not(top, "new\0", [CREATE | libc::O_EXCL as u64 | 1, 0o640, 0], EEXIST)?;
    not(top, "missing\0", [0; 3], ENOENT)?;
    not(999, "file\0", [0; 3], EBADF)?;
    not(top, "file\0", [0, 0o644, 0], EINVAL)?; // a mode, and nothing is made
    not(top, "new2\0", [CREATE | 1, 0o10_644, 0], EINVAL)?;
    not(top, "file\0", [1 << 31, 0, 0], EINVAL)?;
    not(top, "file\0", [1 << 40, 0, 0], EINVAL)?;
    not(top, "file\0", [libc::O_PATH as u64 | 1, 0, 0], EINVAL)?;
    not(top, "file\0", [0, 0, 64], EINVAL)?;
    not(top, "file\0", [0, 0, BENEATH | IN_ROOT], EINVAL)?;
    equal!(inode(opens(top, "file\0", [libc::O_PATH as u64, 0, 0])?)?, file);
    not(top, "file\0", [libc::O_TRUNC as u64 | 1, 0, CACHED], EAGAIN)?;
    // The struct may grow: what this kernel does not know has to be zero.
    let mut wide = [0u64; 5];
    inode(works(SYS_openat2, &[top, at("file\0"), at(&wide), 40])?)?;
    wide[4] = 1 << 56;
    refused(SYS_openat2, &[top, at("file\0"), at(&wide), 40], E2BIG)?;
    refused(SYS_openat2, &[top, at("file\0"), at(&wide), 16], EINVAL)?;
    refused(SYS_openat2, &[top, at("file\0"), at(&wide), 5000], E2BIG)?;
    refused(SYS_openat2, &[top, at("file\0"), NOWHERE, SIZE], EFAULT)?;
    refused(SYS_openat2, &[top, NOWHERE, at(&[0u64; 3]), SIZE], EFAULT)
}

/// Flags that make no sense together are refused before the path is looked at, and leave no file.
fn contradictions() -> Result<(), String> {
    let (folder, [top, _], _) = tree()?;
    const UNNAMED: u64 = libc::O_TMPFILE as u64;
    const DIRECTORY: u64 = libc::O_DIRECTORY as u64;
    let missing = folder.path("missing");
    if !is_quiesce() && call(SYS_openat, [top, NOWHERE, CREATE | DIRECTORY, 0, 0, 0]) == Err(EFAULT) {
        return Ok(()); // Linux before 6.4 makes a file of the two
    }
    for flags in [CREATE | DIRECTORY, CREATE | DIRECTORY | 2, UNNAMED & !DIRECTORY | 2, UNNAMED, CREATE | UNNAMED | 2] {
        for path in [at("missing\0"), at("sub\0"), NOWHERE] {
            refused(SYS_openat, &[top, path, flags, 0o600], EINVAL)?;
            refused(SYS_openat2, &[top, path, at(&[flags, 0o600, 0]), SIZE], EINVAL)?;
        }
        refused(SYS_open, &[at(missing.as_str()), flags, 0o600], EINVAL)?;
        refused(SYS_openat, &[top, at("missing\0"), 0], ENOENT)?;
    }
    // With O_PATH open(2) looks at no other flag; and what fits together works.
    let path_alone = libc::O_PATH as u64 | CREATE | DIRECTORY;
    works(SYS_close, &[works(SYS_openat, &[top, at("sub\0"), path_alone, 0])?])?;
    works(SYS_close, &[works(SYS_openat, &[top, at("sub\0"), UNNAMED | 2, 0o600])?])?;
    Ok(())
}

fn beneath() -> Result<(), String> {
    let (folder, [top, sub], [file, inner]) = tree()?;
    let how = [0, 0, BENEATH];
    equal!(inode(opens(sub, "file\0", how)?)?, inner);
    equal!(inode(opens(top, "sub/../file\0", how)?)?, file);
    equal!(inode(opens(top, "sub/up\0", how)?)?, file);
    not(sub, "../file\0", how, EXDEV)?;
    not(sub, "up\0", how, EXDEV)?;
    not(sub, "..\0", how, EXDEV)?;
    not(top, "sub/whole\0", how, EXDEV)?;
    not(sub, &folder.path("sub/file"), how, EXDEV)?;
    not(sub, "../missing\0", [CREATE | 1, 0o600, BENEATH], EXDEV)?;
    works(SYS_close, &[opens(sub, "made\0", [CREATE | 1, 0o600, BENEATH])?])?;
    not(sub, "missing\0", how, ENOENT)
}

fn in_root() -> Result<(), String> {
    let (_folder, [top, sub], [file, inner]) = tree()?;
    let how = [0, 0, IN_ROOT];
    for (dir, path, wanted) in [
        (sub, "../file\0", inner),
        (sub, "/file\0", inner),
        (sub, "/../../file\0", inner),
        (sub, "up\0", inner),
        (sub, "whole\0", inner),
        (top, "/sub/whole\0", file),
        (top, "sub/up\0", file),
    ] {
        equal!((path, inode(opens(dir, path, how)?)?), (path, wanted));
    }
    not(sub, "/sub/file\0", how, ENOENT)?;
    not(999, "/file\0", how, EBADF)?;
    let fd = opens(top, "file\0", [0; 3])?;
    not(fd, "/file\0", how, ENOTDIR)
}

fn links() -> Result<(), String> {
    let (_folder, [top, sub], [file, inner]) = tree()?;
    not(top, "sub/up\0", [0, 0, NO_SYMLINKS], ELOOP)?;
    equal!(inode(opens(top, "sub/file\0", [0, 0, NO_SYMLINKS])?)?, inner);
    // The link itself may be had.
    let itself = (libc::O_PATH | libc::O_NOFOLLOW) as u64;
    works(SYS_close, &[opens(sub, "up\0", [itself, 0, NO_SYMLINKS])?])?;
    let fd = opens(top, "file\0", [0; 3])?;
    let magic = format!("/proc/self/fd/{fd}\0");
    equal!(inode(opens(CWD, &magic, [0; 3])?)?, file);
    not(CWD, &magic, [0, 0, NO_MAGICLINKS], ELOOP)?;
    not(CWD, &magic, [0, 0, NO_SYMLINKS], ELOOP)?;
    let proc_self = works(SYS_open, &[at("/proc/self\0"), 0])?;
    for name in ["cwd\0", "exe\0", "root\0"] {
        works(SYS_close, &[opens(proc_self, name, [0; 3])?])?;
        not(proc_self, name, [0, 0, NO_MAGICLINKS], ELOOP)?;
        not(proc_self, name, [0, 0, BENEATH], EXDEV)?;
    }
    not(proc_self, "cwd/.\0", [0, 0, NO_MAGICLINKS], ELOOP)?;
    // The number of the process is a name like others.
    works(SYS_close, &[opens(CWD, "/proc/self\0", [0, 0, NO_MAGICLINKS])?])?;
    let below = format!("fd/{fd}\0");
    for rule in [BENEATH, IN_ROOT, NO_XDEV] {
        not(proc_self, &below, [0, 0, rule], EXDEV)?;
    }
    equal!(inode(opens(top, "sub/up\0", [0, 0, NO_MAGICLINKS])?)?, file);
    // Into another file system; where an absolute path starts is no way into one.
    let root = works(SYS_open, &[at("/\0"), 0])?;
    for path in ["proc/version\0", "dev/null\0", "dev/../dev/null\0"] {
        not(root, path, [0, 0, NO_XDEV], EXDEV)?;
    }
    let dev = works(SYS_open, &[at("/dev\0"), 0])?;
    works(SYS_close, &[opens(dev, "null\0", [0, 0, NO_XDEV])?])?;
    not(dev, "..\0", [0, 0, NO_XDEV], EXDEV)?;
    inode(opens(proc_self, "/\0", [0, 0, NO_XDEV])?)?;
    ensure!(inode(opens(top, "sub/up\0", [0, 0, NO_XDEV])?)? == file);
    Ok(())
}

/// Each thread has its process's links in /proc: where it works, its root, its program, its descriptors, also of a file without a name.
fn links_of_threads() -> Result<(), String> {
    let folder = Folder::new()?;
    let name = folder.file("file", b"content")?;
    let fd = works(SYS_open, &[at(name.as_str()), 0])?;
    std::fs::remove_file(name.trim_end_matches('\0')).map_err(|e| e.to_string())?;
    works(libc::SYS_chdir, &[at(folder.path("").as_str())])?;
    let looks = move || {
        let (pid, tid) = (crate::linux::own_pid(), works(libc::SYS_gettid, &[])?);
        ensure!(tid != pid as u64);
        for task in
            [format!("/proc/{pid}/task/{tid}"), format!("/proc/self/task/{tid}"), "/proc/thread-self".to_string()]
        {
            for link in ["cwd", "root", "exe", &format!("fd/{fd}")] {
                let of = |base: &str| {
                    std::fs::read_link(format!("{base}/{link}")).map_err(|e| format!("{base}/{link}: {e}"))
                };
                equal!((&task, of(&task)?), (&task, of(&format!("/proc/{pid}"))?));
            }
            let text = |path: String| std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"));
            equal!(text(format!("{task}/fd/{fd}"))?, "content");
            equal!(text(format!("{task}/mounts"))?, text(format!("/proc/{pid}/mounts"))?);
            equal!(inode(opens(CWD, &format!("{task}/cwd\0"), [0; 3])?)?, inode(opens(CWD, ".\0", [0; 3])?)?);
            let listed = std::fs::read_dir(format!("{task}/fd")).map_err(|e| e.to_string())?;
            ensure!(listed.flatten().any(|entry| entry.file_name().to_string_lossy() == fd.to_string()));
            refused(SYS_open, &[at(format!("{task}/fd/999\0").as_str()), 0], ENOENT)?;
        }
        Ok(())
    };
    let checked = std::thread::spawn(looks).join();
    works(libc::SYS_chdir, &[at("/\0")])?;
    checked.map_err(|_| "a panic".to_string())?
}

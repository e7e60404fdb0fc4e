//! A root of one's own (chroot): where absolute paths start and `..` ends, for the process and its children alone.

use super::each::{Folder, NOWHERE, at, gives, refused, to, works};
use super::{Check, Ended, ensure, equal, in_child};
use crate::linux::{self, Fork};
use libc::{
    EFAULT, ENAMETOOLONG, ENOENT, ENOTDIR, SYS_chdir, SYS_chroot, SYS_close, SYS_execveat, SYS_fchdir, SYS_fstat,
    SYS_getcwd, SYS_ioctl, SYS_mkdir, SYS_open, SYS_pipe2, SYS_read, SYS_readlinkat, SYS_write,
};
use std::os::unix::fs::{MetadataExt, symlink};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("chroot_paths", paths),
    ("chroot_links", links),
    ("chroot_refused", not),
    ("chroot_generated", generated),
    ("chroot_execveat", execveat),
    ("chroot_pty", pty),
    ("chroot_exe", exe),
];

/// A folder with `file`, and in it the folder `root` with another `file`, a link to `/file`, and one to `../file`: their inodes.
fn tree() -> Result<(Folder, [u64; 2]), String> {
    let folder = Folder::new()?;
    folder.file("file", b"outer")?;
    works(SYS_mkdir, &[at(folder.path("root").as_str()), 0o755])?;
    folder.file("root/file", b"inner")?;
    for (target, name) in [("/file", "whole"), ("../file", "up")] {
        symlink(target, format!("{}/root/{name}", folder.0)).map_err(|e| e.to_string())?;
    }
    let inode = |name| std::fs::metadata(format!("{}/{name}", folder.0)).map(|m| m.ino()).map_err(|e| e.to_string());
    let inodes = [inode("file")?, inode("root/file")?];
    Ok((folder, inodes))
}

fn inode(path: &str) -> Result<u64, String> {
    let (fd, mut words) = (works(SYS_open, &[at(path), 0])?, [0u64; 18]);
    gives(SYS_fstat, &[fd, to(&mut words)], 0)?;
    works(SYS_close, &[fd])?;
    Ok(words[1])
}

fn directory() -> Result<String, String> {
    let mut room = [0u8; 256];
    let len = works(SYS_getcwd, &[to(&mut room), 256])? as usize;
    Ok(String::from_utf8_lossy(&room[..len - 1]).into_owned())
}

/// Runs `check` in a child with its own root, which the others do not have.
fn child(check: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let said = |why: String| crate::output::write_out(format!("{why}\n").as_bytes());
    equal!(in_child(|| check().map_err(said).is_err().into())?, Ended::Exit(0));
    Ok(())
}

fn paths() -> Result<(), String> {
    let (folder, [outer, inner]) = tree()?;
    let top = works(SYS_open, &[at(folder.path("").as_str()), 0])?;
    child(|| {
        works(SYS_chdir, &[at(folder.path("").as_str())])?;
        gives(SYS_chroot, &[at("root\0")], 0)?;
        // The working directory stays, outside.
        equal!(directory()?, format!("(unreachable){}", folder.0));
        equal!((inode("file\0")?, inode("/file\0")?), (outer, inner));
        gives(SYS_chdir, &[at("/\0")], 0)?;
        equal!(directory()?, "/");
        for path in ["file\0", "/file\0", "../file\0", "/../../file\0", "whole\0", "/up\0", "./up\0"] {
            equal!((path, inode(path)?), (path, inner));
        }
        works(SYS_mkdir, &[at("/sub\0"), 0o755])?;
        works(SYS_chdir, &[at("/sub\0")])?;
        equal!((directory()?, inode("../../../file\0")?), ("/sub".to_string(), inner));
        refused(SYS_open, &[at(folder.path("file").as_str()), 0], ENOENT)?;
        refused(SYS_open, &[at("/proc/self\0"), 0], ENOENT)?;
        // Children have it too, and may go deeper.
        child(|| {
            equal!(inode("/file\0")?, inner);
            gives(SYS_chroot, &[at("/sub\0")], 0)?;
            refused(SYS_open, &[at("/file\0"), 0], ENOENT)
        })?;
        equal!(inode("/file\0")?, inner);
        // So have threads.
        let other = std::thread::spawn(|| gives(SYS_chroot, &[at("/sub\0")], 0)).join();
        other.map_err(|_| "a panic".to_string())??;
        refused(SYS_open, &[at("/file\0"), 0], ENOENT)?;
        equal!(directory()?, "/");
        // A descriptor leads out, and from there `..` is what it is.
        works(SYS_fchdir, &[top])?;
        equal!((inode("file\0")?, inode("root/../file\0")?), (outer, outer));
        gives(SYS_chroot, &[at(".\0")], 0)?;
        equal!((inode("/file\0")?, directory()?), (outer, "/".to_string()));
        Ok(())
    })?;
    equal!(inode(&folder.path("file"))?, outer);
    Ok(())
}

/// /proc/PID/root leads there; what links there say is as who looks has it.
fn links() -> Result<(), String> {
    let (folder, [_, inner]) = tree()?;
    let mut ends = [[0i32; 2]; 2];
    for pair in &mut ends {
        works(SYS_pipe2, &[to(pair), 0])?;
    }
    let ([told, tell], [wait, go]) = (ends[0].map(|fd| fd as u64), ends[1].map(|fd| fd as u64));
    let mut byte = [0u8];
    let pid = match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => {
            let moved = gives(SYS_chroot, &[at(folder.path("root").as_str())], 0).is_ok()
                && gives(SYS_chdir, &[at("/\0")], 0).is_ok()
                && gives(SYS_write, &[tell, at(b"x"), 1], 1).is_ok()
                && gives(SYS_read, &[wait, to(&mut byte), 1], 1).is_ok();
            linux::exit_now(u8::from(!moved));
        }
        Fork::Parent(pid) => pid,
    };
    gives(SYS_read, &[told, to(&mut byte), 1], 1)?;
    for link in ["root", "cwd"] {
        let shown = std::fs::read_link(format!("/proc/{pid}/{link}")).map_err(|e| e.to_string())?;
        equal!(shown.to_string_lossy(), format!("{}/root", folder.0));
        equal!((link, inode(&format!("/proc/{pid}/{link}/file\0"))?), (link, inner));
    }
    let own = std::fs::read_link("/proc/self/root").map_err(|e| e.to_string())?;
    equal!(own.to_string_lossy(), "/");
    gives(SYS_write, &[go, at(b"x"), 1], 1)?;
    equal!(linux::wait_for(pid).map_err(|e| e.to_string())?, Ended::Exit(0));
    Ok(())
}

fn not() -> Result<(), String> {
    let (folder, _) = tree()?;
    refused(SYS_chroot, &[at(folder.path("file").as_str())], ENOTDIR)?;
    refused(SYS_chroot, &[at(folder.path("file/more").as_str())], ENOTDIR)?;
    refused(SYS_chroot, &[at(folder.path("missing").as_str())], ENOENT)?;
    refused(SYS_chroot, &[at("\0")], ENOENT)?;
    refused(SYS_chroot, &[NOWHERE], EFAULT)?;
    refused(SYS_chroot, &[at(folder.path(&"n".repeat(256)).as_str())], ENAMETOOLONG)?;
    ensure!(inode("/proc/self/stat\0").is_ok());
    Ok(())
}

/// A directory of /sys is the root, however it was reached.
fn generated() -> Result<(), String> {
    child(|| {
        works(SYS_chdir, &[at("/sys/devices/system/cpu\0")])?;
        gives(SYS_chroot, &[at("/sys/devices/system\0")], 0)?;
        equal!(directory()?, "/cpu");
        let top = inode("/\0")?;
        for path in ["..\0", "../..\0", "../../../..\0"] {
            equal!((path, inode(path)?), (path, top));
        }
        gives(SYS_chdir, &[at("../..\0")], 0)?;
        equal!(directory()?, "/");
        refused(SYS_open, &[at("kernel\0"), 0], ENOENT)
    })
}

/// A program is run by its descriptor, or from its folder's, in a root without /proc and /dev; and nothing that was put there in their place is.
fn execveat() -> Result<(), String> {
    const EMPTY_PATH: u64 = 0x1000;
    let (folder, _) = tree()?;
    let own = super::own_path();
    let (above, name) = own.rsplit_once('/').ok_or("no path")?;
    let (above, name) = (format!("{above}/\0"), format!("{name}\0"));
    let program = works(SYS_open, &[at(format!("{own}\0").as_str()), 0])?;
    let directory = works(SYS_open, &[at(above.as_str()), 0])?;
    let word = format!("{}\0", super::process::EXEC_CHECK);
    let (words, none) = ([at(name.as_str()), at(word.as_str()), 0], [0u64; 1]);
    let runs = |fd: u64, path: &str, flags: u64| -> Result<(), String> {
        let ended = in_child(|| {
            let null = super::call(SYS_open, [at("/dev/null\0"), 1, 0, 0, 0, 0]).unwrap_or(1);
            let _ = super::call(libc::SYS_dup2, [null, 1, 0, 0, 0, 0]);
            let _ = super::call(SYS_chroot, [at(folder.path("root").as_str()), 0, 0, 0, 0, 0]);
            let _ = super::call(SYS_execveat, [fd, at(path), at(&words), at(&none), flags, 0]);
            99
        })?;
        equal!((path, ended), (path, Ended::Exit(42)));
        Ok(())
    };
    for _ in 0..2 {
        runs(program, "\0", EMPTY_PATH)?;
        runs(directory, &name, 0)?;
        // The second time there is something of that name, which is no program.
        for part in ["proc", "proc/self", "proc/self/fd", "dev", "dev/fd"] {
            let _ = super::call(SYS_mkdir, [at(folder.path(&format!("root/{part}")).as_str()), 0o755, 0, 0, 0, 0]);
        }
        for part in ["proc/self/fd", "dev/fd"] {
            folder.file(&format!("root/{part}/{program}"), b"planted")?;
        }
    }
    Ok(())
}

/// The slave that a pty's master opens is where it is, whatever the caller's root has of that name.
fn pty() -> Result<(), String> {
    let (folder, _) = tree()?;
    child(|| {
        let proc = works(SYS_open, &[at("/proc\0"), 0])?;
        let master = works(SYS_open, &[at("/dev/ptmx\0"), 0o402])?;
        let mut number = 0i32;
        gives(SYS_ioctl, &[master, 0x8004_5430, to(&mut number)], 0)?; // TIOCGPTN
        gives(SYS_ioctl, &[master, 0x4004_5431, at(&0i32)], 0)?; // TIOCSPTLCK
        gives(SYS_chroot, &[at(folder.path("root").as_str())], 0)?;
        let slave = works(SYS_ioctl, &[master, 0x5441, 0o402])?; // TIOCGPTPEER
        equal!(link(proc, &format!("self/fd/{slave}\0"))?, format!("/dev/pts/{number}"));
        Ok(())
    })
}

/// What the link says, from the descriptor of a directory on.
fn link(fd: u64, path: &str) -> Result<String, String> {
    let mut room = [0u8; 256];
    let len = works(SYS_readlinkat, &[fd, at(path), to(&mut room), 256])? as usize;
    Ok(String::from_utf8_lossy(&room[..len]).into_owned())
}

/// The program's path is shown as who looks has it.
fn exe() -> Result<(), String> {
    let own = super::own_path();
    let (above, name) = own.rsplit_once('/').ok_or("no path")?;
    let above = format!("{above}/\0");
    child(|| {
        let proc = works(SYS_open, &[at("/proc\0"), 0])?;
        gives(SYS_chroot, &[at(above.as_str())], 0)?;
        equal!(link(proc, "self/exe\0")?, format!("/{name}"));
        Ok(())
    })
}

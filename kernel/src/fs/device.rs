//! Character devices: what /dev has, and what opening a device number gives.

use super::generated::{self, Item, Leaf, Numbered};
use super::inode::{Inode, Kind, device_number, mode};
use super::open_file::{File, How};
use super::tree;
use super::user_buffer::UserBuffer;
use crate::errno::{self, Errno};
use crate::process::random;
use crate::tty::pty;
use alloc::sync::Arc;

/// Names, permissions, major and minor numbers (Linux Documentation/admin-guide/devices.txt).
const DEVICES: &[(&str, u32, u32, u32)] = &[
    ("console", 0o600, 5, 1),
    ("full", 0o666, 1, 7),
    ("kmsg", 0o644, 1, 11),
    ("null", 0o666, 1, 3),
    ("ptmx", 0o666, 5, 2),
    ("random", 0o666, 1, 8),
    ("tty", 0o666, 5, 0),
    ("ttyS0", 0o660, 4, 64),
    ("urandom", 0o666, 1, 9),
    ("zero", 0o666, 1, 5),
];
const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// A directory with all devices.
pub fn new_directory() -> Arc<Inode> {
    let directory = Inode::new_directory(0o755);
    for &(name, permissions, major, minor) in DEVICES {
        let node = Inode::new(mode::CHR | permissions, Kind::Device { major, minor });
        let _ = tree::insert(&directory, name.as_bytes(), node);
    }
    // shm_open(3) makes its files there; on Linux a tmpfs is mounted on it.
    let _ = tree::insert(&directory, b"shm", Inode::new_directory(0o1777));
    // A mount covers it.
    let _ = tree::insert(&directory, b"pts", Inode::new_directory(0o755));
    for &(name, target) in LINKS {
        let _ = tree::insert(&directory, name.as_bytes(), tree::new_symlink(target.as_bytes()));
    }
    directory
}

/// /dev/pts: a slave for each pair of pseudo-terminals, and what makes one. The file system of Linux that it shows is devpts.
static PTS: &[Item] = &[
    Item::Device("ptmx", 0o666, 5, 2),
    Item::Numbered(Numbered {
        prefix: "",
        exists: |_, number| pty::exists(number),
        all: |_| pty::numbers(),
        argument: |_, number| number.into(),
        leaf: Leaf::Device(0o620, pty::SLAVE_MAJOR),
    }),
];

/// The root of /dev/pts.
pub fn pts_root_inode() -> Arc<Inode> {
    generated::new_root(device_number::PTS, PTS)
}

/// Open the device with this number, by open(2)'s `flags`. ENXIO if there is none.
pub fn open(major: u32, minor: u32, flags: u32) -> Result<Arc<dyn File>, Errno> {
    match (major, minor) {
        (1, 3) => Ok(Arc::new(Memory::Null)),
        (1, 5) => Ok(Arc::new(Memory::Zero)),
        (1, 7) => Ok(Arc::new(Memory::Full)),
        (1, 8 | 9) => Ok(Arc::new(Memory::Random)),
        (1, 11) => Ok(super::kmsg::open(0)),
        (5, 0) => crate::tty::open_own(),
        (5, 2) => pty::open_master(),
        (pty::SLAVE_MAJOR, number) => pty::open_slave(number, flags),
        (5, 1) | (4, 64) => Ok(crate::tty::console::open()),
        _ => Err(errno::ENXIO),
    }
}

/// The devices without hardware.
enum Memory {
    Null,
    Zero,
    Full,
    Random,
}

impl File for Memory {
    fn read(&self, to: &mut UserBuffer, _: How) -> Result<usize, Errno> {
        let mut chunk = [0u8; 256];
        let mut done = 0;
        while to.left() > 0 && !matches!(self, Memory::Null) {
            if matches!(self, Memory::Random) {
                random::fill(&mut chunk);
            }
            let n = to.left().min(chunk.len());
            match to.put(&chunk[..n]) {
                Ok(n) => done += n,
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            }
            // A reader that asked for gigabytes must stay killable.
            if done % 65536 == 0 && crate::fs::waiting::signal_pending() {
                break;
            }
        }
        Ok(done)
    }

    fn write(&self, from: &mut UserBuffer, _: How) -> Result<usize, Errno> {
        match self {
            Memory::Full => Err(errno::ENOSPC),
            _ => Ok(from.left()),
        }
    }
}

//! Files and directories whose content is made when it is read: the building blocks of /proc and /sys.
//!
//! A directory is a static table of items, each with the directory's argument (a CPU, a process). A file's text is made at the first read and at each
//! read at offset 0 again, so what a reader gets in several reads belongs together (as Linux's seq files).

use super::inode::{DirEntry, Inode, Kind, LinkPlace, LinkText, mode};
use super::open_file::{File, How, flag};
use super::user_buffer::UserBuffer;
use crate::errno::{self, Errno};
use crate::mm::address_space::Content;
use crate::spin_lock::{SpinLock, rank};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Makes a file's text. The argument is the directory's.
pub type Read = fn(u64, &mut String) -> Result<(), Errno>;
/// Takes what is written to a file in one write.
pub type Write = fn(u64, &[u8]) -> Result<(), Errno>;
/// What mmap of the bytes from an offset on, so many, shows.
pub type Map = fn(u64, u64, u64) -> Result<Content, Errno>;

/// A generated file.
#[derive(Clone, Copy)]
pub struct Generated {
    /// How it is read.
    pub read: Option<Read>,
    /// How it is written.
    pub write: Option<Write>,
    /// How it is mapped.
    pub map: Option<Map>,
    /// For which CPU, process ...
    pub argument: u64,
}

/// What a table of a generated directory has.
pub enum Item {
    /// A file that is read.
    File(&'static str, Read),
    /// A file that is only written.
    Control(&'static str, Write),
    /// A file that is read, and written to change what it shows.
    Setting(&'static str, Read, Write),
    /// The same, and it can be mapped.
    Mapped(&'static str, Read, Write, Map),
    /// A symbolic link.
    Link(&'static str, fn(u64) -> Result<Vec<u8>, Errno>),
    /// A symbolic link to a place, also where no path leads to it: its text, and what it leads to.
    PlaceLink(&'static str, LinkText, LinkPlace),
    /// A file that gives each opener something of its own.
    Special(&'static str, fn(u64) -> Arc<dyn File>),
    /// A character device: permissions, major and minor number.
    Device(&'static str, u32, u32, u32),
    /// A directory with the same argument.
    Dir(&'static str, &'static [Item]),
    /// One entry for each number.
    Numbered(Numbered),
}

/// Entries named by a prefix and a number.
pub struct Numbered {
    /// What stands before the number.
    pub prefix: &'static str,
    /// Whether there is one of this number. First the directory's argument.
    pub exists: fn(u64, u32) -> bool,
    /// All numbers, rising.
    pub all: fn(u64) -> Vec<u32>,
    /// The argument of the entry.
    pub argument: fn(u64, u32) -> u64,
    /// What each is.
    pub leaf: Leaf,
}

/// What a numbered entry is.
#[derive(Clone, Copy)]
pub enum Leaf {
    /// A directory.
    Dir(&'static [Item]),
    /// A symbolic link to something that is open: its text, and what it leads to.
    OpenFile(LinkText, LinkPlace),
    /// A character device whose minor number is the argument: permissions, and the major number.
    Device(u32, u32),
}

/// A directory of generated files.
pub struct VirtualDir {
    /// What is in it.
    pub items: &'static [Item],
    /// Its argument.
    pub argument: u64,
}

/// FNV-1a: the same path has the same inode number each time.
fn ino_of(parent: u64, name: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325u64 ^ parent.rotate_left(17);
    let hash = name.iter().fold(start, |h, &b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3));
    (hash >> 16).max(16)
}

/// The root of a generated file system.
pub fn new_root(dev: u64, items: &'static [Item]) -> Arc<Inode> {
    Inode::build(dev, 1, mode::DIR | 0o555, Kind::Virtual(VirtualDir { items, argument: 0 }))
}

impl Item {
    fn name(&self) -> &'static str {
        match self {
            Item::File(name, ..)
            | Item::Control(name, _)
            | Item::Setting(name, ..)
            | Item::Mapped(name, ..)
            | Item::Link(name, _)
            | Item::PlaceLink(name, ..)
            | Item::Special(name, _)
            | Item::Device(name, ..)
            | Item::Dir(name, _) => name,
            Item::Numbered(n) => n.prefix,
        }
    }

    fn mode(&self) -> u32 {
        match self {
            Item::File(..) | Item::Special(..) => mode::REG | 0o444,
            Item::Control(..) => mode::REG | 0o200,
            Item::Setting(..) | Item::Mapped(..) => mode::REG | 0o644,
            Item::Link(..) | Item::PlaceLink(..) => mode::LNK | 0o777,
            Item::Device(_, permissions, ..) => mode::CHR | permissions,
            Item::Dir(..) => mode::DIR | 0o555,
            Item::Numbered(n) => n.leaf.mode(),
        }
    }

    fn kind(&self, argument: u64) -> Kind {
        let file = |read, write| Kind::Generated(Generated { read, write, map: None, argument });
        match self {
            Item::File(_, read) => file(Some(*read), None),
            Item::Control(_, write) => file(None, Some(*write)),
            Item::Setting(_, read, write) => file(Some(*read), Some(*write)),
            Item::Mapped(_, read, write, map) => {
                Kind::Generated(Generated { read: Some(*read), write: Some(*write), map: Some(*map), argument })
            }
            Item::Link(_, target) => Kind::GeneratedLink(*target, None, argument),
            Item::PlaceLink(_, text, place) => Kind::GeneratedLink(*text, Some(*place), argument),
            Item::Special(_, make) => Kind::Special(*make, argument),
            Item::Device(_, _, major, minor) => Kind::Device { major: *major, minor: *minor },
            Item::Dir(_, items) => Kind::Virtual(VirtualDir { items, argument }),
            Item::Numbered(n) => n.leaf.kind(argument),
        }
    }
}

impl Leaf {
    fn mode(&self) -> u32 {
        match self {
            Leaf::Dir(_) => mode::DIR | 0o555,
            Leaf::OpenFile(..) => mode::LNK | 0o777,
            Leaf::Device(permissions, _) => mode::CHR | permissions,
        }
    }

    fn kind(&self, argument: u64) -> Kind {
        match self {
            Leaf::Dir(items) => Kind::Virtual(VirtualDir { items, argument }),
            Leaf::Device(_, major) => Kind::Device { major: *major, minor: argument as u32 },
            Leaf::OpenFile(text, place) => Kind::GeneratedLink(*text, Some(*place), argument),
        }
    }
}

/// A number without signs or leading zeros.
fn parse_number(digits: &[u8]) -> Option<u32> {
    let plain = digits.first().is_some_and(|d| d.is_ascii_digit()) && (digits.len() == 1 || digits[0] != b'0');
    if !plain {
        return None;
    }
    core::str::from_utf8(digits).ok()?.parse().ok()
}

impl VirtualDir {
    /// The entry `name` of this directory, whose inode is `this`.
    pub fn lookup(&self, this: &Inode, name: &[u8]) -> Option<Arc<Inode>> {
        let ino = ino_of(this.ino, name);
        for item in self.items {
            if let Item::Numbered(n) = item {
                let Some(number) = name.strip_prefix(n.prefix.as_bytes()).and_then(parse_number) else { continue };
                if (n.exists)(self.argument, number) {
                    let argument = (n.argument)(self.argument, number);
                    return Some(Inode::build(this.dev, ino, n.leaf.mode(), n.leaf.kind(argument)));
                }
            } else if item.name().as_bytes() == name {
                return Some(Inode::build(this.dev, ino, item.mode(), item.kind(self.argument)));
            }
        }
        None
    }

    /// All entries.
    pub fn list(&self, this: &Inode) -> Vec<DirEntry> {
        let mut out = Vec::new();
        let mut numbered_from = 1000u64;
        for (index, item) in self.items.iter().enumerate() {
            let mut push = |cookie: u64, name: Vec<u8>, mode: u32| {
                out.push(DirEntry { cookie, ino: ino_of(this.ino, &name), name, mode });
            };
            match item {
                Item::Numbered(n) => {
                    for number in (n.all)(self.argument) {
                        let name = alloc::format!("{}{number}", n.prefix).into_bytes();
                        push(numbered_from + number as u64, name, n.leaf.mode());
                    }
                    numbered_from += 1 << 32;
                }
                _ => push(3 + index as u64, item.name().into(), item.mode()),
            }
        }
        out.sort_unstable_by_key(|e| e.cookie);
        out
    }
}

impl Generated {
    /// Open it.
    pub fn open(&self, flags: u32) -> Result<Arc<dyn File>, Errno> {
        let access = flags & flag::ACCMODE;
        if access != flag::WRONLY && self.read.is_none() || access != flag::RDONLY && self.write.is_none() {
            return Err(errno::EACCES);
        }
        Ok(Arc::new(Snapshot { source: *self, text: SpinLock::new(None) }))
    }
}

/// An open generated file.
struct Snapshot {
    source: Generated,
    text: SpinLock<Option<Arc<String>>, { rank::FILE }>,
}

impl File for Snapshot {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let make = self.source.read.ok_or(errno::EINVAL)?;
        let kept = if how.offset == 0 { None } else { self.text.lock().clone() };
        let text = match kept {
            Some(text) => text,
            None => {
                let mut text = String::new();
                make(self.source.argument, &mut text)?;
                let text = Arc::new(text);
                let old = self.text.lock().replace(text.clone());
                drop(old);
                text
            }
        };
        let start = (how.offset as usize).min(text.len());
        to.put(&text.as_bytes()[start..])
    }

    fn write(&self, from: &mut UserBuffer, _: How) -> Result<usize, Errno> {
        let take = self.source.write.ok_or(errno::EINVAL)?;
        let mut bytes = [0u8; 256];
        let n = from.take(&mut bytes)?;
        take(self.source.argument, &bytes[..n])?;
        Ok(n)
    }

    fn mapping(&self, offset: u64, len: u64) -> Result<Content, Errno> {
        self.source.map.ok_or(errno::ENODEV)?(self.source.argument, offset, len)
    }
}

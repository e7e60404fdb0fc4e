//! Reads cpio archives in the newc format (`070701`, `070702`) as Linux's initramfs unpacker accepts them.
//!
//! Callers: the loader (its boot archive) and the kernel (the root file system). Nothing is copied or allocated.
//! Invariants: no input panics; after a fatal error the iterator ends; offsets are bytes from the archive's start.
//! Why not the crate `cpio_reader`: it ends without a word at the first thing it does not like, so that a
//! truncated archive reads as a short one; it has no offsets, checks no sum and does not know concatenated archives.
//! Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.

#[cfg(test)]
mod tests;

use core::fmt;
use core::iter::FusedIterator;

/// The longest path, NUL included (Linux's PATH_MAX).
pub const PATH_MAX: usize = 4096;

const HEADER_LEN: usize = 110;
const TRAILER: &str = "TRAILER!!!";

/// File type bits in [`Entry::mode`] (`S_IFMT` and its values, Linux stat.h).
pub const S_IFMT: u32 = 0o170_000;
/// [`Entry::mode`] of a directory.
pub const S_IFDIR: u32 = 0o040_000;
/// [`Entry::mode`] of a regular file.
pub const S_IFREG: u32 = 0o100_000;
/// [`Entry::mode`] of a symbolic link; its target is [`Entry::data`].
pub const S_IFLNK: u32 = 0o120_000;

/// One file of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The path as written in the archive; see [`Entry::name`].
    pub path: &'a str,
    /// File type and permissions (Linux stat.h).
    pub mode: u32,
    /// Inode number: entries with the same `ino`, `devmajor`, `devminor` and `archive` and `nlink` > 1 are one file.
    pub ino: u32,
    /// Number of links. Of a hard-linked file usually only one entry, the last, has the data.
    pub nlink: u32,
    /// Time of modification, seconds since 1970.
    pub mtime: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major number of the device that the file was on.
    pub devmajor: u32,
    /// Minor number of the device that the file was on.
    pub devminor: u32,
    /// Major number, of a device file.
    pub rdevmajor: u32,
    /// Minor number, of a device file.
    pub rdevminor: u32,
    /// Contents, or the target of a symbolic link.
    pub data: &'a [u8],
    /// Which of several concatenated archives this entry is from, counted from 0. Links never cross archives.
    pub archive: u32,
    /// Where the entry's header starts.
    pub offset: usize,
}

impl<'a> Entry<'a> {
    /// The path without leading `/` and `./`: `init` for `./init`. Empty for the root directory.
    pub fn name(&self) -> &'a str {
        plain_name(self.path)
    }

    /// True for a directory.
    pub const fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    /// True for a regular file.
    pub const fn is_file(&self) -> bool {
        self.mode & S_IFMT == S_IFREG
    }

    /// True for a symbolic link.
    pub const fn is_symlink(&self) -> bool {
        self.mode & S_IFMT == S_IFLNK
    }
}

fn plain_name(path: &str) -> &str {
    let mut rest = path;
    loop {
        let shorter = rest.trim_start_matches('/');
        let shorter = if shorter == "." { "" } else { shorter.strip_prefix("./").unwrap_or(shorter) };
        if shorter.len() == rest.len() {
            return rest;
        }
        rest = shorter;
    }
}

/// What is wrong with an archive, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpioError {
    /// Bytes from the start of the archive.
    pub offset: usize,
    /// What is wrong there.
    pub what: CpioErrorKind,
}

/// The ways in which an archive can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpioErrorKind {
    /// No newc header where one must be. A compressed archive shows up like this too.
    NotNewc,
    /// The archive ends within a header.
    TruncatedHeader,
    /// A header field has a character that is no hex digit.
    BadNumber,
    /// The name's length is 0 or above [`PATH_MAX`].
    BadNameLength(u32),
    /// The archive ends within a name.
    TruncatedName,
    /// The name does not end with NULs, or has one before its end.
    NameNotTerminated,
    /// The name is not UTF-8. Not fatal: the entry is left out.
    NameNotUtf8,
    /// The archive ends within the data of an entry that says it has this many bytes.
    TruncatedData(u32),
    /// `070702`: the data do not add up to the header's sum. Not fatal: the entry is left out.
    BadSum,
    /// The archive ends without the entry `TRAILER!!!`.
    NoTrailer,
}

impl CpioErrorKind {
    /// True if nothing after the error can be read.
    pub const fn is_fatal(self) -> bool {
        !matches!(self, Self::NameNotUtf8 | Self::BadSum)
    }
}

impl fmt::Display for CpioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = self.offset;
        match self.what {
            CpioErrorKind::NotNewc => write!(f, "cpio archive: no newc header (070701) at offset {offset}"),
            CpioErrorKind::TruncatedHeader => write!(f, "cpio archive: truncated in the header at offset {offset}"),
            CpioErrorKind::BadNumber => write!(f, "cpio archive: bad hex number at offset {offset}"),
            CpioErrorKind::BadNameLength(len) => {
                write!(f, "cpio archive: name length {len} in the header at offset {offset} is not 1-{PATH_MAX}")
            }
            CpioErrorKind::TruncatedName => write!(f, "cpio archive: truncated in the name at offset {offset}"),
            CpioErrorKind::NameNotTerminated => {
                write!(f, "cpio archive: name at offset {offset} has no NUL at its end, or one before it")
            }
            CpioErrorKind::NameNotUtf8 => {
                write!(f, "cpio archive: name at offset {offset} is not UTF-8, entry left out")
            }
            CpioErrorKind::TruncatedData(len) => {
                write!(f, "cpio archive: truncated in the {len} bytes of data at offset {offset}")
            }
            CpioErrorKind::BadSum => {
                write!(f, "cpio archive: wrong checksum of the data at offset {offset}, entry left out")
            }
            CpioErrorKind::NoTrailer => write!(f, "cpio archive: ends at offset {offset} without {TRAILER}"),
        }
    }
}

/// The entries of `archive`, and of the archives that follow it after zero padding.
///
/// Directories, devices and links come as they are; the trailers do not. Empty input or zeros only: no entries.
pub const fn entries(archive: &[u8]) -> Entries<'_> {
    Entries { archive, pos: 0, number: 0, between: true, failed: false }
}

/// The last regular file with this name (leading `/` and `./` do not count), as unpacking would leave it.
///
/// Reads the whole archive; an archive that is broken anywhere is an error.
pub fn find<'a>(archive: &'a [u8], name: &str) -> Result<Option<Entry<'a>>, CpioError> {
    let mut found = None;
    for entry in entries(archive) {
        match entry {
            Ok(entry) if entry.is_file() && entry.name() == plain_name(name) => found = Some(entry),
            Err(error) if error.what.is_fatal() => return Err(error),
            _ => {}
        }
    }
    Ok(found)
}

/// The entries of an archive; made by [`entries`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    archive: &'a [u8],
    /// Where the next header, or padding, starts.
    pos: usize,
    number: u32,
    /// Before the first header or after a trailer: padding or the end may come.
    between: bool,
    failed: bool,
}

impl<'a> Entries<'a> {
    /// Bytes read so far. After [`CpioErrorKind::NotNewc`] this is where the foreign bytes start: a caller may find
    /// a compressed archive there.
    pub const fn offset(&self) -> usize {
        self.pos
    }

    fn fail(&mut self, offset: usize, what: CpioErrorKind) -> Option<Result<Entry<'a>, CpioError>> {
        self.failed = what.is_fatal();
        let offset = offset.min(self.archive.len());
        Some(Err(CpioError { offset, what }))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, CpioError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            if self.between {
                let rest = self.archive.get(self.pos..).unwrap_or_default();
                let Some(zeros) = rest.iter().position(|&byte| byte != 0) else {
                    self.pos = self.archive.len();
                    return None;
                };
                self.pos += zeros;
            }
            let start = self.pos;
            let Some(rest) = self.archive.get(start..).filter(|rest| !rest.is_empty()) else {
                return self.fail(self.archive.len(), CpioErrorKind::NoTrailer);
            };
            let sum_is_there = match rest.get(..6) {
                Some(b"070701") => false,
                Some(b"070702") => true,
                None if b"070701".starts_with(rest) => return self.fail(start, CpioErrorKind::TruncatedHeader),
                _ => return self.fail(start, CpioErrorKind::NotNewc),
            };
            let Some(header) = rest.get(6..HEADER_LEN) else {
                return self.fail(start, CpioErrorKind::TruncatedHeader);
            };
            let mut fields = [0u32; 13];
            for (index, (field, digits)) in fields.iter_mut().zip(header.chunks_exact(8)).enumerate() {
                match hex(digits) {
                    Some(value) => *field = value,
                    None => return self.fail(start + 6 + index * 8, CpioErrorKind::BadNumber),
                }
            }
            let [ino, mode, uid, gid, nlink, mtime, data_len, devmajor, devminor, rdevmajor, rdevminor, name_len, sum] =
                fields;

            if name_len == 0 || name_len as usize > PATH_MAX {
                return self.fail(start, CpioErrorKind::BadNameLength(name_len));
            }
            let name_end = HEADER_LEN + name_len as usize;
            let Some(name) = rest.get(HEADER_LEN..name_end) else {
                return self.fail(start + HEADER_LEN, CpioErrorKind::TruncatedName);
            };
            // More than one NUL: padding, so that the data are aligned.
            let name_len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
            let (name, padding) = name.split_at(name_len);
            if padding.is_empty() || padding.iter().any(|&byte| byte != 0) {
                return self.fail(start + HEADER_LEN, CpioErrorKind::NameNotTerminated);
            }
            let data_start = name_end.next_multiple_of(4);
            let Some(data_end) = data_start.checked_add(data_len as usize) else {
                return self.fail(start + data_start, CpioErrorKind::TruncatedData(data_len));
            };
            let data = if data_len == 0 { Some(&[][..]) } else { rest.get(data_start..data_end) };
            let Some(data) = data else {
                return self.fail(start + data_start, CpioErrorKind::TruncatedData(data_len));
            };
            // The padding after the last entry may be cut off.
            self.pos = start.saturating_add(data_end.next_multiple_of(4)).min(self.archive.len());
            if name == TRAILER.as_bytes() {
                self.between = true;
                self.number = self.number.saturating_add(1);
                continue;
            }
            self.between = false;
            let Ok(path) = core::str::from_utf8(name) else {
                return self.fail(start + HEADER_LEN, CpioErrorKind::NameNotUtf8);
            };
            if sum_is_there && data.iter().fold(0u32, |total, &byte| total.wrapping_add(byte.into())) != sum {
                return self.fail(start + data_start, CpioErrorKind::BadSum);
            }
            return Some(Ok(Entry {
                path,
                mode,
                ino,
                nlink,
                mtime,
                uid,
                gid,
                devmajor,
                devminor,
                rdevmajor,
                rdevminor,
                data,
                archive: self.number,
                offset: start,
            }));
        }
        None
    }
}

impl FusedIterator for Entries<'_> {}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

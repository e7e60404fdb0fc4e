//! newc cpio writer. Used for the boot archive and root file systems; the bytes depend on the
//! entries alone (inode numbers count up; what is not said is 0).
//!
//! Source of the format: cpio(5), "New ASCII Format"; Linux Documentation/driver-api/early-userspace/buffer-format.rst.

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const SYMBOLIC_LINK: u32 = 0o120_777;

/// What an entry has besides its name and data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meta {
    /// Type and permissions, as stat(2) gives them.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of its names.
    pub links: u32,
    /// Time of the last change, seconds since 1970.
    pub mtime: u32,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// The inode of an earlier entry, of which this is another name; `None`: a new one.
    pub inode: Option<u32>,
}

/// A newc archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds a directory; `path` has no leading slash.
    pub fn directory(&mut self, path: &str) {
        self.plain(path, DIRECTORY, 2, &[]);
    }

    /// Adds a plain file.
    pub fn file(&mut self, path: &str, data: &[u8]) {
        self.plain(path, FILE, 1, data);
    }

    /// Adds an executable file.
    pub fn program(&mut self, path: &str, data: &[u8]) {
        self.plain(path, PROGRAM, 1, data);
    }

    /// Adds a symbolic link at `path` that leads to `to`.
    pub fn symbolic_link(&mut self, path: &str, to: &str) {
        self.plain(path, SYMBOLIC_LINK, 1, to.as_bytes());
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.member(0, "TRAILER!!!", &Meta { links: 1, ..Meta::default() }, &[]);
        self.bytes
    }

    /// Adds any entry; gives its inode number, for further names of it.
    pub fn entry(&mut self, path: &str, meta: &Meta, data: &[u8]) -> u32 {
        let inode = meta.inode.unwrap_or_else(|| {
            self.inode += 1;
            self.inode
        });
        self.member(inode, path, meta, data);
        inode
    }

    fn plain(&mut self, path: &str, mode: u32, links: u32, data: &[u8]) {
        self.entry(path, &Meta { mode, links, ..Meta::default() }, data);
    }

    fn member(&mut self, inode: u32, path: &str, meta: &Meta, data: &[u8]) {
        let size = u32::try_from(data.len()).expect("a newc member is below 4 GiB");
        let name = path.len() as u32 + 1;
        let Meta { mode, uid, gid, links, mtime, device: (major, minor), .. } = *meta;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [inode, mode, uid, gid, links, mtime, size, 0, 0, major, minor, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut a = Archive::default();
        a.directory("bin");
        a.program("init", b"hello");
        a.file("etc", b"");
        a.symbolic_link("sh", "init");
        a.finish()
    }

    #[test]
    fn equal_entries_give_equal_bytes() {
        assert_eq!(sample(), sample());
    }

    #[test]
    fn members_read_back() {
        let bytes = sample();
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |i: usize| {
                let s = std::str::from_utf8(&bytes[at + 6 + 8 * i..at + 14 + 8 * i]).unwrap();
                u32::from_str_radix(s, 16).unwrap() as usize
            };
            let (mode, size, name_len) = (field(1), field(6), field(11));
            let name = String::from_utf8(bytes[at + 110..at + 110 + name_len - 1].to_vec()).unwrap();
            assert_eq!(bytes[at + 110 + name_len - 1], 0);
            let data = (at + 110 + name_len).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(field(0), 0);
                break;
            }
            seen.push((name, mode, bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
        let expected = [
            ("bin".to_string(), 0o040_755, vec![]),
            ("init".to_string(), 0o100_755, b"hello".to_vec()),
            ("etc".to_string(), 0o100_644, vec![]),
            ("sh".to_string(), 0o120_777, b"init".to_vec()),
        ];
        assert_eq!(seen, expected);
    }
}

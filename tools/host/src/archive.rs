//! newc cpio writer. Used for the boot archive and root file systems; the bytes depend on the
//! entries alone (inode numbers count up; what is not said is 0).
//!
//! Source of the format: cpio(5), "New ASCII Format"; Linux Documentation/driver-api/early-userspace/buffer-format.rst.

/// Contents of so many bytes or more start on a page boundary: the loader and the kernel then use them where they lie.
const ALIGN_FROM: usize = 16 << 10;
const PAGE: usize = 4096;
/// Bytes of a member's header.
const HEADER: usize = 110;
/// The longest name, its NULs included, that readers take (Linux's PATH_MAX).
const NAME_MAX: usize = 4096;

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
        let mut name = path.len() + 1;
        if data.len() >= ALIGN_FROM {
            // NULs behind the name count as part of it, as those of Linux's gen_init_cpio.
            let least = (HEADER + name).next_multiple_of(4);
            let padded = |at: usize| least + (at + least).wrapping_neg() % PAGE - HEADER;
            if padded(self.bytes.len()) > NAME_MAX {
                // Too much for one name: the root directory once more takes some of it.
                self.plain(".", DIRECTORY, 2, &[]);
            }
            name = Some(padded(self.bytes.len())).filter(|&len| len <= NAME_MAX).unwrap_or(name);
        }
        let Meta { mode, uid, gid, links, mtime, device: (major, minor), .. } = *meta;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [inode, mode, uid, gid, links, mtime, size, 0, 0, major, minor, name as u32, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.resize(self.bytes.len() + name - path.len(), 0);
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
    fn large_contents_lie_on_page_boundaries() {
        // Whatever lies before them: all that a position can be, modulo a page.
        for before in 0..PAGE / 4 {
            let mut a = Archive::default();
            a.file("x", &vec![7; before * 4]);
            a.program("bin/large", &[1; ALIGN_FROM]);
            a.file("small", &[2; 5]);
            let bytes = a.finish();
            let entries: Vec<_> = kcore::cpio::entries(&bytes).map(Result::unwrap).filter(|e| e.is_file()).collect();
            assert_eq!(entries.iter().map(|e| e.name()).collect::<Vec<_>>(), ["x", "bin/large", "small"]);
            let at = entries[1].data.as_ptr().addr() - bytes.as_ptr().addr();
            assert_eq!((at % PAGE, entries[1].data.len()), (0, ALIGN_FROM), "{before}");
        }
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

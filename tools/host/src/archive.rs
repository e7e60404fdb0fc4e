//! newc cpio writer. Used by `image` for the boot archive and the root file system; the bytes depend on the
//! entries alone (inode numbers count up, all times are 0).
//!
//! Source of the format: cpio(5), "New ASCII Format"; Linux Documentation/driver-api/early-userspace/buffer-format.rst.

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const SYMBOLIC_LINK: u32 = 0o120_777;

/// A newc archive under construction.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds a directory; `path` has no leading slash.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, 2, &[]);
    }

    /// Adds a plain file.
    pub fn file(&mut self, path: &str, data: &[u8]) {
        self.entry(path, FILE, 1, data);
    }

    /// Adds an executable file.
    pub fn program(&mut self, path: &str, data: &[u8]) {
        self.entry(path, PROGRAM, 1, data);
    }

    /// Adds a symbolic link at `path` that leads to `to`.
    pub fn symbolic_link(&mut self, path: &str, to: &str) {
        self.entry(path, SYMBOLIC_LINK, 1, to.as_bytes());
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = u32::MAX; // the trailer's inode number wraps to 0
        self.entry("TRAILER!!!", 0, 1, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, data: &[u8]) {
        self.inode = self.inode.wrapping_add(1);
        let size = u32::try_from(data.len()).expect("a newc member is below 4 GiB");
        let name = path.len() as u32 + 1;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name, 0];
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

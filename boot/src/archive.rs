//! The boot archive: limine.cfg and the files that it names.

use crate::fail;
use crate::physical_memory::{PhysicalMemory, direct_map_of};
use crate::protocol::File;
use alloc::format;
use alloc::string::String;
use kcore::boot_memory_map::{Kind, PAGE_SIZE};
use kcore::cpio;
use kcore::limine_cfg::{self, Config};

/// The archive's bytes.
pub struct Archive {
    bytes: &'static [u8],
}

impl Archive {
    /// Takes `bytes` for an archive; fails the boot if they are not one, to their end.
    pub fn open(bytes: &'static [u8]) -> Self {
        if let Some(error) = cpio::entries(bytes).find_map(Result::err) {
            fail!("the boot archive is broken: {error}; an uncompressed newc cpio is needed");
        }
        Self { bytes }
    }

    /// The configuration.
    pub fn configuration(&self) -> Config<'static> {
        let names = ["limine.cfg", "boot/limine.cfg", "limine/limine.cfg", "boot/limine/limine.cfg"];
        let Some(text) = names.iter().find_map(|name| self.find(name)) else {
            fail!("the boot archive has no limine.cfg, it is needed to find the kernel");
        };
        let Ok(text) = core::str::from_utf8(text) else { fail!("limine.cfg is not UTF-8 text") };
        match limine_cfg::parse(text) {
            Ok(configuration) => {
                if !configuration.protocol.eq_ignore_ascii_case("limine") {
                    fail!("limine.cfg: PROTOCOL={} is unknown here, limine is needed", configuration.protocol);
                }
                configuration
            }
            Err(error) => fail!("{error}"),
        }
    }

    /// The bytes of the file behind `uri` (`boot:///path`), which limine.cfg names as `key`.
    pub fn file(&self, key: &str, uri: &str) -> &'static [u8] {
        match self.find(limine_cfg::strip_boot_uri(uri)) {
            Some(bytes) => bytes,
            None => fail!("{key}={uri}: no such file in the boot archive, limine.cfg needs it"),
        }
    }

    fn find(&self, name: &str) -> Option<&'static [u8]> {
        let name = name.trim_start_matches('/');
        let entries = cpio::entries(self.bytes).filter_map(Result::ok);
        entries.filter(|entry| entry.is_file() && entry.name() == name).last().map(|entry| entry.data)
    }
}

/// Describes the file `bytes` to the kernel. The protocol wants it on a page boundary: where it is not on one in the
/// archive, it is copied.
pub fn describe(memory: &mut PhysicalMemory, uri: &str, command_line: &str, bytes: &'static [u8]) -> File {
    let aligned = (bytes.as_ptr().addr() as u64).is_multiple_of(PAGE_SIZE) && !bytes.is_empty();
    let address = if aligned {
        memory.retype(bytes.as_ptr().addr() as u64, bytes.len() as u64, Kind::ExecutableAndModules);
        direct_map_of(bytes)
    } else {
        let length = bytes.len() as u64;
        let block = memory.take(length, PAGE_SIZE, u64::MAX, Kind::ExecutableAndModules, "a file of the archive");
        block.bytes[..bytes.len()].copy_from_slice(bytes);
        block.direct_map()
    };
    File {
        address,
        size: bytes.len() as u64,
        path: zero_terminated(&format!("/{}", limine_cfg::strip_boot_uri(uri).trim_start_matches('/'))),
        command_line: zero_terminated(command_line),
        ..File::default()
    }
}

/// The direct-map address of `text` as a zero-terminated string, kept for good.
pub fn zero_terminated(text: &str) -> u64 {
    let mut string = String::with_capacity(text.len() + 1);
    string.push_str(text);
    string.push('\0');
    direct_map_of(string.leak())
}

//! A directory of the host as a root file system: every file with its mode, owner and time; hard links, symbolic links, device nodes and
//! named pipes are kept. Used by `run` for ROOT= and by what runs Debian's programs.
//!
//! Sockets are left out: nobody listens behind them. What cannot be read is named.

use crate::archive::{Archive, Meta};
use crate::failure::Failure;
use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Adds files, and remembers those with several names.
#[derive(Default)]
pub struct Packer {
    /// (device, inode) on the host, and the inode in the archive.
    linked: HashMap<(u64, u64), u32>,
}

/// Adds all that is below `dir` to `archive`.
pub fn add(archive: &mut Archive, dir: &Path) -> Result<(), Failure> {
    add_below(archive, dir, "", &mut Packer::default())
}

fn named(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |e| Failure::Usage(format!("{path}: {e}"))
}

fn add_below(archive: &mut Archive, dir: &Path, prefix: &str, packer: &mut Packer) -> Result<(), Failure> {
    let entries = std::fs::read_dir(dir).map_err(named(dir))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(named(dir))?;
    entries.sort_by_key(|e| e.file_name());
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name().into_string();
        let name = name.map_err(|_| Failure::Usage(format!("{}: its name is not UTF-8", path.display())))?;
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        packer.add(archive, &path, &name)?;
        if entry.file_type().map_err(named(&path))?.is_dir() {
            add_below(archive, &path, &name, packer)?;
        }
    }
    Ok(())
}

impl Packer {
    /// Adds the one file at `path` as `name`: of a directory the entry alone.
    pub fn add(&mut self, archive: &mut Archive, path: &Path, name: &str) -> Result<(), Failure> {
        let meta = std::fs::symlink_metadata(path).map_err(named(path))?;
        let kind = meta.file_type();
        if kind.is_symlink() {
            let target = std::fs::read_link(path).map_err(named(path))?;
            archive.entry(name, &meta_of(&meta), target.as_os_str().as_bytes());
        } else if kind.is_file() {
            self.add_file(archive, path, name, &meta).map_err(named(path))?;
        } else if !kind.is_socket() {
            archive.entry(name, &meta_of(&meta), &[]);
        }
        Ok(())
    }

    /// The first name of a file brings its content, further ones are the same inode without it.
    fn add_file(&mut self, archive: &mut Archive, path: &Path, name: &str, meta: &Metadata) -> std::io::Result<()> {
        if u32::try_from(meta.len()).is_err() {
            return Err(std::io::Error::other("4 GiB or more; an archive has no room for its length"));
        }
        let key = (meta.dev(), meta.ino());
        if let Some(&inode) = self.linked.get(&key) {
            archive.entry(name, &Meta { inode: Some(inode), ..meta_of(meta) }, &[]);
            return Ok(());
        }
        let inode = archive.entry(name, &meta_of(meta), &std::fs::read(path)?);
        if meta.nlink() > 1 {
            self.linked.insert(key, inode);
        }
        Ok(())
    }
}

fn meta_of(meta: &Metadata) -> Meta {
    let rdev = meta.rdev();
    Meta {
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        links: u32::try_from(meta.nlink()).unwrap_or(u32::MAX),
        mtime: u32::try_from(meta.mtime()).unwrap_or(0),
        device: (nix::libc::major(rdev), nix::libc::minor(rdev)),
        inode: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kcore::cpio;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_reads_back() {
        let dir =
            crate::interrupt::Scratch::new(std::env::temp_dir().join(format!("root-tree-{}", std::process::id())));
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("etc/deep")).unwrap();
        std::fs::write(at("etc/one"), b"content").unwrap();
        std::fs::set_permissions(at("etc/one"), std::fs::Permissions::from_mode(0o4751)).unwrap();
        std::fs::hard_link(at("etc/one"), at("etc/two")).unwrap();
        symlink("../one", at("etc/deep/link")).unwrap();
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let mut archive = Archive::default();
        add(&mut archive, dir.path()).unwrap();
        let bytes = archive.finish();
        let entries: Vec<_> = cpio::entries(&bytes).map(Result::unwrap).collect();
        let names: Vec<_> = entries.iter().map(|e| e.name().to_string()).collect();
        assert_eq!(names, ["etc", "etc/deep", "etc/deep/link", "etc/one", "etc/two", "pipe"]);
        assert_eq!(entries[2].data, b"../one");
        assert_eq!((entries[3].data, entries[3].mode, entries[3].nlink), (&b"content"[..], 0o104_751, 2));
        assert_eq!((entries[4].data, entries[4].ino), (&b""[..], entries[3].ino));
        assert_ne!(entries[3].ino, entries[2].ino);
        assert_eq!(entries[5].mode, 0o010_400);
        assert!(add(&mut Archive::default(), &at("nowhere")).is_err());
    }
}

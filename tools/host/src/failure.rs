//! How a host command fails: an exit code and one line that names the thing. Used by every command.

use crate::interrupt::Scratch;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// A failure with the exit code that `make help` tells for it.
#[derive(Debug)]
pub enum Failure {
    /// A wrong value, a missing file or tool, a build that does not pass: exit code 2.
    Usage(String),
    /// What another machine has did not come: exit code 2. A scenario that needs it may be skipped.
    Network(String),
    /// The guest ended badly, or a check did not hold: exit code 1.
    Bad(String),
    /// `TIMEOUT` passed: exit code 3.
    TimedOut(String),
}

impl Failure {
    /// The exit code of the process.
    pub fn code(&self) -> u8 {
        match self {
            Failure::Bad(_) => 1,
            Failure::Usage(_) | Failure::Network(_) => 2,
            Failure::TimedOut(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Bad(text) | Failure::Usage(text) | Failure::Network(text) | Failure::TimedOut(text) => {
                f.write_str(text)
            }
        }
    }
}

impl std::error::Error for Failure {}

/// Reads a whole file; the failure names the path.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// Writes a whole file, making its directory first; the failure names the path. A plain file is written under another name first, so
/// that a full disk or a signal leaves what was there before.
pub fn write(path: &Path, data: &[u8]) -> Result<(), Failure> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| unwritten(dir, &e))?;
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf()); // a link stays one
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return std::fs::write(&path, data).map_err(|e| unwritten(&path, &e));
    }
    let part = Scratch::new(path.with_added_extension("part"));
    std::fs::write(part.path(), data)
        .and_then(|()| std::fs::rename(part.path(), &path))
        .map_err(|e| unwritten(&path, &e))
}

/// Fails if nothing more can be written to the end of the file at `path`, so that what another program wrote there may be cut short.
pub fn room_left(path: &Path) -> Result<(), Failure> {
    let probe = || {
        let mut file = std::fs::OpenOptions::new().append(true).open(path)?;
        let len = file.metadata()?.len();
        let written = file.write_all(&[0; 4096]);
        if file.metadata()?.is_file() {
            file.set_len(len)?;
        }
        written
    };
    probe().map_err(|e: std::io::Error| unwritten(path, &e))
}

/// A full disk is a bad end, anything else is for who named the file.
fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    let text = format!("{}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Failure::Bad(text),
        _ => Failure::Usage(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_a_bad_end_and_names_the_file() {
        let full = Path::new("/dev/full");
        for failed in [write(full, b"x").unwrap_err(), room_left(full).unwrap_err()] {
            assert_eq!((failed.code(), failed.to_string().contains("/dev/full: No space left")), (1, true), "{failed}");
        }
        assert_eq!(write(Path::new("/proc/no-such/file"), b"x").unwrap_err().code(), 2);
    }

    #[test]
    fn files_are_replaced_links_and_devices_stay() {
        let folder = std::env::temp_dir().join(format!("quiesce-write-test-{}", std::process::id()));
        let (file, link) = (folder.join("a/file"), folder.join("link"));
        write(&file, b"one").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, b"two").unwrap();
        room_left(&file).unwrap();
        assert!(link.is_symlink() && std::fs::read(&file).unwrap() == b"two");
        assert_eq!(std::fs::read_dir(folder.join("a")).unwrap().count(), 1);
        write(Path::new("/dev/null"), b"x").unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

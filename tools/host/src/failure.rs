//! How a host command fails: an exit code and one line that names the thing. Used by every command.

use crate::interrupt::Scratch;
use std::fmt;

/// A failure with the exit code that `make help` tells for it.
#[derive(Debug)]
pub enum Failure {
    /// A wrong value, a missing file or tool, a build that does not pass: exit code 2.
    Usage(String),
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
            Failure::Usage(_) => 2,
            Failure::TimedOut(_) => 3,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Bad(text) | Failure::Usage(text) | Failure::TimedOut(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// Reads a whole file; the failure names the path.
pub fn read(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// Writes a whole file under another name first, so that a full disk or a signal leaves what was there before.
pub fn replace(path: &std::path::Path, data: &[u8]) -> Result<(), Failure> {
    let part = Scratch::new(path.with_added_extension("part"));
    write(part.path(), data)?;
    std::fs::rename(part.path(), path).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// Writes a whole file, making its directory first; the failure names the path.
pub fn write(path: &std::path::Path, data: &[u8]) -> Result<(), Failure> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| Failure::Usage(format!("{}: {e}", dir.display())))?;
    }
    std::fs::write(path, data).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

//! A file for a guest's second serial port, which goes with this value. For scenarios that trace.

use std::path::{Path, PathBuf};

/// The file's path; nothing may be there yet.
pub struct TraceFile(PathBuf);

impl TraceFile {
    /// One whose name has `name` in it, which no other scenario of the same program uses.
    pub fn new(name: &str) -> TraceFile {
        TraceFile(std::env::temp_dir().join(format!("quiesce-trace-{}-{name}", std::process::id())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // it may never have been made
    }
}

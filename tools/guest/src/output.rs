//! Standard output and standard error of the programs: collected text, few writes, no panic when nobody reads.
//!
//! A reader that went away ends the program quietly with status 141, as SIGPIPE would.

use crate::linux;
use std::fmt;

/// Text for standard output, written when flushed, when large and when dropped.
#[derive(Debug, Default)]
pub struct Output {
    text: String,
}

/// Written out before more than this many bytes are held.
const HELD_BYTES: usize = 16 * 1024;

impl Output {
    /// Nothing collected yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line; the newline is added here.
    pub fn line(&mut self, line: impl fmt::Display) {
        self.put(format_args!("{line}\n"));
    }

    /// Adds text as it is.
    pub fn put(&mut self, text: impl fmt::Display) {
        use fmt::Write;
        if write!(self.text, "{text}").is_err() || self.text.len() > HELD_BYTES {
            self.flush();
        }
    }

    /// Writes everything that is held.
    pub fn flush(&mut self) {
        write_out(self.text.as_bytes());
        self.text.clear();
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes all of `bytes` to standard output; ends the program when that cannot work any more.
pub fn write_out(bytes: &[u8]) {
    match linux::write_all(1, bytes) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EPIPE) => linux::exit_now(141),
        Err(error) => {
            complain("write", &describe(&error));
            linux::exit_now(1)
        }
    }
}

/// One error line, `name: text`, on standard error. A failure to write it is dropped: there is nowhere left to say it.
pub fn complain(name: &str, text: &str) {
    let _ = linux::write_all(2, format!("{name}: {text}\n").as_bytes());
}

/// The text of an error without Rust's `(os error N)`.
pub fn describe(error: &std::io::Error) -> String {
    let text = error.to_string();
    match (error.raw_os_error(), text.find(" (os error")) {
        (Some(_), Some(end)) => text[..end].to_string(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_without_their_number() {
        let text = describe(&std::io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(text, "No such file or directory");
        assert_eq!(describe(&std::io::Error::other("odd")), "odd");
    }
}

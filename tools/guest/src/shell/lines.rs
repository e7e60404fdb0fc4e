//! Where the shell's lines come from: a descriptor or a text. Called by the shell's main loop alone.
//!
//! A terminal gives a line per read. From anything else single bytes are read, so that a program started by a line finds the next lines unread.

use crate::linux;
use std::io::Error;

/// What the next read gave.
pub enum Line {
    /// A line without its newline.
    Text(String),
    /// No more lines.
    End,
    /// Reading failed.
    Broken(Error),
}

/// A source of lines.
pub struct Lines {
    fd: Option<i32>,
    held: Vec<u8>,
    step: usize,
}

impl Lines {
    /// The lines of `text`.
    pub fn of_text(text: &str) -> Self {
        Self { fd: None, held: text.as_bytes().to_vec(), step: 0 }
    }

    /// The lines that come from the open descriptor `fd`.
    pub fn of_file(fd: i32) -> Self {
        let step = if fd == 0 && !linux::is_terminal(0) { 1 } else { 4096 };
        Self { fd: Some(fd), held: Vec::new(), step }
    }

    /// The next line.
    pub fn next(&mut self) -> Line {
        loop {
            if let Some(end) = self.held.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                return Line::Text(String::from_utf8_lossy(&line[..end]).trim_end_matches('\r').to_string());
            }
            let mut buffer = vec![0; self.step];
            match self.fd.map_or(Ok(0), |fd| linux::read(fd, &mut buffer)) {
                Ok(0) if self.held.is_empty() => return Line::End,
                Ok(0) => self.held.push(b'\n'),
                Ok(count) => self.held.extend_from_slice(&buffer[..count]),
                // Ctrl-C at the prompt: the terminal has dropped its part of the line, so has the shell.
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => self.held.clear(),
                Err(error) => return Line::Broken(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut lines: Lines) -> Vec<String> {
        let mut got = Vec::new();
        while let Line::Text(line) = lines.next() {
            got.push(line);
        }
        got
    }

    #[test]
    fn a_text_without_newline_at_its_end_is_whole() {
        assert_eq!(all(Lines::of_text("a\n\nb\r\nc")), ["a", "", "b", "c"]);
        assert!(all(Lines::of_text("")).is_empty());
    }

    #[test]
    fn lines_from_a_pipe() {
        let (read, write) = linux::pipe().unwrap();
        linux::write_all(write, b"first\nsecond").unwrap();
        linux::close(write);
        assert_eq!(all(Lines::of_file(read)), ["first", "second"]);
        linux::close(read);
    }
}

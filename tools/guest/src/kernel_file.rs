//! The kernel's files: where they are and how they are read. Called by all programs that ask the kernel something.
//!
//! QUIESCE_ROOT in the environment (empty if unset) stands before every path, so that tests can give files of their own.

use crate::entry::Failure;
use crate::linux;
use crate::output::describe;
use std::ffi::c_int;

/// Where the kernel keeps what Linux has not.
pub const QUIESCE: &str = "/sys/kernel/quiesce";

/// What stands before every path of a kernel file; empty on the real system.
pub fn root() -> String {
    std::env::var("QUIESCE_ROOT").unwrap_or_default()
}

/// The whole content of the kernel file `path`. Bytes that are not UTF-8 are replaced.
pub fn read(path: &str) -> Result<String, Failure> {
    let file = open(path, libc::O_RDONLY)?;
    file.read_all()
}

/// The content of one of our own files, by its path below /sys/kernel/quiesce.
pub fn read_quiesce(path: &str) -> Result<String, Failure> {
    read(&format!("{QUIESCE}/{path}"))
}

/// Writes `text` to the kernel file `path` in one write.
pub fn write(path: &str, text: &str) -> Result<(), Failure> {
    let file = open(path, libc::O_WRONLY)?;
    linux::write_all(file.fd, text.as_bytes()).map_err(|error| file.failure(&error))
}

/// Opens the kernel file `path` with Linux's `flags`.
pub fn open(path: &str, flags: c_int) -> Result<KernelFile, Failure> {
    let path = format!("{}{path}", root());
    match linux::open(&path, flags, 0) {
        Ok(fd) => Ok(KernelFile { fd, path }),
        Err(error) => Err(Failure::new(format!("{path}: {}", describe(&error)))),
    }
}

/// An open kernel file; closed when dropped.
#[derive(Debug)]
pub struct KernelFile {
    fd: c_int,
    path: String,
}

/// What one read of a kernel file gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Text; whole lines from the files that promise it.
    Text(String),
    /// End of the file.
    End,
    /// Nothing at present (EAGAIN of a file opened with O_NONBLOCK).
    Nothing,
    /// Records were lost before they were read (EPIPE, as Linux's /dev/kmsg says it); read on.
    Lost,
}

impl KernelFile {
    /// Writes all of `text`; the kernel's own error if it refuses.
    pub fn write(&self, text: &str) -> std::io::Result<()> {
        linux::write_all(self.fd, text.as_bytes())
    }

    /// The page of CPU `cpu`'s lease, of the file that has them.
    pub fn lease_page(&self, cpu: u32) -> std::io::Result<&'static kcore::lease_page::LeasePage> {
        linux::lease_page(self.fd, cpu)
    }

    /// The path with the root before it, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads once, up to 64 KiB; repeats after EINTR.
    pub fn read_some(&self) -> Result<Read, Failure> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            return match linux::read(self.fd, &mut buffer) {
                Ok(0) => Ok(Read::End),
                Ok(count) => Ok(Read::Text(String::from_utf8_lossy(&buffer[..count]).into_owned())),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => continue,
                    Some(libc::EAGAIN) => Ok(Read::Nothing),
                    Some(libc::EPIPE) => Ok(Read::Lost),
                    _ => Err(self.failure(&error)),
                },
            };
        }
    }

    /// Reads until the end of the file or until there is nothing at present.
    pub fn read_all(&self) -> Result<String, Failure> {
        let mut text = Vec::new();
        let mut buffer = vec![0; 8 * 1024];
        loop {
            match linux::read(self.fd, &mut buffer) {
                Ok(0) => break,
                Ok(count) => text.extend_from_slice(&buffer[..count]),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EPIPE) => {}
                    Some(libc::EAGAIN) => break,
                    _ => return Err(self.failure(&error)),
                },
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn failure(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("{}: {}", self.path, describe(error)))
    }
}

impl Drop for KernelFile {
    fn drop(&mut self) {
        linux::close(self.fd);
    }
}

/// Rate of the time stamp counter in kHz, as the kernel says it.
pub fn tsc_khz() -> Result<u64, Failure> {
    let text = read_quiesce("tsc_khz")?;
    match text.trim().parse() {
        Ok(khz) if khz > 0 => Ok(khz),
        _ => Err(Failure::new(format!("{QUIESCE}/tsc_khz: not a rate: {:?}", text.trim()))),
    }
}

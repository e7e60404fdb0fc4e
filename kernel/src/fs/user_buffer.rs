//! User memory that a read fills or a write empties: one stretch or several (readv, writev), taken from front to back.
//!
//! Process context; no lock may be held across a transfer, because a page may have to be brought in. `kernel` buffers are
//! for sendfile.

use crate::errno::{self, Errno};
use crate::mm::user_copy;

/// One stretch of user memory.
#[derive(Clone, Copy, Default)]
pub struct Stretch {
    /// First byte.
    pub at: u64,
    /// Bytes.
    pub len: usize,
}

/// The stretches that are left.
pub struct UserBuffer<'a> {
    first: Stretch,
    more: &'a [Stretch],
    /// A kernel buffer to write from, instead of user memory.
    kernel: &'a [u8],
    left: usize,
}

impl UserBuffer<'static> {
    /// `len` bytes at user address `at`. Checked when used.
    #[inline]
    pub const fn new(at: u64, len: usize) -> Self {
        Self { first: Stretch { at, len }, more: &[], kernel: &[], left: len }
    }
}

impl<'a> UserBuffer<'a> {
    /// Several stretches; their lengths do not add up beyond usize (the caller checked).
    pub fn of(stretches: &'a [Stretch]) -> Self {
        let left = stretches.iter().map(|s| s.len).sum();
        Self { first: Stretch::default(), more: stretches, kernel: &[], left }
    }

    /// A kernel buffer, to be written from only.
    pub fn kernel(bytes: &'a [u8]) -> Self {
        Self { first: Stretch::default(), more: &[], kernel: bytes, left: bytes.len() }
    }

    /// Bytes left.
    #[inline]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Where the next bytes lie: address and how many are contiguous.
    fn next(&mut self) -> (u64, usize) {
        while self.first.len == 0 {
            match self.more.split_first() {
                Some((first, more)) => (self.first, self.more) = (*first, more),
                None => return (0, 0),
            }
        }
        (self.first.at, self.first.len.min(self.left))
    }

    #[inline]
    fn advance(&mut self, n: usize) {
        self.first.at += n as u64;
        self.first.len -= n;
        self.left -= n;
    }

    /// Copy `bytes` out, as far as there is room: how many. A fault after some bytes gives that many.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if bytes.len() <= self.first.len {
            user_copy::write_bytes(self.first.at, bytes)?;
            self.advance(bytes.len());
            return Ok(bytes.len());
        }
        self.put_parts(bytes)
    }

    #[cold]
    fn put_parts(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < bytes.len() {
            let (at, room) = self.next();
            let n = room.min(bytes.len() - done);
            if n == 0 {
                break;
            }
            if user_copy::write_bytes(at, &bytes[done..done + n]).is_err() {
                return if done > 0 { Ok(done) } else { Err(errno::EFAULT) };
            }
            self.advance(n);
            done += n;
        }
        Ok(done)
    }

    /// Copy in, as far as there are bytes: how many. All or EFAULT within what is there.
    #[inline(always)]
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        if self.left == self.first.len && self.left <= bytes.len() {
            let n = self.left;
            user_copy::read_bytes(self.first.at, &mut bytes[..n])?;
            self.advance(n);
            return Ok(n);
        }
        self.take_parts(bytes)
    }

    #[cold]
    fn take_parts(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        if !self.kernel.is_empty() {
            let n = bytes.len().min(self.kernel.len());
            bytes[..n].copy_from_slice(&self.kernel[..n]);
            self.kernel = &self.kernel[n..];
            self.left -= n;
            return Ok(n);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (at, there) = self.next();
            let n = there.min(bytes.len() - done);
            if n == 0 {
                break;
            }
            user_copy::read_bytes(at, &mut bytes[done..done + n])?;
            self.advance(n);
            done += n;
        }
        Ok(done)
    }
}

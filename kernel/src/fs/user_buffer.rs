//! User memory that a read fills or a write empties: one stretch or several (readv, writev), taken from front to back.
//!
//! Process context; no lock may be held across a transfer, because a page may have to be brought in. `kernel` buffers are
//! for sendfile.

use crate::errno::{self, Errno};
use crate::mm::user_copy::UserRange;

/// The stretches that are left.
pub struct UserBuffer<'a> {
    first: UserRange,
    rest: Rest<'a>,
    /// Of all together.
    left: usize,
}

/// What comes after the first stretch.
enum Rest<'a> {
    /// Further ones.
    User(&'a [UserRange]),
    /// A kernel buffer to write from; nothing comes before it.
    Kernel(&'a [u8]),
}

impl UserBuffer<'static> {
    /// One stretch.
    #[inline(always)]
    pub const fn new(range: UserRange) -> Self {
        Self { first: range, rest: Rest::User(&[]), left: range.len() }
    }
}

impl<'a> UserBuffer<'a> {
    /// Several stretches; their lengths do not add up beyond usize (the caller checked).
    pub fn of(stretches: &'a [UserRange]) -> Self {
        let left = stretches.iter().map(|s| s.len()).sum();
        Self { first: UserRange::default(), rest: Rest::User(stretches), left }
    }

    /// A kernel buffer, to be written from only.
    pub fn kernel(bytes: &'a [u8]) -> Self {
        Self { first: UserRange::default(), rest: Rest::Kernel(bytes), left: bytes.len() }
    }

    /// Bytes left.
    #[inline(always)]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Whether there is a first stretch with bytes in it, which the next ones are then.
    fn has_first(&mut self) -> bool {
        while self.first.len() == 0 {
            match self.rest {
                Rest::User([first, more @ ..]) => (self.first, self.rest) = (*first, Rest::User(more)),
                _ => return false,
            }
        }
        true
    }

    /// Copy `bytes` out, as far as there is room: how many. A fault after some bytes gives that many.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if bytes.len() <= self.first.len() {
            self.first.write_front(bytes)?;
            self.left -= bytes.len();
            return Ok(bytes.len());
        }
        self.put_parts(bytes)
    }

    #[cold]
    fn put_parts(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        let mut done = 0;
        while done < bytes.len() && self.has_first() {
            let n = self.first.len().min(bytes.len() - done);
            if self.first.write_front(&bytes[done..done + n]).is_err() {
                return if done > 0 { Ok(done) } else { Err(errno::EFAULT) };
            }
            self.left -= n;
            done += n;
        }
        Ok(done)
    }

    /// Copy in, as far as there are bytes: how many. All or EFAULT within what is there.
    #[inline(always)]
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        let n = self.left;
        if n == self.first.len() && n <= bytes.len() {
            self.first.read_front(&mut bytes[..n])?;
            self.left = 0;
            return Ok(n);
        }
        self.take_parts(bytes)
    }

    #[cold]
    fn take_parts(&mut self, bytes: &mut [u8]) -> Result<usize, Errno> {
        if let Rest::Kernel(from) = self.rest {
            let n = bytes.len().min(from.len());
            bytes[..n].copy_from_slice(&from[..n]);
            self.rest = Rest::Kernel(&from[n..]);
            self.left -= n;
            return Ok(n);
        }
        let mut done = 0;
        while done < bytes.len() && self.has_first() {
            let n = self.first.len().min(bytes.len() - done);
            self.first.read_front(&mut bytes[done..done + n])?;
            self.left -= n;
            done += n;
        }
        Ok(done)
    }
}

//! A queue of bytes that grows up to a limit: what a pipe holds.
//!
//! Called by the pipe under its lock. Memory grows by doubling and is kept; growing is the only allocation. Invariant: bytes come out
//! in the order in which they went in.

use alloc::vec::Vec;

/// What a ring has at least once it holds something.
const FIRST: usize = 4096;

/// The queue.
#[derive(Debug)]
pub struct ByteRing {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    limit: usize,
}

impl ByteRing {
    /// An empty queue for at most `limit` bytes, a power of two.
    pub const fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), start: 0, len: 0, limit }
    }

    /// Bytes held.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit.
    #[inline]
    pub const fn room(&self) -> usize {
        self.limit - self.len
    }

    #[cold]
    fn grow(&mut self, wanted: usize) {
        let size = wanted.next_power_of_two().clamp(FIRST.min(self.limit), self.limit);
        let mut bigger = Vec::new();
        if bigger.try_reserve_exact(size).is_err() {
            return;
        }
        bigger.resize(size, 0);
        let len = self.len;
        self.pop_into(&mut bigger[..len]);
        (self.bytes, self.start, self.len) = (bigger, 0, len);
    }

    /// Add as many of `bytes` as fit (fewer without memory): how many.
    #[inline(always)]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let wanted = self.len + bytes.len().min(self.room());
        if wanted > self.bytes.len() {
            self.grow(wanted);
        }
        let n = bytes.len().min(self.bytes.len() - self.len);
        if n == 0 {
            return 0;
        }
        let at = (self.start + self.len) & (self.bytes.len() - 1);
        let first = n.min(self.bytes.len() - at);
        copy(&bytes[..first], &mut self.bytes[at..at + first]);
        if first < n {
            copy(&bytes[first..n], &mut self.bytes[..n - first]);
        }
        self.len += n;
        n
    }

    #[inline]
    fn pop_into(&mut self, out: &mut [u8]) {
        let n = out.len();
        if n == 0 {
            return;
        }
        let first = n.min(self.bytes.len() - self.start);
        copy(&self.bytes[self.start..self.start + first], &mut out[..first]);
        if first < n {
            copy(&self.bytes[..n - first], &mut out[first..]);
        }
        self.start = (self.start + n) & (self.bytes.len() - 1);
        self.len -= n;
    }

    /// Take the oldest bytes: how many.
    #[inline]
    pub fn pop(&mut self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.len);
        self.pop_into(&mut out[..n]);
        n
    }
}

/// Copy between slices of one length. A byte or two is what programs that wake each other send: no call for that.
#[inline]
fn copy(from: &[u8], to: &mut [u8]) {
    match (from, to) {
        ([a], [b]) => *b = *a,
        (from, to) => to.copy_from_slice(from),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Against a plain queue, over all sizes around the steps of growth; the generator is fixed.
    #[test]
    fn behaves_as_a_queue_with_a_limit() {
        const LIMIT: usize = 16384;
        let mut ring = ByteRing::new(LIMIT);
        let mut model = VecDeque::new();
        let (mut seed, mut next) = (1u64, 0u8);
        for _ in 0..if cfg!(miri) { 30 } else { 4000 } {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let size = (seed >> 33) as usize % 5000;
            if seed >> 63 == 0 || model.is_empty() {
                let bytes: Vec<u8> = (0..size).map(|i| next.wrapping_add(i as u8)).collect();
                let n = ring.push(&bytes);
                assert_eq!(n, size.min(LIMIT - model.len()));
                next = next.wrapping_add(n as u8);
                model.extend(&bytes[..n]);
            } else {
                let mut out = vec![0; size];
                let n = ring.pop(&mut out);
                assert_eq!(n, size.min(model.len()));
                assert!(out[..n].iter().eq(model.drain(..n).collect::<Vec<_>>().iter()));
            }
            assert_eq!((ring.len(), ring.room()), (model.len(), LIMIT - model.len()));
        }
    }

    #[test]
    fn a_full_ring_takes_nothing_and_an_empty_one_gives_nothing() {
        let mut ring = ByteRing::new(4096);
        assert_eq!((ring.pop(&mut [0; 8]), ring.push(&[7; 5000]), ring.push(&[1])), (0, 4096, 0));
        let mut out = [0; 1];
        assert_eq!((ring.pop(&mut out), out, ring.room()), (1, [7], 1));
    }
}

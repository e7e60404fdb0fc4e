//! A queue of bytes that grows up to a limit: what a pipe holds.
//!
//! Called by the pipe under its lock. Memory grows by doubling and is kept; growing is the only allocation. Invariant: bytes come out
//! in the order in which they went in.

use alloc::vec::Vec;

/// What a ring has at least once it holds something.
const FIRST: usize = 4096;

/// What goes in and out in one step at most.
pub const WORD: usize = 8;
/// So many bytes.
pub type Word = [u8; WORD];

/// The queue. Places in it are 32 bits wide: then sums of two need no look for an overflow.
#[derive(Debug)]
pub struct ByteRing {
    bytes: Vec<u8>,
    start: u32,
    len: u32,
    limit: u32,
}

impl ByteRing {
    /// An empty queue for at most `limit` bytes, a power of two.
    pub const fn new(limit: u32) -> Self {
        Self { bytes: Vec::new(), start: 0, len: 0, limit }
    }

    /// Bytes held.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing is held.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that fit.
    #[inline]
    pub const fn room(&self) -> usize {
        (self.limit - self.len) as usize
    }

    /// The place of byte `n` of what is held and behind it; there is memory.
    #[inline(always)]
    fn place(&self, n: usize) -> usize {
        (self.start as usize + n) & (self.bytes.len() - 1)
    }

    #[cold]
    fn grow(&mut self, wanted: usize) {
        let limit = self.limit as usize;
        let size = wanted.next_power_of_two().clamp(FIRST.min(limit), limit);
        let mut bigger = Vec::new();
        if bigger.try_reserve_exact(size).is_err() {
            return;
        }
        bigger.resize(size, 0);
        let len = self.len;
        self.pop_into(&mut bigger[..len as usize]);
        (self.bytes, self.start, self.len) = (bigger, 0, len);
    }

    /// Add as many of `bytes` as fit (fewer without memory): how many.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let len = self.len();
        let wanted = len + bytes.len().min(self.room());
        if wanted > self.bytes.len() {
            self.grow(wanted);
        }
        let n = bytes.len().min(self.bytes.len() - len);
        if n == 0 {
            return 0;
        }
        let at = self.place(len);
        let first = n.min(self.bytes.len() - at);
        self.bytes[at..at + first].copy_from_slice(&bytes[..first]);
        self.bytes[..n - first].copy_from_slice(&bytes[first..n]);
        self.len += n as u32;
        n
    }

    /// Add the first `n` of `word`, where they need neither more memory nor two pieces: whether it did. What is behind them is stored too, where
    /// nothing is held.
    #[inline(always)]
    pub fn push_word(&mut self, word: Word, n: usize) -> bool {
        let len = self.len();
        if len + WORD > self.bytes.len() || n > WORD {
            return false;
        }
        let at = self.place(len) as u32 as usize;
        let Some(place) = self.bytes.get_mut(at..at + WORD) else { return false };
        place.copy_from_slice(&word);
        self.len += n as u32;
        true
    }

    /// Take the oldest bytes, at most `most` and a word, where they lie in one piece: with how many of them count.
    #[inline(always)]
    pub fn pop_word(&mut self, most: usize) -> Option<(Word, usize)> {
        let start = self.start as usize;
        let word = *self.bytes.get(start..start + WORD)?.first_chunk()?;
        let n = self.len().min(most).min(WORD);
        self.start = self.place(n) as u32;
        self.len -= n as u32;
        Some((word, n))
    }

    fn pop_into(&mut self, out: &mut [u8]) {
        let n = out.len();
        if n == 0 {
            return;
        }
        let start = self.start as usize;
        let first = n.min(self.bytes.len() - start);
        out[..first].copy_from_slice(&self.bytes[start..start + first]);
        out[first..].copy_from_slice(&self.bytes[..n - first]);
        self.start = self.place(n) as u32;
        self.len -= n as u32;
    }

    /// Take the oldest bytes: how many.
    pub fn pop(&mut self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.len());
        self.pop_into(&mut out[..n]);
        n
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Over all sizes around the steps of growth.
    #[test]
    fn behaves_as_a_queue_with_a_limit() {
        against_a_plain_queue(16384, 5000);
    }

    /// Most words come to the end of the memory.
    #[test]
    fn words_go_round() {
        against_a_plain_queue(16, 20);
    }

    /// The generator is fixed.
    fn against_a_plain_queue(limit: usize, sizes: usize) {
        let mut ring = ByteRing::new(limit as u32);
        let mut model = VecDeque::new();
        let (mut seed, mut next) = (1u64, 0u8);
        for _ in 0..if cfg!(miri) { 30 } else { 4000 } {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let size = (seed >> 33) as usize % sizes;
            let few = size % (WORD + 2);
            if seed >> 61 & 3 == 0 {
                let word: Word = std::array::from_fn(|i| next.wrapping_add(i as u8));
                if ring.push_word(word, few) {
                    assert!(few <= WORD && model.len() + few <= limit);
                    model.extend(&word[..few]);
                    next = next.wrapping_add(few as u8);
                }
            } else if seed >> 61 & 3 == 1 {
                if let Some((word, n)) = ring.pop_word(few) {
                    assert_eq!(n, few.min(WORD).min(model.len()));
                    assert!(word[..n].iter().eq(model.drain(..n).collect::<Vec<_>>().iter()));
                }
            } else if seed >> 63 == 0 || model.is_empty() {
                let bytes: Vec<u8> = (0..size).map(|i| next.wrapping_add(i as u8)).collect();
                let n = ring.push(&bytes);
                assert_eq!(n, size.min(limit - model.len()));
                next = next.wrapping_add(n as u8);
                model.extend(&bytes[..n]);
            } else {
                let mut out = vec![0; size];
                let n = ring.pop(&mut out);
                assert_eq!(n, size.min(model.len()));
                assert!(out[..n].iter().eq(model.drain(..n).collect::<Vec<_>>().iter()));
            }
            assert_eq!((ring.len(), ring.room()), (model.len(), limit - model.len()));
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

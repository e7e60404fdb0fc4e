//! Bytes on their way from the serial interrupt to the console's thread: one producer, one consumer at a time, no lock, no allocation.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const SIZE: usize = 4096;

/// The ring.
pub struct InputRing {
    bytes: [AtomicU8; SIZE],
    /// Bytes ever put in.
    head: AtomicUsize,
    /// Bytes ever taken out.
    tail: AtomicUsize,
}

impl InputRing {
    /// Nothing in it.
    pub const fn new() -> Self {
        Self { bytes: [const { AtomicU8::new(0) }; SIZE], head: AtomicUsize::new(0), tail: AtomicUsize::new(0) }
    }

    /// Whether no byte fits. Producer.
    pub fn is_full(&self) -> bool {
        self.head.load(Ordering::Relaxed) - self.tail.load(Ordering::Acquire) == SIZE
    }

    /// Add a byte; the caller asked `is_full`. Producer.
    pub fn push(&self, byte: u8) {
        let head = self.head.load(Ordering::Relaxed);
        self.bytes[head % SIZE].store(byte, Ordering::Relaxed);
        self.head.store(head + 1, Ordering::Release);
    }

    /// Whether there is nothing to take.
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire) == self.tail.load(Ordering::Relaxed)
    }

    /// The oldest byte. Consumer.
    pub fn pop(&self) -> Option<u8> {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail == self.head.load(Ordering::Acquire) {
            return None;
        }
        let byte = self.bytes[tail % SIZE].load(Ordering::Relaxed);
        self.tail.store(tail + 1, Ordering::Release);
        Some(byte)
    }

    /// Whether one of `wanted` is among the bytes. Consumer.
    pub fn contains(&self, wanted: &[u8]) -> bool {
        let head = self.head.load(Ordering::Acquire);
        (self.tail.load(Ordering::Relaxed)..head)
            .any(|i| wanted.contains(&self.bytes[i % SIZE].load(Ordering::Relaxed)))
    }
}

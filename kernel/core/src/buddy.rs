//! Buddy allocator of page frames: powers of two, free blocks in lists linked by index through caller-owned storage.
//!
//! The caller serialises (`mm::frame` holds a lock). Invariants: a frame is in at most one free block; the head frame of a
//! free block carries its order; buddies of one order are never both free. Source: Knuth, TAOCP vol. 1, 2.5.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Largest order: 2^12 frames = 16 MiB.
pub const MAX_ORDER: u32 = 12;
const NIL: u32 = u32::MAX;
const FREE: u32 = 1 << 31;

/// What the kernel keeps of every frame. While allocated, `word` is the number of users.
#[derive(Debug)]
pub struct FrameInfo {
    next: AtomicU32,
    prev: AtomicU32,
    word: AtomicU32,
}

impl FrameInfo {
    /// A frame that nobody owns yet: neither free nor allocated.
    pub const fn new() -> Self {
        Self { next: AtomicU32::new(NIL), prev: AtomicU32::new(NIL), word: AtomicU32::new(0) }
    }

    /// Users of an allocated frame.
    #[inline]
    pub fn users(&self) -> u32 {
        self.word.load(Relaxed)
    }

    /// One more user (fork shares it).
    #[inline]
    pub fn share(&self) {
        self.word.fetch_add(1, Relaxed);
    }

    /// No users any more, whatever there were: the frame is on its way back.
    #[inline]
    pub fn disown(&self) {
        self.word.store(0, Relaxed);
    }

    /// One user less; true if it was the last: the caller frees the frame.
    #[inline]
    pub fn unshare(&self) -> bool {
        self.word.fetch_sub(1, core::sync::atomic::Ordering::AcqRel) == 1
    }
}

impl Default for FrameInfo {
    fn default() -> Self {
        Self::new()
    }
}

/// The free lists.
#[derive(Debug)]
pub struct Buddy {
    heads: [u32; MAX_ORDER as usize + 1],
    free: u64,
}

impl Default for Buddy {
    fn default() -> Self {
        Self::new()
    }
}

impl Buddy {
    /// No frames.
    pub const fn new() -> Self {
        Self { heads: [NIL; MAX_ORDER as usize + 1], free: 0 }
    }

    /// Free frames.
    pub fn free_frames(&self) -> u64 {
        self.free
    }

    fn push(&mut self, store: &[FrameInfo], at: u32, order: u32) {
        let head = self.heads[order as usize];
        let info = &store[at as usize];
        info.next.store(head, Relaxed);
        info.prev.store(NIL, Relaxed);
        info.word.store(FREE | order, Relaxed);
        if head != NIL {
            store[head as usize].prev.store(at, Relaxed);
        }
        self.heads[order as usize] = at;
    }

    fn unlink(&mut self, store: &[FrameInfo], at: u32, order: u32) {
        let info = &store[at as usize];
        let (next, prev) = (info.next.load(Relaxed), info.prev.load(Relaxed));
        if prev == NIL {
            self.heads[order as usize] = next;
        } else {
            store[prev as usize].next.store(next, Relaxed);
        }
        if next != NIL {
            store[next as usize].prev.store(prev, Relaxed);
        }
        info.word.store(0, Relaxed);
    }

    /// Give the frames `start..end` to the allocator (boot). Frames beyond the storage are left out.
    pub fn add_range(&mut self, store: &[FrameInfo], start: u32, end: u32) {
        let end = end.min(store.len() as u32);
        let mut at = start;
        while at < end {
            let mut order = at.trailing_zeros().min(MAX_ORDER);
            while at as u64 + (1u64 << order) > end as u64 {
                order -= 1;
            }
            self.push(store, at, order);
            self.free += 1 << order;
            at += 1 << order;
        }
    }

    /// 2^order frames, the first one's number; it has one user.
    #[inline]
    pub fn alloc(&mut self, store: &[FrameInfo], order: u32) -> Option<u32> {
        let mut from = order;
        while from <= MAX_ORDER && self.heads[from as usize] == NIL {
            from += 1;
        }
        if from > MAX_ORDER {
            return None;
        }
        let at = self.heads[from as usize];
        self.unlink(store, at, from);
        while from > order {
            from -= 1;
            self.push(store, at + (1 << from), from);
        }
        store[at as usize].word.store(1, Relaxed);
        self.free -= 1 << order;
        Some(at)
    }

    /// Take back what `alloc` gave, merging buddies.
    #[inline]
    pub fn free(&mut self, store: &[FrameInfo], mut at: u32, mut order: u32) {
        self.free += 1 << order;
        store[at as usize].word.store(0, Relaxed);
        while order < MAX_ORDER {
            let buddy = at ^ (1 << order);
            match store.get(buddy as usize) {
                Some(b) if b.word.load(Relaxed) == FREE | order => self.unlink(store, buddy, order),
                _ => break,
            }
            at &= !(1 << order);
            order += 1;
        }
        self.push(store, at, order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn store(n: usize) -> Vec<FrameInfo> {
        (0..n).map(|_| FrameInfo::new()).collect()
    }

    #[test]
    fn merges_back_to_the_whole() {
        let whole: u32 = if cfg!(miri) { 64 } else { 2048 };
        let s = store(whole as usize);
        let mut b = Buddy::new();
        b.add_range(&s, 3, whole);
        assert_eq!(b.free_frames(), whole as u64 - 3);
        let got: Vec<u32> = core::iter::from_fn(|| b.alloc(&s, 0)).collect();
        assert_eq!(got.len(), whole as usize - 3);
        for f in got {
            b.free(&s, f, 0);
        }
        let upper_half = (whole / 2).trailing_zeros().min(MAX_ORDER);
        assert!(b.alloc(&s, upper_half).is_some(), "the upper half is one block again");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 128 }, failure_persistence: None, ..Default::default() })]
        #[test]
        fn never_hands_out_a_frame_twice(ops in proptest::collection::vec((any::<bool>(), 0u32..5), 1..200)) {
            let s = store(256);
            let mut b = Buddy::new();
            b.add_range(&s, 0, 200);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (take, x) in ops {
                if take {
                    if let Some(at) = b.alloc(&s, x) {
                        prop_assert!(at % (1 << x) == 0 && at + (1 << x) <= 200);
                        for &(h, o) in &held {
                            prop_assert!(at + (1 << x) <= h || h + (1 << o) <= at);
                        }
                        held.push((at, x));
                    }
                } else if !held.is_empty() {
                    let (at, o) = held.swap_remove(x as usize % held.len());
                    b.free(&s, at, o);
                }
                let out: u64 = held.iter().map(|&(_, o)| 1u64 << o).sum();
                prop_assert_eq!(b.free_frames() + out, 200);
            }
        }
    }
}

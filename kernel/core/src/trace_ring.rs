//! One CPU's trace ring: the CPU writes and never waits, one reader elsewhere follows and counts what it lost.
//!
//! Producer: the owning CPU, in any context, NMIs nested in NMIs included; there is one per ring, so no
//! atomic is shared between the producers of two CPUs. Consumer: one [`Cursor`] at a time per reader, any CPU.
//! Invariants:
//! 1. Slot `n % SLOTS` holds record `n`. Its sequence is `2n + 1` while record n is written, `2n + 2` after.
//! 2. `head` counts reserved records. A record is overwritten only when `head` says so.
//! 3. `open` is 0, or 1 + a number not above the oldest record in the making. A nested producer drops its
//!    record rather than lap that one, so two producers never write one slot at once; drops are counted.
//! 4. What a reader was given plus what it was told as lost is what was pushed, less what is still unread.
//!
//! SLOTS is a power of two.

use crate::atomics::{AtomicU64, Ordering, fence};

/// The first slot starts a cache line, so that slots of seven words never share one.
#[derive(Debug)]
#[repr(align(64))]
struct Slots<const WORDS: usize, const SLOTS: usize>([Slot<WORDS>; SLOTS]);

#[derive(Debug)]
struct Slot<const WORDS: usize> {
    seq: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The ring: `SLOTS` records of `WORDS` words.
#[derive(Debug)]
pub struct TraceRing<const WORDS: usize, const SLOTS: usize> {
    head: AtomicU64,
    open: AtomicU64,
    dropped: AtomicU64,
    slots: Slots<WORDS, SLOTS>,
}

/// A place in `push` at which an NMI may nest; for tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushStep {
    /// Nothing done yet.
    Start,
    /// The oldest record in the making is announced.
    Opened,
    /// The record has its number, and the announcement is exact.
    Announced,
    /// The slot is marked as being written.
    Marked,
    /// This many words are written.
    Words(usize),
    /// The record can be read.
    Committed,
    /// The announcement is withdrawn.
    Closed,
}

impl<const WORDS: usize, const SLOTS: usize> TraceRing<WORDS, SLOTS> {
    const SHAPE: () = assert!(WORDS > 0 && SLOTS.is_power_of_two());

    /// An empty ring.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        let () = Self::SHAPE;
        TraceRing {
            head: AtomicU64::new(0),
            open: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            slots: Slots(
                [const { Slot { seq: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] } }; SLOTS],
            ),
        }
    }

    /// An empty ring.
    #[cfg(loom)]
    pub fn new() -> Self {
        use core::array::from_fn;
        let () = Self::SHAPE;
        TraceRing {
            head: AtomicU64::new(0),
            open: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            slots: Slots(from_fn(|_| Slot { seq: AtomicU64::new(0), words: from_fn(|_| AtomicU64::new(0)) })),
        }
    }

    /// Writes a record over the oldest one. Own CPU, any context. False: dropped (and counted), because SLOTS
    /// records nested in one in the making.
    #[inline]
    pub fn push(&self, words: [u64; WORDS]) -> bool {
        self.push_stepped(words, |_| {})
    }

    /// [`push`](Self::push) with `at` called between its steps, where tests nest other pushes.
    #[doc(hidden)]
    #[inline(always)]
    pub fn push_stepped(&self, words: [u64; WORDS], mut at: impl FnMut(PushStep)) -> bool {
        at(PushStep::Start);
        // Not 0: this push is nested in another one, which goes on when it has returned, and finds its announcement unchanged.
        let announced = self.open.load(Ordering::Relaxed);
        let n = if announced == 0 {
            let n = self.head.load(Ordering::Relaxed);
            self.open.store(n + 1, Ordering::Relaxed);
            at(PushStep::Opened);
            match self.head.compare_exchange(n, n + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(n) => n,
                Err(now) => self.reserve_after_nmi(now),
            }
        } else {
            at(PushStep::Opened);
            match self.reserve_nested() {
                Some(n) => n,
                None => return false,
            }
        };
        at(PushStep::Announced);
        let slot = &self.slots.0[n as usize & (SLOTS - 1)];
        let (writing, written) =
            if cfg!(mutant = "ring_commit_first") { (2 * n + 2, 2 * n + 2) } else { (2 * n + 1, 2 * n + 2) };
        // Release: who sees the mark sees the head that allowed it.
        slot.seq.store(writing, Ordering::Release);
        #[cfg(not(mutant = "ring_mark_fence_dropped"))]
        fence(Ordering::Release);
        at(PushStep::Marked);
        for (i, word) in words.into_iter().enumerate() {
            slot.words[i].store(word, Ordering::Relaxed);
            at(PushStep::Words(i + 1));
        }
        slot.seq.store(written, Ordering::Release);
        at(PushStep::Committed);
        self.open.store(announced, Ordering::Relaxed);
        at(PushStep::Closed);
        true
    }

    /// Reserves a number for the outermost producer, whose compare failed because an NMI pushed in between, and makes its announcement
    /// exact. It fails again at most once for each of those.
    #[cold]
    fn reserve_after_nmi(&self, now: u64) -> u64 {
        let mut n = now;
        while let Err(now) = self.head.compare_exchange(n, n + 1, Ordering::Relaxed, Ordering::Relaxed) {
            n = now;
        }
        self.open.store(n + 1, Ordering::Relaxed);
        n
    }

    /// Reserves a number for a nested producer; none if the record would lap the one in the making.
    #[cold]
    fn reserve_nested(&self) -> Option<u64> {
        let mut n = self.head.load(Ordering::Relaxed);
        loop {
            if self.laps_open(n) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            match self.head.compare_exchange(n, n + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(n) => return Some(n),
                Err(now) => n = now,
            }
        }
    }

    /// Whether record `n` of a nested producer would take the slot of one in the making.
    #[inline]
    fn laps_open(&self, n: u64) -> bool {
        if cfg!(mutant = "ring_nested_laps") {
            return false;
        }
        n + 1 - self.open.load(Ordering::Relaxed) >= SLOTS as u64
    }

    /// Records that were not written because too many nested, since boot.
    #[inline]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Records written or being written since boot.
    #[inline]
    pub fn pushed(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }
}

#[cfg(not(loom))]
impl<const WORDS: usize, const SLOTS: usize> Default for TraceRing<WORDS, SLOTS> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a reader gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a record is given once"]
pub enum Next<const WORDS: usize> {
    /// The next record.
    Record([u64; WORDS]),
    /// None is there yet.
    Empty,
    /// So many were overwritten or dropped before they could be read.
    Lost(u64),
}

/// A reader's place in a ring.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    next: u64,
    dropped: u64,
}

impl Cursor {
    /// From the oldest record since boot: what is gone by then is told as lost.
    pub const fn new() -> Self {
        Cursor { next: 0, dropped: 0 }
    }

    /// From what is pushed after now.
    pub fn at_end<const WORDS: usize, const SLOTS: usize>(ring: &TraceRing<WORDS, SLOTS>) -> Self {
        Cursor { next: ring.head.load(Ordering::Acquire), dropped: ring.dropped.load(Ordering::Relaxed) }
    }

    /// From the last `count` records of now on, as many as there are.
    pub fn at_last<const WORDS: usize, const SLOTS: usize>(ring: &TraceRing<WORDS, SLOTS>, count: u64) -> Self {
        let end = Self::at_end(ring);
        Cursor { next: end.next.saturating_sub(count.min(SLOTS as u64)), ..end }
    }

    /// Number of the record that is next.
    #[inline]
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// The next record, or what happened to it.
    pub fn next<const WORDS: usize, const SLOTS: usize>(&mut self, ring: &TraceRing<WORDS, SLOTS>) -> Next<WORDS> {
        let dropped = ring.dropped.load(Ordering::Relaxed);
        if dropped != self.dropped {
            let lost = dropped.wrapping_sub(self.dropped);
            self.dropped = dropped;
            return Next::Lost(lost);
        }
        let head = ring.head.load(Ordering::Acquire);
        if self.next >= head {
            return Next::Empty;
        }
        if head - self.next > SLOTS as u64 {
            return self.lapped(head - SLOTS as u64 - self.next);
        }
        let slot = &ring.slots.0[self.next as usize & (SLOTS - 1)];
        let written = 2 * self.next + 2;
        let before = slot.seq.load(Ordering::Acquire);
        if before < written {
            return Next::Empty;
        }
        let words = core::array::from_fn(|i| slot.words[i].load(Ordering::Relaxed));
        #[cfg(not(mutant = "ring_read_fence_dropped"))]
        fence(Ordering::Acquire);
        let after = slot.seq.load(Ordering::Relaxed);
        if before != written || (after != written && !cfg!(mutant = "ring_no_recheck")) {
            return self.lapped(1);
        }
        self.next += 1;
        Next::Record(words)
    }

    fn lapped<const WORDS: usize>(&mut self, lost: u64) -> Next<WORDS> {
        self.next += lost;
        Next::Lost(lost)
    }
}

impl Default for Cursor {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn wraps_and_counts() {
        let ring: TraceRing<2, 4> = TraceRing::new();
        let mut cursor = Cursor::new();
        assert_eq!(cursor.next(&ring), Next::Empty);
        for n in 0..6 {
            assert!(ring.push([n, n]));
        }
        assert_eq!(cursor.next(&ring), Next::Lost(2));
        for n in 2..6 {
            assert_eq!(cursor.next(&ring), Next::Record([n, n]));
        }
        assert_eq!((cursor.next(&ring), ring.pushed()), (Next::Empty, 6));
    }

    #[test]
    fn slots_of_seven_words_are_cache_lines() {
        let ring: TraceRing<7, 4> = TraceRing::new();
        assert_eq!(core::mem::size_of::<Slot<7>>(), 64);
        assert_eq!(core::ptr::from_ref(&ring.slots).addr() % 64, 0);
        assert_eq!(core::mem::align_of::<TraceRing<7, 4>>(), 64);
    }

    #[test]
    fn a_cursor_may_start_at_the_last_records() {
        let ring: TraceRing<2, 4> = TraceRing::new();
        assert_eq!(Cursor::at_last(&ring, 3).position(), 0);
        (0..6).for_each(|n| assert!(ring.push([n, n])));
        let mut cursor = Cursor::at_last(&ring, 2);
        assert_eq!(cursor.position(), 4);
        assert_eq!(cursor.next(&ring), Next::Record([4, 4]));
        assert_eq!((cursor.position(), cursor.next(&ring)), (5, Next::Record([5, 5])));
        assert_eq!(cursor.next(&ring), Next::Empty);
        // More than there are: all that the ring holds, and none of it counts as lost.
        let mut all = Cursor::at_last(&ring, 100);
        assert_eq!((all.position(), all.next(&ring)), (2, Next::Record([2, 2])));
        let mut end = Cursor::at_end(&ring);
        assert_eq!((end.position(), end.next(&ring)), (6, Next::Empty));
    }

    #[test]
    fn drops_before_a_cursor_are_not_its_own() {
        let ring: TraceRing<2, 2> = TraceRing::new();
        let flood = || {
            ring.push_stepped([0, 0], |step| {
                if step == PushStep::Marked {
                    (0..3).for_each(|n| _ = ring.push([n, n]));
                }
            })
        };
        flood();
        assert_eq!((ring.dropped(), ring.pushed()), (2, 2));
        let mut late = Cursor::at_last(&ring, 1);
        assert!(matches!(late.next(&ring), Next::Record(_)));
        assert_eq!(late.next(&ring), Next::Empty);
        flood();
        assert_eq!((late.next(&ring), ring.dropped()), (Next::Lost(2), 4));
        assert_eq!(Cursor::new().next(&ring), Next::Lost(4));
    }

    #[test]
    fn nested_producer_drops_rather_than_laps() {
        let ring: TraceRing<2, 2> = TraceRing::new();
        let mut nested = Vec::new();
        ring.push_stepped([1, 1], |step| {
            if step == PushStep::Words(1) {
                nested = (2..5).map(|n| ring.push([n, n])).collect();
            }
        });
        assert_eq!(nested, [true, false, false]);
        let mut cursor = Cursor::new();
        assert_eq!(cursor.next(&ring), Next::Lost(2));
        assert_eq!(cursor.next(&ring), Next::Record([1, 1]));
        assert_eq!(cursor.next(&ring), Next::Record([2, 2]));
        assert_eq!(cursor.next(&ring), Next::Empty);
    }

    #[test]
    fn reader_on_another_thread_sees_whole_records() {
        let pushes = if cfg!(miri) { 40 } else { 20_000 };
        let ring: TraceRing<2, 4> = TraceRing::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (1..=pushes).for_each(|n| assert!(ring.push([n, !n]))));
            let (mut cursor, mut seen) = (Cursor::new(), 0);
            while seen < pushes {
                match cursor.next(&ring) {
                    Next::Record([n, check]) => {
                        seen += 1;
                        assert_eq!((n, check), (seen, !n));
                    }
                    Next::Lost(lost) => seen += lost,
                    Next::Empty => std::thread::yield_now(),
                }
            }
            assert_eq!(cursor.next(&ring), Next::Empty);
        });
    }
}

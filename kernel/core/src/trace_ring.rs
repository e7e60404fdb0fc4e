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
//! The number of slots is a power of two: SLOTS, or, for [`SizedRing`], what its maker chose.

use crate::atomics::{AtomicU64, Ordering, fence};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// The first slot starts a cache line, so that slots of seven words never share one.
#[derive(Debug)]
#[repr(align(64))]
pub struct Fixed<const WORDS: usize, const SLOTS: usize>([Slot<WORDS>; SLOTS]);

/// Slots whose number was chosen at run time; each starts a cache line.
#[derive(Debug)]
pub struct Chosen<const WORDS: usize>(Box<[Line<WORDS>]>);

/// A slot that starts a cache line.
#[derive(Debug)]
#[repr(align(64))]
pub struct Line<const WORDS: usize>(pub Slot<WORDS>);

/// Where the slots are.
pub trait Slots<const WORDS: usize> {
    /// How many there are: a power of two.
    fn count(&self) -> u64;
    /// The slot of record `n`.
    fn of(&self, n: u64) -> &Slot<WORDS>;
}

/// Slots whose number is chosen at run time.
pub trait SizedSlots<const WORDS: usize>: Slots<WORDS> {
    /// These slots, a power of two of them.
    fn new(lines: Box<[Line<WORDS>]>) -> Self;
}

impl<const WORDS: usize> SizedSlots<WORDS> for Chosen<WORDS> {
    fn new(lines: Box<[Line<WORDS>]>) -> Self {
        Chosen(lines)
    }
}

impl<const WORDS: usize, const SLOTS: usize> Slots<WORDS> for Fixed<WORDS, SLOTS> {
    #[inline(always)]
    fn count(&self) -> u64 {
        SLOTS as u64
    }
    #[inline(always)]
    fn of(&self, n: u64) -> &Slot<WORDS> {
        &self.0[n as usize & (SLOTS - 1)]
    }
}

impl<const WORDS: usize> Slots<WORDS> for Chosen<WORDS> {
    #[inline(always)]
    fn count(&self) -> u64 {
        self.0.len() as u64
    }
    #[inline(always)]
    fn of(&self, n: u64) -> &Slot<WORDS> {
        &self.0[n as usize & (self.0.len() - 1)].0
    }
}

/// One record and its sequence.
#[derive(Debug)]
pub struct Slot<const WORDS: usize> {
    seq: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Slot<WORDS> {
    fn empty() -> Self {
        Slot { seq: AtomicU64::new(0), words: core::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// The ring: `SLOTS` records of `WORDS` words.
#[derive(Debug)]
pub struct TraceRing<const WORDS: usize, const SLOTS: usize, S = Fixed<WORDS, SLOTS>> {
    head: AtomicU64,
    open: AtomicU64,
    dropped: AtomicU64,
    /// Number of the first record that was ever in this ring; those before it were in its predecessor.
    first: u64,
    slots: S,
}

/// A ring whose size was chosen at run time.
pub type SizedRing<const WORDS: usize, S = Chosen<WORDS>> = TraceRing<WORDS, 0, S>;

/// Sequence of a slot that holds no record but a place at which records are missing.
const GAP: u64 = u64::MAX;

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
            first: 0,
            slots: Fixed(
                [const { Slot { seq: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] } }; SLOTS],
            ),
        }
    }

    /// An empty ring.
    #[cfg(loom)]
    pub fn new() -> Self {
        let () = Self::SHAPE;
        Self::with(Fixed(core::array::from_fn(|_| Slot::empty())))
    }
}

impl<const WORDS: usize, S: SizedSlots<WORDS>> SizedRing<WORDS, S> {
    /// An empty ring of `slots` records, a power of two. `None` without memory, or for another number.
    pub fn with_slots(slots: usize) -> Option<Self> {
        let mut lines = Vec::new();
        if !slots.is_power_of_two() || lines.try_reserve_exact(slots).is_err() {
            return None;
        }
        lines.resize_with(slots, || Line(Slot::empty()));
        Some(Self::with(S::new(lines.into_boxed_slice())))
    }

    /// Goes on where `old` ends: has its last records by their numbers, as many as fit, and its count of drops. Nobody writes to `old` any
    /// more and nobody knows this ring yet.
    pub fn succeed(&mut self, old: &Self) {
        let end = old.pushed();
        let mut cursor = Cursor { next: end, dropped: old.dropped() };
        cursor.next = end - (end - old.first).min(old.slots.count()).min(self.slots.count());
        self.first = cursor.next;
        while cursor.next < end {
            let n = cursor.next;
            let slot = self.slots.of(n);
            let Next::Record(words) = cursor.next(old) else {
                slot.seq.store(GAP, Ordering::Relaxed);
                cursor.next = n + 1;
                continue;
            };
            slot.words.iter().zip(words).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
            slot.seq.store(2 * n + 2, Ordering::Relaxed);
        }
        self.head.store(end, Ordering::Relaxed);
        self.dropped.store(old.dropped(), Ordering::Relaxed);
    }
}

impl<const WORDS: usize, const SLOTS: usize, S: Slots<WORDS>> TraceRing<WORDS, SLOTS, S> {
    fn with(slots: S) -> Self {
        let zero = || AtomicU64::new(0);
        TraceRing { head: zero(), open: zero(), dropped: zero(), first: 0, slots }
    }

    /// Says that something may be missing here: readers are told one lost record. In the owner's place, who must not push meanwhile.
    pub fn gap(&self) {
        let n = self.head.load(Ordering::Relaxed);
        self.slots.of(n).seq.store(GAP, Ordering::Release);
        self.head.store(n + 1, Ordering::Release);
    }

    /// How many records it holds at most.
    #[inline]
    pub fn slots(&self) -> u64 {
        self.slots.count()
    }

    /// Number of the oldest record that it can still hold.
    pub fn oldest(&self) -> u64 {
        self.first.max(self.pushed().saturating_sub(self.slots.count()))
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
        // Only a copy that is made on the rare ways lets the words themselves stay in registers.
        let copy = |words: &[u64; WORDS]| core::array::from_fn(|i| words[i]);
        at(PushStep::Start);
        if self.open.load(Ordering::Relaxed) != 0 {
            return self.push_nested(copy(&words), at);
        }
        let n = self.head.load(Ordering::Relaxed);
        self.open.store(n + 1, Ordering::Relaxed);
        at(PushStep::Opened);
        let n = match self.head.compare_exchange(n, n + 1, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(n) => n,
            Err(now) => return self.push_after_nmi(now, copy(&words), at),
        };
        self.write(n, words, &mut at);
        self.open.store(0, Ordering::Relaxed);
        at(PushStep::Closed);
        true
    }

    /// Writes record `n`, whose number this producer alone has.
    #[inline(always)]
    fn write(&self, n: u64, words: [u64; WORDS], at: &mut impl FnMut(PushStep)) {
        at(PushStep::Announced);
        let slot = self.slots.of(n);
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
    }

    /// The rest of a push by the outermost producer, whose compare failed because an NMI pushed in between. It fails again at most once for
    /// each of those; then the announcement is made exact. Apart from `push_stepped`, which then has nothing to keep over a call.
    #[cold]
    #[inline(never)]
    fn push_after_nmi(&self, now: u64, words: [u64; WORDS], mut at: impl FnMut(PushStep)) -> bool {
        let mut n = now;
        while let Err(now) = self.head.compare_exchange(n, n + 1, Ordering::Relaxed, Ordering::Relaxed) {
            n = now;
        }
        self.open.store(n + 1, Ordering::Relaxed);
        self.write(n, words, &mut at);
        self.open.store(0, Ordering::Relaxed);
        at(PushStep::Closed);
        true
    }

    /// A push nested in another one, which goes on when it has returned, and finds its announcement unchanged. False: dropped, because the
    /// record would lap the one in the making.
    #[cold]
    #[inline(never)]
    fn push_nested(&self, words: [u64; WORDS], mut at: impl FnMut(PushStep)) -> bool {
        at(PushStep::Opened);
        let mut n = self.head.load(Ordering::Relaxed);
        loop {
            if self.laps_open(n) {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            match self.head.compare_exchange(n, n + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => n = now,
            }
        }
        self.write(n, words, &mut at);
        at(PushStep::Closed);
        true
    }

    /// Whether record `n` of a nested producer would take the slot of one in the making.
    #[inline]
    fn laps_open(&self, n: u64) -> bool {
        if cfg!(mutant = "ring_nested_laps") {
            return false;
        }
        n + 1 - self.open.load(Ordering::Relaxed) >= self.slots.count()
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
    pub fn at_end<const WORDS: usize, const SLOTS: usize, S: Slots<WORDS>>(ring: &TraceRing<WORDS, SLOTS, S>) -> Self {
        Cursor { next: ring.head.load(Ordering::Acquire), dropped: ring.dropped.load(Ordering::Relaxed) }
    }

    /// From the last `count` records of now on, as many as there are.
    pub fn at_last<const WORDS: usize, const SLOTS: usize, S: Slots<WORDS>>(
        ring: &TraceRing<WORDS, SLOTS, S>,
        count: u64,
    ) -> Self {
        let end = Self::at_end(ring);
        Cursor { next: end.next.saturating_sub(count.min(ring.slots())).max(ring.first), ..end }
    }

    /// Number of the record that is next.
    #[inline]
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// The next record, or what happened to it.
    pub fn next<const WORDS: usize, const SLOTS: usize, S: Slots<WORDS>>(
        &mut self,
        ring: &TraceRing<WORDS, SLOTS, S>,
    ) -> Next<WORDS> {
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
        let oldest = ring.first.max(head.saturating_sub(ring.slots()));
        if self.next < oldest {
            return self.lapped(oldest - self.next);
        }
        let slot = ring.slots.of(self.next);
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
        let sized = SizedRing::<7>::with_slots(4).unwrap();
        assert!((0..4).all(|n| core::ptr::from_ref(sized.slots.of(n)).addr() % 64 == 0));
        assert_eq!(core::mem::size_of::<Line<7>>(), 64);
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

    /// All that a cursor is given: records by their first word, losses as negative numbers.
    fn read(cursor: &mut Cursor, ring: &SizedRing<2>) -> Vec<i64> {
        let mut all = Vec::new();
        loop {
            match cursor.next(ring) {
                Next::Record([n, _]) => all.push(n as i64),
                Next::Lost(n) => all.push(-(n as i64)),
                Next::Empty => return all,
            }
        }
    }

    #[test]
    fn a_ring_of_another_size_goes_on_where_the_old_one_ends() {
        for (slots, kept) in [(8, 4), (4, 4), (2, 2), (1, 1)] {
            let old = SizedRing::with_slots(4).unwrap();
            (0..10).for_each(|n| assert!(old.push([n, n])));
            let (mut early, mut late, mut end) = (Cursor::new(), Cursor::new(), Cursor::at_end(&old));
            assert_eq!(read(&mut late, &old), [-6, 6, 7, 8, 9]);
            let mut new = SizedRing::with_slots(slots).unwrap();
            new.succeed(&old);
            assert_eq!((new.pushed(), new.oldest()), (10, 10 - kept));
            assert_eq!((read(&mut late, &new), read(&mut end, &new)), (vec![], vec![]));
            let mut first = vec![-(10 - kept as i64)];
            first.extend(10 - kept as i64..10);
            assert_eq!(read(&mut early, &new), first);
            assert!(new.push([10, 10]));
            assert_eq!((read(&mut late, &new), read(&mut early, &new)), (vec![10], vec![10]));
            assert_eq!(Cursor::at_last(&new, 100).position(), 11 - (kept + 1).min(slots as u64));
        }
        assert!(SizedRing::<2>::with_slots(3).is_none() && SizedRing::<2>::with_slots(0).is_none());
    }

    #[test]
    fn a_gap_is_told_once_at_its_place_and_its_slot_is_used_again() {
        let ring = SizedRing::with_slots(4).unwrap();
        let mut cursor = Cursor::new();
        assert!(ring.push([1, 1]));
        ring.gap();
        assert!(ring.push([2, 2]));
        assert_eq!(read(&mut cursor, &ring), [1, -1, 2]);
        let mut new = SizedRing::with_slots(8).unwrap();
        new.succeed(&ring);
        assert_eq!(read(&mut Cursor::new(), &new), [1, -1, 2]);
        (3..7).for_each(|n| assert!(ring.push([n, n])));
        assert_eq!(read(&mut cursor, &ring), [3, 4, 5, 6]);
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

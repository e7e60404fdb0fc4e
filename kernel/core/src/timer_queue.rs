//! One CPU's queue of timers, earliest deadline first.
//!
//! Called by the CPU's timer code under its lock, interrupts off. The tick is one entry among others.
//! Invariants: those of the pairing heap; the hardware timer is to be programmed for
//! [`TimerQueue::next_deadline`], and every change of that is told by the return value that caused it.
//! Timers with equal deadlines fire in the order in which they were armed.

use crate::pairing_heap::{HeapStore, PairingHeap};

/// No deadline: later than all.
pub const NEVER: u64 = u64::MAX;

/// The queue. Deadlines are TSC values, below [`NEVER`].
#[derive(Debug)]
pub struct TimerQueue {
    heap: PairingHeap,
}

impl TimerQueue {
    /// No timers.
    pub const fn new() -> Self {
        TimerQueue { heap: PairingHeap::new() }
    }

    /// Arms timer `id`, or moves it if it is armed. True: the earliest deadline has changed, reprogram.
    #[inline]
    pub fn arm<S: HeapStore + ?Sized>(&mut self, store: &S, id: u32, deadline_tsc: u64) -> bool {
        let before = self.next_deadline(store);
        if self.heap.contains(store, id) && !cfg!(mutant = "timer_not_moved") {
            self.heap.remove(store, id);
        }
        self.heap.insert(store, id, deadline_tsc);
        self.next_deadline(store) != before
    }

    /// Disarms timer `id`; one that is not armed is left alone. True: the earliest deadline has changed.
    #[inline]
    pub fn cancel<S: HeapStore + ?Sized>(&mut self, store: &S, id: u32) -> bool {
        let before = self.next_deadline(store);
        self.heap.remove(store, id) && self.next_deadline(store) != before
    }

    /// Takes one timer whose deadline has come, beside the earliest deadline of the others; call until there is none, then reprogram.
    #[inline]
    pub fn expire<S: HeapStore + ?Sized>(&mut self, store: &S, now_tsc: u64) -> (Option<u32>, u64) {
        match self.heap.pop_until(store, now_tsc) {
            Some(id) if cfg!(mutant = "timer_rest_forgotten") => (Some(id), NEVER),
            Some(id) => (Some(id), self.next_deadline(store)),
            None => (None, self.next_deadline(store)),
        }
    }

    /// The earliest deadline, or [`NEVER`].
    #[inline]
    pub fn next_deadline<S: HeapStore + ?Sized>(&self, store: &S) -> u64 {
        self.heap.peek(store).map_or(NEVER, |(_, deadline_tsc)| deadline_tsc)
    }

    /// Whether timer `id` is armed (on the queue its owner knows).
    #[inline]
    pub fn is_armed<S: HeapStore + ?Sized>(&self, store: &S, id: u32) -> bool {
        self.heap.contains(store, id)
    }

    /// Number of armed timers.
    #[inline]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no timer is armed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl Default for TimerQueue {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairing_heap::HeapNode;

    struct Timers([HeapNode; 3]);

    impl HeapStore for Timers {
        fn heap_node(&self, id: u32) -> &HeapNode {
            &self.0[id as usize]
        }
    }

    #[test]
    fn tells_when_to_reprogram() {
        let store = Timers([const { HeapNode::new() }; 3]);
        let mut timers = TimerQueue::new();
        assert!(timers.arm(&store, 0, 100));
        assert!(!timers.arm(&store, 1, 200));
        assert!(timers.arm(&store, 1, 50), "moved to the front");
        assert!(timers.arm(&store, 1, 300), "the front moved away");
        assert!(!timers.cancel(&store, 1) && !timers.cancel(&store, 1));
        assert_eq!(timers.expire(&store, 99), (None, 100));
        assert!(!timers.arm(&store, 1, 150));
        assert_eq!(timers.expire(&store, 100), (Some(0), 150));
        assert_eq!(timers.expire(&store, 150), (Some(1), NEVER));
        assert_eq!(timers.next_deadline(&store), NEVER);
    }
}

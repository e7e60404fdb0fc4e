//! The fair tasks that wait in one run queue, by virtual runtime: the first of them apart, all others in a heap.
//!
//! The run queue alone calls. Usually one task waits at most: it comes and goes without a look at the heap.
//! Invariants: 1. no task in the heap goes before the first one; 2. the heap is empty if there is no first one; 3. the virtual runtime of a waiting
//! task does not change. Order: by virtual runtime, then by time of insertion.

use super::{RunNode, RunStore};
use crate::pairing_heap::{HeapNode, HeapStore, NIL, PairingHeap};

/// The tasks as the heap sees them.
struct Nodes<'a, S: ?Sized>(&'a S);

impl<S: RunStore + ?Sized> HeapStore for Nodes<'_, S> {
    #[inline]
    fn heap_node(&self, id: u32) -> &HeapNode {
        &self.0.run_node(id).heap
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct FairTasks {
    first: u32,
    others: PairingHeap,
}

impl FairTasks {
    /// None.
    pub const fn new() -> Self {
        FairTasks { first: NIL, others: PairingHeap::new() }
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        if self.first == NIL { 0 } else { 1 + self.others.len() }
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == NIL
    }

    /// The smallest virtual runtime.
    #[inline]
    pub fn first_vruntime_ns<S: RunStore + ?Sized>(&self, store: &S) -> Option<u64> {
        if self.first == NIL { None } else { Some(store.run_node(self.first).vruntime_ns()) }
    }

    /// Adds task `id`, which does not wait.
    #[inline]
    pub fn insert<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, node: &RunNode) {
        if self.first == NIL {
            self.first = id;
        } else {
            self.insert_among_others(store, id, node.vruntime_ns());
        }
    }

    fn insert_among_others<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, vruntime_ns: u64) {
        let first_ns = store.run_node(self.first).vruntime_ns();
        if vruntime_ns < first_ns {
            self.others.insert_first(&Nodes(store), self.first, first_ns);
            self.first = id;
        } else {
            self.others.insert(&Nodes(store), id, vruntime_ns);
        }
    }

    /// Takes the first one.
    #[inline]
    pub fn pop<S: RunStore + ?Sized>(&mut self, store: &S) -> Option<u32> {
        let id = self.first;
        if id == NIL {
            return None;
        }
        self.first = if self.others.is_empty() { NIL } else { self.next(store) };
        Some(id)
    }

    fn next<S: RunStore + ?Sized>(&mut self, store: &S) -> u32 {
        self.others.pop(&Nodes(store)).map_or(NIL, |(id, _)| id)
    }

    /// Takes task `id`, which waits.
    pub fn remove<S: RunStore + ?Sized>(&mut self, store: &S, id: u32) {
        if id == self.first {
            self.pop(store);
        } else {
            self.others.remove(&Nodes(store), id);
        }
    }
}

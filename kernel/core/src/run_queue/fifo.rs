//! The FIFO tasks that wait in one run queue: the first of them apart, all others in a list for each priority.
//!
//! The run queue alone calls. Usually one task waits at most: it comes and goes without a look at the lists.
//! Invariants: 1. no task in the lists goes before the first one; 2. the lists are empty if there is no first one; 3. bit p is set if and only if
//! list p has tasks; 4. the priority of a waiting task does not change.

use super::class::{Class, FIFO_STOP};
use super::{RunNode, RunStore};
use crate::pairing_heap::NIL;
use core::sync::atomic::Ordering::Relaxed;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct FifoTasks {
    first: u32,
    nr_others: u32,
    bits: u128,
    /// Head and tail.
    lists: [(u32, u32); FIFO_STOP as usize + 1],
}

impl FifoTasks {
    /// None.
    pub const fn new() -> Self {
        FifoTasks { first: NIL, nr_others: 0, bits: 0, lists: [(NIL, NIL); FIFO_STOP as usize + 1] }
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        if self.first == NIL { 0 } else { 1 + self.nr_others as usize }
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first == NIL
    }

    /// The class of the first one.
    #[inline]
    pub fn first_class<S: RunStore + ?Sized>(&self, store: &S) -> Option<Class> {
        if self.first == NIL { None } else { Some(store.run_node(self.first).class()) }
    }

    /// Adds task `id`, which does not wait: behind its equals, or before them (`at_head`).
    #[inline]
    pub fn insert<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, node: &RunNode, at_head: bool) {
        if self.first == NIL {
            self.first = id;
        } else {
            self.insert_among_others(store, id, node, at_head);
        }
    }

    fn insert_among_others<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, node: &RunNode, at_head: bool) {
        let (prio, first) = (priority(node), self.first);
        let first_node = store.run_node(first);
        let first_prio = priority(first_node);
        let goes_first = prio > first_prio || (at_head && prio == first_prio);
        if goes_first && !cfg!(mutant = "fifo_first_stays") {
            self.link(store, first_prio, first, first_node, true);
            self.first = id;
        } else {
            self.link(store, prio, id, node, at_head);
        }
    }

    /// Takes the first one, which there is.
    #[inline]
    pub fn pop<S: RunStore + ?Sized>(&mut self, store: &S) -> u32 {
        let id = self.first;
        self.first = if self.nr_others == 0 { NIL } else { self.next(store) };
        id
    }

    fn next<S: RunStore + ?Sized>(&mut self, store: &S) -> u32 {
        let prio = (127 - self.bits.leading_zeros()) as usize;
        let id = self.lists[prio].0;
        self.unlink(store, prio, store.run_node(id));
        id
    }

    /// Takes task `id`, which waits.
    pub fn remove<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, node: &RunNode) {
        if id == self.first {
            self.pop(store);
        } else {
            self.unlink(store, priority(node), node);
        }
    }

    fn link<S: RunStore + ?Sized>(&mut self, store: &S, prio: usize, id: u32, node: &RunNode, at_head: bool) {
        let (head, tail) = self.lists[prio];
        let (prev, next) = if at_head { (NIL, head) } else { (tail, NIL) };
        node.prev.store(prev, Relaxed);
        node.next.store(next, Relaxed);
        self.lists[prio] = if head == NIL {
            (id, id)
        } else if at_head {
            store.run_node(head).prev.store(id, Relaxed);
            (id, tail)
        } else {
            store.run_node(tail).next.store(id, Relaxed);
            (head, id)
        };
        self.bits |= 1 << prio;
        self.nr_others += 1;
    }

    fn unlink<S: RunStore + ?Sized>(&mut self, store: &S, prio: usize, node: &RunNode) {
        let (prev, next) = (node.prev.load(Relaxed), node.next.load(Relaxed));
        let list = &mut self.lists[prio];
        if prev == NIL {
            list.0 = next
        } else {
            store.run_node(prev).next.store(next, Relaxed)
        }
        if next == NIL {
            list.1 = prev
        } else {
            store.run_node(next).prev.store(prev, Relaxed)
        }
        if list.0 == NIL {
            self.bits &= !(1 << prio);
        }
        self.nr_others -= 1;
    }
}

/// The list for a task that is in one.
fn priority(node: &RunNode) -> usize {
    match node.class() {
        Class::Fifo(prio) => prio as usize,
        _ => 0,
    }
}

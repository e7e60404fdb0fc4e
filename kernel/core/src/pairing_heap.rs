//! A pairing heap of `u64` keys, smallest first, whose links are indices into storage that the caller owns.
//!
//! Called by the timer queue and the run queue, under their owner's lock. No recursion, no allocation; the
//! links are Relaxed atomics (plain moves on x86_64) so that nodes may sit in shared structures.
//! Invariants: a node is in at most one heap by its `HeapNode`; ids are below [`NIL`] - 1; for each id the
//! store always gives the same node while the node is queued.
//! Order: by key; equal keys leave in the order of insertion as long as fewer than 2^31 insertions lie between
//! two of them (beyond that only the order among equals suffers).
//! Costs: insert and peek O(1), pop and remove O(log n) amortised.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// No node.
pub const NIL: u32 = u32::MAX;
/// Value of `prev` in a node that is in no heap.
const OUT: u32 = u32::MAX - 1;

/// The links of one entry.
#[derive(Debug)]
pub struct HeapNode {
    key: AtomicU64,
    /// First child.
    child: AtomicU32,
    /// Next sibling.
    next: AtomicU32,
    /// Sibling before, or the parent of a first child; NIL in the root, OUT in no heap.
    prev: AtomicU32,
    /// Time of insertion, for equal keys.
    seq: AtomicU32,
}

impl HeapNode {
    /// A node in no heap.
    pub const fn new() -> Self {
        HeapNode {
            key: AtomicU64::new(0),
            child: AtomicU32::new(NIL),
            next: AtomicU32::new(NIL),
            prev: AtomicU32::new(OUT),
            seq: AtomicU32::new(0),
        }
    }

    /// The key it was last inserted with.
    #[inline]
    pub fn key(&self) -> u64 {
        self.key.load(Relaxed)
    }

    /// Whether it is in a heap.
    #[inline]
    pub fn is_queued(&self) -> bool {
        self.prev.load(Relaxed) != OUT
    }
}

impl Default for HeapNode {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the nodes are.
pub trait HeapStore {
    /// The node of entry `id`; always the same one.
    fn heap_node(&self, id: u32) -> &HeapNode;
}

/// The heap: its root and its size.
#[derive(Debug)]
pub struct PairingHeap {
    root: u32,
    len: u32,
    seq: u32,
}

impl PairingHeap {
    /// An empty heap.
    pub const fn new() -> Self {
        PairingHeap { root: NIL, len: 0, seq: 0 }
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.root == NIL
    }

    /// Whether entry `id` is in a heap (its owner knows in which).
    #[inline]
    pub fn contains<S: HeapStore + ?Sized>(&self, store: &S, id: u32) -> bool {
        store.heap_node(id).is_queued()
    }

    /// Puts entry `id` in with `key`. Does nothing and returns false if it is queued already.
    #[inline]
    pub fn insert<S: HeapStore + ?Sized>(&mut self, store: &S, id: u32, key: u64) -> bool {
        let node = store.heap_node(id);
        if node.is_queued() {
            return false;
        }
        let seq = self.seq;
        self.seq = seq.wrapping_add(1);
        self.place(store, id, node, (key, seq));
        true
    }

    /// Puts entry `id` in with `key`, which no other is below, before those that have the same key. Else as `insert`.
    pub fn insert_first<S: HeapStore + ?Sized>(&mut self, store: &S, id: u32, key: u64) -> bool {
        if self.root == NIL {
            return self.insert(store, id, key);
        }
        let (node, first) = (store.heap_node(id), store.heap_node(self.root));
        if node.is_queued() {
            return false;
        }
        debug_assert!(key <= first.key());
        // The root came before all that have its key.
        self.place(store, id, node, (key, first.seq.load(Relaxed).wrapping_sub(1)));
        true
    }

    #[inline]
    fn place<S: HeapStore + ?Sized>(&mut self, store: &S, id: u32, node: &HeapNode, (key, seq): (u64, u32)) {
        node.key.store(key, Relaxed);
        node.child.store(NIL, Relaxed);
        node.next.store(NIL, Relaxed);
        node.prev.store(NIL, Relaxed);
        node.seq.store(seq, Relaxed);
        self.len += 1;
        self.root = if self.root == NIL { id } else { link(store, self.root, id) };
    }

    /// The entry with the smallest key.
    #[inline]
    pub fn peek<S: HeapStore + ?Sized>(&self, store: &S) -> Option<(u32, u64)> {
        if self.root == NIL { None } else { Some((self.root, store.heap_node(self.root).key())) }
    }

    /// Takes the entry with the smallest key.
    #[inline]
    pub fn pop<S: HeapStore + ?Sized>(&mut self, store: &S) -> Option<(u32, u64)> {
        let (id, key) = self.peek(store)?;
        self.drop_root(store, store.heap_node(id));
        Some((id, key))
    }

    /// Takes the entry with the smallest key if that is at most `limit`.
    #[inline]
    pub fn pop_until<S: HeapStore + ?Sized>(&mut self, store: &S, limit: u64) -> Option<u32> {
        let id = self.root;
        if id == NIL {
            return None;
        }
        let node = store.heap_node(id);
        if node.key() > limit {
            return None;
        }
        self.drop_root(store, node);
        Some(id)
    }

    #[inline]
    fn drop_root<S: HeapStore + ?Sized>(&mut self, store: &S, root: &HeapNode) {
        let child = root.child.load(Relaxed);
        self.root = if child == NIL { NIL } else { meld_children(store, child) };
        self.forget(root);
    }

    /// Takes entry `id` out. Returns false if it is not queued.
    #[inline]
    pub fn remove<S: HeapStore + ?Sized>(&mut self, store: &S, id: u32) -> bool {
        let node = store.heap_node(id);
        if !node.is_queued() {
            return false;
        }
        if self.root == id {
            return self.pop(store).is_some();
        }
        let (prev, next) = (node.prev.load(Relaxed), node.next.load(Relaxed));
        let before = store.heap_node(prev);
        if before.child.load(Relaxed) == id {
            before.child.store(next, Relaxed);
        } else {
            before.next.store(next, Relaxed);
        }
        if next != NIL {
            store.heap_node(next).prev.store(prev, Relaxed);
        }
        let orphans = meld_children(store, node.child.load(Relaxed));
        if orphans != NIL && !cfg!(mutant = "heap_remove_drops_children") {
            self.root = link(store, self.root, orphans);
        }
        self.forget(node);
        true
    }

    #[inline]
    fn forget(&mut self, node: &HeapNode) {
        // `insert` sets the other links.
        node.prev.store(OUT, Relaxed);
        self.len -= 1;
    }
}

impl Default for PairingHeap {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether `a` leaves before `b`.
#[inline]
fn before(a: &HeapNode, b: &HeapNode) -> bool {
    let (ka, kb) = (a.key(), b.key());
    if ka != kb {
        return ka < kb;
    }
    if cfg!(mutant = "heap_ties_unordered") {
        return true;
    }
    (a.seq.load(Relaxed).wrapping_sub(b.seq.load(Relaxed)) as i32) < 0
}

/// Makes one of two roots the first child of the other and returns the winner, whose `next` is left as it is.
#[inline]
fn link<S: HeapStore + ?Sized>(store: &S, a: u32, b: u32) -> u32 {
    let (na, nb) = (store.heap_node(a), store.heap_node(b));
    let (winner, wn, loser, ln) = if before(na, nb) { (a, na, b, nb) } else { (b, nb, a, na) };
    let child = wn.child.load(Relaxed);
    ln.next.store(child, Relaxed);
    ln.prev.store(winner, Relaxed);
    if child != NIL {
        store.heap_node(child).prev.store(loser, Relaxed);
    }
    wn.child.store(loser, Relaxed);
    winner
}

/// Melds a list of siblings into one root, in pairs from the left and then from the right.
#[inline]
fn meld_children<S: HeapStore + ?Sized>(store: &S, first: u32) -> u32 {
    if first == NIL {
        return NIL;
    }
    // Pass 1: winners of pairs, stacked through `next`, the rightmost on top.
    let (mut pairs, mut cur) = (NIL, first);
    while cur != NIL {
        let second = store.heap_node(cur).next.load(Relaxed);
        let (winner, after) = if second == NIL {
            (cur, NIL)
        } else {
            let after = store.heap_node(second).next.load(Relaxed);
            (link(store, cur, second), after)
        };
        store.heap_node(winner).next.store(pairs, Relaxed);
        pairs = winner;
        cur = after;
    }
    // Pass 2.
    let mut root = pairs;
    let mut rest = store.heap_node(root).next.load(Relaxed);
    while rest != NIL {
        let after = store.heap_node(rest).next.load(Relaxed);
        root = link(store, root, rest);
        rest = after;
    }
    let node = store.heap_node(root);
    node.next.store(NIL, Relaxed);
    node.prev.store(NIL, Relaxed);
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    impl HeapStore for [HeapNode] {
        fn heap_node(&self, id: u32) -> &HeapNode {
            &self[id as usize]
        }
    }

    #[test]
    fn sorts_and_keeps_order_among_equals() {
        let nodes: [HeapNode; 8] = [const { HeapNode::new() }; 8];
        let store = &nodes[..];
        let mut heap = PairingHeap::new();
        for (id, key) in [5, 3, 5, 1, 3, 9, 5, 1].into_iter().enumerate() {
            assert!(heap.insert(store, id as u32, key));
        }
        assert!(!heap.insert(store, 0, 0), "queued already");
        assert!(heap.remove(store, 4) && !heap.remove(store, 4));
        let order: Vec<_> = core::iter::from_fn(|| heap.pop(store)).collect();
        assert_eq!(order, [(3, 1), (7, 1), (1, 3), (0, 5), (2, 5), (6, 5), (5, 9)]);
        assert!(heap.is_empty());
        assert_eq!(heap.len, 0);
    }

    #[test]
    fn who_is_inserted_first_goes_before_its_equals() {
        let nodes: [HeapNode; 6] = [const { HeapNode::new() }; 6];
        let store = &nodes[..];
        let mut heap = PairingHeap::new();
        assert!(heap.insert_first(store, 0, 7), "the only one");
        assert!(heap.insert(store, 1, 7) && heap.insert_first(store, 2, 7) && heap.insert_first(store, 3, 5));
        assert!(!heap.insert_first(store, 1, 5), "queued already");
        assert!(heap.insert(store, 4, 5) && heap.insert(store, 5, 7));
        let order: Vec<_> = core::iter::from_fn(|| heap.pop(store)).map(|(id, _)| id).collect();
        assert_eq!(order, [3, 4, 2, 0, 1, 5]);
    }

    #[test]
    fn order_among_equals_survives_the_wrap_of_the_insertion_count() {
        let nodes: [HeapNode; 3] = [const { HeapNode::new() }; 3];
        let store = &nodes[..];
        let mut heap = PairingHeap { seq: u32::MAX, ..PairingHeap::new() };
        for id in 0..3 {
            heap.insert(store, id, 7);
        }
        assert_eq!([heap.pop(store), heap.pop(store), heap.pop(store)], [Some((0, 7)), Some((1, 7)), Some((2, 7))]);
    }
}

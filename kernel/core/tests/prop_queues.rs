//! Property tests: pairing heap and timer queue against sorted maps.
#![cfg(not(loom))]

use kcore::pairing_heap::{HeapNode, HeapStore, PairingHeap};
use kcore::timer_queue::{NEVER, TimerQueue};
use proptest::prelude::*;
use std::collections::BTreeMap;

const NODES: u32 = 24;

struct Nodes(Vec<HeapNode>);

impl Nodes {
    fn new() -> Self {
        Nodes((0..NODES).map(|_| HeapNode::new()).collect())
    }
}

impl HeapStore for Nodes {
    fn heap_node(&self, id: u32) -> &HeapNode {
        &self.0[id as usize]
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Insert(u32, u64),
    Remove(u32),
    Pop,
}

fn op() -> impl Strategy<Value = Op> {
    // Few keys, so that equal ones are common; now and then the extremes.
    let key = prop_oneof![8 => 0u64..8, 1 => Just(u64::MAX), 1 => any::<u64>()];
    prop_oneof![
        4 => (0..NODES, key).prop_map(|(id, key)| Op::Insert(id, key)),
        2 => (0..NODES).prop_map(Op::Remove),
        2 => Just(Op::Pop),
    ]
}

proptest! {
    #[test]
    fn heap_is_a_sorted_map_with_fifo_among_equals(ops in proptest::collection::vec(op(), 1..400)) {
        let nodes = Nodes::new();
        let mut heap = PairingHeap::new();
        // (key, time of insertion) -> id
        let mut model: BTreeMap<(u64, usize), u32> = BTreeMap::new();
        for (time, op) in ops.into_iter().enumerate() {
            match op {
                Op::Insert(id, key) => {
                    let queued = model.values().any(|&v| v == id);
                    prop_assert_eq!(heap.insert(&nodes, id, key), !queued);
                    if !queued {
                        model.insert((key, time), id);
                    }
                }
                Op::Remove(id) => {
                    let found = model.iter().find(|&(_, &v)| v == id).map(|(&k, _)| k);
                    prop_assert_eq!(heap.remove(&nodes, id), found.is_some());
                    if let Some(k) = found {
                        model.remove(&k);
                    }
                }
                Op::Pop => {
                    let first = model.pop_first().map(|((key, _), id)| (id, key));
                    prop_assert_eq!(heap.pop(&nodes), first);
                }
            }
            prop_assert_eq!(heap.len(), model.len());
            prop_assert_eq!(heap.is_empty(), model.is_empty());
            prop_assert_eq!(heap.peek(&nodes), model.first_key_value().map(|(&(key, _), &id)| (id, key)));
            for id in 0..NODES {
                prop_assert_eq!(heap.contains(&nodes, id), model.values().any(|&v| v == id));
            }
        }
        while let Some(((key, _), id)) = model.pop_first() {
            prop_assert_eq!(heap.pop(&nodes), Some((id, key)));
        }
        prop_assert_eq!(heap.pop(&nodes), None);
    }

    #[test]
    fn timers_expire_in_order_and_every_change_of_the_earliest_is_told(
        ops in proptest::collection::vec((0u8..4, 0..NODES, 0u64..40), 1..300)
    ) {
        let nodes = Nodes::new();
        let mut timers = TimerQueue::new();
        let mut model: BTreeMap<(u64, usize), u32> = BTreeMap::new();
        let mut now = 0;
        for (time, (op, id, delta)) in ops.into_iter().enumerate() {
            let earliest = model.keys().next().map(|k| k.0);
            let armed = model.iter().find(|&(_, &v)| v == id).map(|(&k, _)| k);
            match op {
                0 | 1 => {
                    if let Some(k) = armed {
                        model.remove(&k);
                    }
                    model.insert((now + delta, time), id);
                    let changed = model.keys().next().map(|k| k.0) != earliest;
                    prop_assert_eq!(timers.arm(&nodes, id, now + delta), changed);
                }
                2 => {
                    if let Some(k) = armed {
                        model.remove(&k);
                    }
                    let changed = model.keys().next().map(|k| k.0) != earliest;
                    prop_assert_eq!(timers.cancel(&nodes, id), changed);
                }
                _ => {
                    now += delta;
                    while let Some((&(deadline, t), &id)) = model.first_key_value() {
                        if deadline > now {
                            break;
                        }
                        model.remove(&(deadline, t));
                        let next = model.keys().next().map_or(NEVER, |k| k.0);
                        prop_assert_eq!(timers.expire(&nodes, now), (Some(id), next));
                    }
                    let next = model.keys().next().map_or(NEVER, |k| k.0);
                    prop_assert_eq!(timers.expire(&nodes, now), (None, next));
                }
            }
            prop_assert_eq!(timers.next_deadline(&nodes), model.keys().next().map_or(NEVER, |k| k.0));
            prop_assert_eq!(timers.len(), model.len());
            prop_assert_eq!(timers.is_armed(&nodes, id), model.values().any(|&v| v == id));
        }
    }
}

//! Property tests: the trace ring with pushes nested at any step of pushes, and a reader at any step.
#![cfg(not(loom))]

use kcore::trace_ring::{Cursor, Next, TraceRing};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeSet;

const SLOTS: usize = 4;
type Ring = TraceRing<3, SLOTS>;

/// What happens at the steps of a push: one byte a step, from a tape. 0..=3: nest a push; 4..=6: read; else none.
struct World<'a> {
    ring: &'a Ring,
    tape: RefCell<std::vec::IntoIter<u8>>,
    tags: RefCell<u64>,
    pushed: RefCell<u64>,
    reader: RefCell<(Cursor, Vec<u64>, u64)>,
}

impl World<'_> {
    fn read(&self) -> bool {
        let mut reader = self.reader.borrow_mut();
        match reader.0.next(self.ring) {
            Next::Record(words) => {
                assert!(words[0] != 0 && words[1] == !words[0] && words[2] == words[0] * 3, "torn record {words:x?}");
                reader.1.push(words[0]);
                true
            }
            Next::Lost(n) => {
                assert!(n > 0);
                reader.2 += n;
                true
            }
            Next::Empty => false,
        }
    }

    fn push(&self, depth: u32) {
        let tag = {
            let mut tags = self.tags.borrow_mut();
            *tags += 1;
            *tags
        };
        *self.pushed.borrow_mut() += 1;
        self.ring.push_stepped([tag, !tag, tag * 3], |_| {
            let what = self.tape.borrow_mut().next().unwrap_or(255);
            match what {
                0..=3 if depth < 6 => self.push(depth + 1),
                4..=6 => {
                    self.read();
                }
                _ => {}
            }
        });
    }
}

proptest! {
    #[test]
    fn nothing_torn_nothing_twice_losses_exact(tape in proptest::collection::vec(0u8..16, 0..800), outer in 1u32..40) {
        let ring = Ring::new();
        let world = World {
            ring: &ring,
            tape: RefCell::new(tape.into_iter()),
            tags: RefCell::new(0),
            pushed: RefCell::new(0),
            reader: RefCell::new((Cursor::new(), Vec::new(), 0)),
        };
        for _ in 0..outer {
            world.push(0);
        }
        while world.read() {}
        let (_, tags, lost) = world.reader.into_inner();
        prop_assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len());
        prop_assert_eq!(tags.len() as u64 + lost, world.pushed.into_inner());
    }

    /// Without nesting the order is that of pushing, and the last SLOTS records are always there.
    #[test]
    fn keeps_the_newest(batches in proptest::collection::vec(0u64..12, 1..30)) {
        let ring = Ring::new();
        let (mut cursor, mut tag) = (Cursor::at_end(&ring), 0);
        for batch in batches {
            let first = tag + 1;
            for _ in 0..batch {
                tag += 1;
                prop_assert!(ring.push([tag, !tag, tag * 3]));
            }
            let kept = batch.min(SLOTS as u64);
            if batch > kept {
                prop_assert_eq!(cursor.next(&ring), Next::Lost(batch - kept));
            }
            for expected in first + batch - kept..=tag {
                prop_assert_eq!(cursor.next(&ring), Next::Record([expected, !expected, expected * 3]));
            }
            prop_assert_eq!(cursor.next(&ring), Next::Empty);
        }
    }
}

//! loom: one CPU's trace ring under its reader on another CPU, with an NMI's push nested at every step.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p kcore --release --test loom_ring`.
//! Preemptions are bounded at 2: one switch puts the reader (or the writer) into the other's window and one
//! ends it; the NMI needs none, it is a call between two steps on the writer's own thread.
#![cfg(loom)]

use kcore::trace_ring::{Cursor, Next, PushStep, TraceRing};
use loom::sync::Arc;
use loom::thread;

type Ring = TraceRing<2, 2>;

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(f);
}

fn record(tag: u64) -> [u64; 2] {
    [tag, tag ^ 0xffff]
}

/// What a reader saw.
#[derive(Default)]
struct Seen {
    tags: Vec<u64>,
    lost: u64,
}

impl Seen {
    /// Reads once; false if there was nothing.
    fn read(&mut self, cursor: &mut Cursor, ring: &Ring) -> bool {
        match cursor.next(ring) {
            Next::Record([tag, check]) => {
                assert!(tag != 0 && check == tag ^ 0xffff, "torn record {tag:#x} {check:#x}");
                assert!(!self.tags.contains(&tag), "record {tag} was given twice");
                self.tags.push(tag);
                true
            }
            Next::Lost(n) => {
                assert!(n > 0);
                self.lost += n;
                true
            }
            Next::Empty => false,
        }
    }
}

fn run(reads: u32, produce: fn(&Ring) -> u64) {
    model(move || {
        let ring = Arc::new(Ring::new());
        let reader = {
            let ring = ring.clone();
            thread::spawn(move || {
                let (mut cursor, mut seen) = (Cursor::new(), Seen::default());
                for _ in 0..reads {
                    seen.read(&mut cursor, &ring);
                }
                (cursor, seen)
            })
        };
        let pushed = produce(&ring);
        let (mut cursor, mut seen) = reader.join().expect("reader");
        while seen.read(&mut cursor, &ring) {}
        assert_eq!(seen.tags.len() as u64 + seen.lost, pushed, "losses are not exact");
    });
}

#[test]
fn reader_gets_whole_records_in_order() {
    run(2, |ring| {
        ring.push(record(1));
        ring.push(record(2));
        2
    });
}

#[test]
fn overwritten_records_are_counted_not_torn() {
    run(2, |ring| {
        for tag in 1..=3 {
            ring.push(record(tag));
        }
        3
    });
}

#[test]
fn two_laps_over_a_reader() {
    run(1, |ring| {
        for tag in 1..=5 {
            ring.push(record(tag));
        }
        5
    });
}

macro_rules! nested {
    ($($name:ident: $at:expr;)*) => {$(
        #[test]
        fn $name() {
            run(1, |ring| {
                ring.push(record(1));
                let mut nested = 0;
                ring.push_stepped(record(2), |step| {
                    if step == $at {
                        nested += 2;
                        ring.push(record(0x10));
                        ring.push(record(0x20));
                    }
                });
                2 + nested
            });
        }
    )*};
}

nested! {
    nmi_at_start: PushStep::Start;
    nmi_after_open: PushStep::Opened;
    nmi_after_announce: PushStep::Announced;
    nmi_after_mark: PushStep::Marked;
    nmi_between_words: PushStep::Words(1);
    nmi_before_commit: PushStep::Words(2);
    nmi_after_commit: PushStep::Committed;
    nmi_after_close: PushStep::Closed;
}

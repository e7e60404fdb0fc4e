//! Readers of the rings: each follows all CPUs from places of its own and gives the records in the order of their times.
//!
//! Process context on any CPU; the traced CPU is not told. One place is shared: that of trace_pipe, which consumes.

use super::rings;
use crate::percpu;
use crate::spin_lock::{SpinLock, rank};
use alloc::vec::Vec;
use kcore::trace_event::Record;
use kcore::trace_ring::{Cursor, Next};

/// What a reader gets of CPU `0`.
pub enum Entry {
    /// A record.
    Record(u32, Record),
    /// So many were overwritten or dropped before they were read.
    Lost(u32, u64),
}

#[derive(Clone)]
struct Place {
    cpu: u32,
    cursor: Cursor,
    /// Read from the ring, not given yet.
    next: Option<Record>,
    /// Records given.
    given: u64,
    /// Nothing from here on is given.
    end: u64,
}

/// Places in all rings.
#[derive(Clone, Default)]
pub struct Reader {
    places: Vec<Place>,
}

static PIPE: SpinLock<Reader, { rank::FILE }> = SpinLock::new(Reader { places: Vec::new() });

impl Reader {
    /// From the oldest records on; of no CPU as long as there are no rings.
    pub fn new() -> Self {
        let cpus = (0..percpu::nr_cpus()).filter(|&cpu| rings::of(cpu).is_some());
        let place = |cpu| Place { cpu, cursor: Cursor::new(), next: None, given: 0, end: u64::MAX };
        Reader { places: cpus.map(place).collect() }
    }

    /// Whether it follows no CPU: there were no rings when it was made.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The earliest entry of all CPUs, or of `only` that one.
    pub fn next(&mut self, only: Option<u32>) -> Option<Entry> {
        let mut first: Option<&mut Place> = None;
        for place in self.places.iter_mut().filter(|p| only.is_none_or(|cpu| cpu == p.cpu)) {
            if place.next.is_none() {
                let ring = rings::of(place.cpu)?;
                if place.cursor.position() >= place.end {
                    continue;
                }
                match place.cursor.next(&*ring) {
                    Next::Empty => continue,
                    Next::Lost(n) => return Some(Entry::Lost(place.cpu, n)),
                    Next::Record(words) => match Record::decode(&words) {
                        Ok(record) => place.next = Some(record),
                        Err(_) => return Some(Entry::Lost(place.cpu, 1)),
                    },
                }
            }
            let tsc = |p: &Place| p.next.map_or(u64::MAX, |r| r.tsc);
            if first.as_ref().is_none_or(|f| tsc(place) < tsc(f)) {
                first = Some(place);
            }
        }
        let place = first?;
        place.given += 1;
        place.next.take().map(|record| Entry::Record(place.cpu, record))
    }
}

/// What trace_pipe has not consumed, up to now: consumes nothing itself.
pub fn snapshot() -> Reader {
    let mut pipe = PIPE.lock();
    if pipe.is_empty() {
        *pipe = Reader::new();
    }
    let mut reader = pipe.clone();
    drop(pipe);
    for place in &mut reader.places {
        place.end = rings::of(place.cpu).map_or(0, |ring| ring.pushed());
    }
    reader
}

/// The next entry for trace_pipe, which is consumed by that.
pub fn consume(only: Option<u32>) -> Option<Entry> {
    let mut pipe = PIPE.lock();
    if pipe.is_empty() {
        *pipe = Reader::new();
    }
    pipe.next(only)
}

/// Where trace_pipe is in the ring of CPU `cpu`: number of the record that it gives next, and how many it has given.
pub fn consumed(cpu: u32) -> (u64, u64) {
    let pipe = PIPE.lock();
    let place = pipe.places.iter().find(|p| p.cpu == cpu);
    place.map_or((0, 0), |p| (p.cursor.position() - u64::from(p.next.is_some()), p.given))
}

/// Consume everything up to now, of all CPUs or of one.
pub fn clear(only: Option<u32>) {
    let mut pipe = PIPE.lock();
    if pipe.is_empty() {
        *pipe = Reader::new();
    }
    for place in pipe.places.iter_mut().filter(|p| only.is_none_or(|cpu| cpu == p.cpu)) {
        if let Some(ring) = rings::of(place.cpu) {
            (place.cursor, place.next) = (Cursor::at_end(&*ring), None);
        }
    }
}

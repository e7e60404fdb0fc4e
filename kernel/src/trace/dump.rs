//! The last records of all CPUs' rings as lines of the console, for the epitaph: where there is no second serial port, or its stream cannot
//! be used because a CPU was stopped while it worked on it.
//!
//! Each line is `@trace ` and the bytes of one frame (`kcore::trace_frame`) in hexadecimal digits; `host trace decode` finds them in a
//! console log. No lock, no heap; the other CPUs are stopped.

use super::{names, rings};
use crate::percpu;
use core::fmt;
use kcore::trace_event::{Names, Record, WORDS};
use kcore::trace_frame::{Encoder, Hello, Total};
use kcore::trace_ring::{Cursor, Next};

/// Records of all CPUs together, and the fewest of each.
const RECORDS: u64 = 512;
const FEWEST: u64 = 16;
/// Records of a frame: its bytes are on the dying CPU's stack, which may be that of an NMI.
const BATCH: usize = 4;
/// Bytes of a frame: head, the records, checksum; names and places are shorter.
const FRAME: usize = 320;
/// Places and tasks that were told, so that most are told once.
const TOLD: usize = 16;

/// Bytes as hexadecimal digits.
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One frame as a line.
fn put(frame: Option<&[u8]>) {
    if let Some(bytes) = frame {
        crate::console::print_dying(format_args!("@trace {}\n", Hex(bytes)));
    }
}

/// The last few numbers told; says whether `number` is one of them, and takes it in.
struct Told {
    numbers: [u64; TOLD],
    next: usize,
}

impl Told {
    const fn new() -> Self {
        Self { numbers: [0; TOLD], next: 0 }
    }

    fn has(&mut self, number: u64) -> bool {
        if number == 0 || self.numbers.contains(&number) {
            return true;
        }
        self.numbers[self.next % TOLD] = number;
        self.next += 1;
        false
    }
}

/// All CPUs' last records. The dying CPU.
pub fn to_console() {
    let cpus = (0..percpu::nr_cpus()).filter(|&cpu| rings::of_stopped(cpu).is_some()).count() as u64;
    if cpus == 0 {
        return;
    }
    let count = (RECORDS / cpus).max(FEWEST);
    let mut encoder = Encoder::new();
    let mut frame = [0; FRAME];
    put(encoder.hello(&mut frame, &Hello { clock: names::clock(), cpus: percpu::nr_cpus() }));
    let (mut sites, mut tasks) = (Told::new(), Told::new());
    for cpu in 0..percpu::nr_cpus() {
        let Some(ring) = rings::of_stopped(cpu) else { continue };
        let mut cursor = Cursor::at_last(ring, count);
        // What is older was written too, and is not in here.
        let mut total = Total { cpu, delivered: 0, lost: cursor.position() };
        let mut batch = [[0; WORDS]; BATCH];
        let mut filled = 0;
        for _ in 0..2 * count {
            let words = match cursor.next(ring) {
                Next::Empty => break,
                Next::Lost(lost) => {
                    total.lost += lost;
                    continue;
                }
                Next::Record(words) => words,
            };
            if let Ok(record) = Record::decode(&words) {
                if let Some(site) = Some(record.site()).filter(|&s| !sites.has(s)).and_then(names::site) {
                    put(encoder.site(&mut frame, record.site(), &site));
                }
                for id in record.tasks() {
                    if !tasks.has(u64::from(id))
                        && let Some(comm) = names::KernelNames.comm(id)
                    {
                        put(encoder.task(&mut frame, id, &comm));
                    }
                }
            }
            batch[filled] = words;
            filled += 1;
            if filled == BATCH {
                put(encoder.records(&mut frame, &total, &batch));
                total.delivered += BATCH as u64;
                filled = 0;
            }
        }
        if filled > 0 {
            put(encoder.records(&mut frame, &total, &batch[..filled]));
            total.delivered += filled as u64;
        }
        put(encoder.end(&mut frame, &[total]));
    }
}

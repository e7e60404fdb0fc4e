//! The drain: a housekeeping thread takes all CPUs' records over, to the second serial port as frames, with `tp_printk` to the
//! console as text, and keeps the names of tasks. It reads the rings and never interrupts anyone.
//!
//! Whoever works holds the stream alone: the thread for a round, power-off and the epitaph for good, after which nothing is sent.

use super::reader::{Entry, Reader};
use super::{interruption_log, names, rings};
use crate::arch::serial::{COM2, SerialPort};
use crate::arch::tsc;
use crate::percpu;
use crate::sched::task;
use crate::time::timer;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use kcore::interruption::Interruption;
use kcore::trace_event::{Line, Names, Record, Site, WORDS};
use kcore::trace_frame::{Encoder, Hello, MAX_FRAME, Total};

/// How often the rings are looked at while much happens; when little does, up to `LONGEST_NS`: each look makes records itself.
const PERIOD_NS: u64 = 10_000_000;
const LONGEST_NS: u64 = 80_000_000;
/// So many entries in one look are much.
const MUCH: usize = 64;
/// Entries of one round, after which what is due else is done.
const ROUND: usize = 1024;
/// Records of a frame.
const BATCH: usize = 32;
/// Names that are kept; then all are told anew.
const MAX_NAMES: usize = 4096;
/// How long power-off waits for the thread's round.
const PATIENCE_NS: u64 = 5_000_000_000;

/// The stream while nobody works on it.
static STREAM: AtomicPtr<Stream> = AtomicPtr::new(null_mut());
static STARTED: AtomicBool = AtomicBool::new(false);
static TEXT: AtomicBool = AtomicBool::new(false);

/// A task's name, as the lines and frames have it from now on.
struct Name {
    comm: [u8; 16],
    /// The last round in which a record told it.
    told_in: u64,
}

/// The second serial port.
struct Output {
    port: SerialPort,
    room: usize,
    encoder: Encoder,
    frame: Box<[u8]>,
    /// Sites that were told.
    sites: BTreeSet<u64>,
    /// When HELLO was said last.
    hello_tsc: u64,
    /// By CPU: what was sent, and what waits for its frame.
    cpus: Vec<(Total, Vec<[u64; WORDS]>)>,
}

struct Stream {
    reader: Reader,
    /// Place in the interruption log.
    position: u64,
    round: u64,
    names: BTreeMap<u32, Name>,
    output: Option<Output>,
    text: bool,
    /// The heap may be locked by a CPU that was stopped: nothing may be allocated.
    dying: bool,
}

/// `tp_printk`, and the thread, if anything is traced. Process context, once.
pub fn start(tp_printk: bool) {
    TEXT.store(tp_printk, Ordering::Relaxed);
    let logged = interruption_log::start();
    if logged || !rings::selected().is_empty() {
        ensure_started();
    }
}

/// The thread runs from now on. Process context.
pub fn ensure_started() {
    if STARTED.swap(true, Ordering::Relaxed) {
        return;
    }
    let stream = Box::new(Stream {
        reader: Reader::new(),
        position: 0,
        round: 0,
        names: BTreeMap::new(),
        output: Output::find(),
        text: TEXT.load(Ordering::Relaxed),
        dying: false,
    });
    put_back(stream);
    task::spawn_kthread("trace", drain_thread, 0).unwrap_or_else(|e| panic!("cannot start the trace's drain: {e:?}"));
}

fn take() -> Option<Box<Stream>> {
    let stream = STREAM.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: not null means from `put_back`, and the swap gave it to this caller alone.
    (!stream.is_null()).then(|| unsafe { Box::from_raw(stream) })
}

fn put_back(stream: Box<Stream>) {
    STREAM.store(Box::into_raw(stream), Ordering::Release);
}

fn drain_thread(_: usize) {
    let mut period_ns = PERIOD_NS;
    loop {
        let mut seen = interruption_log::drain();
        let Some(mut stream) = take() else { return };
        let entries = stream.round();
        put_back(stream);
        seen += entries;
        period_ns = if seen >= MUCH { PERIOD_NS } else { (2 * period_ns).min(LONGEST_NS) };
        if entries < ROUND {
            timer::sleep_ns(period_ns, false);
        }
    }
}

/// Power-off: recording stops, what is there is sent, and the stream ends. Process context.
pub fn finish() {
    if !STARTED.load(Ordering::Relaxed) {
        return;
    }
    rings::set_on(false);
    let give_up = tsc::now() + tsc::ns_to_ticks(PATIENCE_NS);
    let mut stream = loop {
        if let Some(stream) = take() {
            break stream;
        }
        if tsc::now() > give_up {
            return crate::warning!("the trace's drain does not come to an end");
        }
        timer::sleep_ns(PERIOD_NS / 10, false);
    };
    interruption_log::drain();
    while stream.round() == ROUND {}
    stream.end();
    Box::leak(stream);
}

/// The epitaph's last act: what the rings hold and the stream's end to the second serial port. False: there is none, or somebody was
/// stopped while working on it. No lock, no heap.
pub fn finish_dying() -> bool {
    let Some(stream) = take() else { return false };
    let stream = Box::leak(stream);
    if stream.output.is_none() {
        return false;
    }
    (stream.dying, stream.text) = (true, false);
    while stream.round() == ROUND {}
    stream.end();
    true
}

impl Stream {
    /// Take over what the rings hold, up to `ROUND` entries; gives their number.
    fn round(&mut self) -> usize {
        self.round += 1;
        if self.reader.is_empty() && !self.dying {
            self.reader = Reader::new();
        }
        if let Some(output) = &mut self.output {
            output.hello_if_due();
        }
        let mut entries = 0;
        while entries < ROUND {
            let Some(entry) = self.reader.next(None) else { break };
            entries += 1;
            match entry {
                Entry::Record(cpu, record) => self.record(cpu, &record),
                Entry::Lost(cpu, lost) => self.lost(cpu, lost),
            }
        }
        if !self.dying {
            self.interruptions();
        }
        if let Some(output) = &mut self.output {
            output.send_all();
        }
        entries
    }

    fn record(&mut self, cpu: u32, record: &Record) {
        for task in record.named_tasks().into_iter().flatten() {
            self.name(task.id, Some(task.comm));
        }
        for id in record.tasks() {
            self.name(id, None);
        }
        if self.text {
            let clock = names::clock();
            crate::console::print_trace(format_args!("{}", Line { cpu, record, clock: &clock, names: self }));
        }
        if let Some(output) = &mut self.output {
            output.site(record.site(), self.dying);
            output.record(cpu, record.encode(), self.dying);
        }
    }

    fn lost(&mut self, cpu: u32, lost: u64) {
        if self.text {
            crate::console::print_trace(format_args!("CPU:{cpu} [LOST {lost} EVENTS]"));
        }
        if let Some(output) = &mut self.output {
            output.send_records(cpu);
            if let Some((total, _)) = output.cpus.get_mut(cpu as usize) {
                total.lost += lost;
            }
        }
    }

    /// Task `id` occurs in the next record, which may tell its name. Else it is the one that the task has now or had when it ended, unless
    /// a record of this round told another.
    fn name(&mut self, id: u32, told: Option<[u8; 16]>) {
        let round = self.round;
        let known = self.names.get_mut(&id);
        if id == 0 || told.is_none() && known.as_ref().is_some_and(|name| name.told_in == round) {
            return;
        }
        let told_in = if told.is_some() { round } else { 0 };
        let comm = told.or_else(|| names::KernelNames.comm(id));
        let (Some(comm), renamed) = (comm, known.is_some()) else { return };
        if let Some(name) = known {
            name.told_in = told_in;
            if name.comm == comm {
                return;
            }
            name.comm = comm;
        } else if !self.dying {
            if self.names.len() == MAX_NAMES {
                self.names.clear();
            }
            self.names.insert(id, Name { comm, told_in });
        }
        if let Some(output) = &mut self.output {
            if renamed {
                // What is on its way has the old name.
                output.send_all();
            }
            output.send(|encoder, frame| encoder.task(frame, id, &comm).map(<[u8]>::len));
        }
    }

    fn interruptions(&mut self) {
        let Some(output) = &mut self.output else { return };
        while let Some(i) = interruption_log::next(&mut self.position) {
            output.interruption(&i, self.dying);
        }
    }

    fn end(&mut self) {
        let Some(output) = &mut self.output else { return };
        output.end();
        output.port.drain();
    }
}

impl Names for Stream {
    fn comm(&self, id: u32) -> Option<[u8; 16]> {
        self.names.get(&id).map(|name| name.comm)
    }

    fn site(&self, address: u64) -> Option<Site<'_>> {
        names::site(address)
    }
}

impl Output {
    /// The second serial port, if there is one.
    fn find() -> Option<Output> {
        let port = SerialPort::new(COM2);
        if !port.keeps_scratch() {
            return None;
        }
        port.init();
        let total = |cpu| Total { cpu, delivered: 0, lost: 0 };
        let mut output = Output {
            port,
            room: port.enable_fifo(),
            encoder: Encoder::new(),
            frame: alloc::vec![0; MAX_FRAME].into_boxed_slice(),
            sites: BTreeSet::new(),
            hello_tsc: 0,
            cpus: (0..percpu::nr_cpus()).map(|cpu| (total(cpu), Vec::new())).collect(),
        };
        output.hello();
        Some(output)
    }

    /// Send the frame that `make` makes; it gives the frame's length.
    fn send(&mut self, make: impl FnOnce(&mut Encoder, &mut [u8]) -> Option<usize>) {
        let len = make(&mut self.encoder, &mut self.frame).unwrap_or(0);
        self.port.put_all(&self.frame[..len], self.room);
    }

    fn hello(&mut self) {
        self.hello_tsc = tsc::now();
        let hello = Hello { clock: names::clock(), cpus: percpu::nr_cpus() };
        self.send(|encoder, frame| encoder.hello(frame, &hello).map(<[u8]>::len));
    }

    /// Again each second: who listens from now on needs it.
    fn hello_if_due(&mut self) {
        if tsc::now().saturating_sub(self.hello_tsc) >= tsc::ns_to_ticks(1_000_000_000) {
            self.hello();
        }
    }

    fn site(&mut self, address: u64, dying: bool) {
        if address == 0 || self.sites.contains(&address) {
            return;
        }
        if !dying {
            self.sites.insert(address);
        }
        if let Some(site) = names::site(address) {
            self.send(|encoder, frame| encoder.site(frame, address, &site).map(<[u8]>::len));
        }
    }

    fn record(&mut self, cpu: u32, words: [u64; WORDS], dying: bool) {
        if dying {
            self.send_records(cpu);
            self.send_now(cpu, &[words]);
            return;
        }
        let Some((_, waiting)) = self.cpus.get_mut(cpu as usize) else { return };
        if waiting.capacity() == 0 {
            waiting.reserve_exact(BATCH);
        }
        waiting.push(words);
        if waiting.len() == BATCH {
            self.send_records(cpu);
        }
    }

    /// What waits of CPU `cpu`.
    fn send_records(&mut self, cpu: u32) {
        let Some((_, waiting)) = self.cpus.get_mut(cpu as usize) else { return };
        if waiting.is_empty() {
            return;
        }
        let mut records = core::mem::take(waiting);
        self.send_now(cpu, &records);
        records.clear();
        self.cpus[cpu as usize].1 = records;
    }

    fn send_now(&mut self, cpu: u32, records: &[[u64; WORDS]]) {
        let Some((total, _)) = self.cpus.get_mut(cpu as usize) else { return };
        let before = *total;
        total.delivered += records.len() as u64;
        self.send(|encoder, frame| encoder.records(frame, &before, records).map(<[u8]>::len));
    }

    fn send_all(&mut self) {
        (0..self.cpus.len() as u32).for_each(|cpu| self.send_records(cpu));
    }

    fn interruption(&mut self, i: &Interruption, dying: bool) {
        self.site(i.site, dying);
        self.send(|encoder, frame| encoder.interruption(frame, &i.encode()).map(<[u8]>::len));
    }

    /// What was sent and lost of each CPU, a few CPUs in a frame.
    fn end(&mut self) {
        const CPUS: usize = 16;
        for first in (0..self.cpus.len()).step_by(CPUS) {
            let mut totals = [Total::default(); CPUS];
            let here = &self.cpus[first..(first + CPUS).min(self.cpus.len())];
            totals.iter_mut().zip(here).for_each(|(to, (total, _))| *to = *total);
            let count = here.len();
            self.send(|encoder, frame| encoder.end(frame, &totals[..count]).map(<[u8]>::len));
        }
    }
}

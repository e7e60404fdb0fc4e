//! A trace file as what it tells: records in the order of their time, names, losses. Pure but for reading the file.

use crate::failure::{self, Failure};
use kcore::interruption::Interruption;
use kcore::trace_event::{Clock, DecodeError, Line, Names, Record, Site};
use kcore::trace_frame::{Account, Decoder, Frame, Hello, Item};
use std::collections::BTreeMap;
use std::path::Path;

/// What stands in one place of the trace.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A record.
    Record(Record),
    /// So many records of this CPU were lost before its next record: in the kernel, on the line.
    Lost(u64, u64),
    /// An interruption of an isolated CPU, from its own log.
    Interruption(Interruption),
}

/// One place of the trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Which boot on this line, from 0.
    pub boot: usize,
    /// Its number in the stream, from 1; a loss has that of the record after it.
    pub number: u64,
    /// The CPU.
    pub cpu: u32,
    /// When, in the CPU's ticks; a loss has that of the record after it.
    pub tsc: u64,
    /// What.
    pub what: What,
}

/// A whole trace.
#[derive(Debug, Default)]
pub struct Trace {
    /// By boot and time.
    pub entries: Vec<Entry>,
    /// Where every record went.
    pub account: Account,
    /// Records that arrived whole and mean nothing here, by number.
    pub undecodable: Vec<(u64, DecodeError)>,
    hellos: Vec<Option<Hello>>,
    sites: BTreeMap<(usize, u64), (String, u32)>,
    /// Names of tasks, each from a record's number on.
    tasks: BTreeMap<(usize, u32), Vec<Name>>,
}

/// A task's name, from the record with this number on.
type Name = (u64, [u8; 16]);

/// Reads and decodes the file: what the second serial port gave, or a console log with the dump of an epitaph.
pub fn read(path: &Path) -> Result<Trace, Failure> {
    let bytes = failure::read(path)?;
    Ok(decode(console_dump(&bytes).as_deref().unwrap_or(&bytes)))
}

/// What the lines of a console log that start with `@trace` hold, which the kernel prints after an epitaph; `None` without such lines.
/// Lines that are damaged are left out: the decoder tells what is missing.
pub fn console_dump(log: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: &u8| (*c as char).to_digit(16).map(|d| d as u8);
    let frame = |line: &[u8]| -> Option<Vec<u8>> {
        let digits: Option<Vec<u8>> = line.trim_ascii().strip_prefix(b"@trace ")?.iter().map(digit).collect();
        Some(digits?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
    };
    let frames: Vec<_> = log.split(|&b| b == b'\n').filter_map(frame).collect();
    (!frames.is_empty()).then(|| frames.concat())
}

/// The trace in these bytes, whatever they are.
pub fn decode(bytes: &[u8]) -> Trace {
    let mut decoder = Decoder::new();
    let mut trace = Trace { hellos: vec![None], ..Trace::default() };
    let mut number = 0;
    for piece in bytes.chunks(64 * 1024) {
        decoder.push(piece);
        while let Some(item) = decoder.next() {
            trace.take(item, &mut number);
        }
    }
    decoder.end();
    while let Some(item) = decoder.next() {
        trace.take(item, &mut number);
    }
    // Records of several CPUs come in turns; and an NMI's may stand before the one that it interrupted in the making.
    trace.entries.sort_by_key(|entry| (entry.boot, entry.tsc));
    trace
}

impl Trace {
    fn boot(&self) -> usize {
        self.hellos.len() - 1
    }

    fn take(&mut self, item: Item, number: &mut u64) {
        if item == Item::Restart {
            self.hellos.push(None);
        }
        if let Item::Frame(Frame::Records { before, records }) = &item {
            let known =
                self.account.cpus().find(|&(cpu, _)| cpu == before.cpu).map_or_else(Default::default, |(_, a)| *a);
            let in_kernel = before.lost.saturating_sub(known.lost_in_kernel);
            let on_line = before.delivered.saturating_sub(known.delivered);
            self.records(before.cpu, (in_kernel, on_line), records, number);
        }
        self.account.add(&item);
        let boot = self.boot();
        match item {
            Item::Frame(Frame::Hello(hello)) => self.hellos[boot] = Some(hello),
            Item::Frame(Frame::Site { address, file, line }) => {
                self.sites.insert((boot, address), (file, line));
            }
            Item::Frame(Frame::Task { id, comm }) => {
                self.tasks.entry((boot, id)).or_default().push((*number + 1, comm));
            }
            Item::Frame(Frame::Interruption(i)) => {
                let what = What::Interruption(i);
                self.entries.push(Entry { boot, number: *number, cpu: i.cpu, tsc: i.start_tsc, what });
            }
            _ => {}
        }
    }

    fn records(&mut self, cpu: u32, lost: (u64, u64), records: &[[u64; 7]], number: &mut u64) {
        let boot = self.boot();
        if lost != (0, 0) {
            let tsc = records.first().map_or(u64::MAX, |words| words[0]);
            let what = What::Lost(lost.0, lost.1);
            self.entries.push(Entry { boot, number: *number + 1, cpu, tsc, what });
        }
        for words in records {
            *number += 1;
            match Record::decode(words) {
                Ok(record) => {
                    let what = What::Record(record);
                    self.entries.push(Entry { boot, number: *number, cpu, tsc: record.tsc, what });
                }
                Err(error) => self.undecodable.push((*number, error)),
            }
        }
    }

    /// Number of boots on this line.
    pub fn boots(&self) -> usize {
        self.hellos.len()
    }

    /// The clock of a boot. Without HELLO frames a tick counts as a nanosecond.
    pub fn clock(&self, boot: usize) -> Clock {
        match self.hellos.get(boot).copied().flatten() {
            Some(hello) => hello.clock,
            None => Clock { tsc_khz: 1_000_000, boot_tsc: 0 },
        }
    }

    /// Whether the clock of every boot is known.
    pub fn has_clocks(&self) -> bool {
        self.hellos.iter().all(Option::is_some)
    }

    /// The records, in their order.
    pub fn records_in_order(&self) -> impl Iterator<Item = (&Entry, &Record)> {
        self.entries.iter().filter_map(|entry| match &entry.what {
            What::Record(record) => Some((entry, record)),
            _ => None,
        })
    }

    /// Who knows names at the time of an entry.
    pub fn names(&self, entry: &Entry) -> NamesAt<'_> {
        NamesAt { trace: self, boot: entry.boot, number: entry.number }
    }

    /// An entry as a line of text, as the kernel writes it.
    pub fn line(&self, entry: &Entry) -> String {
        let names = self.names(entry);
        let clock = self.clock(entry.boot);
        match &entry.what {
            What::Record(record) => Line { cpu: entry.cpu, record, clock: &clock, names: &names }.to_string(),
            What::Lost(in_kernel, on_line) => {
                let told = |count: &u64, place| if *count == 0 { String::new() } else { format!(" {count} {place}") };
                let (in_kernel, on_line) = (told(in_kernel, "in the kernel"), told(on_line, "on the line"));
                format!("CPU:{} [LOST EVENTS:{in_kernel}{on_line}]", entry.cpu)
            }
            What::Interruption(i) => interruption(i, &clock, &names),
        }
    }
}

/// An interruption as `log` shows it.
fn interruption(i: &Interruption, clock: &Clock, names: &NamesAt<'_>) -> String {
    let mut text =
        format!("interruption: time_ns={} cpu={} cause={}", clock.time_ns(i.start_tsc), i.cpu, i.cause.name());
    if let Some(cpu) = i.sender_cpu {
        let comm = comm_text(&i.sender_comm);
        text.push_str(&format!(" sender_cpu={cpu} sender_task={} sender_comm={comm}", i.sender_task));
    }
    match names.site(i.site) {
        Some(site) => text.push_str(&format!(" site={}:{}", site.file, site.line)),
        None if i.site != 0 => text.push_str(&format!(" site={:#x}", i.site)),
        None => {}
    }
    text + &format!(" duration_ns={} total={}", clock.ns(i.end_tsc.wrapping_sub(i.start_tsc)), i.total)
}

/// A task's name as text, up to its first zero.
pub fn comm_text(comm: &[u8; 16]) -> String {
    let len = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    comm[..len].iter().map(|&byte| if byte.is_ascii_graphic() { byte as char } else { '?' }).collect()
}

/// The names as they were at one place of the trace.
pub struct NamesAt<'a> {
    trace: &'a Trace,
    boot: usize,
    number: u64,
}

impl Names for NamesAt<'_> {
    fn comm(&self, task: u32) -> Option<[u8; 16]> {
        let names = self.trace.tasks.get(&(self.boot, task))?;
        // The first one counts for what is before it too: its frame may have been lost.
        let next = names.partition_point(|&(from, _)| from <= self.number);
        names.get(next.saturating_sub(1)).map(|&(_, comm)| comm)
    }

    fn site(&self, address: u64) -> Option<Site<'_>> {
        self.trace.sites.get(&(self.boot, address)).map(|(file, line)| Site { file, line: *line })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use kcore::interruption::Cause;
    use kcore::trace_event::{Data, Flags};
    use kcore::trace_frame::{Encoder, MAX_FRAME, Total};

    /// A small stream: a timer interrupt and an IPI on CPU 1, sent by CPU 0; then CPU 1 loses three records. Frame by frame.
    pub fn small() -> Vec<Vec<u8>> {
        let record = |tsc, task, data| Record { tsc, flags: Flags::IRQS_OFF, task, data }.encode();
        let (timer, call) = (Cause::Timer, Cause::CallFunction);
        let mut out = vec![0; MAX_FRAME];
        let mut e = Encoder::new();
        let total = |cpu, delivered, lost| Total { cpu, delivered, lost };
        let clock = Clock { tsc_khz: 1_000_000, boot_tsc: 1000 };
        let mut frames = vec![e.hello(&mut out, &Hello { clock, cpus: 2 }).unwrap().to_vec()];
        frames.push(e.task(&mut out, 7, b"spin\0\0\0\0\0\0\0\0\0\0\0\0").unwrap().to_vec());
        let one = [
            record(2_000, 7, Data::IrqEntry { vector: 236, cause: timer }),
            record(2_500, 7, Data::IrqExit { vector: 236, cause: timer }),
        ];
        frames.push(e.records(&mut out, &total(1, 0, 0), &one).unwrap().to_vec());
        frames.push(e.site(&mut out, 64, &Site { file: "kernel/src/a.rs", line: 5 }).unwrap().to_vec());
        frames.push(e.task(&mut out, 9, b"noise\0\0\0\0\0\0\0\0\0\0\0").unwrap().to_vec());
        let send = record(2_100, 9, Data::IpiSend { target_cpu: 1, cause: call, site: 64 });
        frames.push(e.records(&mut out, &total(0, 0, 0), &[send]).unwrap().to_vec());
        let two = [
            record(2_600, 7, Data::IpiEntry { cause: call, sender: Some((0, 9)), site: 64 }),
            record(2_700, 7, Data::IpiExit { cause: call, duration_ticks: 100 }),
        ];
        frames.push(e.records(&mut out, &total(1, 2, 0), &two).unwrap().to_vec());
        let three = [record(9_000, 7, Data::IrqEntry { vector: 236, cause: timer })];
        frames.push(e.records(&mut out, &total(1, 4, 3), &three).unwrap().to_vec());
        frames.push(e.end(&mut out, &[total(0, 1, 0), total(1, 5, 3)]).unwrap().to_vec());
        frames
    }

    #[test]
    fn entries_are_in_the_order_of_time_with_names_and_losses() {
        let trace = decode(&small().concat());
        let lines: Vec<String> = trace.entries.iter().map(|entry| trace.line(entry)).collect();
        let expected = [
            "            spin-7       [001] d...     0.000001: irq_entry: vector=236 name=timer",
            "           noise-9       [000] d...     0.000001: ipi_send_cpu: cpu=1 cause=call_function callsite=kernel/src/a.rs:5",
            "            spin-7       [001] d...     0.000001: irq_exit: vector=236 name=timer",
            "            spin-7       [001] d...     0.000001: ipi_entry: cause=call_function sender_cpu=0 sender_task=9 \
             sender_comm=noise callsite=kernel/src/a.rs:5",
            "            spin-7       [001] d...     0.000001: ipi_exit: cause=call_function duration_ns=100",
            "CPU:1 [LOST EVENTS: 3 in the kernel]",
            "            spin-7       [001] d...     0.000008: irq_entry: vector=236 name=timer",
        ];
        assert_eq!(lines, expected);
        assert!(trace.account.ended && trace.has_clocks() && trace.undecodable.is_empty());
        assert_eq!((trace.account.all().pushed(), trace.account.all().lost_on_line()), (9, 0));
    }

    #[test]
    fn a_missing_frame_is_a_loss_on_the_line_at_its_place() {
        let mut frames = small();
        frames.remove(6);
        let trace = decode(&frames.concat());
        assert_eq!(trace.account.all().lost_on_line(), 2);
        let lost: Vec<_> = trace.entries.iter().filter(|entry| matches!(entry.what, What::Lost(..))).collect();
        assert_eq!(lost.len(), 1);
        assert_eq!(trace.line(lost[0]), "CPU:1 [LOST EVENTS: 3 in the kernel 2 on the line]");
        assert_eq!((lost[0].tsc, lost[0].cpu), (9_000, 1));
    }
}

//! `host trace check`: replays every CPU of a trace against the rules of the context word. The rules are kcore's. Pure.

use super::stream::{Trace, What};
use kcore::context_tracking::counter;
use kcore::posted_work::{PostedWork, Wrong};
use kcore::trace_conformance::{Fault, Replay, Told};
use kcore::trace_event::{Data, Event, Group, Record};
use std::collections::BTreeMap;

/// What the replay found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Steps that nothing before them explains: number of the record, CPU, what is wrong, the record's line.
    pub faults: Vec<(u64, u32, Unexplained, String)>,
    /// Places where records are missing, after which the replay began anew.
    pub gaps: u64,
    /// Transitions that were checked.
    pub checked: u64,
    /// NMIs that only the counter tells, because their group is not traced.
    pub untold_nmis: u64,
    /// CPUs with a transition.
    pub cpus: usize,
    /// Pieces of work that senders left in other CPUs' words.
    pub posts: u64,
    /// Of them, those that were found on the way in before anything else was recorded.
    pub ran: u64,
    /// Ways in that found work.
    pub entries_with_work: u64,
    /// Pieces for CPUs that have not come in since.
    pub waiting: u64,
}

/// What nothing before it explains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unexplained {
    /// A step of the context word.
    Step(Fault),
    /// Posted work.
    Work(Wrong),
}

impl std::fmt::Display for Unexplained {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unexplained::Step(fault) => fault.fmt(f),
            Unexplained::Work(wrong) => wrong.fmt(f),
        }
    }
}

/// Which events the trace has.
fn told(trace: &Trace) -> Told {
    let has = |event| trace.records_in_order().any(|(_, record)| record.data.event() == event);
    let of_irq = trace.records_in_order().any(|(_, record)| record.data.event().group() == Group::Irq);
    Told {
        nmis: of_irq && has(Event::NmiEntry) == has(Event::NmiExit),
        irqs: has(Event::IrqEntry) && has(Event::IrqExit),
    }
}

/// What senders posted, by boot.
fn posted(trace: &Trace) -> BTreeMap<usize, PostedWork> {
    let mut posted: BTreeMap<usize, PostedWork> = BTreeMap::new();
    for entry in &trace.entries {
        let work = posted.entry(entry.boot).or_default();
        match entry.what {
            What::Record(Record { data: Data::WorkPosted { target_cpu, bits, word, .. }, .. }) => {
                work.post(target_cpu, counter(word), bits);
            }
            What::Lost(..) => work.posts_missing(),
            _ => {}
        }
    }
    posted.values_mut().for_each(PostedWork::sort);
    posted
}

/// What the record says of work that waited on its CPU.
fn of_work(work: &mut PostedWork, cpu: u32, data: &Data) -> Result<(), Wrong> {
    match *data {
        Data::UserEnter { word, .. } | Data::IdleEnter { word } if word != 0 => work.left(cpu, counter(word) + 1),
        Data::UserExit { word, .. } | Data::IdleExit { word } if word != 0 => return work.came_in(cpu, counter(word)),
        Data::WorkRan { bits, word } => return work.ran(cpu, counter(word), bits),
        _ => {}
    }
    Ok(())
}

/// Replays the whole trace.
pub fn replay(trace: &Trace) -> Findings {
    let told = told(trace);
    let mut findings = Findings::default();
    let mut work = posted(trace);
    let mut replays: BTreeMap<(usize, u32), Replay> = BTreeMap::new();
    for entry in &trace.entries {
        let replay = replays.entry((entry.boot, entry.cpu)).or_insert_with(|| Replay::new(told));
        let work = work.entry(entry.boot).or_default();
        match &entry.what {
            What::Record(record) => {
                let mut fault = |fault| findings.faults.push((entry.number, entry.cpu, fault, trace.line(entry)));
                let _ = replay.record(record).map_err(|found| fault(Unexplained::Step(found)));
                let _ = of_work(work, entry.cpu, &record.data).map_err(|found| fault(Unexplained::Work(found)));
            }
            What::Lost(..) => {
                findings.gaps += 1;
                replay.gap();
                work.target_missing(entry.cpu);
            }
            What::Interruption(_) => {}
        }
    }
    for work in work.values() {
        findings.posts += work.posts;
        findings.ran += work.ran;
        findings.entries_with_work += work.entries;
        findings.waiting += work.waiting();
    }
    for replay in replays.values() {
        findings.checked += replay.checked;
        findings.untold_nmis += replay.untold_nmis;
        findings.cpus += usize::from(replay.checked > 0);
    }
    findings
}

impl Findings {
    /// One line a fault, then one line in all.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (number, cpu, fault, line) in &self.faults {
            out.push_str(&format!("record {number}, cpu {cpu}: {fault}\n    {line}\n"));
        }
        let nmis = match self.untold_nmis {
            0 => String::new(),
            count => format!(", {count} NMIs told by the counter alone"),
        };
        out + &format!(
            "context: {} transitions on {} CPUs checked, {} unexplained, {} gaps{nmis}\n",
            self.checked,
            self.cpus,
            self.faults.len(),
            self.gaps
        ) + &match self.posts {
            0 => String::new(),
            posts => format!(
                "work: {posts} pieces posted, {} found on {} ways in before anything else there, {} not yet due\n",
                self.ran, self.entries_with_work, self.waiting
            ),
        }
    }
}

/// Whether the trace has the events that the replay is about.
pub fn has_transitions(trace: &Trace) -> bool {
    let transition = |event| matches!(event, Event::UserExit | Event::UserEnter | Event::IdleEnter | Event::IdleExit);
    trace.records_in_order().any(|(_, record)| transition(record.data.event()))
}

#[cfg(test)]
mod tests {
    use super::super::stream;
    use super::*;
    use kcore::context_tracking::{ContextWord, Deferred, Posted};
    use kcore::trace_event::{By, Flags};
    use kcore::trace_frame::{Encoder, MAX_FRAME, Total};

    /// Two stays in user mode; the record with the number `without` is not sent, and told as lost if `told`.
    fn trace(without: usize, told: bool) -> Trace {
        let word: ContextWord = ContextWord::new();
        let mut records = Vec::new();
        for tsc in 0..4 {
            let data = if tsc % 2 == 0 {
                let data = Data::UserEnter { by: By::Irq, word: word.load() };
                assert!(word.user_enter().is_plain());
                data
            } else {
                assert!(word.user_exit().is_plain());
                Data::UserExit { by: By::Irq, word: word.load() }
            };
            records.push(Record { tsc, flags: Flags::NONE, task: 1, data }.encode());
        }
        let (mut encoder, mut out, mut bytes) = (Encoder::new(), vec![0; MAX_FRAME], Vec::new());
        let mut total = Total { cpu: 2, delivered: 0, lost: 0 };
        for (i, record) in records.iter().enumerate() {
            if i + 1 == without {
                total.lost += u64::from(told);
                continue;
            }
            bytes.extend(encoder.records(&mut out, &total, &[*record]).unwrap());
            total.delivered += 1;
        }
        stream::decode(&bytes)
    }

    /// CPU 2 stays in user mode; CPU 0 leaves it work, twice, with a clock that is ahead or behind. The work's own record of CPU 2 comes
    /// with `found`, the post's with `told`.
    fn with_work(found: bool, told: bool) -> Trace {
        let word: ContextWord = ContextWord::new();
        let (by, mut cpus) = (By::Irq, [Vec::new(), Vec::new()]);
        cpus[1].push(Data::UserEnter { by, word: word.load() });
        assert!(word.user_enter().is_plain());
        for work in [Deferred::SyncCore, Deferred::FlushKernelTlb] {
            let Posted::Left { found } = word.post(work) else { unreachable!() };
            if told {
                cpus[0].push(Data::WorkPosted { target_cpu: 2, bits: work.bit(), word: found, site: 0 });
            }
        }
        assert!(word.user_exit().is_legal());
        if found {
            cpus[1].push(Data::WorkRan { bits: 3, word: word.load() });
        }
        word.clear_deferred(3);
        cpus[1].push(Data::UserExit { by, word: word.load() });
        let (mut encoder, mut out, mut bytes) = (Encoder::new(), vec![0; MAX_FRAME], Vec::new());
        for (cpu, data) in [0, 2].into_iter().zip(&cpus) {
            let record =
                |(tsc, &data)| Record { tsc: 9 - 4 * u64::from(cpu) + tsc as u64, flags: Flags::NONE, task: 1, data };
            let records: Vec<_> = data.iter().enumerate().map(|one| record(one).encode()).collect();
            let total = Total { cpu, delivered: 0, lost: 0 };
            bytes.extend(encoder.records(&mut out, &total, &records).unwrap());
        }
        stream::decode(&bytes)
    }

    #[test]
    fn work_is_found_where_it_was_posted_whatever_the_clocks_say() {
        let good = replay(&with_work(true, true));
        assert_eq!((good.faults.len(), good.posts, good.ran, good.entries_with_work, good.waiting), (0, 2, 2, 1, 0));
        assert!(good.text().contains("work: 2 pieces posted, 2 found on 1 ways in"), "{}", good.text());
        let unfound = replay(&with_work(false, true));
        assert!(
            unfound.text().contains("cpu 2: work 0x3 was posted and has not run before this"),
            "{}",
            unfound.text()
        );
        let unposted = replay(&with_work(true, false));
        assert!(unposted.text().contains("cpu 2: work 0x3 ran that nobody posted"), "{}", unposted.text());
    }

    #[test]
    fn a_missing_step_is_a_fault_and_a_told_one_is_a_gap() {
        let whole = replay(&trace(0, false));
        assert_eq!((whole.faults.len(), whole.gaps, whole.checked, whole.cpus), (0, 0, 4, 1), "{}", whole.text());
        let cut = replay(&trace(2, false));
        assert_eq!(cut.faults.len(), 1);
        assert!(cut.text().starts_with("record 2, cpu 2: user_enter in state user\n"), "{}", cut.text());
        let told = replay(&trace(2, true));
        assert_eq!((told.faults.len(), told.gaps), (0, 1), "{}", told.text());
    }
}

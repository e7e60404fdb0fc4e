//! `host trace check`: replays every CPU of a trace against the rules of the context word. The rules are kcore's. Pure.

use super::stream::{Trace, What};
use kcore::trace_conformance::{Fault, Replay};
use kcore::trace_event::{Event, Group};
use std::collections::BTreeMap;

/// What the replay found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Steps that nothing before them explains: number of the record, CPU, what is wrong, the record's line.
    pub faults: Vec<(u64, u32, Fault, String)>,
    /// Places where records are missing, after which the replay began anew.
    pub gaps: u64,
    /// Transitions that were checked.
    pub checked: u64,
    /// NMIs that only the counter tells, because their group is not traced.
    pub untold_nmis: u64,
    /// CPUs with a transition.
    pub cpus: usize,
}

/// Replays the whole trace.
pub fn replay(trace: &Trace) -> Findings {
    let nmis_told = trace.records_in_order().any(|(_, record)| record.data.event().group() == Group::Irq);
    let mut findings = Findings::default();
    let mut replays: BTreeMap<(usize, u32), Replay> = BTreeMap::new();
    for entry in &trace.entries {
        let replay = replays.entry((entry.boot, entry.cpu)).or_insert_with(|| Replay::new(nmis_told));
        match &entry.what {
            What::Record(record) => {
                if let Err(fault) = replay.record(record) {
                    findings.faults.push((entry.number, entry.cpu, fault, trace.line(entry)));
                }
            }
            What::Lost(..) => {
                findings.gaps += 1;
                replay.gap();
            }
            What::Interruption(_) => {}
        }
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
        )
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
    use kcore::context_tracking::ContextWord;
    use kcore::trace_event::{By, Data, Flags, Record};
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

//! Begin and end brought together: how long handlers, system calls and stays in the kernel took, by CPU and cause. Pure.

use super::stream::{Entry, Trace, What};
use kcore::latency::{Samples, Summary};
use kcore::trace_event::{Data, Record};
use std::collections::BTreeMap;

/// Something that took time on a CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Which boot on this line.
    pub boot: usize,
    /// The CPU.
    pub cpu: u32,
    /// What took the time: `irq timer`, `syscall 39` …
    pub cause: String,
    /// From, in ticks.
    pub start_tsc: u64,
    /// To.
    pub end_tsc: u64,
}

/// What is open, by what tells it apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Open {
    Irq(u32),
    Nmi(u32),
    Idle(u32),
    Kernel(u32),
    Timer(u32),
    /// Exceptions and system calls may sleep: they belong to a task.
    Exception(u32),
    Syscall(u32),
    GracePeriod(bool),
    /// An IPI on its way: sender, target, cause.
    Flight(u32, u32, u8),
}

/// All spans of the trace whose begin and end are both there, in the order of their ends.
pub fn spans(trace: &Trace) -> Vec<Span> {
    let mut open: BTreeMap<Open, (u64, String)> = BTreeMap::new();
    let (mut spans, mut boot) = (Vec::new(), 0);
    for entry in &trace.entries {
        if entry.boot != boot {
            boot = entry.boot;
            open.clear();
        }
        match &entry.what {
            What::Record(record) => step(&mut open, &mut spans, entry, record),
            // What ends after a loss may have begun another time.
            What::Lost(..) => open.retain(|key, _| {
                !matches!(key, Open::Irq(cpu) | Open::Nmi(cpu) | Open::Idle(cpu)
                | Open::Kernel(cpu) | Open::Timer(cpu) if *cpu == entry.cpu)
                    && !matches!(key, Open::Exception(_) | Open::Syscall(_))
            }),
            What::Interruption(i) => spans.push(Span {
                boot,
                cpu: i.cpu,
                cause: format!("interruption {}", i.cause.name()),
                start_tsc: i.start_tsc,
                end_tsc: i.end_tsc,
            }),
        }
    }
    spans
}

fn step(open: &mut BTreeMap<Open, (u64, String)>, spans: &mut Vec<Span>, entry: &Entry, record: &Record) {
    let (cpu, task, boot) = (entry.cpu, record.task, entry.boot);
    let mut begin = |key, cause: String| drop(open.insert(key, (record.tsc, cause)));
    let ended = match record.data {
        Data::IrqEntry { cause, .. } => return begin(Open::Irq(cpu), format!("irq {}", cause.name())),
        Data::NmiEntry { .. } => return begin(Open::Nmi(cpu), "nmi".into()),
        Data::IdleEnter { .. } => return begin(Open::Idle(cpu), "idle".into()),
        Data::UserExit { by, .. } => return begin(Open::Kernel(cpu), format!("kernel by {}", by.name())),
        Data::ExceptionEntry { vector, .. } => return begin(Open::Exception(task), format!("exception {vector}")),
        Data::SysEnter { number, .. } => return begin(Open::Syscall(task), format!("syscall {}", number as i64)),
        Data::RcuGracePeriod { end: false, expedited, .. } => {
            let cause = if expedited { "expedited grace period" } else { "grace period" };
            return begin(Open::GracePeriod(expedited), cause.into());
        }
        Data::TimerExpireEntry { deadline_tsc, .. } => {
            begin(Open::Timer(cpu), "timer function".into());
            let cause = "timer lateness".into();
            // A timer that is early by the granularity of its hardware is not late.
            return spans.push(Span { boot, cpu, cause, start_tsc: deadline_tsc.min(record.tsc), end_tsc: record.tsc });
        }
        Data::IpiSend { target_cpu, cause, .. } => {
            return begin(Open::Flight(cpu, target_cpu, cause.code()), format!("ipi {} on its way", cause.name()));
        }
        Data::IpiEntry { cause, sender: Some((sender, _)), .. } => Open::Flight(sender, cpu, cause.code()),
        Data::IpiExit { cause, duration_ticks } => {
            let start_tsc = record.tsc.saturating_sub(duration_ticks);
            let cause = format!("ipi {}", cause.name());
            return spans.push(Span { boot, cpu, cause, start_tsc, end_tsc: record.tsc });
        }
        Data::IrqExit { .. } => Open::Irq(cpu),
        Data::NmiExit { .. } => Open::Nmi(cpu),
        Data::IdleExit { .. } => Open::Idle(cpu),
        Data::UserEnter { .. } => Open::Kernel(cpu),
        Data::ExceptionExit { .. } => Open::Exception(task),
        Data::SysExit { .. } => Open::Syscall(task),
        Data::TimerExpireExit { .. } => Open::Timer(cpu),
        Data::RcuGracePeriod { end: true, expedited, .. } => Open::GracePeriod(expedited),
        _ => return,
    };
    if let Some((start_tsc, cause)) = open.remove(&ended) {
        spans.push(Span { boot, cpu, cause, start_tsc, end_tsc: record.tsc });
    }
}

/// Durations in nanoseconds by CPU and cause.
pub fn summaries(trace: &Trace, spans: &[Span]) -> Vec<(u32, String, Summary)> {
    let mut samples: BTreeMap<(u32, &str), Samples> = BTreeMap::new();
    for span in spans {
        let ns = trace.clock(span.boot).ns(span.end_tsc.saturating_sub(span.start_tsc));
        samples.entry((span.cpu, &span.cause)).or_default().add(ns);
    }
    let summary = |((cpu, cause), mut samples): ((u32, &str), Samples)| Some((cpu, cause.into(), samples.summary()?));
    samples.into_iter().filter_map(summary).collect()
}

#[cfg(test)]
mod tests {
    use super::super::stream;
    use super::*;

    #[test]
    fn begins_and_ends_meet() {
        let trace = stream::decode(&stream::tests::small().concat());
        let spans = spans(&trace);
        let told: Vec<_> = spans.iter().map(|s| (s.cpu, s.cause.as_str(), s.end_tsc - s.start_tsc)).collect();
        let expected = [(1, "irq timer", 500), (1, "ipi call_function on its way", 500), (1, "ipi call_function", 100)];
        assert_eq!(told, expected);
        let summaries = summaries(&trace, &spans);
        assert_eq!(summaries.len(), 3);
        let timer = summaries.iter().find(|(_, cause, _)| cause == "irq timer").unwrap();
        assert_eq!(timer.2, Summary { count: 1, min: 500, avg: 500, p99: 500, max: 500 });
    }
}

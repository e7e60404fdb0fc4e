//! Lines of /sys/kernel/tracing/…/trace: what they tell of durations, by CPU and cause. Pure; called by `trace`.
//!
//! Times in the lines are whole microseconds, so a duration between two lines is too; where a line itself tells a
//! duration, it is in nanoseconds.

use crate::duration::human;
use crate::fields::Fields;
use kcore::latency::Samples;
use std::collections::BTreeMap;

/// One record as its line tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceLine<'a> {
    /// Id of the task that ran.
    pub task: &'a str,
    /// The CPU.
    pub cpu: u32,
    /// When, in microseconds since boot.
    pub time_us: u64,
    /// The event's name.
    pub event: &'a str,
    /// What belongs to it.
    pub rest: &'a str,
}

/// The record of `comm-task [cpu] flags seconds: event: …`; `None` for any other line (a comment, a loss).
pub fn parse(line: &str) -> Option<TraceLine<'_>> {
    // A name may hold anything but blanks, so the first word with its last `-` is the task.
    let (head, rest) = line.split_once(": ")?;
    let mut words = head.split_ascii_whitespace();
    let (_, task) = words.next()?.rsplit_once('-')?;
    let cpu = words.next()?.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?;
    let (seconds, micros) = words.nth(1)?.split_once('.')?;
    let whole: u64 = seconds.parse().ok()?;
    let part: u64 = micros.parse().ok().filter(|_| micros.len() == 6)?;
    let time_us = whole.checked_mul(1_000_000)?.checked_add(part)?;
    let (event, rest) = match rest.split_once(':') {
        Some((event, rest)) => (event, rest.trim_start()),
        None => return None,
    };
    Some(TraceLine { task, cpu, time_us, event, rest })
}

/// Durations by CPU and cause.
#[derive(Debug, Default)]
pub struct Durations {
    /// Begun and not ended: by what tells it apart, since when and what.
    open: BTreeMap<String, (u64, String)>,
    samples: BTreeMap<(u32, String), Samples>,
}

impl Durations {
    /// Takes a line of the trace; what is no record and not a loss is passed over.
    pub fn take(&mut self, line: &str) {
        let Some(one) = parse(line) else {
            if line.contains("[LOST ") {
                // What ends after a loss may have begun another time.
                self.open.clear();
            }
            return;
        };
        let fields = Fields::new(one.rest);
        let told = |key| fields.number(key);
        let name = |key| fields.text(key).unwrap_or("?");
        let number = || one.rest.split_ascii_whitespace().nth(1).unwrap_or("?");
        let (cpu, task) = (one.cpu, one.task);
        match one.event {
            "irq_entry" => self.begin(&one, format!("irq {cpu}"), format!("irq {}", name("name"))),
            "irq_exit" => self.end(&one, &format!("irq {cpu}")),
            "nmi_entry" => self.begin(&one, format!("nmi {cpu}"), "nmi".into()),
            "nmi_exit" => self.end(&one, &format!("nmi {cpu}")),
            "exception_entry" => self.begin(&one, format!("exception {task}"), format!("exception {}", name("vector"))),
            "exception_exit" => self.end(&one, &format!("exception {task}")),
            "user_exit" => self.begin(&one, format!("kernel {cpu}"), format!("kernel by {}", name("by"))),
            "user_enter" => self.end(&one, &format!("kernel {cpu}")),
            "idle_enter" => self.begin(&one, format!("idle {cpu}"), "idle".into()),
            "idle_exit" => self.end(&one, &format!("idle {cpu}")),
            "sys_enter" => self.begin(&one, format!("syscall {task}"), format!("syscall {}", number())),
            "sys_exit" => self.end(&one, &format!("syscall {task}")),
            "ipi_exit" => self.add(cpu, format!("ipi {}", name("cause")), told("duration_ns")),
            "hrtimer_expire_entry" => self.add(cpu, "timer lateness".into(), told("late_ns")),
            _ => {}
        }
    }

    fn begin(&mut self, one: &TraceLine<'_>, key: String, cause: String) {
        self.open.insert(key, (one.time_us, cause));
    }

    fn end(&mut self, one: &TraceLine<'_>, key: &str) {
        if let Some((since_us, cause)) = self.open.remove(key) {
            self.add(one.cpu, cause, one.time_us.checked_sub(since_us).map(|us| us.saturating_mul(1000)));
        }
    }

    fn add(&mut self, cpu: u32, cause: String, ns: Option<u64>) {
        if let Some(ns) = ns {
            self.samples.entry((cpu, cause)).or_default().add(ns);
        }
    }

    /// The table, with a line for its heads; empty without durations.
    pub fn table(mut self) -> String {
        let mut out = String::new();
        for ((cpu, cause), samples) in &mut self.samples {
            let Some(s) = samples.summary() else { continue };
            if out.is_empty() {
                out = format!("CPU {:24} {:>7}", "CAUSE", "COUNT");
                ["MIN", "AVG", "P99", "MAX"].iter().for_each(|head| out.push_str(&format!(" {head:>10}")));
                out.push('\n');
            }
            out.push_str(&format!("{cpu:>3} {cause:24} {:>7}", s.count));
            [s.min, s.avg, s.p99, s.max].iter().for_each(|ns| out.push_str(&format!(" {:>10}", human(*ns))));
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
# tracer: nop
            spin-7       [001] d.u.    12.345678: irq_entry: vector=236 name=timer
            spin-7       [001] d...    12.345681: irq_exit: vector=236 name=timer
           a-b-c-8       [000] d...    12.345700: sys_enter: NR 39 (0, 0, 0, 0)
           a-b-c-8       [000] d...    12.345702: sys_exit: NR 39 = 8
          <idle>-0       [002] d...    12.400000: ipi_exit: cause=call_function duration_ns=812
            spin-7       [001] d.u.    13.000000: irq_entry: vector=236 name=timer
CPU:1 [LOST 3 EVENTS]
            spin-7       [001] d...    14.000000: irq_exit: vector=236 name=timer
";

    #[test]
    fn lines_are_read() {
        let line = LINES.lines().nth(3).unwrap();
        let expected =
            TraceLine { task: "8", cpu: 0, time_us: 12_345_700, event: "sys_enter", rest: "NR 39 (0, 0, 0, 0)" };
        assert_eq!(parse(line), Some(expected));
        for line in
            ["", "#", "CPU:1 [LOST 3 EVENTS]", "a-1 [x] .... 1.000000: e: ", "a-1 [0] .... 1.0: e:", "a-1: b: c"]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn durations_by_cpu_and_cause() {
        let mut durations = Durations::default();
        LINES.lines().for_each(|line| durations.take(line));
        let table = durations.table();
        let rows: Vec<String> =
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "CPU CAUSE COUNT MIN AVG P99 MAX",
            "0 syscall 39 1 2.00 us 2.00 us 2.00 us 2.00 us",
            "1 irq timer 1 3.00 us 3.00 us 3.00 us 3.00 us",
            "2 ipi call_function 1 812 ns 812 ns 812 ns 812 ns",
        ];
        assert_eq!(rows, expected, "what was open at a loss is no duration");
        assert_eq!(Durations::default().table(), "");
    }
}

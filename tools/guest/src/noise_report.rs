//! What `noise` found: kernel entries by cause, who sent them, how long they took; as text and as JSON. Pure.

use crate::duration::human;
use crate::interruption::Interruption;
use crate::json;

/// The findings of one window.
#[derive(Debug, Clone)]
pub struct NoiseReport {
    cpu: u32,
    ns: u64,
    isolated: bool,
    causes: Vec<(String, u64)>,
    origins: Vec<Origin>,
    logged: u64,
    lost: u64,
    /// Why the log has no records at all.
    pub log_off: Option<String>,
    /// Longest step between two readings of the time stamp counter.
    pub max_gap_ns: u64,
    /// Steps longer than 1 us.
    pub gaps_over_1us: u64,
    /// Length of the window as the spinning CPU saw it.
    pub span_ns: u64,
}

/// Interruptions of one cause, sender and place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    cause: String,
    sender: Option<crate::interruption::Sender>,
    site: Option<String>,
    count: u64,
    total_ns: u64,
    max_ns: u64,
}

impl NoiseReport {
    /// Findings of `ns` nanoseconds on `cpu`; `causes` are the kernel's counts of entries in that time.
    pub fn new(cpu: u32, ns: u64, isolated: bool, causes: Vec<(String, u64)>) -> Self {
        let origins = Vec::new();
        Self {
            cpu,
            ns,
            isolated,
            causes,
            origins,
            logged: 0,
            lost: 0,
            log_off: None,
            max_gap_ns: 0,
            gaps_over_1us: 0,
            span_ns: 0,
        }
    }

    /// Adds what the log says of the window, and how many records it has lost.
    pub fn add_records(&mut self, records: impl Iterator<Item = Interruption>, lost: u64) {
        self.lost += lost;
        for record in records {
            self.logged += 1;
            let same = |o: &&mut Origin| o.cause == record.cause && o.sender == record.sender && o.site == record.site;
            match self.origins.iter_mut().find(same) {
                Some(origin) => {
                    origin.count += 1;
                    origin.total_ns += record.duration_ns;
                    origin.max_ns = origin.max_ns.max(record.duration_ns);
                }
                None => self.origins.push(Origin {
                    cause: record.cause,
                    sender: record.sender,
                    site: record.site,
                    count: 1,
                    total_ns: record.duration_ns,
                    max_ns: record.duration_ns,
                }),
            }
        }
    }

    /// Kernel entries in the window.
    pub fn entries(&self) -> u64 {
        self.causes.iter().map(|(_, count)| count).sum()
    }

    /// Whether the log has told of every interruption that the counters have (system calls and exceptions are none).
    pub fn is_fully_logged(&self) -> bool {
        let own = |cause: &str| matches!(cause, "syscall" | "exception");
        let counted: u64 = self.causes.iter().filter(|(cause, _)| !own(cause)).map(|(_, count)| count).sum();
        self.logged + self.lost >= counted
    }

    /// For people; the first line is `kernel entries: N`.
    pub fn text(&self) -> String {
        let mut out = format!("kernel entries: {}\n", self.entries());
        let seconds = self.ns as f64 / 1e9;
        if !self.causes.is_empty() {
            out.push_str("CAUSE              COUNT   PER SECOND      LONGEST        TOTAL SENDER\n");
        }
        for (cause, count) in &self.causes {
            let rate = *count as f64 / seconds;
            let mut shown = false;
            for origin in self.origins.iter().filter(|origin| origin.cause == *cause) {
                let rate = origin.count as f64 / seconds;
                let mut from = origin.sender.as_ref().map_or("-".to_string(), |sender| sender.text());
                if let Some(site) = &origin.site {
                    from.push_str(&format!(" at {site}"));
                }
                let (max, total) = (human(origin.max_ns), human(origin.total_ns));
                out.push_str(&format!("{cause:16} {:7} {rate:12.1} {max:>12} {total:>12} {from}\n", origin.count));
                shown = origin.count >= *count || shown;
            }
            if !shown {
                out.push_str(&format!("{cause:16} {count:7} {rate:12.1} {:>12} {:>12} -\n", "-", "-"));
            }
        }
        if self.lost > 0 {
            out.push_str(&format!("the log has lost {} records\n", self.lost));
        }
        if let (Some(why), true) = (&self.log_off, self.isolated) {
            out.push_str(&format!("senders and durations are not known: the log is off: {why}\n"));
        }
        let isolated = if self.isolated { "isolated" } else { "not isolated" };
        out.push_str(&format!(
            "cpu {} ({isolated}), {}; for information: longest gap {}, {} gaps over 1 us, which the machine below causes too\n",
            self.cpu,
            human(self.span_ns),
            human(self.max_gap_ns),
            self.gaps_over_1us,
        ));
        out
    }

    /// One JSON object on one line.
    pub fn to_json(&self) -> String {
        let number = |value: Option<u64>| value.map_or("null".to_string(), |value| value.to_string());
        let text = |value: Option<&String>| value.map_or("null".to_string(), |value| json::string(value));
        let senders = self.origins.iter().map(|origin| {
            let sender = origin.sender.as_ref();
            json::object([
                ("cause", json::string(&origin.cause)),
                ("cpu", number(sender.map(|sender| u64::from(sender.cpu)))),
                ("task", number(sender.and_then(|sender| sender.task))),
                ("comm", text(sender.and_then(|sender| sender.comm.as_ref()))),
                ("site", text(origin.site.as_ref())),
                ("count", origin.count.to_string()),
                ("duration_ns_max", origin.max_ns.to_string()),
                ("duration_ns_total", origin.total_ns.to_string()),
            ])
        });
        json::object([
            ("cpu", self.cpu.to_string()),
            ("seconds", (self.ns as f64 / 1e9).to_string()),
            ("entries", self.entries().to_string()),
            ("interruptions", json::object(self.causes.iter().map(|(cause, count)| (cause, count.to_string())))),
            ("senders", json::list(senders)),
            ("lost", self.lost.to_string()),
            ("log_off", text(self.log_off.as_ref())),
            ("isolated", self.isolated.to_string()),
            ("span_ns", self.span_ns.to_string()),
            ("max_gap_ns", self.max_gap_ns.to_string()),
            ("gaps_over_1us", self.gaps_over_1us.to_string()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interruption::{self, Record};

    fn record(line: &str) -> Interruption {
        match interruption::parse(line).unwrap() {
            Record::Interruption(one) => one,
            other => panic!("{other:?}"),
        }
    }

    fn injected() -> NoiseReport {
        let mut report = NoiseReport::new(1, 2_000_000_000, true, vec![("call_function".into(), 1)]);
        assert!(!report.is_fully_logged());
        let line = "time_ns=5 cpu=1 cause=call_function sender_cpu=0 sender_task=12 sender_comm=noise site=a.rs:1 duration_ns=812 total=1";
        report.add_records([record(line)].into_iter(), 0);
        report
    }

    #[test]
    fn a_quiet_window() {
        let report = NoiseReport::new(1, 10_000_000_000, true, vec![]);
        assert!(report.is_fully_logged());
        assert!(report.text().starts_with("kernel entries: 0\ncpu 1 (isolated)"), "{}", report.text());
        let json = report.to_json();
        assert!(
            json.starts_with("{\"cpu\": 1, \"seconds\": 10, \"entries\": 0, \"interruptions\": {}, \"senders\": []"),
            "{json}"
        );
    }

    #[test]
    fn an_injected_interrupt_has_its_sender() {
        let report = injected();
        assert!(report.is_fully_logged());
        let text = report.text();
        assert!(text.starts_with("kernel entries: 1\n"), "{text}");
        assert!(text.contains("812 ns") && text.contains("cpu0 noise/12 at a.rs:1"), "{text}");
        let json = report.to_json();
        assert!(json.contains("\"interruptions\": {\"call_function\": 1}"), "{json}");
        assert!(json.contains("\"cause\": \"call_function\", \"cpu\": 0, \"task\": 12, \"comm\": \"noise\""), "{json}");
    }

    #[test]
    fn a_tick_without_log_shows_its_rate() {
        let report = NoiseReport::new(0, 10_000_000_000, false, vec![("timer".into(), 2500)]);
        let row: Vec<_> = report.text().lines().nth(2).unwrap().split_whitespace().map(str::to_string).collect();
        assert_eq!(row, ["timer", "2500", "250.0", "-", "-", "-"]);
    }

    #[test]
    fn equal_origins_are_one_row_and_losses_are_told() {
        let mut report = NoiseReport::new(1, 1_000_000_000, true, vec![("timer".into(), 3)]);
        let lines =
            ["time_ns=1 cpu=1 cause=timer duration_ns=5 total=1", "time_ns=2 cpu=1 cause=timer duration_ns=7 total=2"];
        report.add_records(lines.into_iter().map(record), 1);
        assert!(report.is_fully_logged());
        let json = report.to_json();
        assert!(json.contains("\"count\": 2, \"duration_ns_max\": 7, \"duration_ns_total\": 12"), "{json}");
        assert!(report.text().contains("lost 1 records"));
    }
}

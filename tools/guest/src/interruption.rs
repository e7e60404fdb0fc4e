//! /sys/kernel/quiesce/log: interruptions of isolated CPUs, one a line. Pure; called by `log` and `noise`.

use crate::duration::human;
use crate::fields::Fields;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Someone interrupted an isolated CPU.
    Interruption(Interruption),
    /// So many records were lost before they were read.
    Lost(u64),
    /// Nothing is recorded, and why.
    Off(String),
}

/// One interruption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interruption {
    /// When it began, in nanoseconds since boot.
    pub time_ns: u64,
    /// Whom it hit.
    pub cpu: u32,
    /// timer, call_function, tlb_flush, exception 18 …
    pub cause: String,
    /// Who sent it, if somebody did.
    pub sender: Option<Sender>,
    /// Where in the kernel's source it was sent or handled.
    pub site: Option<String>,
    /// What it was sent for.
    pub ipi: Option<String>,
    /// How long the kernel held the CPU.
    pub duration_ns: u64,
    /// Which one it is on that CPU since boot.
    pub total: Option<u64>,
}

/// The sender of an interruption.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// Its CPU.
    pub cpu: u32,
    /// Its task's number.
    pub task: Option<u64>,
    /// Its task's name.
    pub comm: Option<String>,
}

impl Sender {
    /// `cpu0 noise/12`.
    pub fn text(&self) -> String {
        match (&self.comm, self.task) {
            (Some(comm), Some(task)) => format!("cpu{} {comm}/{task}", self.cpu),
            (Some(comm), None) => format!("cpu{} {comm}", self.cpu),
            (None, Some(task)) => format!("cpu{} task {task}", self.cpu),
            (None, None) => format!("cpu{}", self.cpu),
        }
    }
}

/// The record of one line. The error names what is missing.
pub fn parse(line: &str) -> Result<Record, String> {
    if let Some(why) = line.strip_prefix("off: ") {
        return Ok(Record::Off(why.to_string()));
    }
    let fields = Fields::new(line);
    if let Some(lost) = fields.number("lost") {
        return Ok(Record::Lost(lost));
    }
    let cpu = |key| u32::try_from(fields.need(key)?).map_err(|_| format!("CPU number too large in line {line:?}"));
    let sender = match fields.text("sender_cpu") {
        None => None,
        Some(_) => Some(Sender {
            cpu: cpu("sender_cpu")?,
            task: fields.number("sender_task"),
            comm: fields.text("sender_comm").map(str::to_string),
        }),
    };
    Ok(Record::Interruption(Interruption {
        time_ns: fields.need("time_ns")?,
        cpu: cpu("cpu")?,
        cause: match (fields.need_text("cause")?, fields.number("vector")) {
            (cause, None) => cause.to_string(),
            (cause, Some(vector)) => format!("{cause} {vector}"),
        },
        sender,
        site: fields.text("site").map(str::to_string),
        ipi: fields.text("ipi").map(str::to_string),
        duration_ns: fields.need("duration_ns")?,
        total: fields.number("total"),
    }))
}

/// The record for people: `[  12.345678] cpu1 call_function from cpu0 noise/12 at kernel/src/…:12 (injected), 812 ns`.
pub fn format(record: &Record) -> String {
    match record {
        Record::Lost(count) => format!("({count} lost)"),
        Record::Off(why) => format!("(the log is off: {why})"),
        Record::Interruption(one) => {
            let (whole_s, part_us) = (one.time_ns / 1_000_000_000, one.time_ns % 1_000_000_000 / 1_000);
            let mut text = format!("[{whole_s:5}.{part_us:06}] cpu{} {}", one.cpu, one.cause);
            if let Some(sender) = &one.sender {
                text.push_str(&format!(" from {}", sender.text()));
            }
            if let Some(site) = &one.site {
                text.push_str(&format!(" at {site}"));
            }
            if let Some(ipi) = &one.ipi {
                text.push_str(&format!(" ({ipi})"));
            }
            text.push_str(&format!(", {}", human(one.duration_ns)));
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sent_interruption_is_told_with_its_sender() {
        let line = "time_ns=12345678901 cpu=1 cause=call_function sender_cpu=0 sender_task=12 sender_comm=noise \
            ipi=injected site=kernel/src/isolation/inject.rs:12 duration_ns=812 total=17";
        let text = format(&parse(line).unwrap());
        assert_eq!(
            text,
            "[   12.345678] cpu1 call_function from cpu0 noise/12 at kernel/src/isolation/inject.rs:12 (injected), 812 ns"
        );
    }

    #[test]
    fn one_without_sender_and_a_loss() {
        assert_eq!(
            format(&parse("time_ns=1000 cpu=2 cause=timer duration_ns=1500 total=1").unwrap()),
            "[    0.000001] cpu2 timer, 1.50 us"
        );
        assert_eq!(parse("lost=5"), Ok(Record::Lost(5)));
        let off = parse("off: trace_event= names neither irq nor ipi").unwrap();
        assert_eq!(format(&off), "(the log is off: trace_event= names neither irq nor ipi)");
    }

    #[test]
    fn nonsense_is_named() {
        assert!(parse("time_ns=1 cpu=2 duration_ns=1").unwrap_err().contains("cause="));
        assert!(parse("").is_err());
    }
}

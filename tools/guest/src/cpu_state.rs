//! /sys/kernel/quiesce/cpus: what each CPU is doing, and the table made of it. Pure; called by `cpus` and `noise`.

use crate::duration;
use crate::fields::Fields;
use crate::json;

/// One CPU's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuState {
    /// CPU number.
    pub cpu: u32,
    /// kernel, user, idle or untracked.
    pub state: String,
    /// Since when, in nanoseconds since boot.
    pub since_ns: u64,
    /// When the line was made, in nanoseconds since boot.
    pub now_ns: u64,
    /// Whether the tick is on.
    pub tick_on: bool,
    /// Whether the CPU is isolated.
    pub isolated: bool,
    /// Whether its user mode is tracked.
    pub tracked: bool,
    /// Kernel entries since boot: system calls, exceptions, interrupts, NMIs.
    pub entries: u64,
    /// Of those, interrupts and NMIs.
    pub interrupts: u64,
    /// The current task's number.
    pub task: Option<u64>,
    /// The current task's name.
    pub comm: Option<String>,
}

/// All CPUs of the file's text. The error says which line is wrong.
pub fn parse(text: &str) -> Result<Vec<CpuState>, String> {
    text.lines().filter(|line| !line.trim().is_empty()).map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<CpuState, String> {
    let fields = Fields::new(line);
    Ok(CpuState {
        cpu: u32::try_from(fields.need("cpu")?).map_err(|_| format!("CPU number too large in line {line:?}"))?,
        state: fields.need_text("state")?.to_string(),
        since_ns: fields.need("since_ns")?,
        now_ns: fields.need("now_ns")?,
        tick_on: fields.need_text("tick")? == "on",
        isolated: fields.number("isolated") == Some(1),
        tracked: fields.number("tracked") == Some(1),
        entries: fields.need("entries")?,
        interrupts: fields.need("interrupts")?,
        task: fields.number("task"),
        comm: fields.text("comm").map(str::to_string),
    })
}

/// The table: a heading, then a line per CPU that starts with its number.
pub fn table(cpus: &[CpuState]) -> String {
    let mut text = String::from("CPU STATE          SINCE TICK ISOLATED TRACKED      ENTRIES   INTERRUPTS TASK\n");
    let yes = |flag| if flag { "yes" } else { "no" };
    for cpu in cpus {
        let task = match (&cpu.comm, cpu.task) {
            (Some(comm), Some(task)) => format!("{comm}/{task}"),
            (Some(comm), None) => comm.clone(),
            (None, Some(task)) => task.to_string(),
            (None, None) => "-".to_string(),
        };
        text.push_str(&format!(
            "{:3} {:9} {:>10} {:4} {:8} {:7} {:12} {:12} {task}\n",
            cpu.cpu,
            cpu.state,
            duration::human(cpu.now_ns.saturating_sub(cpu.since_ns)),
            if cpu.tick_on { "on" } else { "off" },
            yes(cpu.isolated),
            yes(cpu.tracked),
            cpu.entries,
            cpu.interrupts,
        ));
    }
    text
}

/// A JSON list with one object per CPU, on one line.
pub fn to_json(cpus: &[CpuState]) -> String {
    json::list(cpus.iter().map(|cpu| {
        json::object([
            ("cpu", cpu.cpu.to_string()),
            ("state", json::string(&cpu.state)),
            ("since_ns", cpu.since_ns.to_string()),
            ("now_ns", cpu.now_ns.to_string()),
            ("tick", json::string(if cpu.tick_on { "on" } else { "off" })),
            ("isolated", cpu.isolated.to_string()),
            ("tracked", cpu.tracked.to_string()),
            ("entries", cpu.entries.to_string()),
            ("interrupts", cpu.interrupts.to_string()),
            ("task", cpu.task.map_or("null".to_string(), |task| task.to_string())),
            ("comm", cpu.comm.as_deref().map_or("null".to_string(), json::string)),
        ])
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "cpu=1 state=user since_ns=123 now_ns=3000000456 tick=off isolated=1 tracked=1 entries=12 interrupts=3 task=7 comm=spin";

    #[test]
    fn a_line_becomes_a_row_that_starts_with_the_number() {
        let cpus = parse(&format!("{LINE}\n")).unwrap();
        let table = table(&cpus);
        let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["1", "user", "3.00", "s", "off", "yes", "yes", "12", "3", "spin/7"]);
    }

    #[test]
    fn rows_of_255_cpus_line_up() {
        let text: String = (0..255).map(|n| LINE.replace("cpu=1 ", &format!("cpu={n} ")) + "\n").collect();
        let table = table(&parse(&text).unwrap());
        assert_eq!(table.lines().count(), 256);
        let width = table.lines().nth(1).unwrap().len();
        assert!(table.lines().skip(1).all(|line| line.len() == width));
    }

    #[test]
    fn a_broken_line_is_named() {
        assert!(parse("cpu=1 state=user\n").unwrap_err().contains("since_ns"));
        assert!(parse("hello\n").unwrap_err().contains("hello"));
    }

    #[test]
    fn json_has_every_field() {
        let json = to_json(&parse(LINE).unwrap());
        assert!(json.starts_with("[{\"cpu\": 1, \"state\": \"user\""), "{json}");
        assert!(json.contains("\"isolated\": true") && json.contains("\"comm\": \"spin\""), "{json}");
    }
}

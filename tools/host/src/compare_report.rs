//! What `compare` tells: the rows, the table for the terminal, the one for the README, and JSON.

use crate::budgets::{Metric, number};
use crate::compare::qemu_version;
use crate::failure::Failure;
use crate::tool;
use crate::tree::Tree;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

/// The rows: what is done, the metric, what it is counted in.
const ROWS: [(&str, &str, Unit); 22] = [
    ("getppid round trip", "syscall_getppid.med", Unit::Instructions),
    ("invalid system call number", "syscall_bad10000.med", Unit::Instructions),
    ("sched_yield, alone", "sched_yield_alone.med", Unit::Instructions),
    ("clock_gettime, system call", "clock_gettime_syscall.med", Unit::Instructions),
    ("clock_gettime, vDSO", "clock_gettime_libc.med", Unit::Instructions),
    ("read fault, zero page", "fault_read.med", Unit::Instructions),
    ("write fault, new page", "fault_minor.med", Unit::Instructions),
    ("mmap + munmap, untouched", "mmap_munmap.med", Unit::Instructions),
    ("mmap + touch + munmap", "mmap_touch_munmap.med", Unit::Instructions),
    ("signal to oneself and back", "signal_self.med", Unit::Instructions),
    ("fork + exit + wait", "fork_exit_wait.med", Unit::Instructions),
    ("pipe ping-pong, one CPU", "pipe_pingpong_same.med", Unit::Instructions),
    ("futex ping-pong, one CPU", "futex_pingpong_same.med", Unit::Instructions),
    ("pipe ping-pong, two CPUs", "pipe_pingpong_cross.med", Unit::Instructions),
    ("futex ping-pong, two CPUs", "futex_pingpong_cross.med", Unit::Instructions),
    ("timer expiry to user, FIFO task", "nanosleep_late_fifo80_100us.med", Unit::Instructions),
    ("function-call IPI in user mode", "ipi_user.mode", Unit::Instructions),
    ("munmap of 16 pages elsewhere, in user mode", "unmap_user.mode", Unit::Instructions),
    ("tick in user mode", "tick_user.mode", Unit::Instructions),
    ("kernel, in 1 s of spinning", "spin_kernel", Unit::Instructions),
    ("boot, to the first user code", "boot_kernel", Unit::Instructions),
    ("memory in use at /init", USED, Unit::Kilobytes),
];

/// Memory given less what is free at the start of /init: made from `mem.MemFree`.
const USED: &str = "mem.given_less_free";
/// Memory of the machine, in kB.
const GIVEN_KB: f64 = 512.0 * 1024.0;
/// Fewer ticks than this in a second are stray ones.
const TICKS: f64 = 10.0;

const BEGIN: &str = "<!-- compare: begin -->";
const END: &str = "<!-- compare: end -->";

/// What a row is counted in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    /// Executed guest instructions.
    Instructions,
    /// 1024 bytes.
    Kilobytes,
}

/// Linux's and our value of one row in one configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pair {
    /// Debian's kernel; None where there is no such event, or it was not measured.
    pub linux: Option<f64>,
    /// Quiesce.
    pub ours: Option<f64>,
}

impl Pair {
    /// Linux's value in units of ours; None where one of them is missing or ours is 0.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.linux? / self.ours.filter(|v| *v > 0.0)?)
    }
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// What is done.
    pub what: &'static str,
    /// The metric's name.
    pub metric: &'static str,
    /// What it is counted in.
    pub unit: Unit,
    /// With nothing isolated.
    pub off: Pair,
    /// On an isolated CPU.
    pub tracked: Pair,
    /// On CPU 0, with others isolated.
    pub untracked: Pair,
}

/// The whole comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Debian's kernel, by package and version.
    pub linux: String,
    /// Our version.
    pub ours: String,
    /// QEMU's version.
    pub qemu: String,
    /// The day, as 2026-01-31.
    pub date: String,
    /// The rows that either kernel has a value for.
    pub rows: Vec<Row>,
}

/// The names of the metrics that are compared.
pub fn metrics() -> Vec<&'static str> {
    ROWS.iter().map(|(_, metric, _)| *metric).collect()
}

impl Comparison {
    /// Puts the metrics of both side by side; names have the configuration in front.
    pub fn new(linux: String, ours: String, of_linux: &[Metric], of_ours: &[Metric]) -> Comparison {
        let (theirs, own) = (values(of_linux), values(of_ours));
        let rows = ROWS.iter().map(|&(what, metric, unit)| {
            let pair = |prefix| Pair { linux: value(&theirs, prefix, metric), ours: value(&own, prefix, metric) };
            let (off, tracked) = (pair("off"), pair("tracked"));
            let is_call = metric.starts_with("syscall_");
            let untracked = if is_call { pair("untracked") } else { Pair::default() };
            Row { what, metric, unit, off, tracked, untracked }
        });
        let is_known = |row: &Row| row.off != Pair::default() || row.tracked != Pair::default();
        Comparison { linux, ours, qemu: qemu_version(), date: today(), rows: rows.filter(is_known).collect() }
    }

    /// For the terminal.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{:<32} {:>31}   {:>31}", "", "off", "tracked");
        let head = format!("{:>13} {:>10} {:>6}", "Linux", "Quiesce", "ratio");
        let _ = writeln!(text, "{:<32} {head}   {head}", "executed instructions");
        for row in &self.rows {
            let cells = |pair: &Pair| format!("{:>13} {:>10} {:>6}", cell(pair.linux), cell(pair.ours), ratio(pair));
            let _ = writeln!(text, "{:<32} {}   {}", row.label(), cells(&row.off), cells(&row.tracked));
        }
        for row in self.rows.iter().filter(|r| r.untracked.linux.is_some()) {
            let Pair { linux, ours } = row.untracked;
            let what = format!("{}, CPU 0 while CPUs 1-3 are tracked", row.what);
            let _ = writeln!(text, "{what}: {} {} {}", cell(linux), cell(ours), ratio(&row.untracked));
        }
        let _ = write!(text, "{}", self.source());
        text
    }

    fn source(&self) -> String {
        let Comparison { linux, ours, qemu, date, .. } = self;
        format!("{date}: {linux} with mitigations=off, Quiesce {ours}, QEMU {qemu} (TCG, icount), 4 CPUs, 512 MiB")
    }

    /// For the README.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| same program, executed instructions | Linux off | Quiesce off | ratio | Linux tracked | Quiesce tracked | ratio |\n\
             |---|--:|--:|--:|--:|--:|--:|\n",
        );
        for row in &self.rows {
            let cells = |pair: &Pair| format!("{} | {} | {}", cell(pair.linux), cell(pair.ours), ratio(pair));
            let _ = writeln!(text, "| {} | {} | {} |", row.label(), cells(&row.off), cells(&row.tracked));
        }
        for row in self.rows.iter().filter(|r| r.untracked.linux.is_some()) {
            let Pair { linux, ours } = row.untracked;
            let (linux, ours, ratio) = (cell(linux), cell(ours), ratio(&row.untracked));
            let _ = writeln!(
                text,
                "| {}, on CPU 0 while others are tracked | | | | {linux} | {ours} | {ratio} |",
                row.what
            );
        }
        let _ = write!(text, "\nMeasured {}, by `make compare README=1`.\n\n", self.source());
        text.push_str("![The same figures as bars on a logarithmic scale](docs/compare.svg)\n");
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let text = |s: &str| format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""));
        let value = |v: Option<f64>| v.map_or("null".into(), number);
        let pair = |p: &Pair| {
            let ratio = p.ratio().map_or("null".into(), |r| format!("{r:.3}"));
            format!("{{\"linux\": {}, \"quiesce\": {}, \"ratio\": {ratio}}}", value(p.linux), value(p.ours))
        };
        let rows: Vec<String> = self.rows.iter().map(|row| {
            let unit = if row.unit == Unit::Instructions { "instructions" } else { "kB" };
            format!(
                "    {{\"what\": {}, \"metric\": {}, \"unit\": \"{unit}\",\n     \"off\": {},\n     \"tracked\": {},\n     \"untracked\": {}}}",
                text(row.what), text(row.metric), pair(&row.off), pair(&row.tracked), pair(&row.untracked),
            )
        }).collect();
        format!(
            "{{\n  \"date\": {},\n  \"linux\": {},\n  \"quiesce\": {},\n  \"qemu\": {},\n  \"rows\": [\n{}\n  ]\n}}\n",
            text(&self.date),
            text(&self.linux),
            text(&self.ours),
            text(&self.qemu),
            rows.join(",\n"),
        )
    }
}

impl Row {
    fn label(&self) -> String {
        match self.unit {
            Unit::Instructions => self.what.into(),
            Unit::Kilobytes => format!("{} (kB)", self.what),
        }
    }
}

fn values(metrics: &[Metric]) -> BTreeMap<&str, f64> {
    metrics.iter().map(|m| (m.name.as_str(), m.value)).collect()
}

fn value(values: &BTreeMap<&str, f64>, prefix: &str, metric: &str) -> Option<f64> {
    let get = |metric: &str| values.get(format!("{prefix}.{metric}").as_str()).copied();
    match metric {
        USED => get("mem.MemFree").map(|free| GIVEN_KB - free),
        "tick_user.mode" => get(metric).filter(|_| get("tick_user.n").is_some_and(|n| n >= TICKS)),
        _ => get(metric),
    }
}

fn cell(value: Option<f64>) -> String {
    value.map_or("none".into(), number)
}

fn ratio(pair: &Pair) -> String {
    match pair.ratio() {
        Some(ratio) if ratio < 10.0 => format!("{ratio:.1}"),
        Some(ratio) => format!("{ratio:.0}"),
        None => "-".into(),
    }
}

/// Replaces what stands between the README's two marks.
pub fn into_readme(readme: &str, section: &str) -> Result<String, Failure> {
    let parts = readme.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) = parts.ok_or_else(|| Failure::Usage(format!("README.md: no {BEGIN} with {END} behind it")))?;
    Ok(format!("{head}{BEGIN}\n{section}{END}{tail}"))
}

/// Our version, with the commit where git knows it.
pub fn version(tree: &Tree) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let git = tool::output(Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).current_dir(&tree.root));
    match git {
        Ok(output) if output.status.success() => {
            format!("{version} ({})", String::from_utf8_lossy(&output.stdout).trim())
        }
        _ => version.into(),
    }
}

/// Today in UTC, as 2026-01-31.
fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of the day that is `days` after 1970-01-01, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |y: u64| (y.is_multiple_of(4) && !y.is_multiple_of(100)) || y.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Comparison {
        let metric = |name: &str, value| Metric { name: name.into(), value, unit: String::new() };
        let linux = [
            metric("off.syscall_getppid.med", 323.0),
            metric("tracked.syscall_getppid.med", 641.0),
            metric("untracked.syscall_getppid.med", 414.0),
            metric("tracked.tick_user.mode", 1572.0),
            metric("tracked.tick_user.n", 2.0),
            metric("tracked.spin_kernel", 3768.0),
            metric("off.mem.MemFree", 437_316.0),
        ];
        let ours = [
            metric("off.syscall_getppid.med", 49.0),
            metric("tracked.syscall_getppid.med", 83.0),
            metric("untracked.syscall_getppid.med", 53.0),
            metric("tracked.spin_kernel", 0.0),
            metric("off.mem.MemFree", 520_000.0),
        ];
        Comparison::new("linux-image-6 \"1\"".into(), "0.1".into(), &linux, &ours)
    }

    #[test]
    fn rows_have_ratios_where_there_is_one() {
        let comparison = sample();
        let row = |metric: &str| comparison.rows.iter().find(|r| r.metric == metric);
        assert_eq!(ratio(&row("syscall_getppid.med").unwrap().off), "6.6");
        assert_eq!(ratio(&row("syscall_getppid.med").unwrap().tracked), "7.7");
        assert_eq!(ratio(&row("spin_kernel").unwrap().tracked), "-");
        assert_eq!(row(USED).unwrap().off, Pair { linux: Some(86_972.0), ours: Some(4288.0) });
        assert!(row("tick_user.mode").is_none(), "two stray ticks are no tick");
        assert!(row("fork_exit_wait.med").is_none());
        assert!(comparison.markdown().contains("| getppid round trip | 323 | 49 | 6.6 | 641 | 83 | 7.7 |"));
        assert!(comparison.text().contains("414 53 7.8"), "{}", comparison.text());
        assert!(comparison.json().contains("\"linux\": \"linux-image-6 \\\"1\\\"\""));
        assert!(comparison.json().contains("{\"linux\": 3768, \"quiesce\": 0, \"ratio\": null}"));
    }

    #[test]
    fn the_readme_changes_between_its_marks_only() {
        let before = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        assert_eq!(into_readme(&before, "new\n").unwrap(), format!("head\n{BEGIN}\nnew\n{END}\ntail\n"));
        assert!(into_readme("nothing", "new").is_err());
    }

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_483), (2026, 1, 30));
        assert_eq!(civil(20_453), (2025, 12, 31));
    }
}

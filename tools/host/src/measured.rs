//! One boot of a kernel with the guest program `bench` as process 1, from its start to its `metric` lines and the
//! counting plugin's. Used by `bench` and `compare`.
//!
//! QEMU ends with the thread that called; no file is made, so there is nothing to clean up, however it ends.

use crate::accelerator::Chosen;
use crate::budgets::{self, Metric};
use crate::failure::Failure;
use crate::plugin::{self, Counts, Report};
use crate::qemu::{self, End, Medium, Qemu};
use crate::settings::Settings;
use crate::tree::Tree;
use std::io::{Read, Write};
use std::process::Child;
use std::time::{Duration, Instant};

/// Regions of the guest program whose visits to the kernel are told: name of the metric, number of the region.
const VISITS: [(&str, u32); 3] = [("tick_user", NOISE), ("ipi_user", 16), ("unmap_user", 17)];
/// The region in which the program spins and makes no system call.
const NOISE: u32 = 5;

/// A guest to be measured.
pub struct Guest<'a> {
    /// Stands before the names of its metrics, and before what is said of it.
    pub prefix: &'a str,
    /// The CPU that the program measures.
    pub cpu: u32,
    /// The machine. `icount` is for the caller to set.
    pub settings: Settings,
    /// What it boots from.
    pub medium: Medium<'a>,
    /// Safety net for the whole run, in the host's time.
    pub limit: Duration,
}

/// What a guest gave.
pub struct Measured {
    /// Its metrics, those of the plugin among them.
    pub metrics: Vec<Metric>,
    /// Its whole serial output, without carriage returns.
    pub log: String,
}

/// Boots the guest and waits for its end. Fails unless it ended cleanly.
pub fn measure(tree: &Tree, guest: Guest<'_>) -> Result<Measured, Failure> {
    let Guest { prefix, cpu, mut settings, medium, limit } = guest;
    let counts = match plugin::why_not() {
        Some(why) => {
            eprintln!("{prefix}: counts by the plugin SKIPPED: {why}");
            None
        }
        None => {
            let counts = Counts::new()?;
            let arguments = match medium {
                Medium::Foreign { .. } => plugin::arguments_for_linux,
                _ => plugin::arguments,
            };
            settings.qemu_args.extend(arguments(&plugin::build(tree)?, &counts.path()));
            Some(counts)
        }
    };
    let (end, log) = run(tree, &settings, medium, limit, prefix)?;
    if end != End::Clean {
        eprint!("{log}");
        return Err(Failure::Bad(format!("{prefix}: the guest ended by {end:?}")));
    }
    for line in log.lines().filter(|l| l.starts_with("skip ")) {
        eprintln!("{prefix}: {line}");
    }
    let mut metrics = budgets::metrics(&log, prefix)?;
    if let Some(counts) = counts {
        metrics.extend(counted(&plugin::parse(&counts.text()?)?, prefix, cpu));
    }
    Ok(Measured { metrics, log })
}

/// Runs a guest without input to its end; gives the end and the serial log without carriage returns.
pub fn run(
    tree: &Tree,
    settings: &Settings,
    medium: Medium<'_>,
    limit: Duration,
    name: &str,
) -> Result<(End, String), Failure> {
    typed(tree, settings, medium, limit, name, &[])
}

/// What the shell prints when it waits for a line.
const PROMPT: &[u8] = b"quiesce# ";

/// `run` with `lines` as input, each typed at a prompt.
pub fn typed(
    tree: &Tree,
    settings: &Settings,
    medium: Medium<'_>,
    limit: Duration,
    name: &str,
    lines: &[&str],
) -> Result<(End, String), Failure> {
    let wait = |text: &str| eprintln!("{name}: {text}");
    let Qemu { child, mut console, slot, errors } = qemu::start(tree, settings, Chosen::Tcg, medium, wait)?;
    let mut process = Process(child);
    let deadline = Instant::now() + limit;
    let io = |e: std::io::Error| Failure::Bad(format!("{name}: console: {e}"));
    let mut lines = lines.iter();
    let (mut log, mut seen) = (Vec::new(), 0);
    let mut buffer = [0u8; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        console.set_read_timeout(Some(left)).map_err(io)?;
        match console.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => log.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => {
                eprint!("{}", String::from_utf8_lossy(&log));
                return Err(Failure::TimedOut(format!("{name}: no end after {} s", limit.as_secs())));
            }
        }
        if let Some(at) = log[seen..].windows(PROMPT.len()).position(|window| window == PROMPT) {
            seen += at + PROMPT.len();
            if let Some(line) = lines.next() {
                console.write_all(format!("{line}\n").as_bytes()).map_err(io)?;
            }
        }
    }
    let end = End::of(process.0.wait().map_err(io)?);
    drop((slot, errors));
    Ok((end, String::from_utf8_lossy(&log).replace('\r', "")))
}

/// Metrics from the plugin's counts: the boot, the most frequent way into the kernel in some regions, and all kernel
/// instructions of the measured CPU while it spins.
fn counted(report: &Report, prefix: &str, cpu: u32) -> Vec<Metric> {
    let mut metrics = Vec::new();
    let mut add = |name: &str, value: u64, unit: &str| {
        metrics.push(Metric { name: format!("{prefix}.{name}"), value: value as f64, unit: unit.into() });
    };
    if !report.boot.is_empty() {
        add("boot_loader", report.boot.iter().map(|b| b.loader).sum(), "insns");
        add("boot_kernel", report.boot.iter().map(|b| b.kernel).sum(), "insns");
    }
    for (name, region) in VISITS {
        let usual = report.visits.iter().filter(|v| v.region == region && v.vcpu == cpu).max_by_key(|v| v.n);
        if let Some(usual) = usual {
            add(&format!("{name}.mode"), usual.mode, "insns");
            add(&format!("{name}.n"), usual.n, "count");
        }
    }
    for count in report.counts.iter().filter(|c| c.region == NOISE && c.vcpu == cpu) {
        add("spin_kernel", count.kernel, "insns");
    }
    metrics
}

/// Ends QEMU on every way out.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended already
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_counts_become_metrics() {
        let text = "boot vcpu=0 loader=10 kernel=20\nboot vcpu=1 loader=1 kernel=2\n\
count region=5 vcpu=0 user=9 kernel=900\ncount region=5 vcpu=1 user=9 kernel=70\n\
visit region=5 vcpu=1 entry=ff n=3 min=1 median=20 max=30 mode=20 mode_n=2 total=60\n\
visit region=5 vcpu=1 entry=fe n=1 min=1 median=10 max=10 mode=10 mode_n=1 total=10\n";
        let metrics = counted(&plugin::parse(text).unwrap(), "off", 1);
        let lines: Vec<String> = metrics.iter().map(|m| format!("{} {} {}", m.name, m.value, m.unit)).collect();
        let expected = [
            "off.boot_loader 11 insns",
            "off.boot_kernel 22 insns",
            "off.tick_user.mode 20 insns",
            "off.tick_user.n 3 count",
            "off.spin_kernel 70 insns",
        ];
        assert_eq!(lines, expected);
    }
}

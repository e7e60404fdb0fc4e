//! `host bench`: runs the guest program `bench` as process 1 with instructions as the clock: with nothing isolated
//! (`off`), on an isolated CPU (`tracked`), and on CPU 0 while others are isolated (`untracked`). Adds what only the
//! counting plugin can see, and compares all with budgets.toml.

use crate::accelerator::Chosen;
use crate::budgets::{self, Metric};
use crate::failure::{self, Failure};
use crate::image;
use crate::plugin::{self, Report};
use crate::qemu::{self, End, Medium, Qemu};
use crate::settings::{Accel, Settings};
use crate::tree::{Profile, Tree};
use std::io::Read;
use std::process::Child;
use std::time::{Duration, Instant};

/// Safety net for one configuration.
const LIMIT: Duration = Duration::from_secs(300);
/// What every configuration is booted with: tracing off, and the program in place of init.
const COMMON: &str = "trace_event= init=/bin/bench secs=1";

/// A way to boot.
struct Configuration {
    /// Stands before the names of its metrics.
    prefix: &'static str,
    /// The CPU that is measured.
    cpu: u32,
    isolation: &'static str,
}

const CONFIGURATIONS: [Configuration; 3] = [
    Configuration { prefix: "off", cpu: 1, isolation: "" },
    Configuration { prefix: "tracked", cpu: 1, isolation: "nohz_full=1-3" },
    Configuration { prefix: "untracked", cpu: 0, isolation: "nohz_full=1-3" },
];

/// Regions of the guest program whose visits to the kernel are told: name of the metric, number of the region.
const VISITS: [(&str, u32); 2] = [("tick_user", NOISE), ("ipi_user", 16)];
/// The region in which the program spins and makes no system call.
const NOISE: u32 = 5;

/// Command-line options of `host bench`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Print the metric lines alone, and compare nothing
    #[arg(long)]
    raw: bool,
    /// Measurements of the guest program, separated by commas; `all` for all
    #[arg(long, default_value = "syscall,yield,clock,fault,mmap,signal,pipe,futex,sleep,ipi,noise")]
    only: String,
}

/// Builds, measures, prints the table, and fails where a bound does not hold.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    tree.build(Profile::Release)?;
    let archive = image::boot_archive(tree, Profile::Release, &image::root_file_system(tree)?)?;
    let mut all = Vec::new();
    for configuration in &CONFIGURATIONS {
        all.extend(measure(tree, configuration, &options.only, &archive)?);
    }
    if options.raw {
        for m in &all {
            println!("metric {} {} {}", m.name, m.value, m.unit);
        }
        return Ok(());
    }
    let table = budgets::table(&budgets::read(&tree.root.join("budgets.toml"))?, &all);
    print!("{}", table.text);
    table.verdict()
}

fn measure(tree: &Tree, configuration: &Configuration, only: &str, archive: &[u8]) -> Result<Vec<Metric>, Failure> {
    let Configuration { prefix, cpu, isolation } = configuration;
    let only = if only == "all" { String::new() } else { format!("only={only}") };
    let cmdline = format!("{COMMON} cpu={cpu} {isolation} {only}");
    let mut settings = Settings { accel: Accel::Tcg, icount: true, cmdline, ..Settings::default() };
    let counts = std::env::temp_dir().join(format!("quiesce-bench-{}", std::process::id()));
    let no_plugin = plugin::why_not();
    match &no_plugin {
        Some(why) => eprintln!("bench: {prefix}: counts by the plugin SKIPPED: {why}"),
        None => settings.qemu_args.extend(plugin::arguments(&plugin::build(tree)?, &counts)),
    }
    let (end, log) = run(tree, &settings, archive, prefix)?;
    if end != End::Clean {
        eprint!("{log}");
        return Err(Failure::Bad(format!("{prefix}: the guest ended by {end:?}")));
    }
    for line in log.lines().filter(|l| l.starts_with("skip ")) {
        eprintln!("bench: {prefix}: {line}");
    }
    let mut metrics = budgets::metrics(&log, prefix)?;
    if no_plugin.is_none() {
        let report = plugin::parse(&String::from_utf8_lossy(&failure::read(&counts)?))?;
        let _ = std::fs::remove_file(&counts); // a leftover in the system's temporary folder harms nobody
        metrics.extend(counted(&report, prefix, *cpu));
    }
    Ok(metrics)
}

/// Runs a guest without input to its end; gives the end and the serial log.
fn run(tree: &Tree, settings: &Settings, archive: &[u8], prefix: &str) -> Result<(End, String), Failure> {
    let Qemu { child, mut console, slot } = qemu::start(tree, settings, Chosen::Tcg, Medium::Archive(archive), |_| {})?;
    let mut guest = Guest(child);
    let deadline = Instant::now() + LIMIT;
    let io = |e: std::io::Error| Failure::Bad(format!("{prefix}: console: {e}"));
    let mut log = Vec::new();
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
                return Err(Failure::TimedOut(format!("{prefix}: no end after {} s", LIMIT.as_secs())));
            }
        }
    }
    let end = End::of(guest.0.wait().map_err(io)?);
    drop(slot);
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
struct Guest(Child);

impl Drop for Guest {
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

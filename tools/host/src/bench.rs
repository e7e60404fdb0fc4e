//! `host bench`: boots the guest program `bench` with instructions as the clock, once with nothing isolated (`off`)
//! and once with CPUs 1-3 isolated (`tracked`), adds the instructions of the boot itself, and compares all with
//! budgets.toml.

use crate::accelerator::Chosen;
use crate::budgets::{self, Metric};
use crate::failure::{self, Failure};
use crate::image;
use crate::plugin;
use crate::qemu::{self, End, Qemu};
use crate::settings::{Accel, Settings};
use crate::tree::{Profile, Tree};
use std::io::{Read, Write};
use std::process::Child;
use std::time::{Duration, Instant};

/// Safety net for one configuration.
const LIMIT: Duration = Duration::from_secs(300);
/// Configurations: the prefix of their metrics, and their kernel parameters. Tracing is off in both.
const CONFIGURATIONS: [(&str, &str); 2] = [("off", "trace_event="), ("tracked", "trace_event= nohz_full=1-3")];

/// Command-line options of `host bench`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Print the metric lines alone, and compare nothing
    #[arg(long)]
    raw: bool,
    /// The line that the guest's shell runs
    #[arg(long, default_value = "bench")]
    line: String,
}

/// Builds, measures, prints the table, and fails where a bound does not hold.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    tree.build(Profile::Release)?;
    let mut all = Vec::new();
    for (prefix, cmdline) in CONFIGURATIONS {
        all.extend(measure(tree, prefix, cmdline, &options.line)?);
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

/// Runs one configuration to its power-off and returns its metrics.
pub fn measure(tree: &Tree, prefix: &str, cmdline: &str, line: &str) -> Result<Vec<Metric>, Failure> {
    let archive = image::boot_archive(tree, Profile::Release, &image::root_file_system(tree)?)?;
    let mut settings = Settings { accel: Accel::Tcg, icount: true, cmdline: cmdline.into(), ..Settings::default() };
    let counts = std::env::temp_dir().join(format!("quiesce-bench-{}", std::process::id()));
    let no_plugin = plugin::why_not();
    match &no_plugin {
        Some(why) => eprintln!("bench: boot instructions SKIPPED: {why}"),
        None => settings.qemu_args.extend(plugin::arguments(&plugin::build(tree)?, &counts)),
    }
    let Qemu { child, mut console, slot } = qemu::start(tree, &settings, Chosen::Tcg, &archive, |_| {})?;
    let mut guest = Guest(child);
    let deadline = Instant::now() + LIMIT;
    let io = |e: std::io::Error| Failure::Bad(format!("{prefix}: console: {e}"));
    console.write_all(format!("{line}\npoweroff\n").as_bytes()).map_err(io)?;
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
    let log = String::from_utf8_lossy(&log).replace('\r', "");
    if end != End::Clean {
        eprint!("{log}");
        return Err(Failure::Bad(format!("{prefix}: the guest ended by {end:?}")));
    }
    let mut metrics = budgets::metrics(&log, prefix)?;
    if no_plugin.is_none() {
        let report = plugin::parse(&String::from_utf8_lossy(&failure::read(&counts)?))?;
        let _ = std::fs::remove_file(&counts); // a leftover in the system's temporary folder harms nobody
        for (name, value) in [
            ("boot_loader", report.boot.iter().map(|b| b.loader).sum::<u64>()),
            ("boot_kernel", report.boot.iter().map(|b| b.kernel).sum::<u64>()),
        ] {
            metrics.push(Metric { name: format!("{prefix}.{name}"), value: value as f64, unit: "insn".into() });
        }
    }
    Ok(metrics)
}

/// Ends QEMU on every way out.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended already
        let _ = self.0.wait();
    }
}

//! `host bench`: runs the guest program `bench` as process 1 with instructions as the clock: with nothing isolated
//! (`off`), on an isolated CPU (`tracked`), and on CPU 0 while others are isolated (`untracked`);
//! then with tracing on (`traced`, `traced_syscalls`, `off_recorded`, `tracked_recorded`). Adds the differences (`added`) and what only the
//! counting plugin can see, compares all with budgets.toml, and shows Linux's figures beside them.

use crate::budgets::{self, Metric};
use crate::failure::Failure;
use crate::image;
use crate::linux_figures;
use crate::measured::{self, Guest};
use crate::qemu::Medium;
use crate::scale;
use crate::settings::{Accel, Settings};
use crate::tree::{Profile, Tree};
use std::time::Duration;

/// Safety net for one configuration.
const LIMIT: Duration = Duration::from_secs(300);
/// What every configuration is booted with: the program in place of init.
const COMMON: &str = "nowatchdog norandmaps init=/bin/bench secs=1";

/// A way to boot.
struct Configuration {
    /// Stands before the names of its metrics.
    prefix: &'static str,
    /// The CPU that is measured.
    cpu: u32,
    isolation: &'static str,
    /// What is traced.
    trace_event: &'static str,
    /// What alone is measured of what was asked for, and told; empty: everything.
    only: &'static str,
    told: &'static str,
}

const fn untraced(prefix: &'static str, cpu: u32, isolation: &'static str) -> Configuration {
    Configuration { prefix, cpu, isolation, trace_event: "", only: "", told: "" }
}

const CONFIGURATIONS: [Configuration; 7] = [
    untraced("off", 1, ""),
    untraced("tracked", 1, "nohz_full=1-3"),
    untraced("untracked", 0, "nohz_full=1-3"),
    Configuration {
        prefix: "traced",
        cpu: 1,
        isolation: "",
        trace_event: "syscalls,context",
        only: "syscall",
        told: "syscall_getppid.med",
    },
    Configuration {
        prefix: "traced_syscalls",
        cpu: 1,
        isolation: "",
        trace_event: "syscalls",
        only: "syscall",
        told: "syscall_getppid.med",
    },
    Configuration {
        prefix: "off_recorded",
        cpu: 1,
        isolation: "",
        trace_event: "irq,ipi",
        only: "ipi",
        told: "ipi_user.mode",
    },
    Configuration {
        prefix: "tracked_recorded",
        cpu: 1,
        isolation: "nohz_full=1-3",
        trace_event: "irq,ipi",
        only: "ipi",
        told: "ipi_user.mode",
    },
];

/// Command-line options of `host bench`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Print the metric lines alone, and compare nothing
    #[arg(long)]
    raw: bool,
    /// Measurements of the guest program, separated by commas; `all` for all
    #[arg(long, default_value = "syscall,yield,clock,fault,mmap,signal,fork,pipe,futex,sleep,ipi,unmap,noise")]
    only: String,
    /// Boot with 1 to 255 CPUs instead, and print what each boot costs
    #[arg(long)]
    scale: bool,
}

/// What one recorded event costs: what tracing by `prefix` adds to a getppid, of which it records so many `events`, and the way
/// to them at the two sites.
fn traced_event(all: &[Metric], prefix: &str, events: f64) -> Option<Metric> {
    let value = |name: &str| all.iter().find(|m| m.name == name).map(|m| m.value);
    let more = value(&format!("{prefix}.syscall_getppid.med"))? - value("off.syscall_getppid.med")?;
    Some(Metric { name: format!("{prefix}.event"), value: more / events, unit: "insns".into() })
}

/// What tracking adds to one kernel entry and the way back, by what makes it.
fn added_by_tracking(all: &[Metric]) -> impl Iterator<Item = Metric> {
    const OF: [(&str, &str); 4] = [
        ("syscall", "syscall_getppid.med"),
        ("invalid_call", "syscall_bad10000.med"),
        ("fault", "fault_read.med"),
        ("interrupt", "ipi_user.mode"),
    ];
    let value = |name: String| all.iter().find(|m| m.name == name).map(|m| m.value);
    OF.into_iter().filter_map(move |(name, metric)| {
        let more = value(format!("tracked.{metric}"))? - value(format!("off.{metric}"))?;
        Some(Metric { name: format!("added.{name}"), value: more, unit: "insns".into() })
    })
}

/// Builds, measures, prints the table, and fails where a bound does not hold.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    tree.build(Profile::Release)?;
    if options.scale {
        return scale::main(tree);
    }
    let archive = image::boot_archive(tree, Profile::Release, &image::root_file_system(tree)?)?;
    let mut all = Vec::new();
    for Configuration { prefix, cpu, isolation, trace_event, only, told } in &CONFIGURATIONS {
        let asked = |name: &&str| options.only == "all" || options.only.split(',').any(|word| word == *name);
        let only = match (*only, options.only.as_str()) {
            ("", "all") => String::new(),
            ("", words) => format!("only={words}"),
            (name, _) if asked(&name) => format!("only={name}"),
            _ => continue,
        };
        let cmdline = format!("{COMMON} trace_event={trace_event} cpu={cpu} {isolation} {only}");
        let settings = Settings { accel: Accel::Tcg, icount: true, cmdline, ..Settings::default() };
        let guest = Guest { prefix, cpu: *cpu, settings, medium: Medium::Archive(&archive), limit: LIMIT };
        let metrics = measured::measure(tree, guest)?.metrics.into_iter();
        all.extend(metrics.filter(|m| told.is_empty() || m.name.ends_with(told)));
    }
    // user_exit, sys_enter, sys_exit, user_enter; the two in the middle alone.
    all.extend(traced_event(&all, "traced", 4.0));
    all.extend(traced_event(&all, "traced_syscalls", 2.0));
    let added: Vec<_> = added_by_tracking(&all).collect();
    all.extend(added);
    if options.raw {
        for m in &all {
            println!("metric {} {} {}", m.name, m.value, m.unit);
        }
        return Ok(());
    }
    let linux = linux_figures::read(tree)?;
    let table = budgets::table(&budgets::read(&tree.root.join("budgets.toml"))?, &all, &linux.figures);
    print!("{}", table.text);
    println!("linux: {}, measured {} by `make compare`", linux.kernel, linux.date);
    table.verdict()
}

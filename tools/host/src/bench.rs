//! `host bench`: runs the guest program `bench` as process 1 with instructions as the clock: with nothing isolated
//! (`off`), on an isolated CPU (`tracked`), and on CPU 0 while others are isolated (`untracked`). Adds what only the
//! counting plugin can see, compares all with budgets.toml, and shows Linux's figures beside them.

use crate::budgets;
use crate::failure::Failure;
use crate::image;
use crate::linux_figures;
use crate::measured::{self, Guest};
use crate::qemu::Medium;
use crate::settings::{Accel, Settings};
use crate::tree::{Profile, Tree};
use std::time::Duration;

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
    for Configuration { prefix, cpu, isolation } in &CONFIGURATIONS {
        let only = if options.only == "all" { String::new() } else { format!("only={}", options.only) };
        let cmdline = format!("{COMMON} cpu={cpu} {isolation} {only}");
        let settings = Settings { accel: Accel::Tcg, icount: true, cmdline, ..Settings::default() };
        let guest = Guest { prefix, cpu: *cpu, settings, medium: Medium::Archive(&archive), limit: LIMIT };
        all.extend(measured::measure(tree, guest)?.metrics);
    }
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

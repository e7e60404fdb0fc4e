//! `host compare`: boots Debian's kernel and Quiesce on the same machine with the same static program as /init, with
//! nothing isolated (`off`), on an isolated CPU (`tracked`) and on CPU 0 beside isolated ones (`untracked`), and
//! prints one table with ratios. Instructions are the clock, so the figures do not depend on the host.

use crate::compare_chart;
use crate::compare_debian::{self, Kernel};
use crate::compare_output;
use crate::compare_report::{self, Comparison};
use crate::failure::{self, Failure};
use crate::image;
use crate::linux_figures::{self, Linux};
use crate::measured::{self, Guest};
use crate::qemu::{self, Medium};
use crate::settings::{Accel, Settings};
use crate::tree::{Profile, Tree};
use std::time::Duration;

/// Safety net for one boot.
const LIMIT: Duration = Duration::from_secs(300);
/// The isolation words, Linux's and ours.
const LINUX_ISOLATION: &str = "nohz_full=1-3 rcu_nocbs=1-3 isolcpus=nohz,domain,managed_irq,1-3 irqaffinity=0";
const OUR_ISOLATION: &str = "nohz_full=1-3";

/// Ways to boot: prefix of the metrics, words for the program, whether CPUs 1 to 3 are isolated, the measured CPU.
const CONFIGURATIONS: [(&str, &str, bool, u32); 3] = [
    ("off", "cpu=1 secs=1", false, 1),
    ("tracked", "cpu=1 secs=1", true, 1),
    ("untracked", "cpu=0 only=syscall", true, 0),
];

/// Command-line options of `host compare`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Also write README.md's table, docs/compare.svg, tools/host/linux.toml and tests/expected/stdlib.txt
    #[arg(long)]
    readme: bool,
    /// Measure nothing: only see that stdlib and calls find on Debian's kernel what is expected of Quiesce
    #[arg(long, conflicts_with = "readme")]
    checks: bool,
}

/// Fetches, builds, boots, prints and writes.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let say = |text: &str| eprintln!("compare: {text}");
    let out = tree.target.join("compare");
    let kernel = compare_debian::kernel(&out.join("debian"), say)?;
    tree.build(Profile::Release)?;
    say(&format!("{}, what stdlib prints", kernel.name));
    compare_output::main(tree, &kernel, options.readme)?;
    say(&format!("{}, what calls finds", kernel.name));
    say(&compare_output::calls(tree, &kernel)?);
    if options.checks {
        return Ok(());
    }
    let version = compare_report::version(tree); // of what was built, whatever happens to the tree meanwhile
    let program = image::program_alone(tree, "bench")?;
    let archive = image::boot_archive(tree, Profile::Release, &program)?;
    let (mut linux, mut ours) = (Vec::new(), Vec::new());
    for (prefix, words, isolated, cpu) in CONFIGURATIONS {
        let guest = |name: &str, cmdline: String, medium| {
            say(&format!("{name}, {prefix}"));
            let settings = Settings { accel: Accel::Tcg, icount: true, cmdline, ..Settings::default() };
            measured::measure(tree, Guest { prefix, cpu, settings, medium, limit: LIMIT })
        };
        let isolation = if isolated { LINUX_ISOLATION } else { "" };
        let cmdline = format!("console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off {isolation} end=port {words}");
        linux.extend(guest(&kernel.name, cmdline, foreign(&kernel, &program))?.metrics);
        let cmdline = format!("trace_event= {} {words}", if isolated { OUR_ISOLATION } else { "" });
        ours.extend(guest("Quiesce", cmdline, Medium::Archive(&archive))?.metrics);
    }
    let comparison = Comparison::new(kernel.name.clone(), version, &linux, &ours);
    println!("{}", comparison.text());
    let (json, svg) = (out.join("compare.json"), out.join("compare.svg"));
    let chart = compare_chart::svg(&comparison);
    failure::write(&json, comparison.json().as_bytes())?;
    failure::write(&svg, chart.as_bytes())?;
    say(&format!("written: {} {}", json.display(), svg.display()));
    if options.readme {
        let readme = tree.root.join("README.md");
        let text = String::from_utf8_lossy(&failure::read(&readme)?).into_owned();
        failure::write(&readme, compare_report::into_readme(&text, &comparison.markdown())?.as_bytes())?;
        failure::write(&tree.root.join("docs/compare.svg"), chart.as_bytes())?;
        let figures = linux_figures::of_metrics(&linux, &compare_report::metrics());
        let qemu = comparison.qemu.clone();
        linux_figures::write(tree, &Linux { kernel: kernel.name, qemu, date: comparison.date.clone(), figures })?;
        say("written: README.md docs/compare.svg tools/host/linux.toml tests/expected/stdlib.txt");
    }
    Ok(())
}

/// Debian's kernel with a root file system.
pub fn foreign<'a>(kernel: &'a Kernel, initrd: &'a [u8]) -> Medium<'a> {
    Medium::Foreign { kernel: &kernel.image, initrd }
}

/// QEMU's version, as people write it.
pub fn qemu_version() -> String {
    qemu::version().map_or_else(|| "unknown".into(), |(major, minor)| format!("{major}.{minor}"))
}

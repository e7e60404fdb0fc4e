//! `host mutants`: switches on each seeded defect of kernel/core/tests/MUTANTS.md and expects the check that the table names to fail;
//! before that, with no defect, the same check must pass. Called by `make mutants`. The table there is the list; a row that does not
//! compile is an error, not a kill.

mod core_tests;
mod manifest;
mod mutated_kernel;

use crate::failure::{self, Failure};
use crate::tree::Tree;
use manifest::{Layer, Mutant};
use mutated_kernel::MutatedKernel;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The wrapper that switches no mutant on.
const CONTROL: &str = "none";

/// Command-line options of `host mutants`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Run these alone
    names: Vec<String>,
    /// Run the mutants of these layers alone
    #[arg(long, value_delimiter = ',', value_name = "loom,host,elf,qemu")]
    layers: Vec<Layer>,
}

/// What a check did.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Verdict {
    /// It passed: good for the control, bad for a mutant.
    Passed,
    /// It failed, in one or two words.
    Failed(&'static str),
    /// This machine cannot run it: the reason.
    Skipped(String),
}

/// What ran so far.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    /// Prints a line of the table: what came of it, the mutant, its layer, what kills it.
    fn line(&mut self, mutant: &Mutant, is_control: bool, verdict: &Verdict, start: Instant) {
        let word = match (verdict, is_control) {
            (Verdict::Passed, true) => "passed",
            (Verdict::Failed(how), false) => how,
            (Verdict::Passed, false) => "SURVIVED",
            (Verdict::Failed(_), true) => "FAILED",
            (Verdict::Skipped(_), _) => "skipped",
        };
        match word {
            "skipped" => self.skipped += 1,
            "SURVIVED" | "FAILED" => self.failed += 1,
            _ => self.passed += 1,
        }
        let name = if is_control { "(control: no mutant)" } else { &mutant.name };
        let seconds = start.elapsed().as_secs();
        println!("{word:9} {name:28} {:4} {} ({seconds} s)", mutant.layer.name(), mutant.killer());
        if let Verdict::Skipped(why) = verdict {
            println!("SKIPPED: {name}: {why}");
        }
    }
}

/// Runs controls and mutants, prints a line for each, and fails if a mutant survives or a control fails.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let table = tree.root.join("kernel/core/tests/MUTANTS.md");
    let all = manifest::parse(&String::from_utf8_lossy(&failure::read(&table)?))?;
    if let Some(name) = options.names.iter().find(|n| !all.iter().any(|m| m.name == **n)) {
        return Err(Failure::Usage(format!("{name}: no such mutant in {}", table.display())));
    }
    let is_chosen = |m: &&Mutant| {
        (options.names.is_empty() || options.names.contains(&m.name))
            && (options.layers.is_empty() || options.layers.contains(&m.layer))
    };
    let chosen: Vec<&Mutant> = all.iter().filter(is_chosen).collect();
    let mut kernel = MutatedKernel::new(tree);
    let mut tally = Tally::default();
    let mut controlled = BTreeSet::new();
    for layer in Layer::ALL {
        for mutant in chosen.iter().filter(|m| m.layer == layer) {
            // Once for everything that the same command tells.
            if controlled.insert(mutant.command()) {
                let start = Instant::now();
                tally.line(mutant, true, &run(tree, &mut kernel, mutant, CONTROL)?, start);
            }
        }
        for mutant in chosen.iter().filter(|m| m.layer == layer) {
            let start = Instant::now();
            tally.line(mutant, false, &run(tree, &mut kernel, mutant, &mutant.name)?, start);
        }
    }
    let Tally { passed, failed, skipped } = tally;
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {skipped} ignored; mutants and controls");
    if failed == 0 { Ok(()) } else { Err(Failure::Bad(format!("mutants: {failed} survive, or fail as control"))) }
}

/// Runs what kills `mutant` with the mutant `on`, which may be [`CONTROL`].
fn run(tree: &Tree, kernel: &mut MutatedKernel, mutant: &Mutant, on: &str) -> Result<Verdict, Failure> {
    let wrapper = wrapper(&folder(tree), on)?;
    match mutant.layer {
        Layer::Loom | Layer::Host => core_tests::run(tree, mutant, &wrapper),
        Layer::Elf => kernel.check_elf(&wrapper, &mutant.test, on == CONTROL),
        Layer::Qemu => kernel.scenario(&wrapper, &mutant.test, &mutant.part),
    }
}

/// Where all of it is built.
fn folder(tree: &Tree) -> PathBuf {
    tree.target.join("mutants")
}

/// A compiler wrapper that switches the mutant on in our own crates alone, so that no other crate is built again.
fn wrapper(folder: &Path, name: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(format!("wrappers/{name}"));
    let script = match name {
        CONTROL => "#!/bin/sh\n\"$@\"\n".to_string(),
        _ => format!("#!/bin/sh\n\"$@\" --cfg 'mutant=\"{name}\"'\n"),
    };
    if std::fs::read_to_string(&path).is_ok_and(|old| old == script) {
        return Ok(path);
    }
    failure::write(&path, script.as_bytes())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    Ok(path)
}

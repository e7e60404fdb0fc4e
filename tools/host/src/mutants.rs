//! `host mutants`: switches on each seeded defect of kernel/core/tests/MUTANTS.md and expects its test to fail.
//! Called by `make mutants`. The table there is the list; a row that does not compile is an error, not a kill.

use crate::failure::{self, Failure};
use crate::tool;
use crate::tree::Tree;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A mutant may make its test hang; that is a kill too.
const LIMIT: Duration = Duration::from_secs(240);

/// Command-line options of `host mutants`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Run these alone
    names: Vec<String>,
}

/// A row of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Mutant {
    name: String,
    loom: bool,
    /// The test program that kills it.
    test: String,
}

/// Runs the mutants, prints a line for each, and fails if one survives.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let table = tree.root.join("kernel/core/tests/MUTANTS.md");
    let all = parse(&String::from_utf8_lossy(&failure::read(&table)?))?;
    if let Some(name) = options.names.iter().find(|n| !all.iter().any(|m| m.name == **n)) {
        return Err(Failure::Usage(format!("{name}: no such mutant in {}", table.display())));
    }
    let chosen = all.iter().filter(|m| options.names.is_empty() || options.names.contains(&m.name));
    let (mut killed, mut survived) = (0, 0);
    for mutant in chosen {
        let start = Instant::now();
        let how = run(tree, mutant)?;
        match how {
            Some(_) => killed += 1,
            None => survived += 1,
        }
        let layer = if mutant.loom { "loom" } else { "host" };
        let what = how.unwrap_or("SURVIVED");
        println!("{what:9} {:28} {layer} {} ({} s)", mutant.name, mutant.test, start.elapsed().as_secs());
    }
    let word = if survived == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {killed} passed; {survived} failed; 0 ignored; mutants");
    if survived == 0 { Ok(()) } else { Err(Failure::Bad(format!("{survived} mutants survive"))) }
}

/// Reads the table: name, file, what it breaks, layer, killed by.
fn parse(text: &str) -> Result<Vec<Mutant>, Failure> {
    let mut found = Vec::new();
    for line in text.lines().filter(|l| l.starts_with("| `")) {
        let bad = || Failure::Usage(format!("MUTANTS.md: {line}"));
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, _, _, layer, killer, ..] = cells[..] else { return Err(bad()) };
        let quoted = |cell: &str| cell.split('`').nth(1).map(String::from);
        let loom = match layer {
            "loom" => true,
            "host" => false,
            _ => return Err(bad()),
        };
        let (Some(name), Some(test)) = (quoted(name), quoted(killer)) else { return Err(bad()) };
        found.push(Mutant { name, loom, test });
    }
    if found.is_empty() {
        return Err(Failure::Usage("MUTANTS.md: no row is there".into()));
    }
    Ok(found)
}

/// Builds and runs one; says how it died, or None if it lives.
fn run(tree: &Tree, mutant: &Mutant) -> Result<Option<&'static str>, Failure> {
    let folder = tree.target.join("mutants");
    let wrapper = wrapper(&folder, &mutant.name)?;
    let cargo = |more: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(["test", "-q", "-p", "kcore", "--release", "--test", &mutant.test]).args(more);
        command.current_dir(&tree.root).env("CARGO_TARGET_DIR", &folder).env("RUSTC_WORKSPACE_WRAPPER", &wrapper);
        command
            .env_remove("RUSTFLAGS")
            .env("LOOM_MAX_PREEMPTIONS", "2")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"); // builds sooner
        if mutant.loom {
            command.env("RUSTFLAGS", "--cfg loom");
        }
        command
    };
    let fail = |e| tool::failure("cargo", e);
    if !tool::status(&mut cargo(&["--no-run"])).map_err(fail)?.success() {
        return Err(Failure::Bad(format!("mutant {}: {} does not build", mutant.name, mutant.test)));
    }
    let quiet = &mut cargo(&[]);
    let ended = tool::status_within(quiet.stdout(Stdio::null()).stderr(Stdio::null()), LIMIT).map_err(fail)?;
    Ok(match ended {
        Some(status) => (!status.success()).then_some("killed"),
        None => Some("hung"),
    })
}

/// A compiler wrapper that switches the mutant on in our own crates alone, so that no other crate is built again.
fn wrapper(folder: &Path, name: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(format!("wrappers/{name}"));
    let script = format!("#!/bin/sh\n\"$@\" --cfg 'mutant=\"{name}\"'\n");
    if std::fs::read_to_string(&path).is_ok_and(|old| old == script) {
        return Ok(path);
    }
    failure::write(&path, script.as_bytes())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let text = "| mutant | file |\n|---|---|\n| `a_b` | f | breaks it | loom | `loom_x`: `t` |\n\
| `c` | g | breaks | host | `prop_y`: `u` and more |\n";
        let row = |name: &str, loom, test: &str| Mutant { name: name.into(), loom, test: test.into() };
        assert_eq!(parse(text).unwrap(), [row("a_b", true, "loom_x"), row("c", false, "prop_y")]);
        assert!(parse("| `a` | f | b | qemu | `x` |").is_err());
        assert!(parse("").is_err());
    }
}

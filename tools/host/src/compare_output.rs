//! Guest programs on Debian's kernel that scenarios hold Quiesce to: `stdlib` prints what is kept in the tree, and each check of
//! `calls` passes, so that what it expects is what Linux does. Used by `compare` and by those scenarios.

use crate::compare_debian::Kernel;
use crate::failure::{self, Failure};
use crate::image;
use crate::measured;
use crate::qemu::{End, Medium};
use crate::settings::{Accel, Settings};
use crate::tree::Tree;
use std::time::Duration;

/// Safety net for the boot.
const LIMIT: Duration = Duration::from_secs(300);
const PREFIX: &str = "std: ";

/// Boots Debian's kernel with guest program `name` as /init; gives its serial log.
fn boot(tree: &Tree, kernel: &Kernel, name: &str) -> Result<String, Failure> {
    let initrd = image::program_alone(tree, name)?;
    // Four levels of page tables, as here: with five Linux lets a program map addresses beyond 2^47.
    let cpu = Some("max,-la57".into());
    let cmdline = "console=ttyS0 quiet panic=-1 tsc=reliable end=port".into();
    let settings = Settings { accel: Accel::Tcg, cpu, cmdline, ..Settings::default() };
    let medium = Medium::Foreign { kernel: &kernel.image, initrd: &initrd };
    let (end, log) = measured::run(tree, &settings, medium, LIMIT, name)?;
    if end != End::Clean {
        eprint!("{log}");
        return Err(Failure::Bad(format!("{name} on {}: the guest ended by {end:?}", kernel.name)));
    }
    Ok(log)
}

/// Boots Debian's kernel with `calls` as /init; gives its last line. Fails on any check that did.
pub fn calls(tree: &Tree, kernel: &Kernel) -> Result<String, Failure> {
    let log = boot(tree, kernel, "calls")?;
    verdict(&log).map_err(|why| Failure::Bad(format!("calls on {}: {why}", kernel.name)))
}

/// The sum in a log of `calls`, or the lines that say what failed.
fn verdict(log: &str) -> Result<String, String> {
    let failed: String = log.lines().filter(|l| l.starts_with("FAILED ")).map(|l| format!("\n  {l}")).collect();
    let sum = log.lines().find(|l| l.starts_with("calls: ")).ok_or(format!("no sum{failed}"))?;
    let numbers: Vec<usize> = sum.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [passed, all] if failed.is_empty() && passed == all && all > 0 => Ok(sum.into()),
        _ => Err(format!("{sum}{failed}")),
    }
}

/// Boots Debian's kernel with `stdlib` as /init. With `record` the tree's file is written, else compared.
pub fn main(tree: &Tree, kernel: &Kernel, record: bool) -> Result<(), Failure> {
    let kept = tree.root.join("tests/expected/stdlib.txt");
    let log = boot(tree, kernel, "stdlib")?;
    let told = told(&log);
    if record {
        return failure::write(&kept, told.as_bytes());
    }
    let expected = String::from_utf8_lossy(&failure::read(&kept)?).into_owned();
    if told == expected {
        return Ok(());
    }
    Err(Failure::Bad(format!(
        "stdlib on {}: not as in {}\n{}",
        kernel.name,
        kept.display(),
        difference(&expected, &told)
    )))
}

/// The program's own lines in a serial log.
pub fn told(log: &str) -> String {
    log.lines().filter(|line| line.starts_with(PREFIX)).map(|line| format!("{line}\n")).collect()
}

/// The lines of one that the other lacks, in order.
pub fn difference(expected: &str, told: &str) -> String {
    let mut text = String::new();
    let lacks = |all: &str, line: &str| !all.lines().any(|other| other == line);
    expected.lines().filter(|l| lacks(told, l)).for_each(|l| text.push_str(&format!("  not told: {l}\n")));
    told.lines().filter(|l| lacks(expected, l)).for_each(|l| text.push_str(&format!("  not expected: {l}\n")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_is_named() {
        assert_eq!(verdict("ok a\nskipped b\ncalls: 1 of 1 passed\n").unwrap(), "calls: 1 of 1 passed");
        let failed = verdict("ok a\nFAILED b: why\ncalls: 1 of 2 passed\n").unwrap_err();
        assert_eq!(failed, "calls: 1 of 2 passed\n  FAILED b: why");
        assert!(verdict("calls: 1 of 2 passed\n").is_err());
        assert!(verdict("calls: 0 of 0 passed\n").is_err());
        assert_eq!(verdict("ok a\nFAILED b: why\n").unwrap_err(), "no sum\n  FAILED b: why");
    }

    #[test]
    fn only_the_programs_lines_count() {
        let told = told("[ 0.1] boot\nstd: a\nmore\nstd: b\n");
        assert_eq!(told, "std: a\nstd: b\n");
        assert_eq!(difference("std: a\nstd: c\n", &told), "  not told: std: c\n  not expected: std: b\n");
        assert_eq!(difference(&told, &told), "");
    }
}

//! What the guest program `stdlib` prints on Debian's kernel, against the output kept in the tree, which a scenario holds
//! Quiesce to. Used by `compare` and by that scenario.

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

/// Boots Debian's kernel with `stdlib` as /init. With `record` the tree's file is written, else compared.
pub fn main(tree: &Tree, kernel: &Kernel, record: bool) -> Result<(), Failure> {
    let kept = tree.root.join("tests/expected/stdlib.txt");
    let initrd = image::program_alone(tree, "stdlib")?;
    let cmdline = "console=ttyS0 quiet panic=-1 tsc=reliable end=port".into();
    let settings = Settings { accel: Accel::Tcg, cmdline, ..Settings::default() };
    let medium = Medium::Foreign { kernel: &kernel.image, initrd: &initrd };
    let (end, log) = measured::run(tree, &settings, medium, LIMIT, "stdlib")?;
    if end != End::Clean {
        eprint!("{log}");
        return Err(Failure::Bad(format!("stdlib on {}: the guest ended by {end:?}", kernel.name)));
    }
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
    fn only_the_programs_lines_count() {
        let told = told("[ 0.1] boot\nstd: a\nmore\nstd: b\n");
        assert_eq!(told, "std: a\nstd: b\n");
        assert_eq!(difference("std: a\nstd: c\n", &told), "  not told: std: c\n  not expected: std: b\n");
        assert_eq!(difference(&told, &told), "");
    }
}

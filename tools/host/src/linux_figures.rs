//! Linux's figures for the work that the guest program `bench` measures: read from tools/host/linux.toml, which
//! `compare` writes, and shown by `bench` and `budgets` beside ours.

use crate::budgets::Metric;
use crate::failure::{self, Failure};
use crate::tree::Tree;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Values by the name of the metric, with the configuration in front: `off.syscall_getppid.med`.
pub type Figures = BTreeMap<String, f64>;

/// One measurement of a Linux kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Linux {
    /// The kernel, by package and version.
    pub kernel: String,
    /// QEMU's version.
    pub qemu: String,
    /// The day, as 2026-01-31.
    pub date: String,
    /// What was measured.
    pub figures: Figures,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kernel: String,
    qemu: String,
    date: String,
    off: Figures,
    tracked: Figures,
    untracked: Figures,
}

fn path(tree: &Tree) -> PathBuf {
    tree.root.join("tools/host/linux.toml")
}

/// Reads the tree's file.
pub fn read(tree: &Tree) -> Result<Linux, Failure> {
    let path = path(tree);
    let text = String::from_utf8_lossy(&failure::read(&path)?).into_owned();
    parse(&text).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

/// Writes the tree's file.
pub fn write(tree: &Tree, linux: &Linux) -> Result<(), Failure> {
    failure::write(&path(tree), text(linux).as_bytes())
}

/// Those metrics whose names, without the configuration, are `wanted`.
pub fn of_metrics(metrics: &[Metric], wanted: &[&str]) -> Figures {
    let is_wanted = |name: &str| name.split_once('.').is_some_and(|(_, rest)| wanted.contains(&rest));
    metrics.iter().filter(|m| is_wanted(&m.name)).map(|m| (m.name.clone(), m.value)).collect()
}

fn parse(text: &str) -> Result<Linux, toml::de::Error> {
    let File { kernel, qemu, date, off, tracked, untracked } = toml::from_str(text)?;
    let mut figures = Figures::new();
    for (prefix, group) in [("off", off), ("tracked", tracked), ("untracked", untracked)] {
        figures.extend(group.into_iter().map(|(name, value)| (format!("{prefix}.{name}"), value)));
    }
    Ok(Linux { kernel, qemu, date, figures })
}

fn text(linux: &Linux) -> String {
    let mut text = String::from(
        "# Linux's figures, in executed instructions, on the machine that `make bench` measures ours on.\n\
         # Written by `make compare README=1`. off = nothing isolated, tracked = on an isolated CPU,\n\
         # untracked = on CPU 0 while others are isolated; all with mitigations=off.\n",
    );
    let Linux { kernel, qemu, date, figures } = linux;
    let _ = writeln!(text, "kernel = {kernel:?}\nqemu = {qemu:?}\ndate = {date:?}");
    for group in ["off", "tracked", "untracked"] {
        let _ = writeln!(text, "\n[{group}]");
        for (name, value) in figures {
            if let Some(rest) = name.strip_prefix(group).and_then(|rest| rest.strip_prefix('.')) {
                let _ = writeln!(text, "{rest:?} = {value:?}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let metric = |name: &str, value| Metric { name: name.into(), value, unit: "insns".into() };
        let metrics = [metric("off.a.med", 1.0), metric("tracked.a.med", 2.5), metric("tracked.b", 7.0)];
        let figures = of_metrics(&metrics, &["a.med"]);
        assert_eq!(figures.len(), 2);
        let linux = Linux { kernel: "linux-image 6.1".into(), qemu: "10.0".into(), date: "2026-01-31".into(), figures };
        assert_eq!(parse(&text(&linux)).unwrap(), linux);
        assert!(parse("kernel = \"x\"").is_err());
    }
}

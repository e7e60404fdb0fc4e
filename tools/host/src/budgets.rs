//! `host budgets`: compares measured figures with the upper bounds in budgets.toml, and prints a table.
//! `bench` feeds it; so may any log with `metric NAME VALUE UNIT` lines on standard input.

use crate::failure::{self, Failure};
use crate::linux_figures::{self, Figures};
use crate::tree::Tree;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;

/// Command-line options of `host budgets`.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Put this before every name, with a dot between
    #[arg(long, default_value = "")]
    prefix: String,
}

/// One row of budgets.toml.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What is measured, for people.
    #[serde(default)]
    pub what: String,
    /// The upper bound.
    pub bound: f64,
    /// The value reached when this row was last changed.
    pub reached: Option<f64>,
    /// What no kernel can go below on this machine, where that was counted.
    pub floor: Option<f64>,
    /// The unit that the measurement must have.
    pub unit: String,
}

/// Budgets by the name of their metric.
pub type Budgets = BTreeMap<String, Budget>;

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name, with the configuration in front: `off.getppid`.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

/// Reads metric lines from standard input and compares.
pub fn main(tree: &Tree, options: &Options) -> Result<(), Failure> {
    let mut log = Vec::new();
    std::io::stdin().read_to_end(&mut log).map_err(|e| Failure::Usage(format!("standard input: {e}")))?;
    let metrics = metrics(&String::from_utf8_lossy(&log), &options.prefix)?;
    let linux = linux_figures::read(tree)?.figures;
    let table = table(&read(&tree.root.join("budgets.toml"))?, &metrics, &linux);
    print!("{}", table.text);
    table.verdict()
}

/// Reads a budgets file: one table `[NAME]` a metric.
pub fn read(path: &Path) -> Result<Budgets, Failure> {
    let text = String::from_utf8_lossy(&failure::read(path)?).into_owned();
    parse(&text).map_err(|e| Failure::Usage(format!("{}: {e}", path.display())))
}

fn parse(text: &str) -> Result<Budgets, toml::de::Error> {
    // Dotted table names nest: [off.getppid] is getppid inside off.
    let nested: BTreeMap<String, BTreeMap<String, Budget>> = toml::from_str(text)?;
    let flat = nested
        .into_iter()
        .flat_map(|(group, rows)| rows.into_iter().map(move |(name, budget)| (format!("{group}.{name}"), budget)));
    Ok(flat.collect())
}

/// The `metric NAME VALUE UNIT` lines of a serial log; other lines are left out.
pub fn metrics(log: &str, prefix: &str) -> Result<Vec<Metric>, Failure> {
    let mut found = Vec::new();
    for line in log.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["metric", name, value, rest @ ..] = words.as_slice() else { continue };
        let value = value.parse::<f64>().map_err(|e| Failure::Bad(format!("{line}: {e}")))?;
        let name = if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") };
        found.push(Metric { name, value, unit: rest.first().copied().unwrap_or_default().to_string() });
    }
    Ok(found)
}

/// A printed comparison.
#[derive(Debug)]
pub struct Table {
    /// The rows, for people.
    pub text: String,
    /// Metrics above their bound, or in another unit.
    pub above: usize,
    /// Budgets without a measurement.
    pub missing: usize,
}

impl Table {
    /// Fails if a bound does not hold or was not measured.
    pub fn verdict(&self) -> Result<(), Failure> {
        if self.above + self.missing == 0 {
            return Ok(());
        }
        Err(Failure::Bad(format!("budgets: {} exceeded, {} not measured", self.above, self.missing)))
    }
}

/// Compares; a metric without a budget is shown and never fails. Linux's figures and the floors stand beside ours.
pub fn table(budgets: &Budgets, metrics: &[Metric], linux: &Figures) -> Table {
    let measured: BTreeMap<&str, &Metric> = metrics.iter().map(|m| (m.name.as_str(), m)).collect();
    let width = budgets.keys().map(String::len).chain(metrics.iter().map(|m| m.name.len())).max().unwrap_or(0).max(6);
    let mut text = String::new();
    let mut line = |name: &str, cells: [Option<f64>; 5], unit: &str| {
        let cells = cells.map(|cell| format!("{:>12}", cell.map_or("-".into(), number))).join(" ");
        let _ = writeln!(text, "{name:<width$} {cells}  {unit}");
    };
    let (mut above, mut missing) = (0, 0);
    for (name, budget) in budgets {
        let metric = measured.get(name.as_str());
        let mark = match metric {
            None => " NOT MEASURED".into(),
            Some(metric) if metric.unit != budget.unit => format!(" WRONG UNIT (measured in {})", metric.unit),
            Some(metric) if metric.value > budget.bound => " ABOVE".into(),
            Some(_) => String::new(),
        };
        missing += usize::from(metric.is_none());
        above += usize::from(metric.is_some() && !mark.is_empty());
        let cells =
            [metric.map(|m| m.value), budget.reached, Some(budget.bound), budget.floor, linux.get(name).copied()];
        line(name, cells, &format!("{}{mark}", budget.unit));
    }
    for metric in metrics.iter().filter(|m| !budgets.contains_key(&m.name)) {
        line(&metric.name, [Some(metric.value), None, None, None, linux.get(&metric.name).copied()], &metric.unit);
    }
    let heads = ["measured", "reached", "bound", "floor", "Linux"].map(|head| format!("{head:>12}")).join(" ");
    Table { text: format!("{:<width$} {heads}  unit\n{text}", "metric"), above, missing }
}

/// A value as people write it: without a fraction where it has none.
pub fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[off.getppid]\nwhat = \"round trip\"\nbound = 55\nreached = 50\nfloor = 35\nunit = \"insn\"\n\
[tracked.getppid]\nbound = 90\nunit = \"insn\"\n";

    #[test]
    fn bounds_hold_or_not() {
        let budgets = parse(FILE).unwrap();
        let linux = Figures::from([("off.getppid".to_string(), 323.0)]);
        let measure = |off: &str, tracked: &str| {
            let mut m = metrics(off, "off").unwrap();
            m.extend(metrics(tracked, "tracked").unwrap());
            table(&budgets, &m, &linux)
        };
        let good = measure("noise\r\nmetric getppid 55 insn\r\n", "metric getppid 90 insn\nmetric other 1 x\n");
        assert_eq!((good.above, good.missing), (0, 0), "{}", good.text);
        assert!(good.verdict().is_ok());
        assert!(good.text.contains("tracked.other"));
        let row: Vec<&str> =
            good.text.lines().find(|l| l.starts_with("off.getppid")).unwrap().split_whitespace().collect();
        assert_eq!(row, ["off.getppid", "55", "50", "55", "35", "323", "insn"]);
        let above = measure("metric getppid 55.5 insn", "metric getppid 90 insn");
        assert_eq!((above.above, above.missing), (1, 0));
        assert_eq!(above.verdict().unwrap_err().code(), 1);
        let missing = measure("metric getppid 1 insn", "");
        assert_eq!((missing.above, missing.missing), (0, 1));
        assert!(missing.verdict().is_err());
        let unit = measure("metric getppid 1 ns", "metric getppid 1 insn");
        assert_eq!(unit.above, 1);
    }

    #[test]
    fn broken_input_is_named() {
        assert!(metrics("metric getppid many insn", "").unwrap_err().to_string().contains("getppid many"));
        assert!(parse("[off.x]\nbound = 1\nunit = \"insn\"\nlimit = 2\n").is_err());
    }
}

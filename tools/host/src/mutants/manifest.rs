//! The rows of MUTANTS.md: mutant, file, what it breaks, layer, what kills it.

use crate::failure::Failure;

/// What is meant to find a mutant.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, clap::ValueEnum)]
pub enum Layer {
    /// A model under loom.
    Loom,
    /// A test on the host.
    Host,
    /// A check of the kernel's ELF file.
    Elf,
    /// A scenario that boots the kernel.
    Qemu,
}

impl Layer {
    /// All, cheapest first.
    pub const ALL: [Layer; 4] = [Layer::Host, Layer::Loom, Layer::Elf, Layer::Qemu];

    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Layer::Loom => "loom",
            Layer::Host => "host",
            Layer::Elf => "elf",
            Layer::Qemu => "qemu",
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mutant {
    /// What `cfg(mutant = …)` says.
    pub name: String,
    /// The layer that kills it.
    pub layer: Layer,
    /// The test program, or the name of the ELF check.
    pub test: String,
    /// The test in a scenario's program; empty elsewhere.
    pub part: String,
}

impl Mutant {
    /// What kills it, for people.
    pub fn killer(&self) -> String {
        if self.part.is_empty() { self.test.clone() } else { format!("{}::{}", self.test, self.part) }
    }

    /// What is run to kill it: all mutants of the ELF share one command.
    pub fn command(&self) -> (Layer, String) {
        (self.layer, if self.layer == Layer::Elf { String::new() } else { self.killer() })
    }
}

/// Reads the table.
pub fn parse(text: &str) -> Result<Vec<Mutant>, Failure> {
    let mut found: Vec<Mutant> = Vec::new();
    for line in text.lines().filter(|l| l.starts_with("| `")) {
        let bad = || Failure::Usage(format!("MUTANTS.md: {line}"));
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, _, _, layer, killer, ..] = cells[..] else { return Err(bad()) };
        let quoted = |cell: &str, nth: usize| cell.split('`').skip(1).step_by(2).nth(nth).map(String::from);
        let layer = Layer::ALL.into_iter().find(|l| l.name() == layer).ok_or_else(bad)?;
        let (Some(name), Some(test)) = (quoted(name, 0), quoted(killer, 0)) else { return Err(bad()) };
        let part = if layer == Layer::Qemu { quoted(killer, 1).ok_or_else(bad)? } else { String::new() };
        if found.iter().any(|m| m.name == name) {
            return Err(bad());
        }
        found.push(Mutant { name, layer, test, part });
    }
    if found.is_empty() {
        return Err(Failure::Usage("MUTANTS.md: no row is there".into()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read() {
        let text = "| mutant | file |\n|---|---|\n| `a_b` | f | breaks it | loom | `loom_x`: `t` |\n\
| `c` | g | breaks | host | `prop_y`: `u` and more |\n| `d` | g | breaks | elf | `no SIMD` |\n\
| `e` | g | breaks | qemu | `storm`: `quiet` |\n- `f`: equivalent\n";
        let row = |name: &str, layer, test: &str, part: &str| Mutant {
            name: name.into(),
            layer,
            test: test.into(),
            part: part.into(),
        };
        let expected = [
            row("a_b", Layer::Loom, "loom_x", ""),
            row("c", Layer::Host, "prop_y", ""),
            row("d", Layer::Elf, "no SIMD", ""),
            row("e", Layer::Qemu, "storm", "quiet"),
        ];
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(expected[3].killer(), "storm::quiet");
        assert!(parse("| `a` | f | b | qemu | `x` |").is_err(), "no test is named");
        assert!(parse("| `a` | f | b | xen | `x` |").is_err());
        let twice = "| `a` | f | b | loom | `x` |\n".repeat(2);
        assert!(parse(&twice).is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn the_tables_mutants_are_those_of_the_source() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut listed: Vec<String> = parse(include_str!("../../../../kernel/core/tests/MUTANTS.md"))
            .unwrap()
            .into_iter()
            .map(|mutant| mutant.name)
            .collect();
        let mut switched = Vec::new();
        let mut folders = vec![root.join("kernel/src"), root.join("kernel/core/src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                    continue;
                }
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let names = text.split("mutant = \"").skip(1).filter_map(|rest| rest.split('"').next());
                switched.extend(names.filter(|name| *name != "…").map(String::from));
                let in_assembly = text.split("or_mutant!(").skip(1).filter_map(|rest| {
                    // The name is the first literal between two commas; every other word is one.
                    let words = rest.split('"').collect::<Vec<_>>();
                    let mut between = words.windows(3).step_by(2);
                    let name = between.find(|w| w[0].trim_end().ends_with(',') && w[2].starts_with(','));
                    name.map(|w| w[1].to_string())
                });
                switched.extend(in_assembly);
            }
        }
        switched.sort();
        switched.dedup();
        listed.sort();
        assert_eq!(listed, switched);
    }
}

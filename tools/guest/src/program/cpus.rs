//! cpus: a line per CPU, from /sys/kernel/quiesce/cpus.

use crate::entry::{Args, Failure, Outcome};
use crate::{cpu_list, cpu_state, kernel_file, output};

/// `cpus [--json] [LIST]`.
pub fn main(args: &Args) -> Outcome {
    let mut json = false;
    let mut wanted: Option<Vec<u32>> = None;
    for word in args.rest() {
        match word.as_str() {
            "--json" => json = true,
            word if word.starts_with('-') => {
                return Err(Failure::usage(format!("unknown option {word} (usage: cpus [--json] [LIST])")));
            }
            list => wanted.get_or_insert_default().extend(cpu_list::parse(list).map_err(Failure::usage)?),
        }
    }
    let text = kernel_file::read_quiesce("cpus")?;
    let mut cpus =
        cpu_state::parse(&text).map_err(|error| Failure::new(format!("{}/cpus: {error}", kernel_file::QUIESCE)))?;
    if let Some(wanted) = wanted {
        if let Some(missing) = wanted.iter().find(|cpu| !cpus.iter().any(|line| line.cpu == **cpu)) {
            return Err(Failure::new(format!("no CPU {missing} (there are {})", numbers(&cpus))));
        }
        cpus.retain(|line| wanted.contains(&line.cpu));
    }
    let table = if json { cpu_state::to_json(&cpus) + "\n" } else { cpu_state::table(&cpus) };
    output::write_out(table.as_bytes());
    Ok(0)
}

fn numbers(cpus: &[cpu_state::CpuState]) -> String {
    let mut numbers: Vec<_> = cpus.iter().map(|line| line.cpu).collect();
    numbers.sort_unstable();
    cpu_list::format(&numbers)
}

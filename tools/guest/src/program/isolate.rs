//! isolate: turns CPUs into ones that are left alone, and back, and tells what moved away and what is left that could interrupt.

use crate::entry::{Args, Failure, Outcome};
use crate::isolation_state::{self, IsolationState};
use crate::output::{Output, describe};
use crate::{cpu_list, kernel_file};

const USAGE: &str = "usage: isolate [LIST] | isolate LIST on [keep] | isolate LIST off";
const FILE: &str = "/sys/kernel/quiesce/isolate";

/// `isolate [LIST]` shows; `isolate LIST on [keep]` and `isolate LIST off` change one CPU after the other, up to the first that is refused.
pub fn main(args: &Args) -> Outcome {
    let words: Vec<&str> = args.rest().iter().map(String::as_str).collect();
    if let Some(option) = words.iter().find(|word| word.starts_with('-')) {
        return Err(Failure::usage(format!("unknown option {option} ({USAGE})")));
    }
    let (list, wish) = match words[..] {
        [] => (None, None),
        [list] => (Some(list), None),
        [list, wish @ ("on" | "off")] => (Some(list), Some(wish)),
        [list, "on", "keep"] => (Some(list), Some("on keep")),
        [_, "on" | "off", odd, ..] | [_, odd, ..] => {
            return Err(Failure::usage(format!("{odd:?}: what is that? ({USAGE})")));
        }
    };
    let cpus = list.map(cpu_list::parse).transpose().map_err(Failure::usage)?;
    if cpus.as_ref().is_some_and(Vec::is_empty) {
        return Err(Failure::usage("the CPU list is empty"));
    }
    let known = read()?;
    let numbers: Vec<u32> = known.iter().map(|state| state.cpu).collect();
    let cpus = cpus.unwrap_or_else(|| numbers.clone());
    if let Some(missing) = cpus.iter().find(|cpu| !numbers.contains(cpu)) {
        return Err(Failure::new(format!("no CPU {missing} (online: {})", cpu_list::format(&numbers))));
    }
    let mut out = Output::new();
    let Some(wish) = wish else {
        known.iter().filter(|state| cpus.contains(&state.cpu)).for_each(|state| out.put(state.now()));
        return Ok(0);
    };
    for cpu in cpus {
        let file = kernel_file::open(FILE, libc::O_WRONLY)?;
        if let Err(error) = file.write(&format!("{cpu} {wish}\n")) {
            let leased = read()?.iter().any(|state| state.cpu == cpu && state.leased);
            let why = match error.raw_os_error() {
                Some(libc::EBUSY) if leased => "a lease is held on it".to_string(),
                Some(libc::EBUSY) => "it is the last CPU that does housekeeping".to_string(),
                _ => describe(&error),
            };
            return Err(Failure::new(format!("CPU {cpu}: {why}")));
        }
        if let Some(state) = read()?.iter().find(|state| state.cpu == cpu) {
            out.put(state.after_flip());
        }
        out.flush();
    }
    Ok(0)
}

fn read() -> Result<Vec<IsolationState>, Failure> {
    isolation_state::parse(&kernel_file::read(FILE)?).map_err(|error| Failure::new(format!("{FILE}: {error}")))
}

//! run: starts a program on chosen CPUs, and with SCHED_FIFO if wanted.

use crate::entry::{Args, Failure, Outcome};
use crate::output::describe;
use crate::{cpu_list, kernel_file, linux};

const USAGE: &str = "usage: run -c LIST [-f PRIORITY] PROGRAM [ARGUMENT…]";

/// `run -c LIST [-f PRIORITY] PROGRAM [ARGUMENT…]`; becomes the program.
pub fn main(args: &Args) -> Outcome {
    let mut rest = args.rest();
    let mut list: Option<&str> = None;
    let mut priority: Option<i32> = None;
    while let Some(option) = rest.first().filter(|word| word.starts_with('-')) {
        let value = rest.get(1).ok_or_else(|| Failure::usage(format!("{option} needs a value ({USAGE})")));
        match option.as_str() {
            "-c" => list = Some(value?),
            "-f" => {
                let text = value?;
                let number = text.parse().ok().filter(|priority| (1..=99).contains(priority));
                priority =
                    Some(number.ok_or_else(|| Failure::usage(format!("not a FIFO priority (1 to 99): {text:?}")))?);
            }
            "--" => {
                rest = &rest[1..];
                break;
            }
            _ => return Err(Failure::usage(format!("unknown option {option} ({USAGE})"))),
        }
        rest = &rest[2..];
    }
    if rest.is_empty() || (list.is_none() && priority.is_none()) {
        return Err(Failure::usage(USAGE));
    }
    if let Some(list) = list {
        let cpus = cpu_list::parse(list).map_err(Failure::usage)?;
        if cpus.is_empty() {
            return Err(Failure::usage("the CPU list is empty"));
        }
        check_online(&cpus)?;
        linux::set_affinity(&cpus).map_err(|error| Failure::new(format!("CPU list {list}: {}", describe(&error))))?;
    }
    if let Some(priority) = priority {
        linux::set_fifo(priority)
            .map_err(|error| Failure::new(format!("SCHED_FIFO priority {priority}: {}", describe(&error))))?;
    }
    let error = linux::exec_search(rest);
    let status = if error.raw_os_error() == Some(libc::ENOENT) { 127 } else { 126 };
    Err(Failure { status, text: format!("{}: {}", rest[0], describe(&error)) })
}

/// Every CPU must be online, where the kernel says which are.
fn check_online(cpus: &[u32]) -> Result<(), Failure> {
    let Ok(text) = kernel_file::read("/sys/devices/system/cpu/online") else { return Ok(()) };
    let Ok(online) = cpu_list::parse(&text) else { return Ok(()) };
    match cpus.iter().find(|cpu| !online.contains(cpu)) {
        Some(cpu) => Err(Failure::new(format!("no CPU {cpu} (online: {})", text.trim()))),
        None => Ok(()),
    }
}

//! poweroff, reboot, uptime: the machine's end, and how far it has come.

use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, MachineEnd};
use crate::output::{describe, write_out};
use crate::{duration, kernel_file};

/// `poweroff`.
pub fn power_off(args: &Args) -> Outcome {
    end(args, MachineEnd::PowerOff)
}

/// `reboot`.
pub fn restart(args: &Args) -> Outcome {
    end(args, MachineEnd::Restart)
}

fn end(args: &Args, how: MachineEnd) -> Outcome {
    if let Some(word) = args.rest().first() {
        return Err(Failure::usage(format!("takes no argument, got {word:?}")));
    }
    let error = linux::end_machine(how);
    Err(Failure::new(format!("refused by the kernel: {}", describe(&error))))
}

/// `uptime`: time since boot, and the load if the kernel tells it.
pub fn uptime(_: &Args) -> Outcome {
    let text = kernel_file::read("/proc/uptime")?;
    let first = text.split_ascii_whitespace().next().unwrap_or("");
    let up_ns = duration::parse_seconds(first).map_err(|error| Failure::new(format!("/proc/uptime: {error}")))?;
    let mut line = format!("up {}", duration::human(up_ns));
    if let Ok(load) = kernel_file::read("/proc/loadavg") {
        let three: Vec<_> = load.split_ascii_whitespace().take(3).collect();
        line.push_str(&format!(", load {}", three.join(" ")));
    }
    write_out((line + "\n").as_bytes());
    Ok(0)
}

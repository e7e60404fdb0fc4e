//! why: whether a CPU's tick is on and who holds it, from /sys/kernel/quiesce/cpuN/why.

use crate::entry::{Args, Failure, Outcome};
use crate::{cpu_list, kernel_file, output, tick_state};

/// `why CPU`.
pub fn main(args: &Args) -> Outcome {
    let [word] = args.rest() else { return Err(Failure::usage("usage: why CPU")) };
    let cpu = cpu_list::parse_cpu(word).map_err(Failure::usage)?;
    let text = read(cpu)?;
    let explained = tick_state::explain(&text).map_err(|error| Failure::new(format!("cpu{cpu}/why: {error}")))?;
    output::write_out(explained.as_bytes());
    Ok(0)
}

/// The file of CPU `cpu`; a CPU that is not there is named with those that are.
fn read(cpu: u32) -> Result<String, Failure> {
    kernel_file::read_quiesce(&format!("cpu{cpu}/why")).map_err(|failure| {
        let online = kernel_file::read("/sys/devices/system/cpu/online").ok();
        match online.as_deref().map(|text| (text.trim(), cpu_list::parse(text))) {
            Some((list, Ok(cpus))) if !cpus.contains(&cpu) => Failure::new(format!("no CPU {cpu} (online: {list})")),
            _ => failure,
        }
    })
}

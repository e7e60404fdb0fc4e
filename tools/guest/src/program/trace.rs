//! trace: the latency trace, from /sys/kernel/tracing.

use crate::entry::{Args, Failure, Outcome};
use crate::kernel_file::{self, Read};
use crate::output::Output;
use crate::trace_lines::Durations;
use crate::{cpu_list, output};

const TRACING: &str = "/sys/kernel/tracing";
const USAGE: &str = "usage: trace show [-c CPU] | trace -f [-c CPU] | trace on|off [EVENT…]";

/// `trace show [-c CPU]`: the records that are kept, then figures by CPU and cause; `trace -f [-c CPU]`: records as they
/// come, until killed, each once; `trace on`, `trace off`: whether anything is recorded; with events or groups: what is.
pub fn main(args: &Args) -> Outcome {
    let words: Vec<&str> = args.rest().iter().map(String::as_str).collect();
    match words[..] {
        ["on"] => kernel_file::write(&format!("{TRACING}/tracing_on"), "1\n").map(|()| 0),
        ["off"] => kernel_file::write(&format!("{TRACING}/tracing_on"), "0\n").map(|()| 0),
        ["on", ref events @ ..] => choose("", events),
        ["off", ref events @ ..] => choose("!", events),
        ["show"] => show(&format!("{TRACING}/trace")),
        ["show", "-c", cpu] => show(&of_cpu(cpu, "trace")?),
        ["-f"] => follow(&format!("{TRACING}/trace_pipe")),
        ["-f", "-c", cpu] => follow(&of_cpu(cpu, "trace_pipe")?),
        [] | ["show" | "-f", "-c"] => Err(Failure::usage(USAGE)),
        ["show" | "-f", word, ..] | [word, ..] => Err(Failure::usage(format!("unknown argument {word} ({USAGE})"))),
    }
}

/// A CPU's own file.
fn of_cpu(cpu: &str, file: &str) -> Result<String, Failure> {
    let number = cpu_list::parse_cpu(cpu).map_err(Failure::usage)?;
    let online = kernel_file::read("/sys/devices/system/cpu/online")?;
    let online = online.trim();
    match cpu_list::parse(online) {
        Ok(cpus) if !cpus.contains(&number) => Err(Failure::new(format!("no CPU {number} (online: {online})"))),
        _ => Ok(format!("{TRACING}/per_cpu/cpu{number}/{file}")),
    }
}

/// Adds events, or takes them away.
fn choose(prefix: &str, events: &[&str]) -> Outcome {
    if let Some(option) = events.iter().find(|event| event.starts_with('-')) {
        return Err(Failure::usage(format!("unknown argument {option} ({USAGE})")));
    }
    for event in events {
        let file = kernel_file::open(&format!("{TRACING}/set_event"), libc::O_WRONLY)?;
        file.write(&format!("{prefix}{event}\n")).map_err(|error| {
            Failure::new(match error.raw_os_error() {
                Some(libc::EINVAL) => format!("{event}: no such event ({TRACING}/available_events lists them)"),
                Some(libc::EBUSY) => format!("{event}: is switched on at boot only (trace_event={event})"),
                _ => format!("{event}: {}", output::describe(&error)),
            })
        })?;
    }
    Ok(0)
}

fn show(path: &str) -> Outcome {
    let text = kernel_file::read(path)?;
    let (mut out, mut durations, mut any) = (Output::new(), Durations::default(), false);
    for line in text.lines() {
        any |= !line.starts_with('#');
        durations.take(line);
        out.line(line);
    }
    if !any {
        let events = kernel_file::read(&format!("{TRACING}/set_event"))?;
        out.line(match events.trim().is_empty() {
            true => "no records: trace_event= on the kernel command line says what is recorded; nothing is",
            false => "no records",
        });
    }
    let table = durations.table();
    if !table.is_empty() {
        out.put(format_args!("\n{table}"));
    }
    Ok(0)
}

fn follow(path: &str) -> Outcome {
    let file = kernel_file::open(path, libc::O_RDONLY)?;
    loop {
        match file.read_some()? {
            Read::Text(text) => output::write_out(text.as_bytes()),
            Read::Lost => output::write_out(b"(records were lost)\n"),
            Read::End | Read::Nothing => return Ok(0),
        }
    }
}

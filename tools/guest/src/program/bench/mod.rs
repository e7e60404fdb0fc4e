//! bench: small measurements of the kernel, by the time stamp counter; prints `metric NAME VALUE UNIT` lines.
//!
//! Runs as process 1 (`init=/bin/bench`, then powers off) or from the shell, on Linux too: names, method and plugin marks are those of the C program that the
//! Linux figures come from. Under QEMU's `-icount shift=0` a tick is an instruction, which `calib` checks. A missing call gives
//! `skip NAME errno=N` and the next one is tried.
//!
//! Parameters KEY=VALUE, as arguments or in the environment: cpu (1), cpu2 (partner, 2 or 1), secs (noise, 2), iters (1000), only=a,b, skip=a,b,
//! inner (noise, turns between two readings, 100), gap (noise, smallest gap recorded, 100), syms=1 (entry symbols),
//! end=poweroff|port|exit (port: by QEMU's debug-exit port where the kernel lets a program use it, so that QEMU's status tells the end).

mod calls;
mod interrupts;
mod machine;
mod memory;
mod partners;
mod processes;
mod quiet;
mod samples;
mod sleeping;

use crate::entry::{Args, Failure, Outcome};
use crate::instruction::{mark_end, rdtsc, region};
use crate::linux::{self, MachineEnd};
use crate::output::{describe, write_out};
use samples::Samples;

/// What all measurements share.
pub struct Bench {
    words: Vec<String>,
    cpu: u32,
    partner: u32,
    iterations: usize,
    samples: Samples,
    unit: &'static str,
}

type Measurement = fn(&mut Bench);

const MEASUREMENTS: [(&str, Measurement); 15] = [
    ("syscall", calls::system_calls),
    ("yield", calls::sched_yield),
    ("clock", calls::clock),
    ("fault", memory::faults),
    ("mmap", memory::mappings),
    ("signal", calls::signal),
    ("fork", processes::fork),
    ("pipe", processes::pipe_same),
    ("futex", partners::futex_same),
    ("xpipe", processes::pipe_cross),
    ("xfutex", partners::futex_cross),
    ("ipi", partners::membarriers),
    ("unmap", partners::unmaps),
    ("sleep", sleeping::sleep),
    ("noise", quiet::noise),
];

const KEYS: [&str; 10] = ["cpu", "cpu2", "secs", "iters", "only", "skip", "inner", "gap", "syms", "end"];

/// `bench [KEY=VALUE…]`.
pub fn main(args: &Args) -> Outcome {
    let boot_ticks = rdtsc();
    mark_end::<{ region::BOOT }>();
    let first = linux::own_pid() == 1;
    if first {
        machine::provide_proc();
        crate::program::init::open_console();
    }
    let done = run(args, boot_ticks, first);
    if !first {
        return done.map(|_| 0);
    }
    if let Err(failure) = &done {
        write_out(format!("bench: {}\n", failure.text).as_bytes());
    }
    match done.as_deref() {
        Ok("exit") => return Ok(0),
        Ok("port") => crate::instruction::leave_by_port(),
        _ => {}
    }
    let error = linux::end_machine(MachineEnd::PowerOff);
    Err(Failure::new(format!("power off: {}", describe(&error))))
}

/// Everything up to the end; gives the value of `end=`.
fn run(args: &Args, boot_ticks: u64, first: bool) -> Result<String, Failure> {
    let mut bench = Bench {
        words: args.rest().to_vec(),
        cpu: 1,
        partner: 2,
        iterations: 1000,
        samples: Samples::new(),
        unit: "ticks",
    };
    // To process 1 the kernel passes words that mean nothing here.
    bench.check_words(first)?;
    bench.cpu = bench.number("cpu", 1)? as u32;
    bench.partner = bench.number("cpu2", if bench.cpu == 1 { 2 } else { 1 })? as u32;
    bench.iterations = (bench.number("iters", 1000)? as usize).clamp(1, samples::MOST);
    for key in ["secs", "inner", "gap", "syms"] {
        bench.number(key, 0)?;
    }
    let end = bench.parameter("end").unwrap_or_else(|| "poweroff".to_string());
    if !["poweroff", "port", "exit"].contains(&end.as_str()) {
        return Err(Failure::usage(format!("end={end}: not poweroff, port or exit")));
    }

    write_out(b"\nbench start\n");
    machine::boot(&bench, boot_ticks);
    machine::memory(&bench);
    if first {
        machine::provide_rest();
    }
    if let Err(error) = linux::set_affinity(&[bench.cpu]) {
        write_out(format!("info pin cpu{} failed errno={}\n", bench.cpu, error.raw_os_error().unwrap_or(0)).as_bytes());
    }
    write_out(format!("info cpu={} cpu2={} iters={}\n", bench.cpu, bench.partner, bench.iterations).as_bytes());
    machine::about(&bench);
    calls::calibrate(&mut bench);
    for (name, measure) in MEASUREMENTS {
        if bench.is_wanted(name) {
            measure(&mut bench);
        }
    }
    write_out(b"bench done\n");
    Ok(end)
}

impl Bench {
    /// Every argument must be a known KEY=VALUE, unless there may be `strange` ones, and every name in only= and skip= a measurement.
    fn check_words(&self, strange: bool) -> Result<(), Failure> {
        for word in self.words.iter().filter(|_| !strange) {
            let key = word.split_once('=').map(|(key, _)| key);
            if !key.is_some_and(|key| KEYS.contains(&key)) {
                return Err(Failure::usage(format!(
                    "unknown argument {word} (KEY=VALUE, with KEY one of {})",
                    KEYS.join(" ")
                )));
            }
        }
        for key in ["only", "skip"] {
            for name in self.parameter(key).unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
                if !MEASUREMENTS.iter().any(|(known, _)| *known == name) {
                    let known: Vec<_> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
                    return Err(Failure::usage(format!(
                        "{key}: no measurement {name} (there are {})",
                        known.join(" ")
                    )));
                }
            }
        }
        Ok(())
    }

    fn parameter(&self, key: &str) -> Option<String> {
        let argument = self.words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('=').map(str::to_string));
        argument.or_else(|| std::env::var(key).ok())
    }

    fn number(&self, key: &str, default: u64) -> Result<u64, Failure> {
        match self.parameter(key) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| Failure::usage(format!("{key}={text}: not a number"))),
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        let listed = |key| self.parameter(key).map(|list| list.split(',').any(|listed| listed == name));
        listed("only").unwrap_or(true) && !listed("skip").unwrap_or(false)
    }

    /// Prints least, middle and largest of the samples, less the empty pair of readings.
    fn report(&mut self, name: &str) {
        if let Some(values) = self.samples.spread() {
            for (value, part) in values.into_iter().zip(["min", "med", "max"]) {
                metric(&format!("{name}.{part}"), value, self.unit);
            }
        }
    }
}

/// Prints one result.
fn metric(name: &str, value: u64, unit: &str) {
    write_out(format!("metric {name} {value} {unit}\n").as_bytes());
}

/// Prints that `name` could not be measured, with Linux's error number (0: it failed otherwise).
fn skip(name: &str, errno: i64) {
    write_out(format!("skip {name} errno={errno}\n").as_bytes());
}

/// The error number of the last call of the C library.
fn last_errno() -> i64 {
    i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

//! storm: all that a housekeeping CPU can do which, on other kernels, interrupts a CPU that is to be left alone. Each kind of work is
//! done in turn until the time is over; how often is printed, for whoever counts what came of it.

use super::busy::{self, Work, told};
use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Fork};
use crate::output::write_out;
use crate::{duration, kernel_file};
use std::path::Path;

const DEBUG: &str = "/sys/kernel/quiesce/debug";
const TRACING: &str = "/sys/kernel/tracing";

/// The kinds in the order in which a round does them.
const KINDS: [(&str, Work); 13] = [
    ("keys", flip_keys),
    ("moves", || lever("kernel_page_move", "1")),
    ("syncs", || lever("sync_text", "1")),
    ("forks", busy::fork_exit),
    ("execs", busy::exec_true),
    ("traces", start_and_stop_tracing),
    ("grace_periods", || lever("rcu", "normal 1")),
    ("expedited", || lever("rcu", "expedited 1")),
    ("callbacks", || lever("rcu", "barrier 1")),
    ("timers", busy::sleep_short),
    ("remaps", remap),
    ("membarriers", membarriers),
    ("files", read_everything),
];

/// `storm SECONDS`: whole rounds, one at least. Work that the kernel refuses is named, and the end is a failure.
pub fn main(args: &Args) -> Outcome {
    let [text] = args.rest() else { return Err(Failure::usage("usage: storm SECONDS")) };
    let ns = duration::parse_seconds(text).map_err(Failure::usage)?;
    let start_ns = linux::monotonic_ns();
    let mut rounds = 0u64;
    loop {
        for (name, work) in KINDS {
            work().map_err(|error| Failure::new(format!("{name}: {error}")))?;
        }
        rounds += 1;
        if linux::monotonic_ns().saturating_sub(start_ns) >= ns {
            break;
        }
    }
    let kinds: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
    write_out(format!("storm: rounds {rounds} of {}\n", kinds.join(", ")).as_bytes());
    Ok(0)
}

fn write(path: &str, text: &str) -> Result<(), String> {
    kernel_file::write(path, text).map_err(|failure| failure.text)
}

fn lever(name: &str, text: &str) -> Result<(), String> {
    write(&format!("{DEBUG}/{name}"), text)
}

/// Trace points are taken away and put back; each is a key of its own, with sites all over the kernel.
fn flip_keys() -> Result<(), String> {
    ["!sched", "!timer", "sched", "timer"].into_iter().try_for_each(|word| write(&format!("{TRACING}/set_event"), word))
}

fn start_and_stop_tracing() -> Result<(), String> {
    ["0", "1"].into_iter().try_for_each(|word| write(&format!("{TRACING}/tracing_on"), word))
}

/// Another process maps, touches, protects and unmaps memory, and ends with some mapped.
fn remap() -> Result<(), String> {
    match linux::fork().map_err(told("fork"))? {
        Fork::Child => {
            let touch = |memory: &mut [u8]| {
                memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                linux::protect_and_back(memory).is_ok()
            };
            let mut good = true;
            let mapped = linux::with_new_memory(32 * 4096, |memory| good = touch(memory)).is_ok();
            linux::exit_now(if good && mapped { 0 } else { 1 })
        }
        Fork::Parent(pid) => match linux::wait_for(pid).map_err(told("wait"))?.status() {
            0 => Ok(()),
            status => Err(format!("the child ended with status {status}")),
        },
    }
}

/// Every command that the kernel has; those that register come before what they register for.
fn membarriers() -> Result<(), String> {
    let known = linux::membarrier(0).map_err(told("membarrier"))?;
    for bit in [1, 4, 2, 16, 8, 64, 32] {
        if known & bit != 0 {
            linux::membarrier(bit).map_err(told("membarrier"))?;
        }
    }
    Ok(())
}

fn read_everything() -> Result<(), String> {
    let mut files = 0;
    for root in ["/proc", "/sys"] {
        read_below(&Path::new(&kernel_file::root()).join(root.trim_start_matches('/')), &mut files);
    }
    if files > 20 { Ok(()) } else { Err(format!("only {files} files could be read")) }
}

/// Processes come and go, and some files are only written: what cannot be read is passed over.
fn read_below(folder: &Path, files: &mut u32) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => read_below(&entry.path(), files),
            Ok(kind) if kind.is_file() && read_some(&entry.path().to_string_lossy()) => *files += 1,
            _ => {}
        }
    }
}

/// The first part of a file, without waiting for more. A trace can be long.
fn read_some(path: &str) -> bool {
    let Ok(fd) = linux::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0) else { return false };
    let mut buffer = [0; 4096];
    let read = linux::read(fd, &mut buffer).is_ok();
    linux::close(fd);
    read
}

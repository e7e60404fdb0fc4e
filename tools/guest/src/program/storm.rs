//! storm: all that a housekeeping CPU can do which, on other kernels, interrupts a CPU that is to be left alone. Each kind of work is
//! done in turn, for a time or so many times; how often is printed, for whoever counts what came of it. Whoever starts it chooses
//! its CPUs.

use super::busy::{self, Work, told};
use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Fork};
use crate::output::{describe, write_out};
use crate::{duration, kernel_file};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const USAGE: &str = "usage: storm [--recorded] SECONDS | storm [--recorded] --rounds NUMBER";
const DEBUG: &str = "/sys/kernel/quiesce/debug";
const TRACING: &str = "/sys/kernel/tracing";

/// The kinds in the order in which a round does them. Those of `PAUSES` stop the recording of events for a moment.
const KINDS: [(&str, Work); 17] = [
    ("keys", flip_keys),
    ("moves", || lever("kernel_page_move", "1")),
    ("syncs", || lever("sync_text", "1")),
    ("forks", busy::fork_exit),
    ("execs", busy::exec_true),
    ("traces", start_and_stop_tracing),
    ("buffers", change_buffers),
    ("masks", change_masks),
    ("clears", || write(&format!("{TRACING}/trace"), "0")),
    ("grace_periods", || lever("rcu", "normal 1")),
    ("expedited", || lever("rcu", "expedited 1")),
    ("callbacks", || lever("rcu", "barrier 1")),
    ("timers", busy::sleep_short),
    ("remaps", remap),
    ("membarriers", membarriers),
    ("pipes", busy::pipe_child),
    ("files", read_everything),
];
const PAUSES: [&str; 3] = ["traces", "buffers", "masks"];

/// Until when.
enum Until {
    Ns(u64),
    Rounds(u64),
}

/// `storm SECONDS`: whole rounds, one at least. `--rounds`: so many. `--recorded`: without what stops the recording of events. Work that the
/// kernel refuses is named, and the end is a failure.
pub fn main(args: &Args) -> Outcome {
    let (recorded, words) = match args.rest() {
        [first, rest @ ..] if first == "--recorded" => (true, rest),
        all => (false, all),
    };
    let until = match words {
        [option, number] if option == "--rounds" => {
            Until::Rounds(number.parse().map_err(|_| Failure::usage(format!("{number}: not a number ({USAGE})")))?)
        }
        [text] if !text.starts_with('-') => Until::Ns(duration::parse_seconds(text).map_err(Failure::usage)?),
        _ => return Err(Failure::usage(USAGE)),
    };
    let kinds: Vec<_> = KINDS.into_iter().filter(|(name, _)| !recorded || !PAUSES.contains(name)).collect();
    let start_ns = linux::monotonic_ns();
    let mut rounds = 0u64;
    loop {
        for (name, work) in &kinds {
            work().map_err(|error| Failure::new(format!("{name}: {error}")))?;
        }
        rounds += 1;
        let over = match until {
            Until::Ns(ns) => linux::monotonic_ns().saturating_sub(start_ns) >= ns,
            Until::Rounds(wanted) => rounds >= wanted,
        };
        if over {
            break;
        }
    }
    let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
    write_out(format!("storm: rounds {rounds} of {}\n", names.join(", ")).as_bytes());
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

/// Every CPU's trace becomes larger, and as large as it was.
fn change_buffers() -> Result<(), String> {
    let file = format!("{TRACING}/buffer_size_kb");
    let before = kernel_file::read(&file).map_err(|failure| failure.text)?;
    let kib: u64 = before.trim().parse().map_err(|_| format!("{file}: {before:?}"))?;
    write(&file, &(2 * kib).to_string())?;
    write(&file, before.trim())
}

/// The CPUs' own masks of events: CPU 0 alone, then those that it was.
fn change_masks() -> Result<(), String> {
    let file = format!("{TRACING}/tracing_cpumask");
    let before = kernel_file::read(&file).map_err(|failure| failure.text)?;
    write(&file, "1")?;
    write(&file, before.trim())
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

/// Every command of membarrier(2) up to 256; those that register come before what they register for. What the kernel does not offer it has to refuse,
/// and what it offers beyond these is not known here.
fn membarriers() -> Result<(), String> {
    const COMMANDS: [i32; 9] = [1, 4, 2, 16, 8, 64, 32, 256, 128];
    let offered = linux::membarrier(0).map_err(told("membarrier"))?;
    if let Some(unknown) = (0..31).map(|bit| 1 << bit).find(|bit| offered & bit != 0 && !COMMANDS.contains(bit)) {
        return Err(format!("membarrier offers command {unknown}, which the storm does not know"));
    }
    COMMANDS.into_iter().try_for_each(|command| match linux::membarrier(command) {
        Ok(_) if offered & command != 0 => Ok(()),
        Err(error) if offered & command == 0 && error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Ok(_) => Err(format!("membarrier did command {command}, which it does not offer")),
        Err(error) => Err(format!("membarrier {command}: {}", describe(&error))),
    })
}

/// Files that are not read, and why. All others are, whatever they are called.
const NOT_READ: [(&str, &str); 1] =
    [("mem", "a process's memory at the file's own position, and nothing is mapped at 0")];

/// Reads all files below /proc and /sys. Left out is only what `NOT_READ` names, what nobody may read by its mode, and what is no file: links, and
/// folders' own bytes.
fn read_everything() -> Result<(), String> {
    let mut files = 0;
    for root in ["/proc", "/sys"] {
        read_below(&Path::new(&kernel_file::root()).join(root.trim_start_matches('/')), &mut files)?;
    }
    if files > 20 { Ok(()) } else { Err(format!("only {files} files could be read")) }
}

/// Errors of a process that has ended meanwhile, and of a file that has nothing at present.
const HARMLESS: [i32; 4] = [libc::ENOENT, libc::ESRCH, libc::EAGAIN, libc::EPIPE];

fn read_below(folder: &Path, files: &mut u32) -> Result<(), String> {
    let told = |path: &Path, error: std::io::Error| match error.raw_os_error() {
        Some(number) if HARMLESS.contains(&number) => Ok(()),
        _ => Err(format!("{}: {}", path.display(), describe(&error))),
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return told(folder, error),
    };
    for entry in entries {
        let path = match entry {
            Ok(entry) => entry.path(),
            Err(error) => {
                told(folder, error)?;
                continue;
            }
        };
        let done = match std::fs::symlink_metadata(&path) {
            Err(error) => Err(error),
            Ok(about) if about.is_dir() => {
                read_below(&path, files)?;
                continue;
            }
            Ok(_) if NOT_READ.iter().any(|(name, _)| path.file_name().is_some_and(|file| file == *name)) => continue,
            // Levers, which are only written.
            Ok(about) if !about.is_file() || about.permissions().mode() & 0o444 == 0 => continue,
            Ok(_) => read_through(&path.to_string_lossy()).inspect(|()| *files += 1),
        };
        done.or_else(|error| told(&path, error))?;
    }
    Ok(())
}

/// Bytes of one file at most: reading a trace makes more of it.
const MOST: usize = 64 * 1024;

/// A file up to its end, without waiting for more.
fn read_through(path: &str) -> std::io::Result<()> {
    let fd = linux::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0)?;
    let (mut buffer, mut read) = ([0; 4096], 0);
    let done = loop {
        match linux::read(fd, &mut buffer) {
            Ok(0) => break Ok(()),
            Ok(count) if read + count >= MOST => break Ok(()),
            Ok(count) => read += count,
            Err(error) => break Err(error),
        }
    };
    linux::close(fd);
    done
}

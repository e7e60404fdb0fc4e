//! busy: load for the housekeeping CPUs: processes, programs, timers, pipes, files, mappings, until the time is over.

use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Fork};
use crate::output::{describe, write_out};
use crate::{duration, kernel_file};

/// `busy SECONDS`: prints how often each kind of work was done. Work that the kernel refuses is named once and left out.
pub fn main(args: &Args) -> Outcome {
    let [text] = args.rest() else { return Err(Failure::usage("usage: busy SECONDS")) };
    let ns = duration::parse_seconds(text).map_err(Failure::usage)?;
    let start_ns = linux::monotonic_ns();
    if start_ns == 0 {
        return Err(Failure::new("the kernel has no clock"));
    }
    let mut kinds: [(&str, Work, u64, Option<String>); 6] = [
        ("forks", fork_exit, 0, None),
        ("execs", exec_true, 0, None),
        ("sleeps", sleep_short, 0, None),
        ("pipes", pipe_child, 0, None),
        ("reads", read_files, 0, None),
        ("maps", map_touch, 0, None),
    ];
    // One round at least.
    loop {
        let mut worked = false;
        for (_, work, done, failed) in &mut kinds {
            if failed.is_none() {
                match work() {
                    Ok(()) => *done += 1,
                    Err(error) => *failed = Some(error),
                }
                worked = true;
            }
        }
        if !worked || linux::monotonic_ns().saturating_sub(start_ns) >= ns {
            break;
        }
    }
    for (name, _, _, failed) in &kinds {
        if let Some(error) = failed {
            write_out(format!("busy: {name} left out: {error}\n").as_bytes());
        }
    }
    let counts: Vec<_> = kinds.iter().map(|(name, _, done, _)| format!("{name} {done}")).collect();
    let total: u64 = kinds.iter().map(|(_, _, done, _)| done).sum();
    write_out(format!("busy: {total} operations: {}\n", counts.join(", ")).as_bytes());
    if total == 0 { Err(Failure::new("nothing could be done")) } else { Ok(0) }
}

pub(super) type Work = fn() -> Result<(), String>;

pub(super) fn told(what: &'static str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {}", describe(&error))
}

pub(super) fn fork_exit() -> Result<(), String> {
    match linux::fork().map_err(told("fork"))? {
        Fork::Child => linux::exit_now(0),
        Fork::Parent(pid) => linux::wait_for(pid).map_err(told("wait")).map(|_| ()),
    }
}

pub(crate) fn exec_true() -> Result<(), String> {
    match linux::fork().map_err(told("fork"))? {
        Fork::Child => {
            linux::exec_search(&["true".to_string()]);
            linux::exit_now(127)
        }
        Fork::Parent(pid) => match linux::wait_for(pid).map_err(told("wait"))?.status() {
            0 => Ok(()),
            status => Err(format!("true ended with status {status}")),
        },
    }
}

pub(super) fn sleep_short() -> Result<(), String> {
    [10_000, 100_000, 1_000_000].into_iter().for_each(linux::sleep_ns);
    Ok(())
}

/// A child echoes 16 messages.
pub(super) fn pipe_child() -> Result<(), String> {
    let there = linux::pipe().map_err(told("pipe"))?;
    let back =
        linux::pipe().map_err(told("pipe")).inspect_err(|_| [there.0, there.1].into_iter().for_each(linux::close))?;
    let mut message = [7; 64];
    let done = match linux::fork() {
        Ok(Fork::Child) => {
            linux::close(there.1);
            while let Ok(count @ 1..) = linux::read(there.0, &mut message) {
                if linux::write_all(back.1, &message[..count]).is_err() {
                    break;
                }
            }
            linux::exit_now(0)
        }
        Ok(Fork::Parent(pid)) => {
            linux::close(back.1);
            let echo = |message: &mut [u8; 64]| -> std::io::Result<()> {
                linux::write_all(there.1, message)?;
                let mut left = message.len();
                while left > 0 {
                    match linux::read(back.0, &mut message[..left])? {
                        0 => return Err(std::io::Error::from_raw_os_error(libc::EPIPE)),
                        count => left -= count,
                    }
                }
                Ok(())
            };
            let done = (0..16).try_for_each(|_| echo(&mut message)).map_err(told("echo"));
            linux::close(there.1);
            done.and(linux::wait_for(pid).map_err(told("wait")).map(|_| ()))
        }
        Err(error) => {
            [there.1, back.1].into_iter().for_each(linux::close);
            Err(told("fork")(error))
        }
    };
    [there.0, back.0].into_iter().for_each(linux::close);
    done
}

fn read_files() -> Result<(), String> {
    for path in ["/proc/meminfo", "/proc/stat", "/proc/interrupts"] {
        kernel_file::read(path).map_err(|failure| failure.text)?;
    }
    Ok(())
}

fn map_touch() -> Result<(), String> {
    linux::with_new_memory(64 * 4096, |memory| memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1))
        .map_err(told("mmap"))
}

//! stdlib: what Rust's standard library offers, used and told in lines that are the same on every kernel that does it right.
//!
//! Runs as process 1 (then ends the machine) or from the shell, on Linux and on Quiesce. Each line begins with `std: `; no line holds a
//! time, a process number, an address or anything that depends on order or luck. The output of Debian's kernel is kept in
//! tests/expected/stdlib.txt.

mod file;
mod process;
mod thread;
mod time;

use crate::entry::{Args, Outcome};
use crate::linux::{self, MachineEnd};
use crate::output::write_out;

/// What a group of checks gives: its lines come out as it goes, and an error ends it.
type Done = std::io::Result<()>;
type Group = fn() -> Done;

const GROUPS: [(&str, Group); 4] =
    [("thread", thread::all), ("file", file::all), ("process", process::all), ("time", time::all)];

/// Prints one line.
fn say(text: impl std::fmt::Display) {
    write_out(format!("std: {text}\n").as_bytes());
}

/// `stdlib`, or `stdlib child WORD…` as it calls itself.
pub fn main(args: &Args) -> Outcome {
    if let [first, rest @ ..] = args.rest()
        && first == "child"
    {
        return process::child(rest);
    }
    let first = linux::own_pid() == 1;
    if first {
        for (kind, target, sample) in [(c"proc", c"/proc", "/proc/self"), (c"devtmpfs", c"/dev", "/dev/null")] {
            if std::fs::symlink_metadata(sample).is_err() {
                let _ = std::fs::create_dir(target.to_string_lossy().as_ref());
                let _ = linux::mount(kind, target); // a check that needs it says what is missing
            }
        }
        crate::program::init::open_console();
    }
    let mut status = 0;
    for (name, group) in GROUPS {
        say(format_args!("{name}: begin"));
        match group() {
            Ok(()) => say(format_args!("{name}: done")),
            Err(error) => {
                status = 1;
                say(format_args!("{name}: FAILED {error}"));
            }
        }
    }
    say("end");
    if first {
        if std::env::var("end").is_ok_and(|end| end == "port") {
            crate::instruction::leave_by_port();
        }
        let _ = linux::end_machine(MachineEnd::PowerOff);
    }
    Ok(status)
}

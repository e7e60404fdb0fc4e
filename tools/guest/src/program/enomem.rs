//! enomem: lets every allocation fail once that a fork, an execve with the start of its program, and their ends make. The program sees
//! ENOMEM, or is killed, or does without; all memory comes back each time, and nobody else notices.
//!
//! `enomem [fork|exec]`: both without a word. One line for each: how many allocations, and how their failures were seen.

use super::fuzz::memory;
use crate::entry::{Args, Failure, Outcome};
use crate::kernel_file;
use crate::linux::{self, Ended, Fork};
use crate::output::{describe, write_out};

const USAGE: &str = "usage: enomem [fork|exec]";
const FAIL_NTH: &str = "/proc/self/fail-nth";
/// First argument of the program as it is executed: what it does then is to say whether its allocation has failed.
const REST: &str = "--rest";
/// More allocations than any of these makes.
const MOST: u32 = 20_000;
/// So many that are left at the end say that none failed: the end itself makes fewer.
const LEFT: u32 = 64;

/// How a child of ours ends.
mod end {
    /// All went well, and nothing has failed.
    pub const BEYOND: u8 = 40;
    /// All went well though something failed.
    pub const WITHOUT: u8 = 41;
    /// ENOMEM.
    pub const REFUSED: u8 = 42;
    /// Anything else.
    pub const WRONG: u8 = 43;
}

/// What one run does, armed. Gives one of `end`, or does not return.
type Work = fn() -> u8;

/// Runs both, or the one that is named.
pub fn main(args: &Args) -> Outcome {
    let words: Vec<&str> = args.rest().iter().map(String::as_str).filter(|w| !w.contains('=')).collect();
    match words[..] {
        [REST] => return Ok(if left()? > LEFT { end::BEYOND } else { end::WITHOUT }),
        [] => each("fork", fork)?,
        ["fork"] => return each("fork", fork).map(|()| 0),
        ["exec"] => {}
        _ => return Err(Failure::usage(USAGE)),
    }
    each("exec", exec).map(|()| 0)
}

fn left() -> Result<u32, Failure> {
    let text = kernel_file::read(FAIL_NTH)?;
    text.trim().parse().map_err(|_| Failure::new(format!("{FAIL_NTH}: not a number: {text:?}")))
}

/// Every n, until it is past the last allocation.
fn each(name: &str, work: Work) -> Result<(), Failure> {
    let (mut refused, mut killed, mut without) = (0, 0, 0);
    // What the kernel keeps for the next time is there after the first.
    run(0, work)?;
    let before = memory::in_use()?;
    for nth in 1..MOST {
        match run(nth, work)? {
            Ended::Exit(end::BEYOND) => {
                let all = nth - 1;
                write_out(
                    format!(
                        "enomem: {name}: each of {all} allocations failed once: {refused} refused, {killed} killed, \
                         {without} done without; nothing left over\n"
                    )
                    .as_bytes(),
                );
                return if refused > 0 { Ok(()) } else { Err(Failure::new(format!("{name}: nothing was refused"))) };
            }
            Ended::Exit(end::REFUSED) => refused += 1,
            Ended::Exit(end::WITHOUT) => without += 1,
            // SIGABRT: its own library gives up where it finds no memory.
            Ended::Signal(libc::SIGKILL | libc::SIGSEGV | libc::SIGABRT) => killed += 1,
            other => return Err(Failure::new(format!("{name}, allocation {nth}: it ended with {other:?}"))),
        }
        memory::left_over(&before)
            .map_err(|failure| Failure::new(format!("{name}, allocation {nth}: {}", failure.text)))?;
    }
    Err(Failure::new(format!("{name}: more than {MOST} allocations")))
}

/// A child that is armed and does the work.
fn run(nth: u32, work: Work) -> Result<Ended, Failure> {
    let fail = |e: std::io::Error| Failure::new(describe(&e));
    match linux::fork().map_err(fail)? {
        Fork::Child => {
            let armed = kernel_file::write(FAIL_NTH, &nth.to_string());
            linux::exit_now(if armed.is_err() { end::WRONG } else { work() })
        }
        Fork::Parent(pid) => linux::wait_for(pid).map_err(fail),
    }
}

/// What is said of an error.
fn refusal(error: &std::io::Error) -> u8 {
    if error.raw_os_error() == Some(libc::ENOMEM) { end::REFUSED } else { end::WRONG }
}

fn fork() -> u8 {
    match linux::fork() {
        Ok(Fork::Child) => linux::exit_now(0),
        Ok(Fork::Parent(pid)) => match (linux::wait_for(pid), left()) {
            (Ok(Ended::Exit(0)), Ok(left)) if left > 0 => end::BEYOND,
            (Ok(Ended::Exit(0)), Ok(_)) => end::WITHOUT,
            _ => end::WRONG,
        },
        Err(error) => refusal(&error),
    }
}

fn exec() -> u8 {
    refusal(&linux::exec("/bin/enomem", &["enomem".into(), REST.into()]))
}

//! log: the interruptions of isolated CPUs, from /sys/kernel/quiesce/log.

use crate::entry::{Args, Failure, Outcome};
use crate::kernel_file::{self, Read};
use crate::{interruption, output};

/// `log [-f]`: with -f goes on until killed, else ends when there is nothing more.
pub fn main(args: &Args) -> Outcome {
    let follow = match args.rest() {
        [] => false,
        [word] if word == "-f" => true,
        [word] => return Err(Failure::usage(format!("unknown argument {word} (usage: log [-f])"))),
        _ => return Err(Failure::usage("usage: log [-f]")),
    };
    let flags = libc::O_RDONLY | if follow { 0 } else { libc::O_NONBLOCK };
    let file = kernel_file::open(&format!("{}/log", kernel_file::QUIESCE), flags)?;
    loop {
        match file.read_some()? {
            Read::Text(text) => output::write_out(lines(&text).as_bytes()),
            Read::Lost => output::write_out(b"(records were lost)\n"),
            Read::End | Read::Nothing => return Ok(0),
        }
    }
}

/// The lines for people; one that cannot be read is shown as it is.
fn lines(text: &str) -> String {
    text.lines()
        .map(|line| interruption::parse(line).map_or_else(|_| line.to_string(), |r| interruption::format(&r)) + "\n")
        .collect()
}

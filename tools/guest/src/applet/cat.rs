//! cat: writes files, or standard input, to standard output.

use crate::entry::{Args, Outcome};
use crate::linux;
use crate::output::{complain, describe, write_out};
use std::io::Error;

/// `cat [FILE…]`; `-` is standard input. Goes on after a file that cannot be read, and ends with 1.
pub fn main(args: &Args) -> Outcome {
    let standard_input = ["-".to_string()];
    let files = if args.rest().is_empty() { &standard_input } else { args.rest() };
    let mut status = 0;
    for file in files {
        let done = match file.as_str() {
            "-" => copy(0),
            path => linux::open(path, libc::O_RDONLY, 0).and_then(|fd| {
                let done = copy(fd);
                linux::close(fd);
                done
            }),
        };
        if let Err(error) = done {
            complain(args.name(), &format!("{file}: {}", describe(&error)));
            status = 1;
        }
    }
    Ok(status)
}

fn copy(fd: i32) -> Result<(), Error> {
    let mut buffer = [0; 8192];
    loop {
        match linux::read(fd, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => write_out(&buffer[..count]),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

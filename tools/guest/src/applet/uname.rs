//! uname: what the kernel calls itself.

use crate::entry::{Args, Failure, Outcome};
use crate::linux;
use crate::output::{describe, write_out};

/// `uname [-asnrvm]`; without an option the system's name.
pub fn main(args: &Args) -> Outcome {
    const LETTERS: &str = "snrvm";
    let mut wanted = [false; 5];
    for word in args.rest() {
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            return Err(Failure::usage(format!("unknown argument {word} (usage: uname [-asnrvm])")));
        };
        for letter in letters.chars() {
            match (letter, LETTERS.find(letter)) {
                ('a', _) => wanted = [true; 5],
                (_, Some(index)) => wanted[index] = true,
                _ => return Err(Failure::usage(format!("unknown option -{letter} (usage: uname [-asnrvm])"))),
            }
        }
    }
    if args.rest().is_empty() {
        wanted[0] = true;
    }
    let texts = linux::system_name().map_err(|error| Failure::new(describe(&error)))?;
    let line: Vec<_> = texts.into_iter().zip(wanted).filter(|(_, wanted)| *wanted).map(|(text, _)| text).collect();
    write_out((line.join(" ") + "\n").as_bytes());
    Ok(0)
}

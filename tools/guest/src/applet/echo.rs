//! echo, true, false: the programs that only answer.

use crate::entry::{Args, Outcome};
use crate::output::write_out;

/// `echo [-n] [WORD…]`.
pub fn main(args: &Args) -> Outcome {
    let newline = args.rest().first().is_none_or(|word| word != "-n");
    let text = args.rest()[usize::from(!newline)..].join(" ");
    write_out(if newline { text + "\n" } else { text }.as_bytes());
    Ok(0)
}

/// `true`.
pub fn yes(_: &Args) -> Outcome {
    Ok(0)
}

/// `false`.
pub fn no(_: &Args) -> Outcome {
    Ok(1)
}

//! sleep and burn: spend time, asleep or computing.

use crate::entry::{Args, Failure, Outcome};
use crate::instruction::count_down;
use crate::{duration, linux};

/// `sleep SECONDS`.
pub fn main(args: &Args) -> Outcome {
    let [text] = args.rest() else { return Err(Failure::usage("usage: sleep SECONDS")) };
    linux::sleep_ns(duration::parse_seconds(text).map_err(Failure::usage)?);
    Ok(0)
}

/// `burn [SECONDS]`: computes, looking at the clock about every 100 000 instructions; without a time until killed.
pub fn burn(args: &Args) -> Outcome {
    let ns = match args.rest() {
        [] => u64::MAX,
        [text] => duration::parse_seconds(text).map_err(Failure::usage)?,
        _ => return Err(Failure::usage("usage: burn [SECONDS]")),
    };
    let start_ns = linux::monotonic_ns();
    if start_ns == 0 && ns != u64::MAX {
        return Err(Failure::new("the kernel has no clock"));
    }
    while linux::monotonic_ns().saturating_sub(start_ns) < ns {
        count_down(50_000);
    }
    Ok(0)
}

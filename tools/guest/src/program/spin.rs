//! spin: a loop in user mode that makes no system call. What an undisturbed CPU runs.

use crate::entry::{Args, Failure, Outcome};
use crate::instruction::rdtsc;
use crate::output::write_out;
use crate::{duration, kernel_file, linux};

/// `spin [--tell] [SECONDS]`: without a time until killed. The time is told by the time stamp counter alone. `--tell`: a line before it begins; from
/// there on it needs nothing of the kernel.
pub fn main(args: &Args) -> Outcome {
    let (tells, words) = match args.rest() {
        [first, rest @ ..] if first == "--tell" => (true, rest),
        words => (false, words),
    };
    let begins = || {
        if tells {
            write_out(b"spin: begins\n");
        }
    };
    match words {
        [] => {
            begins();
            // No PAUSE: under QEMU's instruction clock it ends this CPU's turn, and time would crawl.
            loop {
                core::hint::black_box(());
            }
        }
        [text] => {
            let ns = duration::parse_seconds(text).map_err(Failure::usage)?;
            let ticks = ticks_of(ns, tsc_khz()?);
            begins();
            let start = rdtsc();
            while rdtsc().wrapping_sub(start) < ticks {}
            Ok(0)
        }
        _ => Err(Failure::usage("usage: spin [--tell] [SECONDS]")),
    }
}

/// Ticks of the time stamp counter in `ns` nanoseconds at `khz`.
pub fn ticks_of(ns: u64, khz: u64) -> u64 {
    (u128::from(ns) * u128::from(khz) / 1_000_000) as u64
}

/// Nanoseconds in `ticks` at `khz`.
pub fn ns_of(ticks: u64, khz: u64) -> u64 {
    (u128::from(ticks) * 1_000_000 / u128::from(khz.max(1))) as u64
}

/// The counter's rate as the kernel says it, else measured over 20 ms against CLOCK_MONOTONIC.
pub fn tsc_khz() -> Result<u64, Failure> {
    kernel_file::tsc_khz().or_else(|failure| {
        let (start_ns, start) = (linux::monotonic_ns(), rdtsc());
        if start_ns == 0 {
            return Err(failure);
        }
        let mut ns = 0;
        while ns < 20_000_000 {
            ns = linux::monotonic_ns().saturating_sub(start_ns);
        }
        Ok((u128::from(rdtsc() - start) * 1_000_000 / u128::from(ns)) as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_year_at_five_gigahertz_does_not_overflow() {
        let year_ns = 366 * 86_400 * 1_000_000_000;
        assert_eq!(ticks_of(year_ns, 5_000_000), year_ns * 5);
        assert_eq!(ns_of(year_ns * 5, 5_000_000), year_ns);
        assert_eq!(ns_of(5, 0), 5_000_000);
    }
}

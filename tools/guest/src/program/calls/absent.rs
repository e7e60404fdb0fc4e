//! The list of calls that are not there tells the truth: each of them gives ENOSYS, whatever it is given, and no other call does.

use super::each::{LISTED, at};
use super::{Check, call, ensure, equal, in_child};
use crate::linux::Ended;
use libc::{ENOSYS, SYS_pause, SYS_setitimer};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[("absent_calls", absent_calls)];

/// The numbers that calls have in Linux 6.18.
const NUMBERS: std::ops::RangeInclusive<i64> = 0..=469;
/// Those among them that none has.
const GAP: std::ops::Range<i64> = 337..424;

fn absent_calls() -> Result<(), String> {
    let text = std::fs::read_to_string("/sys/kernel/quiesce/absent").map_err(|e| e.to_string())?;
    let mut numbers = Vec::new();
    for line in text.lines() {
        let (number, name) = line.split_once(' ').ok_or(format!("{line:?}: no number and name"))?;
        let number: i64 = number.parse().map_err(|e| format!("{line:?}: {e}"))?;
        for argument in [0, 1, u64::MAX] {
            equal!((name, call(number, [argument; 6])), (name, Err(ENOSYS)));
        }
        numbers.push(number);
    }
    // Linux's own gaps: module calls of 2.4, and the like.
    ensure!(numbers.contains(&174) && numbers.is_sorted());
    // All others are there: the checks of the listed calls have them work, each of the rest says something else to nonsense.
    for (name, number, _) in LISTED {
        equal!((name, numbers.contains(number)), (name, false));
    }
    let is_listed = |number: i64| LISTED.iter().any(|listed| listed.1 == number);
    for number in NUMBERS.filter(|n| !GAP.contains(n) && !numbers.contains(n) && !is_listed(*n)) {
        let ended = in_child(|| {
            if number == SYS_pause {
                // No argument makes it return; this signal ends it, before or in it.
                let _ = call(SYS_setitimer, [0, at(&[0u64, 0, 0, 1000]), 0, 0, 0, 0]);
            }
            u8::from(call(number, [u64::MAX; 6]) == Err(ENOSYS))
        })?;
        if ended == Ended::Exit(1) {
            return Err(format!("call {number} gives ENOSYS and is not among those that are not there"));
        }
    }
    // Numbers that nobody has are no news, and refused alike.
    for number in GAP.chain(470..520) {
        ensure!(!numbers.contains(&number));
        equal!((number, call(number, [0; 6])), (number, Err(ENOSYS)));
    }
    Ok(())
}

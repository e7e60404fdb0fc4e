//! bench: how late a sleeper wakes, by timer slack and scheduling class.

use super::{Bench, last_errno, metric, skip};
use crate::instruction::{call6, mark_begin, mark_end, region};
use crate::linux;
use crate::output::write_out;

const INTERVALS_US: [u64; 4] = [1, 10, 100, 1000];

/// Sleeps of four lengths: with 50 us and with 1 ns of timer slack, and as a FIFO task.
pub fn sleep(bench: &mut Bench) {
    if linux::monotonic_ns() == 0 {
        return skip("nanosleep", last_errno());
    }
    set_slack(50_000);
    INTERVALS_US.into_iter().for_each(|us| sleep_one(bench, "nanosleep_late_slack50us", us));
    set_slack(1);
    mark_begin::<{ region::SLEEP }>();
    INTERVALS_US.into_iter().for_each(|us| sleep_one(bench, "nanosleep_late_slack1ns", us));
    mark_end::<{ region::SLEEP }>();
    if linux::set_fifo(80).is_err() {
        return write_out(b"skip nanosleep_late_fifo80 no SCHED_FIFO\n");
    }
    INTERVALS_US.into_iter().for_each(|us| sleep_one(bench, "nanosleep_late_fifo80", us));
    linux::set_fair();
}

fn set_slack(ns: u64) {
    // SAFETY: (1) PR_SET_TIMERSLACK takes an integer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, ns) };
}

/// 200 sleeps until a moment `us` from now; how long after it the task ran.
fn sleep_one(bench: &mut Bench, name: &str, us: u64) {
    bench.samples.clear();
    for _ in 0..200 {
        let until_ns = linux::monotonic_ns() + us * 1000;
        let until =
            libc::timespec { tv_sec: (until_ns / 1_000_000_000) as i64, tv_nsec: (until_ns % 1_000_000_000) as i64 };
        let clock = i64::from(libc::CLOCK_MONOTONIC);
        let arguments = [clock, i64::from(libc::TIMER_ABSTIME), &raw const until as i64, 0, 0, 0];
        // SAFETY: (1) the address is that of a live timespec, which the kernel only reads.
        let value = unsafe { call6(libc::SYS_clock_nanosleep, arguments) };
        let end_ns = linux::monotonic_ns();
        if value < 0 {
            return skip(name, -value);
        }
        bench.samples.add(end_ns.saturating_sub(until_ns));
    }
    let sorted = bench.samples.sorted();
    for (index, part) in [(0, "min"), (sorted.len() / 2, "med"), (sorted.len() - 1, "max")] {
        metric(&format!("{name}_{us}us.{part}"), sorted[index], "ns");
    }
}

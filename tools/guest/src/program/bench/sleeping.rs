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
    sleep_beside(bench);
    linux::set_fair();
}

/// Sleeps of a FIFO task on whose CPU a fair one wakes and goes to sleep again, at each moment from `BEFORE_NS` before it is due on: how late the
/// kernel's work for that makes it.
fn sleep_beside(bench: &mut Bench) {
    const BEFORE_NS: u64 = 1600;
    const STEP_NS: u64 = 4;
    const EVERY_NS: u64 = 100_000;
    const NAME: &str = "nanosleep_beside_fifo80";
    let start_ns = linux::monotonic_ns() + 10_000_000;
    let moments = move || (0..=BEFORE_NS / STEP_NS).map(move |n| (start_ns + n * EVERY_NS, n * STEP_NS));
    let other = std::thread::spawn(move || {
        linux::set_fair();
        moments().try_for_each(|(due_ns, after_ns)| sleep_until(due_ns - BEFORE_NS + after_ns).map(|_| ()))
    });
    bench.samples.clear();
    let late = moments().try_for_each(|(due_ns, _)| sleep_until(due_ns).map(|late_ns| bench.samples.add(late_ns)));
    let done = late.and_then(|()| other.join().unwrap_or(Err(0)));
    match done {
        Ok(()) => tell(bench, NAME),
        Err(error) => skip(NAME, error),
    }
}

fn set_slack(ns: u64) {
    // SAFETY: (1) PR_SET_TIMERSLACK takes an integer.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, ns) };
}

/// Sleeps until a moment of the monotonic clock; how long after it the task ran, ns.
fn sleep_until(until_ns: u64) -> Result<u64, i64> {
    let until =
        libc::timespec { tv_sec: (until_ns / 1_000_000_000) as i64, tv_nsec: (until_ns % 1_000_000_000) as i64 };
    let clock = i64::from(libc::CLOCK_MONOTONIC);
    let arguments = [clock, i64::from(libc::TIMER_ABSTIME), &raw const until as i64, 0, 0, 0];
    // SAFETY: (1) the address is that of a live timespec, which the kernel only reads.
    let value = unsafe { call6(libc::SYS_clock_nanosleep, arguments) };
    let end_ns = linux::monotonic_ns();
    if value < 0 { Err(-value) } else { Ok(end_ns.saturating_sub(until_ns)) }
}

/// 200 sleeps until a moment `us` from now; how long after it the task ran.
fn sleep_one(bench: &mut Bench, name: &str, us: u64) {
    bench.samples.clear();
    for _ in 0..200 {
        match sleep_until(linux::monotonic_ns() + us * 1000) {
            Ok(late_ns) => bench.samples.add(late_ns),
            Err(error) => return skip(name, error),
        }
    }
    tell(bench, &format!("{name}_{us}us"));
}

fn tell(bench: &mut Bench, name: &str) {
    let sorted = bench.samples.sorted();
    for (index, part) in [(0, "min"), (sorted.len() / 2, "med"), (sorted.len() - 1, "max")] {
        metric(&format!("{name}.{part}"), sorted[index], "ns");
    }
}

//! bench: calibration, and single system calls: getppid, invalid numbers, sched_yield, clock_gettime, a signal to oneself.

use super::{Bench, last_errno, metric, skip};
use crate::instruction::{call0, call6, count_down, mark_begin, mark_end, rdtsc, region, timed_call};
use crate::linux::{self, Disposition};
use crate::output::write_out;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether a tick is an instruction, what an empty pair of readings takes, the rate of the counter.
pub fn calibrate(bench: &mut Bench) {
    let pair = (0..50).map(|_| crate::instruction::timed_nothing()).min().unwrap_or(0);
    bench.samples.set_overhead(pair);
    let (short, middle, long) = (loop_ticks(100), loop_ticks(1100), loop_ticks(10_100));
    let (two, twenty) = (middle.saturating_sub(short), long.saturating_sub(short));
    metric("calib.rdtsc_pair", pair, "ticks");
    metric("calib.loop_2000_insns", two, "ticks");
    metric("calib.loop_20000_insns", twenty, "ticks");
    let exact = two == 2000 && twenty == 20_000;
    bench.unit = if exact { "insns" } else { "ticks" };
    write_out(format!("info calib tsc_tick_is_one_instruction={}\n", if exact { "yes" } else { "no" }).as_bytes());
    if let Some(hz) = tsc_hz(5_000_000) {
        metric("calib.tsc_hz", hz, "Hz");
    }
}

/// The least of seven runs of a loop of `2 * turns` instructions.
fn loop_ticks(turns: u64) -> u64 {
    let one = |_| {
        let start = rdtsc();
        count_down(turns);
        rdtsc() - start
    };
    (0..7).map(one).min().unwrap_or(0)
}

/// Rate of the time stamp counter against CLOCK_MONOTONIC over `ns`; `None` without a clock.
pub fn tsc_hz(ns: u64) -> Option<u64> {
    let (start_ns, start) = (linux::monotonic_ns(), rdtsc());
    if start_ns == 0 {
        return None;
    }
    while linux::monotonic_ns() - start_ns < ns {
        count_down(500);
    }
    let (end_ns, end) = (linux::monotonic_ns(), rdtsc());
    Some((u128::from(end - start) * 1_000_000_000 / u128::from(end_ns - start_ns)) as u64)
}

/// Takes `iterations` samples of the call between plugin marks.
macro_rules! sample_calls {
    ($bench:expr, $region:expr, $number:expr, $first:expr, $second:expr) => {{
        $bench.samples.clear();
        let iterations = $bench.iterations;
        mark_begin::<{ $region }>();
        for _ in 0..iterations {
            // SAFETY: (1) the callers below use calls that change nothing of Rust's memory but what they name.
            let ticks = unsafe { timed_call($number, $first, $second) };
            $bench.samples.add(ticks);
        }
        mark_end::<{ $region }>();
    }};
}

/// getppid and numbers that are no calls.
pub fn system_calls(bench: &mut Bench) {
    // SAFETY: (1) getppid changes nothing.
    let call = || unsafe { call0(libc::SYS_getppid) };
    let value = (0..200).fold(0, |_, _| call());
    if value < 0 {
        skip("syscall_getppid", -value);
    }
    sample_calls!(bench, region::GETPPID, libc::SYS_getppid, 0, 0);
    bench.report("syscall_getppid");
    for _ in 0..50 {
        // SAFETY: (1) 10000 is no call.
        unsafe { call0(10_000) };
    }
    sample_calls!(bench, region::BAD_CALL, 10_000, 0, 0);
    bench.report("syscall_bad10000");
    bench.samples.clear();
    for _ in 0..bench.iterations {
        // SAFETY: (1) -1 is no call.
        let ticks = unsafe { timed_call(-1, 0, 0) };
        bench.samples.add(ticks);
    }
    bench.report("syscall_badm1");
}

/// sched_yield with nobody to yield to.
pub fn sched_yield(bench: &mut Bench) {
    // SAFETY: (1) sched_yield changes nothing.
    let call = || unsafe { call0(libc::SYS_sched_yield) };
    let value = call();
    if value < 0 {
        return skip("sched_yield", -value);
    }
    for _ in 0..50 {
        call();
    }
    sample_calls!(bench, region::YIELD, libc::SYS_sched_yield, 0, 0);
    bench.report("sched_yield_alone");
}

/// clock_gettime as a system call and through the C library (which uses the vDSO where there is one).
pub fn clock(bench: &mut Bench) {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = i64::from(libc::CLOCK_MONOTONIC);
    let address = &raw mut now as i64;
    // SAFETY: (1) the address is that of a live timespec.
    let value = unsafe { call6(libc::SYS_clock_gettime, [clock, address, 0, 0, 0, 0]) };
    if value < 0 {
        skip("clock_gettime_syscall", -value);
    } else {
        bench.samples.clear();
        for _ in 0..bench.iterations {
            // SAFETY: (1) as above.
            let ticks = unsafe { timed_call(libc::SYS_clock_gettime, clock, address) };
            bench.samples.add(ticks);
        }
        bench.report("clock_gettime_syscall");
    }
    // SAFETY: (1) the pointer is to a live timespec.
    let mut library = || unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    if library() == 0 {
        bench.samples.clear();
        for _ in 0..bench.iterations {
            let start = rdtsc();
            library();
            let ticks = rdtsc() - start;
            bench.samples.add(ticks);
        }
        bench.report("clock_gettime_libc");
    }
}

static SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: i32) {
    SEEN.fetch_add(1, Ordering::Relaxed);
}

/// A signal to oneself: kill, handler, return.
pub fn signal(bench: &mut Bench) {
    if linux::set_signal(libc::SIGUSR1, Disposition::Call(on_signal)).is_err() {
        return skip("signal_self", last_errno());
    }
    let (pid, signal) = (i64::from(linux::own_pid()), i64::from(libc::SIGUSR1));
    SEEN.store(0, Ordering::Relaxed);
    // SAFETY: (1) the handler adds to an atomic and does nothing else.
    let send = || unsafe { call6(libc::SYS_kill, [pid, signal, 0, 0, 0, 0]) };
    let value = send();
    if value < 0 || SEEN.load(Ordering::Relaxed) != 1 {
        return skip("signal_self", if value < 0 { -value } else { 0 });
    }
    for _ in 0..20 {
        send();
    }
    sample_calls!(bench, region::SIGNAL, libc::SYS_kill, pid, signal);
    bench.report("signal_self");
}

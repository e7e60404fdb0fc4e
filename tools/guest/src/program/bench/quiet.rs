//! bench: how a CPU is disturbed while it spins, seen by the time stamp counter, with the kernel's own counts beside it.

use super::{Bench, calls, interrupts, metric};
use crate::entry_counts::EntryCounts;
use crate::instruction::{count_down, mark_begin, mark_end, rdtsc, region};
use crate::kernel_file;
use crate::output::write_out;

/// Spins for `secs` seconds and records every step that is longer than the usual one.
pub fn noise(bench: &mut Bench) {
    // Checked at the start.
    let parameter = |key, default| bench.number(key, default).unwrap_or(default);
    let (secs, inner, threshold) = (parameter("secs", 2), parameter("inner", 100).max(1), parameter("gap", 100));
    let hz = if bench.unit == "insns" { None } else { calls::tsc_hz(20_000_000) }.unwrap_or(1_000_000_000);
    // The kernel settles (a tick stops only after a while), and the usual step is found.
    let end = rdtsc() + hz / 5;
    while rdtsc() < end {
        count_down(5000);
    }
    let mut usual = u64::MAX;
    let mut last = rdtsc();
    for _ in 0..200 {
        count_down(inner);
        let now = rdtsc();
        usual = usual.min(now - last);
        last = now;
    }
    let before = interrupts::of_cpu(bench.cpu);
    let entries_before = entries(bench.cpu);
    bench.samples.clear();
    let (mut gaps, mut stolen) = (0u64, 0u64);
    let start = rdtsc();
    let end = start + secs * hz;
    mark_begin::<{ region::NOISE }>();
    last = rdtsc();
    loop {
        count_down(inner);
        let now = rdtsc();
        let step = now - last;
        last = now;
        usual = usual.min(step);
        if step > usual + threshold {
            bench.samples.add(step - usual);
            gaps += 1;
            stolen += step - usual;
            last = rdtsc();
        }
        if now >= end {
            break;
        }
    }
    mark_end::<{ region::NOISE }>();
    let span = (rdtsc() - start).max(1);
    let entries_after = entries(bench.cpu);
    let after = interrupts::of_cpu(bench.cpu);

    let unit = bench.unit;
    let share = |part: u64, scale: u128| (u128::from(part) * scale / u128::from(span)) as u64;
    metric("noise.loop_step", usual, unit);
    metric("noise.span", span, unit);
    metric("noise.gaps", gaps, "count");
    metric("noise.gaps_per_s_x1000", share(gaps, u128::from(hz) * 1000), "mHz");
    metric("noise.stolen_total", stolen, unit);
    metric("noise.stolen_ppm", share(stolen, 1_000_000), "ppm");
    sizes(bench.samples.sorted(), unit);
    match (before, after) {
        (Some(before), Some(after)) => {
            let between = after.since(&before);
            metric("noise.irq_loc", between.loc, "irqs");
            metric("noise.irq_res", between.res, "irqs");
            metric("noise.irq_cal", between.cal, "irqs");
            metric("noise.irq_all", between.all, "irqs");
            metric("noise.irq_all_per_s_x1000", share(between.all, u128::from(hz) * 1000), "mHz");
        }
        _ => write_out(b"skip noise.irq no /proc/interrupts\n"),
    }
    if let (Some(before), Some(after)) = (entries_before, entries_after) {
        for (cause, count) in after.since(&before) {
            metric(&format!("noise.entries_{cause}"), count, "count");
        }
    }
}

/// Sizes of the gaps, ascending: least, middle, 90 %, largest, most frequent.
fn sizes(gaps: &[u64], unit: &str) {
    let [first, .., last] = gaps else { return };
    metric("noise.gap_min", *first, unit);
    metric("noise.gap_med", gaps[gaps.len() / 2], unit);
    metric("noise.gap_p90", gaps[gaps.len() - 1 - gaps.len() / 10], unit);
    metric("noise.gap_max", *last, unit);
    let runs = gaps.chunk_by(|a, b| a == b);
    // The smallest of equally frequent ones.
    if let Some(run) = runs.rev().max_by_key(|run| run.len()) {
        metric("noise.gap_mode", run[0], unit);
        metric("noise.gap_mode_n", run.len() as u64, "count");
    }
}

/// The kernel's counts by cause; on Linux there are none. The reading itself is a few system calls, made on the measured CPU.
fn entries(cpu: u32) -> Option<EntryCounts> {
    EntryCounts::parse(&kernel_file::read_quiesce(&format!("cpu{cpu}/entries")).ok()?).ok()
}

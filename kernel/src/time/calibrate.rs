//! The rates of TSC and APIC timer, measured once against the PIT in one window of at most 5 ms, and the verdict on the TSC.
//!
//! Both ends of the window are read bracketed: the tightest of several readings counts, so that a virtual CPU that is held up
//! in between does not spoil the rate.

use crate::arch::cpu_features::Features;
use crate::arch::pit::{PIT_HZ, Stopwatch};
use crate::arch::{apic, tsc};

/// PIT ticks of the window: just under 5 ms.
const WINDOW: u16 = 5950;
/// Readings at each end.
const READINGS: usize = 5;
/// Windows that ran out are repeated so often.
const TRIES: usize = 8;

#[derive(Clone, Copy)]
struct Reading {
    tsc: u64,
    width: u64,
    pit: u16,
    timer: u32,
}

fn read(watch: &Stopwatch) -> Option<Reading> {
    let mut best: Option<Reading> = None;
    for _ in 0..READINGS {
        let before = tsc::now();
        let pit = watch.elapsed()?;
        let timer = apic::timer_elapsed();
        let width = tsc::now().wrapping_sub(before);
        if best.is_none_or(|b| width < b.width) {
            best = Some(Reading { tsc: before + width / 2, width, pit, timer });
        }
    }
    best
}

/// Two readings `pit_ticks` apart; `None` if the reference wrapped meanwhile.
fn window(pit_ticks: u16) -> Option<(Reading, Reading)> {
    let watch = Stopwatch::start();
    let first = read(&watch)?;
    while watch.elapsed()? - first.pit < pit_ticks {
        core::hint::spin_loop();
    }
    Some((first, read(&watch)?))
}

/// Measure. Boot CPU, interrupts off, APIC set up. An error if the reference does not count.
pub fn run(features: &Features) -> Result<(), &'static str> {
    apic::timer_start_measure();
    // Where hundreds of virtual CPUs share a few real ones, the boot CPU may never run for a whole window: then shorter ones.
    let windows = [WINDOW, WINDOW / 4, WINDOW / 16];
    let mut tries = windows.into_iter().flat_map(|pit_ticks| core::iter::repeat_n(pit_ticks, TRIES));
    let (first, last) = tries.find_map(window).ok_or("the PIT does not count: no time reference")?;
    let pit_ticks = (last.pit - first.pit) as u64;
    let tsc_ticks = last.tsc.wrapping_sub(first.tsc).max(1);
    tsc::set_khz(round((tsc_ticks as u128 * PIT_HZ as u128 / pit_ticks as u128 / 1000) as u64));
    apic::set_timer_rate((last.timer - first.timer) as u64, tsc_ticks, features.tsc_deadline);
    Ok(())
}

/// To four digits: the window's own error is larger than what is lost.
fn round(khz: u64) -> u64 {
    let mut step = 1;
    while khz / step >= 10_000 {
        step *= 10;
    }
    (khz + step / 2) / step * step
}

/// One line for the log.
pub fn verdict(features: &Features) -> &'static str {
    if features.invariant_tsc {
        "TSC is invariant: trusted"
    } else {
        "TSC does not claim to be invariant: trusted because checked against the PIT"
    }
}

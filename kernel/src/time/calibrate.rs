//! The rates of TSC and APIC timer, measured once against the PIT in one window of 5 ms, and the verdict on the TSC.

use crate::arch::cpu_features::Features;
use crate::arch::{apic, pit, tsc};

/// PIT ticks of the window: just under 5 ms.
const WINDOW: u16 = 5950;

/// Measure. Boot CPU, interrupts off, APIC set up.
pub fn run(features: &Features) {
    let (before, after) = pit::window(WINDOW, || {
        let at = tsc::now();
        (at, apic::timer_elapsed())
    });
    let tsc_ticks = after.0.wrapping_sub(before.0).max(1);
    let timer_ticks = after.1.wrapping_sub(before.1) as u64;
    tsc::set_khz(round(tsc_ticks * pit::PIT_HZ / WINDOW as u64 / 1000));
    apic::set_timer_rate(timer_ticks, tsc_ticks, features.tsc_deadline);
}

/// To four digits: the window's own error is larger than what is lost.
fn round(khz: u64) -> u64 {
    let mut step = 1;
    while khz / step >= 100_000 {
        step *= 10;
    }
    (khz + step / 2) / step * step
}

/// One line for the log.
pub fn verdict(features: &Features) -> &'static str {
    if features.invariant_tsc {
        "TSC is invariant: trusted"
    } else {
        "TSC does not claim to be invariant: trusted because checked at boot against the PIT"
    }
}

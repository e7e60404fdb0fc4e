//! The time-stamp counter: reading it, and its rate.

use core::sync::atomic::{AtomicU64, Ordering};

/// Read the TSC. Not ordered against memory accesses.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: RDTSC is allowed in ring 0 and has no side effect.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Give RDTSCP and RDPID the running CPU's number.
///
/// # Safety
/// The CPU has RDTSCP or RDPID.
pub unsafe fn set_cpu_number(cpu: u32) {
    const IA32_TSC_AUX: u32 = 0xc000_0103;
    // SAFETY: the MSR exists by the caller's condition, and nothing but programs reads it.
    unsafe { x86_64::registers::model_specific::Msr::new(IA32_TSC_AUX).write(cpu as u64) };
}

static KHZ: AtomicU64 = AtomicU64::new(1_000_000);
/// Nanoseconds per tick in 32.32 fixed point.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(1 << 32);
/// Ticks per nanosecond in 32.32 fixed point.
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(1 << 32);
static BOOT: AtomicU64 = AtomicU64::new(0);

/// Set once at boot.
pub fn set_khz(khz: u64) {
    KHZ.store(khz, Ordering::Relaxed);
    NS_PER_TICK.store(((1_000_000u128 << 32) / khz as u128) as u64, Ordering::Relaxed);
    TICKS_PER_NS.store((((khz as u128) << 32) / 1_000_000) as u64, Ordering::Relaxed);
}

/// The moment that counts as time 0. Set once at boot.
pub fn set_boot(tsc: u64) {
    BOOT.store(tsc, Ordering::Relaxed);
}

/// TSC at time 0.
#[inline]
pub fn boot() -> u64 {
    BOOT.load(Ordering::Relaxed)
}

/// Rate in kHz.
#[inline]
pub fn khz() -> u64 {
    KHZ.load(Ordering::Relaxed)
}

/// Multiplier for the vDSO and for `ticks_to_ns`: nanoseconds per tick, 32.32 fixed point.
#[inline]
pub fn ns_per_tick() -> u64 {
    NS_PER_TICK.load(Ordering::Relaxed)
}

/// Duration in ticks to nanoseconds.
#[inline]
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ((ticks as u128 * ns_per_tick() as u128) >> 32) as u64
}

/// Duration in nanoseconds to ticks, saturating.
#[inline]
pub fn ns_to_ticks(ns: u64) -> u64 {
    let t = (ns as u128 * TICKS_PER_NS.load(Ordering::Relaxed) as u128) >> 32;
    if t > u64::MAX as u128 { u64::MAX } else { t as u64 }
}

/// The TSC value at which `now_ns` will be `ns`, or a little behind that.
pub fn at_ns(ns: u64) -> u64 {
    now().saturating_add(ns_to_ticks(ns.saturating_sub(now_ns()))).saturating_add(1)
}

/// Nanoseconds since boot.
#[inline]
pub fn now_ns() -> u64 {
    ticks_to_ns(now().wrapping_sub(boot()))
}

//! The CPU sets of the command line: decided once at boot by `kcore::cmdline`, read by everyone.

use core::sync::atomic::{AtomicU64, Ordering};
use kcore::cmdline::BootParams;
use kcore::cpu_set::{CpuSet, MAX_CPUS};

type Words = [AtomicU64; MAX_CPUS / 64];
static NOHZ_FULL: Words = [const { AtomicU64::new(0) }; MAX_CPUS / 64];
static DOMAIN: Words = [const { AtomicU64::new(0) }; MAX_CPUS / 64];
static FIRST: AtomicU64 = AtomicU64::new(0);

fn store(words: &Words, set: &CpuSet) {
    for cpu in set.iter() {
        words[cpu as usize / 64].fetch_or(1 << (cpu % 64), Ordering::Relaxed);
    }
}

#[inline]
fn has(words: &Words, cpu: u32) -> bool {
    words[cpu as usize / 64].load(Ordering::Relaxed) >> (cpu % 64) & 1 != 0
}

fn load(words: &Words) -> CpuSet {
    let mut set = CpuSet::new();
    for cpu in 0..crate::percpu::nr_cpus() {
        if has(words, cpu) {
            let _ = set.insert(cpu);
        }
    }
    set
}

/// Take over what the command line decided. Boot CPU, once, before other CPUs run.
pub fn init(params: &BootParams<'_>) {
    store(&NOHZ_FULL, &params.nohz_full);
    store(&DOMAIN, &params.isolated_domain);
    FIRST.store(params.housekeeping.first().unwrap_or(0) as u64, Ordering::Relaxed);
}

/// CPUs whose tick stops and whose user mode is tracked.
pub fn nohz_full() -> CpuSet {
    load(&NOHZ_FULL)
}

/// Whether the tick of `cpu` may stop while it runs a task.
#[inline]
pub fn is_nohz_full(cpu: u32) -> bool {
    has(&NOHZ_FULL, cpu)
}

/// CPUs that `isolcpus=domain` keeps out of placement, plus the nohz_full ones, which nothing is placed on either.
pub fn isolated() -> CpuSet {
    load(&NOHZ_FULL).union(&load(&DOMAIN))
}

/// Only what `isolcpus=` named: what Linux shows in /sys/devices/system/cpu/isolated.
pub fn isolcpus() -> CpuSet {
    load(&DOMAIN)
}

/// Whether nothing is placed on `cpu` unasked.
#[inline]
pub fn is_isolated(cpu: u32) -> bool {
    has(&NOHZ_FULL, cpu) || has(&DOMAIN, cpu)
}

/// CPUs for the kernel's own work: online or coming, not isolated.
pub fn kernel_noise() -> CpuSet {
    CpuSet::full(crate::percpu::nr_cpus()).difference(&isolated())
}

/// A CPU that is never isolated.
pub fn first() -> u32 {
    FIRST.load(Ordering::Relaxed) as u32
}

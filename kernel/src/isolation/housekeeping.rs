//! Which CPUs are left alone: decided at boot by `kcore::cmdline`, changed later by `isolation::live` alone, read by everyone.
//!
//! A reader sees each CPU's role whole, as it is at that moment. Who acts on what it saw does so with preemption off; a flip waits a
//! grace period after its change, and then nobody acts on the old role any more. At least one CPU that came up is not isolated.

use core::sync::atomic::{AtomicU64, Ordering};
use kcore::cmdline::BootParams;
use kcore::cpu_set::{CpuSet, MAX_CPUS};

type Words = [AtomicU64; MAX_CPUS / 64];
static NOHZ_FULL: Words = [const { AtomicU64::new(0) }; MAX_CPUS / 64];
/// Named by `isolcpus=`, or isolated at run time.
static DOMAIN: Words = [const { AtomicU64::new(0) }; MAX_CPUS / 64];
/// The union of both: what the scheduler asks.
static ISOLATED: Words = [const { AtomicU64::new(0) }; MAX_CPUS / 64];

fn store(words: &Words, set: &CpuSet) {
    for (word, bits) in words.iter().zip(set.words()) {
        word.fetch_or(*bits, Ordering::Relaxed);
    }
}

#[inline]
fn has(words: &Words, cpu: u32) -> bool {
    words[cpu as usize / 64].load(Ordering::Relaxed) >> (cpu % 64) & 1 != 0
}

fn load(words: &Words) -> CpuSet {
    let set = CpuSet::from_words(core::array::from_fn(|i| words[i].load(Ordering::Relaxed)));
    set.intersection(&CpuSet::full(crate::percpu::nr_cpus()))
}

/// Take over what the command line decided. Boot CPU, once, before other CPUs run.
pub fn init(params: &BootParams<'_>) {
    store(&NOHZ_FULL, &params.nohz_full);
    store(&DOMAIN, &params.isolated_domain);
    store(&ISOLATED, &params.nohz_full.union(&params.isolated_domain));
}

/// Give `cpu` the other role. `isolation::live` alone, one at a time; another CPU that is not isolated stays.
pub fn set_isolated(cpu: u32, on: bool) {
    for words in [&NOHZ_FULL, &DOMAIN, &ISOLATED] {
        let (word, bit) = (&words[cpu as usize / 64], 1 << (cpu % 64));
        if on {
            word.fetch_or(bit, Ordering::SeqCst);
        } else {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }
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
    load(&ISOLATED)
}

/// Only what `isolcpus=` named or was isolated later: what Linux shows in /sys/devices/system/cpu/isolated.
pub fn isolcpus() -> CpuSet {
    load(&DOMAIN)
}

/// Whether nothing is placed on `cpu` unasked.
#[inline]
pub fn is_isolated(cpu: u32) -> bool {
    has(&ISOLATED, cpu)
}

/// CPUs for the kernel's own work and for tasks that asked for nothing: online or coming, not isolated.
pub fn kernel_noise() -> CpuSet {
    CpuSet::full(crate::percpu::nr_cpus()).difference(&isolated())
}

/// The first CPU that is not isolated, of those that came up or are about to.
pub fn first() -> u32 {
    kernel_noise().iter().find(|&cpu| crate::percpu::get(cpu).is_some()).unwrap_or(0)
}

//! Which CPUs are left alone: decided at boot by `kcore::cmdline`, changed later by `isolation::live` alone, read by everyone.
//!
//! A reader sees each CPU's role whole, as it is at that moment. Who acts on what it saw does so with preemption off; a flip waits a
//! grace period after its change, and then nobody acts on the old role any more. At least one CPU that came up is not isolated.

use kcore::cmdline::BootParams;
use kcore::cpu_set::{CpuSet, SharedCpuSet};

static NOHZ_FULL: SharedCpuSet = SharedCpuSet::new();
/// Named by `isolcpus=`, or isolated at run time.
static DOMAIN: SharedCpuSet = SharedCpuSet::new();
/// The union of both: what the scheduler asks.
static ISOLATED: SharedCpuSet = SharedCpuSet::new();

/// Those of `set` that this machine has.
fn present(set: &SharedCpuSet) -> CpuSet {
    set.load().intersection(&CpuSet::full(crate::percpu::nr_cpus()))
}

/// Take over what the command line decided. Boot CPU, once, before other CPUs run.
pub fn init(params: &BootParams<'_>) {
    NOHZ_FULL.store(&params.nohz_full);
    DOMAIN.store(&params.isolated_domain);
    ISOLATED.store(&params.nohz_full.union(&params.isolated_domain));
}

/// Give `cpu` the other role. `isolation::live` alone, one at a time; another CPU that is not isolated stays.
pub fn set_isolated(cpu: u32, on: bool) {
    [&NOHZ_FULL, &DOMAIN, &ISOLATED].into_iter().for_each(|set| set.set(cpu, on));
}

/// CPUs whose tick stops and whose user mode is tracked.
pub fn nohz_full() -> CpuSet {
    present(&NOHZ_FULL)
}

/// Whether the tick of `cpu` may stop while it runs a task.
#[inline]
pub fn is_nohz_full(cpu: u32) -> bool {
    NOHZ_FULL.contains(cpu)
}

/// CPUs that `isolcpus=domain` keeps out of placement, plus the nohz_full ones, which nothing is placed on either.
pub fn isolated() -> CpuSet {
    present(&ISOLATED)
}

/// Only what `isolcpus=` named or was isolated later: what Linux shows in /sys/devices/system/cpu/isolated.
pub fn isolcpus() -> CpuSet {
    present(&DOMAIN)
}

/// Whether nothing is placed on `cpu` unasked.
#[inline]
pub fn is_isolated(cpu: u32) -> bool {
    ISOLATED.contains(cpu)
}

/// CPUs for the kernel's own work and for tasks that asked for nothing: online or coming, not isolated.
pub fn kernel_noise() -> CpuSet {
    CpuSet::full(crate::percpu::nr_cpus()).difference(&isolated())
}

/// The first CPU that is not isolated, of those that came up or are about to.
pub fn first() -> u32 {
    kernel_noise().iter().find(|&cpu| crate::percpu::get(cpu).is_some()).unwrap_or(0)
}

//! On which CPU a woken or new task goes: its last one if that is idle, else an idle one, else the last one. A leased one only if it may
//! run nowhere else.

use super::is_idle;
use super::task::Task;
use crate::isolation::housekeeping;
use crate::percpu;
use core::sync::atomic::Ordering;
use kcore::cpu_set::SharedCpuSet;

/// CPUs that came up and are not leased.
static OPEN: SharedCpuSet = SharedCpuSet::new();

/// Tasks may be placed on `cpu` from now on, or none that may run elsewhere. At boot; then `isolation::lease` alone.
pub fn set_open(cpu: u32, open: bool) {
    OPEN.set(cpu, open);
}

/// A CPU that `task` may run on. Isolated CPUs are chosen only if its affinity leaves nothing else.
#[inline(always)]
pub fn choose(task: &Task) -> u32 {
    match task.only_cpu() {
        Some(only) if percpu::is_online(only) => only,
        _ => choose_of_many(task),
    }
}

#[inline(never)]
fn choose_of_many(task: &Task) -> u32 {
    let last = task.cpu.load(Ordering::Relaxed);
    let usable = |cpu: u32| OPEN.contains(cpu) && task.may_run_on(cpu);
    if usable(last) && (is_idle(percpu::of(last)) || housekeeping::is_isolated(last)) {
        return last;
    }
    let nr = percpu::nr_cpus();
    let domain = |cpu: &u32| usable(*cpu) && !housekeeping::is_isolated(*cpu);
    if let Some(cpu) = (0..nr).filter(domain).find(|&cpu| is_idle(percpu::of(cpu))) {
        return cpu;
    }
    if usable(last) {
        return last;
    }
    let leased = |c: &u32| percpu::is_online(*c) && task.may_run_on(*c);
    let other = || (0..nr).find(|&c| usable(c)).or_else(|| (0..nr).find(leased));
    (0..nr).find(domain).or_else(other).unwrap_or(housekeeping::first())
}

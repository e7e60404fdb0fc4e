//! The lockup watchdog: a thread on the housekeeping CPUs that looks at all others' counters (`kcore::watchdog` has the rules) and tells
//! a CPU that is stuck in the kernel: which, for how long, on what task, with its stack.
//!
//! It has no timer and no tick on the CPUs that it watches; only one that is stuck gets an NMI, for its stack. The CPU on which the
//! thread itself sits is watched by nobody. `watchdog_thresh=` and /proc/sys/kernel/watchdog_thresh set the time, 0 or `nowatchdog`
//! none: Linux's names.

use super::timer;
use crate::arch::tsc;
use crate::percpu;
use crate::sched::{self, task};
use crate::smp::stack_sample::{self, Sample};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use kcore::cpu_set::MAX_CPUS;
use kcore::watchdog::{CpuWatch, Signs, Verdict};

const NS: u64 = 1_000_000_000;

static THRESHOLD_S: AtomicU32 = AtomicU32::new(0);
static TOLD: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// `watchdog_thresh=`, in seconds; 0: nobody looks.
pub fn threshold_s() -> u32 {
    THRESHOLD_S.load(Ordering::Relaxed)
}

/// Another threshold, from the next look on.
pub fn set_threshold_s(seconds: u32) {
    THRESHOLD_S.store(seconds, Ordering::Relaxed);
}

/// Lockups of CPU `cpu` told since boot.
pub fn told(cpu: u32) -> u32 {
    TOLD[cpu as usize].load(Ordering::Relaxed)
}

/// Start the thread, unless nobody wants it. Boot CPU, once the scheduler runs.
pub fn start(threshold_s: u32) {
    set_threshold_s(threshold_s);
    if threshold_s != 0 {
        task::spawn_kthread("watchdog", watch, 0).unwrap_or_else(|e| panic!("cannot start the watchdog: {e:?}"));
    }
}

fn watch(_: usize) {
    let cpus = (percpu::nr_cpus() as usize).min(MAX_CPUS);
    let mut watches: Vec<CpuWatch> = alloc::vec![CpuWatch::default(); cpus];
    loop {
        let threshold_ns = u64::from(threshold_s()) * NS;
        // As Linux: five looks in the time after which a soft lockup is told.
        timer::sleep_ns(if threshold_ns == 0 { NS } else { threshold_ns * 2 / 5 }, false);
        if threshold_ns == 0 {
            continue;
        }
        for (cpu, watch) in watches.iter_mut().enumerate() {
            let cpu = cpu as u32;
            if !percpu::is_online(cpu) || cpu == percpu::cpu() {
                continue;
            }
            match watch.look(tsc::now_ns(), signs(cpu), threshold_ns) {
                Verdict::Fine => {}
                Verdict::Silent(ns) => {
                    let sample = stack_sample::take(cpu);
                    // A CPU that does not even take an NMI is no better.
                    if sample.as_ref().is_none_or(|s| s.interrupts_off) {
                        watch.is_hard();
                        tell(cpu, "hard", ns, sample);
                    }
                }
                Verdict::Soft(ns) => tell(cpu, "soft", ns, stack_sample::take(cpu)),
            }
        }
    }
}

fn signs(cpu: u32) -> Signs {
    let head = &percpu::of(cpu).head;
    Signs {
        word: head.context.0.load(),
        syscalls: head.syscalls.load(Ordering::Relaxed),
        quiescent: crate::rcu::quiescent_states(cpu),
        interrupts: head.irqs.iter().map(|n| n.load(Ordering::Relaxed)).sum(),
    }
}

fn tell(cpu: u32, kind: &str, ns: u64, sample: Option<Sample>) {
    let (tid, comm) = sched::running_on(cpu).map_or((0, [0; 16]), |task| (task.tid(), task.comm()));
    let comm = task::comm_str(&comm);
    crate::warning!("watchdog: BUG: {kind} lockup - CPU#{cpu} stuck for {}s! [{comm}:{tid}]", ns / NS);
    match sample {
        Some(sample) => sample.stack.iter().for_each(|address| crate::warning!("watchdog:   {address:#018x}")),
        None => crate::warning!("watchdog:   (the CPU takes no NMI)"),
    }
    TOLD[cpu as usize].fetch_add(1, Ordering::Release);
}

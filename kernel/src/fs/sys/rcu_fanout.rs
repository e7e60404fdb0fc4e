//! /sys/kernel/quiesce/debug/rcu_fanout: what a grace period's own bookkeeping costs by the fan-out of the tree, for `kcore::rcu::FANOUT`.
//!
//! Each line is one grace period of invented CPUs: its start, three scans at which the same CPUs hold it, and one at which they have
//! passed. Reading it is process context; nothing of the running grace periods is touched.

use crate::arch::irq_flag::IrqOff;
use crate::arch::tsc;
use crate::errno::Errno;
use crate::spin_lock::{SpinLock, rank};
use alloc::string::String;
use core::fmt::Write;
use kcore::context_tracking::WATCH;
use kcore::cpu_set::CpuSet;
use kcore::rcu::{CpuSnapshot, GracePeriod};

/// Whether a CPU holds the grace period.
type Holds = fn(u32) -> bool;

/// Who holds it, by name.
const HOLDERS: [(&str, Holds); 4] =
    [("none", |_| false), ("one", |cpu| cpu == 40), ("eighth", |cpu| cpu % 8 == 0), ("all", |_| true)];

/// `cpus=N holders=WHO`, then ticks by fan-out.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    macro_rules! cost {
        ($fanout:literal, $cpus:expr, $holds:expr) => {{
            static PERIOD: SpinLock<GracePeriod<$fanout>, { rank::RCU }> = SpinLock::new(GracePeriod::new());
            (0..3).map(|_| ticks(&mut PERIOD.lock(), $cpus, $holds)).min().unwrap_or(0)
        }};
    }
    for cpus in [64, 255] {
        for (name, holds) in HOLDERS {
            let _ = writeln!(
                out,
                "cpus={cpus} holders={name} fanout_8={} fanout_16={} fanout_32={} fanout_64={}",
                cost!(8, cpus, holds),
                cost!(16, cpus, holds),
                cost!(32, cpus, holds),
                cost!(64, cpus, holds),
            );
        }
    }
    Ok(())
}

fn ticks<const N: usize>(period: &mut GracePeriod<N>, cpus: u32, holds: Holds) -> u64 {
    let online = CpuSet::full(cpus);
    let at = |qs| move |cpu| CpuSnapshot { word: if holds(cpu) { WATCH } else { 0 }, qs };
    let irq_off = IrqOff::new();
    let start = tsc::now();
    period.start(&online, at(0));
    for _ in 0..3 {
        let _ = core::hint::black_box(period.scan(at(0)));
    }
    let _ = core::hint::black_box(period.scan(at(1)));
    let ticks = tsc::now().wrapping_sub(start);
    drop(irq_off);
    ticks
}

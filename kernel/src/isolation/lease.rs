//! Leases: which CPUs a program has declared silent, "from now on nothing".
//!
//! Anyone may ask `is_held`; what cannot wait and would enter such a CPU is refused with EBUSY by whoever would cause it.

use core::sync::atomic::{AtomicU64, Ordering};
use kcore::cpu_set::MAX_CPUS;

/// Set from a lease's request on: who asks later than that is refused, so that nothing is under way when it is granted.
static HELD: [AtomicU64; MAX_CPUS / 64] = [const { AtomicU64::new(0) }; MAX_CPUS / 64];

/// Whether a lease is held, or being asked for, on `cpu`. With preemption off: as long as that lasts, no lease is granted on a CPU of which
/// this said no.
#[inline]
pub fn is_held(cpu: u32) -> bool {
    HELD[cpu as usize / 64].load(Ordering::Relaxed) >> (cpu % 64) & 1 != 0
}

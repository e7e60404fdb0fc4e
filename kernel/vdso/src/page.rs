//! The page that the kernel fills and programs read: how the time-stamp counter becomes a time, and how a program learns its CPU.
//!
//! Used by the kernel, which fills it once after calibration and when the clock is set (`mm::vdso`), and by `object.rs`, which reads it in user mode.
//! Invariant: what `clocks` promises is there before its bit is set. The rate never changes, and the wall clock is one word, so there is nothing to
//! retry.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Nanoseconds in a second.
pub const NS: u64 = 1_000_000_000;
/// Clocks have numbers below this.
pub const CLOCKS: usize = 16;

/// The page's content.
#[repr(C)]
pub struct Page {
    /// Bit N: clock N can be read here. 0 before calibration: ask the kernel.
    clocks: AtomicU32,
    /// How a program learns its CPU: one of `cpu_by`.
    cpu_by: AtomicU32,
    /// The counter at time 0.
    boot_tsc: AtomicU64,
    /// Nanoseconds per tick, 32.32 fixed point.
    ns_per_tick: AtomicU64,
    /// Nanoseconds to add to the time since boot, by clock.
    at_0_ns: [AtomicU64; CLOCKS],
    /// struct timezone, as settimeofday left it.
    zone: AtomicU64,
}

/// Ways to learn the CPU.
pub mod cpu_by {
    /// Ask the kernel.
    pub const SYSCALL: u32 = 0;
    /// RDTSCP leaves it in ECX.
    pub const RDTSCP: u32 = 1;
    /// RDPID.
    pub const RDPID: u32 = 2;
}

impl Page {
    /// Nothing promised.
    pub const fn new() -> Self {
        Self {
            clocks: AtomicU32::new(0),
            cpu_by: AtomicU32::new(cpu_by::SYSCALL),
            boot_tsc: AtomicU64::new(0),
            ns_per_tick: AtomicU64::new(0),
            at_0_ns: [const { AtomicU64::new(0) }; CLOCKS],
            zone: AtomicU64::new(0),
        }
    }

    /// Say how time is computed: `(number, nanoseconds to add)` of each clock that can be read here. Once.
    pub fn promise_clocks(&self, boot_tsc: u64, ns_per_tick: u64, clocks: &[(u32, u64)]) {
        self.boot_tsc.store(boot_tsc, Ordering::Relaxed);
        self.ns_per_tick.store(ns_per_tick, Ordering::Relaxed);
        let mut promised = 0;
        for &(clock, at_0_ns) in clocks {
            if let Some(slot) = self.at_0_ns.get(clock as usize) {
                slot.store(at_0_ns, Ordering::Relaxed);
                promised |= 1 << clock;
            }
        }
        self.clocks.store(promised, Ordering::Release);
    }

    /// Clock `clock` was set: nanoseconds to add.
    pub fn set_clock(&self, clock: u32, at_0_ns: u64) {
        self.at_0_ns[clock as usize % CLOCKS].store(at_0_ns, Ordering::Release);
    }

    /// What settimeofday says of time zones, for nobody but gettimeofday.
    pub fn set_zone(&self, zone: u64) {
        self.zone.store(zone, Ordering::Relaxed);
    }

    /// struct timezone.
    #[inline(always)]
    pub fn zone(&self) -> u64 {
        self.zone.load(Ordering::Relaxed)
    }

    /// Say how programs learn their CPU: one of `cpu_by`.
    pub fn promise_cpu(&self, by: u32) {
        self.cpu_by.store(by, Ordering::Release);
    }

    /// One of `cpu_by`.
    #[inline(always)]
    pub fn cpu_by(&self) -> u32 {
        self.cpu_by.load(Ordering::Acquire)
    }

    /// Whether `clock` can be read here.
    #[inline(always)]
    pub fn has(&self, clock: u32) -> bool {
        clock < CLOCKS as u32 && self.clocks.load(Ordering::Acquire) >> clock & 1 != 0
    }

    /// What `clock`, which the page has, says `ns` nanoseconds after time 0: seconds and nanoseconds.
    #[inline(always)]
    pub fn time(&self, clock: u32, ns: u64) -> [u64; 2] {
        let shown = self.at_0_ns[clock as usize % CLOCKS].load(Ordering::Relaxed).wrapping_add(ns);
        [shown / NS, shown % NS]
    }
}

/// Where in the page the counter at time 0 lies, for assembly.
pub const BOOT_TSC: usize = offset_of!(Page, boot_tsc);
/// Where the nanoseconds per tick lie, 32.32 fixed point.
pub const NS_PER_TICK: usize = offset_of!(Page, ns_per_tick);

impl Default for Page {
    fn default() -> Self {
        Self::new()
    }
}

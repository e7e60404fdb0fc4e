//! The per-CPU area: one struct a CPU, found at GS, mapped for good.
//!
//! `this` needs a proof that the task stays on its CPU; `of` reaches another CPU's area, whose fields are atomics and locks.

use crate::arch::cpu_head::{self, CpuHead, offset};
use crate::arch::gdt::Segments;
use crate::arch::irq_flag::Pinned;
use crate::entry::exit_work;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use kcore::cpu_set::{CpuSet, MAX_CPUS, SharedCpuSet};

/// Everything that belongs to one CPU. `head` is first: assembly finds it at GS:0.
#[repr(C)]
pub struct Percpu {
    /// What entry code works with.
    pub head: CpuHead,
    /// GDT and TSS.
    pub segments: Segments,
    /// Its local APIC's id.
    pub apic_id: AtomicU32,
    /// Ranks of the locks held, for the debug check.
    pub held_ranks: AtomicU32,
    /// Scheduling.
    pub sched: crate::sched::CpuSched,
    /// Timers and tick.
    pub time: crate::time::CpuTime,
    /// RCU.
    pub rcu: crate::rcu::CpuRcu,
    /// IPI queues.
    pub smp: crate::smp::CpuSmp,
    /// Interruption records.
    pub trace: crate::trace::CpuTrace,
    /// Its lease.
    pub lease: crate::isolation::lease::CpuLease,
    /// CR3 of the address space in use.
    pub address_space_root: AtomicU64,
    /// TSC when the CPU last entered its present state by an untracked way (idle, kernel after boot).
    pub state_since_tsc: AtomicU64,
}

impl Percpu {
    /// An area before `init`.
    pub const fn new() -> Self {
        Self {
            head: CpuHead::new(),
            segments: Segments::new(),
            apic_id: AtomicU32::new(0),
            held_ranks: AtomicU32::new(0),
            sched: crate::sched::CpuSched::new(),
            time: crate::time::CpuTime::new(),
            rcu: crate::rcu::CpuRcu::new(),
            smp: crate::smp::CpuSmp::new(),
            trace: crate::trace::CpuTrace::new(),
            lease: crate::isolation::lease::CpuLease::new(),
            address_space_root: AtomicU64::new(0),
            state_since_tsc: AtomicU64::new(0),
        }
    }

    /// This CPU's number.
    #[inline]
    pub fn cpu(&self) -> u32 {
        self.head.cpu.load(Ordering::Relaxed)
    }
}

/// The boot CPU's area, so that GS is valid from the first instructions on.
static BOOT: Percpu = Percpu::new();
static AREAS: [AtomicPtr<Percpu>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
static ONLINE: SharedCpuSet = SharedCpuSet::new();
static NR_CPUS: AtomicU32 = AtomicU32::new(1);

/// Point GS at the boot CPU's area. The very first thing that the kernel does.
///
/// # Safety
/// Once, on the boot CPU, interrupts off.
pub unsafe fn init_boot_cpu() {
    // SAFETY: the caller's conditions.
    unsafe { install(&BOOT, 0) };
}

/// Make `area` the running CPU's, as CPU number `cpu`.
///
/// # Safety
/// 1. Interrupts are off; 2. `area` belongs to this CPU alone and lives for ever; 3. no other CPU has number `cpu`.
pub unsafe fn install(area: &'static Percpu, cpu: u32) {
    publish(area, cpu);
    let mut gs = x86_64::registers::model_specific::Msr::new(0xc000_0101);
    let mut user_gs = x86_64::registers::model_specific::Msr::new(0xc000_0102);
    // SAFETY: the caller's conditions make it this CPU's area; user GS starts at 0.
    unsafe {
        gs.write(area as *const _ as u64);
        user_gs.write(0);
    }
}

/// Make `area` the one that `get` finds for CPU `cpu`, which may not run yet. Boot CPU, or that CPU itself.
pub fn publish(area: &'static Percpu, cpu: u32) {
    area.head.self_ptr.store(area as *const _ as u64, Ordering::Relaxed);
    area.head.cpu.store(cpu, Ordering::Relaxed);
    AREAS[cpu as usize].store(area as *const _ as *mut _, Ordering::Release);
}

/// The running CPU's area.
#[inline(always)]
pub fn this<P: Pinned>(_: &P) -> &'static Percpu {
    // SAFETY: 1. GS:0 holds the area's own address; 2. areas live for ever; 3. the token keeps the task here.
    unsafe { &*(cpu_head::read_u64::<{ offset::SELF }>() as *const Percpu) }
}

/// The area of CPU `cpu`, if it came up, or is about to.
#[inline]
pub fn get(cpu: u32) -> Option<&'static Percpu> {
    let p = AREAS.get(cpu as usize)?.load(Ordering::Acquire);
    // SAFETY: areas live for ever once they are published.
    unsafe { p.as_ref() }
}

/// The area of CPU `cpu`, which is known to have come up.
#[inline]
pub fn of(cpu: u32) -> &'static Percpu {
    get(cpu).expect("CPU number of an area that is installed")
}

/// Number of the CPU that runs this, which may be another one a moment later unless the caller is pinned.
#[inline(always)]
pub fn cpu() -> u32 {
    cpu_head::read_u32::<{ offset::CPU }>()
}

/// How many CPUs may exist: numbers are below this.
pub fn nr_cpus() -> u32 {
    NR_CPUS.load(Ordering::Relaxed)
}

/// Set once at boot.
pub fn set_nr_cpus(n: u32) {
    NR_CPUS.store(n, Ordering::Relaxed);
}

/// CPU `cpu` takes part from now on.
pub fn set_online(cpu: u32) {
    ONLINE.set(cpu, true);
}

/// The CPUs that take part.
pub fn online() -> CpuSet {
    ONLINE.load()
}

/// Whether CPU `cpu` takes part.
#[inline]
pub fn is_online(cpu: u32) -> bool {
    ONLINE.contains(cpu)
}

/// Undo one `preempt_disable`; if it was the last and another task is due, switch now.
#[inline(always)]
pub fn preempt_enable() {
    cpu_head::preempt_enable_no_resched();
    preempt_point();
}

/// Whether another task is due on this CPU.
#[inline(always)]
pub fn is_preemption_due() -> bool {
    cpu_head::read_u32::<{ offset::EXIT_WORK }>() & exit_work::RESCHED != 0
}

/// If another task is due and preemption is allowed, switch now. For who had interrupts off instead of preemption.
#[inline(always)]
pub fn preempt_point() {
    if is_preemption_due() {
        preempt_check();
    }
}

#[cold]
fn preempt_check() {
    if cpu_head::read_u32::<{ offset::PREEMPT_COUNT }>() == 0 && x86_64::instructions::interrupts::are_enabled() {
        crate::sched::preempt();
    }
}

/// One exception more on this CPU.
pub fn count_exception() {
    // SAFETY: one instruction on this CPU's own counter.
    unsafe { core::arch::asm!("inc qword ptr gs:[{}]", const offset::EXCEPTIONS, options(nostack)) }
}

/// NMIs that all CPUs have counted since boot. Any context.
pub fn nmis() -> u64 {
    online().iter().map(|cpu| of(cpu).head.nmis.load(Ordering::Relaxed)).sum()
}

/// Debug check of the lock order; see `spin_lock`.
#[cfg(debug_assertions)]
pub fn lock_rank(rank: u8, taking: bool) {
    // SAFETY: interrupts or preemption are off while a lock is taken or released, so this CPU's field is ours.
    let area = unsafe { &*(cpu_head::read_u64::<{ offset::SELF }>() as *const Percpu) };
    let held = area.held_ranks.load(Ordering::Relaxed);
    if taking {
        if held >> rank != 0 && !crate::panic::in_progress() {
            area.held_ranks.store(0, Ordering::Relaxed);
            panic!("lock of rank {rank} taken while ranks {held:#b} are held");
        }
        area.held_ranks.store(held | 1 << rank, Ordering::Relaxed);
    } else {
        area.held_ranks.store(held & !(1 << rank), Ordering::Relaxed);
    }
}

//! Read-copy-update. Readers keep preemption off; a CPU whose context word has WATCH clear is quiescent, so a CPU in user mode or
//! idle is never needed: not asked, not interrupted.
//!
//! `call` takes a callback from any context but NMI, on any CPU; all callbacks run in the kernel thread `rcu_gp` on housekeeping
//! CPUs. The rules (who has passed, what number a callback waits for) are `kcore::rcu`.
//! An untracked CPU in user mode is quiescent when its tick hits user mode or when it switches tasks.

use crate::arch::tsc;
use crate::isolation::housekeeping;
use crate::percpu;
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{PreemptOff, SpinLock, rank};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use kcore::context_tracking::Deferred;
use kcore::ipi_ledger::IpiCause;
use kcore::rcu::{CpuSnapshot, GpSeq, GracePeriod, snapshot_fence};

/// A CPU's part of RCU.
pub struct CpuRcu {
    /// Quiescent states passed; written by its own CPU only.
    quiescent: AtomicU32,
    /// Callbacks queued here and not yet collected, newest first.
    callbacks: AtomicPtr<RcuHead>,
}

impl CpuRcu {
    /// Nothing queued.
    pub const fn new() -> Self {
        Self { quiescent: AtomicU32::new(0), callbacks: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// This CPU is between readers now: task switch, or a tick that hit user mode. Its own CPU only.
    /// A full barrier: what the next reader loads, it loads after this count is visible.
    #[inline]
    pub fn note_quiescent(&self) {
        self.quiescent.fetch_add(1, Ordering::SeqCst);
    }
}

/// Embedded in what is freed after a grace period.
pub struct RcuHead {
    next: AtomicPtr<RcuHead>,
    callback: AtomicPtr<()>,
}

impl RcuHead {
    /// Not queued.
    pub const fn new() -> Self {
        Self { next: AtomicPtr::new(core::ptr::null_mut()), callback: AtomicPtr::new(core::ptr::null_mut()) }
    }
}

type Callback = unsafe fn(*const RcuHead);

/// Grace-period number: written by the grace-period thread only.
static SEQ: AtomicU64 = AtomicU64::new(0);
static WORK: WaitQueue = WaitQueue::new();
static DONE: WaitQueue = WaitQueue::new();
/// A grace period is wanted though no callback is queued.
static WANTED: AtomicU32 = AtomicU32::new(0);
/// The grace period under way; the thread's alone, static because it is large.
static PERIOD: SpinLock<GracePeriod, { rank::RCU }> = SpinLock::new(GracePeriod::new());
/// Durations of grace periods in ns: count, total, largest.
static STATS: SpinLock<(u64, u64, u64), { rank::RCU }> = SpinLock::new((0, 0, 0));

/// A reader: what it looks at is not freed before it is dropped. Any context.
#[inline]
pub fn read() -> PreemptOff {
    PreemptOff::new()
}

/// Call `callback(head)` after all readers of now are gone. Any context but NMI.
///
/// # Safety
/// 1. `head` is not queued and lives until the callback; 2. the callback may run in another task on another CPU.
pub unsafe fn call(head: *const RcuHead, callback: Callback) {
    let pin = PreemptOff::new();
    let queue = &percpu::this(&pin).rcu.callbacks;
    // SAFETY: the caller says that the head lives.
    let h = unsafe { &*head };
    h.callback.store(callback as *mut (), Ordering::Relaxed);
    let mut first = queue.load(Ordering::Relaxed);
    loop {
        h.next.store(first, Ordering::Relaxed);
        match queue.compare_exchange_weak(first, head as *mut _, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => first = now,
        }
    }
    drop(pin);
    WORK.wake_one();
}

/// Wait until all readers of now are gone. Process context, no locks held.
pub fn synchronize() {
    snapshot_fence(); // what the caller unpublished, before the look at the number
    let wanted = GpSeq(SEQ.load(Ordering::SeqCst)).snap();
    WANTED.fetch_add(1, Ordering::SeqCst);
    WORK.wake_one();
    let _ = DONE.wait(false, || GpSeq(SEQ.load(Ordering::Acquire)).done(wanted).then_some(()));
}

/// Grace periods so far: number, total ns, largest ns.
pub fn stats() -> (u64, u64, u64) {
    *STATS.lock()
}

/// Start the grace-period thread on the housekeeping CPUs. Boot CPU, once the scheduler runs.
pub fn start() {
    let cpus = housekeeping::kernel_noise();
    crate::sched::task::spawn_kthread("rcu_gp", &cpus, grace_period_thread, 0)
        .unwrap_or_else(|e| panic!("cannot start rcu_gp: {e:?}"));
}

/// Take all callbacks that are queued now, oldest last.
fn collect() -> *mut RcuHead {
    let mut all: *mut RcuHead = core::ptr::null_mut();
    for cpu in 0..percpu::nr_cpus() {
        let Some(area) = percpu::get(cpu) else { continue };
        let mut at = area.rcu.callbacks.swap(core::ptr::null_mut(), Ordering::Acquire);
        // SAFETY: queued heads live until their callback ran; the swap made the list ours.
        while let Some(h) = unsafe { at.as_ref() } {
            let next = h.next.load(Ordering::Relaxed);
            h.next.store(all, Ordering::Relaxed);
            all = at;
            at = next;
        }
    }
    all
}

fn anything_queued() -> bool {
    WANTED.load(Ordering::SeqCst) != 0
        || (0..percpu::nr_cpus()).filter_map(percpu::get).any(|a| !a.rcu.callbacks.load(Ordering::Relaxed).is_null())
}

fn snapshot(cpu: u32) -> CpuSnapshot {
    let area = percpu::of(cpu);
    CpuSnapshot { word: area.head.context.0.load(), qs: area.rcu.quiescent.load(Ordering::Acquire) }
}

fn grace_period_thread(_: usize) {
    loop {
        let _ = WORK.wait(false, || anything_queued().then_some(()));
        WANTED.store(0, Ordering::SeqCst);
        let mut ready = collect();
        run_grace_period();
        // SAFETY: a grace period has passed since the heads were queued; each is called once, `next` is read before.
        while let Some(h) = unsafe { ready.as_ref() } {
            let next = h.next.load(Ordering::Relaxed);
            // SAFETY: `call` stored a Callback there; its contract is the caller's of `call`.
            unsafe { core::mem::transmute::<*mut (), Callback>(h.callback.load(Ordering::Relaxed))(ready) };
            ready = next;
        }
    }
}

/// CPU `cpu` has run kernel code for several scans: ask it to pass through the scheduler. If it is in user mode or idle by now,
/// it is quiescent, and nothing is sent.
fn kick(cpu: u32) {
    let irq_off = crate::arch::irq_flag::IrqOff::new();
    let site = core::panic::Location::caller();
    if cpu == percpu::this(&irq_off).cpu() || crate::smp::deferred_work::leave(cpu, Deferred::RcuRecheck, site) {
        return;
    }
    percpu::of(cpu).head.exit_work.fetch_or(crate::entry::exit_work::RESCHED, Ordering::SeqCst);
    crate::smp::ipi::reschedule(cpu, IpiCause::RcuHoldout, site, &irq_off);
}

fn grace_period(end: bool) -> kcore::trace_event::Data {
    kcore::trace_event::Data::RcuGracePeriod { sequence: SEQ.load(Ordering::Relaxed), end, expedited: false }
}

/// One grace period: every online CPU passes a quiescent state, or was in one.
fn run_grace_period() {
    let start = tsc::now();
    SEQ.store(GpSeq(SEQ.load(Ordering::Relaxed)).started().0, Ordering::SeqCst);
    crate::trace_point!(RCU, &PreemptOff::new(), kcore::trace_event::Flags::NONE, grace_period(false));
    snapshot_fence();
    let online = percpu::online();
    PERIOD.lock().start(&online, snapshot);
    percpu::this(&PreemptOff::new()).rcu.note_quiescent(); // this thread is no reader
    loop {
        let scan = PERIOD.lock().scan(snapshot);
        if scan.done {
            break;
        }
        scan.kick.iter().for_each(kick);
        crate::time::timer::sleep_ns(1_000_000, false);
    }
    snapshot_fence();
    SEQ.store(GpSeq(SEQ.load(Ordering::Relaxed)).ended().0, Ordering::SeqCst);
    crate::trace_point!(RCU, &PreemptOff::new(), kcore::trace_event::Flags::NONE, grace_period(true));
    let ns = tsc::ticks_to_ns(tsc::now().wrapping_sub(start));
    let mut stats = STATS.lock();
    *stats = (stats.0 + 1, stats.1 + ns, stats.2.max(ns));
    drop(stats);
    DONE.wake_all();
}

//! Read-copy-update. Readers keep preemption or interrupts off; a CPU whose context word has WATCH clear is quiescent, so a CPU in user mode or
//! idle is never needed: not asked, not interrupted.
//!
//! `call` takes a callback from any context but NMI, on any CPU; all callbacks run in the kernel thread `rcu_gp` on housekeeping
//! CPUs. What is only to be freed goes to `deferred_free`. Readers that sleep are in `srcu`. Expedited grace periods have a thread of their own, `rcu_exp`, which interrupts CPUs that run kernel code at once. The
//! rules (who has passed, what number a callback waits for, when a grace period is too long) are `kcore::rcu`.
//! An untracked CPU in user mode is quiescent when its tick hits user mode or when it switches tasks.

mod callbacks;
pub mod deferred_free;
pub mod srcu;

use crate::arch::irq_flag::IrqOff;
use crate::arch::tsc;
use crate::percpu;
use crate::sched::wait_queue::WaitQueue;
use crate::smp::{call_function, deferred_work, ipi, stack_sample};
use crate::spin_lock::{PreemptOff, SpinLock, rank};
pub use callbacks::RcuHead;
use callbacks::{Callback, Callbacks, HeadStack};
use core::panic::Location;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use kcore::context_tracking::{Deferred, State};
use kcore::histogram::Histogram;
use kcore::ipi_ledger::IpiCause;
pub use kcore::rcu::Cookie;
use kcore::rcu::{self, CpuSnapshot, GpCounter, GracePeriod, StallWatch};
use kcore::srcu::SrcuCpu;
use kcore::trace_event::{Data, Flags};

/// A CPU's part of RCU.
pub struct CpuRcu {
    /// Quiescent states passed; written by its own CPU only.
    quiescent: AtomicU32,
    /// Callbacks queued here and not yet collected.
    callbacks: HeadStack,
    /// What was given here to be freed.
    free: deferred_free::CpuFree,
    /// Readers that may sleep.
    srcu: srcu::CpuCounters,
}

impl CpuRcu {
    /// Nothing queued.
    pub const fn new() -> Self {
        Self {
            quiescent: AtomicU32::new(0),
            callbacks: HeadStack::new(),
            free: deferred_free::CpuFree::new(),
            srcu: [const { SrcuCpu::new() }; srcu::NR_DOMAINS],
        }
    }

    /// Whether callbacks, or memory to be freed, were queued here that nobody has collected.
    pub fn has_callbacks(&self) -> bool {
        !self.callbacks.is_empty() || !self.free.is_empty()
    }

    /// This CPU is between readers now: task switch, or a tick that hit user mode. Its own CPU only.
    /// A full barrier: what the next reader loads, it loads after this count is visible.
    #[inline]
    pub fn note_quiescent(&self) {
        self.quiescent.fetch_add(1, Ordering::SeqCst);
    }
}

/// Grace periods of one kind, driven by one thread.
pub struct Flavor {
    /// Name as shown in files.
    pub name: &'static str,
    expedited: bool,
    /// Grace-period number: written by the thread only.
    seq: GpCounter,
    /// A grace period is wanted though no callback is queued.
    wanted: AtomicU32,
    work: WaitQueue,
    done: WaitQueue,
    /// The grace period under way; the thread's alone, static because it is large.
    period: SpinLock<GracePeriod, { rank::RCU }>,
    stats: SpinLock<Stats, { rank::RCU }>,
}

/// What grace periods took.
#[derive(Clone)]
pub struct Stats {
    /// From start to end, ns.
    pub latency_ns: Histogram,
    /// The driving CPU's own part: taking snapshots and looking again, TSC ticks. Sleeps and interrupts sent are not in it.
    pub driver_ticks: Histogram,
    /// Those that lasted longer than `rcu_cpu_stall_timeout=`.
    pub stalls: u64,
}

impl Flavor {
    const fn new(name: &'static str, expedited: bool) -> Self {
        Self {
            name,
            expedited,
            seq: GpCounter::new(),
            wanted: AtomicU32::new(0),
            work: WaitQueue::new(),
            done: WaitQueue::new(),
            period: SpinLock::new(GracePeriod::new()),
            stats: SpinLock::new(Stats { latency_ns: Histogram::new(), driver_ticks: Histogram::new(), stalls: 0 }),
        }
    }

    /// What they took so far.
    pub fn stats(&self) -> Stats {
        self.stats.lock().clone()
    }

    fn request(&self) {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        self.work.wake_one();
    }

    fn synchronize(&self) {
        let wanted = self.seq.snap();
        self.request();
        let _ = self.done.wait(false, || self.seq.is_done(wanted).then_some(()));
    }

    /// One grace period: every online CPU passes a quiescent state, or was in one. The flavour's thread only.
    fn run(&self) {
        let start = tsc::now();
        self.seq.start();
        self.trace(false);
        percpu::this(&PreemptOff::new()).rcu.note_quiescent(); // this thread is no reader
        self.period.lock().start(&percpu::online(), snapshot);
        let mut driver_ticks = tsc::now().wrapping_sub(start);
        let mut watch = StallWatch::new(stall_timeout_ns());
        let mut asked = false;
        #[cfg(mutant = "rcu_asks_user_mode")]
        call_function::call_many(&percpu::online(), IpiCause::RcuExpedited, |_| (), 0);
        loop {
            let look = tsc::now();
            percpu::this(&PreemptOff::new()).rcu.note_quiescent();
            let scan = self.period.lock().scan(snapshot);
            driver_ticks += tsc::now().wrapping_sub(look);
            if scan.done {
                break;
            }
            if watch.is_due(tsc::ticks_to_ns(look.wrapping_sub(start))) {
                self.stats.lock().stalls += 1;
                self.tell_stall(tsc::ticks_to_ns(look.wrapping_sub(start)));
            }
            if self.expedited && !asked {
                asked = true;
                ask_now(&self.period.lock().holdouts());
                continue;
            }
            scan.kick.iter().for_each(kick);
            crate::time::timer::sleep_ns(if self.expedited { 100_000 } else { 1_000_000 }, false);
        }
        self.seq.end();
        self.trace(true);
        let ns = tsc::ticks_to_ns(tsc::now().wrapping_sub(start));
        let mut stats = self.stats.lock();
        stats.latency_ns.add(ns);
        stats.driver_ticks.add(driver_ticks);
        drop(stats);
        self.done.wake_all();
    }

    fn trace(&self, end: bool) {
        let data = |sequence| Data::RcuGracePeriod { sequence, end, expedited: self.expedited };
        crate::trace_point!(RCU, &PreemptOff::new(), Flags::NONE, data(self.seq.now().0));
    }

    /// Who holds a grace period for too long, what runs there, and from where.
    fn tell_stall(&self, age_ns: u64) {
        let holdouts = self.period.lock().holdouts();
        let number = self.seq.now().0 >> 2;
        crate::warning!(
            "rcu: the {} grace period {number} has waited {} ms for CPUs {holdouts}",
            self.name,
            age_ns / 1_000_000
        );
        for cpu in holdouts.iter() {
            let area = percpu::of(cpu);
            let word = area.head.context.0.load();
            let (task, comm) = match crate::sched::running_on(cpu) {
                Some(task) => (task.tid(), task.comm()),
                None => (0, [0; 16]),
            };
            crate::warning!(
                "rcu: CPU {cpu}: state {}, task {task} ({}), preempt_count {}, stack:",
                State::of(word).name(),
                crate::sched::task::comm_str(&comm),
                area.head.preempt_count.load(Ordering::Relaxed)
            );
            match stack_sample::take(cpu) {
                Some(sample) => sample.stack.iter().for_each(|address| crate::warning!("rcu:   {address:#018x}")),
                None => crate::warning!("rcu:   (the CPU takes no NMI)"),
            }
        }
    }
}

/// Grace periods that interrupt only who holds one for several looks.
pub static NORMAL: Flavor = Flavor::new("normal", false);
/// Grace periods that interrupt at once whoever runs kernel code.
pub static EXPEDITED: Flavor = Flavor::new("expedited", true);
/// Rounds of collecting callbacks, waiting and running them, numbered as grace periods are.
static ROUNDS: GpCounter = GpCounter::new();
static STALL_TIMEOUT_NS: AtomicU64 = AtomicU64::new(21_000_000_000);

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
    // SAFETY: the caller's conditions.
    unsafe { percpu::this(&pin).rcu.callbacks.push(head, callback) };
    drop(pin);
    NORMAL.work.wake_one();
}

/// Wait until all readers of now are gone. Process context, no locks held.
pub fn synchronize() {
    NORMAL.synchronize();
}

/// `synchronize` at once, at the price of an IPI to each CPU that runs kernel code. CPUs in tracked user mode or idle get none.
pub fn synchronize_expedited() {
    EXPEDITED.synchronize();
}

/// A cookie for the readers of now; no grace period is started. Any context but NMI.
pub fn get_state_synchronize_rcu() -> Cookie {
    rcu::get_state_synchronize_rcu(&NORMAL.seq, &EXPEDITED.seq)
}

/// A cookie for the readers of now; a grace period is on its way. Any context but NMI.
pub fn start_poll_synchronize_rcu() -> Cookie {
    let cookie = get_state_synchronize_rcu();
    NORMAL.request();
    cookie
}

/// Whether the readers that `cookie` stands for are gone. Never waits.
pub fn poll_state_synchronize_rcu(cookie: Cookie) -> bool {
    rcu::poll_state_synchronize_rcu(&NORMAL.seq, &EXPEDITED.seq, cookie)
}

/// Wait until the readers that `cookie` stands for are gone; not at all if they are. Process context, no locks held.
pub fn cond_synchronize_rcu(cookie: Cookie) {
    if rcu::cond_synchronize_rcu_waits(&NORMAL.seq, &EXPEDITED.seq, cookie) {
        synchronize();
    }
}

/// Wait until every callback that was queued before this call has run, and what was given to be freed is freed, but for what a `reclaim` under
/// way has in hand. Process context, no locks held, not in a callback.
pub fn barrier() {
    let wanted = ROUNDS.snap();
    NORMAL.request();
    let _ = NORMAL.done.wait(false, || ROUNDS.is_done(wanted).then_some(()));
}

/// Start the grace-period threads on the housekeeping CPUs. Boot CPU, once the scheduler runs.
pub fn start(stall_timeout_s: u32) {
    STALL_TIMEOUT_NS.store(stall_timeout_s as u64 * 1_000_000_000, Ordering::Relaxed);
    let threads =
        [("rcu_gp", grace_period_thread as fn(usize)), ("rcu_exp", expedited_thread), ("srcu_gp", srcu::thread)];
    for (name, entry) in threads {
        crate::sched::task::spawn_kthread(name, entry, 0).unwrap_or_else(|e| panic!("cannot start {name}: {e:?}"));
    }
}

/// How long a grace period takes at most before it counts as stalled, ns. Any context.
pub fn stall_timeout_ns() -> u64 {
    STALL_TIMEOUT_NS.load(Ordering::Relaxed)
}

/// Quiescent states that CPU `cpu` has passed by itself; they wrap.
pub fn quiescent_states(cpu: u32) -> u32 {
    percpu::of(cpu).rcu.quiescent.load(Ordering::Relaxed)
}

fn snapshot(cpu: u32) -> CpuSnapshot {
    let area = percpu::of(cpu);
    CpuSnapshot { word: area.head.context.0.load(), qs: area.rcu.quiescent.load(Ordering::Acquire) }
}

fn expedited_thread(_: usize) {
    loop {
        let _ = EXPEDITED.work.wait(false, || (EXPEDITED.wanted.swap(0, Ordering::SeqCst) != 0).then_some(()));
        EXPEDITED.run();
    }
}

fn anything_queued() -> bool {
    (0..percpu::nr_cpus()).filter_map(percpu::get).any(|area| area.rcu.has_callbacks())
}

fn grace_period_thread(_: usize) {
    let mut callbacks = Callbacks::new();
    loop {
        let wanted = || NORMAL.wanted.load(Ordering::SeqCst) != 0 || anything_queued();
        let _ = NORMAL.work.wait(false, || wanted().then_some(()));
        NORMAL.wanted.store(0, Ordering::SeqCst);
        ROUNDS.start();
        // What was queued before is seen to be unpublished by readers from here on.
        let snap = NORMAL.seq.snap();
        (0..percpu::nr_cpus()).filter_map(percpu::get).for_each(|area| callbacks.collect(&area.rcu.callbacks, snap));
        deferred_free::collect();
        NORMAL.run();
        callbacks.run_ready(NORMAL.seq.now());
        deferred_free::free_ready();
        ROUNDS.end();
        NORMAL.done.wake_all();
    }
}

/// CPU `cpu` has run kernel code for several scans: ask it to pass through the scheduler. If it is in user mode or idle by now,
/// it is quiescent, and nothing is sent; nor if it is leased: the call that it runs is its program's own, and the next scan looks again.
fn kick(cpu: u32) {
    let irq_off = IrqOff::new();
    let site = Location::caller();
    if cpu == percpu::this(&irq_off).cpu() || deferred_work::leave_now(cpu, Deferred::RcuRecheck, site) {
        return;
    }
    if crate::isolation::lease::expects_silence(cpu) {
        return;
    }
    percpu::of(cpu).head.exit_work.fetch_or(crate::entry::exit_work::RESCHED, Ordering::SeqCst);
    ipi::reschedule(cpu, IpiCause::RcuHoldout, site, &irq_off);
}

/// Ask the holdouts of an expedited grace period that run kernel code now.
fn ask_now(holdouts: &kcore::cpu_set::CpuSet) {
    let site = Location::caller();
    let mut in_kernel = kcore::cpu_set::CpuSet::new();
    for cpu in holdouts.iter().filter(|&cpu| !deferred_work::leave(cpu, Deferred::RcuRecheck, site)) {
        let _ = in_kernel.insert(cpu);
    }
    let skip = |cpu| deferred_work::leave(cpu, Deferred::RcuRecheck, site);
    call_function::call_many_unless(&in_kernel, IpiCause::RcuExpedited, on_target, 0, site, skip);

    /// Readers keep preemption or interrupts off. This comes as an interrupt, so only the former needs a look: where it is on there is none, and
    /// else the next switch comes soon.
    fn on_target(_: usize) {
        let irq_off = IrqOff::new();
        let me = percpu::this(&irq_off);
        if me.head.preempt_count.load(Ordering::Relaxed) == 0 {
            me.rcu.note_quiescent();
        } else {
            me.head.exit_work.fetch_or(crate::entry::exit_work::RESCHED, Ordering::SeqCst);
        }
    }
}

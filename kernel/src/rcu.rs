//! Read-copy-update. Readers keep preemption off; a CPU whose context word has WATCH clear is quiescent, so a CPU in user mode or
//! idle is never needed: not asked, not interrupted.
//!
//! `call` takes a callback from any context but NMI, on any CPU; all callbacks run in the kernel thread `rcu_gp` on housekeeping
//! CPUs. Expedited grace periods have a thread of their own, `rcu_exp`, which interrupts CPUs that run kernel code at once. The
//! rules (who has passed, what number a callback waits for, when a grace period is too long) are `kcore::rcu`.
//! An untracked CPU in user mode is quiescent when its tick hits user mode or when it switches tasks.

use crate::arch::irq_flag::IrqOff;
use crate::arch::tsc;
use crate::percpu;
use crate::sched::wait_queue::WaitQueue;
use crate::smp::{call_function, deferred_work, ipi, stack_sample};
use crate::spin_lock::{PreemptOff, SpinLock, rank};
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use kcore::context_tracking::{Deferred, State};
use kcore::histogram::Histogram;
use kcore::ipi_ledger::IpiCause;
use kcore::rcu::{CallbackSegments, CpuSnapshot, GpSeq, GracePeriod, StallWatch, snapshot_fence};
use kcore::trace_event::{Data, Flags};

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

    /// Whether callbacks were queued here that nobody has collected.
    pub fn has_callbacks(&self) -> bool {
        !self.callbacks.load(Ordering::Relaxed).is_null()
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

/// Grace periods of one kind, driven by one thread.
pub struct Flavor {
    /// Name as shown in files.
    pub name: &'static str,
    expedited: bool,
    /// Grace-period number: written by the thread only.
    seq: AtomicU64,
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
            seq: AtomicU64::new(0),
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

    /// The number of a grace period that starts from now on. A full fence: what the caller unpublished comes before it.
    fn snap(&self) -> GpSeq {
        snapshot_fence();
        GpSeq(self.seq.load(Ordering::SeqCst)).snap()
    }

    fn is_done(&self, wanted: GpSeq) -> bool {
        GpSeq(self.seq.load(Ordering::Acquire)).done(wanted)
    }

    fn request(&self) {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        self.work.wake_one();
    }

    fn synchronize(&self) {
        let wanted = self.snap();
        self.request();
        let _ = self.done.wait(false, || self.is_done(wanted).then_some(()));
    }

    /// One grace period: every online CPU passes a quiescent state, or was in one. The flavour's thread only.
    fn run(&self) {
        let start = tsc::now();
        self.seq.store(GpSeq(self.seq.load(Ordering::Relaxed)).started().0, Ordering::SeqCst);
        self.trace(false);
        percpu::this(&PreemptOff::new()).rcu.note_quiescent(); // this thread is no reader
        snapshot_fence();
        self.period.lock().start(&percpu::online(), snapshot);
        let mut driver_ticks = tsc::now().wrapping_sub(start);
        let mut watch = StallWatch::new(STALL_TIMEOUT_NS.load(Ordering::Relaxed));
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
        snapshot_fence();
        self.seq.store(GpSeq(self.seq.load(Ordering::Relaxed)).ended().0, Ordering::SeqCst);
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
        crate::trace_point!(RCU, &PreemptOff::new(), Flags::NONE, data(self.seq.load(Ordering::Relaxed)));
    }

    /// Who holds a grace period for too long, what runs there, and from where.
    fn tell_stall(&self, age_ns: u64) {
        let holdouts = self.period.lock().holdouts();
        let number = self.seq.load(Ordering::Relaxed) >> 2;
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
                Some(stack) => stack.iter().for_each(|address| crate::warning!("rcu:   {address:#018x}")),
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
static ROUNDS: AtomicU64 = AtomicU64::new(0);
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

/// What stands for the readers of now: `poll` says when they are gone.
#[derive(Clone, Copy, Debug)]
pub struct Cookie(GpSeq);

/// A cookie for the readers of now; a grace period is on its way. Any context but NMI.
pub fn start_poll() -> Cookie {
    let cookie = Cookie(NORMAL.snap());
    NORMAL.request();
    cookie
}

/// Whether the readers that `cookie` stands for are gone. Never waits.
pub fn poll(cookie: Cookie) -> bool {
    NORMAL.is_done(cookie.0)
}

/// Wait until every callback that was queued before this call has run. Process context, no locks held, not in a callback.
pub fn barrier() {
    snapshot_fence();
    let wanted = GpSeq(ROUNDS.load(Ordering::SeqCst)).snap();
    NORMAL.request();
    let _ = NORMAL.done.wait(false, || GpSeq(ROUNDS.load(Ordering::Acquire)).done(wanted).then_some(()));
}

/// Start the grace-period threads on the housekeeping CPUs. Boot CPU, once the scheduler runs.
pub fn start(stall_timeout_s: u32) {
    STALL_TIMEOUT_NS.store(stall_timeout_s as u64 * 1_000_000_000, Ordering::Relaxed);
    for (name, entry) in [("rcu_gp", grace_period_thread as fn(usize)), ("rcu_exp", expedited_thread)] {
        crate::sched::task::spawn_kthread(name, entry, 0).unwrap_or_else(|e| panic!("cannot start {name}: {e:?}"));
    }
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

/// All callbacks that were collected, oldest first, and how many of them may run.
struct Callbacks {
    first: *mut RcuHead,
    last: *mut RcuHead,
    segments: CallbackSegments,
}

impl Callbacks {
    /// Take over what is queued now. Each waits for a grace period that starts from now on.
    fn collect(&mut self) {
        let wanted = NORMAL.snap();
        for area in (0..percpu::nr_cpus()).filter_map(percpu::get) {
            let mut at = area.rcu.callbacks.swap(core::ptr::null_mut(), Ordering::Acquire);
            let (mut oldest_first, last): (*mut RcuHead, _) = (core::ptr::null_mut(), at);
            // SAFETY: queued heads live until their callback ran; the swap made the list ours.
            while let Some(h) = unsafe { at.as_ref() } {
                let next = h.next.load(Ordering::Relaxed);
                h.next.store(oldest_first, Ordering::Relaxed);
                oldest_first = at;
                at = next;
                self.segments.enqueue(wanted);
            }
            if oldest_first.is_null() {
                continue;
            }
            // SAFETY: as above.
            match unsafe { self.last.as_ref() } {
                Some(old) => old.next.store(oldest_first, Ordering::Relaxed),
                None => self.first = oldest_first,
            }
            self.last = last;
        }
    }

    /// Run those whose grace period is over.
    fn run_ready(&mut self) {
        self.segments.advance(GpSeq(NORMAL.seq.load(Ordering::Relaxed)));
        while self.segments.take_ready(1) == 1 {
            let head = self.first;
            // SAFETY: the list has at least as many heads as the segments count; each lives until its callback.
            let h = unsafe { &*head };
            self.first = h.next.load(Ordering::Relaxed);
            if self.first.is_null() {
                self.last = core::ptr::null_mut();
            }
            // SAFETY: 1. `call` stored a Callback there; its contract is the caller's of `call`; 2. the head is off the list.
            unsafe { core::mem::transmute::<*mut (), Callback>(h.callback.load(Ordering::Relaxed))(head) };
        }
    }
}

fn anything_queued() -> bool {
    (0..percpu::nr_cpus()).filter_map(percpu::get).any(|a| !a.rcu.callbacks.load(Ordering::Relaxed).is_null())
}

fn grace_period_thread(_: usize) {
    let nothing = core::ptr::null_mut();
    let mut callbacks = Callbacks { first: nothing, last: nothing, segments: CallbackSegments::new() };
    loop {
        let wanted = || NORMAL.wanted.load(Ordering::SeqCst) != 0 || anything_queued();
        let _ = NORMAL.work.wait(false, || wanted().then_some(()));
        NORMAL.wanted.store(0, Ordering::SeqCst);
        ROUNDS.store(GpSeq(ROUNDS.load(Ordering::Relaxed)).started().0, Ordering::SeqCst);
        callbacks.collect();
        NORMAL.run();
        callbacks.run_ready();
        ROUNDS.store(GpSeq(ROUNDS.load(Ordering::Relaxed)).ended().0, Ordering::SeqCst);
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

    /// Readers keep preemption off: where it is on there is none, and else the next switch comes soon.
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

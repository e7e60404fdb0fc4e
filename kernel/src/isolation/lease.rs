//! Leases: which CPUs a program has declared silent, "from now on nothing", and what enters them nevertheless.
//!
//! Anyone may ask `is_held`: what cannot wait and would enter such a CPU is refused with EBUSY by whoever would cause it. How a lease is
//! got is `lease_request`. While one is held its CPU takes the slow way out of the kernel (`exit_work::LEASE`), where `note_entries` looks
//! at the entry counters, which are kept anyway: without a lease nothing is paid. The rules are `kcore::lease`.
//!
//! The lease itself belongs to its CPU: only that touches it, interrupts off. Others read the page (`kcore::lease_page`) and the ring of
//! breaches. An NMI touches it only if it came from user mode: then nobody was at it.

use super::{housekeeping, live};
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::phys_to_virt;
use crate::arch::tsc;
use crate::entry::exit_work;
use crate::errno::{EBUSY, Errno};
use crate::mm::frame;
use crate::percpu::{self, Percpu};
use crate::sched::placement;
use crate::sched::task::Task;
use crate::spin_lock::{SpinLock, rank};
use crate::time::tick::Site;
use crate::trace::key::INTERRUPTIONS;
use alloc::string::String;
use arrayvec::ArrayVec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use kcore::cpu_set::{CpuSet, SharedCpuSet};
use kcore::interruption::{Cause, Interruption};
use kcore::ipi_ledger::{IpiCause, UnderLease};
use kcore::lease::{BREACH_WORDS, Counts, EndCause, EntryKind, KINDS, Lease, Look, OnBreach, Sender, Terms, Told};
use kcore::lease_blocker::Blocker;
use kcore::lease_page::LeasePage;
use kcore::trace_ring::{Cursor, Next, TraceRing};

/// Breaches that are kept of each CPU.
pub const BREACHES_KEPT: usize = 16;
/// Interruption records that one look takes.
const TOLD: usize = 8;

/// A CPU's lease.
pub struct CpuLease {
    own: UnsafeCell<Own>,
    /// Its page; 0 before anybody needed it. Kept for good.
    page_phys: AtomicU64,
    /// Index of the task that holds it or asks for it; 0 = none.
    holder: AtomicU32,
    /// Granted, and not over.
    granted: AtomicBool,
    /// The last breaches.
    pub breaches: TraceRing<BREACH_WORDS, BREACHES_KEPT>,
    /// Why the last request was refused, a line each; empty once one is granted.
    pub refusal: SpinLock<String, { rank::FILE }>,
}

struct Own {
    lease: Lease,
    /// In the CPU's ring of interruptions: what was not looked at yet.
    cursor: Cursor,
}

// SAFETY: `own` is touched by its CPU alone with interrupts off (`with_own`); the rest is atomics and locks.
unsafe impl Sync for CpuLease {}

impl CpuLease {
    /// None.
    pub const fn new() -> Self {
        Self {
            own: UnsafeCell::new(Own { lease: Lease::new(), cursor: Cursor::new() }),
            page_phys: AtomicU64::new(0),
            holder: AtomicU32::new(0),
            granted: AtomicBool::new(false),
            breaches: TraceRing::new(),
            refusal: SpinLock::new(String::new()),
        }
    }

    /// Index of the task that holds it or asks for it; 0 = none.
    pub fn holder(&self) -> u32 {
        self.holder.load(Ordering::Relaxed)
    }

    /// The page, if there is one.
    pub fn page(&self) -> Option<&'static LeasePage> {
        let phys = self.page_phys.load(Ordering::Acquire);
        // SAFETY: 1. a whole frame in the direct map, zeroed at first, which is a valid page; 2. kept for good.
        (phys != 0).then(|| unsafe { &*(phys_to_virt(phys) as *const LeasePage) })
    }
}

/// Set from a lease's request on: who asks later than that is refused, so that nothing is under way when it is granted.
static HELD: SharedCpuSet = SharedCpuSet::new();

/// Whether a lease is held, or being asked for, on `cpu`. With preemption off: as long as that lasts, no lease is granted on a CPU of which
/// this said no.
#[inline]
pub fn is_held(cpu: u32) -> bool {
    HELD.contains(cpu)
}

fn set_held(cpu: u32, held: bool) {
    HELD.set(cpu, held);
    placement::set_open(cpu, !held);
}

/// Whether a lease of `cpu` is granted, or about to be: what can wait is not sent there.
#[inline]
pub fn expects_silence(cpu: u32) -> bool {
    percpu::get(cpu).is_some_and(|area| area.head.exit_work.load(Ordering::Relaxed) & exit_work::LEASE != 0)
}

/// Whether a lease of `cpu` is granted and not over: an IPI there that its sender had to ask for is a fault of the kernel's.
pub fn is_granted(cpu: u32) -> bool {
    percpu::get(cpu).is_some_and(|area| area.lease.granted.load(Ordering::Relaxed))
}

/// Whether `task` holds a lease, or asks for one. With its `placing` held it does not come to one meanwhile.
pub fn is_holder(task: &Task) -> bool {
    let cpu = task.cpu.load(Ordering::Relaxed);
    is_held(cpu) && percpu::of(cpu).lease.holder() == task.index
}

/// EBUSY if an IPI of this cause would enter a leased CPU among `targets` that has a choice. The caller's own CPU is not asked. The
/// caller keeps preemption off until it has sent.
pub fn permits(targets: &CpuSet, cause: IpiCause) -> Result<(), Errno> {
    let me = percpu::cpu();
    match cause.under_lease() {
        UnderLease::Refused if targets.iter().any(|cpu| cpu != me && is_held(cpu)) => Err(EBUSY),
        _ => Ok(()),
    }
}

/// EBUSY if another task's affinity cannot be changed because it holds a lease, or if it could run nowhere but on leased CPUs.
/// The running task's own lease ends by a change of its affinity. `task.placing` is held until the change is made.
pub fn permits_affinity(task: &Task, allowed: &CpuSet, irq_off: &IrqOff) -> Result<(), Errno> {
    let own = is_holder(task).then(|| task.cpu.load(Ordering::Relaxed));
    if own.is_some() {
        if !core::ptr::eq(task, crate::sched::current()) {
            return Err(EBUSY);
        }
        if *allowed == task.allowed() {
            return Ok(());
        }
    }
    // Its own CPU is free again by then.
    if allowed.iter().all(|cpu| Some(cpu) != own && is_held(cpu)) {
        return Err(EBUSY);
    }
    if own.is_some() {
        end(EndCause::Affinity, irq_off);
    }
    Ok(())
}

fn with_own<R>(irq_off: &IrqOff, f: impl FnOnce(&'static Percpu, &mut Own) -> R) -> R {
    let me = percpu::this(irq_off);
    // SAFETY: 1. this CPU's own, interrupts off; 2. an NMI comes here only from user mode, when no other call is under way; 3. no `f`
    // calls `with_own`.
    f(me, unsafe { &mut *me.lease.own.get() })
}

fn publish(me: &Percpu, lease: &Lease) {
    if let Some(page) = me.lease.page() {
        page.publish(lease.contents().encode());
    }
}

/// The running task asks for a lease of `cpu`: nothing that can be refused starts there from here on, and the task stays there
/// (`is_holder` is asked by who would move it). What cannot become a lease at all is turned away, and nothing has changed.
pub(super) fn begin(task: &Task, cpu: u32, terms: Terms) -> Result<(), Blocker<Site>> {
    let irq_off = IrqOff::new();
    let _placing = task.placing.lock_held(&irq_off);
    with_own(&irq_off, |me, own| {
        if !housekeeping::is_nohz_full(cpu) {
            return Err(Blocker::NotIsolated);
        }
        if me.cpu() != cpu || task.only_cpu() != Some(cpu) {
            return Err(Blocker::Affinity(task.allowed()));
        }
        if me.head.active.load(Ordering::Relaxed) == 0 {
            return Err(Blocker::NotTracked);
        }
        let holder = me.lease.holder();
        if holder == 0 {
            // Left by nobody.
            own.lease.refuse();
        }
        if !own.lease.request(cpu, task.index, terms) {
            return Err(Blocker::Leased(holder));
        }
        me.lease.holder.store(task.index, Ordering::Relaxed);
        set_held(cpu, true);
        if live::is_changing(cpu) {
            own.lease.refuse();
            forget(me);
            return Err(Blocker::Changing);
        }
        publish(me, &own.lease);
        Ok(())
    })
}

/// Whether the running task, which asked for a lease of `cpu`, is there and still asks.
fn asks_for(cpu: u32, me: &Percpu) -> bool {
    me.cpu() == cpu && me.lease.holder() == crate::sched::current().index
}

/// What the running task asked for is refused.
pub(super) fn refuse(cpu: u32, irq_off: &IrqOff) {
    with_own(irq_off, |me, own| {
        if asks_for(cpu, me) {
            own.lease.refuse();
            publish(me, &own.lease);
            forget(me);
        } else if percpu::of(cpu).lease.holder() == crate::sched::current().index {
            // It was moved: the CPU is free again, and `begin` does the rest there.
            forget(percpu::of(cpu));
        }
    });
}

/// Nobody interrupts `cpu` any more for what can wait (`expects_silence`). Nothing counts yet.
pub(super) fn begin_silence(cpu: u32) {
    percpu::of(cpu).head.exit_work.fetch_or(exit_work::LEASE, Ordering::SeqCst);
}

/// What the running task asked for is granted: entries count from the way back to user mode on. False: it does not ask any more.
#[must_use = "it may not ask any more"]
pub(super) fn grant(cpu: u32, irq_off: &IrqOff) -> bool {
    with_own(irq_off, |me, own| {
        let granted = asks_for(cpu, me) && own.lease.grant(tsc::now(), &counts(me));
        if granted {
            own.cursor = Cursor::at_end(&me.trace.interruptions);
            publish(me, &own.lease);
            me.lease.granted.store(true, Ordering::Relaxed);
        }
        granted
    })
}

fn forget(me: &Percpu) {
    me.lease.granted.store(false, Ordering::Relaxed);
    me.head.exit_work.fetch_and(!exit_work::LEASE, Ordering::Relaxed);
    me.lease.holder.store(0, Ordering::Relaxed);
    set_held(me.cpu(), false);
}

/// The running task's lease is over. False: it has none.
pub fn end(why: EndCause, irq_off: &IrqOff) -> bool {
    let me = percpu::this(irq_off);
    let mine = me.lease.holder() == crate::sched::current().index;
    mine && with_own(irq_off, |me, own| {
        let ended = own.lease.end(tsc::now(), why);
        if ended {
            publish(me, &own.lease);
            forget(me);
        }
        ended
    })
}

/// The running task ends, or becomes another program: its lease, if it has one, is over.
#[inline]
pub fn end_with(why: EndCause) {
    let irq_off = IrqOff::new();
    if percpu::this(&irq_off).head.exit_work.load(Ordering::Relaxed) & exit_work::LEASE != 0 {
        end(why, &irq_off);
    }
}

/// Whether the running task holds a lease. Its children would start on its CPU.
pub fn is_held_by_current() -> bool {
    is_holder(crate::sched::current())
}

/// The entry counters of a CPU.
fn counts(area: &Percpu) -> Counts {
    let head = &area.head;
    let mut counts = [0; KINDS];
    for cause in Cause::INTERRUPTS {
        counts[cause.code() as usize] = head.irqs[cause.code() as usize].load(Ordering::Relaxed);
    }
    for (kind, counter) in [
        (EntryKind::Interrupt(Cause::Nmi), &head.nmis),
        (EntryKind::Exception, &head.exceptions),
        (EntryKind::SystemCall, &head.syscalls),
    ] {
        counts[kind.code() as usize] = counter.load(Ordering::Relaxed);
    }
    counts
}

/// What the interruption log has of the entries since the last look.
fn told(me: &Percpu, cursor: &mut Cursor) -> ArrayVec<Told, TOLD> {
    let mut told = ArrayVec::new();
    while INTERRUPTIONS.is_on() {
        let record = match cursor.next(&me.trace.interruptions) {
            Next::Empty => break,
            Next::Lost(_) => continue,
            Next::Record(words) => Interruption::decode(&words),
        };
        if let Ok(i) = record {
            let sender = |cpu| Sender { cpu, task: i.sender_task, comm: i.sender_comm, site: i.site };
            // More than fit are counted all the same.
            let _ = told.try_push(Told { cause: i.cause, tsc: i.start_tsc, sender: i.sender_cpu.map(sender) });
        }
    }
    told
}

/// On the way to user mode with `exit_work::LEASE` set: count what entered. What is to be done to whom.
#[cold]
pub fn note_entries(look: Look, irq_off: &IrqOff) -> Option<(u32, OnBreach)> {
    with_own(irq_off, |me, own| {
        let holder = own.lease.holder()?;
        let told = told(me, &mut own.cursor);
        let log = |breach: &kcore::lease::Breach| _ = me.lease.breaches.push(breach.encode());
        let step = own.lease.account(tsc::now(), &counts(me), &told, look, log);
        publish(me, &own.lease);
        if step.ended {
            forget(me);
        }
        step.react.map(|react| (holder, react))
    })
}

/// An NMI from user mode, which does not take the usual way out: the page says it now, and what it does to the program comes
/// at the next entry.
#[cold]
pub fn note_nmi(irq_off: &IrqOff) {
    note_entries(Look::Nmi, irq_off);
}

/// Make sure that `cpu`, which is online, has a page. `None` without memory.
pub fn ensure_page(cpu: u32) -> Option<&'static LeasePage> {
    let slot = &percpu::of(cpu).lease;
    if slot.page().is_none() {
        let phys = frame::alloc_zeroed()?;
        if slot.page_phys.compare_exchange(0, phys, Ordering::AcqRel, Ordering::Acquire).is_err() {
            frame::release(phys);
        }
    }
    slot.page()
}

/// The frame of `cpu`'s page, for address spaces.
pub fn page_frame(cpu: u32) -> Option<u64> {
    Some(percpu::get(cpu)?.lease.page_phys.load(Ordering::Acquire)).filter(|&phys| phys != 0)
}

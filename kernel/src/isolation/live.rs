//! Turning a CPU into one that is left alone, and back, while everything runs.
//!
//! Process context; flips take turns. The order of steps, and why each comes where it does, is in `isolate` and `release`. No CPU but the
//! one that is flipped is interrupted, except for the first time, when all are parked so that the tracking key can go on.
//! `kcore::isolate_request` says what may be asked for.

use super::leftover::is_there;
use super::{housekeeping, irq_affinity, lease, parking};
use crate::arch::irq_flag::IrqOff;
use crate::arch::tsc;
use crate::percpu;
use crate::sched;
use crate::sched::task::{self, NewTaskError, TaskRef};
use crate::sched::wait_queue::WaitQueue;
use crate::smp::call_function;
use crate::spin_lock::{SpinLock, rank};
use crate::static_key::{TRACKING, enable_alone};
use crate::time::{tick, timer};
use crate::{context_tracking, rcu};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use kcore::cpu_set::{CpuSet, SharedCpuSet};
use kcore::ipi_ledger::IpiCause;
use kcore::isolate_request::{Refusal, Request, Wish, allow};

/// Why nothing was done.
pub enum Refused {
    /// By the rules.
    Rule(Refusal),
    /// The CPUs could not be parked: no memory, or no thread ids.
    Parking(NewTaskError),
}

/// What a flip took away from its CPU.
pub enum Moved {
    /// A task, by id and name, that asked for the CPU, or was there; it may run on these now.
    Task(u32, [u8; 16], CpuSet),
    /// A sleeping task's timer.
    Timer(u32, [u8; 16]),
    /// An interrupt line, and where it goes now.
    Line(irq_affinity::Line, u32),
}

/// How long a flip waits for what it moves, ns. What is still there then is among what is left.
const PATIENCE_NS: u64 = 5_000_000_000;
/// Between two looks, ns.
const LOOK_NS: u64 = 50_000;

static CHANGING: SharedCpuSet = SharedCpuSet::new();
static FLIPPING: AtomicBool = AtomicBool::new(false);
static TURN: WaitQueue = WaitQueue::new();
static FLIPS: AtomicU32 = AtomicU32::new(0);
/// What the last flip of each CPU moved.
static MOVED: SpinLock<BTreeMap<u32, Arc<Vec<Moved>>>, { rank::FILE }> = SpinLock::new(BTreeMap::new());

/// Whether a flip of `cpu` is under way. Who grants a lease says that it is held, then asks this, and refuses if so; a flip says that it is
/// under way, then asks `lease::is_held`: of two at the same time at least one gives way.
pub fn is_changing(cpu: u32) -> bool {
    CHANGING.contains(cpu)
}

/// Flips since boot.
pub fn flips() -> u32 {
    FLIPS.load(Ordering::Relaxed)
}

/// What the last flip of `cpu` moved away.
pub fn moved(cpu: u32) -> Arc<Vec<Moved>> {
    MOVED.lock().get(&cpu).cloned().unwrap_or_default()
}

/// One flip at a time; a lease on the CPU has to wait.
struct Turn(u32);

impl Turn {
    fn take(cpu: u32) -> Turn {
        let _ = TURN.wait(false, || (!FLIPPING.swap(true, Ordering::Acquire)).then_some(()));
        CHANGING.set(cpu, true);
        Turn(cpu)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        CHANGING.set(self.0, false);
        FLIPPING.store(false, Ordering::Release);
        TURN.wake_one();
    }
}

/// Do what is asked for. Nothing has changed if it is refused.
pub fn flip(request: &Request) -> Result<(), Refused> {
    let turn = Turn::take(request.cpu);
    let leased = lease::is_held(request.cpu);
    allow(request, &percpu::online(), &housekeeping::isolated(), leased).map_err(Refused::Rule)?;
    let moved = match request.wish {
        Wish::On { keep } => isolate(request.cpu, keep)?,
        Wish::Off => {
            release(request.cpu);
            Vec::new()
        }
    };
    let old = MOVED.lock().insert(request.cpu, Arc::new(moved));
    drop(old);
    FLIPS.fetch_add(1, Ordering::Relaxed);
    drop(turn);
    Ok(())
}

/// The steps to a CPU that is left alone:
///  1. the tracking key, if this is the first such CPU: the only step that touches other CPUs, and the only one that can fail
///  2. the role: from here on nothing is placed there unasked, and no task that asked for nothing may stay
///  3. interrupt lines go elsewhere, before the CPU is silent
///  4. a grace period: who placed a task, or armed a timer, by the old role has done so
///  5. tasks move: those that asked for nothing, and, unless they shall stay, those that asked for this CPU
///  6. timers move: their tasks are woken, find that it is too early, and go on sleeping where they are now
///  7. on the CPU itself, which is in the kernel then: tracked from its next way out on, interruptions logged, no housekeeping any more,
///     and a tick only if its queue needs one
fn isolate(cpu: u32, keep: bool) -> Result<Vec<Moved>, Refused> {
    if !TRACKING.is_on() {
        parking::with_all_parked(switch_tracking_on).map_err(Refused::Parking)?;
        crate::info!("context tracking on, {} sites patched", SITES.load(Ordering::Relaxed));
    }
    housekeeping::set_isolated(cpu, true);
    crate::trace::interruption_log::follow(cpu);
    let to = housekeeping::first();
    let lines = irq_affinity::move_lines(cpu, to);
    let mut moved: Vec<Moved> = lines.into_iter().map(|line| Moved::Line(line, to)).collect();
    rcu::synchronize();
    move_tasks(cpu, keep, &mut moved);
    move_timers(cpu, &mut moved);
    call_function::call(cpu, IpiCause::Isolate, become_isolated, 0);
    Ok(moved)
}

/// The way back: first the CPU itself ticks again and is tracked no more, then it has the other role, so that whatever is placed there
/// finds a CPU like any other. Tasks and lines come back when they are placed anew.
fn release(cpu: u32) {
    call_function::call(cpu, IpiCause::Isolate, become_ordinary, 0);
    housekeeping::set_isolated(cpu, false);
}

static SITES: AtomicU32 = AtomicU32::new(0);

fn switch_tracking_on() {
    // SAFETY: all other CPUs are parked in text without a site of this key, and serialise when they leave.
    let sites = unsafe { enable_alone(&TRACKING) }.unwrap_or_else(|e| panic!("the jump table is broken: {e}"));
    SITES.store(sites as u32, Ordering::Relaxed);
}

/// Interrupt of the CPU: its entry has left user mode or idle.
fn become_isolated(_: usize) {
    let irq_off = IrqOff::new();
    let me = percpu::this(&irq_off);
    if me.head.active.load(Ordering::Relaxed) == 0 {
        // What was not idle counts as user mode, as on any CPU that is not tracked.
        let busy_ns = tsc::now_ns().saturating_sub(sched::idle_ns(me.cpu()));
        let kernel_ticks = me.head.kernel_ticks.load(Ordering::Relaxed);
        context_tracking::activate(tsc::ns_to_ticks(busy_ns).saturating_sub(kernel_ticks), &irq_off);
    }
    me.head.isolated.store(1, Ordering::Relaxed);
    tick::dep_clear_cpu(me, kcore::tick::TickDep::Housekeeping);
    sched::follow_queue(&irq_off);
    tick::begin_history(&irq_off);
    // Timers that moved away have left the hardware armed.
    timer::program(me, &irq_off);
}

/// Interrupt of the CPU, as above.
fn become_ordinary(_: usize) {
    let irq_off = IrqOff::new();
    let me = percpu::this(&irq_off);
    if me.head.active.load(Ordering::Relaxed) != 0 {
        context_tracking::deactivate(&irq_off);
    }
    tick::hold_for_housekeeping(me);
    // The last start that its history has.
    tick::recheck(&irq_off);
    me.head.isolated.store(0, Ordering::Relaxed);
}

/// Step 5.
fn move_tasks(cpu: u32, keep: bool, moved: &mut Vec<Moved>) {
    let mut leaving: Vec<TaskRef> = Vec::new();
    loop {
        let before = leaving.len();
        for t in task::all().filter(|t| !t.state.is_dead()) {
            match t.asked_for() {
                Some(set) if !set.contains(cpu) || keep => continue,
                // Where all the others are leased it stays, and is among what is left.
                Some(_) => _ = sched::take_away(&t, cpu),
                None if is_there(&t, cpu) => sched::leave_isolated(&t),
                None => continue,
            }
            if !leaving.iter().any(|known| Arc::ptr_eq(known, &t)) {
                leaving.push(t);
            }
        }
        // Those that were forked meanwhile by one that had not been asked yet: after a grace period they have what it asked for.
        if leaving.len() == before {
            break;
        }
        rcu::synchronize();
    }
    wait_while(|| leaving.iter().any(|t| !t.may_run_on(cpu) && is_there(t, cpu)));
    moved.extend(leaving.iter().map(|t| Moved::Task(t.tid(), t.comm(), t.allowed())));
}

/// Step 6.
fn move_timers(cpu: u32, moved: &mut Vec<Moved>) {
    let sleeps_there = |t: &TaskRef| timer::is_armed_on(t, cpu) && !t.may_run_on(cpu);
    let sleepers: Vec<TaskRef> = task::all().filter(sleeps_there).collect();
    sleepers.iter().for_each(|t| {
        sched::wake(t);
    });
    wait_while(|| sleepers.iter().any(sleeps_there));
    moved.extend(sleepers.iter().map(|t| Moved::Timer(t.tid(), t.comm())));
}

fn wait_while(mut condition: impl FnMut() -> bool) {
    let end = tsc::now().saturating_add(tsc::ns_to_ticks(PATIENCE_NS));
    while condition() && tsc::now() < end {
        timer::sleep_ns(LOOK_NS, false);
    }
}

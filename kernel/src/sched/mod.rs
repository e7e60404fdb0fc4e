//! The scheduler: per-CPU run queues, fair and FIFO classes, affinity, kernel threads, cross-CPU wake-up.
//!
//! Nothing is ever placed on an isolated CPU unasked: `placement` looks at a task's own affinity.

pub mod attention;
mod departure;
pub mod futex;
pub mod idle;
pub mod placement;
pub mod priority_futex;
pub mod stack_owner;
pub mod switch;
pub mod task;
pub mod unbound_timer;
pub mod wait_queue;

use crate::arch::cpu_head::{self, offset};
use crate::arch::irq_flag::IrqOff;
use crate::arch::tsc;
use crate::entry::exit_work;
use crate::errno::{EBUSY, Errno};
use crate::isolation::lease;
use crate::percpu;
use crate::spin_lock::{SpinLock, rank};
use crate::trace::key::SCHED;
use crate::trace::record::record;
use crate::{static_branch, trace_point};
use core::mem::offset_of;
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use kcore::context_tracking::{Deferred, State};
use kcore::ipi_ledger::IpiCause;
use kcore::run_queue::{Class, NICE_0_WEIGHT, Prev, RunQueue, Why};
use kcore::task_state::Wake;
use kcore::tick::TickDep;
use kcore::trace_event::{Data, Flags, RecordTask};
use task::{Mover, TABLE, Task, TaskRef};

/// A CPU's part of the scheduler.
pub struct CpuSched {
    queue: SpinLock<RunQueue, { rank::RUN_QUEUE }>,
    /// The task that runs when nothing else does.
    idle: AtomicPtr<Task>,
    /// What is to be done with who ran before the switch under way, as soon as it is off this CPU.
    left: AtomicU32,
    /// TSC when the running task was charged last.
    charged_tsc: AtomicU64,
    /// TSC when the running task was picked.
    picked_tsc: AtomicU64,
    /// Task switches since boot.
    pub switches: AtomicU64,
}

impl CpuSched {
    /// Before the CPU is up.
    pub const fn new() -> Self {
        Self {
            queue: SpinLock::new(RunQueue::new()),
            idle: AtomicPtr::new(core::ptr::null_mut()),
            left: AtomicU32::new(departure::STAYS),
            charged_tsc: AtomicU64::new(0),
            picked_tsc: AtomicU64::new(0),
            switches: AtomicU64::new(0),
        }
    }

    /// TSC up to which the running task's time is in its `runtime_ns`.
    pub fn charged_tsc(&self) -> u64 {
        self.charged_tsc.load(Ordering::Relaxed)
    }

    fn idle_ptr(&self) -> *const Task {
        self.idle.load(Ordering::Acquire)
    }
}

/// Whether the idle task runs on a CPU (a snapshot).
#[inline]
pub fn is_idle(area: &percpu::Percpu) -> bool {
    area.head.current.load(Ordering::Relaxed) == area.sched.idle_ptr() as u64
}

/// What CPU `cpu` is doing, for people: an untracked CPU's user mode cannot be seen.
pub fn describe_cpu(cpu: u32) -> &'static str {
    let area = percpu::of(cpu);
    match State::of(area.head.context.0.load()) {
        State::Kernel if area.head.active.load(Ordering::Relaxed) == 0 && !is_idle(area) && cpu != percpu::cpu() => {
            "untracked"
        }
        state => state.name(),
    }
}

/// Task switches of the running CPU so far. One instruction, so no pin is needed; whoever compares two of them may have come to another CPU.
#[inline(always)]
pub fn switches_here() -> u64 {
    cpu_head::read_u64::<{ offset_of!(percpu::Percpu, sched) + offset_of!(CpuSched, switches) }>()
}

/// The running task. Valid as long as the caller runs.
#[inline(always)]
pub fn current() -> &'static Task {
    // SAFETY: 1. `current` is set from the scheduler's start on; 2. a task is freed only after it left its CPU for good.
    unsafe { &*(cpu_head::read_u64::<{ offset::CURRENT }>() as *const Task) }
}

/// The task that runs on CPU `cpu`, if it is still there when asked for by reference count.
pub fn running_on(cpu: u32) -> Option<TaskRef> {
    let area = percpu::get(cpu)?;
    let _reader = crate::rcu::read();
    let p = area.head.current.load(Ordering::Acquire) as *const Task;
    // SAFETY: a task that runs is in the table or an idle task; it is freed a grace period after it left.
    unsafe { p.as_ref() }.and_then(|t| task::by_index(t.index))
}

/// Adopt the running context as CPU `cpu`'s idle task. Once per CPU, interrupts off.
pub fn init_cpu(idle: TaskRef, irq_off: &IrqOff) {
    let me = percpu::this(irq_off);
    let p = &*idle as *const Task as *mut Task;
    idle.on_cpu.store(true, Ordering::Relaxed);
    idle.cpu.store(me.cpu(), Ordering::Relaxed);
    me.sched.idle.store(p, Ordering::Release);
    me.head.current.store(p as u64, Ordering::Release);
    me.head.kernel_stack_top.store(idle.stack_top(), Ordering::Relaxed);
    me.sched.charged_tsc.store(tsc::now(), Ordering::Relaxed);
    task::keep_idle(idle);
}

/// Give the CPU away if another task is due or this one prepared to sleep. Process context, preemption allowed.
pub fn schedule() {
    schedule_held(IrqOff::from_on());
}

/// `schedule` for who has turned interrupts off already. The token ends with it: the task may be on another CPU then.
#[inline(always)]
pub fn schedule_held(irq_off: IrqOff) {
    drop(schedule_off(irq_off));
}

/// `schedule_held` for who says itself what becomes of interrupts then: the token is one of the CPU that it comes back on.
#[inline(always)]
pub fn schedule_off(irq_off: IrqOff) -> IrqOff {
    reschedule_to_sleep(&irq_off);
    irq_off
}

/// Give the CPU away because another task is due. A task between prepare_sleep and its look at what it waits for stays
/// runnable: it has not decided to sleep yet.
pub fn preempt() {
    let irq_off = IrqOff::new();
    reschedule(&irq_off, Prev::Preempted);
}

/// sched_yield: behind its equals. Alone on the CPU this is a look and nothing else.
pub fn yield_now() {
    let irq_off = IrqOff::new();
    if percpu::this(&irq_off).sched.queue.lock_held(&irq_off).is_empty() {
        return;
    }
    reschedule(&irq_off, Prev::Yielded);
}

/// An interrupt in kernel mode ends, preemption is allowed and due.
pub fn preempt_from_irq(irq_off: &IrqOff) {
    reschedule(irq_off, Prev::Preempted);
}

/// How old the look at the running task's time may be where it is only compared, TSC ticks: a fifteenth of what one fair task has to be ahead
/// of another to be preempted, or less.
const FRESH_TICKS: u64 = 1 << 16;

/// `charge` before an enqueue, unless it has been done a moment ago. The less a task weighs, the more a moment counts.
#[inline(always)]
fn charge_if_old(area: &percpu::Percpu, queue: &mut RunQueue, task: &Task) {
    let is_old = tsc::now().wrapping_sub(area.sched.charged_tsc.load(Ordering::Relaxed)) >= FRESH_TICKS;
    if is_old || task.run.weight() < NICE_0_WEIGHT {
        charge(area, queue, task);
    }
}

/// Book the time since the last look to `task`, which runs on a CPU whose queue is locked. Any CPU may ask. Returns the time of this look,
/// TSC.
#[inline(always)]
fn charge(area: &percpu::Percpu, queue: &mut RunQueue, task: &Task) -> u64 {
    let since = area.sched.charged_tsc.load(Ordering::Relaxed);
    let now = tsc::now().max(since);
    area.sched.charged_tsc.store(now, Ordering::Relaxed);
    let ns = tsc::ticks_to_ns(now - since);
    // Only under the lock of the queue of the CPU that it runs on: no locked addition.
    task.runtime_ns.store(task.runtime_ns.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
    queue.charge(&task.run, ns);
    now
}

/// Run who is due; the running task stays runnable.
#[inline(never)]
fn reschedule(irq_off: &IrqOff, why: Prev) {
    run_next(irq_off, why, false);
}

/// Run who is due; the running task sleeps if it has prepared to. A routine of its own: this is what most switches are.
#[inline(never)]
fn reschedule_to_sleep(irq_off: &IrqOff) {
    run_next(irq_off, Prev::Preempted, true);
}

/// The two above.
#[inline(always)]
fn run_next(irq_off: &IrqOff, why: Prev, may_sleep: bool) {
    let me = percpu::this(irq_off);
    debug_assert_eq!(me.head.preempt_count.load(Ordering::Relaxed), 0, "switch with preemption off: a lock is held");
    let prev = current();
    let mut queue = me.sched.queue.lock_held(irq_off);
    let mut now = charge(me, &mut queue, prev);
    if crate::time::timer::is_due(me, now) {
        core::hint::cold_path();
        drop(queue);
        crate::time::timer::let_in(irq_off);
        queue = me.sched.queue.lock_held(irq_off);
        now = charge(me, &mut queue, prev);
    }
    if me.head.exit_work.load(Ordering::Relaxed) & exit_work::RESCHED != 0 {
        me.head.exit_work.fetch_and(!exit_work::RESCHED, Ordering::Relaxed);
    }
    let leaves = may_sleep && prev.state.commit_sleep();
    if !leaves && !core::ptr::eq(prev, me.sched.idle_ptr()) {
        if prev.state.is_dead() {
            me.sched.left.store(departure::IS_DEAD, Ordering::Relaxed);
        } else if prev.may_run_on(me.cpu()) {
            queue.put_prev(&TABLE, prev.index, why);
        } else {
            me.sched.left.store(departure::MOVES_ON, Ordering::Relaxed);
        }
    }
    let next: *const Task = match queue.pick(&TABLE) {
        Some(index) => TABLE.get(index),
        None => me.sched.idle_ptr(),
    };
    // SAFETY: a queued task, or the idle task: both live.
    let next = unsafe { &*next };
    // Under the lock: the dependency follows the queue, and who changes `next`'s affinity sees that it runs here.
    next.on_cpu.store(true, Ordering::Relaxed);
    crate::time::tick::sched_dependency_at_switch(me, queue.needs_tick(&TABLE), next, now);
    drop(queue);
    me.sched.picked_tsc.store(now, Ordering::Relaxed);
    crate::time::tick::follow(me, next, now, irq_off);
    if core::ptr::eq(prev, next) {
        me.rcu.note_quiescent();
        return;
    }
    me.sched.switches.store(me.sched.switches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    trace_point!(
        SCHED,
        irq_off,
        Flags::IRQS_OFF,
        Data::SchedSwitch {
            prev_comm: prev.comm(),
            prev_state: if prev.state.is_dead() {
                b'X'
            } else if leaves {
                // Who was woken meanwhile waits until it is off this CPU.
                if prev.state.letter() == 'D' { b'D' } else { b'S' }
            } else {
                b'R'
            },
            next: RecordTask { id: next.tid(), comm: next.comm() },
        }
    );
    // SAFETY: 1. interrupts are off; 2. `next` is on no other CPU; 3. `prev` runs here.
    let (previous, here) = unsafe { switch::to(me, prev, next, irq_off) };
    departure::leave(previous, here);
}

/// Wake `task` if it sleeps. Any context but NMI. True if it was asleep.
#[track_caller]
pub fn wake(task: &Task) -> bool {
    wake_at(task, false, Location::caller(), &IrqOff::new())
}

/// `wake` for who has turned interrupts off already.
#[track_caller]
#[inline(always)]
pub fn wake_held(task: &Task, irq_off: &IrqOff) -> bool {
    wake_at(task, false, Location::caller(), irq_off)
}

#[inline(always)]
fn wake_at(task: &Task, by_signal: bool, site: &'static Location<'static>, irq_off: &IrqOff) -> bool {
    match task.state.wake(by_signal) {
        Wake::Nothing => false,
        Wake::PreventedSleep => true,
        Wake::Enqueue => {
            enqueue_woken(task, site, irq_off);
            true
        }
    }
}

/// Put a task that was asleep on a CPU's queue. The caller alone may: `TaskState::wake` told it so.
#[inline(never)]
fn enqueue_woken(task: &Task, site: &'static Location<'static>, irq_off: &IrqOff) {
    enqueue(None, task, Why::Wakeup, site, irq_off);
}

/// Put a task that is on no queue and that the caller alone may enqueue on a CPU's queue, in the name of `by`, who need not run any more, nor
/// exist; None: the running task.
#[inline(never)]
fn enqueue_new(by: Option<&RecordTask>, task: &Task, site: &'static Location<'static>, irq_off: &IrqOff) {
    enqueue(by, task, Why::New, site, irq_off);
}

/// The two above.
#[inline(always)]
fn enqueue(by: Option<&RecordTask>, task: &Task, why: Why, site: &'static Location<'static>, irq_off: &IrqOff) {
    let me = percpu::this(irq_off);
    let placing = task.placing.lock_held(irq_off);
    let target = placement::choose(task);
    let local = target == me.cpu();
    let area = if local { me } else { percpu::of(target) };
    let is_wakeup = why == Why::Wakeup;
    let why = if target == task.cpu.load(Ordering::Relaxed) {
        // That CPU may still be on its stack, and picks only after the switch.
        why
    } else {
        while task.on_cpu.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
        if task.restartable.load(Ordering::Relaxed) {
            task.signal_pending.set_moved(true);
        }
        task.cpu.store(target, Ordering::Relaxed);
        // Virtual runtimes of two queues do not compare.
        Why::New
    };
    let mut queue = area.sched.queue.lock_held(irq_off);
    let due = if let Some(index) = queue.current() {
        // SAFETY: the queue's current task is in the table until `departure::leave` has taken it off its CPU.
        let running = unsafe { &*TABLE.get(index) };
        charge_if_old(area, &mut queue, running);
        queue.enqueue_beside(&TABLE, Some(&running.run), (task.index, &task.run), why).preempts
    } else {
        let _ = queue.enqueue_beside(&TABLE, None, (task.index, &task.run), why);
        true
    };
    // The cheaper question first.
    let kick_for_tick = !crate::time::tick::dep_is_covered(area, TickDep::Sched)
        && queue.needs_tick(&TABLE)
        && crate::time::tick::dep_set_cpu(area, TickDep::Sched, task, site);
    drop(queue);
    if static_branch!(SCHED) && is_wakeup {
        core::hint::cold_path();
        let woken = RecordTask { id: task.tid(), comm: task.comm() };
        record(irq_off, Flags::IRQS_OFF, Data::SchedWakeup { task: woken, target_cpu: target });
    }
    // What follows is about the CPU, not the task, and may take its timer queue, which comes before placing.
    drop(placing);
    if due {
        area.head.exit_work.fetch_or(exit_work::RESCHED, Ordering::SeqCst);
        if !local {
            crate::smp::ipi::reschedule_for(by, target, IpiCause::Wakeup, site, irq_off);
        }
    } else if kick_for_tick {
        if local {
            crate::time::tick::recheck(irq_off);
        } else if cfg!(mutant = "tick_set_deferred") {
            let _ = crate::smp::deferred_work::leave(target, kcore::context_tracking::Deferred::TickRecheck, site);
        } else if !cfg!(mutant = "tick_set_not_kicked") {
            crate::smp::ipi::reschedule_for(by, target, IpiCause::TickSet, site, irq_off);
        }
    }
}

/// How long `task` has run, up to now, ns. Any CPU may ask; the one that it runs on is not interrupted.
pub fn runtime_ns(task: &Task) -> u64 {
    let irq_off = IrqOff::new();
    let area = percpu::of(task.cpu.load(Ordering::Relaxed));
    let mut queue = area.sched.queue.lock_held(&irq_off);
    if queue.current() == Some(task.index) {
        charge(area, &mut queue, task);
    }
    drop(queue);
    task.runtime_ns.load(Ordering::Relaxed)
}

/// Start a new task: `task` sleeps (new_asleep) and has never run.
#[track_caller]
pub fn start(task: &Task) {
    if task.state.wake(false) == Wake::Enqueue {
        enqueue_new(None, task, Location::caller(), &IrqOff::new());
    }
}

/// At a tick: charge the running task, and say whether another one is due.
pub fn tick(irq_off: &IrqOff) {
    let me = percpu::this(irq_off);
    let task = current();
    let mut queue = me.sched.queue.lock_held(irq_off);
    charge(me, &mut queue, task);
    let class = queue.current_class(&TABLE);
    let others_wait = queue.tick_needed(class);
    crate::time::tick::sched_dependency(me, others_wait, task);
    if others_wait {
        let ran_ns = tsc::ticks_to_ns(tsc::now().saturating_sub(me.sched.picked_tsc.load(Ordering::Relaxed)));
        if queue.slice_used(class, ran_ns) {
            me.head.exit_work.fetch_or(exit_work::RESCHED, Ordering::Relaxed);
        }
    }
}

/// The tick follows the queue of this CPU anew, because the CPU has become another one.
#[track_caller]
pub fn follow_queue(irq_off: &IrqOff) {
    let me = percpu::this(irq_off);
    let queue = me.sched.queue.lock_held(irq_off);
    crate::time::tick::sched_dependency(me, queue.needs_tick(&TABLE), current());
    drop(queue);
    crate::time::tick::recheck(irq_off);
}

/// How long CPU `cpu` has been idle since boot, ns.
pub fn idle_ns(cpu: u32) -> u64 {
    let area = percpu::of(cpu);
    let idle = task::with(task::FIRST_IDLE + cpu, |t| t.runtime_ns.load(Ordering::Relaxed)).unwrap_or(0);
    let since = if is_idle(area) { tsc::now().saturating_sub(area.sched.charged_tsc()) } else { 0 };
    idle + tsc::ticks_to_ns(since)
}

/// Change a task's class. It goes on where it is; only a CPU that has something else to run now is asked to. EBUSY: it holds a lease of its
/// CPU, and is not the running one.
#[track_caller]
pub fn set_class(task: &Task, class: Class) -> Result<(), Errno> {
    let site = Location::caller();
    let irq_off = IrqOff::new();
    let placing = task.placing.lock_held(&irq_off);
    if lease::is_holder(task) && !core::ptr::eq(task, current()) {
        return Err(EBUSY);
    }
    change_rank(task, site, &irq_off, |queue| queue.set_class(&TABLE, (task.index, &task.run), class));
    drop(placing);
    Ok(())
}

/// What `task` inherits from those who wait for it has changed: a priority, or 0. Else as `set_class`. `priority_futex` calls, under its lock.
#[track_caller]
fn set_inherited(task: &Task, priority: u8) {
    let site = Location::caller();
    let irq_off = IrqOff::new();
    let placing = task.placing.lock_held(&irq_off);
    change_rank(task, site, &irq_off, |queue| queue.set_inherited(&TABLE, (task.index, &task.run), priority));
    drop(placing);
}

/// `change` a rank in the queue of the CPU where `task`, which may have ended, is or was; its `placing` is held.
fn change_rank(
    task: &Task,
    site: &'static Location<'static>,
    irq_off: &IrqOff,
    change: impl FnOnce(&mut RunQueue) -> bool,
) {
    let area = percpu::of(task.cpu.load(Ordering::Relaxed));
    let mut queue = area.sched.queue.lock_held(irq_off);
    if let Some(index) = queue.current() {
        // SAFETY: the queue's current task is in the table until `departure::leave` has taken it off its CPU.
        charge(area, &mut queue, unsafe { &*TABLE.get(index) });
    }
    let look_again = change(&mut queue);
    drop(queue);
    if look_again {
        request_reschedule(area, site, irq_off);
    }
}

/// Let CPU `area` pass through its scheduler.
fn request_reschedule(area: &percpu::Percpu, site: &'static Location<'static>, irq_off: &IrqOff) {
    area.head.exit_work.fetch_or(exit_work::RESCHED, Ordering::SeqCst);
    if area.cpu() != percpu::this(irq_off).cpu() {
        crate::smp::ipi::reschedule(area.cpu(), IpiCause::Reschedule, site, irq_off);
    }
}

/// Change where a task may run; it moves at once if it runs or waits where it may not. The set is not empty. EBUSY: it holds a lease of its
/// CPU, and is not the running one, or all of the set is leased.
#[track_caller]
pub fn set_affinity(task: &Task, allowed: &kcore::cpu_set::CpuSet) -> Result<(), Errno> {
    let change = |irq_off: &IrqOff| {
        lease::permits_affinity(task, allowed, irq_off)?;
        task.set_allowed(allowed);
        Ok(())
    };
    change_place(task, change, Location::caller())
}

/// Take CPU `cpu` out of what a task asked for, if it is in it; with nothing left that is online it is as if the task had not asked. It moves,
/// and EBUSY comes, as by `set_affinity`.
#[track_caller]
pub fn take_away(task: &Task, cpu: u32) -> Result<(), Errno> {
    let change = |irq_off: &IrqOff| {
        let Some(mut set) = task.asked_for().filter(|set| set.contains(cpu)) else { return Ok(()) };
        set.remove(cpu);
        if !set.intersection(&percpu::online()).is_empty() {
            lease::permits_affinity(task, &set, irq_off)?;
            task.set_allowed(&set);
        } else if lease::is_holder(task) {
            return Err(EBUSY);
        } else {
            task.forget_allowed();
        }
        Ok(())
    };
    change_place(task, change, Location::caller())
}

/// The CPUs on which a task that asked for nothing may run have changed: it moves if it runs or waits on another.
#[track_caller]
pub fn leave_isolated(task: &Task) {
    let _ = change_place(task, |_| Ok(()), Location::caller());
}

/// `change` decides under the task's `placing`, as `lease::begin` does: who comes to a lease is not moved, or its lease ends before.
fn change_place(
    task: &Task,
    change: impl FnOnce(&IrqOff) -> Result<(), Errno>,
    site: &'static Location<'static>,
) -> Result<(), Errno> {
    let irq_off = IrqOff::new();
    let mut placing = task.placing.lock_held(&irq_off);
    change(&irq_off)?;
    *placing = Some(Mover { task: current().named(), site });
    let cpu = task.cpu.load(Ordering::Relaxed);
    if task.may_run_on(cpu) {
        return Ok(());
    }
    let area = percpu::of(cpu);
    let mut queue = area.sched.queue.lock_held(&irq_off);
    if queue.dequeue(&TABLE, (task.index, &task.run)) {
        let tick_freed = !queue.needs_tick(&TABLE) && crate::time::tick::dep_clear_cpu(area, TickDep::Sched);
        drop(queue);
        if tick_freed && cpu != percpu::this(&irq_off).cpu() {
            // Or at its next tick.
            let _ = crate::smp::deferred_work::leave(cpu, Deferred::TickRecheck, site);
        }
        drop(placing);
        enqueue_new(None, task, site, &irq_off);
        return Ok(());
    }
    let runs = task.on_cpu.load(Ordering::Relaxed);
    drop(queue);
    drop(placing);
    if runs && core::ptr::eq(task, current()) {
        drop(irq_off);
        schedule();
    } else if runs {
        request_reschedule(area, site, &irq_off);
    }
    Ok(())
}

/// A task that waits for a CPU on which nothing more shall run goes elsewhere (`placement` knows where). One that runs or sleeps stays.
#[track_caller]
pub fn place_anew(task: &Task) {
    let site = Location::caller();
    let irq_off = IrqOff::new();
    let placing = task.placing.lock_held(&irq_off);
    let queued = {
        let area = percpu::of(task.cpu.load(Ordering::Relaxed));
        area.sched.queue.lock_held(&irq_off).dequeue(&TABLE, (task.index, &task.run))
    };
    drop(placing);
    if queued {
        enqueue_new(None, task, site, &irq_off);
    }
}

/// Tell `task` that its exit work has changed (a signal): it sees it before its next user instruction.
#[track_caller]
pub fn notify_signal(task: &Task) {
    let site = Location::caller();
    task.signal_pending.store(true, Ordering::SeqCst);
    let irq_off = IrqOff::new();
    if task.on_cpu.load(Ordering::SeqCst) {
        let cpu = task.cpu.load(Ordering::Relaxed);
        let area = percpu::of(cpu);
        area.head.exit_work.fetch_or(exit_work::SIGNAL, Ordering::SeqCst);
        if cpu != percpu::this(&irq_off).cpu() {
            crate::smp::ipi::reschedule(cpu, IpiCause::Signal, site, &irq_off);
        }
    }
    wake_at(task, true, site, &irq_off);
}

/// The running task ends: it never runs again. The caller has given away everything that the task owned but its stack.
pub fn exit_current() -> ! {
    let irq_off = IrqOff::new();
    let task = current();
    crate::trace::names::task_ends(task.tid(), &task.comm());
    task.state.exit();
    reschedule(&irq_off, Prev::Preempted);
    unreachable!("a dead task was scheduled");
}

//! The scheduler: per-CPU run queues, fair and FIFO classes, affinity, kernel threads, cross-CPU wake-up.
//!
//! Nothing is ever placed on an isolated CPU unasked: `placement` looks at a task's own affinity.

pub mod attention;
pub mod futex;
pub mod idle;
pub mod placement;
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
use core::panic::Location;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use kcore::context_tracking::{Deferred, State};
use kcore::ipi_ledger::IpiCause;
use kcore::run_queue::{Class, Prev, RunQueue, Why};
use kcore::task_state::Wake;
use kcore::tick::TickDep;
use kcore::trace_event::{Data, Flags, RecordTask};
use task::{TABLE, Task, TaskRef};

/// A CPU's part of the scheduler.
pub struct CpuSched {
    queue: SpinLock<RunQueue, { rank::RUN_QUEUE }>,
    /// The task that runs when nothing else does.
    idle: AtomicPtr<Task>,
    /// Who ran before the switch under way: handed to the next task's `finish_switch`.
    previous: AtomicPtr<Task>,
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
            previous: AtomicPtr::new(core::ptr::null_mut()),
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
    let irq_off = IrqOff::new();
    reschedule(&irq_off, Prev::Preempted, true);
}

/// Give the CPU away because another task is due. A task between prepare_sleep and its look at what it waits for stays
/// runnable: it has not decided to sleep yet.
pub fn preempt() {
    let irq_off = IrqOff::new();
    reschedule(&irq_off, Prev::Preempted, false);
}

/// sched_yield: behind its equals. Alone on the CPU this is a look and nothing else.
pub fn yield_now() {
    let irq_off = IrqOff::new();
    if percpu::this(&irq_off).sched.queue.lock_held(&irq_off).is_empty() {
        return;
    }
    reschedule(&irq_off, Prev::Yielded, false);
}

/// An interrupt in kernel mode ends, preemption is allowed and due.
pub fn preempt_from_irq(irq_off: &IrqOff) {
    reschedule(irq_off, Prev::Preempted, false);
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

fn reschedule(irq_off: &IrqOff, why: Prev, may_sleep: bool) {
    let me = percpu::this(irq_off);
    debug_assert_eq!(me.head.preempt_count.load(Ordering::Relaxed), 0, "switch with preemption off: a lock is held");
    let prev = current();
    if me.head.exit_work.load(Ordering::Relaxed) & exit_work::RESCHED != 0 {
        me.head.exit_work.fetch_and(!exit_work::RESCHED, Ordering::Relaxed);
    }
    let mut queue = me.sched.queue.lock_held(irq_off);
    let now = charge(me, &mut queue, prev);
    let idle = me.sched.idle_ptr();
    let leaves = may_sleep && prev.state.commit_sleep();
    if !core::ptr::eq(prev, idle) && !leaves && !prev.state.is_dead() {
        if prev.may_run_on(me.cpu()) {
            queue.put_prev(&TABLE, prev.index, why);
        } else {
            prev.moving.store(true, Ordering::Relaxed);
        }
    }
    let next: *const Task = match queue.pick(&TABLE) {
        Some(index) => TABLE.get(index),
        None => idle,
    };
    // SAFETY: a queued task, or the idle task: both live.
    let next = unsafe { &*next };
    // Under the lock: the dependency follows the queue, and who changes `next`'s affinity sees that it runs here.
    next.on_cpu.store(true, Ordering::Relaxed);
    crate::time::tick::sched_dependency_at_switch(me, queue.needs_tick(&TABLE), next, now);
    drop(queue);
    me.sched.picked_tsc.store(now, Ordering::Relaxed);
    crate::time::tick::follow(me, next, irq_off);
    if core::ptr::eq(prev, next) {
        me.rcu.note_quiescent();
        return;
    }
    me.sched.switches.store(me.sched.switches.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    me.sched.previous.store(prev as *const Task as *mut Task, Ordering::Relaxed);
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
    unsafe { switch::to(me, prev, next, irq_off) };
    leave_previous();
}

/// First thing in a new task's context.
pub extern "C" fn finish_switch() {
    leave_previous();
}

/// First thing in the next task's context: the previous one is off this CPU now. The CPU may be another one than this task's last.
#[inline(always)]
fn leave_previous() {
    // SAFETY: switches happen with interrupts off.
    let irq_off = unsafe { IrqOff::assume() };
    let me = percpu::this(&irq_off);
    let previous = me.sched.previous.load(Ordering::Relaxed);
    // SAFETY: `previous` ran here a moment ago and cannot be freed before `on_cpu` is clear (see task::release).
    let previous = unsafe { &*previous };
    let dead = previous.state.is_dead();
    let move_it = previous.moving.load(Ordering::Relaxed);
    if move_it {
        previous.moving.store(false, Ordering::Relaxed);
    }
    previous.on_cpu.store(false, Ordering::Release);
    // Only now is this CPU done with the previous task and with everything that it read.
    me.rcu.note_quiescent();
    if dead {
        task::release(previous);
    } else if move_it {
        // Its affinity does not allow this CPU any more: it is runnable and on no queue.
        // SAFETY: null, or a location, which is static.
        let site = unsafe { previous.moved_by.load(Ordering::Relaxed).as_ref() };
        enqueue(previous, Why::New, site.unwrap_or(Location::caller()));
    }
}

/// Wake `task` if it sleeps. Any context but NMI. True if it was asleep.
#[track_caller]
pub fn wake(task: &Task) -> bool {
    wake_at(task, false, Location::caller())
}

fn wake_at(task: &Task, by_signal: bool, site: &'static Location<'static>) -> bool {
    match task.state.wake(by_signal) {
        Wake::Nothing => false,
        Wake::PreventedSleep => true,
        Wake::Enqueue => {
            enqueue(task, Why::Wakeup, site);
            true
        }
    }
}

/// Put a task that is on no queue and that the caller alone may enqueue on a CPU's queue.
fn enqueue(task: &Task, why: Why, site: &'static Location<'static>) {
    let irq_off = IrqOff::new();
    let placing = task.placing.lock_held(&irq_off);
    let target = placement::choose(task);
    let last = task.cpu.load(Ordering::Relaxed);
    // Its old CPU may still be on its stack; its own CPU's queue is safe, since that CPU picks only after the switch.
    if target != last {
        while task.on_cpu.load(Ordering::Acquire) {
            core::hint::spin_loop();
        }
    }
    // Virtual runtimes of two queues do not compare.
    let is_wakeup = why == Why::Wakeup;
    let why = if target == last { why } else { Why::New };
    let area = percpu::of(target);
    task.cpu.store(target, Ordering::Relaxed);
    let mut queue = area.sched.queue.lock_held(&irq_off);
    let running = queue.current();
    if let Some(index) = running {
        // SAFETY: the queue's current task is in the table until `leave_previous` has taken it off its CPU.
        charge(area, &mut queue, unsafe { &*TABLE.get(index) });
    }
    let enqueued = queue.enqueue(&TABLE, task.index, why);
    // The cheaper question first.
    let kick_for_tick = !crate::time::tick::dep_is_covered(area, TickDep::Sched)
        && queue.needs_tick(&TABLE)
        && crate::time::tick::dep_set_cpu(area, TickDep::Sched, task, site);
    drop(queue);
    if static_branch!(SCHED) && is_wakeup {
        core::hint::cold_path();
        let woken = RecordTask { id: task.tid(), comm: task.comm() };
        record(&irq_off, Flags::IRQS_OFF, Data::SchedWakeup { task: woken, target_cpu: target });
    }
    // What follows is about the CPU, not the task, and may take its timer queue, which comes before placing.
    drop(placing);
    let local = target == percpu::this(&irq_off).cpu();
    if enqueued.preempts || running.is_none() {
        area.head.exit_work.fetch_or(exit_work::RESCHED, Ordering::SeqCst);
        if !local {
            crate::smp::ipi::reschedule(target, IpiCause::Wakeup, site, &irq_off);
        }
    } else if kick_for_tick {
        if local {
            crate::time::tick::recheck(&irq_off);
        } else if cfg!(mutant = "tick_set_deferred") {
            let _ = crate::smp::deferred_work::leave(target, kcore::context_tracking::Deferred::TickRecheck, site);
        } else if !cfg!(mutant = "tick_set_not_kicked") {
            crate::smp::ipi::reschedule(target, IpiCause::TickSet, site, &irq_off);
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
        enqueue(task, Why::New, Location::caller());
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

/// Change a task's class. The running task or a sleeping one; a queued one is taken out and put back. EBUSY: it holds a lease of its
/// CPU, and is not the running one.
#[track_caller]
pub fn set_class(task: &Task, class: Class) -> Result<(), Errno> {
    let site = Location::caller();
    let irq_off = IrqOff::new();
    let placing = task.placing.lock_held(&irq_off);
    if lease::is_holder(task) && !core::ptr::eq(task, current()) {
        return Err(EBUSY);
    }
    let area = percpu::of(task.cpu.load(Ordering::Relaxed));
    let mut queue = area.sched.queue.lock_held(&irq_off);
    let queued = queue.dequeue(&TABLE, task.index);
    task.run.set_class(class);
    if queued {
        let _ = queue.enqueue(&TABLE, task.index, Why::New);
    }
    let look_again = queued || task.on_cpu.load(Ordering::Relaxed);
    drop(queue);
    drop(placing);
    if look_again {
        request_reschedule(area, site, &irq_off);
    }
    Ok(())
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
    let placing = task.placing.lock_held(&irq_off);
    change(&irq_off)?;
    task.moved_by.store(site as *const _ as *mut _, Ordering::Relaxed);
    let cpu = task.cpu.load(Ordering::Relaxed);
    if task.may_run_on(cpu) {
        return Ok(());
    }
    let area = percpu::of(cpu);
    let mut queue = area.sched.queue.lock_held(&irq_off);
    if queue.dequeue(&TABLE, task.index) {
        let tick_freed = !queue.needs_tick(&TABLE) && crate::time::tick::dep_clear_cpu(area, TickDep::Sched);
        drop(queue);
        if tick_freed && cpu != percpu::this(&irq_off).cpu() {
            // Or at its next tick.
            let _ = crate::smp::deferred_work::leave(cpu, Deferred::TickRecheck, site);
        }
        drop(placing);
        enqueue(task, Why::New, site);
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
        area.sched.queue.lock_held(&irq_off).dequeue(&TABLE, task.index)
    };
    drop(placing);
    if queued {
        enqueue(task, Why::New, site);
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
    wake_at(task, true, site);
}

/// The running task ends: it never runs again. The caller has given away everything that the task owned but its stack.
pub fn exit_current() -> ! {
    let irq_off = IrqOff::new();
    let task = current();
    crate::trace::names::task_ends(task.tid(), &task.comm());
    task.state.exit();
    reschedule(&irq_off, Prev::Preempted, false);
    unreachable!("a dead task was scheduled");
}

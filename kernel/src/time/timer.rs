//! Timers of one CPU: sleeping tasks by deadline, and the hardware armed for whatever comes first.
//!
//! A task's own sleep timer stays on the CPU that it slept on.

use crate::arch::irq_flag::IrqOff;
use crate::arch::{apic, cpu_head, tsc};
use crate::percpu::{self, Percpu};
use crate::sched::task::{TABLE, Task};
use crate::trace::key::TIMER;
use crate::trace::record::record;
use crate::{static_branch, trace_point};
use core::panic::Location;
use core::sync::atomic::Ordering;
use kcore::pairing_heap::HeapStore;
use kcore::timer_queue::NEVER;
use kcore::trace_event::{Data, Flags};

/// Arm the hardware for the earlier of the first timer and the tick.
pub fn program(me: &Percpu, irq_off: &IrqOff) {
    let first = me.time.queue.lock_held(irq_off).next_deadline(&TABLE);
    program_for(me, first, irq_off);
}

#[inline]
fn program_for(me: &Percpu, first: u64, irq_off: &IrqOff) {
    set_hardware(me, first.min(me.time.tick_deadline.load(Ordering::Relaxed)), irq_off);
}

fn set_hardware(me: &Percpu, deadline: u64, irq_off: &IrqOff) {
    if me.time.armed.load(Ordering::Relaxed) == deadline {
        return;
    }
    me.time.armed.store(deadline, Ordering::Relaxed);
    if deadline == NEVER {
        apic::timer_stop(irq_off);
    } else {
        let now = tsc::now();
        apic::timer_arm(now, deadline.saturating_sub(now), irq_off);
    }
}

/// Arm the hardware for the tick that has been started, for `deadline`, unless it is for an earlier timer already.
#[inline(always)]
pub fn program_started_tick(me: &Percpu, deadline: u64, irq_off: &IrqOff) {
    // While the tick is off the hardware is armed for the first timer, or for one that is gone, which is no later.
    if me.time.armed.load(Ordering::Relaxed) > deadline {
        me.time.armed.store(deadline, Ordering::Relaxed);
        apic::timer_arm_period(deadline, irq_off);
    }
}

/// The timer interrupt: wake who is due, do the tick if it is due, arm for the next. Whether it hit user mode is asked at a tick alone.
#[inline]
pub fn interrupt(hit_user_mode: impl FnOnce() -> bool, irq_off: &IrqOff) {
    let me = percpu::this(irq_off);
    me.time.armed.store(NEVER, Ordering::Relaxed);
    let mut now = tsc::now();
    let first = loop {
        let (due, next) = me.time.queue.lock_held(irq_off).expire(&TABLE, now);
        let Some(index) = due else { break next };
        trace_point!(
            TIMER,
            irq_off,
            Flags::IRQS_OFF,
            Data::TimerExpireEntry { timer: index as u64, deadline_tsc: TABLE.heap_node(index).key(), function: 0 }
        );
        crate::sched::task::with_pinned(index, irq_off, |t| crate::sched::wake_held(t, irq_off));
        trace_point!(TIMER, irq_off, Flags::IRQS_OFF, Data::TimerExpireExit { timer: index as u64 });
        // What has become due meanwhile is not worth an interrupt of its own.
        now = tsc::now();
        if next > now {
            break next;
        }
    };
    if now >= me.time.tick_deadline.load(Ordering::Relaxed) {
        super::tick::tick(me, now, hit_user_mode(), irq_off);
    }
    program_for(me, first, irq_off);
}

/// Sleep until `deadline_tsc` or a wake-up. The caller has called `prepare_sleep`. The timer is off on return.
#[track_caller]
pub fn sleep_until(task: &Task, deadline_tsc: u64) {
    let site = Location::caller();
    let irq_off = IrqOff::from_on();
    trace_point!(
        TIMER,
        &irq_off,
        Flags::IRQS_OFF,
        Data::TimerArm { timer: task.index as u64, deadline_tsc, function: site as *const _ as u64 }
    );
    let me = percpu::this(&irq_off);
    task.timer_cpu.store(me.cpu(), Ordering::Relaxed);
    let mut queue = me.time.queue.lock_held(&irq_off);
    let is_first = queue.arm(&TABLE, task.index, deadline_tsc);
    let first = queue.next_deadline(&TABLE);
    drop(queue);
    if is_first {
        program_for(me, first, &irq_off);
    }
    crate::sched::schedule_held(irq_off);
    // Usually it has fired. Only the task itself arms it again: off its queue it stays off.
    if task.timer.is_queued() {
        cancel(task);
    }
    core::sync::atomic::fence(Ordering::Acquire);
}

/// Whether the task sleeps by a timer of CPU `cpu` (a snapshot).
pub fn is_armed_on(task: &Task, cpu: u32) -> bool {
    task.timer.is_queued() && task.timer_cpu.load(Ordering::Relaxed) == cpu
}

/// What the task's timer was armed for last, TSC.
pub fn deadline_tsc(task: &Task) -> u64 {
    task.timer.key()
}

/// Whether this CPU's hardware was armed for a time that is past at `now_tsc`: its interrupt comes as soon as it is let in.
#[inline(always)]
pub fn is_due(me: &Percpu, now_tsc: u64) -> bool {
    me.time.armed.load(Ordering::Relaxed) <= now_tsc
}

/// Before a switch, which takes longer than this: a timer's interrupt that waits comes now, and the task that it wakes is who the switch is to.
/// Nothing is held; the caller counts on nothing that an interrupt changes.
#[cold]
#[inline(never)]
pub fn let_in(_: &IrqOff) {
    cpu_head::preempt_disable();
    // Between the first two it does not come.
    // SAFETY: process context or the end of an interrupt, with interrupts off before and after.
    unsafe { core::arch::asm!("sti", "nop", "cli", options(nostack)) };
    cpu_head::preempt_enable_no_resched();
}

/// Whether any timer of a CPU is armed.
pub fn any_armed(area: &Percpu) -> bool {
    !area.time.queue.lock_irq().is_empty()
}

/// Take the timer of `task` off CPU `cpu` if it is armed there, and wake the task: it finds time left, and sleeps on where it is then.
#[track_caller]
pub fn wake_early(task: &Task, cpu: u32) {
    let mut queue = percpu::of(cpu).time.queue.lock_irq();
    // In this order: armed, and the CPU is what it was armed on; with the lock held it stays so.
    let armed = queue.is_armed(&TABLE, task.index);
    core::sync::atomic::fence(Ordering::Acquire);
    if armed && task.timer_cpu.load(Ordering::Relaxed) == cpu {
        queue.cancel(&TABLE, task.index);
        drop(queue);
        crate::sched::wake(task);
    }
}

/// Take the task's timer out if it is still armed.
fn cancel(task: &Task) {
    let irq_off = IrqOff::new();
    let cpu = task.timer_cpu.load(Ordering::Relaxed);
    let area = percpu::of(cpu);
    let mut queue = area.time.queue.lock_held(&irq_off);
    if static_branch!(TIMER) && queue.is_armed(&TABLE, task.index) {
        core::hint::cold_path();
        record(&irq_off, Flags::IRQS_OFF, Data::TimerCancel { timer: task.index as u64 });
    }
    let was_first = queue.cancel(&TABLE, task.index);
    drop(queue);
    if was_first && cpu == percpu::this(&irq_off).cpu() {
        program(area, &irq_off);
    }
}

/// Sleep for `ns`. True if the whole time passed, false if a signal ended it (`interruptible`). Process context.
#[track_caller]
pub fn sleep_ns(ns: u64, interruptible: bool) -> bool {
    sleep_to(tsc::now().saturating_add(tsc::ns_to_ticks(ns)), interruptible)
}

/// Sleep until `deadline_tsc`. As `sleep_ns`.
#[track_caller]
pub fn sleep_to(deadline_tsc: u64, interruptible: bool) -> bool {
    let task = crate::sched::current();
    while tsc::now() < deadline_tsc {
        task.state.prepare_sleep(interruptible);
        if interruptible && task.signal_pending.load(Ordering::SeqCst) {
            task.state.cancel_sleep();
            return false;
        }
        sleep_until(task, deadline_tsc);
    }
    true
}

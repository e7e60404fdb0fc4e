//! What becomes of a task that a CPU has switched from: the first thing in the next task's context.
//!
//! The switch alone calls, interrupts off. Most tasks sleep or wait in a queue: then there is nothing to do but to say that the CPU has left them.

use super::task::{self, Mover, Task};
use crate::arch::irq_flag::IrqOff;
use crate::percpu::Percpu;
use core::panic::Location;
use core::sync::atomic::Ordering;

/// In `CpuSched::left`: it sleeps or waits in a queue.
pub const STAYS: u32 = 0;
/// It is runnable and on no queue: it may not run on this CPU any more.
pub const MOVES_ON: u32 = 1;
/// It has ended.
pub const IS_DEAD: u32 = 2;

/// First thing in a new task's context.
pub extern "C" fn finish_switch(previous: *const Task, me: &'static Percpu) {
    leave(previous, me);
}

/// `previous` is off this CPU, `me`, now. The CPU may be another one than the running task's last.
#[inline(always)]
pub fn leave(previous: *const Task, me: &Percpu) {
    // SAFETY: it ran here a moment ago and cannot be freed before `on_cpu` is clear (see task::release).
    let previous = unsafe { &*previous };
    previous.on_cpu.store(false, Ordering::Release);
    // Only now is this CPU done with the previous task and with everything that it read.
    me.rcu.note_quiescent();
    if me.sched.left.load(Ordering::Relaxed) != STAYS {
        take_leave(previous, me);
    }
}

/// It does not stay with this CPU.
#[cold]
#[inline(never)]
fn take_leave(previous: &Task, me: &Percpu) {
    // SAFETY: switches happen with interrupts off.
    let irq_off = unsafe { IrqOff::assume() };
    let left = me.sched.left.load(Ordering::Relaxed);
    me.sched.left.store(STAYS, Ordering::Relaxed);
    if left == IS_DEAD {
        task::release(previous);
    } else {
        move_on(previous, &irq_off);
    }
}

/// Its affinity does not allow the CPU that it has just left: it is runnable, on no queue, and the caller's alone.
fn move_on(task: &Task, irq_off: &IrqOff) {
    let mover = *task.placing.lock_held(irq_off);
    // Who moved it is told as the sender, and not who runs here next.
    match mover {
        Some(Mover { task: by, site }) => super::enqueue_new(Some(&by), task, site, irq_off),
        None => super::enqueue_new(Some(&task.named()), task, Location::caller(), irq_off),
    }
}

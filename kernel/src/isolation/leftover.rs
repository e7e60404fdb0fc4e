//! What could still interrupt a CPU that is left alone: tasks that may run there, timers, reasons for a tick, lines. Work
//! that was left in its word is none of it: it waits for the CPU.
//!
//! Process context. It reads the CPU's memory and never interrupts it; what it finds is how things were a moment ago.

use super::irq_affinity;
use crate::percpu;
use crate::sched::task::{self, Task, TaskRef};
use crate::time::{tick, timer};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use kcore::tick::{Scope, TickDep, held};

/// One thing that is left.
pub enum Leftover {
    /// A task that asked for this CPU, alone or among others, or that is there unasked.
    Task(TaskRef),
    /// The timer of a task, due at this TSC.
    Timer(TaskRef, u64),
    /// A reason for a tick.
    Tick(TickDep, Scope),
    /// An interrupt line.
    Line(irq_affinity::Line),
}

/// All that is left on CPU `cpu`, which is online.
pub fn of(cpu: u32) -> Vec<Leftover> {
    let area = percpu::of(cpu);
    let asked = |t: &Task| t.asked_for().is_some_and(|set| set.contains(cpu));
    let mut left = Vec::new();
    let mut timers = Vec::new();
    for t in task::all().filter(|t| !t.state.is_dead()) {
        if timer::is_armed_on(&t, cpu) {
            timers.push(Leftover::Timer(t.clone(), timer::deadline_tsc(&t)));
        }
        if asked(&t) || is_there(&t, cpu) {
            left.push(Leftover::Task(t));
        }
    }
    left.append(&mut timers);
    let of_task = crate::sched::running_on(cpu).map_or(0, |t| t.tick_deps.load());
    left.extend(
        held(tick::GLOBAL.load(), area.time.deps.load(), of_task, 0).map(|(dep, scope)| Leftover::Tick(dep, scope)),
    );
    left.extend(irq_affinity::lines_to(cpu).into_iter().map(Leftover::Line));
    left
}

/// Whether `task` runs on CPU `cpu` or waits there for its turn.
pub fn is_there(task: &Task, cpu: u32) -> bool {
    task.cpu.load(Ordering::Relaxed) == cpu && (task.on_cpu.load(Ordering::Acquire) || task.run.is_queued())
}

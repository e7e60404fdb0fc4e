//! What blocks a lease: facts of a CPU, as they are after the flush, and the reasons among them, all of them.
//!
//! Called by `kernel/src/isolation/lease_request.rs`, interrupts off. `S` is the site that set a tick dependency. Invariant: no reason means
//! that nothing is left that could enter the CPU by itself.

use crate::cpu_set::CpuSet;
use crate::tick::{Held, Scope, TickDep};
use alloc::vec::Vec;
use core::fmt;

/// What a lease has to know of a task that is not its holder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TaskFact {
    /// Its id.
    pub task: u32,
    /// Its name, zero-padded.
    pub comm: [u8; 16],
    /// Its affinity has the CPU.
    pub may_run_here: bool,
    /// Its affinity has another CPU that is online and not leased.
    pub may_run_elsewhere: bool,
    /// It runs or waits on the CPU now.
    pub is_here: bool,
    /// It sleeps by a timer of the CPU.
    pub timer_here: bool,
}

/// What a lease has to know of its CPU, after the flush.
#[derive(Clone, Debug)]
pub struct Facts<S: Copy> {
    /// The CPU.
    pub cpu: u32,
    /// It is in nohz_full=.
    pub is_nohz_full: bool,
    /// Its user mode is tracked.
    pub is_tracked: bool,
    /// Its isolation is being changed.
    pub is_changing: bool,
    /// The affinity of who asks.
    pub allowed: CpuSet,
    /// The other tasks.
    pub tasks: Vec<TaskFact>,
    /// The tick dependencies that are held, with who set them where that is known.
    pub deps: Vec<(TickDep, Scope, Option<Held<S>>)>,
    /// The tick runs.
    pub ticks: bool,
    /// A timer is armed, whoever's.
    pub timer_armed: bool,
    /// Interrupt lines that lead to it, with their devices.
    pub lines: Vec<(u8, &'static str)>,
    /// Work that was left in its word.
    pub posted: u8,
    /// RCU callbacks that nobody has collected.
    pub callbacks: bool,
}

/// One reason why a lease is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blocker<S: Copy> {
    /// The CPU is not in nohz_full=.
    NotIsolated,
    /// Its user mode is not tracked.
    NotTracked,
    /// Its isolation is being changed.
    Changing,
    /// Who asks may run on other CPUs too.
    Affinity(CpuSet),
    /// A task can run nowhere else.
    Bound(TaskFact),
    /// A task runs or waits there.
    Here(TaskFact),
    /// A timer of a task is armed there.
    Timer(TaskFact),
    /// Something needs the tick.
    Dep(TickDep, Scope, Option<Held<S>>),
    /// The tick runs, and nothing says why.
    Ticks,
    /// A timer is armed, and nobody owns it.
    ArmedTimer,
    /// An interrupt line leads there.
    Line(u8, &'static str),
    /// Posted work has not been run.
    Posted(u8),
    /// RCU callbacks have not been collected.
    Callbacks,
    /// No grace period has passed, though one was waited for.
    GracePeriod,
    /// Somebody has a lease of the CPU, or asks for one.
    Leased(u32),
}

/// All reasons to refuse; none: grant it.
pub fn blockers<S: Copy>(facts: &Facts<S>) -> Vec<Blocker<S>> {
    let mut found = Vec::new();
    if !facts.is_nohz_full {
        found.push(Blocker::NotIsolated);
    }
    if !facts.is_tracked {
        found.push(Blocker::NotTracked);
    }
    if facts.is_changing {
        found.push(Blocker::Changing);
    }
    if facts.allowed.iter().count() != 1 {
        found.push(Blocker::Affinity(facts.allowed));
    }
    for task in &facts.tasks {
        if task.may_run_here && !task.may_run_elsewhere && !cfg!(mutant = "lease_beside_bound_tasks") {
            found.push(Blocker::Bound(*task));
        } else if task.is_here {
            found.push(Blocker::Here(*task));
        }
        if task.timer_here {
            found.push(Blocker::Timer(*task));
        }
    }
    found.extend(facts.deps.iter().map(|&(dep, scope, held)| Blocker::Dep(dep, scope, held)));
    if facts.ticks && facts.deps.is_empty() {
        found.push(Blocker::Ticks);
    }
    if facts.timer_armed && !facts.tasks.iter().any(|t| t.timer_here) {
        found.push(Blocker::ArmedTimer);
    }
    found.extend(facts.lines.iter().map(|&(line, name)| Blocker::Line(line, name)));
    if facts.posted != 0 {
        found.push(Blocker::Posted(facts.posted));
    }
    if facts.callbacks {
        found.push(Blocker::Callbacks);
    }
    found
}

/// A task in a line of a file.
struct TaskField<'a>(u32, &'a [u8; 16]);

impl fmt::Display for TaskField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.1.iter().position(|&b| b == 0).unwrap_or(16);
        let comm = core::str::from_utf8(&self.1[..end]).unwrap_or("?");
        write!(f, " task={} comm=", self.0)?;
        comm.chars().try_for_each(|c| write!(f, "{}", if c.is_whitespace() || c.is_control() { '_' } else { c }))
    }
}

impl<S: Copy> Blocker<S> {
    /// The reason as `key=value`s; `site` says a site's file and line.
    pub fn format<W: fmt::Write>(&self, out: &mut W, site: impl Fn(S, &mut W) -> fmt::Result) -> fmt::Result {
        match self {
            Blocker::NotIsolated => out.write_str("by=isolation reason=not_in_nohz_full"),
            Blocker::NotTracked => out.write_str("by=tracking reason=user_mode_not_tracked"),
            Blocker::Changing => out.write_str("by=isolation reason=being_changed"),
            Blocker::Affinity(cpus) => write!(out, "by=affinity cpus={cpus}"),
            Blocker::Bound(t) => write!(out, "by=task reason=bound{}", TaskField(t.task, &t.comm)),
            Blocker::Here(t) => write!(out, "by=task reason=runnable{}", TaskField(t.task, &t.comm)),
            Blocker::Timer(t) => write!(out, "by=timer{}", TaskField(t.task, &t.comm)),
            Blocker::Dep(dep, scope, held) => {
                write!(out, "by=tick dep={} scope={}", dep.name(), scope.name())?;
                let Some(held) = held else { return Ok(()) };
                site(held.site, out)?;
                if held.comm[0] != 0 { write!(out, "{}", TaskField(held.task, &held.comm)) } else { Ok(()) }
            }
            Blocker::Ticks => out.write_str("by=tick reason=on"),
            Blocker::ArmedTimer => out.write_str("by=timer reason=armed"),
            Blocker::Line(line, name) => write!(out, "by=irq line={line} name={name}"),
            Blocker::Posted(bits) => write!(out, "by=posted_work bits={bits:#x}"),
            Blocker::Callbacks => out.write_str("by=rcu reason=callbacks"),
            Blocker::GracePeriod => out.write_str("by=rcu reason=grace_period"),
            Blocker::Leased(task) => write!(out, "by=lease task={task}"),
        }
    }
}

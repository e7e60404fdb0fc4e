//! How a program gets a lease of its CPU: what is pending there is flushed first, then everything that could still enter it is looked for.
//!
//! Process context, by the program itself on that CPU. The order of steps is in `request`. What blocks is `kcore::lease_blocker`.

use super::{housekeeping, irq_affinity, lease, leftover, live};
use crate::arch::irq_flag::IrqOff;
use crate::arch::tsc;
use crate::errno::{EBUSY, ENOMEM, EPERM, Errno};
use crate::mm::kernel_map;
use crate::percpu;
use crate::rcu;
use crate::sched;
use crate::sched::task::{self, Task};
use crate::time::tick::{self, Site};
use crate::time::timer;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::sync::atomic::Ordering;
use kcore::context_tracking::deferred;
use kcore::cpu_set::CpuSet;
use kcore::lease::{EndCause, Terms};
use kcore::lease_blocker::{Blocker, Facts, TaskFact, blockers};
use kcore::tick::{Scope, TickDep, held};

/// How long tasks that are ending are waited for, ns.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Between two looks at them, ns.
const LOOK_NS: u64 = 100_000;

/// A lease of the running CPU for the running task, which is bound to it. EBUSY: refused; `CpuLease::refusal` says why, all of it.
///
/// 1. what can be no lease is refused at once (`lease::begin`); else the request is known: whoever would put something onto this CPU
///    that can be refused is refused from here on
/// 2. a round of RCU: who did not know yet is done, and the callbacks that were queued here have run elsewhere
/// 3. tasks that wait here and may run elsewhere go there; the timers of such tasks go with them: they wake early, find time left, and
///    sleep on where they are then; tasks that are ending are waited for
/// 4. the queue and the tick are looked at again; posted work was run on the way in
/// 5. who wants something that can be deferred waits for this call's end from here on instead of interrupting it, and a grace period passes,
///    without sleep, but not for ever, nor once `ends` says that the task has to end: IPIs that were decided on before have come, that of
///    the wake-up in step 2 too
/// 6. with interrupts off: all reasons against it; none: granted
pub fn request(terms: Terms, ends: impl Fn() -> bool) -> Result<(), Errno> {
    let me = sched::current();
    let cpu = percpu::cpu();
    lease::ensure_page(cpu).ok_or(ENOMEM)?;
    let begun = lease::begin(me, cpu, terms);
    if let Err(leased @ Blocker::Leased(_)) = begun {
        return refused(cpu, me, &[leased]);
    }
    let mut against = begun.err();
    if against.is_none() {
        rcu::barrier();
        send_away(cpu, me);
        sched::schedule();
        sched::follow_queue(&IrqOff::new());
        lease::begin_silence(cpu);
        against = (!grace_period_passes(ends)).then_some(Blocker::GracePeriod);
    }
    let tasks = others(cpu, me);
    let lines = irq_affinity::lines_to(cpu).iter().map(|line| (line.irq, line.name)).collect();
    let irq_off = IrqOff::new();
    let mut reasons = blockers(&facts(cpu, me, me.allowed(), tasks, lines));
    reasons.extend(against.filter(|why| !reasons.contains(why)));
    if !reasons.is_empty() || !lease::grant(cpu, &irq_off) {
        if begun.is_ok() {
            lease::refuse(cpu, &irq_off);
        }
        drop(irq_off);
        return refused(cpu, me, &reasons);
    }
    drop(irq_off);
    let old = core::mem::take(&mut *percpu::of(cpu).lease.refusal.lock());
    drop(old);
    Ok(())
}

/// The running task's lease is over. EPERM: it has none.
pub fn give_back() -> Result<(), Errno> {
    if lease::end(EndCause::Asked, &IrqOff::new()) { Ok(()) } else { Err(EPERM) }
}

/// Step 5, for as long as a grace period may take before RCU calls it stalled. An expedited grace period may be the one that passes: what was
/// queued here since step 2 has to be collected too. False: it has not.
fn grace_period_passes(ends: impl Fn() -> bool) -> bool {
    let cookie = rcu::start_poll_synchronize_rcu();
    let end = tsc::now().saturating_add(tsc::ns_to_ticks(rcu::stall_timeout_ns()));
    let queued = || percpu::this(&IrqOff::new()).rcu.has_callbacks();
    while !rcu::poll_state_synchronize_rcu(cookie) || queued() {
        if ends() || tsc::now() >= end {
            return false;
        }
        sched::schedule();
        core::hint::spin_loop();
    }
    true
}

/// Step 3.
fn send_away(cpu: u32, me: &Task) {
    for t in task::all().filter(|t| t.index != me.index && may_run_elsewhere(t, cpu)) {
        if t.cpu.load(Ordering::Relaxed) == cpu {
            sched::place_anew(&t);
        }
        if timer::is_armed_on(&t, cpu) {
            timer::wake_early(&t, cpu);
        }
    }
    wait_for_ending(cpu, me);
    let irq_off = IrqOff::new();
    timer::program(percpu::this(&irq_off), &irq_off);
}

/// Programs that have ended here may have a few steps left before their tasks are gone; whoever waited for them knows of their end already.
fn wait_for_ending(cpu: u32, me: &Task) {
    // A user task without an address space.
    let ending =
        |t: &Task| t.fpu.is_some() && t.root.load(Ordering::Relaxed) == kernel_map::root() && !t.state.is_dead();
    let end = tsc::now().saturating_add(tsc::ns_to_ticks(PATIENCE_NS));
    while task::all().any(|t| t.index != me.index && t.may_run_on(cpu) && ending(&t)) && tsc::now() < end {
        timer::sleep_ns(LOOK_NS, false);
    }
}

fn may_run_elsewhere(task: &Task, cpu: u32) -> bool {
    let open = |c: u32| c != cpu && percpu::is_online(c) && !lease::is_held(c);
    task.allowed().iter().any(open)
}

/// All tasks but `me`. From step 2 on none comes to this CPU.
fn others(cpu: u32, me: &Task) -> Vec<TaskFact> {
    let fact = |t: &Task| TaskFact {
        task: t.tid(),
        comm: t.comm(),
        may_run_here: t.may_run_on(cpu),
        may_run_elsewhere: may_run_elsewhere(t, cpu),
        is_here: leftover::is_there(t, cpu),
        timer_here: timer::is_armed_on(t, cpu),
    };
    let alive = |t: &Task| t.index != me.index && !t.state.is_dead();
    task::all().filter(|t| alive(t)).map(|t| fact(&t)).collect()
}

fn facts(cpu: u32, me: &Task, allowed: CpuSet, tasks: Vec<TaskFact>, lines: Vec<(u8, &'static str)>) -> Facts<Site> {
    let area = percpu::of(cpu);
    let history = area.time.history.lock_irq();
    let of_cpu = history.held.clone();
    drop(history);
    let deps = held(tick::GLOBAL.load(), area.time.deps.load(), me.tick_deps.load(), 0);
    // Only a CPU's own mask keeps who set what. Housekeeping is in it, and is what all CPUs but the isolated ones do.
    let explained = |(dep, scope)| match (dep, scope) {
        (TickDep::Housekeeping, _) => (dep, Scope::Global, of_cpu.holder(dep)),
        (_, Scope::Cpu) => (dep, scope, of_cpu.holder(dep)),
        _ => (dep, scope, None),
    };
    Facts {
        cpu,
        is_nohz_full: housekeeping::is_nohz_full(cpu),
        is_tracked: area.head.active.load(Ordering::Relaxed) != 0,
        is_changing: live::is_changing(cpu),
        allowed,
        tasks,
        deps: deps.map(explained).collect(),
        ticks: area.time.tick_is_on(),
        timer_armed: timer::any_armed(area),
        lines,
        posted: deferred(area.head.context.0.load()),
        callbacks: area.rcu.has_callbacks(),
    }
}

/// Keep the reasons, for whoever reads the file.
fn refused(cpu: u32, me: &Task, reasons: &[Blocker<Site>]) -> Result<(), Errno> {
    let mut text = String::new();
    let comm = task::comm_field(&me.comm());
    let _ = writeln!(
        text,
        "refused cpu={cpu} task={} comm={comm} time_ns={} reasons={}",
        me.tid(),
        tsc::now_ns(),
        reasons.len()
    );
    for reason in reasons {
        let _ = write!(text, "blocked cpu={cpu} ");
        let _ = reason.format(&mut text, site);
        text.push('\n');
    }
    let old = core::mem::replace(&mut *percpu::of(cpu).lease.refusal.lock(), text);
    drop(old);
    Err(EBUSY)
}

fn site(site: Site, out: &mut String) -> fmt::Result {
    site.map_or(Ok(()), |site| write!(out, " site={}:{}", site.file(), site.line()))
}

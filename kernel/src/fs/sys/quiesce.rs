//! /sys/kernel/quiesce: what each CPU does, why its tick is on, what it was interrupted by, and an IPI on demand.
//!
//! Looking at an isolated CPU reads its memory and never interrupts it. Line formats are fixed: programs read them.

use crate::arch::{machine_check, tsc};
use crate::errno::{self, Errno};
use crate::fs::generated::{Item, Leaf, Numbered};
use crate::isolation::housekeeping;
use crate::percpu::{self, Percpu};
use crate::sched::{self, task};
use crate::smp::call_function;
use crate::syscall::table::TABLE;
use crate::time::tick::{self, Site};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use kcore::interruption::Cause;
use kcore::ipi_ledger::IpiCause;
use kcore::system_call_name;
use kcore::tick::{Scope, TickDep};

/// What is in it.
pub static ITEMS: &[Item] = &[
    Item::File("tsc_khz", |_, out| {
        let _ = writeln!(out, "{}", tsc::khz());
        Ok(())
    }),
    Item::File("cpus", cpus),
    Item::Special("log", super::log::open),
    Item::Control("inject_ipi", inject_ipi),
    Item::File("ipi", super::ipi::read),
    Item::File("memory", super::memory::read),
    Item::File("protection", super::protection::read),
    Item::Setting("isolate", super::isolate::read, super::isolate::write),
    Item::Mapped("lease", super::lease::read, super::lease::write, super::lease::map),
    Item::File("machine_checks", |_, out| {
        let (seen, cpu, last) = machine_check::seen();
        let _ = writeln!(
            out,
            "seen={seen} cpu={cpu} bank={} status={:#x} address={:#x} misc={:#x}",
            last.number, last.status, last.address, last.misc
        );
        Ok(())
    }),
    Item::Setting("watch", super::watch::read, super::watch::write),
    Item::Dir("debug", super::debug::ITEMS),
    Item::File("missing", |_, out| {
        crate::process::missing::describe(out);
        Ok(())
    }),
    // All calls that have a number in Linux and are not here, from the table itself: number and name.
    Item::File("absent", |_, out| {
        for number in TABLE.absent() {
            if let Some(name) = system_call_name::name(number) {
                let _ = writeln!(out, "{number} {name}");
            }
        }
        Ok(())
    }),
    Item::File("console", |_, out| {
        let _ = writeln!(out, "overflows {}", crate::tty::console::overflows());
        Ok(())
    }),
    Item::File("rcu", |_, out| {
        [&crate::rcu::NORMAL, &crate::rcu::EXPEDITED].into_iter().for_each(|flavor| grace_periods(flavor, out));
        other_rcu(out);
        Ok(())
    }),
    Item::Numbered(Numbered {
        prefix: "cpu",
        exists: |_, cpu| percpu::is_online(cpu),
        all: |_| percpu::online().iter().collect::<Vec<u32>>(),
        argument: |_, cpu| cpu as u64,
        leaf: Leaf::Dir(&[Item::File("entries", entries), Item::File("why", why)]),
    }),
];

fn grace_periods(flavor: &crate::rcu::Flavor, out: &mut String) {
    let stats = flavor.stats();
    let (latency, driver) = (&stats.latency_ns, &stats.driver_ticks);
    let _ = write!(
        out,
        "kind={} grace_periods={} total_ns={} shortest_ns={} longest_ns={} driver_ticks={} driver_least_ticks={} stalls={}",
        flavor.name,
        latency.count(),
        latency.total(),
        latency.least(),
        latency.most(),
        driver.total(),
        driver.least(),
        stats.stalls
    );
    // How many took less than so many ns, and not less than half of it.
    for (below, count) in latency.classes() {
        let _ = write!(out, " below_{below}={count}");
    }
    out.push('\n');
}

/// Readers that sleep, and what was given to be freed.
fn other_rcu(out: &mut String) {
    for domain in crate::rcu::srcu::DOMAINS {
        let (periods, readers) = domain.counts();
        let _ = writeln!(out, "srcu={} grace_periods={periods} readers={readers}", domain.name);
    }
    let counts = crate::rcu::deferred_free::counts();
    let _ = writeln!(
        out,
        "deferred_free given={} given_bytes={} freed={} waiting={} batches={} reclaims={} waited={}",
        counts.given, counts.given_bytes, counts.freed, counts.waiting, counts.batches, counts.reclaims, counts.waited
    );
}

/// Interrupt counts of a CPU by cause, NMIs apart.
fn interrupt_counts(area: &Percpu) -> impl Iterator<Item = (Cause, u64)> {
    let causes = Cause::INTERRUPTS.into_iter().filter(|c| *c != Cause::Nmi);
    causes.map(|c| (c, area.head.irqs[c.code() as usize].load(Ordering::Relaxed)))
}

fn cpus(_: u64, out: &mut String) -> Result<(), Errno> {
    for cpu in percpu::online().iter() {
        if let Some(area) = percpu::get(cpu) {
            cpu_line(cpu, area, out);
        }
    }
    Ok(())
}

fn cpu_line(cpu: u32, area: &Percpu, out: &mut String) {
    let head = &area.head;
    let load = |field: &core::sync::atomic::AtomicU64| field.load(Ordering::Relaxed);
    let tracked = head.active.load(Ordering::Relaxed) != 0;
    let state = sched::describe_cpu(cpu);
    let since_tsc = match state {
        "idle" => load(&area.state_since_tsc),
        _ if tracked => load(&head.since_tsc),
        _ => load(&area.state_since_tsc),
    };
    // What has not been set yet counts from boot.
    let since_ns = tsc::ticks_to_ns(since_tsc.saturating_sub(tsc::boot()));
    let now_ns = tsc::now_ns().max(since_ns);
    let tick = if area.time.tick_is_on() { "on" } else { "off" };
    let nmis = load(&head.nmis);
    let interrupts: u64 = interrupt_counts(area).map(|c| c.1).sum::<u64>() + nmis;
    let all = load(&head.syscalls) + load(&head.exceptions) + interrupts;
    let isolated = housekeeping::is_isolated(cpu) as u32;
    let _ = write!(
        out,
        "cpu={cpu} state={state} since_ns={since_ns} now_ns={now_ns} tick={tick} isolated={isolated} tracked={} \
         entries={all} interrupts={interrupts}",
        tracked as u32
    );
    if let Some(running) = sched::running_on(cpu) {
        let _ = write!(out, " task={} comm={}", running.tid(), task::comm_field(&running.comm()));
    }
    out.push('\n');
}

fn entries(cpu: u64, out: &mut String) -> Result<(), Errno> {
    let area = percpu::get(cpu as u32).ok_or(errno::ENXIO)?;
    let head = &area.head;
    for (name, count) in [("syscall", &head.syscalls), ("exception", &head.exceptions), ("nmi", &head.nmis)] {
        let _ = writeln!(out, "{name} {}", count.load(Ordering::Relaxed));
    }
    for (cause, count) in interrupt_counts(area) {
        let _ = writeln!(out, "{} {count}", cause.name());
    }
    Ok(())
}

fn origin(site: Site, task: u32, comm: &[u8; 16], out: &mut String) {
    if let Some(site) = site {
        let _ = write!(out, " site={}:{}", site.file(), site.line());
    }
    if comm[0] != 0 {
        let _ = write!(out, " task={task} comm={}", task::comm_field(comm));
    }
}

fn why(cpu: u64, out: &mut String) -> Result<(), Errno> {
    let area = percpu::get(cpu as u32).ok_or(errno::ENXIO)?;
    let history = area.time.history.lock_irq();
    let (held, log, since_ns) = (history.held.clone(), history.log.clone(), history.since_ns);
    drop(history);
    let on = area.time.tick_is_on();
    let now_ns = tsc::now_ns().max(since_ns);
    let _ = writeln!(out, "cpu={cpu} tick={} since_ns={since_ns} now_ns={now_ns}", if on { "on" } else { "off" });
    let mask = area.time.deps.load();
    for (dep, h) in held.iter().filter(|(dep, _)| mask & dep.bit() != 0) {
        // Housekeeping is not about one CPU: it is what all CPUs but the isolated ones do.
        let scope = if dep == TickDep::Housekeeping { Scope::Global } else { Scope::Cpu };
        let _ = write!(out, "held dep={} scope={}", dep.name(), scope.name());
        // By the name that it has now: it may have called execve since.
        let comm = task::with(h.task, |t| t.comm()).unwrap_or(h.comm);
        origin(h.site, h.task, &comm, out);
        let _ = writeln!(out, " since_ns={}", h.since_ns);
    }
    // The other masks keep no holder.
    let mut bare = |mask: u32, scope: Scope, whose: Option<(u32, [u8; 16])>| {
        for dep in TickDep::ALL.into_iter().filter(|dep| mask & dep.bit() != 0) {
            let _ = write!(out, "held dep={} scope={}", dep.name(), scope.name());
            if let Some((task, comm)) = whose {
                origin(None, task, &comm, out);
            }
            out.push('\n');
        }
    };
    bare(tick::GLOBAL.load(), Scope::Global, None);
    if let Some(running) = sched::running_on(cpu as u32) {
        bare(running.tick_deps.load(), Scope::Task, Some((running.tid(), running.comm())));
    }
    for c in log.iter() {
        let dep = c.dep.map_or("none", |d| d.name());
        let tick = if c.on { "on" } else { "off" };
        let _ = write!(out, "change at_ns={} tick={tick} dep={dep} scope={}", c.at_ns, c.scope.name());
        origin(c.site, c.task, &c.comm, out);
        out.push('\n');
    }
    Ok(())
}

/// One function-call IPI to the CPU whose number is written.
fn inject_ipi(_: u64, text: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| errno::EINVAL)?;
    let cpu: u32 = text.trim().parse().map_err(|_| errno::EINVAL)?;
    if !percpu::is_online(cpu) {
        return Err(errno::ENXIO);
    }
    call_function::call(cpu, IpiCause::Injected, |_| {}, 0);
    Ok(())
}

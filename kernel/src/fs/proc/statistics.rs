//! /proc files that count: stat, interrupts, uptime, loadavg.
//!
//! Nothing is sampled: times are computed from what each CPU notes at its transitions. On a CPU that is not tracked user and kernel time cannot be
//! told apart; both count as user time.

use crate::arch::{serial, tsc};
use crate::errno::Errno;
use crate::percpu::{self, Percpu};
use crate::sched::{self, task};
use alloc::string::String;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use kcore::interruption::Cause;

/// Linux's USER_HZ: the unit of times in /proc.
const USER_HZ: u64 = 100;

/// Nanoseconds in units of 1/USER_HZ seconds.
pub(super) fn user_ticks(ns: u64) -> u64 {
    ns / (1_000_000_000 / USER_HZ)
}

/// What a CPU did with its time since boot, ns.
struct Times {
    user: u64,
    system: u64,
    idle: u64,
}

fn times(cpu: u32, area: &Percpu) -> Times {
    let all = tsc::now_ns();
    let head = &area.head;
    if head.active.load(Ordering::Relaxed) != 0 {
        let user = tsc::ticks_to_ns(head.user_ticks.load(Ordering::Relaxed)).min(all);
        let system = tsc::ticks_to_ns(head.kernel_ticks.load(Ordering::Relaxed)).min(all - user);
        return Times { user, system, idle: all - user - system };
    }
    let idle = sched::idle_ns(cpu).min(all);
    Times { user: all - idle, system: 0, idle }
}

fn sum(areas: impl Iterator<Item = (u32, &'static Percpu)>) -> Times {
    let mut total = Times { user: 0, system: 0, idle: 0 };
    for (cpu, area) in areas {
        let t = times(cpu, area);
        total.user += t.user;
        total.system += t.system;
        total.idle += t.idle;
    }
    total
}

fn online() -> impl Iterator<Item = (u32, &'static Percpu)> {
    (0..percpu::nr_cpus()).filter(|&cpu| percpu::is_online(cpu)).filter_map(|cpu| Some((cpu, percpu::get(cpu)?)))
}

fn count(area: &Percpu, cause: Cause) -> u64 {
    area.head.irqs[cause.code() as usize].load(Ordering::Relaxed)
}

pub(super) fn stat(_: u64, out: &mut String) -> Result<(), Errno> {
    let mut row = |name: core::fmt::Arguments<'_>, t: &Times| {
        let (user, system, idle) = (user_ticks(t.user), user_ticks(t.system), user_ticks(t.idle));
        let _ = writeln!(out, "{name} {user} 0 {system} {idle} 0 0 0 0 0 0");
    };
    row(format_args!("cpu "), &sum(online()));
    for (cpu, area) in online() {
        row(format_args!("cpu{cpu}"), &times(cpu, area));
    }
    let interrupts: u64 = online().flat_map(|(_, a)| Cause::INTERRUPTS.map(|c| count(a, c))).sum();
    let switches: u64 = online().map(|(_, a)| a.sched.switches.load(Ordering::Relaxed)).sum();
    let _ = writeln!(out, "intr {interrupts}\nctxt {switches}\nbtime {}", crate::time::wall::at_0_ns() / 1_000_000_000);
    let running = task::all().filter(|t| t.state.is_running()).count();
    let _ = writeln!(out, "processes {}\nprocs_running {running}\nprocs_blocked 0", task::last_id());
    Ok(())
}

pub(super) fn uptime(_: u64, out: &mut String) -> Result<(), Errno> {
    let (up, idle) = (tsc::now_ns() / 10_000_000, sum(online()).idle / 10_000_000);
    let _ = writeln!(out, "{}.{:02} {}.{:02}", up / 100, up % 100, idle / 100, idle % 100);
    Ok(())
}

/// There is no sampling, so no averages: they read as what runs now.
pub(super) fn loadavg(_: u64, out: &mut String) -> Result<(), Errno> {
    let running = task::all().filter(|t| t.state.is_running()).count();
    let _ = writeln!(out, "{running}.00 {running}.00 {running}.00 {running}/{} {}", task::count(), task::last_id());
    Ok(())
}

/// Linux's format: arch/x86/kernel/irq.c, kernel/irq/proc.c.
pub(super) fn interrupts(_: u64, out: &mut String) -> Result<(), Errno> {
    let _ = write!(out, "{:11}", "");
    for (cpu, _) in online() {
        let _ = write!(out, "CPU{cpu:<8}");
    }
    out.push('\n');
    let row = |label: core::fmt::Arguments<'_>, what: &str, f: &dyn Fn(&Percpu) -> u64, out: &mut String| {
        let _ = out.write_fmt(label);
        for (_, area) in online() {
            let _ = write!(out, "{:>10} ", f(area));
        }
        let _ = writeln!(out, " {what}");
    };
    let serial_irq = serial::COM1_IRQ;
    row(format_args!("{serial_irq:>3}: "), "IO-APIC   4-edge      ttyS0", &|a| count(a, Cause::Serial), out);
    row(format_args!("NMI: "), "Non-maskable interrupts", &|a| a.head.nmis.load(Ordering::Relaxed), out);
    let rows = [
        ("LOC", "Local timer interrupts", Cause::Timer),
        ("SPU", "Spurious interrupts", Cause::Spurious),
        ("RES", "Rescheduling interrupts", Cause::Reschedule),
        ("CAL", "Function call interrupts", Cause::CallFunction),
        ("TLB", "TLB shootdowns", Cause::TlbFlush),
        ("DEV", "Interrupts of other devices", Cause::Device),
    ];
    for (label, what, cause) in rows {
        row(format_args!("{label}: "), what, &|a| count(a, cause), out);
    }
    let errors: u64 = online().map(|(_, a)| count(a, Cause::ApicError)).sum();
    let _ = writeln!(out, "ERR: {errors:>10}");
    Ok(())
}

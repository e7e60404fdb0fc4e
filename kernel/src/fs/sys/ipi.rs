//! /sys/kernel/quiesce/ipi: who interrupted whom, how often, why, from where, what it cost there, and how many interruptions were
//! avoided because their work could wait.
//!
//! One line for each sender, target, cause and site. What an interruption cost is known of isolated CPUs, whose log has each one.

use crate::arch::tsc;
use crate::errno::Errno;
use crate::percpu;
use crate::sched::task;
use crate::trace::interruption_log;
use alloc::string::String;
use core::fmt::Write;
use core::panic::Location;
use kcore::ipi_ledger::Line;

/// The file.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    interruption_log::drain();
    let (mut sent, mut avoided) = (0, 0);
    for cpu in percpu::online().iter() {
        for l in percpu::of(cpu).smp.ledger.lines() {
            sent += l.sent;
            avoided += l.avoided;
            line(cpu, &l, out);
        }
    }
    let _ = writeln!(out, "total sent={sent} avoided={avoided}");
    Ok(())
}

fn line(cpu: u32, l: &Line, out: &mut String) {
    let _ = write!(out, "from={cpu}");
    if let Some(last) = &l.last {
        let _ = write!(out, " to={}", last.target);
    }
    let _ = write!(out, " cause={} sent={} avoided={}", l.cause.name(), l.sent, l.avoided);
    if let Some(last) = &l.last {
        if let Some(cost) = interruption_log::cost_of(last.target, cpu, last.site) {
            let ns = |ticks| tsc::ticks_to_ns(ticks);
            let _ =
                write!(out, " seen={} cost_ns={} longest_ns={}", cost.count, ns(cost.ticks), ns(cost.longest_ticks));
        }
        // SAFETY: only `smp::ipi` writes sites, from `&'static Location`.
        let site = unsafe { &*(last.site as *const Location<'static>) };
        let comm = task::comm_field(&last.comm);
        let _ = write!(out, " site={}:{} task={} comm={comm}", site.file(), site.line(), last.task);
    }
    out.push('\n');
}

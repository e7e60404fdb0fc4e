//! /sys/kernel/quiesce/isolate: `CPU on`, `CPU on keep` or `CPU off` turns a CPU into one that is left alone, and back.
//!
//! Read, it says for each CPU what it is, what its last flip moved away, and, where it is isolated, what is left that could interrupt it.
//! The isolated CPU is not interrupted for that. Line formats are fixed: programs read them.

use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::isolation::leftover::{self, Leftover};
use crate::isolation::live::{self, Moved, Refused};
use crate::isolation::{housekeeping, lease};
use crate::percpu;
use crate::sched::task::{self, NewTaskError};
use crate::static_key::TRACKING;
use alloc::string::String;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use kcore::isolate_request::{self, Refusal};

/// The file, read.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    let _ = writeln!(out, "tracking={} flips={}", if TRACKING.is_on() { "on" } else { "off" }, live::flips());
    for cpu in percpu::online().iter() {
        let isolated = housekeeping::is_isolated(cpu);
        let tracked = percpu::of(cpu).head.active.load(Ordering::Relaxed);
        let (leased, changing) = (lease::is_held(cpu) as u32, live::is_changing(cpu) as u32);
        let _ = writeln!(
            out,
            "cpu={cpu} isolated={} tracked={tracked} leased={leased} changing={changing}",
            isolated as u32
        );
        live::moved(cpu).iter().for_each(|moved| moved_line(cpu, moved, out));
        if isolated {
            leftover::of(cpu).iter().for_each(|left| left_line(cpu, left, out));
        }
    }
    Ok(())
}

fn moved_line(cpu: u32, moved: &Moved, out: &mut String) {
    let _ = match moved {
        Moved::Task(id, comm, to) => {
            let to = to.intersection(&percpu::online());
            writeln!(out, "moved from={cpu} what=task task={id} comm={} to={to}", task::comm_field(comm))
        }
        Moved::Timer(id, comm) => {
            writeln!(out, "moved from={cpu} what=timer task={id} comm={}", task::comm_field(comm))
        }
        Moved::Line(line, to) => writeln!(out, "moved from={cpu} what=irq irq={} name={} to={to}", line.irq, line.name),
    };
}

fn left_line(cpu: u32, left: &Leftover, out: &mut String) {
    let name = |task: &task::Task| task::comm_field(&task.comm());
    let _ = match left {
        Leftover::Task(t) => {
            let (state, asked) = (t.state.letter(), t.asked_for().is_some() as u32);
            writeln!(out, "left on={cpu} what=task task={} comm={} state={state} asked={asked}", t.tid(), name(t))
        }
        Leftover::Timer(t, deadline) => {
            let in_ns = tsc::ticks_to_ns(deadline.saturating_sub(tsc::now()));
            writeln!(out, "left on={cpu} what=timer task={} comm={} in_ns={in_ns}", t.tid(), name(t))
        }
        Leftover::Tick(dep, scope) => {
            writeln!(out, "left on={cpu} what=tick dep={} scope={}", dep.name(), scope.name())
        }
        Leftover::Line(line) => writeln!(out, "left on={cpu} what=irq irq={} name={}", line.irq, line.name),
    };
}

/// The file, written. What is wrong is told in the log.
pub fn write(_: u64, bytes: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(bytes).map_err(|_| {
        crate::warning!("isolate: what was written is no text");
        errno::EINVAL
    })?;
    let request = isolate_request::parse(text).map_err(|why| {
        crate::warning!("isolate: {why} (CPU on, CPU on keep, or CPU off)");
        errno::EINVAL
    })?;
    live::flip(&request).map_err(|refused| match refused {
        Refused::Rule(why) => {
            crate::warning!("isolate: CPU {}: {why}", request.cpu);
            if why == Refusal::NoSuchCpu { errno::ENODEV } else { errno::EBUSY }
        }
        Refused::Parking(NewTaskError::NoId) => errno::EAGAIN,
        Refused::Parking(NewTaskError::NoMemory) => errno::ENOMEM,
    })
}

//! /sys/kernel/tracing: the latency trace by Linux's names. Nothing here is sent to the CPUs that are traced.
//!
//! Source of names and formats: Linux Documentation/trace/ftrace.rst and events.rst. What is traced is chosen at boot
//! (`trace_event=`) and by set_event; events with sites in entry text (system calls, context) at boot alone.

use super::trace_file;
use crate::arch::tsc;
use crate::errno::{EBUSY, EINVAL, ENOMEM, Errno};
use crate::fs::generated::{Item, Leaf, Numbered};
use crate::percpu;
use crate::trace::{reader, rings};
use alloc::string::String;
use core::fmt::Write;
use kcore::cpu_set::CpuSet;
use kcore::trace_event::{self, EventMask};

/// What is in it.
pub static ITEMS: &[Item] = &[
    Item::Special("trace", |_| trace_file::open_trace(trace_file::ALL)),
    Item::Special("trace_pipe", |_| trace_file::open_pipe(trace_file::ALL)),
    Item::File("available_events", |_, out| events(EventMask::ALL, out)),
    Item::Setting("set_event", |_, out| events(rings::selected(), out), |_, text| choose(text)),
    Item::Setting("buffer_size_kb", |_, out| line(rings::size_kib(), out), |_, text| resize(text)),
    Item::Dir(
        "per_cpu",
        &[Item::Numbered(Numbered {
            prefix: "cpu",
            exists: |_, cpu| percpu::is_online(cpu),
            all: |_| percpu::online().iter().collect(),
            argument: |_, cpu| cpu as u64,
            leaf: Leaf::Dir(PER_CPU),
        })],
    ),
    Item::Setting(
        "tracing_on",
        |_, out| line(u32::from(rings::is_on()), out),
        |_, text| {
            rings::set_on(match text.trim_ascii() {
                b"0" => false,
                b"1" => true,
                _ => return Err(EINVAL),
            });
            Ok(())
        },
    ),
    Item::Setting(
        "tracing_cpumask",
        |_, out| line(rings::cpus().mask(percpu::nr_cpus()), out),
        |_, text| {
            let cpus = core::str::from_utf8(text).ok().and_then(CpuSet::from_mask).ok_or(EINVAL)?;
            rings::set_cpus(&cpus);
            Ok(())
        },
    ),
];

/// Words as in Linux: an event or group is added, one behind `!` taken away. All or nothing: EINVAL for a word that names none, EBUSY for
/// what can be chosen at boot alone.
fn choose(text: &[u8]) -> Result<(), Errno> {
    let words = core::str::from_utf8(text).map_err(|_| EINVAL)?.split_ascii_whitespace();
    let (mut add, mut remove) = (EventMask::NONE, EventMask::NONE);
    for word in words {
        let (mask, name) = word.strip_prefix('!').map_or((&mut add, word), |name| (&mut remove, name));
        *mask = mask.union(EventMask::named(name).ok_or(EINVAL)?);
    }
    rings::choose(|now| EventMask((now.0 | add.0) & !remove.0)).map_err(|refused| match refused {
        rings::Refused::BootOnly => EBUSY,
        rings::Refused::Patch(error) => {
            crate::warning!("set_event: {error}");
            EINVAL
        }
    })
}

/// KiB of each CPU's ring, rounded up. EINVAL: no number, 0, or too much; ENOMEM: nothing has changed.
fn resize(text: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
    let kib = text.trim().parse().ok().filter(|kib| (1..=rings::MOST_KIB).contains(kib)).ok_or(EINVAL)?;
    if rings::resize(kib) { Ok(()) } else { Err(ENOMEM) }
}

static PER_CPU: &[Item] = &[
    Item::Special("trace", trace_file::open_trace),
    Item::Special("trace_pipe", trace_file::open_pipe),
    Item::File("stats", stats),
];

/// Linux's stats file. Everything written is in it once: entries that trace_pipe has still to give, overrun (overwritten before it did),
/// read events; what was never written is dropped events.
fn stats(cpu: u64, out: &mut String) -> Result<(), Errno> {
    let cpu = cpu as u32;
    let Some(ring) = rings::of(cpu) else { return Ok(()) };
    let (position, read) = reader::consumed(cpu);
    let pushed = ring.pushed();
    let oldest = position.max(ring.oldest());
    let entries = pushed.saturating_sub(oldest);
    let overrun = pushed.saturating_sub(entries + read);
    let bytes = entries * (trace_event::WORDS * size_of::<u64>()) as u64;
    line(format_args!("entries: {entries}\noverrun: {overrun}\nbytes: {bytes}"), out)?;
    let now_us = tsc::now_ns() / 1000;
    line(format_args!("now ts: {:5}.{:06}", now_us / 1_000_000, now_us % 1_000_000), out)?;
    line(format_args!("dropped events: {}\nread events: {read}", ring.dropped()), out)
}

fn events(mask: EventMask, out: &mut String) -> Result<(), Errno> {
    mask.iter().try_for_each(|event| line(format_args!("{}:{}", event.group().name(), event.name()), out))
}

fn line(value: impl core::fmt::Display, out: &mut String) -> Result<(), Errno> {
    let _ = writeln!(out, "{value}");
    Ok(())
}

//! /sys/kernel/quiesce/lease: `on [log | signal N | kill] [own] [once]` takes a lease of the writer's CPU, `off` gives it back; reading shows
//! each CPU's lease, its last breaches, and why the last request was refused.
//!
//! Byte `4096 * CPU` of it can be mapped read-only: the CPU's page (`kcore::lease_page`), to be read without a system call.

use crate::arch::page_table::PAGE_SIZE;
use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::isolation::{lease, lease_request};
use crate::mm::address_space::Content;
use crate::mm::special;
use crate::percpu;
use crate::process::current_thread;
use crate::sched::task;
use alloc::string::String;
use core::fmt::Write;
use core::panic::Location;
use core::sync::atomic::Ordering;
use kcore::lease::{Breach, Request, State, parse};
use kcore::lease_page::Contents;
use kcore::trace_ring::{Cursor, Next};

/// Take it or give it back.
pub fn write(_: u64, text: &[u8]) -> Result<(), Errno> {
    match core::str::from_utf8(text).ok().and_then(parse).ok_or(errno::EINVAL)? {
        Request::Begin(terms) => {
            let thread = current_thread();
            let ends = || thread.process.ending().is_some() || thread.must_end.load(Ordering::SeqCst);
            lease_request::request(terms, ends)
        }
        Request::End => lease_request::give_back(),
    }
}

/// All CPUs of which there is something to tell.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    for cpu in percpu::online().iter() {
        let slot = &percpu::of(cpu).lease;
        if let Some(page) = slot.page() {
            let words = loop {
                match page.read() {
                    Some(words) => break words,
                    None => core::hint::spin_loop(),
                }
            };
            if let Some(contents) = Contents::decode(&words).filter(|c| c.number > 0 || c.state != State::Free) {
                state(&contents, out);
                breaches(cpu, contents.number, out);
            }
        }
        let refusal = slot.refusal.lock().clone();
        out.push_str(&refusal);
    }
    Ok(())
}

fn ns(at_tsc: u64) -> u64 {
    tsc::ticks_to_ns(at_tsc.saturating_sub(tsc::boot()))
}

fn state(c: &Contents, out: &mut String) {
    let _ = write!(out, "cpu={} state={} lease={} task={}", c.cpu, c.state.name(), c.number, c.holder);
    if c.state != State::Ended
        && let Some(comm) = task::with(c.holder, |t| t.comm())
    {
        let _ = write!(out, " comm={}", task::comm_field(&comm));
    }
    let _ = write!(out, " on_breach={}", c.terms);
    if c.state != State::Requested {
        let _ = write!(out, " since_ns={}", ns(c.granted_tsc));
    }
    if let Some(end) = c.end {
        let _ = write!(out, " ended_ns={} end={}", ns(c.ended_tsc), end.name());
    }
    let _ = writeln!(out, " entries={} own={} breaches={}", c.entries, c.own_entries, c.breaches);
}

/// Those of lease `number` that are kept.
fn breaches(cpu: u32, number: u64, out: &mut String) {
    let ring = &percpu::of(cpu).lease.breaches;
    let mut cursor = Cursor::at_last(ring, lease::BREACHES_KEPT as u64);
    loop {
        let words = match cursor.next(ring) {
            Next::Empty => return,
            Next::Lost(_) => continue,
            Next::Record(words) => words,
        };
        if let Some(breach) = Breach::decode(&words).filter(|b| b.lease == number) {
            line(cpu, &breach, out);
        }
    }
}

fn line(cpu: u32, b: &Breach, out: &mut String) {
    let _ = write!(out, "breach cpu={cpu} number={} time_ns={} cause={}", b.number, ns(b.tsc), b.kind.name());
    if let Some(s) = &b.sender {
        let _ = write!(out, " sender_cpu={} sender_task={} sender_comm={}", s.cpu, s.task, task::comm_field(&s.comm));
        // SAFETY: 0, or what `smp::ipi` wrote from a `&'static Location`.
        if let Some(site) = unsafe { (s.site as *const Location<'static>).as_ref() } {
            let _ = write!(out, " site={}:{}", site.file(), site.line());
        }
    }
    out.push('\n');
}

/// mmap: the pages of CPUs.
pub fn map(_: u64, offset: u64, len: u64) -> Result<Content, Errno> {
    let (first, count) = (offset / PAGE_SIZE, len.div_ceil(PAGE_SIZE));
    let cpus = first..first.checked_add(count).ok_or(errno::ENXIO)?;
    if cpus.end > percpu::nr_cpus() as u64 || cpus.clone().any(|cpu| !percpu::is_online(cpu as u32)) {
        return Err(errno::ENXIO);
    }
    cpus.into_iter().try_for_each(|cpu| lease::ensure_page(cpu as u32).map(|_| ())).ok_or(errno::ENOMEM)?;
    Ok(Content::Special(special::lease_page(first as u32)))
}

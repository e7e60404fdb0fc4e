//! /sys/kernel/quiesce/watch: the kernel's watchpoints and breakpoints. `PLACE LEN w|rw|x` watches, `PLACE off` ends that; what a place is
//! says `kcore::watch_request`.
//!
//! Read, it says of each how often it was hit, and of the last hit where, on which CPU, by which task and, as `host symbolize` takes
//! it, from where it was called. Line formats are fixed: programs read them.

use crate::errno::{EINVAL, Errno};
use crate::isolation::watchpoint;
use crate::sched::task;
use alloc::string::String;
use core::fmt::Write;
use kcore::debug_register::Kind;
use kcore::watch_request::{Request, parse};

/// The file, read.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    for w in watchpoint::all() {
        let kind = match w.breakpoint.kind {
            Kind::Write => "w",
            Kind::Access => "rw",
            Kind::Execute => "x",
        };
        let _ = write!(
            out,
            "address={:#x} len={} kind={kind} hits={} rip={:#x} cpu={}",
            w.address, w.breakpoint.len, w.hits, w.stack[0], w.cpu
        );
        if let Some(comm) = task::with(w.tid as u32, |task| task.comm()) {
            let _ = write!(out, " task={} comm={}", w.tid, task::comm_field(&comm));
        }
        let mut separator = " backtrace=";
        for address in w.stack.iter().take_while(|address| **address != 0) {
            let _ = write!(out, "{separator}{address:#x}");
            separator = ",";
        }
        out.push('\n');
    }
    Ok(())
}

/// The file, written.
pub fn write(_: u64, text: &[u8]) -> Result<(), Errno> {
    match core::str::from_utf8(text).ok().and_then(parse).ok_or(EINVAL)? {
        Request::Off(place) => watchpoint::clear(watchpoint::resolve(place)?),
        Request::Watch(place, breakpoint) => watchpoint::set(watchpoint::resolve(place)?, breakpoint),
    }
}

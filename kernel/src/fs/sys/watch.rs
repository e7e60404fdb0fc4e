//! /sys/kernel/quiesce/watch: the kernel's watchpoints. `ADDRESS LEN w|rw` watches, `ADDRESS off` ends that.
//!
//! Read, it says of each how often it was hit and where last. Line formats are fixed: programs read them.

use crate::errno::{EINVAL, Errno};
use crate::isolation::watchpoint;
use alloc::string::String;
use core::fmt::Write;
use kcore::debug_register::{Breakpoint, Kind};

/// The file, read.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    for w in watchpoint::all() {
        let kind = if w.breakpoint.kind == Kind::Write { "w" } else { "rw" };
        let _ = writeln!(
            out,
            "address={:#x} len={} kind={kind} hits={} rip={:#x} cpu={}",
            w.address, w.breakpoint.len, w.hits, w.rip, w.cpu
        );
    }
    Ok(())
}

/// The file, written.
pub fn write(_: u64, text: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
    let mut words = text.split_whitespace();
    let address = words.next().and_then(|w| w.strip_prefix("0x")).ok_or(EINVAL)?;
    let address = u64::from_str_radix(address, 16).map_err(|_| EINVAL)?;
    let (second, kind, rest) = (words.next().ok_or(EINVAL)?, words.next(), words.next());
    match (second, kind, rest) {
        ("off", None, None) => watchpoint::clear(address),
        (len, Some(kind @ ("w" | "rw")), None) => {
            let len = len.parse().ok().filter(|len| [1, 2, 4, 8].contains(len)).ok_or(EINVAL)?;
            let kind = if kind == "w" { Kind::Write } else { Kind::Access };
            watchpoint::set(address, Breakpoint { kind, len })
        }
        _ => Err(EINVAL),
    }
}

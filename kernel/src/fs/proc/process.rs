//! /proc/PID.

use crate::errno::{self, Errno};
use crate::fs::generated::Item;
use crate::sched::task::{self, TaskRef};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// What is in it.
pub static ITEMS: &[Item] = &[Item::File("comm", comm)];

pub(super) fn exists(_: u64, pid: u32) -> bool {
    task::by_index(pid).is_some() && pid < task::PID_MAX
}

pub(super) fn all(_: u64) -> Vec<u32> {
    task::all().map(|t| t.tid()).collect()
}

fn of(pid: u64) -> Result<TaskRef, Errno> {
    task::by_index(pid as u32).ok_or(errno::ESRCH)
}

fn comm(pid: u64, out: &mut String) -> Result<(), Errno> {
    let _ = writeln!(out, "{}", task::comm_str(&of(pid)?.comm()));
    Ok(())
}

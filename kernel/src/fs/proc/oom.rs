//! /proc/PID/oom_score, oom_score_adj and oom_adj: how soon a process is ended when memory runs out.
//!
//! Source: proc_pid_oom_score(5), proc_pid_oom_score_adj(5), proc_pid_oom_adj(5).

use super::process::process;
use crate::errno::{EINVAL, Errno};
use crate::process::oom;
use alloc::string::String;
use core::sync::atomic::Ordering;
use kcore::oom::{MOST, NEVER};

/// oom_adj's own "never", and its greatest value.
const OLD_NEVER: i32 = -17;
const OLD_MOST: i32 = 15;

fn number(text: &[u8], least: i32, most: i32) -> Result<i32, Errno> {
    let text = core::str::from_utf8(text).map_err(|_| EINVAL)?;
    text.trim().parse().ok().filter(|n| (least..=most).contains(n)).ok_or(EINVAL)
}

pub(super) fn score(pid: u64, out: &mut String) -> Result<(), Errno> {
    let score = oom::candidate(&*process(pid)?).map_or(0, |c| c.score(oom::total_pages()));
    super::line(score, out)
}

pub(super) fn adjustment(pid: u64, out: &mut String) -> Result<(), Errno> {
    super::line(process(pid)?.oom_score_adj.load(Ordering::Relaxed), out)
}

pub(super) fn set_adjustment(pid: u64, text: &[u8]) -> Result<(), Errno> {
    process(pid)?.oom_score_adj.store(number(text, NEVER, MOST)?, Ordering::Relaxed);
    Ok(())
}

pub(super) fn old_adjustment(pid: u64, out: &mut String) -> Result<(), Errno> {
    let now = process(pid)?.oom_score_adj.load(Ordering::Relaxed);
    super::line(if now == MOST { OLD_MOST } else { now * -OLD_NEVER / MOST }, out)
}

/// The two scales meet at 0 and at their ends.
pub(super) fn set_old_adjustment(pid: u64, text: &[u8]) -> Result<(), Errno> {
    let old = number(text, OLD_NEVER, OLD_MOST)?;
    let new = if old == OLD_MOST { MOST } else { old * MOST / -OLD_NEVER };
    process(pid)?.oom_score_adj.store(new, Ordering::Relaxed);
    Ok(())
}

//! What programs asked for that is not there, for /sys/kernel/quiesce/missing and the command `missing`.
//!
//! Process context; noted where a call gives ENOSYS, or refuses an operation that it does not have.

use crate::sched;
use crate::spin_lock::{SpinLock, rank};
use alloc::string::String;
use core::fmt::Write;
use kcore::missing_calls::MissingCalls;

static ASKED: SpinLock<MissingCalls, { rank::FILE }> = SpinLock::new(MissingCalls::new());

/// The running program asked for call `number`, which is not there.
pub fn note_call(number: u64) {
    ASKED.lock().note(number as u32, None, sched::current().comm());
}

/// The running program asked for `operation` of call `number`, which has no such operation.
pub fn note_operation(number: u32, operation: u64) {
    ASKED.lock().note(number, Some(operation as u32), sched::current().comm());
}

/// All of it, as lines.
pub fn describe(out: &mut String) {
    // Formatted from a copy: text needs memory, and the lock is one that calls wait for.
    let asked = ASKED.lock().clone();
    let _ = write!(out, "{asked}");
}

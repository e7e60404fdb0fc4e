//! futex(2). What programs do most goes its own way, without the others' registers and questions: `entry::futex_call` parts them.

use super::table::into_rax;
use crate::arch::tsc;
use crate::errno::{EINVAL, ENOSYS, Errno};
use crate::sched::{futex, priority_futex};
use crate::system_call;
use crate::time::wall::Limit;
use kcore::futex_op::FutexOp;

/// In the operation: the word is one process's.
const PRIVATE: u64 = 128;
/// FUTEX_WAIT and FUTEX_WAKE of a private word.
pub const WAIT: u64 = PRIVATE;
pub const WAKE: u64 = 1 | PRIVATE;

/// How many a wake-up is for: one at least, as Linux has it.
const fn at_most(count: u64) -> usize {
    let count = count as i32;
    if count < 1 { 1 } else { count as usize }
}

/// `WAKE`.
pub extern "C" fn futex_wake(address: u64, _op: u64, most: u64) -> i64 {
    into_rax(futex::wake_from_user(address, at_most(most)))
}

/// `WAIT` without a time limit.
pub extern "C" fn futex_wait(address: u64, _op: u64, expected: u64) -> i64 {
    futex::wait_from_user(address, expected as u32, into_rax)
}

system_call! {
    /// futex(2), all of it.
    futex_other(address, op, value, timeout, address2, value3) {
        const CLOCK_REALTIME: u64 = 256;
        let private = op & PRIVATE != 0;
        let realtime = op & CLOCK_REALTIME != 0;
        let command = op & !(PRIVATE | CLOCK_REALTIME);
        if realtime && !matches!(command, 9 | 11 | 13) {
            return Err(ENOSYS); // of these only WAIT_BITSET, WAIT_REQUEUE_PI and LOCK_PI2 have a choice of clock
        }
        // FUTEX_LOCK_PI always had this one.
        let realtime = realtime || command == 6;
        let (value, value3) = (value as u32, value3 as u32);
        let limit = |absolute: bool| -> Result<Option<Limit>, Errno> {
            if timeout == 0 {
                return Ok(None);
            }
            let ns = super::time::read_duration(timeout)?;
            Ok(Some(match (absolute, realtime) {
                (false, _) => Limit::Tsc(tsc::now().saturating_add(tsc::ns_to_ticks(ns))),
                (true, false) => Limit::Tsc(tsc::boot().saturating_add(tsc::ns_to_ticks(ns))),
                (true, true) => Limit::OfDay(ns),
            }))
        };
        match command {
            0 => futex::wait(address, private, value, u32::MAX, limit(false)?),
            9 => futex::wait(address, private, value, value3, limit(true)?),
            1 => futex::wake(address, private, at_most(value.into()), u32::MAX),
            10 => futex::wake(address, private, at_most(value.into()), value3),
            5 => {
                let op = FutexOp::decode(value3).ok_or(ENOSYS)?;
                futex::wake_op(address, address2, private, at_most(value.into()), at_most(timeout), op)
            }
            3 | 4 => {
                if value as i32 >= 0 && timeout as i32 >= 0 {
                    let expected = (command == 4).then_some(value3);
                    futex::requeue(address, address2, private, value as usize, timeout as u32 as usize, expected)
                } else {
                    Err(EINVAL)
                }
            }
            6 | 13 => priority_futex::lock(address, private, false, limit(true)?),
            8 => priority_futex::lock(address, private, true, None),
            7 => priority_futex::unlock(address, private),
            11 => futex::wait_requeue(address, address2, private, value, limit(true)?),
            12 if value == 1 && timeout as i32 >= 0 => {
                futex::requeue_to_lock(address, address2, private, timeout as u32 as usize, value3)
            }
            12 => Err(EINVAL),
            _ => Err(ENOSYS),
        }
    }
}

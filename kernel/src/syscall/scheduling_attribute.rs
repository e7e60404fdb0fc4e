//! sched_setattr(2) and sched_getattr(2): policy, priority and nice value in one structure that grows from release to release.
//!
//! Deadlines are not kept by this kernel: who asks for SCHED_DEADLINE is refused with EPERM, as Linux refuses it to who may not have it, and with
//! EINVAL where the three times make no sense. Source: Linux kernel/sched/core.c, sched_copy_attr and __sched_setscheduler.

use super::cpu::{self, BATCH, DEADLINE, FIFO, IDLE, OTHER, RESET_ON_FORK, ROUND_ROBIN};
use super::table::Calls;
use crate::errno::{E2BIG, EINVAL, EPERM, Errno};
use crate::mm::user_copy;
use crate::process::thread_of;
use crate::sched::task::TaskRef;
use crate::system_call;
use core::sync::atomic::Ordering;

/// Numbers and handlers.
pub const CALLS: Calls = &[(314, sched_setattr), (315, sched_getattr)];

/// struct sched_attr of the first release that had it, and with the two bounds of use that came later.
const FIRST_BYTES: usize = 48;
const BYTES: usize = 56;
/// Where its fields are.
const SIZE_AT: usize = 0;
const POLICY_AT: usize = 4;
const FLAGS_AT: usize = 8;
const NICE_AT: usize = 16;
const PRIORITY_AT: usize = 20;
const RUNTIME_AT: usize = 24;
const DEADLINE_AT: usize = 32;
const PERIOD_AT: usize = 40;

const FLAG_RESET_ON_FORK: u64 = 0x01;
const FLAG_KEEP_POLICY: u64 = 0x08;
const FLAG_KEEP_PARAMS: u64 = 0x10;
/// The bounds of use: taken by no kernel that does not scale frequencies, EOPNOTSUPP there.
const FLAG_BOUNDS: u64 = 0x60;
const ALL_FLAGS: u64 = 0x7f;

/// What a structure of a program says, without what lies behind the part that we know: that has to be zero.
struct Attributes([u8; BYTES]);

impl Attributes {
    fn read(at: u64) -> Result<Attributes, Errno> {
        let size = match user_copy::read::<u32>(at)? as usize {
            0 => FIRST_BYTES,
            size => size,
        };
        let too_big = || {
            user_copy::write(at, &(BYTES as u32))?;
            Err(E2BIG)
        };
        if !(FIRST_BYTES..=4096).contains(&size) {
            return too_big();
        }
        let mut bytes = [0; BYTES];
        user_copy::read_bytes(at, &mut bytes[..size.min(BYTES)])?;
        for rest in BYTES..size {
            if user_copy::read::<u8>(at + rest as u64)? != 0 {
                return too_big();
            }
        }
        Ok(Attributes(bytes))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|i| self.0[at + i]))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(core::array::from_fn(|i| self.0[at + i]))
    }

    fn set(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Whether runtime, deadline and period fit each other, and the clock.
    fn times_fit(&self) -> bool {
        let [runtime, deadline, period] = [RUNTIME_AT, DEADLINE_AT, PERIOD_AT].map(|at| self.u64(at));
        let period = if period == 0 { deadline } else { period };
        let whole = deadline != 0 && runtime >= 1 << 10 && (deadline | period) >> 63 == 0;
        // Between 100 microseconds and some 4 seconds.
        whole && period >= deadline && deadline >= runtime && (100_000..=(1 << 22) * 1000).contains(&period)
    }
}

/// Its nice value.
fn nice_of(task: &TaskRef) -> i32 {
    thread_of(task).map_or(0, |thread| thread.process.nice.load(Ordering::Relaxed))
}

system_call! {
    /// sched_setattr(2)
    sched_setattr(tid, at, call_flags) {
        if at == 0 || (tid as i32) < 0 || call_flags as u32 != 0 {
            return Err(EINVAL);
        }
        let wanted = Attributes::read(at)?;
        let flags = wanted.u64(FLAGS_AT);
        if (wanted.u32(POLICY_AT) as i32) < 0 {
            return Err(EINVAL);
        }
        let task = cpu::named(tid)?;
        let now = cpu::policy_of(&task);
        let policy = match flags & FLAG_KEEP_POLICY {
            0 => wanted.u32(POLICY_AT) as u64,
            _ => now & !RESET_ON_FORK,
        };
        let (nice, priority) = match flags & FLAG_KEEP_PARAMS {
            0 => (wanted.u32(NICE_AT) as i32, wanted.u32(PRIORITY_AT)),
            _ => (nice_of(&task), cpu::priority_of(&task)),
        };
        // sched_setscheduler(2) has the flag in the policy's number; here it has a place of its own.
        let is_one = policy & RESET_ON_FORK == 0 && flags & !ALL_FLAGS == 0;
        if !is_one || policy == DEADLINE && !(priority == 0 && wanted.times_fit()) {
            return Err(EINVAL);
        }
        if policy == DEADLINE {
            return Err(EPERM);
        }
        if flags & FLAG_BOUNDS != 0 {
            return Err(crate::errno::EOPNOTSUPP);
        }
        let reset = match (flags & FLAG_KEEP_POLICY != 0, flags & FLAG_RESET_ON_FORK != 0) {
            (true, _) => now & RESET_ON_FORK,
            (false, true) => RESET_ON_FORK,
            (false, false) => 0,
        };
        // As in Linux: with the parameters the policy is kept too, but one that does not go with them is refused.
        let policy = match flags & FLAG_KEEP_PARAMS {
            0 => policy,
            _ => cpu::class_of(policy, priority).map(|_| now & !RESET_ON_FORK)?,
        };
        cpu::set_policy(&task, (policy | reset) as u32, priority)?;
        if let (OTHER | BATCH, Some(thread)) = (policy, thread_of(&task)) {
            cpu::set_nice(&thread.process, nice);
        }
        Ok(0)
    }
}
system_call! {
    /// sched_getattr(2): as much of the structure as the caller has room for.
    sched_getattr(tid, at, room, call_flags) {
        let room = room as u32 as usize;
        if at == 0 || (tid as i32) < 0 || call_flags as u32 != 0 || !(FIRST_BYTES..=4096).contains(&room) {
            return Err(EINVAL);
        }
        let task = cpu::named(tid)?;
        let policy = cpu::policy_of(&task);
        let size = room.min(BYTES);
        let mut told = Attributes([0; BYTES]);
        told.set(SIZE_AT, size as u32);
        told.set(POLICY_AT, (policy & !RESET_ON_FORK) as u32);
        told.set(FLAGS_AT, u32::from(policy & RESET_ON_FORK != 0) * FLAG_RESET_ON_FORK as u32);
        match policy & !RESET_ON_FORK {
            FIFO | ROUND_ROBIN => told.set(PRIORITY_AT, cpu::priority_of(&task)),
            OTHER | BATCH | IDLE => told.set(NICE_AT, nice_of(&task) as u32),
            _ => {}
        }
        user_copy::write_bytes(at, &told.0[..size])?;
        Ok(0)
    }
}

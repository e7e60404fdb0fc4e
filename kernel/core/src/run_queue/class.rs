//! Scheduling classes, and the numbers by which the run queue compares them.

/// Highest FIFO priority of programs; the lowest is 1.
pub const FIFO_MAX: u8 = 99;
/// FIFO priority of the kernel's own tasks that stop a CPU: before every program.
pub const FIFO_STOP: u8 = FIFO_MAX + 1;

/// Scheduling class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Runs until it blocks or a higher priority comes; 1 to [`FIFO_STOP`], others are taken as the nearest.
    Fifo(u8),
    /// Shares by weight.
    Fair,
    /// The idle task.
    Idle,
}

/// Ranks of the classes; those of FIFO priorities are above.
pub(super) const IDLE_RANK: u32 = 0;
pub(super) const FAIR_RANK: u32 = 1;

impl Class {
    #[inline]
    pub(super) const fn rank(self) -> u32 {
        match self {
            Class::Idle => IDLE_RANK,
            Class::Fair => FAIR_RANK,
            Class::Fifo(prio) => FAIR_RANK + clamp_prio(prio) as u32,
        }
    }

    #[inline]
    pub(super) const fn of_rank(rank: u32) -> Class {
        match rank {
            IDLE_RANK => Class::Idle,
            FAIR_RANK => Class::Fair,
            r => Class::Fifo((r - FAIR_RANK) as u8),
        }
    }
}

#[inline]
const fn clamp_prio(prio: u8) -> u8 {
    if prio == 0 {
        1
    } else if prio > FIFO_STOP {
        FIFO_STOP
    } else {
        prio
    }
}

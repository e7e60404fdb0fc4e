//! More than one CPU: starting them, interrupting them, calling functions on them.

pub mod bring_up;
pub mod call_function;
pub mod deferred_work;
pub mod interrupt;
pub mod ipi;
pub mod stack_sample;

use crate::spin_lock::{SpinLock, rank};
use core::sync::atomic::{AtomicPtr, AtomicU64};
use kcore::ipi_ledger::Ledger;

/// A CPU's incoming IPI state.
pub struct CpuSmp {
    /// Function calls waiting for this CPU.
    pub calls: AtomicPtr<call_function::Call>,
    /// Who sent the IPIs under way: kept for isolated CPUs only.
    pub senders: SpinLock<ipi::Senders, { rank::TICK }>,
    /// IPIs whose sender could not be kept.
    pub senders_lost: AtomicU64,
    /// What this CPU sent to others, and what it left for them.
    pub ledger: Ledger,
}

impl CpuSmp {
    /// Nothing under way.
    pub const fn new() -> Self {
        Self {
            calls: AtomicPtr::new(core::ptr::null_mut()),
            senders: SpinLock::new(ipi::Senders::new()),
            senders_lost: AtomicU64::new(0),
            ledger: Ledger::new(),
        }
    }
}

//! Which CPUs are left alone, and what that means for interrupts, timers, callbacks and placement.

pub mod housekeeping;
pub mod irq_affinity;
pub mod lease;
pub mod lease_request;
pub mod leftover;
pub mod live;
mod parking;
pub mod watchpoint;

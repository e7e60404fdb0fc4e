//! Which CPUs are left alone, and what that means for interrupts, timers, callbacks and placement.

pub mod housekeeping;
pub mod lease;

//! What the scenarios in `tests/` use: a guest under test (`vm`) and the runner as a program (`run_smp`).

pub mod run_smp;
pub mod vm;

pub use vm::{Failed, Finished, Vm};

/// The result of a scenario.
pub type Outcome = Result<(), Failed>;

//! The programs with files of their own in `src/bin`, a module each.

pub mod bench;
pub mod busy;
pub mod calls;
pub mod cpus;
pub mod enomem;
pub mod fuzz;
pub mod hazard_nmi;
pub mod init;
pub mod isolate;
pub mod lease;
pub mod log;
pub mod noise;
pub mod run;
pub mod spin;
pub mod stdlib;
pub mod storm;
pub mod torture;
pub mod trace;
pub mod why;

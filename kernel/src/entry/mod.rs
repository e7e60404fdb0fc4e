//! Every crossing between user mode, interrupts and the kernel: assembly and Rust side by side.
//!
//! Entry text is the section `.entry.text`. Nothing in it is patchable at run time but the tracking key's sites, and
//! it calls only what is listed in the ELF check. Only hardware vectors call this module.

#[macro_use]
pub mod frame;
#[macro_use]
pub mod tracking;

pub mod breakpoint;
pub mod debug;
pub mod exception;
pub mod exit_work;
pub mod futex_call;
pub mod irq;
pub mod machine_check;
pub mod nmi;
pub mod signal_return;
pub mod syscall;
pub mod trace_crossing;
pub mod traced_syscall;

//! System calls: one file a group, each with its list of numbers; `table` puts them together.

mod clock_set;
pub mod cpu;
mod extended_attribute;
pub mod file;
mod file_copy;
mod file_descriptor;
mod file_epoll;
mod file_path;
mod file_poll;
mod file_stat;
pub mod frame_call;
pub mod futex;
mod interval_timer;
pub mod memory;
mod memory_policy;
mod pid_file;
mod posix_timer;
pub mod process;
mod process_memory;
mod ptrace;
mod scheduling_attribute;
pub mod signal;
mod socket;
mod socket_message;
pub mod system;
pub mod table;
pub mod time;
pub mod traced_call;

pub use frame_call::{frame_is_gone, full_frame_dispatch, signal_return};

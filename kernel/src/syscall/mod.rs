//! System calls: one file a group, each with its list of numbers; `table` puts them together.

pub mod file;
mod file_descriptor;
mod file_path;
mod file_poll;
mod file_stat;
pub mod process;
pub mod table;

use crate::entry::frame::Frame;

/// Calls that need or edit the whole frame (see `entry::syscall::full_frame_call`).
pub extern "C" fn full_frame_dispatch(frame: &mut Frame) {
    frame.rax = -(crate::errno::ENOSYS.0 as i64) as u64;
}

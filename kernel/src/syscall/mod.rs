//! syscalls
pub mod table;
use crate::entry::frame::Frame;
pub extern "C" fn full_frame_dispatch(_: &mut Frame) {}

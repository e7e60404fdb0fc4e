//! faults
use crate::entry::frame::Frame;
pub fn user_page_fault(_: &mut Frame, _: u64, _: u64) {}
pub fn user_exception(_: &mut Frame, _: u64, _: u64) {}
pub fn kernel_user_access(_: u64, _: u64) -> bool {
    false
}
pub fn user_debug(_: &mut Frame, _: u64) {}

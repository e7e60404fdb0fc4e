//! signals
use crate::entry::frame::Frame;
pub fn deliver_pending(_: &mut Frame) {}

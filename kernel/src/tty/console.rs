//! Console terminal.
pub fn interrupt() {}

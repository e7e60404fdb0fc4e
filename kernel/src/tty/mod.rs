//! Terminals.
pub mod console;

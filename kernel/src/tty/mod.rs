//! Terminals.

pub mod console;
mod control;
pub mod input_ring;

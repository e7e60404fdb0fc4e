//! The kernel's own watchpoints in the debug registers, on all CPUs.
//!
//! Any context.

use crate::arch::debug_registers;
use crate::errno::{ENOSPC, Errno};
use kcore::debug_register::enabled;

/// ENOSPC: the kernel has one of these registers (a bit each) itself.
pub fn may_use(registers: u64) -> Result<(), Errno> {
    if registers & enabled(debug_registers::kernel_control()) != 0 { Err(ENOSPC) } else { Ok(()) }
}

//! Ends the machine: QEMU's isa-debug-exit first, then ACPI S5, then halt.
//!
//! Any context, interrupts in any state; never returns.

use super::serial::{COM1, SerialPort};
use x86_64::instructions::port::Port;

/// How the guest ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A power-off that was asked for.
    PowerOff,
    /// A panic, or nothing left to run.
    Failure,
}

const DEBUG_EXIT: u16 = 0xf4;

/// End the machine. `End::Failure` never uses S5: a runner must see the difference.
pub fn end(how: End) -> ! {
    SerialPort::new(COM1).drain();
    let value: u32 = if how == End::PowerOff { 0x10 } else { 0x11 };
    // SAFETY: 1. port 0xf4 is QEMU's isa-debug-exit, or unused; 2. no memory is touched.
    unsafe { Port::new(DEBUG_EXIT).write(value) };
    if how == End::PowerOff {
        super::acpi::enter_s5();
    }
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

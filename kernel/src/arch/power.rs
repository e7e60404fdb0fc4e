//! Ends the machine: QEMU's isa-debug-exit first, then ACPI S5 or a reset, then halt.
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
    /// The same, and the machine is to start again where it has no debug-exit device.
    FailureRestart,
}

const DEBUG_EXIT: u16 = 0xf4;
const RESET_CONTROL: u16 = 0xcf9;

/// End the machine. A failure never uses S5: a runner must see the difference.
pub fn end(how: End) -> ! {
    SerialPort::new(COM1).drain();
    let value: u32 = if how == End::PowerOff { 0x10 } else { 0x11 };
    // SAFETY: 1. port 0xf4 is QEMU's isa-debug-exit, or unused; 2. no memory is touched.
    unsafe { Port::new(DEBUG_EXIT).write(value) };
    if how == End::PowerOff {
        super::acpi::enter_s5();
    }
    if how == End::FailureRestart {
        // SAFETY: port 0xcf9 is the chipset's reset control; 6 is a full reset. Source: Intel ICH9 datasheet, "RST_CNT".
        unsafe { Port::<u8>::new(RESET_CONTROL).write(6) };
    }
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

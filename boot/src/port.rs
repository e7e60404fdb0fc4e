//! x86 I/O ports. Called by the drivers of this loader only, each for its own device's ports.

use core::arch::asm;

/// Reads a byte from `port`.
pub fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: 1. IN touches no memory. 2. The callers read only the UART, PIT, RTC and port 0x61, whose
    // reads change nothing that Rust code relies on.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to `port`.
pub fn write_u8(port: u16, value: u8) {
    // SAFETY: 1. OUT touches no memory. 2. The callers write only to the UART, PIT, PIC, RTC index and the
    // debug-exit device, none of which does DMA.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes a double word to `port`.
pub fn write_u32(port: u16, value: u32) {
    // SAFETY: as for `write_u8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

//! COM1, polled, for the loader's few lines. The UART's FIFO is left alone: what was typed already
//! belongs to the kernel.

use crate::port::{read_u8, write_u8};
use core::fmt;

const COM1: u16 = 0x3f8;
const LINE_CONTROL: u16 = COM1 + 3;
const LINE_STATUS: u16 = COM1 + 5;
/// Line status: the holding register takes a byte (bit 5); everything is sent (bit 6).
const HOLDING_EMPTY: u8 = 1 << 5;
const ALL_SENT: u8 = 1 << 6;
/// Polls after which a byte is given up on, so that a missing UART does not hang the machine.
const POLL_LIMIT: u32 = 1 << 20;

/// Sets 115200 baud, 8n1. Called once, first.
pub fn initialise() {
    const DIVISOR_ACCESS: u8 = 0x80;
    const EIGHT_N_ONE: u8 = 0x03;
    write_u8(LINE_CONTROL, DIVISOR_ACCESS | EIGHT_N_ONE);
    write_u8(COM1, 1);
    write_u8(COM1 + 1, 0);
    write_u8(LINE_CONTROL, EIGHT_N_ONE);
}

fn wait_for(status: u8) {
    for _ in 0..POLL_LIMIT {
        if read_u8(LINE_STATUS) & status != 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Waits until the last byte has left the UART.
pub fn drain() {
    wait_for(ALL_SENT);
}

/// The writer behind the error lines; a line feed is sent as CR LF.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                wait_for(HOLDING_EMPTY);
                write_u8(COM1, b'\r');
            }
            wait_for(HOLDING_EMPTY);
            write_u8(COM1, byte);
        }
        Ok(())
    }
}

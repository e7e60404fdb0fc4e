//! The end of a boot that cannot go on: one line on serial, then the failure exit. Anyone may call it.

use crate::{port, serial};
use core::fmt::{Arguments, Write};

/// QEMU's isa-debug-exit device and the value that stands for a bad end (QEMU's exit status 35).
const DEBUG_EXIT_PORT: u16 = 0xf4;
const BAD_END: u32 = 0x11;

/// Prints `boot: <message>` and ends the machine; where there is no debug-exit device, halts.
pub fn fail(message: Arguments<'_>) -> ! {
    say(message);
    serial::drain();
    port::write_u32(DEBUG_EXIT_PORT, BAD_END);
    loop {
        crate::handoff::halt();
    }
}

/// Prints `boot: <message>`.
pub fn say(message: Arguments<'_>) {
    // The serial writer never fails.
    let _ = writeln!(serial::Serial, "boot: {message}");
}

/// `fail!("…", …)`: [`fail`] with format arguments.
#[macro_export]
macro_rules! fail {
    ($($argument:tt)*) => { $crate::fail::fail(format_args!($($argument)*)) };
}

#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    match information.location() {
        Some(place) => fail!("internal error: {} at {}:{}", information.message(), place.file(), place.line()),
        None => fail!("internal error: {}", information.message()),
    }
}

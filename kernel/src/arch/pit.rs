//! PIT channel 2 as a stopwatch: the reference that every PC has, used once at boot to calibrate.
//! Boot CPU only, interrupts off. Source: 8254 data sheet, mode 0 and the counter latch command.

use x86_64::instructions::port::Port;

/// Ticks a second.
pub const PIT_HZ: u64 = 1_193_182;

const GATE: u16 = 0x61;
const GATE_OUT: u8 = 0x20;
const COMMAND: u16 = 0x43;
const DATA: u16 = 0x42;

/// The running channel: it counts down from 65535 once, for 54 ms.
pub struct Stopwatch {
    old_gate: u8,
}

impl Stopwatch {
    /// Start it.
    pub fn start() -> Self {
        // SAFETY: 1. ports of the PIT and its gate; 2. nobody else uses channel 2; 3. no memory is touched.
        unsafe {
            let old_gate = Port::<u8>::new(GATE).read();
            Port::new(GATE).write(old_gate & !0b11 | 1); // gate on, speaker off
            Port::new(COMMAND).write(0b1011_0000u8); // channel 2, low then high byte, mode 0
            Port::new(DATA).write(0xffu8);
            Port::new(DATA).write(0xffu8);
            Self { old_gate }
        }
    }

    /// Ticks since the start. `None` once it has run out.
    pub fn elapsed(&self) -> Option<u16> {
        // SAFETY: as in `start`; the latch makes the two bytes belong together.
        unsafe {
            Port::new(COMMAND).write(0b1000_0000u8);
            let low: u8 = Port::new(DATA).read();
            let high: u8 = Port::new(DATA).read();
            let out = Port::<u8>::new(GATE).read() & GATE_OUT != 0;
            (!out).then(|| u16::MAX - u16::from_le_bytes([low, high]))
        }
    }
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        // SAFETY: as in `start`.
        unsafe { Port::new(GATE).write(self.old_gate & !0b11) }
    }
}

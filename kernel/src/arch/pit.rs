//! PIT channel 2 as a stopwatch: the reference that every PC has, used once at boot to calibrate.
//! Source: 8254 data sheet, mode 0.

use x86_64::instructions::port::Port;

/// Ticks a second.
pub const PIT_HZ: u64 = 1_193_182;

/// Start a one-shot of `ticks` and poll until it ends, sampling with `sample` right before and right after.
/// Boot CPU only, interrupts off. `ticks` below 65536.
pub fn window<T>(ticks: u16, mut sample: impl FnMut() -> T) -> (T, T) {
    let mut gate = Port::<u8>::new(0x61);
    let mut command = Port::<u8>::new(0x43);
    let mut data = Port::<u8>::new(0x42);
    // SAFETY: 1. ports of the PIT and its gate; 2. nobody else uses channel 2; 3. no memory is touched.
    unsafe {
        let old = gate.read();
        gate.write(old & !0b11 | 1); // gate on, speaker off
        command.write(0b1011_0000); // channel 2, low then high byte, mode 0
        data.write(ticks as u8);
        let before = sample();
        data.write((ticks >> 8) as u8); // counting starts
        while gate.read() & 0x20 == 0 {
            core::hint::spin_loop();
        }
        let after = sample();
        gate.write(old & !0b11);
        (before, after)
    }
}

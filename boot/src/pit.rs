//! Waiting: channel 2 of the 8254 timer, polled at port 0x61. It runs on every PC and in QEMU's virtual time,
//! with `-icount` too. Source: Intel 8254 data sheet, "Mode 0: Interrupt on Terminal Count".

use crate::fail;
use crate::port::{read_u8, write_u8};
use core::hint::{black_box, spin_loop};

const FREQUENCY_HZ: u64 = 1_193_182;
const CHANNEL_2: u16 = 0x42;
const CONTROL: u16 = 0x43;
const GATE: u16 = 0x61;
/// Channel 2, low byte then high byte, mode 0, binary.
const ONE_SHOT: u8 = 0xb0;
/// Longest single wait that fits into 16 bits.
const LONGEST_US: u64 = 50_000;
/// Polls after which the timer is taken for dead.
const POLL_LIMIT: u32 = 1 << 26;

/// Waits `us` microseconds, or until `done` says so; true if it did. Between two polls it counts down in
/// registers for about a microsecond: each PAUSE and each port access ends the CPU's turn under `-icount`.
pub fn wait_us(us: u64, mut done: impl FnMut() -> bool) -> bool {
    let mut left_us = us;
    while left_us != 0 {
        let part_us = left_us.min(LONGEST_US);
        left_us -= part_us;
        let ticks = (part_us * FREQUENCY_HZ).div_ceil(1_000_000) as u16;
        write_u8(GATE, read_u8(GATE) & !0b10 | 0b01);
        write_u8(CONTROL, ONE_SHOT);
        write_u8(CHANNEL_2, ticks as u8);
        write_u8(CHANNEL_2, (ticks >> 8) as u8);
        let mut polls = 0;
        while read_u8(GATE) & 0x20 == 0 {
            if done() {
                return true;
            }
            polls += 1;
            if polls == POLL_LIMIT {
                fail!("timer channel 2 does not count, it is needed to start the other CPUs");
            }
            spin_loop();
            for step in 0..200u32 {
                black_box(step);
            }
        }
    }
    done()
}

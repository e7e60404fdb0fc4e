//! The date at boot, from the CMOS clock. Source: MC146818A data sheet; register 0x32 is the century by custom.

use crate::port::{read_u8, write_u8};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// Bit 7 of the index port masks NMI; it is left clear.
fn register(number: u8) -> u8 {
    write_u8(INDEX, number);
    read_u8(DATA)
}

/// Seconds since 1970-01-01 UTC, taking the clock to run in UTC; None when it shows no possible date.
pub fn unix_seconds() -> Option<i64> {
    const SECOND: u8 = 0x00;
    const MINUTE: u8 = 0x02;
    const HOUR: u8 = 0x04;
    const DAY: u8 = 0x07;
    const MONTH: u8 = 0x08;
    const YEAR: u8 = 0x09;
    const STATUS_A: u8 = 0x0a;
    const STATUS_B: u8 = 0x0b;
    const CENTURY: u8 = 0x32;
    const POLL_LIMIT: u32 = 100_000;
    let read = || [SECOND, MINUTE, HOUR, DAY, MONTH, YEAR, CENTURY].map(register);

    let mut clock = read();
    // Two equal readings with no update between them are one consistent date.
    for _ in 0..POLL_LIMIT {
        let again = read();
        if again == clock && register(STATUS_A) & 0x80 == 0 {
            break;
        }
        clock = again;
        core::hint::spin_loop();
    }
    let status = register(STATUS_B);
    let is_binary = status & 4 != 0;
    let is_24_hours = status & 2 != 0;
    let decode = |raw: u8| i64::from(if is_binary { raw } else { (raw >> 4) * 10 + (raw & 15) });
    let [second, minute, _, day, month, year, century] = clock.map(decode);
    let mut hour = decode(clock[2] & 0x7f);
    if !is_24_hours {
        hour = hour % 12 + if clock[2] & 0x80 != 0 { 12 } else { 0 };
    }
    let century = if (19..=29).contains(&century) { century } else { 20 };
    let possible = second < 61 && minute < 60 && hour < 24 && (1..=31).contains(&day) && (1..=12).contains(&month);
    possible.then(|| days_since_1970(century * 100 + year, month, day) * 86400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: years are counted from March, so that the leap day is
/// a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let years = if month > 2 { year } else { year - 1 };
    let months_since_march = (month + 9) % 12;
    let leap_days = years / 4 - years / 100 + years / 400;
    years * 365 + leap_days + (months_since_march * 306 + 5) / 10 + day - 1 - 719_468
}

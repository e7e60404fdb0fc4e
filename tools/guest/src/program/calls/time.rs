//! Time: clocks and sleeps. Nothing here depends on how long anything takes at most.

use super::{Check, call, ensure, equal};
use crate::linux;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[("clocks", clocks), ("sleeps", sleeps), ("random", random)];

fn clock(id: u64) -> Result<u64, i32> {
    let mut at = [0u64; 2];
    call(libc::SYS_clock_gettime, [id, at.as_mut_ptr() as u64, 0, 0, 0, 0])?;
    Ok(at[0] * 1_000_000_000 + at[1])
}

fn clocks() -> Result<(), String> {
    for id in [0, 1, 2, 3, 4, 5, 6, 7] {
        let first = clock(id);
        let second = clock(id);
        ensure!(first.is_ok() && second.is_ok() && first <= second);
    }
    equal!(clock(99), Err(libc::EINVAL));
    ensure!(clock(0).is_ok_and(|t| t > 1_500_000_000_000_000_000)); // the clock was set at boot
    let own = clock(3);
    let mut value = 1u64;
    while clock(3) == own {
        value = std::hint::black_box(value.wrapping_mul(3));
    }
    let mut resolution = [0u64; 2];
    equal!(call(libc::SYS_clock_getres, [1, resolution.as_mut_ptr() as u64, 0, 0, 0, 0]), Ok(0));
    equal!(resolution, [0, 1]);
    let mut day = [0u64; 2];
    equal!(call(libc::SYS_gettimeofday, [day.as_mut_ptr() as u64, 0, 0, 0, 0, 0]), Ok(0));
    ensure!(day[1] < 1_000_000);
    Ok(())
}

fn sleeps() -> Result<(), String> {
    let sleep = |seconds: u64, ns: u64| {
        let request = [seconds, ns];
        call(libc::SYS_nanosleep, [request.as_ptr() as u64, 0, 0, 0, 0, 0])
    };
    for ns in [0, 1, 1_000, 3_000_000] {
        let start = linux::monotonic_ns();
        equal!(sleep(0, ns), Ok(0));
        ensure!(linux::monotonic_ns() - start >= ns);
    }
    equal!(sleep(0, 1_000_000_000), Err(libc::EINVAL));
    equal!(sleep(u64::MAX, 0), Err(libc::EINVAL));
    let until = |clock: u64, at: [u64; 2]| call(libc::SYS_clock_nanosleep, [clock, 1, at.as_ptr() as u64, 0, 0, 0]);
    let wanted = linux::monotonic_ns() + 2_000_000;
    equal!(until(1, [wanted / 1_000_000_000, wanted % 1_000_000_000]), Ok(0));
    ensure!(linux::monotonic_ns() >= wanted);
    equal!(until(1, [0, 0]), Ok(0));
    equal!(until(77, [0, 0]), Err(libc::EINVAL));
    Ok(())
}

fn random() -> Result<(), String> {
    let mut bytes = [[0u8; 64]; 2];
    for half in &mut bytes {
        equal!(call(libc::SYS_getrandom, [half.as_mut_ptr() as u64, 64, 0, 0, 0, 0]), Ok(64));
    }
    ensure!(bytes[0] != bytes[1] && bytes[0] != [0; 64]);
    equal!(call(libc::SYS_getrandom, [bytes.as_mut_ptr() as u64, 1, 0x80, 0, 0, 0]), Err(libc::EINVAL));
    Ok(())
}

//! The vDSO: its functions are found as a C library finds them, and say what the system calls say.

use super::{Check, call, ensure, equal, in_child};
use crate::linux::{self, Ended};
use std::ffi::CStr;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[("vdso_time", time), ("vdso_cpu", cpu), ("vdso_pages", pages)];

type ClockGettime = extern "C" fn(u64, *mut [u64; 2]) -> i32;
type GetTimeOfDay = extern "C" fn(*mut [u64; 2], *mut u64) -> i32;
type Time = extern "C" fn(*mut u64) -> i64;
type GetCpu = extern "C" fn(*mut u32, *mut u32, u64) -> i32;

/// A value in the vDSO's memory.
fn at<T: Copy>(address: u64) -> T {
    // SAFETY: (1) callers pass addresses in the vDSO, which is mapped as long as the program runs and read-only.
    unsafe { (address as *const T).read_unaligned() }
}

/// The address of `name` with version LINUX_2.6, as musl looks it up: by DT_HASH's count, DT_VERSYM and DT_VERDEF.
fn symbol(name: &CStr) -> Result<u64, String> {
    const PT_DYNAMIC: u32 = 2;
    // SAFETY: (1) getauxval only reads what the kernel gave.
    let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    ensure!(base != 0 && base % 4096 == 0 && at::<u32>(base) == u32::from_le_bytes(*b"\x7fELF"));
    let (headers, count) = (base + at::<u64>(base + 32), u64::from(at::<u16>(base + 56)));
    let dynamic = (0..count).map(|i| headers + i * 56).find(|&h| at::<u32>(h) == PT_DYNAMIC);
    let dynamic = base + dynamic.map(|h| at::<u64>(h + 16)).ok_or("no PT_DYNAMIC")?;
    let entry = |tag: u64| {
        let entries = (0..).map(|i| at::<[u64; 2]>(dynamic + i * 16)).take_while(|e| e[0] != 0);
        entries.filter(|e| e[0] == tag).map(|e| base + e[1]).next().ok_or(format!("no dynamic entry {tag:#x}"))
    };
    let (hash, strings, symbols) = (entry(4)?, entry(5)?, entry(6)?);
    let (versions, definitions) = (entry(0x6fff_fff0)?, entry(0x6fff_fffc)?);
    // SAFETY: (1) the string table lies in the vDSO, and its strings end in 0.
    let string = |offset: u32| unsafe { CStr::from_ptr((strings + u64::from(offset)) as *const libc::c_char) };
    let found = (0..u64::from(at::<u32>(hash + 4))).find(|i| string(at(symbols + i * 24)) == name);
    let index = found.ok_or(format!("{name:?} is not there"))?;
    let version = at::<u16>(versions + index * 2) & 0x7fff;
    let mut definition = definitions;
    while at::<u16>(definition + 4) != version {
        let next = at::<u32>(definition + 16);
        ensure!(next != 0);
        definition += u64::from(next);
    }
    let version_name = at::<u32>(definition + u64::from(at::<u32>(definition + 12)));
    equal!(string(version_name), c"LINUX_2.6");
    Ok(base + at::<u64>(symbols + index * 24 + 8))
}

fn ns([seconds, ns]: [u64; 2]) -> u64 {
    seconds * 1_000_000_000 + ns
}

fn time() -> Result<(), String> {
    // SAFETY: (1) the symbols have these types (vdso(7)).
    let (clock_gettime, gettimeofday, time) = unsafe {
        (
            std::mem::transmute::<u64, ClockGettime>(symbol(c"__vdso_clock_gettime")?),
            std::mem::transmute::<u64, GetTimeOfDay>(symbol(c"__vdso_gettimeofday")?),
            std::mem::transmute::<u64, Time>(symbol(c"__vdso_time")?),
        )
    };
    let by_call = |clock: u64| -> Result<u64, String> {
        let mut now = [0u64; 2];
        equal!(call(libc::SYS_clock_gettime, [clock, now.as_mut_ptr() as u64, 0, 0, 0, 0]), Ok(0));
        Ok(ns(now))
    };
    // Every clock, those of CPU time and TAI too, between two readings by system call, on every CPU in turn: never backwards.
    for clock in [0, 1, 2, 3, 4, 5, 6, 7, 11] {
        let mut last = by_call(clock)?;
        for round in 0..64 {
            if round % 4 == 0 {
                let _ = linux::set_affinity(&[round / 4 % 4]); // a CPU that is not there is refused, and we stay
            }
            let mut now = [u64::MAX; 2];
            equal!(clock_gettime(clock, &mut now), 0);
            let after = by_call(clock)?;
            ensure!(now[1] < 1_000_000_000 && last <= ns(now) && ns(now) <= after);
            last = after;
        }
    }
    let mut now = [0u64; 2];
    equal!(clock_gettime(99, &mut now), -libc::EINVAL);
    let (before, mut day, mut zone) = (by_call(0)?, [0u64; 2], 1u64);
    equal!(gettimeofday(&mut day, &mut zone), 0);
    let second = time(&mut zone);
    let after = by_call(0)?;
    ensure!(day[1] < 1_000_000 && before / 1000 <= day[0] * 1_000_000 + day[1]);
    ensure!(day[0] as i64 <= second && second as u64 <= after / 1_000_000_000 && zone == second as u64);
    equal!((gettimeofday(std::ptr::null_mut(), &mut zone), zone), (0, 0));
    Ok(())
}

fn cpu() -> Result<(), String> {
    // SAFETY: (1) the symbol has this type.
    let getcpu = unsafe { std::mem::transmute::<u64, GetCpu>(symbol(c"__vdso_getcpu")?) };
    let (mut cpu, mut node, mut seen) = (u32::MAX, u32::MAX, 0);
    for wanted in 0..4 {
        if linux::set_affinity(&[wanted]).is_ok() {
            equal!(getcpu(&mut cpu, &mut node, 0), 0);
            equal!((cpu, node), (wanted, 0));
            seen += 1;
        }
    }
    ensure!(seen > 0);
    Ok(())
}

/// A program cannot change the pages for others.
fn pages() -> Result<(), String> {
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|e| e.to_string())?;
    let line = maps.lines().find(|l| l.ends_with("[vvar]")).ok_or("no [vvar]")?;
    ensure!(line.contains(" r--p ") && maps.lines().any(|l| l.ends_with("[vdso]") && l.contains(" r-xp ")));
    let start = line.split('-').next().and_then(|a| u64::from_str_radix(a, 16).ok()).ok_or("no address")?;
    let clobber = move || {
        for byte in start..start + 64 {
            // SAFETY: (1) the child ends here, whatever becomes of its vDSO.
            unsafe { (byte as *mut u8).write_volatile(0xff) };
        }
    };
    let ended = in_child(|| {
        clobber();
        0
    })?;
    ensure!(matches!(ended, Ended::Signal(libc::SIGSEGV)));
    let before = linux::monotonic_ns();
    for rights in [2, 3, 4] {
        equal!(call(libc::SYS_mprotect, [start, 4096, rights, 0, 0, 0]), Err(libc::EACCES));
    }
    equal!(call(libc::SYS_mprotect, [start, 4096, 1, 0, 0, 0]), Ok(0));
    // A debugger's right: the code, as a whole, becomes the program's own copy.
    let range = maps.lines().find(|l| l.ends_with("[vdso]")).and_then(|l| l.split(' ').next()?.split_once('-'));
    let number = |a: &str| u64::from_str_radix(a, 16).map_err(|e| e.to_string());
    let (code, end) = range.ok_or("no address")?;
    let (code, end) = (number(code)?, number(end)?);
    let ended = in_child(|| {
        match call(libc::SYS_mprotect, [code, end - code, 3, 0, 0, 0]) {
            Ok(_) => {}
            Err(libc::EPERM) => return 0, // sealed, as Linux can do since 6.15
            Err(_) => return 1,
        }
        // SAFETY: (1) the child ends here, whatever becomes of its vDSO.
        unsafe { (code as *mut u8).write_volatile(0xff) };
        0
    })?;
    equal!(ended, Ended::Exit(0));
    equal!(at::<u8>(code), 0x7f);
    let between = linux::monotonic_ns();
    let mut after = [0u64; 2];
    equal!(call(libc::SYS_clock_gettime, [1, after.as_mut_ptr() as u64, 0, 0, 0, 0]), Ok(0));
    ensure!(before <= between && between <= ns(after));
    Ok(())
}

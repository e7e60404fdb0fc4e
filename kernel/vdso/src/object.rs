//! The vDSO: a shared object that the kernel maps into every program, so that the time costs no system call.
//!
//! Built by kernel/build.rs; mapped by `mm::vdso`; found by programs through AT_SYSINFO_EHDR. It has no data and no relocation: the
//! page behind it is the kernel's (`page.rs`), read-only. Names and version are Linux's (vdso(7)).
//! Counter reads stand behind LFENCE, which waits for earlier loads but does not serialise: a time read after another CPU's message
//! is never before the time that the message was sent.
#![no_std]
#![no_main]

#[expect(dead_code, reason = "the kernel fills the page, programs read it")]
mod page;

use core::arch::asm;
use page::{NS, Page, cpu_by};

const SYS_GETTIMEOFDAY: u64 = 96;
const SYS_TIME: u64 = 201;
const SYS_CLOCK_GETTIME: u64 = 228;
const SYS_GETCPU: u64 = 309;
const REALTIME: u32 = 0;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// The kernel's page, which follows this object's last.
#[inline(always)]
fn data() -> &'static Page {
    let at: *const Page;
    // SAFETY: the linker script defines the symbol at the end of the object.
    unsafe { asm!("lea {}, [rip + __vdso_page]", out(reg) at, options(nomem, nostack, preserves_flags)) };
    // SAFETY: 1. the kernel maps the page behind the object; 2. it is there as long as the object is.
    unsafe { &*at }
}

/// Nanoseconds since time 0: ticks since then, times the rate, as `arch::tsc` computes it.
#[inline(always)]
fn now_ns(page: &Page) -> u64 {
    let ns;
    // SAFETY: reading the counter has no side effect; the fields are there. No `nomem`: earlier accesses stay earlier.
    unsafe {
        asm!(
            "lfence",
            "rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "sub rax, [{page} + {boot_tsc}]",
            "mul qword ptr [{page} + {ns_per_tick}]",
            "shrd rax, rdx, 32",
            page = in(reg) page,
            boot_tsc = const page::BOOT_TSC,
            ns_per_tick = const page::NS_PER_TICK,
            out("rax") ns,
            out("rdx") _,
            options(nostack, readonly),
        );
    }
    ns
}

#[inline(always)]
fn ask_kernel(number: u64, first: u64, second: u64) -> i64 {
    let value;
    // SAFETY: the caller of the object's function gave the arguments that the system call of the same name takes.
    unsafe {
        asm!("syscall", inlateout("rax") number => value, in("rdi") first, in("rsi") second, in("rdx") 0,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    value
}

/// clock_gettime(2).
///
/// # Safety
/// `at` has room for a timespec.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_clock_gettime(clock: u32, at: *mut [u64; 2]) -> i32 {
    let page = data();
    if !page.has(clock) {
        return ask_kernel(SYS_CLOCK_GETTIME, clock as u64, at as u64) as i32;
    }
    let now = page.time(clock, now_ns(page));
    // SAFETY: the caller's condition.
    unsafe { *at = now };
    0
}

/// gettimeofday(2).
///
/// # Safety
/// `at` is null or has room for a timeval, `zone` is null or has room for a timezone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_gettimeofday(at: *mut [u64; 2], zone: *mut u64) -> i32 {
    let page = data();
    if !page.has(REALTIME) {
        return ask_kernel(SYS_GETTIMEOFDAY, at as u64, zone as u64) as i32;
    }
    if !at.is_null() {
        let [seconds, ns] = page.time(REALTIME, now_ns(page));
        // SAFETY: the caller's condition.
        unsafe { *at = [seconds, ns / (NS / 1_000_000)] };
    }
    if !zone.is_null() {
        // SAFETY: the caller's condition.
        unsafe { *zone = page.zone() };
    }
    0
}

/// time(2).
///
/// # Safety
/// `at` is null or has room for a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_time(at: *mut u64) -> i64 {
    let page = data();
    if !page.has(REALTIME) {
        return ask_kernel(SYS_TIME, at as u64, 0);
    }
    let [seconds, _] = page.time(REALTIME, now_ns(page));
    if !at.is_null() {
        // SAFETY: the caller's condition.
        unsafe { *at = seconds };
    }
    seconds as i64
}

/// getcpu(2). There is one node.
///
/// # Safety
/// `cpu` and `node` are null or have room for a number each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __vdso_getcpu(cpu: *mut u32, node: *mut u32, _unused: u64) -> i32 {
    let number: u64;
    match data().cpu_by() {
        // SAFETY: the kernel says that the CPU has the instruction, which only writes the register.
        cpu_by::RDPID => unsafe { asm!("rdpid {}", out(reg) number, options(nomem, nostack, preserves_flags)) },
        // SAFETY: as above.
        cpu_by::RDTSCP => unsafe {
            asm!("rdtscp", out("rcx") number, out("rax") _, out("rdx") _, options(nomem, nostack, preserves_flags));
        },
        _ => return ask_kernel(SYS_GETCPU, cpu as u64, node as u64) as i32,
    }
    if !cpu.is_null() {
        // SAFETY: the caller's condition.
        unsafe { *cpu = number as u32 };
    }
    if !node.is_null() {
        // SAFETY: the caller's condition.
        unsafe { *node = 0 };
    }
    0
}

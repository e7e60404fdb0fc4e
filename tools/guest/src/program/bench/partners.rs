//! bench: measurements with a second thread: futex ping-pong, and interrupts that hit user mode.

use super::{Bench, metric, skip};
use crate::instruction::{call6, count_down, mark_begin, mark_end, rdtsc, region};
use crate::linux;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Whose turn it is: 1 the partner's, 0 the measuring thread's.
static TURN: AtomicI32 = AtomicI32::new(0);

const WAKE: i64 = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as i64;
const WAIT: i64 = (libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG) as i64;

#[inline(always)]
fn futex(operation: i64, value: i64) -> i64 {
    // SAFETY: (1) the address is that of a static integer, which the kernel only reads.
    unsafe { call6(libc::SYS_futex, [TURN.as_ptr() as i64, operation, value, 0, 0, 0]) }
}

/// Futex ping-pong with a thread on the same CPU.
pub fn futex_same(bench: &mut Bench) {
    futex_pingpong::<{ region::FUTEX }>(bench, "futex_pingpong_same", bench.cpu);
}

/// Futex ping-pong with a thread on the partner CPU.
pub fn futex_cross(bench: &mut Bench) {
    futex_pingpong::<{ region::FUTEX_CROSS }>(bench, "futex_pingpong_cross", bench.partner);
}

fn futex_pingpong<const REGION: u32>(bench: &mut Bench, name: &str, partner: u32) {
    const WARM: usize = 50;
    let value = futex(WAKE, 1);
    if value < 0 {
        return skip(name, -value);
    }
    TURN.store(0, Ordering::SeqCst);
    let rounds = bench.iterations + WARM;
    let thread = std::thread::Builder::new().spawn(move || {
        let _ = linux::set_affinity(&[partner]);
        for _ in 0..rounds {
            while TURN.load(Ordering::SeqCst) != 1 {
                futex(WAIT, 0);
            }
            TURN.store(0, Ordering::SeqCst);
            futex(WAKE, 1);
        }
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => return skip(name, i64::from(error.raw_os_error().unwrap_or(0))),
    };
    bench.samples.clear();
    for round in 0..rounds {
        if round == WARM {
            mark_begin::<REGION>();
        }
        let start = rdtsc();
        TURN.store(1, Ordering::SeqCst);
        futex(WAKE, 1);
        while TURN.load(Ordering::SeqCst) != 0 {
            futex(WAIT, 1);
        }
        let ticks = rdtsc() - start;
        if round >= WARM {
            bench.samples.add(ticks);
        }
    }
    mark_end::<REGION>();
    let _ = thread.join();
    bench.report(name);
}

/// A thread on the partner CPU does `act` 100 times, which interrupts this CPU while it spins in user mode. The cost is in the plugin's counts of
/// this CPU (`REGION`); here only how often it was done is told, as `told`.
fn interrupted<const REGION: u32>(bench: &Bench, name: &str, told: &str, act: fn() -> bool) {
    let done = Arc::new(AtomicBool::new(false));
    let (partner, end) = (bench.partner, done.clone());
    mark_begin::<REGION>();
    let thread = std::thread::Builder::new().spawn(move || {
        let _ = linux::set_affinity(&[partner]);
        let mut times = 0;
        for _ in 0..100 {
            times += u64::from(act());
            count_down(2000);
        }
        end.store(true, Ordering::SeqCst);
        times
    });
    let thread = match thread {
        Ok(thread) => thread,
        Err(error) => return skip(name, i64::from(error.raw_os_error().unwrap_or(0))),
    };
    while !done.load(Ordering::SeqCst) {
        count_down(500);
        core::hint::spin_loop();
    }
    mark_end::<REGION>();
    metric(told, thread.join().unwrap_or(0), "calls");
}

fn membarrier(command: i64) -> i64 {
    // SAFETY: (1) membarrier has no memory argument.
    unsafe { call6(libc::SYS_membarrier, [command, 0, 0, 0, 0, 0]) }
}

/// The partner calls membarrier(PRIVATE_EXPEDITED).
pub fn membarriers(bench: &mut Bench) {
    const REGISTER: i64 = 16;
    const PRIVATE_EXPEDITED: i64 = 8;
    let value = membarrier(REGISTER);
    if value < 0 {
        return skip("ipi", -value);
    }
    interrupted::<{ region::IPI }>(bench, "ipi", "ipi.membarriers", || membarrier(PRIVATE_EXPEDITED) == 0);
}

/// The partner maps 16 pages, writes to each and unmaps them: this CPU runs the same address space, so its TLB has to forget them.
pub fn unmaps(bench: &mut Bench) {
    interrupted::<{ region::UNMAP }>(bench, "unmap", "unmap.munmaps", || {
        const PAGE: i64 = 4096;
        const LENGTH: i64 = 16 * PAGE;
        const FLAGS: i64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as i64;
        const RIGHTS: i64 = (libc::PROT_READ | libc::PROT_WRITE) as i64;
        // SAFETY: (1) a new mapping, where the kernel likes.
        let start = unsafe { call6(libc::SYS_mmap, [0, LENGTH, RIGHTS, FLAGS, -1, 0]) };
        if start < 0 {
            return false;
        }
        for page in (start..start + LENGTH).step_by(PAGE as usize) {
            // SAFETY: (1) in the mapping that was just made, which nobody else knows.
            unsafe { (page as *mut u8).write_volatile(1) };
        }
        // SAFETY: (1) the mapping is this function's, and nothing of it is used afterwards.
        unsafe { call6(libc::SYS_munmap, [start, LENGTH, 0, 0, 0, 0]) == 0 }
    });
}

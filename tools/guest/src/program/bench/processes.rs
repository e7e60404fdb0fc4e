//! bench: fork, exit and wait; ping-pong of two processes through pipes.

use super::{Bench, skip};
use crate::instruction::{call6, mark_begin, mark_end, rdtsc, region};
use crate::linux;
use crate::output::describe;

/// fork as the bare call, without the C library's work before and after. 0 is the child.
#[inline(always)]
fn bare_fork() -> i64 {
    // SAFETY: (1) the child gets a copy of all memory and goes on alone; callers' children make bare calls only and end by `bare_exit`;
    // (2) no other thread runs at these measurements.
    unsafe { call6(libc::SYS_clone, [i64::from(libc::SIGCHLD), 0, 0, 0, 0, 0]) }
}

/// Ends the calling process.
#[inline(always)]
fn bare_exit() -> ! {
    loop {
        // SAFETY: (1) ends the process; nothing of it runs any more.
        unsafe { call6(libc::SYS_exit_group, [0; 6]) };
    }
}

/// Waits for the child `pid`; gives it back, or minus the error number.
#[inline(always)]
fn bare_wait(pid: i64) -> i64 {
    let mut status = 0i32;
    // SAFETY: (1) the address is that of a live integer.
    unsafe { call6(libc::SYS_wait4, [pid, &raw mut status as i64, 0, 0, 0, 0]) }
}

/// One byte through a pipe, `number` being the call; true when it went through.
#[inline(always)]
fn bare_byte(number: i64, fd: i32, byte: &mut u8) -> bool {
    // SAFETY: (1) the address is that of a live byte.
    unsafe { call6(number, [i64::from(fd), &raw mut *byte as i64, 1, 0, 0, 0]) == 1 }
}

/// fork, exit of the child, wait.
pub fn fork(bench: &mut Bench) {
    const NAME: &str = "fork_exit_wait";
    const WARM: usize = 10;
    bench.samples.clear();
    for round in 0..bench.iterations.min(300) + WARM {
        if round == WARM {
            mark_begin::<{ region::FORK }>();
        }
        let start = rdtsc();
        let pid = bare_fork();
        if pid == 0 {
            bare_exit();
        }
        if pid < 0 {
            return skip(NAME, -pid);
        }
        let found = bare_wait(pid);
        let ticks = rdtsc() - start;
        if found != pid {
            return skip(NAME, -found);
        }
        if round >= WARM {
            bench.samples.add(ticks);
        }
    }
    mark_end::<{ region::FORK }>();
    bench.report(NAME);
}

/// Pipe ping-pong with a process on the same CPU.
pub fn pipe_same(bench: &mut Bench) {
    pipe_pingpong::<{ region::PIPE }>(bench, "pipe_pingpong_same", bench.cpu);
}

/// Pipe ping-pong with a process on the partner CPU.
pub fn pipe_cross(bench: &mut Bench) {
    pipe_pingpong::<{ region::PIPE_CROSS }>(bench, "pipe_pingpong_cross", bench.partner);
}

fn pipe_pingpong<const REGION: u32>(bench: &mut Bench, name: &str, partner: u32) {
    const WARM: usize = 50;
    let errno = |error: std::io::Error| error.raw_os_error().map_or_else(|| describe(&error).len() as i64, i64::from);
    let there = match linux::pipe() {
        Ok(ends) => ends,
        Err(error) => return skip(name, errno(error)),
    };
    let back = match linux::pipe() {
        Ok(ends) => ends,
        Err(error) => {
            [there.0, there.1].into_iter().for_each(linux::close);
            return skip(name, errno(error));
        }
    };
    let rounds = bench.iterations + WARM;
    let mut byte = b'x';
    let pid = bare_fork();
    if pid == 0 {
        // The parent's ends are closed here, so that the child sees the end when the parent gives up.
        linux::close(there.1);
        linux::close(back.0);
        let _ = linux::set_affinity(&[partner]);
        for _ in 0..rounds {
            if !bare_byte(libc::SYS_read, there.0, &mut byte) || !bare_byte(libc::SYS_write, back.1, &mut byte) {
                break;
            }
        }
        bare_exit();
    }
    linux::close(there.0);
    linux::close(back.1);
    let mut failed = pid < 0;
    bench.samples.clear();
    for round in 0..if failed { 0 } else { rounds } {
        if round == WARM {
            mark_begin::<REGION>();
        }
        let start = rdtsc();
        if !bare_byte(libc::SYS_write, there.1, &mut byte) || !bare_byte(libc::SYS_read, back.0, &mut byte) {
            failed = true;
            break;
        }
        let ticks = rdtsc() - start;
        if round >= WARM {
            bench.samples.add(ticks);
        }
    }
    mark_end::<REGION>();
    linux::close(there.1);
    linux::close(back.0);
    if pid > 0 {
        bare_wait(pid);
    }
    if failed { skip(name, (-pid).max(0)) } else { bench.report(name) }
}

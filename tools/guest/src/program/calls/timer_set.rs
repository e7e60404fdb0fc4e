//! Timers that are set while they expire, and by two threads at once: an expiry is told by its signal or by the time that was left, never by both,
//! and the setting that came last is the one that expires.

use super::each::{at, gives, refused, to, works};
use super::{Check, ensure, equal, is_quiesce};
use crate::linux;
use libc::{
    EAGAIN, SYS_alarm, SYS_poll, SYS_read, SYS_rt_sigprocmask, SYS_rt_sigtimedwait, SYS_timer_create,
    SYS_timer_gettime, SYS_timer_settime, SYS_timerfd_create, SYS_timerfd_settime,
};
use std::sync::atomic::{AtomicUsize, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("timer_set_while_it_expires", while_it_expires),
    ("timer_set_by_two", set_by_two),
    ("timer_over_when_sent", over_when_sent),
    ("timerfd_set_by_two", file_set_by_two),
];

const US: u64 = 1000;
const BOOT: u64 = 1;
const USR1: u64 = libc::SIGUSR1 as u64;
const SET: u64 = 1 << (USR1 - 1);
/// Linux reads what is left before it stops the timer; from 6.13 on the signal of an earlier setting is dropped.
const LINUX_WINDOW_NS: u64 = 200 * US;

fn create() -> Result<u64, String> {
    let set = SET;
    gives(SYS_rt_sigprocmask, &[0, at(&set), 0, 8], 0)?;
    let (event, mut number) = ([7u64, USR1, 0, 0, 0, 0, 0, 0], -1i32);
    gives(SYS_timer_create, &[BOOT, at(&event), to(&mut number)], 0)?;
    Ok(number as u64)
}

/// Whether a signal waits within `ns`; it does not afterwards.
fn signalled(ns: u64) -> Result<bool, String> {
    let (set, limit) = (SET, [ns / 1_000_000_000, ns % 1_000_000_000]);
    match super::call(SYS_rt_sigtimedwait, [at(&set), 0, at(&limit), 8, 0, 0]) {
        Ok(_) => Ok(true),
        Err(EAGAIN) => Ok(false),
        Err(e) => Err(format!("rt_sigtimedwait: error {e}")),
    }
}

fn while_it_expires() -> Result<(), String> {
    let timer = create()?;
    let (mut expired, mut stopped) = (0, 0);
    for turn in 0..1500u64 {
        let first = (20 + turn * 7919 % 60) * US;
        let spin_ns = first.saturating_sub(5 * US) + turn * 104_729 % (60 * US);
        let (new, mut old) = ([0, 0, 0, first], [0u64; 4]);
        let start = linux::monotonic_ns();
        gives(SYS_timer_settime, &[timer, 0, at(&new), 0], 0)?;
        while linux::monotonic_ns() < start + spin_ns {
            std::hint::spin_loop();
        }
        gives(SYS_timer_settime, &[timer, 0, at(&[0u64; 4]), to(&mut old)], 0)?;
        let left = old[2] * 1_000_000_000 + old[3];
        ensure!(left <= first);
        let came = signalled(0)?;
        if is_quiesce() {
            equal!((turn, left, came), (turn, left, left == 0));
        }
        ensure!(!came || left <= LINUX_WINDOW_NS);
        equal!((turn, signalled(0)?), (turn, false));
        *(if came { &mut expired } else { &mut stopped }) += 1;
        gives(SYS_timer_gettime, &[timer, to(&mut old)], 0)?;
        equal!(old, [0; 4]);
    }
    ensure!(expired > 0 && stopped > 0 || !is_quiesce());
    refused(SYS_rt_sigtimedwait, &[at(&SET), 0, at(&[0u64; 2]), 8], EAGAIN)
}

/// Runs `first` and `second` on two threads at the same time, `rounds` times; after each round `look`.
fn both(
    rounds: usize,
    first: impl Fn(usize) + Sync,
    second: impl Fn(usize) + Sync,
    mut look: impl FnMut(usize) -> Result<(), String>,
) -> Result<(), String> {
    let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let wait_for = |word: &AtomicUsize, value: usize| {
        while word.load(Ordering::SeqCst) < value {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=rounds {
                wait_for(&begun, round);
                second(round);
                ended.store(round, Ordering::SeqCst);
            }
        });
        let mut result = Ok(());
        for round in 1..=rounds {
            begun.store(round, Ordering::SeqCst);
            if result.is_ok() {
                first(round);
            }
            wait_for(&ended, round);
            result = result.and_then(|()| look(round));
        }
        result
    })
}

/// What hangs here is ended by SIGALRM.
const LIMIT_S: u64 = 120;

/// One thread sets the timer to expire soon, one in an hour: if the first was the last, it expires soon.
fn set_by_two() -> Result<(), String> {
    works(SYS_alarm, &[LIMIT_S])?;
    let timer = create()?;
    let set = |of_first: bool, round: usize| {
        let soon = of_first == round.is_multiple_of(2);
        let new = if soon { [0, 0, 0, (1 + round as u64 % 3) * 10 * US] } else { [0, 0, 3600, 0] };
        let _ = super::call(SYS_timer_settime, [timer, 0, at(&new), 0, 0, 0]);
    };
    let mut soon = 0;
    let look = |_| {
        let mut now = [0u64; 4];
        gives(SYS_timer_gettime, &[timer, to(&mut now)], 0)?;
        if now[2] == 0 {
            soon += 1;
            works(SYS_rt_sigtimedwait, &[at(&SET), 0, 0, 8])?;
        }
        signalled(0).map(drop)
    };
    both(400, |round| set(true, round), |round| set(false, round), look)?;
    ensure!(soon > 0);
    Ok(())
}

/// Both set it to expire soon, at different times: it does, for the one that was the last.
fn file_set_by_two() -> Result<(), String> {
    works(SYS_alarm, &[LIMIT_S])?;
    let fd = works(SYS_timerfd_create, &[BOOT, 0])?;
    let set = |of_first: bool, round: usize| {
        let short = of_first == round.is_multiple_of(2);
        let after = if short { (1 + round as u64 % 3) * 10 } else { 2000 + round as u64 % 7 * 100 };
        let _ = super::call(SYS_timerfd_settime, [fd, 0, at(&[0, 0, 0, after * US]), 0, 0, 0]);
    };
    let look = |round: usize| {
        let (mut polled, mut expired) = (fd | 1 << 32, 0u64);
        equal!((round, works(SYS_poll, &[to(&mut polled), 1, u64::MAX])?), (round, 1));
        gives(SYS_read, &[fd, to(&mut expired), 8], 8)?;
        equal!((round, expired), (round, 1));
        Ok(())
    };
    both(400, |round| set(true, round), |round| set(false, round), look)
}

/// A timer that has no time left has sent its signal.
fn over_when_sent() -> Result<(), String> {
    works(SYS_alarm, &[LIMIT_S])?;
    let timer = create()?;
    for turn in 0..3000u64 {
        let mut now = [0u64; 4];
        gives(SYS_timer_settime, &[timer, 0, at(&[0, 0, 0, (1 + turn % 13) * 10 * US]), 0], 0)?;
        loop {
            gives(SYS_timer_gettime, &[timer, to(&mut now)], 0)?;
            if now[2] == 0 && now[3] == 0 {
                break;
            }
        }
        equal!((turn, signalled(0)?), (turn, true));
        gives(SYS_timer_gettime, &[timer, to(&mut now)], 0)?;
        equal!((turn, now), (turn, [0; 4]));
    }
    Ok(())
}

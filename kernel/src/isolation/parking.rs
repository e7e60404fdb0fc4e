//! All CPUs parked: one of them runs a function, the others wait in text that the function does not change.
//!
//! Process context, one at a time (`live` takes turns). Each CPU runs a stop task of its own, which goes before every program: when all
//! of them run, no other task holds a spin lock, since locks keep preemption off; an IPI could not promise that. Then each turns
//! interrupts off. What can still arrive is an NMI, whose path has no site of the tracking key.
//! ```text
//! GATHER  stop tasks come; interrupts are on, so that IPIs which others wait for are answered
//! STILL   all are here: each turns interrupts off and says so
//! GO      all are still, and the leader has run the function: each serialises and leaves
//! GIVE_UP there are not enough stop tasks: each leaves
//! ```

use crate::arch::irq_flag::IrqOff;
use crate::percpu;
use crate::sched;
use crate::sched::task::{self, NewTaskError};
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{PreemptOff, SpinLock, rank};
use crate::time::timer;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

const GATHER: u32 = 0;
const STILL: u32 = 1;
const GO: u32 = 2;
const GIVE_UP: u32 = 3;

/// Between two looks whether they have ended, ns.
const LOOK_NS: u64 = 50_000;

static STAGE: AtomicU32 = AtomicU32::new(GATHER);
/// Stop tasks: how many there are to be, have come, have turned interrupts off, have left.
static WANTED: AtomicU32 = AtomicU32::new(0);
static HERE: AtomicU32 = AtomicU32::new(0);
static QUIET: AtomicU32 = AtomicU32::new(0);
static LEFT: AtomicU32 = AtomicU32::new(0);
/// What the leader runs.
static RUN: SpinLock<fn(), { rank::FILE }> = SpinLock::new(|| {});
static DONE: WaitQueue = WaitQueue::new();

/// Run `run` on one CPU, interrupts off, while all others are parked. When this returns, every CPU has serialised since. An error: it has
/// not been run.
pub fn with_all_parked(run: fn()) -> Result<(), NewTaskError> {
    let cpus = percpu::online();
    [&HERE, &QUIET, &LEFT].into_iter().for_each(|count| count.store(0, Ordering::Relaxed));
    WANTED.store(cpus.count(), Ordering::Relaxed);
    STAGE.store(GATHER, Ordering::Relaxed);
    *RUN.lock() = run;
    let leader = cpus.first();
    // All are made before the first one starts, since that one spins.
    let mut stoppers = Vec::new();
    let made = cpus.iter().try_for_each(|cpu| {
        stoppers.push(task::new_stopper("stop", cpu, stop, (Some(cpu) == leader) as usize)?);
        Ok(())
    });
    if made.is_err() {
        STAGE.store(GIVE_UP, Ordering::Release);
    }
    // The one of this CPU would go before this task, which could start no more.
    let pin = PreemptOff::new();
    stoppers.iter().for_each(|task| sched::start(task));
    drop(pin);
    let all = stoppers.len() as u32;
    let _ = DONE.wait(false, || (LEFT.load(Ordering::Acquire) == all).then_some(()));
    while stoppers.iter().any(|task| !task.state.is_dead()) {
        timer::sleep_ns(LOOK_NS, false);
    }
    made
}

/// A CPU's stop task.
fn stop(leads: usize) {
    let pin = PreemptOff::new();
    HERE.fetch_add(1, Ordering::AcqRel);
    while STAGE.load(Ordering::Acquire) == GATHER {
        if leads == 1 && HERE.load(Ordering::Acquire) == WANTED.load(Ordering::Relaxed) {
            STAGE.store(STILL, Ordering::Release);
        }
        core::hint::spin_loop();
    }
    if STAGE.load(Ordering::Acquire) != GIVE_UP {
        park(leads == 1);
    }
    LEFT.fetch_add(1, Ordering::AcqRel);
    drop(pin);
    DONE.wake_all();
}

/// Interrupts off until the function has been run. Nothing on the way from the last look at the stage to the CPUID has a site of a key.
#[inline(never)] // the ELF check finds it by name
fn park(leads: bool) {
    let irq_off = IrqOff::new();
    QUIET.fetch_add(1, Ordering::AcqRel);
    if leads {
        while QUIET.load(Ordering::Acquire) != WANTED.load(Ordering::Relaxed) {
            core::hint::spin_loop();
        }
        let run = *RUN.lock();
        run();
        STAGE.store(GO, Ordering::Release);
    }
    while STAGE.load(Ordering::Acquire) != GO {
        core::hint::spin_loop();
    }
    // CPUID serialises: what was fetched or decoded of the old text is thrown away before any of it runs.
    #[cfg(not(mutant = "park_left_unserialised"))]
    core::arch::x86_64::__cpuid(0);
    drop(irq_off);
}

//! NMIs at random instants, many: `COUNT SEED` written to debug's `nmi_burst` sends so many, each to a CPU chosen at random, the writer's own among
//! them, after a random time. Read, it says how many were sent and how many arrived since boot.
//!
//! The writer's process sends and may be preempted; it ends early by a signal. An NMI that finds one pending is one with it, so fewer
//! arrive than are sent. Each CPU counts its own in its NMI handler. A CPU that is leased gets none: EBUSY, at the start or when it is.
//!
//! `1` written to `poke_nmis`: whenever kernel text is patched each CPU gets one behind each of the two steps that leave INT3 at the
//! sites; `traps` has how many arrived there. `0` ends it.

use crate::arch::irq_flag::IrqOff;
use crate::errno::{self, Errno};
use crate::isolation::lease;
use crate::percpu;
use crate::smp::ipi::{self, Sender};
use crate::text_patch;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::cpu_set::CpuSet;
use kcore::ipi_ledger::IpiCause;

/// Turns that the sender waits between two of them, at most; every 64th time so many more.
const WAIT: u64 = 2_000;
const LONG_WAIT: u64 = 100_000;

static SENT: AtomicU64 = AtomicU64::new(0);

/// The file, read.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    let _ = writeln!(out, "sent={} arrived={}", SENT.load(Ordering::Relaxed), percpu::nmis());
    Ok(())
}

/// The file, written.
pub fn write(_: u64, text: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| errno::EINVAL)?;
    let (count, seed) = text.trim().split_once(' ').ok_or(errno::EINVAL)?;
    let [count, seed] = [count, seed].map(|number| number.parse::<u64>().map_err(|_| errno::EINVAL));
    let (count, mut random) = (count?, super::torture::Random::new(seed?));
    let cpus: Vec<u32> = percpu::online().iter().collect();
    lease::permits(&percpu::online(), IpiCause::InjectedNmi)?;
    for number in 0..count {
        if crate::sched::current().signal_pending.load(Ordering::Relaxed) {
            return Err(errno::EINTR);
        }
        let target = cpus[random.below(cpus.len() as u64) as usize];
        {
            let irq_off = IrqOff::new();
            lease::permits(&CpuSet::single(target), IpiCause::InjectedNmi)?;
            ipi::send(target, &Sender::here(IpiCause::InjectedNmi, Location::caller(), &irq_off), &irq_off);
        }
        SENT.fetch_add(1, Ordering::Relaxed);
        let wait = if number % 64 == 0 { LONG_WAIT } else { WAIT };
        (0..random.below(wait)).for_each(|turn| {
            core::hint::black_box(turn);
        });
    }
    Ok(())
}

/// `poke_nmis`, written.
pub fn write_poke(text: &[u8]) -> Result<(), Errno> {
    match text.trim_ascii() {
        b"0" => text_patch::do_between(None),
        b"1" => text_patch::do_between(Some(send_to_each)),
        _ => return Err(errno::EINVAL),
    }
    Ok(())
}

/// One to each CPU that is not leased, the own one among them.
fn send_to_each() {
    let irq_off = IrqOff::new();
    let permitted = |cpu: &u32| lease::permits(&CpuSet::single(*cpu), IpiCause::InjectedNmi).is_ok();
    for cpu in percpu::online().iter().filter(permitted) {
        ipi::send(cpu, &Sender::here(IpiCause::InjectedNmi, Location::caller(), &irq_off), &irq_off);
    }
}

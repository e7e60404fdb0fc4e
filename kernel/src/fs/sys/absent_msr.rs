//! /sys/kernel/quiesce/debug/absent_msr: a register that no CPU has, asked for in each context in which that can happen.
//!
//! A line for each: what `rdmsr_safe` and `wrmsr_safe` say of the absent register, and whether one that is there is read by the same way.

use crate::arch::irq_flag::IrqOff;
use crate::arch::msr::{rdmsr_safe, wrmsr_safe};
use crate::errno::{self, Errno};
use crate::percpu;
use crate::smp::stack_sample;
use alloc::string::String;
use core::fmt::Write;

/// Between the x2APIC's identity and its version nothing was ever put, and without x2APIC mode there is nothing at all (SDM vol. 3A, "x2APIC
/// Register Address Space").
const ABSENT: u32 = 0x804;
/// IA32_APIC_BASE, which is never 0.
const PRESENT: u32 = 0x1b;

fn tell(out: &mut String, context: core::fmt::Arguments<'_>, absent: bool, write: Option<bool>, present: bool) {
    let said = |refused: bool| if refused { "refused" } else { "taken" };
    let write = write.map_or(String::new(), |refused| alloc::format!(" write={}", said(refused)));
    let _ = writeln!(out, "{context}: read={}{write} present={}", said(absent), if present { "read" } else { "lost" });
}

fn here(out: &mut String, context: &str) {
    // SAFETY: a register that is not there does nothing.
    let write = unsafe { wrmsr_safe(ABSENT, 0) };
    let present = rdmsr_safe(PRESENT).is_ok_and(|value| value != 0);
    tell(out, format_args!("{context}"), rdmsr_safe(ABSENT).is_err(), Some(write.is_err()), present);
}

/// The task itself, with interrupts off, and an NMI on this CPU: no other CPU is interrupted. EAGAIN if that does not come.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    here(out, "task");
    let irq_off = IrqOff::new();
    here(out, "interrupts off");
    let cpu = percpu::this(&irq_off).cpu();
    let absent = stack_sample::read_register(cpu, ABSENT).ok_or(errno::EAGAIN)?;
    let present = stack_sample::read_register(cpu, PRESENT).ok_or(errno::EAGAIN)?;
    tell(out, format_args!("NMI on CPU {cpu}"), absent.is_err(), None, present.is_ok_and(|value| value != 0));
    Ok(())
}

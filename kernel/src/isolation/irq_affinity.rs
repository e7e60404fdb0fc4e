//! Interrupt lines of devices: which CPU each goes to.
//!
//! Process context, and the boot CPU. A line that is moved keeps working: only its destination is written, so no edge is lost; one that
//! is under way still reaches the old CPU, which handles it.

use crate::arch::ioapic;
use crate::percpu;
use crate::spin_lock::{SpinLock, rank};
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering;

/// One line.
#[derive(Clone, Copy)]
pub struct Line {
    /// Its number as in /proc/interrupts.
    pub irq: u8,
    /// Whose it is.
    pub name: &'static str,
    /// Where it goes.
    pub cpu: u32,
    gsi: u32,
}

/// More are never routed.
const MOST: usize = 8;
static LINES: SpinLock<ArrayVec<Line, MOST>, { rank::FILE }> = SpinLock::new(ArrayVec::new_const());

/// How a device's line is wired.
pub struct Wiring {
    /// Global interrupt number.
    pub gsi: u32,
    /// Level-triggered.
    pub level: bool,
    /// Active when low.
    pub active_low: bool,
}

fn apic_id(cpu: u32) -> u32 {
    percpu::of(cpu).apic_id.load(Ordering::Relaxed)
}

/// Unmask the line of device `name` and send it to CPU `cpu`. False: no I/O APIC has it.
pub fn route(irq: u8, name: &'static str, wiring: &Wiring, cpu: u32) -> bool {
    let mut lines = LINES.lock();
    let line = Line { irq, name, cpu, gsi: wiring.gsi };
    if lines.try_push(line).is_err() || !ioapic::route(wiring.gsi, apic_id(cpu), wiring.level, wiring.active_low) {
        lines.retain(|l| l.gsi != wiring.gsi);
        return false;
    }
    true
}

/// The lines that go to CPU `cpu`.
pub fn lines_to(cpu: u32) -> ArrayVec<Line, MOST> {
    LINES.lock().iter().filter(|line| line.cpu == cpu).copied().collect()
}

/// Send all lines of CPU `from` to CPU `to`; gives them as they were.
pub fn move_lines(from: u32, to: u32) -> ArrayVec<Line, MOST> {
    let mut moved = ArrayVec::new();
    for line in LINES.lock().iter_mut().filter(|line| line.cpu == from) {
        if ioapic::retarget(line.gsi, apic_id(to)) {
            moved.push(*line);
            line.cpu = to;
        }
    }
    moved
}

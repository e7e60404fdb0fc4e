//! A #DB behind each access to memory: what a watchpoint does wherever it lies.
//!
//! The kernel refuses watchpoints on much of what entry code touches, and hardware has four: so the debugger lets the CPU make the access, and
//! does then what the CPU does for a #DB that has no bit in DR6 set: the frame goes onto the interrupt stack that the TSS names for it, RIP to its
//! entry, IF and TF off.
//! Source: SDM vol. 3A, "64-Bit Mode Stack Frame", "Interrupt Stack Table".

use super::plan::Place;
use super::{Event, INTERRUPTS, Injector, NMI_ENTRY, RFLAGS, Report, TRAP};
use crate::failure::Failure;
use crate::gdb::Registers;

/// The entry that #DB takes.
pub(super) const ENTRY: &str = "kernel::entry::nmi::debug_entry";
/// Its slot in the TSS's interrupt stack table, from 0 on: `arch::gdt::Ist::Debug` less 1.
const SLOT: u64 = 2;
/// Where the table lies in a TSS.
const TABLE: u64 = 36;
/// RSP and RIP as the stub numbers them.
const RSP: u32 = 7;
const RIP: u32 = 16;

/// Whether a #DB can come behind it in kernel mode. Not in the entries that have DR7 off before they touch what may be watched; behind IRET it is
/// the program's.
fn is_wanted(place: &Place) -> bool {
    let off = [NMI_ENTRY, ENTRY].contains(&place.function.as_str());
    place.touches_memory && !off && place.text != "iretq"
}

impl Injector {
    /// Injects one #DB behind each access to memory of the entry text, as the guest comes by, until `finished` says that it will not any more.
    pub fn debug_at_every_access(&mut self, finished: impl FnMut() -> bool) -> Result<Report, Failure> {
        // Exceptions have a counter of their own.
        let nmis = self.nmis.take();
        let report = self.every(Event::Debug, is_wanted, finished);
        self.nmis = nmis;
        report
    }

    /// The instruction here, where a breakpoint is, and a #DB behind it. What was wrong; `None` if something came in between.
    pub(super) fn debug_here(&mut self) -> Result<Option<Vec<String>>, Failure> {
        let at = self.gdb.registers(self.cpu)?.rip;
        self.step_over(self.cpu, at)?;
        let before = self.snapshot()?;
        let behind = before.registers.rip;
        if before.registers.is_user() {
            return Ok(Some(vec![format!("it led to user mode, {behind:#x}")]));
        }
        self.deliver(&before.registers)?;
        // There may be one already: then there are two, and one is taken away.
        self.gdb.set_breakpoint(behind)?;
        let there = self.run_to(behind)?;
        self.gdb.clear_breakpoint(behind)?;
        if !there {
            return Ok(None);
        }
        let after = self.snapshot()?;
        Ok(Some(self.compare(&before, &after, 1)))
    }

    /// The CPU, which is at `now` in kernel mode, is at the entry of #DB.
    fn deliver(&mut self, now: &Registers) -> Result<(), Failure> {
        let top = self.stack_of_debug()?;
        let words = [now.rip, now.segments[0].into(), now.flags.into(), now.rsp(), now.segments[1].into()];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let frame = top - bytes.len() as u64;
        self.gdb.set_memory(self.cpu, frame, &bytes)?;
        self.gdb.set_register(self.cpu, RSP, frame)?;
        self.gdb.set_register(self.cpu, RFLAGS, u64::from(now.flags & !(INTERRUPTS | TRAP)))?;
        self.gdb.set_register(self.cpu, RIP, self.debug_entry)
    }

    /// Top of the stack that the CPU has for #DB, by its task register.
    fn stack_of_debug(&mut self) -> Result<u64, Failure> {
        if let Some(top) = self.debug_stack {
            return Ok(top);
        }
        self.gdb.monitor(&format!("cpu {}", self.cpu))?;
        let told = self.gdb.monitor("info registers")?;
        let tss = task_state(&told).ok_or_else(|| Failure::Bad(format!("no task register in {told}")))?;
        let bytes = self.gdb.memory(self.cpu, tss + TABLE + 8 * SLOT, 8)?;
        let bytes = bytes.ok_or_else(|| Failure::Bad("the TSS is not mapped".into()))?;
        let top = super::words(&bytes).first().copied().unwrap_or(0);
        self.debug_stack = Some(top);
        Ok(top)
    }
}

/// The task register's base in what QEMU's monitor says of the registers.
fn task_state(told: &str) -> Option<u64> {
    let line = told.lines().find(|line| line.starts_with("TR ="))?;
    u64::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_registers_base() {
        let told = "LDT=0000 0000000000000000 0000ffff 00008200 DPL=0 LDT\r\n\
                    TR =0040 ffffffff80123440 00000067 00008b00 DPL=0 TSS64-busy\r\n";
        assert_eq!(task_state(told), Some(0xffff_ffff_8012_3440));
        assert_eq!(task_state("RAX=0"), None);
    }
}

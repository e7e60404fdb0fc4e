//! NMIs in NMIs: a second one at each instruction of the first one's path.
//!
//! Hardware holds a second NMI back until the first one's IRET. But any IRET lets it in, and #DB, #MC and the fixup of a failed MSR read bring
//! one: the debugger does what they do, and lets the CPU execute an IRET to the place where it is.

use super::{INTERRUPTS, Injector, RFLAGS, Report, SURPLUS_STOPS, SYSCALL_ENTRY};
use crate::failure::Failure;
use crate::gdb::Registers;
use std::collections::BTreeSet;
use std::time::Instant;

/// Below the stack pointer, where an exception's frame would be.
const FRAME_BELOW: u64 = 512;
/// Steps from an NMI to its end at most.
const LONGEST: usize = 20_000;

/// How the second NMI comes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Second {
    /// It waits for the end of the first.
    Latched,
    /// An IRET lets it in at once.
    LetIn,
}

impl Injector {
    /// A second NMI at each instruction of the path of one that arrives here, where the CPU has stopped at no breakpoint. `everywhere`: in the
    /// handler too, and not only in the entry text.
    pub fn second_at_every_step(&mut self, everywhere: bool) -> Result<Report, Failure> {
        // Interrupts would come in between: the debugger holds them off until the end.
        let flags = self.gdb.registers(self.cpu)?.flags;
        self.gdb.set_register(self.cpu, RFLAGS, u64::from(flags & !INTERRUPTS))?;
        let base = self.gdb.registers(self.cpu)?;
        let iret = self.places.iter().find(|(_, place)| place.text == "iretq").map(|(at, _)| *at);
        let iret = iret.ok_or_else(|| Failure::Bad("the entry text has no iretq".into()))?;
        let path = self.path(&base)?;
        let safe = self.frame_is_safe_from(&path);
        let mut report = Report::default();
        let mut seen = BTreeSet::new();
        for (number, &at) in path.iter().enumerate() {
            if !seen.insert(at) || !everywhere && !self.places.contains_key(&at) {
                continue;
            }
            let ways: &[Second] = if number < safe { &[Second::Latched] } else { &[Second::Latched, Second::LetIn] };
            for way in ways {
                report.planned += 1;
                let wrong = self.second_at(&base, at, *way, iret)?;
                report.done += usize::from(wrong.is_empty());
                let place = self.places.get(&at).map_or_else(|| format!("{at:#x}"), ToString::to_string);
                report.failures.extend(wrong.iter().map(|wrong| format!("{place}, second NMI {way:?}: {wrong}")));
            }
        }
        self.gdb.set_register(self.cpu, RFLAGS, u64::from(flags))?;
        Ok(report)
    }

    /// The addresses that an NMI here passes on its way.
    fn path(&mut self, base: &Registers) -> Result<Vec<u64>, Failure> {
        if !self.raise_and_step()? {
            return Err(Failure::Bad("the NMI was not taken".into()));
        }
        let mut path = vec![self.nmi_entry];
        loop {
            self.gdb.step(self.cpu)?;
            let now = self.gdb.registers(self.cpu)?;
            if now.rip == base.rip && now.rsp() == base.rsp() {
                return Ok(path);
            }
            path.push(now.rip);
            if path.len() > LONGEST {
                return Err(Failure::Bad("an NMI does not come to its end".into()));
            }
        }
    }

    /// From which step on the first NMI's frame may be overwritten: it has been copied, and other registers are saved now. Before, no
    /// event with an IRET can come: breakpoints and watchpoints do not reach there, and #MC ends the kernel.
    fn frame_is_safe_from(&self, path: &[u64]) -> usize {
        let pushed = |at: &u64| self.places.get(at).is_some_and(|p| p.text == "push rdi");
        path.iter().position(pushed).unwrap_or(path.len())
    }

    fn second_at(&mut self, base: &Registers, at: u64, way: Second, iret: u64) -> Result<Vec<String>, Failure> {
        let before = self.snapshot()?;
        if !self.raise_and_step()? {
            return Err(Failure::Bad("the first NMI was not taken".into()));
        }
        if at != self.nmi_entry {
            self.stop_at(at)?;
        }
        match way {
            Second::Latched => {
                self.gdb.monitor("nmi")?;
            }
            Second::LetIn => {
                self.iret_to_here(iret)?;
                if !self.raise_and_step()? {
                    return Ok(vec!["it was not let in".into()]);
                }
            }
        }
        self.stop_at(base.rip)?;
        let after = self.snapshot()?;
        Ok(self.compare(&before, &after, 2))
    }

    fn stop_at(&mut self, at: u64) -> Result<(), Failure> {
        self.gdb.set_breakpoint(at)?;
        let there = self.run_to(at)?;
        self.gdb.clear_breakpoint(at)?;
        if there { Ok(()) } else { Err(Failure::Bad(format!("{at:#x} was not come to"))) }
    }

    /// The CPU executes an IRET that changes nothing but that NMIs are let in.
    fn iret_to_here(&mut self, iret: u64) -> Result<(), Failure> {
        let here = self.gdb.registers(self.cpu)?;
        let frame = (here.rsp() - FRAME_BELOW) & !15;
        let words = [here.rip, here.segments[0].into(), here.flags.into(), here.rsp(), here.segments[1].into()];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.gdb.set_memory(self.cpu, frame, &bytes)?;
        self.gdb.set_register(self.cpu, 7, frame)?;
        self.gdb.set_register(self.cpu, 16, iret)?;
        for _ in 0..SURPLUS_STOPS {
            self.gdb.step(self.cpu)?;
            let now = self.gdb.registers(self.cpu)?;
            if now == here {
                return Ok(());
            }
            if now.rip != iret {
                break;
            }
        }
        Err(Failure::Bad(format!("an IRET to {:#x} did not come there", here.rip)))
    }

    /// Lets the guest run to the next system call of the CPU, before its first instruction.
    pub fn until_system_call(&mut self, finished: &mut impl FnMut() -> bool) -> Result<(), Failure> {
        self.until_place(SYSCALL_ENTRY, |place| place.offset == 0, finished)
    }

    /// Lets the guest run to the first instruction that a program on the CPU executes after a system call.
    pub fn until_user_mode(&mut self, finished: &mut impl FnMut() -> bool) -> Result<(), Failure> {
        self.until_place(SYSCALL_ENTRY, |place| place.text.starts_with("sysret"), finished)?;
        for _ in 0..SURPLUS_STOPS {
            self.gdb.step(self.cpu)?;
            if self.gdb.registers(self.cpu)?.is_user() {
                return Ok(());
            }
        }
        Err(Failure::Bad("SYSRET did not come to user mode".into()))
    }

    fn until_place(
        &mut self,
        function: &str,
        which: impl Fn(&super::Place) -> bool,
        finished: &mut impl FnMut() -> bool,
    ) -> Result<(), Failure> {
        let found = self.places.iter().find(|(_, place)| place.function == function && which(place)).map(|(at, _)| *at);
        let at = found.ok_or_else(|| Failure::Bad(format!("{function} has no such instruction")))?;
        self.gdb.set_breakpoint(at)?;
        self.progress = Instant::now();
        loop {
            let stop = self.next_stop(finished)?;
            let cpu = stop.ok_or_else(|| Failure::Bad(format!("{function} was not reached")))?;
            if cpu == self.cpu {
                return self.gdb.clear_breakpoint(at);
            }
            self.step_over(cpu, at)?;
        }
    }
}

//! Injection: stops a guest at each instruction of the entry paths, lets an NMI arrive exactly there, or a #DB behind each access to memory
//! (`debug`), and compares everything afterwards. Used by the scenario `nmi_injection`, whose guest runs `hazard_nmi`.
//!
//! At a stop the machine's NMI line is raised through QEMU's monitor and the CPU makes one step, which takes the NMI: it is then at the
//! first instruction of the NMI's entry, or the injection counts as failed. It runs alone until it is back. Then all registers, the memory
//! around its stack pointer and the head of its per-CPU area must be what they were, but for one counter that is one higher, always
//! the same one, and the context word, which may have gone to and fro as `kcore::context_tracking` says.

pub mod debug;
pub mod nested;
pub mod plan;

use crate::check_elf::image::Image;
use crate::failure::Failure;
use crate::gdb::{Gdb, Registers, Stop};
use iced_x86::{Mnemonic, Register};
use kcore::context_tracking as word;
use plan::Place;
pub use plan::is_system_call_or_timer;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is injected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Event {
    /// An NMI before the instruction.
    Nmi,
    /// A #DB behind it.
    Debug,
}

/// The part of a CPU's area that entry code works with (`arch::cpu_head`).
const HEAD_BYTES: usize = 320;
/// What is compared on both sides of the stack pointer.
const BELOW: u64 = 128;
const ABOVE: u64 = 512;
const PAGE: u64 = 4096;
/// The entry that NMIs take, and those whose kernel half `nested` looks at.
const NMI_ENTRY: &str = "kernel::entry::nmi::nmi_entry";

/// The entry of system calls.
const SYSCALL_ENTRY: &str = "kernel::entry::syscall::syscall_entry";
/// What each step of patching text that runs goes through (`smp::deferred_work`).
const PATCHING: &str = "kernel::smp::deferred_work::on_each";
/// RFLAGS as the stub numbers it, and its TF.
const RFLAGS: u32 = 17;
const TRAP: u32 = 0x100;
/// RFLAGS.IF.
const INTERRUPTS: u32 = 0x200;
/// Stops that another CPU had asked for when all stopped; each comes again, before the next step.
const SURPLUS_STOPS: u32 = 20;

/// Safety net: so long without one address more, and the guest hangs.
const PATIENCE: Duration = Duration::from_secs(1500);

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Addresses at which an NMI arrived and everything was right.
    pub done: usize,
    /// How many there are to be reached.
    pub planned: usize,
    /// A line for each thing that was wrong, addresses that were not reached among them.
    pub failures: Vec<String>,
}

impl Report {
    /// The line for people.
    pub fn line(&self, what: &str) -> String {
        format!("{what} at {} of {} addresses, {} failures", self.done, self.planned, self.failures.len())
    }
}

/// All that an NMI must leave alone, with the CPU at one place.
struct Snapshot {
    registers: Registers,
    head: Vec<u8>,
    stack: Option<Vec<u8>>,
}

/// The debugger at one CPU of a guest.
pub struct Injector {
    gdb: Gdb,
    cpu: u32,
    /// Every instruction of the entry text.
    pub places: BTreeMap<u64, Place>,
    nmi_entry: u64,
    debug_entry: u64,
    patching: u64,
    context: usize,
    /// Where in the head NMIs are counted, from the first one on.
    nmis: Option<usize>,
    /// Top of the CPU's stack for #DB, once it is known.
    debug_stack: Option<u64>,
    /// The others run too: it waits for one of them.
    together: bool,
    /// When an address was done last.
    progress: Instant,
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))).collect()
}

impl Injector {
    /// For CPU `cpu`, to which the machine's NMI line leads, of a guest that runs the kernel in file `kernel`.
    pub fn new(gdb: Gdb, kernel: &Path, cpu: u32) -> Result<Injector, Failure> {
        let bytes = crate::failure::read(kernel)?;
        let image = Image::parse(&bytes).map_err(|e| Failure::Bad(format!("{}: {e}", kernel.display())))?;
        let places = plan::of(&image)?;
        let missing = |what: &str| Failure::Bad(format!("{}: no {what}", kernel.display()));
        let nmi_entry = image.function(NMI_ENTRY).ok_or_else(|| missing(NMI_ENTRY))?.start;
        let debug_entry = image.function(debug::ENTRY).ok_or_else(|| missing(debug::ENTRY))?.start;
        let patching = image.functions.iter().find(|f| f.name.starts_with(PATCHING));
        let patching = patching.ok_or_else(|| missing(PATCHING))?.start;
        let code = image.instructions(image.entry_text());
        let transition = code.iter().find(|i| i.mnemonic() == Mnemonic::Xadd && i.segment_prefix() == Register::GS);
        let context = transition.ok_or_else(|| missing("transition"))?.memory_displacement64() as usize;
        Ok(Injector {
            gdb,
            cpu,
            places,
            nmi_entry,
            debug_entry,
            patching,
            context,
            nmis: None,
            debug_stack: None,
            together: false,
            progress: Instant::now(),
        })
    }

    /// The connection back, to let the guest go.
    pub fn into_gdb(self) -> Gdb {
        self.gdb
    }

    fn snapshot(&mut self) -> Result<Snapshot, Failure> {
        let registers = self.gdb.registers(self.cpu)?;
        let head = registers.bases[1..].iter().copied().find(|base| base >> 47 == 0x1ffff);
        let head = head.ok_or_else(|| Failure::Bad(format!("no GS base is the kernel's: {:x?}", registers.bases)))?;
        let head = self.gdb.memory(self.cpu, head, HEAD_BYTES)?;
        let head = head.ok_or_else(|| Failure::Bad("the per-CPU area is not mapped".into()))?;
        let rsp = registers.rsp();
        let end = (rsp + ABOVE).min(rsp / PAGE * PAGE + PAGE);
        let start = rsp.saturating_sub(BELOW).max(rsp / PAGE * PAGE);
        let stack = self.gdb.memory(self.cpu, start, (end - start) as usize)?;
        Ok(Snapshot { registers, head, stack })
    }

    /// What differs after `nmis` NMIs, in words.
    fn compare(&mut self, before: &Snapshot, after: &Snapshot, nmis: u64) -> Vec<String> {
        let mut wrong = Vec::new();
        if before.registers != after.registers {
            wrong.push(format!("registers {:x?} became {:x?}", before.registers, after.registers));
        }
        if before.stack != after.stack {
            wrong.push("memory around RSP has changed".into());
        }
        let (old, new) = (words(&before.head), words(&after.head));
        for (place, (&old, &new)) in old.iter().zip(&new).enumerate() {
            if place == self.context / 8 {
                let moves = if word::is_watching(old) { 0 } else { nmis };
                let wanted = old.wrapping_add(moves * 2 * word::WATCH);
                if new != wanted {
                    wrong.push(format!("the context word went from {old:#x} to {new:#x} and not {wanted:#x}"));
                }
            } else if old != new {
                let counter = *self.nmis.get_or_insert(place);
                if counter != place || new.wrapping_sub(old) != nmis {
                    wrong.push(format!("GS:{:#x} went from {old:#x} to {new:#x} by {nmis} NMIs", place * 8));
                }
            }
        }
        let counted = self.nmis.map_or(0, |place| new[place].wrapping_sub(old[place]));
        if counted != nmis {
            wrong.push(format!("{counted} NMIs were counted and not {nmis}"));
        }
        wrong
    }

    /// Raises the line; the CPU's next step takes it, and is at the entry after it. False if it is elsewhere.
    fn raise_and_step(&mut self) -> Result<bool, Failure> {
        let before = self.gdb.registers(self.cpu)?;
        self.gdb.monitor("nmi")?;
        for _ in 0..SURPLUS_STOPS {
            self.gdb.step(self.cpu)?;
            let now = self.gdb.registers(self.cpu)?;
            if now != before {
                return Ok(now.rip == self.nmi_entry);
            }
        }
        Ok(false)
    }

    /// Lets the CPU run alone to `at`, where a breakpoint is. False if it came to another one.
    fn run_to(&mut self, at: u64) -> Result<bool, Failure> {
        for _ in 0..SURPLUS_STOPS {
            self.gdb.go_on_alone(self.cpu)?;
            self.gdb.stopped()?;
            let rip = self.gdb.registers(self.cpu)?.rip;
            if rip == at || self.places.get(&rip).is_some_and(|place| place.function != NMI_ENTRY) {
                return Ok(rip == at);
            }
        }
        Err(Failure::Bad(format!("{at:#x} was not come to")))
    }

    /// As `inject_here` and `debug_here`, with interrupts held off: one in between would change all that is compared, and what it leads to may wait for a CPU
    /// that stands still. The debugger changes that one flag before and after.
    fn inject_undisturbed(&mut self, event: Event) -> Result<Option<Vec<String>>, Failure> {
        let flags = self.gdb.registers(self.cpu)?.flags;
        if flags & INTERRUPTS != 0 {
            self.gdb.set_register(self.cpu, RFLAGS, u64::from(flags & !INTERRUPTS))?;
        }
        let told = match event {
            Event::Nmi => self.inject_here()?,
            Event::Debug => self.debug_here()?,
        };
        if flags & INTERRUPTS != 0 {
            // The instruction may have changed others.
            let now = self.gdb.registers(self.cpu)?.flags;
            self.gdb.set_register(self.cpu, RFLAGS, u64::from(now | INTERRUPTS))?;
        }
        Ok(told)
    }

    /// An NMI here, where a breakpoint is. What was wrong; `None` if an interrupt came before the CPU was back.
    fn inject_here(&mut self) -> Result<Option<Vec<String>>, Failure> {
        let before = self.snapshot()?;
        if !self.raise_and_step()? {
            return Ok(Some(vec!["the NMI was not taken here".into()]));
        }
        if !self.run_to(before.registers.rip)? {
            return Ok(None);
        }
        let after = self.snapshot()?;
        Ok(Some(self.compare(&before, &after, 1)))
    }

    /// Injects one NMI at each of the addresses that `wanted` takes, as the guest comes by, until `finished` says that it will not any more.
    pub fn every_address(
        &mut self,
        wanted: impl Fn(&Place) -> bool,
        finished: impl FnMut() -> bool,
    ) -> Result<Report, Failure> {
        self.every(Event::Nmi, wanted, finished)
    }

    fn every(
        &mut self,
        event: Event,
        wanted: impl Fn(&Place) -> bool,
        mut finished: impl FnMut() -> bool,
    ) -> Result<Report, Failure> {
        // Those of the list are watched too: it has to be true.
        let in_nmi = |place: &Place| place.function == NMI_ENTRY;
        let mut open: BTreeMap<u64, Place> =
            self.places.iter().filter(|(_, p)| wanted(p) && !in_nmi(p)).map(|(at, p)| (*at, p.clone())).collect();
        let mut left = open.values().filter(|place| place.unreachable.is_none()).count();
        let mut report = Report { planned: left, ..Report::default() };
        for at in open.keys().chain([&self.patching]) {
            self.gdb.set_breakpoint(*at)?;
        }
        self.progress = Instant::now();
        while left > 0 {
            let stop = self.next_stop(&mut finished)?;
            let hangs = self.progress.elapsed() > PATIENCE;
            let Some(cpu) = stop.filter(|_| !hangs) else {
                if hangs {
                    report
                        .failures
                        .push(format!("{left} addresses are left, and nothing goes on: {}", self.whereabouts()?));
                }
                break;
            };
            let at = self.gdb.registers(cpu)?.rip;
            if at == self.patching {
                self.step_over(cpu, at)?;
                // Another CPU has just written INT3: the injector's CPU runs on alone, and meets it.
                self.together = false;
                continue;
            }
            let Some(place) = open.get(&at).cloned() else { continue };
            if cpu != self.cpu {
                self.step_over(cpu, at)?;
                continue;
            }
            let wrong = match &place.unreachable {
                Some(reason) => vec![format!("reached, though: {reason}")],
                None => match self.inject_undisturbed(event)? {
                    Some(wrong) => wrong,
                    None => continue,
                },
            };
            self.progress = Instant::now();
            left -= usize::from(place.unreachable.is_none());
            report.done += usize::from(wrong.is_empty());
            report.failures.extend(wrong.iter().map(|wrong| format!("{place}: {wrong}")));
            open.remove(&at);
            self.gdb.clear_breakpoint(at)?;
            if event == Event::Nmi && place.function == SYSCALL_ENTRY && place.offset == 0 {
                // A single step in the kernel, before SWAPGS: #DB.
                let flags = self.gdb.registers(cpu)?.flags;
                self.gdb.set_register(cpu, RFLAGS, u64::from(flags | TRAP))?;
            }
        }
        self.gdb.clear_breakpoint(self.patching)?;
        for (at, place) in open {
            self.gdb.clear_breakpoint(at)?;
            if place.unreachable.is_none() {
                report.failures.push(format!("{place}: not reached"));
            }
        }
        Ok(report)
    }

    fn step_over(&mut self, cpu: u32, at: u64) -> Result<(), Failure> {
        self.gdb.clear_breakpoint(at)?;
        self.gdb.step(cpu)?;
        self.gdb.set_breakpoint(at)
    }

    /// Where the CPUs are, which have stopped.
    fn whereabouts(&mut self) -> Result<String, Failure> {
        let mut told = String::new();
        for cpu in 0..=self.cpu {
            let now = self.gdb.registers(cpu)?;
            let mode = if now.is_user() { "user" } else { "kernel" };
            told.push_str(&format!("CPU {cpu} in {mode} mode at {:#x}, RSP {:#x}; ", now.rip, now.rsp()));
        }
        Ok(told)
    }

    /// Lets the guest run until a CPU stops; `None`, and all stopped, when `finished` says so before. The injector's CPU runs alone as long
    /// as it comes by by itself: the others would stop at the same places.
    fn next_stop(&mut self, finished: &mut impl FnMut() -> bool) -> Result<Option<u32>, Failure> {
        if !self.together {
            self.gdb.go_on_alone(self.cpu)?;
            match self.gdb.poll()? {
                Stop::Cpu(cpu) => return Ok(Some(cpu)),
                Stop::Ended => return Err(Failure::Bad("the guest has ended".into())),
                Stop::Running => {}
            }
            self.together = true;
            self.gdb.interrupt()?;
            self.gdb.stopped()?;
            return Ok(Some(self.cpu));
        }
        self.gdb.go_on()?;
        loop {
            match self.gdb.poll()? {
                // One who is done may leave the others stopping for ever.
                Stop::Cpu(_) if finished() => return Ok(None),
                Stop::Cpu(cpu) => {
                    self.together = cpu != self.cpu;
                    return Ok(Some(cpu));
                }
                Stop::Ended => return Err(Failure::Bad("the guest has ended".into())),
                Stop::Running if finished() || self.progress.elapsed() > PATIENCE => {
                    self.gdb.interrupt()?;
                    self.gdb.stopped()?;
                    return Ok(None);
                }
                Stop::Running => {}
            }
        }
    }
}

//! hazard_watch: two traced programs and the kernel share the four debug registers of CPU 1, on which a program that nobody traces runs too.
//!
//! What went wrong: Linux 5.8 to 5.10 took a single step and a hit in DR6 for exclusive, and lost what it saw second (commit 9ad22e165994);
//! CVE-2018-1000199: a breakpoint that was refused stayed in DR7 half changed. Here everyone is told of its own hits, each once: the programs of theirs
//! by SIGTRAP with the bits of DR6, the kernel in /sys/kernel/quiesce/watch; and nobody gets a register that another has.

use super::hazard::Attempts;
use crate::entry::{Args, Failure, Outcome};
use crate::kernel_file;
use crate::linux::{self, Ended};
use crate::output::write_out;
use crate::program::calls::traced::{Traced, WALL, request};
use std::arch::asm;
use std::sync::atomic::AtomicU64;

const WATCH: &str = "/sys/kernel/quiesce/watch";
/// Offset of DR0 in struct user.
const DEBUG_REGISTERS: u64 = 848;
const ROUNDS: u64 = 100;
/// Hits after which the kernel's watchpoint of the scheduler goes and comes back.
const TURN: u64 = 25;

/// Where all three programs write in each round, each in memory of its own.
static PLACES: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// The program: CPU 1, and in each round all places, a system call, and now and then the other programs' turn.
fn write_all() -> u8 {
    for round in 1..=ROUNDS {
        // SAFETY: (1) the three words are this program's, and atomic; (2) nothing else is touched.
        unsafe {
            asm!("mov [{at}], {round}", "nop", "nop", "mov [{at} + 8], {round}", "nop", "nop", "mov [{at} + 16], {round}", "nop", "nop",
                at = in(reg) PLACES.as_ptr(), round = in(reg) round, options(nostack, preserves_flags));
        }
        linux::process_group();
        if round % 4 == 0 {
            std::thread::yield_now();
        }
    }
    9
}

fn on_cpu_1() -> u8 {
    if linux::set_affinity(&[1]).is_err() {
        return 1;
    }
    write_all()
}

/// A traced program, and its watchpoints: the place that each register has.
struct Program {
    traced: Traced,
    registers: &'static [(u64, usize)],
    /// Hits up to now.
    hits: u64,
    /// It was told to do one step.
    steps: bool,
    ended: Option<Ended>,
}

impl Program {
    fn new(registers: &'static [(u64, usize)]) -> Result<Program, String> {
        let traced = Traced::start(on_cpu_1)?;
        Ok(Program { traced, registers, hits: 0, steps: false, ended: None })
    }

    fn poke(&self, register: u64, value: u64) -> Result<u64, i32> {
        self.traced.ask(request::POKEUSER, DEBUG_REGISTERS + 8 * register, value)
    }

    /// Takes register `register` for writes of 8 bytes to `place`.
    fn watch(&self, register: u64, place: usize) -> Result<(), i32> {
        self.poke(register, PLACES[place].as_ptr() as u64)?;
        let control = self.control(self.registers.iter().filter(|(r, _)| *r <= register));
        self.poke(7, control).map(|_| ())
    }

    fn control<'a>(&self, registers: impl Iterator<Item = &'a (u64, usize)>) -> u64 {
        registers.map(|(r, _)| 9 << (16 + 4 * r) | 1 << (2 * r)).sum()
    }

    fn peek(&self, number: u64, address: u64) -> Result<u64, String> {
        let mut word = 0u64;
        let asked = self.traced.ask(number, address, (&raw mut word) as u64);
        asked.map(|_| word).map_err(|e| format!("peek: error {e}"))
    }

    /// It has stopped by SIGTRAP: whether for what it ought to. Then it goes on, now and then by one step.
    fn stopped(&mut self) -> Result<(), String> {
        const TRAP_TRACE: u32 = 2;
        const TRAP_HWBKPT: u32 = 4;
        let mut info = [0u32; 32];
        self.traced.ask(request::GETSIGINFO, 0, info.as_mut_ptr() as u64).map_err(|e| format!("siginfo: error {e}"))?;
        let dr6 = self.peek(request::PEEKUSER, DEBUG_REGISTERS + 48)? & 0x400f;
        if self.steps {
            if (info[2], dr6) != (TRAP_TRACE, 0x4000) {
                return Err(format!("a step: code {}, DR6 {dr6:#x}", info[2]));
            }
        } else {
            let own = self.registers.len() as u64;
            let (register, place) = self.registers[(self.hits % own) as usize];
            let round = self.hits / own + 1;
            let word = self.peek(request::PEEKDATA, PLACES[place].as_ptr() as u64)?;
            if (info[2], dr6, word) != (TRAP_HWBKPT, 1 << register, round) {
                return Err(format!("hit {}: code {}, DR6 {dr6:#x}, {word} written", self.hits, info[2]));
            }
            self.hits += 1;
        }
        self.steps = !self.steps && self.hits.is_multiple_of(3);
        self.go_on(0)
    }

    fn go_on(&self, signal: u64) -> Result<(), String> {
        let how = if self.steps { request::SINGLESTEP } else { request::CONT };
        self.traced.ask(how, 0, signal).map(|_| ()).map_err(|e| format!("go on: error {e}"))
    }
}

/// The kernel's watchpoints as it tells them: the address, then hits, CPU and task of the last.
fn kernel_hits() -> Result<Vec<(String, [u64; 3])>, String> {
    let text = kernel_file::read(WATCH).map_err(|failure| failure.text)?;
    let word = |line: &str, key: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or_default().to_string()
    };
    let numbers = |line| ["hits=", "cpu=", "task="].map(|key| word(line, key).parse().unwrap_or(0));
    Ok(text.lines().map(|line| (word(line, "address="), numbers(line))).collect())
}

fn kernel(request: &str) -> Result<(), String> {
    kernel_file::write(WATCH, request).map_err(|failure| format!("{request}: {}", failure.text))
}

fn all(attempts: &mut Attempts) -> Result<(), String> {
    let untraced = Traced::untraced(on_cpu_1)?;
    let mut programs = [Program::new(&[(0, 0)])?, Program::new(&[(0, 1), (3, 2)])?];
    let told = |e: i32| format!("error {e}");
    // The second one has the register that the kernel would take first.
    programs[1].watch(0, 1).map_err(told)?;
    programs[1].watch(3, 2).map_err(told)?;
    let sched = "sched:1";
    let stack = format!("stack:{}-56", programs[0].traced.pid);
    kernel(&format!("{sched} 8 rw"))?;
    let sched_at = kernel_hits()?.into_iter().next().map(|(address, _)| address).unwrap_or_default();
    kernel(&format!("{stack} 8 rw"))?;
    programs[0].watch(0, 0).map_err(told)?;
    for register in [1, 2] {
        let control = 9 << (16 + 4 * register) | 1 << (2 * register) | 0x9_0001;
        attempts.holds("a register of the kernel's", programs[0].poke(7, control) == Err(libc::ENOSPC));
    }
    let none_left = crate::output::describe(&std::io::Error::from_raw_os_error(libc::ENOSPC));
    let refused = kernel("sched:0 8 rw");
    attempts
        .holds(&format!("registers of the programs': {refused:?}"), refused.is_err_and(|why| why.contains(&none_left)));
    for program in &programs {
        program.go_on(0)?;
    }
    let (mut seen_by_sched, mut turns) = (0, 0);
    let mut untraced_ended = false;
    while !untraced_ended || programs.iter().any(|program| program.ended.is_none()) {
        let mut status = 0u32;
        // SAFETY: (1) the status is a live, writable integer.
        let pid = unsafe { libc::syscall(libc::SYS_wait4, -1, &raw mut status, WALL, 0) };
        if pid == untraced.pid as i64 {
            attempts.holds(&format!("a program that nobody traces: status {status:#x}"), status == 9 << 8);
            untraced_ended = true;
            continue;
        }
        let Some(at) = programs.iter().position(|program| program.traced.pid as i64 == pid) else {
            return Err(format!("wait: {pid}: {}", std::io::Error::last_os_error()));
        };
        let program = &mut programs[at];
        match status {
            0x57f => {
                // Its stack, while it is its own.
                if at == 0 && !program.steps && program.hits + 1 == ROUNDS {
                    let told = kernel_hits()?;
                    let own = told.iter().find(|(address, _)| *address != sched_at);
                    attempts.holds(
                        &format!("the kernel's hits on its stack: {told:?}"),
                        own.is_some_and(|(_, [hits, cpu, task])| {
                            *hits >= ROUNDS && *cpu == 1 && *task == program.traced.pid
                        }),
                    );
                }
                let stopped = program.stopped();
                attempts.holds(&format!("program {at}: {stopped:?}"), stopped.is_ok());
                stopped?;
            }
            status if status & 0xff == 0 => program.ended = Some(Ended::Exit((status >> 8) as u8)),
            status => return Err(format!("program {at}: status {status:#x}")),
        }
        if programs[0].hits + programs[1].hits > TURN * (turns + 1) {
            turns += 1;
            let told = kernel_hits()?;
            kernel(&format!("{sched} off"))?;
            seen_by_sched += told.iter().find(|(address, _)| *address == sched_at).map_or(0, |(_, [hits, ..])| *hits);
            kernel(&format!("{sched} 8 rw"))?;
        }
    }
    for (at, program) in programs.iter().enumerate() {
        let wanted = ROUNDS * program.registers.len() as u64;
        attempts.holds(&format!("program {at}: {} hits, not {wanted}", program.hits), program.hits == wanted);
        attempts.ends(&format!("program {at}"), Ok(program.ended.unwrap_or(Ended::Exit(0))), &[Ended::Exit(9)]);
    }
    attempts.holds("the kernel's hits on its scheduler", seen_by_sched > 0);
    write_out(format!("kernel: {seen_by_sched} hits or more, its watchpoint set anew {turns} times\n").as_bytes());
    Ok(())
}

/// The kernel watches nothing any more. The task of a stack may be gone, and with it the name of that place: by its address.
fn off() -> Result<(), String> {
    kernel_hits()?.iter().try_for_each(|(address, _)| kernel(&format!("{address} off")))
}

/// `hazard_watch`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_watch");
    linux::set_affinity(&[0]).map_err(|e| Failure::new(format!("affinity to CPU 0: {e}")))?;
    let told = all(&mut attempts);
    if let Err(why) = off().and(told) {
        attempts.holds(&why, false);
    }
    attempts.end()
}

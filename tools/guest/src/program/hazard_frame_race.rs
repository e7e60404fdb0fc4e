//! hazard_frame_race: signal frames that a second thread takes away, replaces or rewrites while rt_sigreturn reads them.
//!
//! What went wrong: Linux before 5.13 could be left with registers of nobody in its FPU when a sibling thread unmapped the page that XRSTOR was
//! reading (commit d8778e393afa); CVE-2024-26603: it brought in what a length in the frame named, and not what XRSTOR wanted, for ever.
//! Here each return comes back with registers of the frame, or is SIGSEGV, also when the frame goes between the look that checks it and the one that
//! loads the registers for good: then nothing that C code left in them is seen.

use super::hazard::{Attempts, in_child};
use crate::entry::{Args, Failure, Outcome};
use crate::instruction;
use crate::linux::{self, Ended};
use crate::output::write_out;
use std::arch::naked_asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const PAGE: usize = 4096;
/// Words of a frame from the return address to the mask.
const WORDS: usize = 39;
/// Where its parts are.
mod at {
    pub const FLAGS: usize = 1;
    pub const STACK_FLAGS: usize = 4;
    pub const GENERAL: std::ops::Range<usize> = 6..21;
    pub const RSP: usize = 21;
    pub const RIP: usize = 22;
    pub const RFLAGS: usize = 23;
    pub const SELECTORS: usize = 24;
    pub const FPU: usize = 29;
}
/// CS and SS of a program.
const SELECTORS: u64 = 0x2b << 48 | 0x33;
const RFLAGS: u64 = 0x202;
/// Rounds of each kind, and the most where what is to be seen does not come.
const ROUNDS: u64 = 2000;
const MOST_ROUNDS: u64 = 300_000;
/// Children that are left to die, of each kind.
const CHILDREN: usize = 3;

/// What a general register is in a frame: one of two.
const fn value(word: usize, second: bool) -> u64 {
    (if second { 0x2222_2222_2222_2200 } else { 0x1111_1111_1111_1100 }) + word as u64
}

/// Stack pointer of the thread that returns, where it goes on.
static KEPT_RSP: AtomicU64 = AtomicU64::new(0);
/// General registers after a return, in the frame's order.
static SEEN: [AtomicU64; 15] = [const { AtomicU64::new(0) }; 15];
static MXCSR: u32 = 0x1f80;

/// rt_sigreturn with the stack pointer at RDI. 0: it came back to `came_back`; 1: by the handler.
#[unsafe(naked)]
unsafe extern "C" fn attempt(rsp: u64) -> u64 {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "mov [rip + {kept}], rsp",
        "mov rsp, rdi",
        "mov eax, 15",
        "syscall",
        "ud2",
        kept = sym KEPT_RSP,
    )
}
/// Bytes of `attempt` up to what is behind its call.
const AFTER_CALL: u64 = 27;

/// Where a frame goes back to.
#[unsafe(naked)]
unsafe extern "C" fn came_back() {
    naked_asm!(
        "mov [rip + {seen}], r8", "mov [rip + {seen} + 8], r9", "mov [rip + {seen} + 16], r10", "mov [rip + {seen} + 24], r11",
        "mov [rip + {seen} + 32], r12", "mov [rip + {seen} + 40], r13", "mov [rip + {seen} + 48], r14", "mov [rip + {seen} + 56], r15",
        "mov [rip + {seen} + 64], rdi", "mov [rip + {seen} + 72], rsi", "mov [rip + {seen} + 80], rbp", "mov [rip + {seen} + 88], rbx",
        "mov [rip + {seen} + 96], rdx", "mov [rip + {seen} + 104], rax", "mov [rip + {seen} + 112], rcx",
        "xor eax, eax",
        "jmp {go_on}",
        seen = sym SEEN,
        go_on = sym go_on,
    )
}

/// The same after a signal.
#[unsafe(naked)]
unsafe extern "C" fn recovered() {
    naked_asm!("mov eax, 1", "jmp {go_on}", go_on = sym go_on)
}

#[unsafe(naked)]
unsafe extern "C" fn go_on() {
    naked_asm!(
        "mov rsp, [rip + {kept}]",
        "push {rflags}",
        "popfq",
        "fninit",
        "ldmxcsr [rip + {mxcsr}]",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        kept = sym KEPT_RSP,
        rflags = const RFLAGS,
        mxcsr = sym MXCSR,
    )
}

fn address(function: unsafe extern "C" fn()) -> u64 {
    function as *const () as u64
}

/// How returns ended.
static REFUSED: AtomicU64 = AtomicU64::new(0);
static GONE: AtomicU64 = AtomicU64::new(0);
static LATER: AtomicU64 = AtomicU64::new(0);
/// A fault that none of the frames can have made; the last one's signal and code.
static STRANGE: AtomicU64 = AtomicU64::new(0);
static STRANGE_IS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

extern "C" fn caught(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    const SI_KERNEL: c_int = 0x80;
    // SAFETY: (1) the kernel passes both; this thread is within `attempt`.
    let (code, registers) = unsafe { ((*info).si_code, &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs) };
    let rip = registers[libc::REG_RIP as usize] as u64;
    let by_call = rip == attempt as *const () as u64 + AFTER_CALL;
    let by_kernel = signal == libc::SIGSEGV && code == SI_KERNEL;
    // Of the registers that a call may change nothing is left.
    const LOST: [c_int; 9] = [
        libc::REG_RAX,
        libc::REG_RCX,
        libc::REG_RDX,
        libc::REG_RSI,
        libc::REG_RDI,
        libc::REG_R8,
        libc::REG_R9,
        libc::REG_R10,
        libc::REG_R11,
    ];
    let lost = LOST.iter().all(|&register| registers[register as usize] == 0);
    let count = match () {
        () if by_kernel && by_call => &REFUSED,
        () if by_call => &STRANGE,
        () if by_kernel && rip == address(came_back) && lost => &GONE,
        () => &LATER,
    };
    count.fetch_add(1, Ordering::Relaxed);
    if by_call && !by_kernel {
        let is = [signal as u64, code as u64];
        STRANGE_IS.iter().zip(is).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
    }
    registers[libc::REG_RIP as usize] = address(recovered) as i64;
    registers[libc::REG_EFL as usize] = RFLAGS as i64;
    registers[libc::REG_CSGSFS as usize] = SELECTORS as i64;
}

/// What the second thread does, over and over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// mprotect(2), to nothing and back
    Protect,
    /// mremap(2), away and back
    Move,
    /// mmap(2) of a new page in its place, which is filled then
    Replace,
    /// Words of it get other values
    Rewrite,
}

struct Kind {
    what: &'static str,
    how: How,
    /// Words of the frame in the page before the one that is changed; all: that has the FPU state.
    before: usize,
    /// It may go between two looks, and is to be seen doing so.
    goes: bool,
    /// The FPU state is brought in anew each time, between the two looks.
    brought_in: bool,
}

impl Kind {
    const fn new(what: &'static str, how: How, before: usize) -> Kind {
        let goes = matches!(how, How::Protect | How::Move) && before < at::RSP;
        Kind { what, how, before, goes, brought_in: false }
    }
}

const KINDS: [Kind; 9] = [
    Kind::new("frame taken away", How::Protect, 0),
    Kind::new("second half taken away", How::Protect, 12),
    Kind::new("end taken away", How::Protect, 30),
    Kind::new("FPU state taken away", How::Protect, WORDS),
    Kind::new("frame moved", How::Move, 0),
    Kind::new("frame replaced", How::Replace, 0),
    Kind::new("second half replaced", How::Replace, 12),
    Kind::new("frame rewritten", How::Rewrite, 0),
    // Who brings it in waits for who takes the frame away, and the other way round.
    Kind { brought_in: true, goes: false, ..Kind::new("frame taken away, FPU state brought in", How::Protect, 0) },
];

/// Pages of the frame: the one before, the one that is changed, one to which that may go, and one for the FPU state.
struct Memory(*mut u8);
// SAFETY: (1) raw memory that both threads access by volatile and atomic operations, and by system calls.
unsafe impl Sync for Memory {}

impl Memory {
    fn new() -> std::io::Result<Memory> {
        // SAFETY: (1) a new mapping.
        let at = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), 4 * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error()) } else { Ok(Memory(at.cast())) }
    }

    fn changed(&self) -> *mut u8 {
        self.0.wrapping_add(PAGE)
    }

    fn fresh(&self) -> *mut u8 {
        self.0.wrapping_add(3 * PAGE)
    }

    /// Address of the frame of `kind`.
    fn frame(&self, kind: &Kind) -> *mut AtomicU64 {
        self.changed().wrapping_sub(8 * kind.before).cast()
    }

    /// Word `word` of it.
    ///
    /// # Safety
    /// It is mapped.
    unsafe fn word(&self, kind: &Kind, word: usize) -> &AtomicU64 {
        // SAFETY: (1) the caller's; within the first two pages, and aligned.
        unsafe { &*self.frame(kind).wrapping_add(word) }
    }

    /// What `word` is in a good frame.
    fn good(&self, kind: &Kind, word: usize) -> u64 {
        match word {
            at::FLAGS => 4,       // UC_STRICT_RESTORE_SS
            at::STACK_FLAGS => 2, // SS_DISABLE
            at::RSP => KEPT_RSP.load(Ordering::Relaxed),
            at::RIP => address(came_back),
            at::RFLAGS => RFLAGS,
            at::SELECTORS => SELECTORS,
            at::FPU if kind.before == WORDS => self.changed() as u64 + 64,
            at::FPU => self.fresh() as u64,
            word if at::GENERAL.contains(&word) => value(word, false),
            _ => 0,
        }
    }

    /// Fills the frame from `first` on.
    ///
    /// # Safety
    /// It is mapped.
    unsafe fn fill(&self, kind: &Kind, first: usize) {
        for word in first..WORDS {
            // SAFETY: (1) the caller's.
            unsafe { self.word(kind, word) }.store(self.good(kind, word), Ordering::Relaxed);
        }
    }

    /// One change of the second thread, and back.
    fn change(&self, kind: &Kind, turn: u64) {
        let page = self.changed().cast::<c_void>();
        let away = self.0.wrapping_add(2 * PAGE).cast::<c_void>();
        // SAFETY: (1) the mappings are this program's, for nothing else.
        unsafe {
            match kind.how {
                How::Protect => {
                    libc::mprotect(page, PAGE, libc::PROT_NONE);
                    linger(turn);
                    libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE);
                }
                How::Move => {
                    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                    libc::mremap(page, PAGE, PAGE, flags, away);
                    linger(turn);
                    libc::mremap(away, PAGE, PAGE, flags, page);
                }
                How::Replace => {
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                    libc::mmap(page, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
                    self.fill(kind, kind.before);
                }
                How::Rewrite => {
                    let (word, bad) = self.bad(turn);
                    self.word(kind, word).store(bad, Ordering::Relaxed);
                    for other in at::GENERAL {
                        self.word(kind, other).store(value(other, turn & 1 == 0), Ordering::Relaxed);
                    }
                    if !turn.is_multiple_of(3) {
                        self.word(kind, word).store(self.good(kind, word), Ordering::Relaxed);
                    }
                    self.word(kind, at::FLAGS).store(turn >> 3 & 7 | 4, Ordering::Relaxed);
                }
            }
        }
        linger(turn / 7);
        if turn.is_multiple_of(16) && kind.how == How::Rewrite {
            // SAFETY: (1) this kind's frame is always mapped.
            unsafe { self.fill(kind, 0) };
        }
    }

    /// A word, and what is bad there.
    fn bad(&self, turn: u64) -> (usize, u64) {
        const KERNEL: u64 = 0xffff_ffff_8000_0000;
        let odd = self.fresh() as u64 + 8;
        let all = [
            (at::RIP, 0),
            (at::RIP, 0x8000_0000_0000),
            (at::RIP, KERNEL),
            (at::RSP, 1),
            (at::RSP, u64::MAX),
            (at::RFLAGS, u64::MAX),
            (at::RFLAGS, 0x100),
            (at::RFLAGS, 0x4_4400),
            (at::SELECTORS, 0),
            (at::SELECTORS, u64::MAX),
            (at::SELECTORS, 0x10 << 48 | 0x08),
            (at::FPU, odd),
            (at::FPU, KERNEL),
            (at::FPU, 0x8000_0000_0000_0000),
            (at::FPU, 0),
        ];
        all[turn as usize % all.len()]
    }
}

/// Time in which the other thread finds the frame as it is now: a fault waits for the change that is under way, and sees what comes of it. So long
/// that it also gets the lock for that, which goes to whoever comes first.
fn linger(turn: u64) {
    instruction::count_down(1 + turn * 7919 % 200_000);
}

/// What became of the rounds of one kind.
struct Told {
    rounds: u64,
    wrong: Option<String>,
}

/// Registers that no frame of this kind can have had.
fn strange_registers(kind: &Kind) -> Option<String> {
    at::GENERAL.zip(&SEEN).find_map(|(word, seen)| {
        let seen = seen.load(Ordering::Relaxed);
        let fits = seen == value(word, false)
            || seen == value(word, true) && kind.how == How::Rewrite
            || seen == 0 && kind.how == How::Replace;
        (!fits).then(|| format!("word {word} came back as {seen:#x}"))
    })
}

/// Rounds of `kind` beside the second thread, on CPU 0: some, and then until `enough`.
fn rounds(kind: &Kind, memory: &Memory, enough: impl Fn() -> bool) -> Told {
    let (begun, end) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut told = Told { rounds: 0, wrong: None };
    // SAFETY: (1) mapped, and nobody changes it yet.
    unsafe { memory.fill(kind, 0) };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = linux::set_affinity(&[0]);
            let mut turn = 0;
            while !end.load(Ordering::Relaxed) {
                memory.change(kind, turn);
                begun.store(true, Ordering::Relaxed);
                turn += 1;
            }
        });
        while !begun.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        while told.rounds < ROUNDS || told.rounds < MOST_ROUNDS && !enough() {
            // SAFETY: (1) the page is this program's; (2) `attempt` keeps what it must, and comes back whatever the frame says.
            let caught = unsafe {
                if kind.brought_in {
                    libc::madvise(memory.fresh().cast(), PAGE, libc::MADV_DONTNEED);
                }
                attempt(memory.frame(kind) as u64 + 8)
            };
            told.rounds += 1;
            if caught == 0
                && let Some(strange) = strange_registers(kind)
            {
                told.wrong = Some(strange);
                break;
            }
        }
        end.store(true, Ordering::Relaxed);
    });
    told
}

/// Handlers on a stack of their own.
fn handle() {
    const BYTES: usize = 16 * PAGE;
    let stack = Box::leak(vec![0u8; BYTES].into_boxed_slice());
    // SAFETY: (1) the stack stays; (2) the structures are filled; (3) the handler uses atomics only.
    unsafe {
        let alternate = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: BYTES };
        libc::sigaltstack(&alternate, std::ptr::null_mut());
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = caught as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP, libc::SIGFPE, libc::SIGILL] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// `hazard_frame_race`
pub fn main(_: &Args) -> Outcome {
    let mut attempts = Attempts::new("hazard_frame_race");
    linux::set_affinity(&[1]).map_err(|e| Failure::new(format!("affinity to CPU 1: {e}")))?;
    let memory = Memory::new().map_err(|e| Failure::new(format!("mmap: {e}")))?;
    // Nobody handles the fault: the children are killed, sooner or later.
    for kind in &KINDS[..5] {
        for _ in 0..CHILDREN {
            let ended = in_child(|| {
                rounds(kind, &memory, || false);
                0
            });
            attempts.ends(kind.what, ended, &[Ended::Signal(libc::SIGSEGV)]);
        }
    }
    handle();
    for kind in &KINDS {
        let counts = [&REFUSED, &GONE, &LATER, &STRANGE];
        counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        let told = rounds(kind, &memory, || !kind.goes || GONE.load(Ordering::Relaxed) > 0);
        let [refused, gone, later, strange] = counts.map(|count| count.load(Ordering::Relaxed));
        let rest = told.rounds - refused - gone - later - strange;
        let line = format!(
            "{}: {} rounds, {rest} came back, {refused} refused, {gone} gone between two looks, {later} faults after the return\n",
            kind.what, told.rounds
        );
        write_out(line.as_bytes());
        for _ in 1..told.rounds {
            attempts.holds(kind.what, true);
        }
        attempts.holds(&format!("{}: {}", kind.what, told.wrong.as_deref().unwrap_or("")), told.wrong.is_none());
        let last = STRANGE_IS.each_ref().map(|word| word.load(Ordering::Relaxed));
        attempts.holds(&format!("{}: {strange} strange faults, the last {last:x?}", kind.what), strange == 0);
        attempts.holds(&format!("{}: {line}", kind.what), gone > 0 || !kind.goes);
    }
    attempts.end()
}

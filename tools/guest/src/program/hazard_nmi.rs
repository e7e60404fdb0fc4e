//! hazard_nmi: goes through every kind of kernel entry with known registers, and looks at all of them afterwards, while something outside
//! injects NMIs, one instruction after the other (`host::inject`). With places it has the kernel watch 8 bytes of its own memory at each, and
//! sends the NMIs itself, from another CPU at any time.
//!
//! What went wrong elsewhere: Linux before 3.3 lost the frame of an NMI that was interrupted by an exception, whose IRET lets the next NMI in
//! on the same stack; and CVE-2014-9322, CVE-2015-5157: an IRET that fails between the two SWAPGS, an NMI that trusts a user's RSP.

use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Ended, Fork, SharedPage};
use crate::output::write_out;
use crate::program::calls::traced::{Traced, regs, request};
use crate::{instruction, kernel_file};
use std::arch::naked_asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const USAGE: &str = "usage: hazard_nmi CPU ROUNDS [PLACE...]";
const WATCH: &str = "/sys/kernel/quiesce/watch";
const DEBUG: &str = "/sys/kernel/quiesce/debug";
/// Stops of a traced child after which it is killed.
const MOST_STOPS: u32 = 8;
/// CF PF AF ZF SF IF OF, and the bit that is always one.
const FLAGS: u64 = 0xad7;
const DIRECTION: u64 = 0x400;
const TRAP: u64 = 0x100;
/// Registers in the order in which they are stored; the flags are the last.
const NAMES: [&str; 16] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "flags"];
const SEEN: usize = NAMES.len();
/// What the named register holds before: these bytes eight times.
const fn pattern(register: u64) -> u64 {
    (register + 0xa0) * 0x0101_0101_0101_0101
}

type Checked = unsafe extern "C" fn(rax: u64, rdi: u64, flags: u64, seen: *mut [u64; SEEN]);

/// `$name(rax, rdi, flags, seen)`: all other registers hold their pattern, the instructions are executed, all registers are stored.
macro_rules! checked {
    ($(#[$doc:meta])* $name:ident, $($code:literal),+) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The instructions, with the given values in RAX and RDI, leave Rust's memory alone; `seen` is writable.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(rax: u64, rdi: u64, flags: u64, seen: *mut [u64; SEEN]) {
            naked_asm!(
                "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
                "push rcx",
                "push rdx",
                "mov rax, rdi",
                "mov rdi, rsi",
                "mov rbx, {p}", "mov rcx, {p2}", "mov rdx, {p3}", "mov rsi, {p4}", "mov rbp, {p6}",
                "mov r8, {p7}", "mov r9, {p8}", "mov r10, {p9}", "mov r11, {p10}", "mov r12, {p11}", "mov r13, {p12}",
                "mov r14, {p13}", "mov r15, {p14}",
                "popfq",
                $($code),+,
                "xchg rax, [rsp]",              // the place for the registers; what RAX was goes there last
                "mov [rax + 8], rbx", "mov [rax + 16], rcx", "mov [rax + 24], rdx", "mov [rax + 32], rsi",
                "mov [rax + 40], rdi", "mov [rax + 48], rbp", "mov [rax + 56], r8", "mov [rax + 64], r9",
                "mov [rax + 72], r10", "mov [rax + 80], r11", "mov [rax + 88], r12", "mov [rax + 96], r13",
                "mov [rax + 104], r14", "mov [rax + 112], r15",
                "pushfq",
                "pop qword ptr [rax + 120]",
                "pop qword ptr [rax]",
                "cld",
                "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
                "ret",
                p = const pattern(1), p2 = const pattern(2), p3 = const pattern(3), p4 = const pattern(4), p6 = const pattern(6),
                p7 = const pattern(7), p8 = const pattern(8), p9 = const pattern(9), p10 = const pattern(10),
                p11 = const pattern(11), p12 = const pattern(12), p13 = const pattern(13), p14 = const pattern(14),
            )
        }
    };
}

checked! {
    /// A system call; RCX tells afterwards how far behind the instruction it says that it is.
    system_call, "syscall", "77: pushfq", "push rax", "lea rax, [rip + 77b]", "sub rcx, rax", "pop rax", "popfq"
}
checked! {
    /// A system call with the stack at RDI; a fault of it is skipped.
    call_on_stack, "xchg rsp, rdi", "syscall", "77: nop", "nop", "xchg rsp, rdi", "pushfq", "push rax", "lea rax, [rip + 77b]", "sub rcx, rax",
    "pop rax", "popfq"
}
checked! {
    /// #BP.
    breakpoint, "int3"
}
checked! {
    /// #OF, by the one gate beside that of #BP that a program may use.
    overflow, "int 4"
}
checked! {
    /// #UD.
    undefined, "ud2"
}
checked! {
    /// #DE: AX holds more than 255 times DL.
    divide, "div dl"
}
checked! {
    /// #MF: one by zero on the x87 unit, unmasked.
    x87, "lea rsp, [rsp - 8]", "mov qword ptr [rsp], 0x37b", "fldcw [rsp]", "fld1", "fldz", "fdivp st(1), st", "fwait", "nop", "fninit",
    "lea rsp, [rsp + 8]"
}
checked! {
    /// #GP.
    privileged, "cli", "nop"
}
checked! {
    /// #PF at the address in RDI.
    touch, "mov byte ptr [rdi], 1"
}
checked! {
    /// Nothing but time: EAX turns.
    spin, "pushfq", "78: dec eax", "jnz 78b", "popfq"
}

static TRAPS: AtomicU64 = AtomicU64::new(0);
static SIGNALS: AtomicU64 = AtomicU64::new(0);

/// Told to end.
static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn end_rounds(_: c_int) {
    ENDED.store(true, Ordering::Relaxed);
}

/// The next SIGUSR1 is sent once more by its handler: it waits until that returns.
static ONCE_MORE: AtomicBool = AtomicBool::new(false);

extern "C" fn count(signal: c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
    if signal == libc::SIGUSR1 && ONCE_MORE.swap(false, Ordering::Relaxed) {
        let _ = linux::kill(linux::own_pid(), libc::SIGUSR1);
    }
}

/// A signal frame that names an FPU state at an odd address, with room below it for a true one.
fn bad_return() -> Result<(), String> {
    const WORDS: usize = 8192;
    const FPU_STATE: usize = 29;
    let mut stack = vec![0u64; WORDS];
    let frame = WORDS - 64;
    stack[frame + FPU_STATE] = 1;
    let rsp = &raw const stack[frame + 1] as u64;
    let call = libc::SYS_rt_sigreturn as u64;
    check("a bad signal frame", call_on_stack, call, rsp, FLAGS, Some(call))
}

/// Behind the instruction of two bytes that faulted; single steps end.
extern "C" fn skip(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: (1) the kernel passes a valid context to handlers that ask for it.
    let context = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    let registers = &mut context.uc_mcontext.gregs;
    if signal != libc::SIGTRAP && !OVERFLOW.load(Ordering::Relaxed) {
        registers[libc::REG_RIP as usize] += 2;
    }
    registers[libc::REG_EFL as usize] &= !(TRAP as i64);
    TRAPS.fetch_add(1, Ordering::Relaxed);
}

/// `int 4` is a trap: its address is behind it already.
static OVERFLOW: AtomicBool = AtomicBool::new(false);

/// Runs one of the above, and names what differs. System calls change RAX, RCX and R11, and nothing else.
fn check(name: &str, what: Checked, rax: u64, rdi: u64, flags: u64, result: Option<u64>) -> Result<(), String> {
    let mut seen = [0; SEEN];
    let mut wanted: [u64; SEEN] = std::array::from_fn(|i| pattern(i as u64));
    wanted[0] = result.unwrap_or(rax);
    wanted[5] = rdi;
    wanted[SEEN - 1] = flags & !TRAP;
    if result.is_some() {
        wanted[2] = 0; // right behind
        wanted[10] = flags;
    }
    // SAFETY: (1) the callers below pass numbers and addresses that are harmless; (2) `seen` is a live array.
    unsafe { what(rax, rdi, flags, &mut seen) };
    for (register, (saw, want)) in NAMES.iter().zip(seen.iter().zip(&wanted)) {
        if saw != want {
            return Err(format!("{name}: {register} is {saw:#x} and not {want:#x}"));
        }
    }
    Ok(())
}

/// A page that is not there yet, first touched by the program, then by a system call on its behalf.
fn fault_in() -> Result<(), String> {
    const PAGE: usize = 4096;
    let mut told = Ok(());
    let mapped = linux::with_new_memory(2 * PAGE, |memory| {
        let at = memory.as_mut_ptr() as u64;
        told = check("a page fault", touch, pattern(0), at, FLAGS | DIRECTION, None).and_then(|()| {
            let file = linux::open("/proc/uptime", 0, 0).map_err(|e| format!("/proc/uptime: {e}"))?;
            let read = linux::read(file, &mut memory[PAGE..]);
            linux::close(file);
            read.map(|_| ()).map_err(|e| format!("read: {e}"))
        });
    });
    mapped.map_err(|e| format!("mmap: {e}")).and(told)
}

/// A traced child on the same CPU: its system calls have an entry of their own. A second one, whose code segment cannot be returned to.
fn traced() -> Result<(), String> {
    let told = |e: i32| format!("ptrace: error {e}");
    let calls = Traced::start(|| {
        (0..50).for_each(|_| {
            linux::process_group();
        });
        0
    })?;
    let ended = to_its_end(&calls, 0)?;
    if !matches!(ended, Ended::Exit(0) | Ended::Signal(libc::SIGTERM)) {
        return Err(format!("a traced child: {ended:?}"));
    }
    let lost = Traced::start(|| 0)?;
    lost.ask(request::POKEUSER, regs::CS as u64 * 8, 0x2b).map_err(told)?;
    // Its handler for SIGSEGV is ours, so it may even go on.
    to_its_end(&lost, 0).map(|_| ())
}

/// Lets a stopped child go on, with each signal that stops it again: what ends this program reaches the whole group. A child that does not end
/// by that is killed.
fn to_its_end(child: &Traced, signal: u64) -> Result<Ended, String> {
    let mut signal = signal;
    for _ in 0..MOST_STOPS {
        // It may have been killed meanwhile: the wait tells.
        let _ = child.ask(request::CONT, 0, signal);
        let mut status: c_int = 0;
        // SAFETY: (1) the status is a live, writable integer.
        if unsafe { libc::waitpid(child.pid as linux::Pid, &mut status, 0) } < 0 {
            if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                return Err(format!("wait for a traced child: {}", std::io::Error::last_os_error()));
            }
            signal = 0;
        } else if libc::WIFEXITED(status) {
            return Ok(Ended::Exit(libc::WEXITSTATUS(status) as u8));
        } else if libc::WIFSIGNALED(status) {
            return Ok(Ended::Signal(libc::WTERMSIG(status)));
        } else {
            signal = libc::WSTOPSIG(status) as u64;
        }
    }
    linux::kill(child.pid as linux::Pid, libc::SIGKILL).map_err(|e| format!("kill: {e}"))?;
    child.ended()
}

fn round() -> Result<(), String> {
    let getppid = libc::SYS_getppid as u64;
    // SAFETY: (1) getppid has no arguments.
    let parent = unsafe { libc::getppid() } as u64;
    check("getppid", system_call, getppid, pattern(5), FLAGS | DIRECTION, Some(parent))?;
    check("a single step over getppid", system_call, getppid, pattern(5), FLAGS | TRAP, Some(parent))?;
    check("no call", system_call, 5000, pattern(5), FLAGS, Some(-i64::from(libc::ENOSYS) as u64))?;
    check("a number without a call", system_call, 335, pattern(5), FLAGS, Some(-i64::from(libc::ENOSYS) as u64))?;
    let signals = SIGNALS.load(Ordering::Relaxed);
    let me = linux::own_pid() as u64;
    // RSI's pattern is no signal.
    check("a bad kill", system_call, libc::SYS_kill as u64, me, FLAGS, Some(-i64::from(libc::EINVAL) as u64))?;
    ONCE_MORE.store(true, Ordering::Relaxed);
    linux::kill(me as linux::Pid, libc::SIGUSR1).map_err(|e| format!("kill: {e}"))?;
    if SIGNALS.load(Ordering::Relaxed) < signals + 2 {
        return Err("a signal to oneself did not come twice".into());
    }
    bad_return()?;
    let traps = TRAPS.load(Ordering::Relaxed);
    check("int3", breakpoint, pattern(0), pattern(5), FLAGS | DIRECTION, None)?;
    OVERFLOW.store(true, Ordering::Relaxed);
    check("int 4", overflow, pattern(0), pattern(5), FLAGS, None)?;
    OVERFLOW.store(false, Ordering::Relaxed);
    check("ud2", undefined, pattern(0), pattern(5), FLAGS | DIRECTION, None)?;
    check("div", divide, 0xffff, pattern(5), FLAGS, None)?;
    check("fwait", x87, pattern(0), pattern(5), FLAGS, None)?;
    check("cli", privileged, pattern(0), pattern(5), FLAGS, None)?;
    check("a single step", breakpoint, pattern(0), pattern(5), FLAGS | TRAP, None)?;
    let traps = TRAPS.load(Ordering::Relaxed) - traps;
    if traps < 7 {
        return Err(format!("{traps} exceptions instead of seven at least"));
    }
    fault_in()?;
    traced()?;
    // The low half of RAX counts down to nothing; interrupts come meanwhile.
    spin_for(2_000_000)?;
    kernel_file::write(&format!("{DEBUG}/torture_read"), "1 7").map_err(|failure| failure.text)?;
    linux::sleep_ns(1_000_000);
    Ok(())
}

fn spin_for(turns: u64) -> Result<(), String> {
    let mut seen = [0; SEEN];
    // SAFETY: (1) counts down; (2) `seen` is a live array.
    unsafe { spin(turns, pattern(5), FLAGS | DIRECTION, &mut seen) };
    let wanted: [u64; SEEN] = std::array::from_fn(|i| match i {
        0 => 0,
        15 => FLAGS | DIRECTION,
        register => pattern(register as u64),
    });
    if seen == wanted { Ok(()) } else { Err(format!("spinning: {seen:x?} and not {wanted:x?}")) }
}

/// Another task on the worker's CPU: a tick, switches, and an idle CPU when both sleep.
fn disturb(end: &SharedPage) -> ! {
    while end[0].load(Ordering::Relaxed) == 0 {
        instruction::count_down(500_000);
        linux::sleep_ns(2_000_000);
    }
    linux::exit_now(0)
}

/// From another CPU: signals, calls, flushes of the process's memory, and work that waits in the word.
fn post(cpu: u32, nmis: bool, end: &SharedPage) -> Result<(), String> {
    linux::set_affinity(&[0]).map_err(|e| format!("affinity: {e}"))?;
    // SAFETY: (1) a set of signals is plain integers, filled by sigfillset; (2) only this thread's mask changes: the other takes them.
    unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, core::ptr::null_mut());
    }
    let (me, mut turn) = (linux::own_pid(), 0);
    while end[0].load(Ordering::Relaxed) == 0 {
        let write = |file: &str, text: &str| {
            kernel_file::write(&format!("{DEBUG}/{file}"), text).map_err(|failure| failure.text)
        };
        if nmis {
            // A CPU that the host does not run has no time to answer: it comes nevertheless.
            let _ = write("nmi", &cpu.to_string());
        }
        match turn % 7 {
            0 => write("sync_text", "1")?,
            1 => linux::kill(me, libc::SIGUSR2).map_err(|e| format!("kill: {e}"))?,
            2 => write("nmi_line", &cpu.to_string())?,
            3 => linux::with_new_memory(4096, |memory| memory[0] = 1).map_err(|e| format!("mmap: {e}"))?,
            4 => write("sync_text", "1")?,
            // Trace points on the worker's way, patched by way of INT3.
            turn => kernel_file::write("/sys/kernel/tracing/set_event", ["sched", "!sched"][turn as usize - 5])
                .map_err(|failure| failure.text)?,
        }
        turn += 1;
        instruction::count_down(1000 + turn * 7919 % 300_000);
        linux::sleep_ns(100_000 + turn * 104_729 % 1_000_000);
    }
    Ok(())
}

fn handle(signal: c_int, handler: usize, flags: c_int) -> Result<(), Failure> {
    // SAFETY: (1) sigaction is plain integers, for which zero is a value; (2) the handlers use atomics and their arguments only.
    let result = unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, core::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(Failure::new(format!("sigaction: {}", std::io::Error::last_os_error()))) }
}

/// `hazard_nmi CPU ROUNDS`: rounds on that CPU, until SIGTERM at most; the machine's NMI line goes there.
pub fn main(args: &Args) -> Outcome {
    let [cpu, rounds, places @ ..] = args.rest() else { return Err(Failure::usage(USAGE)) };
    let (Ok(cpu), Ok(rounds)) = (cpu.parse::<u32>(), rounds.parse::<u64>()) else { return Err(Failure::usage(USAGE)) };
    for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE] {
        handle(signal, skip as *const () as usize, libc::SA_SIGINFO)?;
    }
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        handle(signal, count as *const () as usize, libc::SA_RESTART)?;
    }
    handle(libc::SIGTERM, end_rounds as *const () as usize, libc::SA_RESTART)?;
    kernel_file::write(&format!("{DEBUG}/nmi_line"), &cpu.to_string())?;
    linux::set_affinity(&[cpu]).map_err(|e| Failure::new(format!("affinity to CPU {cpu}: {e}")))?;
    let end = linux::shared_page().map_err(|e| Failure::new(format!("shared memory: {e}")))?;
    let other = match linux::fork().map_err(|e| Failure::new(format!("fork: {e}")))? {
        Fork::Child => disturb(end),
        Fork::Parent(pid) => pid,
    };
    let watch = |what: &str| places.iter().try_for_each(|place| kernel_file::write(WATCH, &format!("{place} {what}")));
    watch("8 rw")?;
    write_out(b"hazard_nmi begins\n");
    let mut told = Ok(());
    let mut done = 0;
    std::thread::scope(|scope| {
        let poster = scope.spawn(|| post(cpu, !places.is_empty(), end));
        while done < rounds && told.is_ok() && !ENDED.load(Ordering::Relaxed) {
            told = round();
            done += 1;
        }
        end[0].store(1, Ordering::Relaxed);
        let posted = poster.join().unwrap_or_else(|_| Err("a panic".into()));
        told = std::mem::replace(&mut told, Ok(())).and(posted);
    });
    linux::wait_for(other).map_err(|e| Failure::new(format!("wait: {e}")))?;
    for line in kernel_file::read(WATCH)?.lines().filter(|_| !places.is_empty()) {
        write_out(format!("watched: {line}\n").as_bytes());
    }
    watch("off")?;
    let wrong = u32::from(told.is_err());
    write_out(format!("hazard_nmi: {done} rounds, {wrong} wrong\n").as_bytes());
    told.map(|()| 0).map_err(Failure::new)
}

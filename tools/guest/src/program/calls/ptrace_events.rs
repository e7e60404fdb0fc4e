//! ptrace(2): what options ask for, threads and children of a traced program, and the debug registers.

use super::traced::{Traced, WALL, regs, request, stopped};
use super::{Check, call, ensure, equal};
use crate::linux::{self, Ended};
use libc::{EINVAL, EIO, SYS_ptrace};
use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("ptrace_fork", fork),
    ("ptrace_exec", exec),
    ("ptrace_whole_program", whole_program),
    ("ptrace_threads", threads),
    ("ptrace_restart_at_0", restart_at_0),
    ("ptrace_exit", exit),
    ("ptrace_exit_race", exit_race),
    ("ptrace_watchpoint", watchpoint),
    ("ptrace_breakpoint", breakpoint),
    ("ptrace_debug_register_refusals", debug_register_refusals),
];

const TRAP: u64 = libc::SIGTRAP as u64;
const STOP: u64 = libc::SIGSTOP as u64;
/// A SIGTRAP stop by PTRACE_EVENT number `event`.
const fn event(event: u64) -> u64 {
    TRAP | event << 8
}

fn cont(t: &Traced) -> Result<(), String> {
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    Ok(())
}

fn message(t: &Traced) -> Result<u64, String> {
    let mut value = 0u64;
    equal!(t.ask(request::GETEVENTMSG, 0, (&raw mut value) as u64), Ok(0));
    Ok(value)
}

fn fork() -> Result<(), String> {
    for (option, number) in [(2u64, 1u64), (4, 2)] {
        let t = Traced::start(move || {
            let number = if option == 2 { libc::SYS_fork } else { libc::SYS_vfork };
            let value: u64;
            // SAFETY: (1) the child ends at once, by a call that touches no memory: the stack that vfork shares stays as it is.
            unsafe {
                asm!("syscall", "test rax, rax", "jnz 2f", "mov eax, 60", "mov edi, 4", "syscall", "2:",
                    inout("rax") number => value, out("rdi") _, out("rcx") _, out("r11") _);
            }
            match linux::wait_for(value as linux::Pid) {
                Ok(Ended::Exit(4)) => 6,
                _ => 7,
            }
        })?;
        equal!(t.ask(request::SETOPTIONS, 0, option), Ok(0));
        cont(&t)?;
        equal!(t.stopped()?, event(number));
        let child = Traced { pid: message(&t)? };
        equal!(stopped(child.pid)?, STOP);
        // It is traced as its parent is.
        equal!(child.ask(request::CONT, 0, 0), Ok(0));
        cont(&t)?;
        // Its end is told to the tracer, and to its parent.
        equal!(child.ended()?, Ended::Exit(4));
        // SIGCHLD, with which its parent goes on.
        equal!(t.stopped()?, libc::SIGCHLD as u64);
        cont(&t)?;
        equal!(t.ended()?, Ended::Exit(6));
    }
    Ok(())
}

fn exec() -> Result<(), String> {
    let program = || {
        // Nobody hears of what it would say.
        linux::close(1);
        linux::close(2);
        let error = linux::exec(&super::own_path(), &["calls".to_string(), super::process::EXEC_CHECK.to_string()]);
        error.raw_os_error().unwrap_or(99) as u8
    };
    let t = Traced::start(program)?;
    cont(&t)?;
    equal!(t.stopped()?, TRAP);
    equal!(t.registers()?[regs::RAX], 0);
    cont(&t)?;
    ensure!(matches!(t.ended()?, Ended::Exit(_)));
    let t = Traced::start(program)?;
    equal!(t.ask(request::SETOPTIONS, 0, 0x10), Ok(0));
    cont(&t)?;
    equal!(t.stopped()?, event(4));
    equal!(message(&t)?, t.pid);
    cont(&t)?;
    ensure!(matches!(t.ended()?, Ended::Exit(_)));
    Ok(())
}

/// A program is stepped from its first instruction to its last, each once.
fn whole_program() -> Result<(), String> {
    // mov ecx, 1000; loop to itself; mov edi, 42; mov eax, 60; syscall
    let path = super::program_file::file_with_code(&[
        0xb9, 0xe8, 0x03, 0, 0, 0xe2, 0xfe, 0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05,
    ])?;
    let t = Traced::start(|| {
        let _ = linux::exec(&path, &[String::new()]);
        1
    })?;
    cont(&t)?;
    equal!(t.stopped()?, TRAP);
    let _ = std::fs::remove_file(&path);
    let start = t.registers()?[regs::RIP];
    let mut steps = 0u32;
    let ended = loop {
        equal!(t.ask(request::SINGLESTEP, 0, 0), Ok(0));
        let mut status = 0u32;
        equal!(call(libc::SYS_wait4, [t.pid, (&raw mut status) as u64, WALL, 0, 0, 0]), Ok(t.pid));
        if u64::from(status) != TRAP << 8 | 0x7f {
            break status;
        }
        steps += 1;
        let rip = t.registers()?[regs::RIP] - start;
        ensure!(rip == if steps <= 1000 { 5 } else { [7, 12, 17][(steps as usize - 1001).min(2)] });
    };
    equal!((ended, steps), (42 << 8, 1003));
    std::mem::forget(t);
    Ok(())
}

fn threads() -> Result<(), String> {
    let t = Traced::start(|| {
        let other = std::thread::spawn(|| 5u8);
        other.join().unwrap_or(9)
    })?;
    equal!(t.ask(request::SETOPTIONS, 0, 8), Ok(0));
    cont(&t)?;
    equal!(t.stopped()?, event(3));
    let thread = Traced { pid: message(&t)? };
    equal!(stopped(thread.pid)?, STOP);
    let tids = std::fs::read_dir(format!("/proc/{}/task", t.pid)).map_err(|e| e.to_string())?.count();
    equal!(tids, 2);
    // Only its tracer sees a thread end.
    equal!(thread.ask(request::CONT, 0, 0), Ok(0));
    cont(&t)?;
    let mut status = u32::MAX;
    equal!(call(libc::SYS_wait4, [thread.pid, (&raw mut status) as u64, WALL, 0, 0, 0]), Ok(thread.pid));
    // By exit, of its own or by its process.
    equal!(status & 0xff, 0);
    equal!(t.ended()?, Ended::Exit(5));
    std::mem::forget(thread);
    Ok(())
}

fn exit() -> Result<(), String> {
    let t = Traced::start(|| 11)?;
    equal!(t.ask(request::SETOPTIONS, 0, 0x40), Ok(0));
    cont(&t)?;
    equal!(t.stopped()?, event(6));
    equal!(message(&t)?, 11 << 8);
    equal!(t.registers()?[regs::RDI], 11);
    cont(&t)?;
    equal!(t.ended()?, Ended::Exit(11));
    Ok(())
}

/// How the thread of a race ends, and who that is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    /// A process, by exit_group
    Process,
    /// The first of two threads, by exit; the other ends the process later
    First,
    /// The second of two threads, by exit
    Second,
    /// A process, by SIGTERM
    Signal,
}

/// Words of the page that both sides of a race share: when the thread may end, its id, when its process may.
const MAY_END: usize = 0;
const TID: usize = 1;
const MAY_ALL_END: usize = 2;

/// The other side: what ends, and the process around it.
fn ending(ends: Ends, page: &'static linux::SharedPage) -> u8 {
    let wait = |word: usize| {
        while page[word].load(Ordering::SeqCst) == 0 {
            std::hint::spin_loop();
        }
    };
    let end_thread = move || {
        page[TID].store(call(libc::SYS_gettid, [0; 6]).unwrap_or(0), Ordering::SeqCst);
        wait(MAY_END);
        let _ = call(libc::SYS_exit, [7, 0, 0, 0, 0, 0]);
    };
    match ends {
        Ends::Process | Ends::Signal => {
            page[TID].store(linux::own_pid() as u64, Ordering::SeqCst);
            wait(if ends == Ends::Process { MAY_END } else { MAY_ALL_END });
            7
        }
        Ends::First => {
            std::thread::spawn(move || {
                wait(MAY_ALL_END);
                linux::exit_now(7);
            });
            end_thread();
            1
        }
        Ends::Second => {
            std::thread::spawn(end_thread);
            wait(MAY_ALL_END);
            8
        }
    }
}

/// Waits for the end of thread `tid`, which is seized and which is to go on with each signal that it stops for. Its status, and whether it told of its
/// end by an event before, at which `at_event` is called.
fn wait_to_its_end(tid: u64, at_event: impl Fn()) -> Result<(u32, bool), String> {
    let mut told = false;
    loop {
        let mut status = 0u32;
        equal!(call(libc::SYS_wait4, [tid, (&raw mut status) as u64, WALL, 0, 0, 0]), Ok(tid));
        if status & 0xff != 0x7f {
            return Ok((status, told));
        }
        let stop = u64::from(status >> 8);
        let signal = if stop == event(6) {
            ensure!(!told);
            told = true;
            at_event();
            0
        } else {
            equal!(stop, libc::SIGTERM as u64);
            stop
        };
        // The end of its process lets it go on, too.
        let goes = call(SYS_ptrace, [request::CONT, tid, 0, signal, 0, 0]);
        ensure!(matches!(goes, Ok(0) | Err(libc::ESRCH)));
    }
}

/// One round: how long the tracer hesitates, `None`: it is there before. Whether it came too late, and whether it was told by an event.
fn race(ends: Ends, page: &'static linux::SharedPage, hesitates: Option<u64>) -> Result<(bool, bool), String> {
    let set = |word: usize, value| page[word].store(value, Ordering::SeqCst);
    [MAY_END, TID, MAY_ALL_END].iter().for_each(|&word| set(word, 0));
    let t = Traced::untraced(|| ending(ends, page))?;
    while page[TID].load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let tid = page[TID].load(Ordering::SeqCst);
    let end = || {
        set(MAY_END, 1);
        if ends == Ends::Signal {
            let _ = linux::kill(t.pid as linux::Pid, libc::SIGTERM);
        }
    };
    let seize = || call(SYS_ptrace, [request::SEIZE, tid, 0, 0x40, 0, 0]);
    let seized = match hesitates {
        None => {
            let seized = seize();
            end();
            seized
        }
        Some(turns) => {
            end();
            (0..turns).for_each(|_| std::hint::spin_loop());
            let seized = seize();
            set(MAY_ALL_END, 1);
            seized
        }
    };
    let wanted = if ends == Ends::Signal { libc::SIGTERM as u32 } else { 7 << 8 };
    let mut told = false;
    match seized {
        Ok(_) => {
            let (status, event) = wait_to_its_end(tid, || set(MAY_ALL_END, 1))?;
            told = event;
            ensure!(told || hesitates.is_some());
            // Its process may end before it does.
            ensure!(status == wanted || ends == Ends::Second && status == 8 << 8);
        }
        Err(libc::ESRCH | libc::EPERM) if hesitates.is_some() => {}
        Err(error) => return Err(format!("seize: error {error}")),
    }
    if ends == Ends::Second {
        equal!(t.ended()?, Ended::Exit(8));
    } else if seized.is_err() {
        let mut status = 0u32;
        equal!(call(libc::SYS_wait4, [tid, (&raw mut status) as u64, 0, 0, 0, 0]), Ok(tid));
        equal!(status, wanted);
    }
    equal!(call(libc::SYS_wait4, [tid, 0, WALL, 0, 0, 0]), Err(libc::ECHILD));
    std::mem::forget(t);
    Ok((seized.is_err(), told))
}

/// A tracer that comes while a thread ends is told of the end, and of the event before if it asked for that before the end began; or it is too late. It
/// waits for nothing that does not come, and what it traces is there until it has waited.
fn exit_race() -> Result<(), String> {
    const ROUNDS: u64 = 50;
    // A wait that lasts for ever ends the check.
    // SAFETY: (1) no memory is passed.
    unsafe { libc::alarm(120) };
    let page = linux::shared_page().map_err(|e| e.to_string())?;
    for ends in [Ends::Process, Ends::First, Ends::Second, Ends::Signal] {
        for round in 0..ROUNDS {
            let hesitates = (round > 0).then_some(round * round * 4);
            race(ends, page, hesitates).map_err(|why| format!("{ends:?}, {hesitates:?}: {why}"))?;
        }
    }
    Ok(())
}

const DEBUG_REGISTERS: u64 = 848;
const WRITE_8: u64 = 0x9_0001;

static WATCHED: AtomicU64 = AtomicU64::new(0);

fn watchpoint() -> Result<(), String> {
    let t = Traced::start(|| {
        WATCHED.store(1, Ordering::SeqCst);
        std::hint::black_box(WATCHED.load(Ordering::SeqCst));
        WATCHED.store(2, Ordering::SeqCst);
        3
    })?;
    equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS, WATCHED.as_ptr() as u64), Ok(0));
    equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS + 56, WRITE_8), Ok(0));
    let mut word = 0u64;
    let address = (&raw mut word) as u64;
    for wanted in [1, 2] {
        cont(&t)?;
        equal!(t.stopped()?, TRAP);
        let mut info = [0u32; 32];
        equal!(t.ask(request::GETSIGINFO, 0, info.as_mut_ptr() as u64), Ok(0));
        equal!(info[2], 4); // TRAP_HWBKPT
        equal!(t.ask(request::PEEKUSER, DEBUG_REGISTERS + 48, address), Ok(0));
        equal!(word & 0x400f, 1);
        equal!(t.ask(request::PEEKDATA, WATCHED.as_ptr() as u64, address), Ok(0));
        equal!(word, wanted);
    }
    equal!(t.ask(request::PEEKUSER, DEBUG_REGISTERS, address), Ok(0));
    equal!(word, WATCHED.as_ptr() as u64);
    equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS + 56, 0), Ok(0));
    cont(&t)?;
    equal!(t.ended()?, Ended::Exit(3));
    Ok(())
}

#[inline(never)]
extern "C" fn place(value: u64) -> u64 {
    std::hint::black_box(value + 1)
}

fn breakpoint() -> Result<(), String> {
    let function = std::hint::black_box(place as extern "C" fn(u64) -> u64);
    let t = Traced::start(move || (function(1) + function(2)) as u8)?;
    equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS + 8, function as *const () as u64), Ok(0));
    equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS + 56, 0x4), Ok(0));
    // Once before each call: the instruction runs when it goes on.
    for value in [1, 2] {
        cont(&t)?;
        equal!(t.stopped()?, TRAP);
        let words = t.registers()?;
        equal!((words[regs::RIP], words[regs::RDI]), (function as *const () as u64, value));
    }
    cont(&t)?;
    equal!(t.ended()?, Ended::Exit(5));
    Ok(())
}

fn debug_register_refusals() -> Result<(), String> {
    let t = Traced::start(|| 1)?;
    for kernel in [0xffff_8000_0000_0000u64, 0xffff_ffff_8000_0000, 0x8000_0000_0000, u64::MAX] {
        equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS, kernel), Err(EINVAL));
    }
    equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS, WATCHED.as_ptr() as u64 + 4), Ok(0));
    // Not aligned, a port, an instruction of four bytes.
    for control in [WRITE_8, 0x2_0001, 0xc_0001] {
        equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS + 56, control), Err(EINVAL));
    }
    for index in [4, 5] {
        equal!(t.ask(request::POKEUSER, DEBUG_REGISTERS + index * 8, 0), Err(EIO));
    }
    cont(&t)?;
    equal!(t.ended()?, Ended::Exit(1));
    Ok(())
}

/// A call that was interrupted starts again 2 bytes below where its tracer has the program go on, even where that is nowhere.
fn restart_at_0() -> Result<(), String> {
    let t = Traced::start(|| {
        let (usr1, none) = (1u64 << (libc::SIGUSR1 - 1), 0u64);
        let _ = call(libc::SYS_rt_sigprocmask, [libc::SIG_BLOCK as u64, &raw const usr1 as u64, 0, 8, 0, 0]);
        let _ = linux::kill(linux::own_pid(), libc::SIGUSR1);
        let _ = call(libc::SYS_rt_sigsuspend, [&raw const none as u64, 8, 0, 0, 0, 0]);
        9
    })?;
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.stopped()?, libc::SIGUSR1 as u64);
    equal!(t.registers()?[regs::ORIG_RAX], libc::SYS_rt_sigsuspend as u64);
    equal!(t.ask(request::POKEUSER, regs::RIP as u64 * 8, 0), Ok(0));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.stopped()?, libc::SIGSEGV as u64);
    equal!(t.registers()?[regs::RIP], -2i64 as u64);
    equal!(t.ask(request::CONT, 0, libc::SIGSEGV as u64), Ok(0));
    equal!(t.ended()?, Ended::Signal(libc::SIGSEGV));
    Ok(())
}

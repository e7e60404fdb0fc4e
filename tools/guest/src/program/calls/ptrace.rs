//! ptrace(2): each request where it works and where it is refused, by a tracer of a child of its own.

use super::each::{KERNEL, NOWHERE, at, to};
use super::traced::{Traced, WALL, regs, request, stop_code};
use super::{Check, call, ensure, equal};
use crate::linux::{self, Ended};
use libc::{EIO, ESRCH, SYS_getppid, SYS_ptrace};
use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("ptrace_trace_me", trace_me),
    ("ptrace_memory", memory),
    ("ptrace_forbidden_memory", forbidden_memory),
    ("ptrace_forbidden_file", forbidden_file),
    ("ptrace_bases", bases),
    ("ptrace_registers", registers),
    ("ptrace_register_sets", register_sets),
    ("ptrace_fpu", fpu),
    ("ptrace_signals", signals),
    ("ptrace_calls", calls),
    ("ptrace_emulation", emulation),
    ("ptrace_steps", steps),
    ("ptrace_step_over_calls", step_over_calls),
    ("ptrace_attach", attach),
    ("ptrace_seize", seize),
    ("ptrace_refusals", refusals),
    ("ptrace_tracer_ends", tracer_ends),
];

const TRAP: u64 = libc::SIGTRAP as u64;
const STOP: u64 = libc::SIGSTOP as u64;
const USR1: u64 = libc::SIGUSR1 as u64;

static VARIABLE: AtomicU64 = AtomicU64::new(0x1122_3344_5566_7788);

fn trace_me() -> Result<(), String> {
    let t = Traced::start(|| 5)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", t.pid)).map_err(|e| e.to_string())?;
    ensure!(status.contains(&format!("TracerPid:\t{}\n", linux::own_pid())));
    ensure!(status.contains("State:\tt (tracing stop)"));
    // A second wait has nothing to tell.
    let mut status = 0;
    equal!(call(libc::SYS_wait4, [t.pid, to(&mut status), libc::WNOHANG as u64, 0, 0, 0]), Ok(0));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(5));
    Ok(())
}

/// Two pages of no right, the first of which holds a word.
fn forbidden() -> Result<u64, String> {
    let len = 8192;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping, written to within its length.
    unsafe {
        let pages = libc::mmap(std::ptr::null_mut(), len, libc::PROT_WRITE | libc::PROT_READ, flags, -1, 0);
        ensure!(pages != libc::MAP_FAILED);
        pages.cast::<u64>().write(0x77);
        equal!(libc::mprotect(pages, len, libc::PROT_NONE), 0);
        Ok(pages as u64)
    }
}

fn forbidden_memory() -> Result<(), String> {
    let page = forbidden()?;
    let t = Traced::start(move || {
        // SAFETY: (1) two pages of this program.
        unsafe {
            libc::mprotect(page as *mut _, 8192, libc::PROT_READ);
            ((page as *const u64).read() + (page as *const u64).add(512).read()) as u8
        }
    })?;
    let mut word = 1u64;
    for (at, wanted) in [(page, 0x77), (page + 4096, 0), (page + 4092, 0)] {
        equal!(t.ask(request::PEEKDATA, at, to(&mut word)), Ok(0));
        equal!((at, word), (at, wanted));
    }
    equal!(t.ask(request::POKEDATA, page, 0x30), Ok(0));
    equal!(t.ask(request::POKEDATA, page + 4096, 0x0c), Ok(0));
    equal!(t.ask(request::PEEKDATA, page + 4096, to(&mut word)), Ok(0));
    equal!(word, 0x0c);
    // process_vm_readv has no more rights than the program.
    let (own, theirs) = ([to(&mut word), 8u64], [page, 8u64]);
    let args = [t.pid, at(&own), 1, at(&theirs), 1, 0];
    equal!(call(libc::SYS_process_vm_readv, args), Err(libc::EFAULT));
    // The tracer's own copy is as it was.
    // SAFETY: (1) as above.
    equal!(unsafe { libc::mprotect(page as *mut _, 8192, libc::PROT_READ) }, 0);
    // SAFETY: (1) as above.
    equal!(unsafe { ((page as *const u64).read(), (page as *const u64).add(512).read()) }, (0x77, 0));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(0x3c));
    Ok(())
}

/// A page of a file that nobody has touched, without rights: a debugger sees the file, and writes to the program's own copy.
fn forbidden_file() -> Result<(), String> {
    const WORD: u64 = 0x1122_3344_5566_7788;
    let map = |flags| -> Result<u64, String> {
        // SAFETY: (1) a new file of three pages, and a new mapping of the last two.
        unsafe {
            let file = libc::memfd_create(c"forbidden".as_ptr(), 0);
            ensure!(file >= 0);
            // Another word in each page; the last one is the one that is looked at.
            for (number, word) in [(0, 1u64), (1, 2), (2, WORD)] {
                equal!(libc::pwrite(file, word.to_ne_bytes().as_ptr().cast(), 8, number * 4096 + 8), 8);
            }
            equal!(libc::ftruncate(file, 3 * 4096), 0);
            let pages = libc::mmap(std::ptr::null_mut(), 2 * 4096, libc::PROT_NONE, flags, file, 4096);
            ensure!(pages != libc::MAP_FAILED);
            linux::close(file);
            Ok(pages as u64 + 4096)
        }
    };
    let (private, shared) = (map(libc::MAP_PRIVATE)?, map(libc::MAP_SHARED)?);
    let word = |page: u64| {
        // SAFETY: (1) a page of this program.
        unsafe {
            libc::mprotect(page as *mut _, 4096, libc::PROT_READ);
            (page as *const u64).add(1).read()
        }
    };
    let t = Traced::start(move || (word(private) + (word(shared) & 0xff)) as u8)?;
    let mut seen = 0u64;
    for page in [private, shared] {
        equal!(t.ask(request::PEEKDATA, page + 8, to(&mut seen)), Ok(0));
        equal!(seen, WORD);
        equal!(t.ask(request::PEEKDATA, page, to(&mut seen)), Ok(0));
        equal!(seen, 0);
    }
    equal!(t.ask(request::POKEDATA, private + 8, 5), Ok(0));
    equal!(t.ask(request::PEEKDATA, private + 8, to(&mut seen)), Ok(0));
    equal!(seen, 5);
    equal!((word(private), word(shared)), (WORD, WORD)); // the tracer's own
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(0x8d));
    Ok(())
}

fn bases() -> Result<(), String> {
    const SET_GS: u64 = 0x1001;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    let t = Traced::start(|| 6)?;
    let mut word = 0;
    equal!(t.ask(request::ARCH_PRCTL, to(&mut word), GET_FS), Ok(0));
    equal!(word, t.registers()?[regs::FS_BASE]);
    equal!(t.ask(request::ARCH_PRCTL, 0x1234_5000, SET_GS), Ok(0));
    equal!(t.ask(request::ARCH_PRCTL, to(&mut word), GET_GS), Ok(0));
    equal!((word, t.registers()?[regs::GS_BASE]), (0x1234_5000, 0x1234_5000));
    equal!(t.ask(request::ARCH_PRCTL, KERNEL, SET_GS), Err(libc::EPERM));
    equal!(t.ask(request::ARCH_PRCTL, KERNEL, GET_FS), Err(libc::EFAULT));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(6));
    Ok(())
}

fn memory() -> Result<(), String> {
    let t = Traced::start(|| (VARIABLE.load(Ordering::SeqCst) & 0xff) as u8)?;
    let variable = VARIABLE.as_ptr() as u64;
    let mut word = 0u64;
    equal!(t.ask(request::PEEKDATA, variable, to(&mut word)), Ok(0));
    equal!(word, 0x1122_3344_5566_7788);
    equal!(t.ask(request::PEEKTEXT, variable, to(&mut word)), Ok(0));
    equal!(t.ask(request::POKEDATA, variable, 0x42), Ok(0));
    equal!(VARIABLE.load(Ordering::SeqCst), 0x1122_3344_5566_7788); // its own copy alone
    // Text is written though the program may not.
    let text = trace_me as *const () as u64;
    equal!(t.ask(request::PEEKTEXT, text, to(&mut word)), Ok(0));
    let before = word;
    equal!(t.ask(request::POKETEXT, text, 0xcccc_cccc_cccc_cccc), Ok(0));
    equal!(t.ask(request::PEEKTEXT, text, to(&mut word)), Ok(0));
    equal!(word, 0xcccc_cccc_cccc_cccc);
    equal!(t.ask(request::POKETEXT, text, before), Ok(0));
    // SAFETY: (1) the text of a function of this program.
    equal!(unsafe { (text as *const u64).read_unaligned() }, before);
    for bad in [NOWHERE, KERNEL, u64::MAX - 3] {
        equal!(t.ask(request::PEEKDATA, bad, to(&mut word)), Err(EIO));
        equal!(t.ask(request::POKEDATA, bad, 0), Err(EIO));
    }
    equal!(t.ask(request::PEEKDATA, variable, KERNEL), Err(libc::EFAULT));

    // The same through process_vm_readv and /proc/PID/mem.
    let out = [AtomicU64::new(0), AtomicU64::new(0)];
    let own = [at(&out), 8u64, at(&out) + 8, 8];
    let theirs = [variable, 8u64, variable, 8];
    let read =
        |count: u64, flags: u64| call(libc::SYS_process_vm_readv, [t.pid, at(&own), 2, at(&theirs), count, flags]);
    equal!(read(2, 0), Ok(16));
    equal!(out.each_ref().map(|word| word.load(Ordering::SeqCst)), [0x42, 0x42]);
    equal!(read(2, 1), Err(libc::EINVAL));
    equal!(call(libc::SYS_process_vm_readv, [4_000_000, at(&own), 2, at(&theirs), 2, 0]), Err(ESRCH));
    let nowhere = [NOWHERE, 8u64];
    equal!(call(libc::SYS_process_vm_readv, [t.pid, at(&own), 1, at(&nowhere), 1, 0]), Err(libc::EFAULT));
    let half = [variable, 8u64, NOWHERE, 8];
    equal!(call(libc::SYS_process_vm_readv, [t.pid, at(&own), 2, at(&half), 2, 0]), Ok(8));
    out[0].store(0x43, Ordering::SeqCst);
    let own = [at(&out), 8u64];
    equal!(call(libc::SYS_process_vm_writev, [t.pid, at(&own), 1, at(&theirs), 1, 0]), Ok(8));
    let to_text = [text, 8u64];
    equal!(call(libc::SYS_process_vm_writev, [t.pid, at(&own), 1, at(&to_text), 1, 0]), Err(libc::EFAULT));

    let file = linux::open(&format!("/proc/{}/mem", t.pid), libc::O_RDWR, 0).map_err(|e| e.to_string())? as u64;
    equal!(call(libc::SYS_pread64, [file, to(&mut word), 8, variable, 0, 0]), Ok(8));
    equal!(word, 0x43);
    word = 7;
    equal!(call(libc::SYS_pwrite64, [file, at(&word), 8, variable, 0, 0]), Ok(8));
    equal!(call(libc::SYS_pread64, [file, to(&mut word), 8, NOWHERE, 0, 0]), Err(EIO));
    equal!(call(libc::SYS_pwrite64, [file, at(&before), 8, text, 0, 0]), Ok(8));
    // The auxiliary vector says where the program begins, and ends with a pair of zeros.
    let auxv = std::fs::read(format!("/proc/{}/auxv", t.pid)).map_err(|e| e.to_string())?;
    equal!(auxv == std::fs::read("/proc/self/auxv").map_err(|e| e.to_string())?, true);
    equal!(auxv.len() > 100 && auxv[auxv.len() - 16..].iter().all(|&b| b == 0), true);
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(7));
    Ok(())
}

/// Stops by INT3, whose page has been read (QEMU leaves RF as a page fault's way back sets it), with known registers; its result is what the tracer left in rbx and r12.
fn known_registers() -> u8 {
    let (low, high): (u64, u64);
    // SAFETY: (1) the tracer takes the trap; all registers that it may change are named.
    unsafe {
        asm!("mov {keep}, [rip + 2f]", "mov {keep}, rbx", "mov rbx, 0x1234", "mov r12, 0x5678", "mov r15, 0x9abc", "2: int3", "xchg rbx, {keep}",
            keep = out(reg) low, out("r12") high, out("r15") _, out("rax") _);
    }
    (low ^ high) as u8
}

fn registers() -> Result<(), String> {
    let t = Traced::start(known_registers)?;
    t.ask(request::CONT, 0, 0).map_err(|e| format!("cont: {e}"))?;
    equal!(t.stopped()?, TRAP);
    let mut words = t.registers()?;
    equal!((words[regs::RBX], words[regs::R12], words[regs::R15]), (0x1234, 0x5678, 0x9abc));
    equal!(words[regs::ORIG_RAX], u64::MAX);
    equal!((words[regs::CS], words[regs::SS]), (0x33, 0x2b));
    ensure!(words[regs::RFLAGS] & 0x202 == 0x202);
    // One by one, as by struct user.
    let mut word = 0;
    for (i, &wanted) in words.iter().enumerate() {
        equal!(t.ask(request::PEEKUSER, i as u64 * 8, to(&mut word)), Ok(0));
        equal!((i, word), (i, wanted));
    }
    equal!(t.ask(request::POKEUSER, regs::RBX as u64 * 8, 0xf1), Ok(0));
    words[regs::R12] = 0x0f;
    words[regs::RBX] = 0xf1;
    // What user mode may not set stays as it is.
    words[regs::RFLAGS] |= 0x3000 | 0x2_0000 | 0x18_0000;
    words[regs::RFLAGS] &= !0x200;
    equal!(t.ask(request::SETREGS, 0, at(&words)), Ok(0));
    let now = t.registers()?;
    equal!(now[regs::RFLAGS] & 0x3_3200, 0x200);
    for (index, bad) in
        [(regs::CS, 0x10), (regs::CS, 0), (regs::SS, 0x18), (regs::FS_BASE, KERNEL), (regs::GS_BASE, 1 << 63)]
    {
        equal!(t.ask(request::POKEUSER, index as u64 * 8, bad), Err(EIO));
    }
    for bad in [4, 928, 1 << 20] {
        equal!(t.ask(request::PEEKUSER, bad, to(&mut word)), Err(EIO));
        equal!(t.ask(request::POKEUSER, bad, 0), Err(EIO));
    }
    equal!(t.ask(request::POKEUSER, 216, 0), Err(EIO));
    equal!(t.ask(request::GETREGS, 0, KERNEL), Err(libc::EFAULT));
    equal!(t.ask(request::SETREGS, 0, KERNEL), Err(libc::EFAULT));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(0xf1 ^ 0x0f));
    Ok(())
}

fn register_sets() -> Result<(), String> {
    let t = Traced::start(|| 3)?;
    let mut buffer = [0u64; 1024];
    let mut ask = |number: u64, note: u64, len: u64| {
        let mut io = [to(&mut buffer[..]), len];
        let result = t.ask(number, note, to(&mut io));
        (result, io[1])
    };
    equal!(ask(request::GETREGSET, 1, 8192), (Ok(0), 216));
    equal!(ask(request::GETREGSET, 1, 16), (Ok(0), 16));
    equal!(ask(request::GETREGSET, 1, 12), (Err(libc::EINVAL), 12));
    equal!(ask(request::SETREGSET, 1, 216), (Ok(0), 216));
    equal!(ask(request::GETREGSET, 2, 8192), (Ok(0), 512));
    equal!(ask(request::SETREGSET, 2, 512), (Ok(0), 512));
    let (result, len) = ask(request::GETREGSET, 0x202, 8192);
    equal!(result, Ok(0));
    ensure!(len >= 576);
    equal!(ask(request::SETREGSET, 0x202, len), (Ok(0), len));
    equal!(ask(request::SETREGSET, 0x202, 512), (Err(libc::EFAULT), 512));
    equal!(ask(request::GETREGSET, 0x7777, 64), (Err(libc::EINVAL), 64));
    let _ = ask(request::GETREGSET, 0x202, 8192);
    // XCR0 is told where debuggers look for it: x87 and SSE at least.
    equal!(buffer[58] & 3, 3);
    // A header that names a part that there is not, and one in another form.
    for (word, bad) in [(64, 1u64 << 62), (65, 1 << 63), (66, 1)] {
        let kept = std::mem::replace(&mut buffer[word], bad);
        let io = [at(&buffer[..]), len];
        equal!((word, t.ask(request::SETREGSET, 0x202, at(&io))), (word, Err(libc::EINVAL)));
        buffer[word] = kept;
    }
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(3));
    Ok(())
}

fn known_xmm() -> u8 {
    let value: u64;
    // SAFETY: (1) the tracer takes the trap and changes xmm3 only.
    unsafe { asm!("movq xmm3, {v}", "int3", "movq {v}, xmm3", v = inout(reg) 0x5555u64 => value, out("xmm3") _) };
    value as u8
}

fn fpu() -> Result<(), String> {
    const XMM3: usize = (160 + 3 * 16) / 8;
    const MXCSR: usize = 3;
    let t = Traced::start(known_xmm)?;
    t.ask(request::CONT, 0, 0).map_err(|e| format!("cont: {e}"))?;
    equal!(t.stopped()?, TRAP);
    let mut area = [0u64; 64];
    equal!(t.ask(request::GETFPREGS, 0, to(&mut area)), Ok(0));
    equal!(area[XMM3], 0x5555);
    area[XMM3] = 0x21;
    equal!(t.ask(request::SETFPREGS, 0, at(&area)), Ok(0));
    area[MXCSR] |= 1 << 31;
    equal!(t.ask(request::SETFPREGS, 0, at(&area)), Err(libc::EINVAL));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(0x21));
    Ok(())
}

fn signals() -> Result<(), String> {
    let t = Traced::start(|| {
        // Ignored, and yet its tracer is told.
        let _ = linux::set_signal(libc::SIGUSR1, linux::Disposition::Ignore);
        let _ = linux::kill(linux::own_pid(), libc::SIGUSR1);
        let _ = linux::kill(linux::own_pid(), libc::SIGUSR2);
        let _ = linux::kill(linux::own_pid(), libc::SIGTERM);
        1
    })?;
    let mut info = [0u32; 32];
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.stopped()?, USR1);
    equal!(t.ask(request::GETSIGINFO, 0, to(&mut info)), Ok(0));
    equal!((u64::from(info[0]), info[2], u64::from(info[4])), (USR1, 0, t.pid));
    let mut set = 0u64;
    equal!(t.ask(request::GETSIGMASK, 8, to(&mut set)), Ok(0));
    equal!(t.ask(request::GETSIGMASK, 4, to(&mut set)), Err(libc::EINVAL));
    // Block SIGUSR2: it is not told of any more.
    set |= 1 << (libc::SIGUSR2 - 1) | 1 << (libc::SIGKILL - 1);
    equal!(t.ask(request::SETSIGMASK, 8, at(&set)), Ok(0));
    let mut after = 0u64;
    equal!(t.ask(request::GETSIGMASK, 8, to(&mut after)), Ok(0));
    equal!(after, set & !(1 << (libc::SIGKILL - 1)));
    equal!(t.ask(request::CONT, 0, USR1), Ok(0));
    equal!(t.stopped()?, libc::SIGTERM as u64);
    // Another signal instead, and one that there is not.
    equal!(t.ask(request::CONT, 0, 65), Err(EIO));
    equal!(t.ask(request::SETSIGINFO, 0, at(&info)), Ok(0));
    equal!(t.ask(request::CONT, 0, libc::SIGALRM as u64), Ok(0));
    equal!(t.ended()?, Ended::Signal(libc::SIGALRM));
    Ok(())
}

/// getppid by the instruction alone, so that no other call comes between.
fn ask_parent() -> u64 {
    let value: u64;
    // SAFETY: (1) a call without arguments.
    unsafe { asm!("syscall", inout("rax") SYS_getppid as u64 => value, out("rcx") _, out("r11") _) };
    value
}

fn calls() -> Result<(), String> {
    let t = Traced::start(|| u8::from(ask_parent() == 77) + 2 * u8::from(ask_parent() == 78))?;
    equal!(t.ask(request::SETOPTIONS, 0, 1), Ok(0));
    let next = |wanted: u64| -> Result<[u64; 10], String> {
        equal!(t.ask(request::SYSCALL, 0, 0), Ok(0));
        equal!(t.stopped()?, TRAP | 0x80);
        let mut info = [0u64; 10];
        let len = t.ask(request::GET_SYSCALL_INFO, 80, to(&mut info));
        equal!((info[0], len), (wanted | 0xc000_003e << 32, Ok(if wanted == 1 { 80 } else { 33 })));
        let mut message = 0;
        equal!(t.ask(request::GETEVENTMSG, 0, to(&mut message)), Ok(0));
        equal!(message, wanted);
        Ok(info)
    };
    // What ends first is the call that stopped it.
    let mut entries = 0;
    loop {
        let info = next(1)?;
        let words = t.registers()?;
        equal!((info[1], info[2]), (words[regs::RIP], words[regs::RSP]));
        equal!((info[3], info[4]), (words[regs::ORIG_RAX], words[regs::RDI]));
        equal!(words[regs::RAX] as i64, -i64::from(libc::ENOSYS));
        if info[3] == SYS_getppid as u64 {
            entries += 1;
            if entries == 2 {
                // Another call in its place, which is then not made.
                equal!(t.ask(request::POKEUSER, regs::ORIG_RAX as u64 * 8, u64::MAX), Ok(0));
            }
            let info = next(2)?;
            if entries == 2 {
                equal!(info[3] as i64, -i64::from(libc::ENOSYS));
            } else {
                equal!(info[3], u64::from(std::process::id()));
            }
            equal!(t.ask(request::POKEUSER, regs::RAX as u64 * 8, 76 + entries), Ok(0));
            if entries == 2 {
                break;
            }
        } else {
            next(2)?;
        }
    }
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(3));
    Ok(())
}

fn emulation() -> Result<(), String> {
    let t = Traced::start(|| u8::from(ask_parent() == 99))?;
    loop {
        equal!(t.ask(request::SYSEMU, 0, 0), Ok(0));
        equal!(t.stopped()?, TRAP);
        let words = t.registers()?;
        if words[regs::ORIG_RAX] == SYS_getppid as u64 {
            break;
        }
        ensure!(words[regs::ORIG_RAX] != libc::SYS_exit_group as u64);
    }
    equal!(t.ask(request::POKEUSER, regs::RAX as u64 * 8, 99), Ok(0));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(1));
    Ok(())
}

/// INT3, then 3 + 2 * 100 + 1 instructions up to the next INT3.
fn counted() -> u8 {
    // SAFETY: (1) both traps are the tracer's; all changed registers are named.
    unsafe {
        asm!("int3", "mov ecx, 100", "xor eax, eax", "nop", "2: inc eax", "loop 2b", "nop", "int3",
            out("rcx") _, out("rax") _);
    }
    9
}

fn steps() -> Result<(), String> {
    let t = Traced::start(counted)?;
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.stopped()?, TRAP);
    let mut count = 0;
    loop {
        equal!(t.ask(request::SINGLESTEP, 0, 0), Ok(0));
        equal!(t.stopped()?, TRAP);
        let mut info = [0u32; 32];
        equal!(t.ask(request::GETSIGINFO, 0, to(&mut info)), Ok(0));
        let words = t.registers()?;
        // The trap flag is the tracer's doing, which it does not see.
        equal!(words[regs::RFLAGS] & 0x100, 0);
        if info[2] as i32 == 0x80 {
            break; // INT3
        }
        equal!(info[2], 2); // TRAP_TRACE
        count += 1;
        ensure!(count < 10_000);
    }
    equal!(count, 204);
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(9));
    Ok(())
}

/// INT3, then five instructions of which one is a system call, one pushes the flags and one pops them.
fn calls_among() -> u8 {
    let flags: u64;
    // SAFETY: (1) as in `counted`.
    unsafe {
        asm!("int3", "mov eax, 110", "syscall", "pushfq", "pop rdx", "nop", "int3",
            out("rax") _, out("rcx") _, out("r11") _, out("rdx") flags);
    }
    u8::from(flags & 0x200 != 0)
}

fn step_over_calls() -> Result<(), String> {
    let t = Traced::start(calls_among)?;
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.stopped()?, TRAP);
    let start = t.registers()?[regs::RIP];
    let mut places = Vec::new();
    for _ in 0..5 {
        equal!(t.ask(request::SINGLESTEP, 0, 0), Ok(0));
        equal!(t.stopped()?, TRAP);
        places.push(t.registers()?[regs::RIP] - start);
    }
    // mov 5, syscall 2, pushfq 1, pop 1, nop 1
    equal!(places, [5, 7, 8, 9, 10]);
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.stopped()?, TRAP);
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(1));
    Ok(())
}

fn attach() -> Result<(), String> {
    let t = Traced::untraced(|| {
        loop {
            std::hint::spin_loop()
        }
    })?;
    equal!(t.ask(request::CONT, 0, 0), Err(ESRCH));
    equal!(t.ask(request::ATTACH, 0, 0), Ok(0));
    equal!(t.ask(request::ATTACH, 0, 0), Err(libc::EPERM));
    equal!(t.stopped()?, STOP);
    equal!(t.ask(request::INTERRUPT, 0, 0), Err(EIO));
    equal!(t.ask(request::LISTEN, 0, 0), Err(EIO));
    equal!(t.ask(request::DETACH, 0, 65), Err(EIO));
    equal!(t.ask(request::DETACH, 0, 0), Ok(0));
    equal!(t.ask(request::DETACH, 0, 0), Err(ESRCH));
    // Again, and it is let go with a signal.
    equal!(t.ask(request::ATTACH, 0, 0), Ok(0));
    equal!(t.stopped()?, STOP);
    equal!(t.ask(request::DETACH, 0, libc::SIGTERM as u64), Ok(0));
    equal!(t.ended()?, Ended::Signal(libc::SIGTERM));
    Ok(())
}

fn seize() -> Result<(), String> {
    let t = Traced::untraced(|| {
        loop {
            std::hint::spin_loop()
        }
    })?;
    equal!(t.ask(request::SEIZE, 1, 0), Err(EIO));
    equal!(t.ask(request::SEIZE, 0, 1 << 9), Err(EIO));
    equal!(t.ask(request::SEIZE, 0, 1), Ok(0));
    // It runs on; an interrupt stops it.
    let mut status = 0;
    equal!(call(libc::SYS_wait4, [t.pid, to(&mut status), libc::WNOHANG as u64 | WALL, 0, 0, 0]), Ok(0));
    equal!(t.ask(request::GETREGS, 0, 0), Err(ESRCH));
    equal!(t.ask(request::INTERRUPT, 0, 0), Ok(0));
    equal!(t.stopped()?, stop_code(TRAP));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    // A stop by a signal: first the signal, then the stop itself.
    let _ = linux::kill(t.pid as i32, libc::SIGSTOP);
    equal!(t.stopped()?, STOP);
    equal!(t.ask(request::LISTEN, 0, 0), Err(EIO));
    equal!(t.ask(request::CONT, 0, STOP), Ok(0));
    equal!(t.stopped()?, stop_code(STOP));
    equal!(t.ask(request::LISTEN, 0, 0), Ok(0));
    equal!(t.ask(request::CONT, 0, 0), Err(ESRCH));
    equal!(t.ask(request::INTERRUPT, 0, 0), Ok(0));
    equal!(t.stopped()?, stop_code(STOP));
    equal!(t.ask(request::LISTEN, 0, 0), Ok(0));
    // SIGCONT ends the stop, and is then a signal as any other.
    let _ = linux::kill(t.pid as i32, libc::SIGCONT);
    equal!(t.stopped()?, stop_code(TRAP));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.stopped()?, libc::SIGCONT as u64);
    equal!(t.ask(request::KILL, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Signal(libc::SIGKILL));
    Ok(())
}

fn refusals() -> Result<(), String> {
    let me = u64::from(std::process::id());
    equal!(call(SYS_ptrace, [request::ATTACH, 4_000_000, 0, 0, 0, 0]), Err(ESRCH));
    equal!(call(SYS_ptrace, [request::ATTACH, me, 0, 0, 0, 0]), Err(libc::EPERM));
    equal!(call(SYS_ptrace, [request::CONT, me, 0, 0, 0, 0]), Err(ESRCH));
    let t = Traced::start(|| {
        // Traced already.
        u8::from(call(SYS_ptrace, [request::TRACEME, 0, 0, 0, 0, 0]) == Err(libc::EPERM))
    })?;
    equal!(t.ask(0x7777, 0, 0), Err(EIO));
    equal!(t.ask(request::SETOPTIONS, 0, 1 << 30), Err(libc::EINVAL));
    equal!(t.ask(request::LISTEN, 0, 0), Err(EIO));
    equal!(t.ask(request::CONT, 0, 0), Ok(0));
    equal!(t.ended()?, Ended::Exit(1));
    equal!(t.ask(request::CONT, 0, 0), Err(ESRCH));
    Ok(())
}

/// A tracer that ends lets its tracees go, or takes them with it if it said so.
fn tracer_ends() -> Result<(), String> {
    for (options, wanted) in [(0u64, Ended::Signal(libc::SIGTERM)), (1 << 20, Ended::Signal(libc::SIGKILL))] {
        let t = Traced::untraced(|| {
            loop {
                std::hint::spin_loop()
            }
        })?;
        let ended = super::in_child(|| {
            let seized = t.ask(request::SEIZE, 0, options) == Ok(0) && t.ask(request::INTERRUPT, 0, 0) == Ok(0);
            u8::from(!(seized && t.stopped() == Ok(stop_code(TRAP))))
        })?;
        equal!(ended, Ended::Exit(0));
        let _ = linux::kill(t.pid as i32, libc::SIGTERM);
        equal!(t.ended()?, wanted);
    }
    Ok(())
}

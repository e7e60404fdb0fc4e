//! Stacks of signal handlers: the alternate one, a full one, none.

use super::signal::install;
use super::{Check, ensure, equal, errno, in_child};
use crate::linux::{self, Ended};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("alternate_stack", alternate_stack),
    ("alternate_stack_full", alternate_stack_full),
    ("alternate_stack_disarmed", alternate_stack_disarmed),
    ("no_stack", no_stack),
];

static COUNT: AtomicU32 = AtomicU32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);

extern "C" fn leave(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let _ = info;
    linux::exit_now(77)
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let mut room = [depth; 128];
    std::hint::black_box(&mut room);
    if depth == u64::MAX { 0 } else { recurse(depth + 1) + room[5] }
}

/// A stack overflow is handled on the alternate stack.
fn alternate_stack() -> Result<(), String> {
    let ended = in_child(|| {
        let mut room = vec![0u8; 65536];
        let stack = libc::stack_t { ss_sp: room.as_mut_ptr().cast(), ss_flags: 0, ss_size: room.len() };
        // SAFETY: (1) the room outlives its use.
        if unsafe { libc::sigaltstack(&stack, null_mut()) } != 0 {
            return 1;
        }
        if install(libc::SIGSEGV, leave, libc::SA_ONSTACK).is_err() {
            return 2;
        }
        recurse(0) as u8
    })?;
    equal!(ended, Ended::Exit(77));
    // Without it there is no place for the frame.
    let ended = in_child(|| {
        let _ = install(libc::SIGSEGV, leave, 0);
        let none = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: (1) valid.
        unsafe { libc::sigaltstack(&none, null_mut()) };
        recurse(0) as u8
    })?;
    equal!(ended, Ended::Signal(libc::SIGSEGV));
    let small = libc::stack_t { ss_sp: null_mut(), ss_flags: 0, ss_size: 100 };
    // SAFETY: (1) valid.
    ensure!(unsafe { libc::sigaltstack(&small, null_mut()) } == -1 && errno() == libc::ENOMEM);
    Ok(())
}

static NESTED: AtomicU32 = AtomicU32::new(0);
static OWN_PID: AtomicU32 = AtomicU32::new(0);

/// Sends SIGUSR1 to its own process again and again, without a byte of stack of its own. Exits with 3 if that never ends.
#[unsafe(naked)]
extern "C" fn nest(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    core::arch::naked_asm!(
        "lock inc dword ptr [rip + {nested}]",
        "cmp dword ptr [rip + {nested}], 1000",
        "ja 2f",
        "mov edi, [rip + {pid}]",
        "mov esi, 10",
        "mov eax, 62",
        "syscall",
        "ret",
        "2: mov edi, 3",
        "mov eax, 231",
        "syscall",
        "ud2",
        nested = sym NESTED,
        pid = sym OWN_PID,
    )
}

/// Memory for stacks, with `len` bytes below and behind it that nobody may change: where it begins.
fn room(len: usize) -> Result<*mut u8, String> {
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping, written to within its length.
    unsafe {
        let all = libc::mmap(null_mut(), 3 * len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        ensure!(all != libc::MAP_FAILED);
        all.cast::<u8>().write_bytes(0x5a, 3 * len);
        Ok(all.cast::<u8>().add(len))
    }
}

/// A frame that does not fit on the alternate stack ends the program, and memory below it is as it was.
fn alternate_stack_full() -> Result<(), String> {
    // Enough for one frame with all registers that a CPU may have.
    const LEN: usize = 16384;
    for size in [2048, LEN] {
        let base = room(LEN)?;
        let ended = in_child(|| {
            OWN_PID.store(linux::own_pid() as u32, Ordering::SeqCst);
            let stack = libc::stack_t { ss_sp: base.cast(), ss_flags: 0, ss_size: size };
            // SAFETY: (1) the mapping stays.
            if unsafe { libc::sigaltstack(&stack, null_mut()) } != 0
                || install(libc::SIGUSR1, nest, libc::SA_ONSTACK | libc::SA_NODEFER).is_err()
            {
                return 1;
            }
            let _ = linux::kill(linux::own_pid(), libc::SIGUSR1);
            2
        })?;
        // Some CPUs' frames are larger than the smallest stack that is taken.
        equal!((size, ended), (size, Ended::Signal(libc::SIGSEGV)));
        // SAFETY: (1) within the mapping of three lengths.
        let (below, stack, behind) = unsafe {
            let part = |at: *mut u8, len| std::slice::from_raw_parts(at, len);
            (part(base.sub(LEN), LEN), part(base, size), part(base.add(size), 2 * LEN - size))
        };
        let is_old = |part: &[u8]| part.iter().all(|byte| *byte == 0x5a);
        equal!((size, is_old(below), is_old(behind)), (size, true, true));
        ensure!(size < LEN || !is_old(stack));
    }
    Ok(())
}

const AUTO_DISARM: c_int = 1 << 31;
static FRAME: AtomicU64 = AtomicU64::new(0);
static DISARMED: AtomicI32 = AtomicI32::new(0);

/// The running thread's alternate stack.
fn alternate() -> libc::stack_t {
    let mut stack = libc::stack_t { ss_sp: null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: (1) room for the structure.
    unsafe { libc::sigaltstack(core::ptr::null(), &mut stack) };
    stack
}

extern "C" fn note_stack(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    FRAME.store(info as u64, Ordering::SeqCst);
    DISARMED.store(alternate().ss_flags, Ordering::SeqCst);
}

/// kill(2) of the own process by SIGUSR1 with the stack pointer at `rsp`, whatever is there.
fn kill_with_stack(rsp: u64) {
    // SAFETY: (1) the stack pointer is as before at the end; (2) all changed registers are named.
    unsafe {
        core::arch::asm!("mov r12, rsp", "mov rsp, {rsp}", "syscall", "mov rsp, r12", rsp = in(reg) rsp,
            inout("rax") libc::SYS_kill => _, in("rdi") linux::own_pid() as u64, in("rsi") libc::SIGUSR1 as u64,
            out("r12") _, out("rcx") _, out("r11") _);
    }
}

/// SS_AUTODISARM: no handler finds the stack armed, on it or not; whoever is within it while it is armed is not on it.
fn alternate_stack_disarmed() -> Result<(), String> {
    const LEN: usize = 65536;
    let base = room(LEN)?;
    let stack = libc::stack_t { ss_sp: base.cast(), ss_flags: AUTO_DISARM, ss_size: LEN };
    // SAFETY: (1) the mapping stays.
    equal!(unsafe { libc::sigaltstack(&stack, null_mut()) }, 0);
    let middle = base as u64 + LEN as u64 / 2;
    let own = &raw const stack as u64;
    // The stack pointer, the handler's flags, and where its frame is.
    type Place = fn(u64, u64) -> bool;
    let cases: [(u64, c_int, Place); 3] = [
        (own, 0, |frame, middle| frame.abs_diff(middle) > LEN as u64),
        (own, libc::SA_ONSTACK, |frame, middle| frame > middle && frame - middle < LEN as u64 / 2),
        (middle, libc::SA_ONSTACK, |frame, middle| frame > middle && frame - middle < LEN as u64 / 2),
    ];
    for (number, (rsp, flags, is_right)) in cases.into_iter().enumerate() {
        install(libc::SIGUSR1, note_stack, flags)?;
        DISARMED.store(0, Ordering::SeqCst);
        if rsp == own {
            equal!(linux::kill(linux::own_pid(), libc::SIGUSR1).is_ok(), true);
        } else {
            kill_with_stack(rsp);
        }
        equal!((number, DISARMED.load(Ordering::SeqCst)), (number, libc::SS_DISABLE));
        equal!((number, is_right(FRAME.load(Ordering::SeqCst), middle)), (number, true));
        let after = alternate();
        equal!((number, after.ss_sp as u64, after.ss_size, after.ss_flags), (number, base as u64, LEN, AUTO_DISARM));
    }
    Ok(())
}

/// Changes XMM0 and counts, without a byte of stack but for its return address.
#[unsafe(naked)]
extern "C" fn clobber_without_stack(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    core::arch::naked_asm!("pcmpeqd xmm0, xmm0", "lock inc dword ptr [rip + {count}]", "ret", count = sym COUNT)
}

extern "C" fn count_other(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: (1) the kernel passes a valid siginfo.
    CODE.store(unsafe { (*info).si_code }, Ordering::SeqCst);
    NESTED.fetch_add(1, Ordering::SeqCst);
}

/// A signal without a stack for its handler is SIGSEGV, whose handler has one of its own; then the program goes on as it was, SIMD registers included.
fn no_stack() -> Result<(), String> {
    // Larger than a frame.
    const GUARD: usize = 16384;
    const LEN: usize = 65536;
    const SI_KERNEL: i32 = 0x80;
    let stack = libc::stack_t { ss_sp: room(LEN)?.cast(), ss_flags: 0, ss_size: LEN };
    // SAFETY: (1) the mapping stays.
    equal!(unsafe { libc::sigaltstack(&stack, null_mut()) }, 0);
    install(libc::SIGUSR1, clobber_without_stack, 0)?;
    install(libc::SIGSEGV, count_other, libc::SA_ONSTACK)?;
    let stack = room(LEN)?;
    // SAFETY: (1) pages below that memory.
    equal!(unsafe { libc::mprotect(stack.sub(GUARD).cast(), GUARD, libc::PROT_NONE) }, 0);
    // From where nothing is above which all of a frame fits: also where one word of it has no page.
    let (mut rounds, mut lowest_kept) = (0, 0);
    for above in (0..LEN / 2).step_by(64) {
        let (pid, mut x0) = (linux::own_pid() as u64, 0x1111_2222_3333_4444u64);
        // SAFETY: (1) as in `kill_with_stack`; (2) as in `registers`.
        unsafe {
            core::arch::asm!("mov r12, rsp", "movq xmm0, {x0}", "mov rsp, {rsp}", "syscall", "mov rsp, r12", "movq {x0}, xmm0",
                x0 = inout(reg) x0, rsp = in(reg) stack as u64 + above as u64,
                inout("rax") libc::SYS_kill => _, in("rdi") pid, in("rsi") libc::SIGUSR1 as u64,
                out("r12") _, out("rcx") _, out("r11") _, out("xmm0") _);
        }
        rounds += 1;
        equal!((above, x0), (above, 0x1111_2222_3333_4444));
        let (handled, refused) = (COUNT.load(Ordering::SeqCst), NESTED.load(Ordering::SeqCst));
        equal!((above, handled + refused), (above, rounds));
        if handled > 0 && lowest_kept == 0 {
            lowest_kept = above;
        }
    }
    ensure!(lowest_kept > 0 && COUNT.load(Ordering::SeqCst) > 0);
    equal!(CODE.load(Ordering::SeqCst), SI_KERNEL);
    // Its handler needs the same stack: the end.
    install(libc::SIGSEGV, count_other, 0)?;
    let ended = in_child(|| {
        kill_with_stack(stack as u64);
        0
    })?;
    equal!(ended, Ended::Signal(libc::SIGSEGV));
    Ok(())
}

//! What a handler finds on its stack, and the way back: Linux's rt_sigframe.
//!
//! ```text
//! high   floating-point state (FXSAVE or XSAVE area, magic word behind it), 64-byte aligned
//!        siginfo 128 | ucontext 304 | return address (restorer)      <- RSP at the handler's start, 8 below a multiple of 16
//! ```
//! Called by signal delivery and rt_sigreturn, process context. Nothing that comes back from the user is trusted: flags are cut to
//! the user's, selectors are ring 3's, the FPU state is checked; a bad selector or RIP faults at IRET, as the program's fault.
//! Source: Linux arch/x86/include/uapi/asm/sigcontext.h, ucontext.h; SDM vol. 1, "XSAVE Area".

use super::Thread;
use super::signal::{Action, Info, sa, set_blocked, sig};
use crate::arch::fpu;
use crate::arch::gdt::{USER_CS, USER_DS};
use crate::arch::page_table::USER_END;
use crate::entry::frame::{Frame, RFLAGS_IF, Return, USER_RFLAGS};
use crate::mm::user_context::{self, Stored};
use crate::mm::user_copy::{self, Fault};
use kcore::vma::MMAP_MIN_ADDR;

/// sigaltstack(2)'s stack.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AlternateStack {
    /// Lowest address
    pub base: u64,
    /// Bytes; 0 = none
    pub size: u64,
    /// SS_AUTODISARM or nothing
    pub flags: u32,
}

/// SS_ONSTACK
pub const ON_STACK: u32 = 1;
/// SS_DISABLE
pub const DISABLED: u32 = 2;
/// SS_AUTODISARM
pub const AUTO_DISARM: u32 = 1 << 31;

impl AlternateStack {
    /// Whether `rsp` is on it.
    pub fn holds(&self, rsp: u64) -> bool {
        self.size != 0 && rsp > self.base && rsp - self.base <= self.size
    }
}

const RED_ZONE: u64 = 128;
/// Return address, ucontext and siginfo.
const FRAME_BYTES: u64 = (1 + 38 + 16) * 8;
const _: () = assert!(FRAME_BYTES >= user_context::STORED_BYTES);
/// Words of siginfo that are filled.
const INFO_WORDS: usize = 4;
/// Words before ucontext and before siginfo.
mod at {
    pub const FLAGS: usize = 1;
    pub const INFO: usize = 39;
}
/// UC_STRICT_RESTORE_SS
const UC_STRICT_SS: u64 = 4;

/// Build the frame and make `frame` go on in the handler. `old_mask` is what is blocked again after the handler. `Err`: there is no place for it, and
/// `frame` and the thread are as they were.
#[inline(always)]
pub fn push(frame: &mut Frame, thread: &Thread, action: &Action, info: &Info, old_mask: u64) -> Result<(), Fault> {
    if action.flags & sa::RESTORER == 0 || action.handler >= USER_END {
        return Err(Fault);
    }
    let alternate = thread.alternate_stack();
    let mut top = frame.rsp.wrapping_sub(RED_ZONE);
    let mut told_flags = DISABLED;
    let mut has_to_fit = false;
    if alternate.size != 0 {
        told_flags = stack_flags(&alternate, frame.rsp);
        has_to_fit = told_flags == ON_STACK;
        // With SS_AUTODISARM, who is within the stack is not on it.
        if action.flags & sa::ONSTACK != 0 && !has_to_fit {
            top = alternate.base.wrapping_add(alternate.size);
            has_to_fit = true;
        }
    }
    // Below this nothing is mapped, and a frame is shorter: what follows does not wrap, and all of it is below `top`.
    if top.wrapping_sub(MMAP_MIN_ADDR) > USER_END - MMAP_MIN_ADDR {
        return Err(Fault);
    }
    let fp_at = (top - fpu::frame_size() as u64) & !63;
    let at_frame = ((fp_at - FRAME_BYTES) & !15) - 8;
    // What is below the alternate stack is somebody else's memory.
    if has_to_fit && !alternate.holds(at_frame) {
        core::hint::cold_path();
        return Err(Fault);
    }
    let fault_info;
    let mut told = info;
    if info.code > 0 {
        core::hint::cold_path();
        let [_, words, _] = info_words(info);
        fault_info = Info { pid: words as u32, uid: (words >> 32) as u32, ..*info };
        told = &fault_info;
    }
    let stored = Stored {
        restorer: action.restorer,
        stack: [alternate.base, told_flags as u64, alternate.size],
        fp_at,
        mask: old_mask,
        info: (&raw const *told).cast(),
        fault: thread.last_fault.as_ptr(),
    };
    // SAFETY: 1. `top` was checked, and both lie below it; 2. references, whose layouts are asserted.
    unsafe { user_context::store(at_frame, &stored, frame)? };
    // For every handler, also one that does not use it (sigaltstack(2)); not before there is one.
    if alternate.flags & AUTO_DISARM != 0 {
        thread.set_alternate_stack(AlternateStack::default());
    }

    frame.rdi = info.signal as u64;
    frame.rsi = at_frame + at::INFO as u64 * 8;
    frame.rdx = at_frame + at::FLAGS as u64 * 8;
    frame.rax = 0;
    frame.rsp = at_frame;
    frame.rip = action.handler;
    frame.cs = USER_CS as u64;
    frame.ss = USER_DS as u64;
    frame.rflags &= !0x1_0500; // TF, DF, RF
    frame.orig_rax = u64::MAX;
    Ok(())
}

/// ss_flags as sigaltstack shows them.
pub fn stack_flags(stack: &AlternateStack, rsp: u64) -> u32 {
    if stack.size == 0 {
        DISABLED
    } else if stack.flags & AUTO_DISARM == 0 && stack.holds(rsp) {
        ON_STACK
    } else {
        stack.flags
    }
}

/// siginfo_t: si_signo, si_errno, si_code, then by kind.
pub fn fill_info(w: &mut [u64], info: &Info) {
    w[0] = info.signal as u64;
    w[1..INFO_WORDS].copy_from_slice(&info_words(info));
}

/// What siginfo_t says, from a debugger.
pub fn info_of(w: &[u64; 16]) -> Info {
    let (signal, code) = (w[0] as u32, w[1] as i32);
    match signal {
        sig::SEGV | sig::BUS | sig::ILL | sig::FPE | sig::TRAP if code > 0 => Info::fault(signal, code, w[2]),
        _ => Info { signal, code, pid: w[2] as u32, uid: (w[2] >> 32) as u32, value: w[3], address: 0 },
    }
}

/// siginfo_t's words behind si_signo and si_errno.
#[inline]
fn info_words(info: &Info) -> [u64; INFO_WORDS - 1] {
    let code = info.code as u32 as u64;
    match info.signal {
        sig::SEGV | sig::BUS | sig::ILL | sig::FPE | sig::TRAP if info.code > 0 => {
            // si_addr_lsb is behind si_addr; without it the value is 0.
            [code, info.address, info.value]
        }
        _ => [code, info.pid as u64 | (info.uid as u64) << 32, info.value],
    }
}

/// rt_sigreturn(2): back to what the frame at RSP says. `Err`: the frame is bad and the program must end.
pub fn pop(frame: &mut Frame, thread: &Thread) -> Result<(), Fault> {
    let mut back = Return { rflags: frame.rflags, rsp: frame.rsp, ..Return::default() };
    let at_frame = take_back(&mut back, thread)?;
    // If the frame is gone meanwhile, nothing of this is a call that could start again.
    frame.orig_rax = u64::MAX;
    user_context::load_frame(at_frame, frame)?;
    let Return { orig_rax, rip, cs, rflags, rsp, ss } = back;
    (frame.orig_rax, frame.rip, frame.cs, frame.rflags, frame.rsp, frame.ss) = (orig_rax, rip, cs, rflags, rsp, ss);
    Ok(())
}

/// What rt_sigreturn takes back besides the general registers: FPU state, blocked signals, alternate stack, and in `back` where to go on. Returns the address
/// of the frame. `Err`: the frame is bad; `back` and the thread are as they were, but for the FPU state.
#[inline(always)]
pub fn take_back(back: &mut Return, thread: &Thread) -> Result<u64, Fault> {
    // RET took the return address.
    let at_frame = back.rsp.wrapping_sub(8);
    let c = user_context::load(at_frame)?;
    restore_fpu(c.fp_at)?;
    if c.stack_flags & DISABLED == 0 && thread.alternate_stack().size == 0 {
        rearm(at_frame, thread)?;
    }
    back.orig_rax = u64::MAX;
    back.rip = c.rip;
    back.rsp = c.rsp;
    back.rflags = back.rflags & !USER_RFLAGS | c.rflags & USER_RFLAGS | RFLAGS_IF;
    // Whatever they name, it is at ring 3: IRET loads it or faults, which is the program's fault then, as is a bad RIP.
    back.cs = (c.selectors & 0xffff) | 3;
    back.ss = if c.flags & UC_STRICT_SS != 0 { c.selectors >> 48 | 3 } else { USER_DS as u64 };
    set_blocked(thread, c.mask);
    Ok(at_frame)
}

/// The alternate stack is there again, as the frame at `at_frame` says (SS_AUTODISARM).
#[cold]
#[inline(never)]
fn rearm(at_frame: u64, thread: &Thread) -> Result<(), Fault> {
    let [base, flags, size]: [u64; 3] = user_copy::read(at_frame + user_context::STACK)?;
    if flags as u32 & DISABLED == 0 && base.checked_add(size).is_some_and(|end| end <= USER_END) {
        thread.set_alternate_stack(AlternateStack { base, size, flags: flags as u32 & AUTO_DISARM });
    }
    Ok(())
}

/// Load the FPU state that `push` stored, or the initial one if the frame has none.
#[inline(always)]
fn restore_fpu(from: u64) -> Result<(), Fault> {
    if from != 0 {
        return user_copy::load_fpu(from);
    }
    fpu::load_initial();
    Ok(())
}

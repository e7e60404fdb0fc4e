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
use crate::entry::frame::{Frame, RFLAGS_IF, USER_RFLAGS};
use crate::mm::user_context::{self, Context};
use crate::mm::user_copy::{self, Fault};

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
/// Words of return address, ucontext and siginfo.
const WORDS: usize = 1 + 38 + 16;
const FRAME_BYTES: u64 = WORDS as u64 * 8;
/// Words of siginfo that are filled.
const INFO_WORDS: usize = 4;
/// Words before ucontext and before siginfo.
mod at {
    pub const FLAGS: usize = 1;
    pub const INFO: usize = 39;
}
/// UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
const UC_XSTATE: u64 = 1;
const UC_SS: u64 = 2 | 4;
const UC_STRICT_SS: u64 = 4;

/// Build the frame and make `frame` go on in the handler. `old_mask` is what is blocked again after the handler.
pub fn push(frame: &mut Frame, thread: &Thread, action: &Action, info: &Info, old_mask: u64) -> Result<(), Fault> {
    if action.flags & sa::RESTORER == 0 {
        return Err(Fault);
    }
    let alternate = thread.alternate_stack();
    let on_alternate = alternate.holds(frame.rsp);
    let mut top = frame.rsp.wrapping_sub(RED_ZONE);
    if action.flags & sa::ONSTACK != 0 {
        if alternate.size != 0 && !on_alternate {
            top = alternate.base + alternate.size;
        }
        if alternate.flags & AUTO_DISARM != 0 {
            thread.set_alternate_stack(AlternateStack::default());
        }
    }
    let fp_bytes = fpu::frame_size();
    let fp_at = top.checked_sub(fp_bytes as u64).ok_or(Fault)? & !63;
    let at_frame = (fp_at.checked_sub(FRAME_BYTES).ok_or(Fault)? & !15).checked_sub(8).ok_or(Fault)?;
    user_copy::store_fpu(fp_at)?;

    let [code, sender, value] = info_words(info);
    let mut context = Context {
        restorer: action.restorer,
        flags: UC_SS | if fpu::has_xsave() { UC_XSTATE } else { 0 },
        stack: [alternate.base, stack_flags(&alternate, frame.rsp) as u64, alternate.size],
        rflags: frame.rflags,
        selectors: frame.cs & 0xffff | frame.ss << 48,
        fault_address: info.address,
        fp_at,
        mask: old_mask,
        info: [info.signal as u64, code, sender, value],
    };
    user_context::store(at_frame, &mut context, frame)?;

    fpu::load_initial();
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
    if frame.rip >= USER_END { Err(Fault) } else { Ok(()) }
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
        sig::SEGV | sig::BUS | sig::ILL | sig::FPE | sig::TRAP if info.code > 0 => [code, info.address, 0],
        _ => [code, info.pid as u64 | (info.uid as u64) << 32, info.value],
    }
}

/// rt_sigreturn(2): back to what the frame at RSP says. `Err`: the frame is bad and the program must end.
pub fn pop(frame: &mut Frame, thread: &Thread) -> Result<(), Fault> {
    // RET took the return address.
    let at_frame = frame.rsp.wrapping_sub(8);
    let c = user_context::load(at_frame, frame)?;
    frame.rflags = frame.rflags & !USER_RFLAGS | c.rflags & USER_RFLAGS | RFLAGS_IF;
    // Whatever they name, it is at ring 3: IRET loads it or faults, which is the program's fault then, as is a bad RIP.
    frame.cs = (c.selectors & 0xffff) | 3;
    frame.ss = if c.flags & UC_STRICT_SS != 0 { c.selectors >> 48 | 3 } else { USER_DS as u64 };
    frame.orig_rax = u64::MAX;
    restore_fpu(c.fp_at)?;
    let [base, stack_flags, size] = c.stack;
    let is_user = base.checked_add(size).is_some_and(|end| end <= USER_END);
    if stack_flags as u32 & DISABLED == 0 && is_user && thread.alternate_stack().size == 0 {
        thread.set_alternate_stack(AlternateStack { base, size, flags: stack_flags as u32 & AUTO_DISARM });
    }
    set_blocked(thread, c.mask);
    Ok(())
}

/// Load the FPU state that `push` stored, or the initial one if the frame has none.
fn restore_fpu(from: u64) -> Result<(), Fault> {
    if from != 0 {
        return user_copy::load_fpu(from);
    }
    fpu::load_initial();
    Ok(())
}

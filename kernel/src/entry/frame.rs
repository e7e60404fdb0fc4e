//! What the entry paths leave on the kernel stack: the interrupted registers, one layout for all paths.
//!
//! ```text
//!   low   entered_by                               full frame only   (FULL)
//!         r15 r14 r13 r12 rbp                      full frame only
//!         rbx                                      interrupts and full
//!         r11 rcx rax                              interrupts and full
//!         r9 r8 r10 rdx rsi rdi                    all                (SYSCALL: RSP after entry is at r9)
//!         orig_rax | vector | error code           all
//!   high  rip cs rflags rsp ss                     pushed by hardware; by the entry path for SYSCALL
//! ```
//! A system call's fast path leaves rax, rcx and r11 out (rcx and r11 are rip and rflags) and the registers that the C
//! ABI makes callees preserve; the slow path completes the frame. RSP is 16-byte aligned at each of the three ends.

use core::mem::offset_of;

/// All registers of the interrupted context.
#[repr(C)]
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "register names")]
pub struct Frame {
    /// What brought the CPU here (`kcore::trace_event::By`), as far as traces tell it; it keeps RSP aligned.
    pub entered_by: u64,
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub rcx: u64,
    pub rax: u64,
    pub r9: u64,
    pub r8: u64,
    pub r10: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// System call number; interrupt vector; error code of an exception.
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Bytes of a full frame.
pub const FULL: usize = size_of::<Frame>();
/// Where RSP is after the system-call fast path built its part.
pub const SYSCALL_START: usize = offset_of!(Frame, r9);
/// Where RSP is after the interrupt path built its part.
pub const IRQ_START: usize = offset_of!(Frame, rbx);

const _: () = assert!(FULL == 176 && FULL.is_multiple_of(16));
const _: () = assert!((FULL - SYSCALL_START).is_multiple_of(16) && (FULL - IRQ_START).is_multiple_of(16));
const _: () = assert!(offset_of!(Frame, ss) == FULL - 8 && offset_of!(Frame, rip) == FULL - 40);

/// The end of a frame: where to go on in user mode.
#[repr(C)]
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "as in `Frame`")]
pub struct Return {
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Where it begins in a frame.
pub const RETURN_START: usize = offset_of!(Frame, orig_rax);
const _: () = assert!(
    FULL - RETURN_START == size_of::<Return>()
        && offset_of!(Frame, rip) - RETURN_START == offset_of!(Return, rip)
        && offset_of!(Frame, cs) - RETURN_START == offset_of!(Return, cs)
        && offset_of!(Frame, rflags) - RETURN_START == offset_of!(Return, rflags)
        && offset_of!(Frame, rsp) - RETURN_START == offset_of!(Return, rsp)
        && offset_of!(Frame, ss) - RETURN_START == offset_of!(Return, ss)
);

/// RFLAGS that user mode may set: CF PF AF ZF SF TF DF OF RF AC ID. NT and IOPL are left out.
pub const USER_RFLAGS: u64 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x10000 | 0x40000 | 0x200000;
/// Interrupt flag.
pub const RFLAGS_IF: u64 = 0x200;

/// Assembly: push every register of the frame below orig_rax; RSP ends at the start of a full frame.
macro_rules! push_all {
    () => {
        concat!(push_clobbered!(), "push rbp\npush r12\npush r13\npush r14\npush r15\npush 0")
    };
}
/// Assembly: undo `push_all` and drop orig_rax.
macro_rules! pop_all {
    () => {
        concat!("add rsp, 8\npop r15\npop r14\npop r13\npop r12\npop rbp\n", pop_clobbered!())
    };
}
/// Assembly: push what C may clobber, and rbx, which keeps RSP aligned: the interrupt's part of a frame.
macro_rules! push_clobbered {
    () => {
        "push rdi\npush rsi\npush rdx\npush r10\npush r8\npush r9\npush rax\npush rcx\npush r11\npush rbx\n"
    };
}
/// Assembly: undo `push_clobbered`; RSP ends at orig_rax.
macro_rules! pop_to_orig_rax {
    () => {
        "pop rbx\npop r11\npop rcx\npop rax\npop r9\npop r8\npop r10\npop rdx\npop rsi\npop rdi\n"
    };
}
/// Assembly: undo `push_clobbered` and drop orig_rax.
macro_rules! pop_clobbered {
    () => {
        concat!(pop_to_orig_rax!(), "add rsp, 8\n")
    };
}

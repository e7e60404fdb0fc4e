//! The registers of a signal frame, from the kernel's frame to user memory and back: word by word, in one opening of SMAP.
//!
//! Called by `process::signal_frame` alone, process context. The routines keep to what `user_copy` says of those that may fault: the user's address is
//! in RDI, the kernel's in RSI. Source: Linux arch/x86/include/uapi/asm/sigcontext.h, ucontext.h.

use super::user_copy::{Fault, check, close_user, may_fault, open_user};
use crate::entry::frame::Frame;
use core::arch::naked_asm;
use core::mem::offset_of;

/// What a signal frame has besides general registers.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Context {
    /// Where the handler returns to. Stored only.
    pub restorer: u64,
    /// uc_flags
    pub flags: u64,
    /// uc_stack: address, ss_flags, size
    pub stack: [u64; 3],
    /// Flags register
    pub rflags: u64,
    /// CS in the lowest 16 bits, SS in the highest
    pub selectors: u64,
    /// cr2. Stored only.
    pub fault_address: u64,
    /// Where the FPU state is; 0: nowhere
    pub fp_at: u64,
    /// uc_sigmask
    pub mask: u64,
    /// The first words of siginfo. Stored only.
    pub info: [u64; 4],
}

/// Words of a frame up to the last one that is stored: what is behind it in siginfo is the program's own memory.
const STORED_WORDS: u64 = 43;
/// Up to the last one that is loaded.
const LOADED_WORDS: u64 = 39;

/// `$move` for each field of a `Context` that goes both ways, with its word in the frame. The first and the last word come first: if they can be
/// read, all can, unless another thread unmaps them meanwhile.
macro_rules! both_ways {
    ($move:ident) => {
        concat!(
            $move!("flags", "1"),
            $move!("mask", "38"),
            $move!("stack", "3"),
            $move!("stack} + 8 + {zero", "4"),
            $move!("stack} + 16 + {zero", "5"),
            $move!("rflags", "23"),
            $move!("selectors", "24"),
            $move!("fp_at", "29"),
        )
    };
}

/// `$move` for each register of a `Frame`, with its word.
macro_rules! registers {
    ($move:ident) => {
        concat!(
            $move!("r8", "6"),
            $move!("r9", "7"),
            $move!("r10", "8"),
            $move!("r11", "9"),
            $move!("r12", "10"),
            $move!("r13", "11"),
            $move!("r14", "12"),
            $move!("r15", "13"),
            $move!("rdi", "14"),
            $move!("rsi", "15"),
            $move!("rbp", "16"),
            $move!("rbx", "17"),
            $move!("rdx", "18"),
            $move!("rax", "19"),
            $move!("rcx", "20"),
            $move!("rsp", "21"),
            $move!("rip", "22"),
        )
    };
}

macro_rules! store {
    ($field:literal, $word:literal) => {
        concat!("mov rax, [rsi + {", $field, "}]\n", may_fault!("mov [rdi + 8 * ", $word, "], rax"))
    };
}

macro_rules! load {
    ($field:literal, $word:literal) => {
        concat!(may_fault!("mov rax, [rdi + 8 * ", $word, "]"), "mov [rsi + {", $field, "}], rax\n")
    };
}

/// A routine on the signal frame at user address RDI, with a `Context` at RSI and a `Frame` at RDX; returns 0, or 1 if it faulted.
macro_rules! raw_context {
    ($(#[$m:meta])* $name:ident($move:ident), $more:expr $(, $k:ident = const $v:expr)*) => {
        $(#[$m])*
        ///
        /// # Safety
        /// 1. The signal frame lies below USER_END; 2. the kernel's two are valid and not used meanwhile.
        #[unsafe(naked)]
        #[unsafe(link_section = ".text.user_copy")]
        unsafe extern "C" fn $name(at: u64, context: *mut Context, frame: *mut Frame) -> u64 {
            naked_asm!(
                open_user!(),
                both_ways!($move),
                $more,
                "mov rsi, rdx",
                registers!($move),
                "xor eax, eax",
                close_user!(),
                "ret",
                "91: mov eax, 1",
                "jmp 89b",
                zero = const 0,
                flags = const offset_of!(Context, flags),
                mask = const offset_of!(Context, mask),
                stack = const offset_of!(Context, stack),
                rflags = const offset_of!(Context, rflags),
                selectors = const offset_of!(Context, selectors),
                fp_at = const offset_of!(Context, fp_at),
                r8 = const offset_of!(Frame, r8),
                r9 = const offset_of!(Frame, r9),
                r10 = const offset_of!(Frame, r10),
                r11 = const offset_of!(Frame, r11),
                r12 = const offset_of!(Frame, r12),
                r13 = const offset_of!(Frame, r13),
                r14 = const offset_of!(Frame, r14),
                r15 = const offset_of!(Frame, r15),
                rdi = const offset_of!(Frame, rdi),
                rsi = const offset_of!(Frame, rsi),
                rbp = const offset_of!(Frame, rbp),
                rbx = const offset_of!(Frame, rbx),
                rdx = const offset_of!(Frame, rdx),
                rax = const offset_of!(Frame, rax),
                rcx = const offset_of!(Frame, rcx),
                rsp = const offset_of!(Frame, rsp),
                rip = const offset_of!(Frame, rip),
                $($k = const $v,)*
            )
        }
    };
}

raw_context! {
    /// Store all of it; uc_link, err and trapno are 0.
    raw_store(store),
    concat!(
        store!("restorer", "0"),
        store!("mask", "27"),
        store!("fault_address", "28"),
        store!("info", "39"),
        store!("info} + 8 + {zero", "40"),
        store!("info} + 16 + {zero", "41"),
        store!("info} + 24 + {zero", "42"),
        "xor eax, eax\n",
        may_fault!("mov [rdi + 8 * 2], rax"),
        may_fault!("mov [rdi + 8 * 25], rax"),
        may_fault!("mov [rdi + 8 * 26], rax"),
    ),
    restorer = const offset_of!(Context, restorer),
    fault_address = const offset_of!(Context, fault_address),
    info = const offset_of!(Context, info)
}

raw_context! {
    /// Load what goes both ways.
    raw_load(load), ""
}

/// Write a signal frame at user address `at`: the registers of `frame`, and `context`.
#[inline]
pub fn store(at: u64, context: &mut Context, frame: &mut Frame) -> Result<(), Fault> {
    check(at, 8 * STORED_WORDS)?;
    // SAFETY: 1. checked; 2. exclusive references.
    if unsafe { raw_store(at, context, frame) } == 0 { Ok(()) } else { Err(Fault) }
}

/// Read the signal frame at user address `at`: its general registers and RIP into `frame`, the rest as it is, for the caller to check.
#[inline]
pub fn load(at: u64, frame: &mut Frame) -> Result<Context, Fault> {
    check(at, 8 * LOADED_WORDS)?;
    let mut context = Context::default();
    // SAFETY: 1. checked; 2. exclusive references.
    if unsafe { raw_load(at, &mut context, frame) } == 0 { Ok(context) } else { Err(Fault) }
}

//! A signal frame in user memory: written in one opening of SMAP, from where its parts are in the kernel, and read again.
//!
//! Called by `process::signal_frame` and, for the general registers, by the way out of rt_sigreturn; process context. The routines keep to the
//! rule of check-elf for those that may fault (KERNEL_SIDE in its fixups.rs): the kernel's memory is read and written by RSI alone; all other registers
//! may hold the user's address.
//! Source: Linux arch/x86/include/uapi/asm/sigcontext.h, ucontext.h; SDM vol. 1, "XSAVE Area".

use super::user_copy::{Fault, check, close_user, may_fault, open_user};
use crate::arch::fpu;
use crate::arch::page_table::USER_END;
use crate::entry::frame::Frame;
use core::arch::{asm, naked_asm};
use core::mem::offset_of;

/// What comes with a signal, as `store` reads it at `Stored::info`: si_signo, si_code, then si_pid with si_uid or si_addr, then si_value.
pub mod info_at {
    /// u32
    pub const SIGNAL: usize = 0;
    /// i32
    pub const CODE: usize = 4;
    /// u64
    pub const SENDER: usize = 8;
    /// u64
    pub const VALUE: usize = 16;
}

/// The thread's last fault, as `store` reads it at `Stored::fault`: three u64.
pub mod fault_at {
    /// trapno
    pub const VECTOR: usize = 0;
    /// err
    pub const ERROR: usize = 8;
    /// cr2
    pub const ADDRESS: usize = 16;
}

/// What a signal frame has besides the interrupted registers.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Where the handler returns to
    pub restorer: u64,
    /// uc_stack: address, ss_flags, size
    pub stack: [u64; 3],
    /// Where the FPU state goes, 64-byte aligned
    pub fp_at: u64,
    /// uc_sigmask
    pub mask: u64,
    /// As `info_at` says
    pub info: *const u8,
    /// As `fault_at` says
    pub fault: *const u8,
}

/// What rt_sigreturn looks at before it believes it.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// uc_flags
    pub flags: u64,
    /// ss_flags of uc_stack; the rest of that is at `STACK`
    pub stack_flags: u32,
    /// Flags register
    pub rflags: u64,
    /// CS in the lowest 16 bits, SS in the highest
    pub selectors: u64,
    /// Where the FPU state is; 0: nowhere
    pub fp_at: u64,
    /// uc_sigmask
    pub mask: u64,
    /// Where to go on
    pub rip: u64,
    /// With which stack
    pub rsp: u64,
}

/// Where uc_stack is in a signal frame: address, ss_flags, size.
pub const STACK: u64 = 8 * 3;
/// Where the interrupted RAX is.
pub const RAX: u64 = 8 * 19;

/// Words of a frame up to the last one that is stored: what is behind it in siginfo is the program's own memory.
const STORED_WORDS: u64 = 43;
/// Up to the last one that is loaded.
const LOADED_WORDS: u64 = 39;

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

/// Write a signal frame at RDI, with the FPU state at R8, which `$save` stores, and uc_flags `$flags`; `$load` loads the initial state once all is written,
/// since a frame that cannot be written changes nothing. RDX: the `Frame`. RSI: `Stored::info`; RCX: `fault`.
/// R9: mask. R10: restorer. R15, R11, RAX: the stack's address, ss_flags and size. R12, R13, R14: what `fpu::describe_frame` says. Returns 32 ones in RAX,
/// or 1 if it faulted; RSI is lost, all others are kept.
macro_rules! raw_store {
    ($name:ident, $flags:literal, $save:expr, $load:literal $(, $l:ident = const $w:expr)*) => {
        /// See `raw_store`.
        ///
        /// # Safety
        /// 1. Frame and FPU area lie below USER_END; 2. what the kernel's pointers name is valid.
        #[unsafe(naked)]
        #[unsafe(link_section = ".text.user_copy")]
        unsafe extern "C" fn $name() {
            naked_asm!(
                open_user!(),
                may_fault!("mov [rdi + 8 * 5], rax"),
                may_fault!("mov qword ptr [rdi + 8 * 2], 0"), // uc_link
                "mov eax, [rsi + {signal}]", // si_errno, in the upper half, is 0
                may_fault!("mov [rdi + 8 * 39], rax"),
                "mov eax, [rsi + {code}]",
                may_fault!("mov [rdi + 8 * 40], rax"),
                store!("sender", "41"),
                store!("value", "42"),
                $save,
                "mov rsi, rcx",
                store!("error", "25"),
                store!("vector", "26"),
                store!("address", "28"),
                may_fault!("mov [rdi], r10"),
                may_fault!("mov qword ptr [rdi + 8], ", $flags),
                may_fault!("mov [rdi + 8 * 3], r15"),
                may_fault!("mov [rdi + 8 * 4], r11"),
                may_fault!("mov [rdi + 8 * 27], r9"),
                may_fault!("mov [rdi + 8 * 29], r8"),
                may_fault!("mov [rdi + 8 * 38], r9"),
                "mov rsi, rdx",
                "mov rax, [rsi + {ss}]",
                "shl rax, 48",
                "mov ax, [rsi + {cs}]",
                may_fault!("mov [rdi + 8 * 24], rax"),
                store!("rflags", "23"),
                registers!(store),
                "mov eax, -1", // each part, for XRSTOR, and the result
                "mov rsi, offset {initial}",
                $load,
                close_user!(),
                "ret",
                "91: mov eax, 1",
                "jmp 89b",
                initial = sym fpu::INITIAL,
                signal = const info_at::SIGNAL,
                code = const info_at::CODE,
                sender = const info_at::SENDER,
                value = const info_at::VALUE,
                error = const fault_at::ERROR,
                vector = const fault_at::VECTOR,
                address = const fault_at::ADDRESS,
                rflags = const offset_of!(Frame, rflags),
                cs = const offset_of!(Frame, cs),
                ss = const offset_of!(Frame, ss),
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
                $($l = const $w,)*
            )
        }
    };
}

raw_store! {
    raw_store_xsave, "7", // UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
    // XSAVE does not write the header as a whole, and what it does not write must be zero. What EDX has does not matter: XCR0 has no such bits.
    concat!(
        "xor eax, eax\n",
        may_fault!("mov [r8 + {header}], rax"),
        may_fault!("mov [r8 + {header} + 8], rax"),
        may_fault!("mov [r8 + {header} + 16], rax"),
        may_fault!("mov [r8 + {header} + 24], rax"),
        may_fault!("mov [r8 + {header} + 32], rax"),
        may_fault!("mov [r8 + {header} + 40], rax"),
        may_fault!("mov [r8 + {header} + 48], rax"),
        may_fault!("mov [r8 + {header} + 56], rax"),
        may_fault!("mov [r8 + {description} + 24], rax"),
        may_fault!("mov [r8 + {description} + 32], rax"),
        may_fault!("mov [r8 + {description} + 40], rax"),
        may_fault!("mov [r8 + {description}], r12"),
        may_fault!("mov [r8 + {description} + 8], r13"),
        may_fault!("mov [r8 + {description} + 16], r14"),
        may_fault!("mov dword ptr [r8 + r14], {mark}"),
        "mov eax, -1\n",
        may_fault!("xsave64 [r8]"),
    ),
    "xrstor64 [rsi]",
    header = const 512,
    description = const fpu::DESCRIPTION,
    mark = const fpu::FRAME_END
}
raw_store! {
    raw_store_fxsave, "6", may_fault!("fxsave64 [r8]"), "fxrstor64 [rsi]"
}

/// Load from the signal frame at RDI what `Loaded` has, each into a register of its own. In R8 is all ones if it faulted. The first and the last word come
/// first: if they can be read, all can, unless another thread unmaps them meanwhile.
///
/// # Safety
/// The frame lies below USER_END.
#[unsafe(naked)]
#[unsafe(link_section = ".text.user_copy")]
unsafe extern "C" fn raw_load() {
    naked_asm!(
        open_user!(),
        may_fault!("mov rax, [rdi + 8]"),
        may_fault!("mov rsi, [rdi + 8 * 38]"),
        may_fault!("mov r11, [rdi + 8 * 4]"),
        may_fault!("mov r10, [rdi + 8 * 21]"),
        may_fault!("mov r9, [rdi + 8 * 22]"),
        may_fault!("mov rcx, [rdi + 8 * 23]"),
        may_fault!("mov rdx, [rdi + 8 * 24]"),
        may_fault!("mov r8, [rdi + 8 * 29]"),
        close_user!(),
        "ret",
        "91: mov r8, -1",
        "jmp 89b",
    )
}

/// Load the general registers of the signal frame at RDI into a `Frame`; returns 0, or 1 if it faulted.
///
/// # Safety
/// 1. The signal frame lies below USER_END; 2. `frame` is valid and not used meanwhile.
#[unsafe(naked)]
#[unsafe(link_section = ".text.user_copy")]
unsafe extern "C" fn raw_load_frame(at: u64, frame: *mut Frame) -> u64 {
    naked_asm!(
        open_user!(),
        registers!(load),
        "xor eax, eax",
        close_user!(),
        "ret",
        "91: mov eax, 1",
        "jmp 89b",
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
    )
}

/// Load the general registers of the signal frame at RDI, all but RSP, for good: `entry::signal_return` goes to user mode with them. Carry: that faulted;
/// then those that C code may have left something in are 0, and the others the user's, before or after.
///
/// # Safety
/// 1. The frame lies below USER_END; 2. the caller is assembly that keeps nothing in registers.
#[unsafe(naked)]
#[unsafe(link_section = ".text.user_copy")]
pub unsafe extern "C" fn load_registers() {
    naked_asm!(
        "clc", // and nothing below changes it
        open_user!(),
        may_fault!("mov r8, [rdi + 8 * 6]"),
        may_fault!("mov r9, [rdi + 8 * 7]"),
        may_fault!("mov r10, [rdi + 8 * 8]"),
        may_fault!("mov r11, [rdi + 8 * 9]"),
        may_fault!("mov r12, [rdi + 8 * 10]"),
        may_fault!("mov r13, [rdi + 8 * 11]"),
        may_fault!("mov r14, [rdi + 8 * 12]"),
        may_fault!("mov r15, [rdi + 8 * 13]"),
        may_fault!("mov rsi, [rdi + 8 * 15]"),
        may_fault!("mov rbp, [rdi + 8 * 16]"),
        may_fault!("mov rbx, [rdi + 8 * 17]"),
        may_fault!("mov rdx, [rdi + 8 * 18]"),
        may_fault!("mov rax, [rdi + 8 * 19]"),
        may_fault!("mov rcx, [rdi + 8 * 20]"),
        may_fault!("mov rdi, [rdi + 8 * 14]"),
        close_user!(),
        "ret",
        "91: xor eax, eax",
        "xor ecx, ecx",
        "xor edx, edx",
        "xor esi, esi",
        "xor edi, edi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "stc",
        "jmp 89b",
    )
}

/// Write a signal frame at user address `at`: the registers of `frame`, and what `stored` says; and the running task's FPU state, which is the initial one
/// after that. Where it fails, the FPU state is as it was. Frame and FPU state lie
/// below USER_END. Needs no pin: the CPU always holds the running task's state.
///
/// # Safety
/// 1. `at` and `stored.fp_at` with what is behind them lie below USER_END; 2. the pointers in `stored` are valid, for what `info_at` and `fault_at` say.
#[inline(always)]
pub unsafe fn store(at: u64, stored: &Stored, frame: &Frame) -> Result<(), Fault> {
    const FAULTED: u64 = 1;
    let written: u64;
    let [base, flags, size] = stored.stack;
    macro_rules! call {
        ($routine:ident, $r12:expr, $r13:expr, $r14:expr) => {
            // SAFETY: the caller's conditions; the registers are those that the routine names, and it keeps all but two.
            unsafe {
                asm!("call {}", sym $routine,
                    in("rdi") at, in("rdx") frame, inout("rsi") stored.info => _, in("rcx") stored.fault, in("r8") stored.fp_at,
                    in("r9") stored.mask, in("r10") stored.restorer, in("r15") base, in("r11") flags, inout("rax") size => written,
                    in("r12") $r12, in("r13") $r13, in("r14") $r14)
            }
        };
    }
    if fpu::has_xsave() {
        let [first, parts, bytes] = fpu::describe_frame();
        call!(raw_store_xsave, first, parts, bytes);
    } else {
        call!(raw_store_fxsave, 0u64, 0u64, 0u64);
    }
    if written != FAULTED { Ok(()) } else { Err(Fault) }
}

/// Read from the signal frame at user address `at` what is to be checked.
#[inline(always)]
pub fn load(at: u64) -> Result<Loaded, Fault> {
    // As `check`, in one comparison.
    if at > USER_END - 8 * LOADED_WORDS {
        return Err(Fault);
    }
    let (flags, mask, stack_flags, rsp, rip, rflags, selectors, fp_at): (u64, u64, u64, u64, u64, u64, u64, u64);
    // SAFETY: checked; the routine changes the registers that are named here.
    unsafe {
        asm!("call {}", sym raw_load, in("rdi") at, out("rax") flags, out("rsi") mask, out("r11") stack_flags, out("r10") rsp,
            out("r9") rip, out("rcx") rflags, out("rdx") selectors, out("r8") fp_at);
    }
    if fp_at == u64::MAX {
        return Err(Fault);
    }
    Ok(Loaded { flags, stack_flags: stack_flags as u32, rflags, selectors, fp_at, mask, rip, rsp })
}

/// Read the general registers and RIP of the signal frame at user address `at` into `frame`.
pub fn load_frame(at: u64, frame: &mut Frame) -> Result<(), Fault> {
    check(at, 8 * LOADED_WORDS)?;
    // SAFETY: 1. checked; 2. an exclusive reference.
    if unsafe { raw_load_frame(at, frame) } == 0 { Ok(()) } else { Err(Fault) }
}

/// Bytes of what `store` writes at `at`.
pub const STORED_BYTES: u64 = 8 * STORED_WORDS;

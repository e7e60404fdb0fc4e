//! Model-specific registers that may not be there: a refused access is an answer, not the end.
//!
//! Any context, NMI too: what the CPU refuses is a #GP within one instruction, which the exception table sends on to the next. The routines stand among those
//! that may fault (`.text.user_copy`), so that `host check-elf` holds each of their rows. A register that CPUID promises is read and written
//! by the `x86_64` crate instead, whose #GP is a defect of the kernel. Source: SDM vol. 2, "RDMSR", "WRMSR"; named after Linux's.

use core::arch::naked_asm;

/// The CPU has no such register, or it does not take the value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused;

/// A value and whether it was refused, in RAX and RDX.
#[repr(C)]
struct Answer {
    value: u64,
    refused: u64,
}

#[unsafe(naked)]
#[unsafe(link_section = ".text.user_copy")]
extern "C" fn raw_read(register: u32) -> Answer {
    naked_asm!(
        "mov ecx, edi",
        "88: rdmsr",
        "shl rdx, 32",
        "or rax, rdx",
        "xor edx, edx",
        "ret",
        "91: xor eax, eax",
        "mov edx, 1",
        "ret",
        ".pushsection __ex_table, \"a\"",
        ".quad 88b, 91b",
        ".popsection",
    )
}

/// # Safety
/// As `wrmsr_safe`.
#[unsafe(naked)]
#[unsafe(link_section = ".text.user_copy")]
unsafe extern "C" fn raw_write(register: u32, value: u64) -> u64 {
    naked_asm!(
        "mov ecx, edi",
        "mov eax, esi",
        "mov rdx, rsi",
        "shr rdx, 32",
        "88: wrmsr",
        "xor eax, eax",
        "ret",
        "91: mov eax, 1",
        "ret",
        ".pushsection __ex_table, \"a\"",
        ".quad 88b, 91b",
        ".popsection",
    )
}

/// What is in a register of the running CPU, if it has it. Reading has no effect on any register that the kernel asks for.
pub fn rdmsr_safe(register: u32) -> Result<u64, Refused> {
    let answer = raw_read(register);
    if answer.refused == 0 { Ok(answer.value) } else { Err(Refused) }
}

/// Write `value` to a register of the running CPU, if it has it and takes that.
///
/// # Safety
/// The kernel goes on correctly whether the register has the value or not.
pub unsafe fn wrmsr_safe(register: u32, value: u64) -> Result<(), Refused> {
    // SAFETY: the caller's condition.
    if unsafe { raw_write(register, value) } == 0 { Ok(()) } else { Err(Refused) }
}

//! Exceptions in the loader itself: one line instead of a silent reset. Armed by main.rs on the boot CPU; the kernel
//! installs its own table. Source: Intel SDM 3A "64-Bit Mode IDT".

use crate::entry::CODE_SELECTOR;
use crate::fail;
use core::arch::{asm, global_asm};

const VECTORS: usize = 32;
/// Each stub in the table below takes this many bytes.
const STUB_SIZE: usize = 16;
/// Present, privilege level 0, 64-bit interrupt gate.
const INTERRUPT_GATE: u64 = 0x8e00;

/// What the operand of LIDT points at.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

unsafe extern "C" {
    static exception_stubs: u8;
}

/// Loads a table whose 32 gates all end in [`report`].
pub fn arm() {
    let mut gates = alloc::vec::Vec::with_capacity(VECTORS);
    for vector in 0..VECTORS {
        let stub = &raw const exception_stubs as u64 + (vector * STUB_SIZE) as u64;
        let low = stub & 0xffff | u64::from(CODE_SELECTOR) << 16 | INTERRUPT_GATE << 32 | (stub >> 16 & 0xffff) << 48;
        gates.push([low, stub >> 32]);
    }
    let gates = gates.leak();
    let pointer = Pointer { limit: (size_of_val(gates) - 1) as u16, base: gates.as_ptr() as u64 };
    // SAFETY: 1. The table is complete, stays for good, and its handler does not return. 2. Interrupts are off.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
}

/// Reports the exception `vector`; `stack` is what the CPU pushed, an error code first where the vector has one.
extern "C" fn report(vector: u64, stack: &[u64; 2]) -> ! {
    const WITH_ERROR_CODE: u32 = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17;
    let address: u64;
    // SAFETY: reading CR2 has no side effects.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    let instruction = if WITH_ERROR_CODE >> vector & 1 != 0 { stack[1] } else { stack[0] };
    fail!("internal error: exception {vector} at {instruction:#x}, CR2 {address:#x}")
}

global_asm!(
    r#"
    .section .text.exception_stubs, "ax"
    .balign 16
    .global exception_stubs
exception_stubs:
    .set vector, 0
    .rept {vectors}
    .balign {stub_size}
    mov edi, offset vector
    jmp exception_common
    .set vector, vector + 1
    .endr
    .balign 16
exception_common:
    mov rsi, rsp
    and rsp, -16
    cld
    call {report}
    ud2
    .text
"#,
    vectors = const VECTORS,
    stub_size = const STUB_SIZE,
    report = sym report,
);

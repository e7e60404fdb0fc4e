//! crash: ends itself by a fault of the named kind, so that one can see the kernel name the program and go on.

use crate::entry::{Args, Failure, Outcome};
use core::arch::asm;

const USAGE: &str = "usage: crash null|text|div|ud|priv|kernel|jump|stack";

/// `crash KIND`: a write to address 0, a write to its own code, a division by zero, an undefined instruction, a privileged
/// instruction, a read of kernel memory, a jump to an address that is not canonical, endless recursion.
pub fn main(args: &Args) -> Outcome {
    let [kind] = args.rest() else { return Err(Failure::usage(USAGE)) };
    match kind.as_str() {
        // SAFETY: (1) the page at 0 is never mapped, so the store faults and nothing comes after it.
        "null" => unsafe { asm!("mov byte ptr [{0}], 1", in(reg) 0u64) },
        // SAFETY: (1) code is mapped read-only, so the store faults and nothing comes after it.
        "text" => unsafe { asm!("mov byte ptr [{0}], 1", in(reg) main as *const u8) },
        // SAFETY: (1) the division faults, and nothing comes after it.
        "div" => unsafe { asm!("xor edx, edx", "div edx", out("eax") _, out("edx") _) },
        // SAFETY: (1) the instruction faults, and nothing comes after it.
        "ud" => unsafe { asm!("ud2") },
        // SAFETY: (1) the instruction faults in user mode, and nothing comes after it.
        "priv" => unsafe { asm!("cli") },
        // SAFETY: (1) the address belongs to the kernel, so the load faults and nothing comes after it.
        "kernel" => unsafe { asm!("mov {0}, [{0}]", inout(reg) 0xffff_ffff_8000_0000u64 => _) },
        // SAFETY: (1) nothing can be at the address, so the jump faults and nothing comes after it.
        "jump" => unsafe { asm!("jmp {0}", in(reg) 0xdead_0000_0000_0000u64) },
        "stack" => return Ok(deeper(0)),
        _ => return Err(Failure::usage(format!("no kind {kind} ({USAGE})"))),
    }
    Err(Failure::new(format!("{kind}: no fault")))
}

/// Uses a page of stack and calls itself, for ever.
#[expect(unconditional_recursion, reason = "the end of the stack is what it is for")]
#[inline(never)]
fn deeper(depth: u8) -> u8 {
    let page = core::hint::black_box([depth; 4096]);
    deeper(page[0].wrapping_add(1)).wrapping_add(core::hint::black_box(page)[1])
}

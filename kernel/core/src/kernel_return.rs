//! The way back from an interrupt that came in kernel mode: RET, which takes a few cycles, or IRET, which takes hundreds.
//!
//! Called by the kernel's interrupt path (any CPU, interrupts off). POPFQ and RET restore what IRET does but for RF, which POPFQ clears, and NT and TF,
//! which would act between the two; and they read the stack of the interrupted code, below its stack pointer.
//! Invariant: RET only where that is the stack which hardware pushed the frame onto. Interrupts have no stack of their own, and do not come on
//! those of NMI, #DB, #DF and #MC, which run with IF clear.
//! ```text
//! IF clear          no interrupt comes: an NMI, or what it was interrupted by
//! TF or NT set      a single step would end before RET; NT is IRET's
//! RF set            holds off a breakpoint of the next instruction, so it is lost only where there are breakpoints. Hardware saves it as set
//!                   within a REP instruction; QEMU's TCG does for every interrupt
//! in entry text     the state is half the user's; and an interrupt of RET itself must not lead to another RET: the stack would grow for ever
//! ```
//! RET does not serialise: nothing may rely on that. Source: SDM vol. 3B, "Masking Instruction-Breakpoint Exceptions".

use core::ops::Range;

/// RFLAGS: interrupts are on.
const IF: u64 = 1 << 9;
/// RFLAGS: single step; nested task.
const TF_NT: u64 = 1 << 8 | 1 << 14;
/// RFLAGS: no breakpoint at the next instruction.
const RF: u64 = 1 << 16;

/// Whether the code that was interrupted at `rip` with `rflags` is returned to by RET. `breakpoints`: the kernel may have some.
#[inline]
pub fn by_ret(rip: u64, rflags: u64, breakpoints: bool, entry_text: &Range<u64>) -> bool {
    let wanted_clear = if breakpoints { TF_NT | RF } else { TF_NT };
    rflags & (IF | wanted_clear) == IF && !entry_text.contains(&rip)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY_TEXT: Range<u64> = 0x1000..0x2000;
    /// What kernel code has: interrupts on.
    const USUAL: u64 = 0x202;

    #[test]
    fn plain_kernel_code_is_returned_to_by_ret() {
        // Arithmetic flags, DF, and AC within an access to user memory.
        for flags in [USUAL, USUAL | 0x8d5, USUAL | 1 << 10, USUAL | 1 << 18] {
            for breakpoints in [false, true] {
                assert!(by_ret(0xfff, flags, breakpoints, &ENTRY_TEXT), "{flags:#x}");
                assert!(by_ret(0x2000, flags, breakpoints, &ENTRY_TEXT), "{flags:#x}");
            }
        }
    }

    #[test]
    fn entry_text_is_returned_to_by_iret() {
        assert!(!by_ret(0x1000, USUAL, false, &ENTRY_TEXT) && !by_ret(0x1fff, USUAL, false, &ENTRY_TEXT));
    }

    #[test]
    fn each_flag_alone_makes_it_iret() {
        for breakpoints in [false, true] {
            assert!(!by_ret(0, USUAL | 1 << 8, breakpoints, &ENTRY_TEXT), "TF");
            assert!(!by_ret(0, USUAL | 1 << 14, breakpoints, &ENTRY_TEXT), "NT");
            assert!(!by_ret(0, USUAL & !IF, breakpoints, &ENTRY_TEXT), "IF");
        }
    }

    #[test]
    fn the_resume_flag_counts_where_a_breakpoint_may_be() {
        assert!(by_ret(0, USUAL | RF, false, &ENTRY_TEXT));
        assert!(!by_ret(0, USUAL | RF, true, &ENTRY_TEXT));
    }
}

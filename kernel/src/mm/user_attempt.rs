//! What the kernel must not do, tried on purpose: to read, write or run a page of a program without opening it (SMAP, SMEP).
//!
//! Called by /sys/kernel/quiesce/debug/user_access alone, process context with preemption off: nothing resolves the fault, so it goes on by the exception
//! table at once. An instruction fetch has no row there: it faults at the program's address, and `was_run` sends it back to where it was called from.

use crate::arch::page_table::USER_END;
use crate::entry::frame::Frame;
use crate::spin_lock::PreemptOff;
use core::arch::naked_asm;

/// RET, which is what a page has to hold that is run.
pub const RETURN: u8 = 0xc3;
/// Instruction fetch, in a page fault's error code.
const FETCH: u64 = 1 << 4;
/// No fault.
const TAKEN: u64 = u64::MAX;

/// A `$how` of the byte at RDI with SMAP closed: `TAKEN`, or the fault's error code, which RAX holds at a fixup.
macro_rules! raw_attempt {
    ($name:ident, $how:literal) => {
        #[unsafe(naked)]
        #[unsafe(link_section = ".text.user_copy")]
        unsafe extern "C" fn $name(at: u64) -> u64 {
            naked_asm!(
                "mov rax, -1",
                concat!("88: ", $how),
                "91: ret",
                ".pushsection __ex_table, \"a\"",
                ".quad 88b, 91b",
                ".popsection",
            )
        }
    };
}
raw_attempt!(raw_read, "mov cl, [rdi]");
raw_attempt!(raw_write, "mov byte ptr [rdi], 0xc3");

/// Call what is at RDI: as above.
#[unsafe(naked)]
unsafe extern "C" fn raw_run(at: u64) -> u64 {
    naked_asm!("mov rax, -1", "call rdi", ".globl user_attempt_called", "user_attempt_called: ret")
}

/// A fault of the kernel with `frame` at `address`, without a row in the exception table: whether it was the fetch of `raw_run`. Then `frame` goes on behind the call.
#[cold]
pub fn was_run(frame: &mut Frame, vector: u64, address: u64) -> bool {
    unsafe extern "C" {
        static user_attempt_called: u8;
    }
    const PAGE_FAULT: u64 = 14;
    let is_fetch = vector == PAGE_FAULT && frame.orig_rax & FETCH != 0;
    if !is_fetch || frame.rip != address || address >= USER_END || frame.rsp <= USER_END {
        return false;
    }
    // SAFETY: the stack that the kernel ran on, onto which hardware has pushed since.
    let called_from = unsafe { (frame.rsp as *const u64).read() };
    if called_from != &raw const user_attempt_called as u64 {
        return false;
    }
    (frame.rip, frame.rsp, frame.rax) = (called_from, frame.rsp + 8, frame.orig_rax);
    true
}

/// The error code of the fault with which an attempt was refused; `None`: it was not.
pub type Refused = Option<u64>;

/// Read, write and run the byte at `at`.
///
/// # Safety
/// `at` is in user memory that is present, may be read, written and executed, and holds `RETURN`; nobody else changes that meanwhile.
pub unsafe fn all(at: u64) -> [Refused; 3] {
    let _pin = PreemptOff::new();
    // SAFETY: the caller's conditions: what is written is what is there, and what is run comes back.
    let told = unsafe { [raw_read(at), raw_write(at), raw_run(at)] };
    told.map(|code| (code != TAKEN).then_some(code))
}

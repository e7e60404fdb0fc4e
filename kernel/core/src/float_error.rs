//! Which floating-point error an #MF or #XM is: si_code of the program's SIGFPE.
//!
//! Called by the exception handler with the running task's control and status words. Pure; allocates nothing. Both units have the six errors
//! at the same places: bits 0 to 5 of the x87's status word and of MXCSR are what happened, bits 0 to 5 of the control word and bits 7 to 12
//! of MXCSR what is masked. Source: SDM vol. 1, "x87 FPU Status Register", "MXCSR Control and Status Register"; sigaction(2).

/// FPE_FLTDIV
const DIVIDED_BY_ZERO: i32 = 3;
/// FPE_FLTOVF
const OVERFLOW: i32 = 4;
/// FPE_FLTUND
const UNDERFLOW: i32 = 5;
/// FPE_FLTRES
const INEXACT: i32 = 6;
/// FPE_FLTINV
const INVALID: i32 = 7;

/// The errors of either unit, by bit: which goes before which, as where one instruction makes two. Denormal operands have no code of their own and
/// count as underflow, as in Linux.
const CODES: [(u32, i32); 6] = [
    (1 << 0, INVALID),
    (1 << 2, DIVIDED_BY_ZERO),
    (1 << 3, OVERFLOW),
    (1 << 1, UNDERFLOW),
    (1 << 4, UNDERFLOW),
    (1 << 5, INEXACT),
];

/// si_code of an #MF with these words. `None`: no error that is not masked is there any more, and the program goes on.
pub fn x87_code(control: u16, status: u16) -> Option<i32> {
    code(u32::from(status & !control))
}

/// si_code of an #XM with this MXCSR. `None` as above.
pub fn simd_code(mxcsr: u32) -> Option<i32> {
    code(mxcsr & !(mxcsr >> 7))
}

fn code(errors: u32) -> Option<i32> {
    CODES.iter().find(|(bit, _)| errors & bit != 0).map(|(_, code)| *code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By bit: invalid, denormal, divide by zero, overflow, underflow, precision.
    const BY_BIT: [i32; 6] = [7, 5, 3, 4, 5, 6];

    #[test]
    fn each_error_alone() {
        for (bit, code) in BY_BIT.into_iter().enumerate() {
            assert_eq!(x87_code(0x37f & !(1 << bit), 1 << bit), Some(code), "x87 {bit}");
            assert_eq!(simd_code((0x1f80 & !(0x80 << bit)) | 1 << bit), Some(code), "SIMD {bit}");
        }
    }

    #[test]
    fn what_is_masked_or_did_not_happen_is_none() {
        assert_eq!(x87_code(0x37f, 0x3f), None);
        assert_eq!(simd_code(0x1fbf), None);
        // Masked and happened, unmasked and did not.
        assert_eq!((x87_code(0x37b, 0b0010_0001), simd_code(0x1d80 | 0b10_0001)), (None, None));
        // Bits above the six are none: stack fault, busy, the top of the stack; flush to zero and rounding.
        assert_eq!((x87_code(0, 0xffc0), simd_code(0xffff_e000)), (None, None));
    }

    #[test]
    fn of_two_the_graver_one() {
        assert_eq!(x87_code(0, 0b10_1000), Some(4), "overflow, and so not exact");
        assert_eq!(x87_code(0, 0b11_0000), Some(5), "underflow, and so not exact");
        assert_eq!(simd_code(0b11_1111), Some(7));
        // The masked graver one does not hide the other.
        assert_eq!(x87_code(1, 0b00_0101), Some(3));
    }
}

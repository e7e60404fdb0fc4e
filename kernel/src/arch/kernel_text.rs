//! Where the linker script puts the kernel's text, and the entry text in it.
//!
//! Any context.

use core::ops::Range;

unsafe extern "C" {
    static __text_start: u8;
    static __text_end: u8;
    static __entry_text_start: u8;
    static __entry_text_end: u8;
}

/// All of it.
#[inline]
pub fn text() -> Range<u64> {
    &raw const __text_start as u64..&raw const __text_end as u64
}

/// The section of the entry paths in assembly, `.entry.text`.
#[inline]
pub fn entry_text() -> Range<u64> {
    &raw const __entry_text_start as u64..&raw const __entry_text_end as u64
}

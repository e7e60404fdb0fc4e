//! gzip members (RFC 1952) expanded into memory that stays for good. Boot only.

use crate::mm::kernel_map;
use alloc::boxed::Box;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

const PAGE: usize = 4096;

/// Whether `bytes` start as a gzip member does.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b, 8])
}

/// Length of the member's header.
fn header_len(bytes: &[u8]) -> Option<usize> {
    let flags = *bytes.get(3)?;
    let mut at = 10;
    if flags & 4 != 0 {
        at += 2 + u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]) as usize;
    }
    for bit in [8, 16] {
        if flags & bit != 0 {
            at += bytes.get(at..)?.iter().position(|&b| b == 0)? + 1;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    (at <= bytes.len()).then_some(at)
}

/// Expand the member at the start of `bytes`: its content, and how many bytes of `bytes` it took.
pub fn expand(bytes: &[u8]) -> Result<(&'static [u8], usize), &'static str> {
    let header = header_len(bytes).ok_or("the header is cut off")?;
    let tail = bytes.len().checked_sub(4).filter(|&t| t > header).ok_or("cut off")?;
    // Right if this is the last member, a start if not.
    let told = u32::from_le_bytes([bytes[tail], bytes[tail + 1], bytes[tail + 2], bytes[tail + 3]]) as usize;
    let mut room = told.max(PAGE).next_multiple_of(PAGE);
    loop {
        if room as u64 > crate::mm::frame::free_bytes() {
            return Err("expanded it does not fit into memory");
        }
        let at = kernel_map::map_stack(1, (room / PAGE) as u64).ok_or("out of memory")?;
        // SAFETY: 1. `map_stack` mapped `room` bytes at `at`, zeroed, for good; 2. nobody else knows them.
        let out = unsafe { core::slice::from_raw_parts_mut(at as *mut u8, room) };
        let mut state = Box::<DecompressorOxide>::default();
        let (status, used, made) =
            decompress(&mut state, &bytes[header..], out, 0, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
        match status {
            TINFLStatus::Done => {
                // Behind the data: CRC-32 and length.
                let end = (header + used + 8).min(bytes.len());
                let length = bytes.get(header + used + 4..header + used + 8).ok_or("the trailer is cut off")?;
                if length != (made as u32).to_le_bytes() {
                    return Err("the length in the trailer is wrong");
                }
                return Ok((&out[..made], end));
            }
            TINFLStatus::HasMoreOutput => room = room.checked_mul(2).ok_or("too large")?,
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => return Err("the data are cut off"),
            _ => return Err("the data are broken"),
        }
    }
}

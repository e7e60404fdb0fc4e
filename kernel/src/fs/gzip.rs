//! gzip members (RFC 1952) expanded. Boot only.

use super::expanded::{Area, Input};
use alloc::boxed::Box;
use kcore::trace_frame::CRC;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

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

/// Expand the member at the start of `input`.
pub fn expand(input: &mut Input, area: &mut Area) -> Result<(), &'static str> {
    let header = header_len(input.rest()).ok_or("the header is cut off")?;
    input.advance(header);
    let start = area.len();
    let mut sum = CRC.digest();
    let mut state = Box::<DecompressorOxide>::default();
    loop {
        let at = area.len() - start;
        let room = area.room().ok_or("expanded it does not fit into memory")?;
        // What the member refers back to lies before `at`, in the member itself.
        let (status, used, made) =
            decompress(&mut state, input.rest(), &mut room[start..], at, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
        input.advance(used);
        sum.update(&room[start + at..start + at + made]);
        area.made(made);
        match status {
            TINFLStatus::HasMoreOutput => {}
            TINFLStatus::Done => break,
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => return Err("the data are cut off"),
            _ => return Err("the data are broken"),
        }
    }
    // Behind the data: CRC-32 and length.
    let (told, length) = input.rest().get(..8).ok_or("the trailer is cut off")?.split_at(4);
    if length != ((area.len() - start) as u32).to_le_bytes() {
        return Err("the length in the trailer is wrong");
    }
    if told != sum.finalize().to_le_bytes() {
        return Err("the checksum is wrong");
    }
    input.advance(8);
    Ok(())
}

//! Zstandard frames (RFC 8878) expanded, by the crate ruzstd. Boot only.

use super::expanded::{Area, Input};
use crate::mm::frame;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use ruzstd::decoding::errors::FrameDecoderError;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use ruzstd::io::Read;

/// The largest window: what the format asks every decoder for, and what `zstd -19` takes.
const MOST_WINDOW: u64 = 8 << 20;
/// The block that a buffer of such a window takes (as a power of two of pages).
const BUFFER_ORDER: u32 = kcore::buddy::MAX_ORDER;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether `bytes` start as a frame does.
pub fn is_zstd(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC) || is_skippable(bytes)
}

/// A frame without content.
fn is_skippable(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| first & 0xf0 == 0x50) && bytes.get(1..4) == Some(&[0x2a, 0x4d, 0x18])
}

/// Expand the frames at the start of `input`: one archive may be in several.
pub fn expand(input: &mut Input, area: &mut Area) -> Result<(), String> {
    let mut decoder = Box::new(FrameDecoder::new());
    decoder.set_max_window_size(MOST_WINDOW);
    while is_zstd(input.rest()) {
        if is_skippable(input.rest()) {
            let word = input.rest().get(4..8).and_then(|word| word.try_into().ok()).ok_or("a frame is cut off")?;
            input.advance(8 + u32::from_le_bytes(word) as usize);
        } else {
            frame_content(input, area, &mut decoder)?;
        }
    }
    Ok(())
}

fn frame_content(input: &mut Input, area: &mut Area, decoder: &mut FrameDecoder) -> Result<(), String> {
    // The decoder cannot go on where it finds no memory for its buffer.
    let block = frame::alloc_order(BUFFER_ORDER).ok_or("no memory for its window")?;
    frame::free_order(block, BUFFER_ORDER);
    let total = input.used() + input.rest().len();
    let mut stream = match StreamingDecoder::new_with_decoder(&mut *input, &mut *decoder) {
        Ok(stream) => stream,
        Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
            return Err(format!("its window of {} MiB is larger than {} MiB", requested.div_ceil(1 << 20), max >> 20));
        }
        Err(e) => return Err(format!("bad frame: {e}")),
    };
    loop {
        let len = area.len();
        let room = area.room().ok_or("expanded it does not fit into memory")?;
        match stream.read(&mut room[len..]) {
            Ok(0) => break,
            Ok(made) => area.made(made),
            Err(_) if stream.get_ref().used() == total => return Err("the data are cut off".into()),
            Err(e) => return Err(format!("the data are broken: {e}")),
        }
    }
    match (decoder.get_checksum_from_data(), decoder.get_calculated_checksum()) {
        (Some(told), Some(found)) if told != found => Err("the checksum is wrong".into()),
        _ => Ok(()),
    }
}

//! What the program cksum says of some bytes. Used by the scenarios that look at files in the guest.

/// The CRC of POSIX's cksum, bit by bit.
pub fn cksum(bytes: &[u8]) -> u32 {
    let len = bytes.len().to_le_bytes();
    let used = 8 - bytes.len().leading_zeros() as usize / 8;
    let add = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| crc << 1 ^ if crc >> 31 != 0 { 0x04c1_1db7 } else { 0 })
    };
    !len[..used].iter().fold(bytes.iter().fold(0, add), add)
}

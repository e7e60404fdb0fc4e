//! cksum: the check sum of files, as POSIX has it.

use crate::entry::{Args, Failure, Outcome};
use crate::linux;
use crate::output::{describe, write_out};

const USAGE: &str = "usage: cksum FILE...";
/// The polynomial of the CRC, without its highest power.
const POLYNOMIAL: u32 = 0x04c1_1db7;

/// What one byte makes of a CRC of 0.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut word = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            word = word << 1 ^ if word >> 31 != 0 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = word;
        byte += 1;
    }
    table
};

fn add(crc: u32, byte: u8) -> u32 {
    crc << 8 ^ TABLE[(crc >> 24) as usize ^ byte as usize]
}

/// The end of a check sum: the bytes of the length, the lowest first, and all bits turned round.
fn finish(crc: u32, len: u64) -> u32 {
    let bytes = len.to_le_bytes();
    let used = 8 - len.leading_zeros() as usize / 8;
    !bytes[..used].iter().fold(crc, |crc, &byte| add(crc, byte))
}

/// `cksum FILE...`: check sum, length and name of each.
pub fn main(args: &Args) -> Outcome {
    if args.rest().is_empty() {
        return Err(Failure::usage(USAGE));
    }
    for name in args.rest() {
        let failure = |error: &std::io::Error| Failure::new(format!("{name}: {}", describe(error)));
        let fd = linux::open(name, libc::O_RDONLY, 0).map_err(|e| failure(&e))?;
        let (mut crc, mut len) = (0, 0u64);
        let mut bytes = vec![0; 64 << 10];
        loop {
            match linux::read(fd, &mut bytes) {
                Ok(0) => break,
                Ok(n) => {
                    crc = bytes[..n].iter().fold(crc, |crc, &byte| add(crc, byte));
                    len += n as u64;
                }
                Err(error) => return Err(failure(&error)),
            }
        }
        linux::close(fd);
        write_out(format!("{} {len} {name}\n", finish(crc, len)).as_bytes());
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_posix_has_it() {
        let of = |text: &str| finish(text.bytes().fold(0, add), text.len() as u64);
        assert_eq!([of(""), of("123456789")], [4_294_967_295, 930_766_865]);
    }
}

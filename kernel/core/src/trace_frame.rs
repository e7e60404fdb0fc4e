//! The trace on a serial line: frames with length, sequence number and checksum.
//!
//! The kernel's draining thread encodes ([`Encoder`], no allocation); whoever reads the line decodes
//! ([`Decoder`], a push parser that finds its way back after anything). Invariants: what was encoded decodes to the same;
//! whatever bytes come in, the decoder does not panic, and every byte belongs to a frame or is counted as skipped.
//!
//! ```text
//! 'Q' 'T' 0xF5 0x1A | len u16 | kind u8 | version u8 | seq u32 | payload (len bytes) | crc32 u32
//! ```
//! Little-endian throughout. CRC-32 (ISO-HDLC, as in zip) over all between the sync bytes and itself. `seq` counts frames
//! from 0. Payloads by kind:
//!
//! | kind | payload |
//! |---|---|
//! | 0 HELLO | tsc_khz u64, boot_tsc u64, cpus u32, words of a record u32 |
//! | 1 RECORDS | cpu u16, count u16, 0 u32, delivered u64, lost u64, count records |
//! | 2 SITE | address u64, "file:line" |
//! | 3 INTERRUPTION | the words of [`crate::interruption`] |
//! | 4 END | for each CPU: cpu u32, 0 u32, delivered u64, lost u64 |
//! | 5 TASK | id u32, comm 16 bytes |
//!
//! `delivered` is the number of this CPU's records in frames before this one, `lost` that of the records that were lost
//! in the kernel before it, both since boot: so a reader can tell what was lost in the kernel from what was lost on the line.

mod account;
mod decoder;

pub use account::{Account, CpuAccount};
pub use decoder::{BadPayload, Decoder, Frame, Item};

use crate::interruption::{self, Interruption};
use crate::trace_event::{Clock, Site, WORDS};
use crc::{CRC_32_ISO_HDLC, Crc};

/// What a frame begins with.
pub const SYNC: [u8; 4] = [b'Q', b'T', 0xf5, 0x1a];
/// Version of the format.
pub const VERSION: u8 = 1;
/// No payload is longer.
pub const MAX_PAYLOAD: usize = 8192;
/// Bytes before the payload, sync bytes included.
pub const HEAD_LEN: usize = 12;
/// Bytes around the payload.
pub const OVERHEAD: usize = HEAD_LEN + 4;
/// No frame is longer.
pub const MAX_FRAME: usize = MAX_PAYLOAD + OVERHEAD;
/// The most records in a frame.
pub const MAX_RECORDS: usize = (MAX_PAYLOAD - RECORDS_HEAD_LEN) / (WORDS * 8);
/// The most CPUs in an END frame; more than these take several.
pub const MAX_TOTALS: usize = MAX_PAYLOAD / TOTAL_LEN;

const RECORDS_HEAD_LEN: usize = 24;
const TOTAL_LEN: usize = 24;
const HELLO_LEN: usize = 24;
const TASK_LEN: usize = 20;
/// The CRC at the end of a frame: that of Ethernet and gzip. The kernel holds the root archive against it, too.
pub static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Kinds of frames, by number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Hello = 0,
    Records = 1,
    Site = 2,
    Interruption = 3,
    End = 4,
    Task = 5,
}

impl Kind {
    const ALL: [Kind; 6] = [Kind::Hello, Kind::Records, Kind::Site, Kind::Interruption, Kind::End, Kind::Task];
}

/// What a stream is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Its clock.
    pub clock: Clock,
    /// Number of CPUs.
    pub cpus: u32,
}

/// How many records of one CPU were sent and how many were lost in the kernel, since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Total {
    /// The CPU.
    pub cpu: u32,
    /// In frames sent so far.
    pub delivered: u64,
    /// Overwritten or dropped so far.
    pub lost: u64,
}

/// Makes the frames of one stream. One at a time: it counts them.
#[derive(Debug, Default)]
pub struct Encoder {
    seq: u32,
}

impl Encoder {
    /// At the start of a stream.
    pub const fn new() -> Self {
        Encoder { seq: 0 }
    }

    /// Number of the next frame.
    pub const fn seq(&self) -> u32 {
        self.seq
    }

    /// A HELLO frame in `out`; `None`, and nothing counted, if `out` is too short. So too all others.
    pub fn hello<'b>(&mut self, out: &'b mut [u8], hello: &Hello) -> Option<&'b [u8]> {
        self.frame(out, Kind::Hello, |payload| {
            payload.put(&hello.clock.tsc_khz.to_le_bytes())?;
            payload.put(&hello.clock.boot_tsc.to_le_bytes())?;
            payload.put(&hello.cpus.to_le_bytes())?;
            payload.put(&(WORDS as u32).to_le_bytes())
        })
    }

    /// A RECORDS frame with at most [`MAX_RECORDS`] records of `before.cpu`; `before` is what was sent and lost before it.
    pub fn records<'b>(&mut self, out: &'b mut [u8], before: &Total, records: &[[u64; WORDS]]) -> Option<&'b [u8]> {
        let cpu = u16::try_from(before.cpu).ok()?;
        let count = u16::try_from(records.len()).ok().filter(|&count| usize::from(count) <= MAX_RECORDS)?;
        self.frame(out, Kind::Records, |payload| {
            payload.put(&cpu.to_le_bytes())?;
            payload.put(&count.to_le_bytes())?;
            payload.put(&[0; 4])?;
            payload.put(&before.delivered.to_le_bytes())?;
            payload.put(&before.lost.to_le_bytes())?;
            records.iter().flatten().try_for_each(|word| payload.put(&word.to_le_bytes()))
        })
    }

    /// A SITE frame: what an address in later records stands for.
    pub fn site<'b>(&mut self, out: &'b mut [u8], address: u64, site: &Site<'_>) -> Option<&'b [u8]> {
        self.frame(out, Kind::Site, |payload| {
            payload.put(&address.to_le_bytes())?;
            payload.put(site.file.as_bytes())?;
            payload.put(b":")?;
            payload.decimal(site.line)
        })
    }

    /// A TASK frame: the name of a task in later records. Again when the name has changed.
    pub fn task<'b>(&mut self, out: &'b mut [u8], id: u32, comm: &[u8; 16]) -> Option<&'b [u8]> {
        self.frame(out, Kind::Task, |payload| {
            payload.put(&id.to_le_bytes())?;
            payload.put(comm)
        })
    }

    /// An INTERRUPTION frame.
    pub fn interruption<'b>(&mut self, out: &'b mut [u8], words: &[u64; interruption::WORDS]) -> Option<&'b [u8]> {
        self.frame(out, Kind::Interruption, |payload| {
            words.iter().try_for_each(|word| payload.put(&word.to_le_bytes()))
        })
    }

    /// An END frame with the totals of at most [`MAX_TOTALS`] CPUs.
    pub fn end<'b>(&mut self, out: &'b mut [u8], totals: &[Total]) -> Option<&'b [u8]> {
        self.frame(out, Kind::End, |payload| {
            totals.iter().try_for_each(|total| {
                payload.put(&total.cpu.to_le_bytes())?;
                payload.put(&[0; 4])?;
                payload.put(&total.delivered.to_le_bytes())?;
                payload.put(&total.lost.to_le_bytes())
            })
        })
    }

    fn frame<'b>(
        &mut self,
        out: &'b mut [u8],
        kind: Kind,
        fill: impl FnOnce(&mut Payload<'_>) -> Option<()>,
    ) -> Option<&'b [u8]> {
        let room = out.len().checked_sub(OVERHEAD)?.min(MAX_PAYLOAD);
        let mut payload = Payload { out: &mut out[HEAD_LEN..HEAD_LEN + room], len: 0 };
        fill(&mut payload)?;
        let len = payload.len;
        out[..4].copy_from_slice(&SYNC);
        out[4..6].copy_from_slice(&(len as u16).to_le_bytes());
        out[6] = kind as u8;
        out[7] = VERSION;
        out[8..12].copy_from_slice(&self.seq.to_le_bytes());
        let end = HEAD_LEN + len;
        let crc = CRC.checksum(&out[4..end]);
        out[end..end + 4].copy_from_slice(&crc.to_le_bytes());
        self.seq = self.seq.wrapping_add(1);
        Some(&out[..end + 4])
    }
}

/// A payload in the making.
struct Payload<'b> {
    out: &'b mut [u8],
    len: usize,
}

impl Payload<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        self.out.get_mut(self.len..self.len + bytes.len())?.copy_from_slice(bytes);
        self.len += bytes.len();
        Some(())
    }

    fn decimal(&mut self, number: u32) -> Option<()> {
        let mut digits = [0; 10];
        let (mut rest, mut start) = (number, digits.len());
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.put(&digits[start..]);
            }
        }
    }
}

/// Reads a payload from its front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn words<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut words = [0; N];
        for word in &mut words {
            *word = self.u64()?;
        }
        Some(words)
    }
}

impl Frame {
    /// The frame with this kind and payload; `None` if no encoder made it.
    fn of(kind: Kind, payload: &[u8]) -> Option<Frame> {
        let mut fields = Fields(payload);
        let frame = match kind {
            Kind::Hello => {
                let clock = Clock { tsc_khz: fields.u64()?, boot_tsc: fields.u64()? };
                let cpus = fields.u32()?;
                if fields.u32()? != WORDS as u32 || payload.len() != HELLO_LEN {
                    return None;
                }
                Frame::Hello(Hello { clock, cpus })
            }
            Kind::Records => {
                let (cpu, count) = (fields.u16()?, fields.u16()?);
                if fields.u32()? != 0 || payload.len() != RECORDS_HEAD_LEN + usize::from(count) * WORDS * 8 {
                    return None;
                }
                let before = Total { cpu: cpu.into(), delivered: fields.u64()?, lost: fields.u64()? };
                let records = (0..count).map(|_| fields.words()).collect::<Option<_>>()?;
                Frame::Records { before, records }
            }
            Kind::Site => {
                let address = fields.u64()?;
                let (file, line) = core::str::from_utf8(fields.0).ok()?.rsplit_once(':')?;
                let digits = line.bytes().all(|byte| byte.is_ascii_digit());
                let line = line.parse().ok().filter(|_| digits)?;
                return Some(Frame::Site { address, file: file.into(), line });
            }
            Kind::Interruption => Frame::Interruption(Interruption::decode(&fields.words()?).ok()?),
            Kind::End => {
                if !payload.len().is_multiple_of(TOTAL_LEN) {
                    return None;
                }
                let mut totals = alloc::vec::Vec::with_capacity(payload.len() / TOTAL_LEN);
                while !fields.0.is_empty() {
                    let (cpu, zero) = (fields.u32()?, fields.u32()?);
                    if zero != 0 {
                        return None;
                    }
                    totals.push(Total { cpu, delivered: fields.u64()?, lost: fields.u64()? });
                }
                Frame::End(totals)
            }
            Kind::Task if payload.len() == TASK_LEN => Frame::Task { id: fields.u32()?, comm: fields.take()? },
            Kind::Task => return None,
        };
        fields.0.is_empty().then_some(frame)
    }
}

//! The decoder: bytes in, frames and what went wrong out.
//!
//! A frame counts when its sync bytes, length and checksum are right; then its sequence number says whether frames before
//! it are missing. After a wrong one the search goes on behind its first sync byte, not behind the length that it claims,
//! so a broken length costs no good frame.

use super::{CRC, HEAD_LEN, Hello, Kind, MAX_PAYLOAD, OVERHEAD, SYNC, Total, VERSION};
use crate::interruption::Interruption;
use crate::trace_event::WORDS;
use alloc::string::String;
use alloc::vec::Vec;

/// A frame's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// What the stream is about; comes again and again.
    Hello(Hello),
    /// Records of one CPU.
    Records {
        /// What was sent and lost before these.
        before: Total,
        /// The records' words, to be decoded.
        records: Vec<[u64; WORDS]>,
    },
    /// What an address stands for.
    Site {
        /// The address.
        address: u64,
        /// Source file.
        file: String,
        /// Line in it.
        line: u32,
    },
    /// One interruption of an isolated CPU.
    Interruption(Interruption),
    /// What was sent and lost in all; the stream ends.
    End(Vec<Total>),
    /// A task's name.
    Task {
        /// The task.
        id: u32,
        /// Its name, zero-padded.
        comm: [u8; 16],
    },
}

/// Why a frame that arrived whole has no meaning here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadPayload {
    /// Of another version of the format.
    Version(u8),
    /// No kind has this number.
    Kind(u8),
    /// The payload does not fit its kind (of this number).
    Content(u8),
}

/// What the decoder found next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// A frame.
    Frame(Frame),
    /// So many bytes belong to no frame.
    Skipped(u64),
    /// Sync bytes and a length, but the wrong checksum. Its bytes are counted by [`Item::Skipped`].
    BadCrc,
    /// So many frames are missing before the next.
    Missing(u32),
    /// A frame that was there already, by its number; dropped.
    Repeated(u32),
    /// The numbers begin anew: the kernel was booted again.
    Restart,
    /// A whole frame without meaning.
    Bad(BadPayload),
}

/// The state between two pushes.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where in `bytes` the search stands; what is before it has been given.
    at: usize,
    /// Skipped and not told yet.
    skipped: u64,
    next_seq: u32,
    /// No more bytes will come.
    ended: bool,
    /// A frame whose gap has been told first.
    held: Option<Item>,
    hello: Option<Hello>,
}

/// What is at the front of the buffer.
enum Front {
    /// A frame of this many bytes.
    Whole(usize),
    /// Perhaps a frame, but more bytes are needed.
    Partial,
    /// No frame.
    No,
    /// No frame: the checksum is wrong.
    Broken,
}

impl Decoder {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the line. Call [`next`](Self::next) until it gives none.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// No more bytes will come: what is there of a last frame is skipped.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next thing found; `None`: nothing more in what was pushed.
    #[allow(clippy::should_implement_trait)] // An iterator would borrow the decoder between pushes.
    pub fn next(&mut self) -> Option<Item> {
        if let Some(item) = self.held.take() {
            return Some(item);
        }
        loop {
            match self.front() {
                Front::Whole(_) | Front::Broken if self.skipped > 0 => return self.skipped_item(),
                Front::Whole(len) => {
                    let start = self.at;
                    self.at += len;
                    return Some(self.frame(start, len));
                }
                Front::Partial if !self.ended => return self.skipped_item(),
                Front::Partial | Front::No => self.skip(),
                Front::Broken => {
                    if cfg!(mutant = "frame_trusts_length") {
                        let len = usize::from(u16::from_le_bytes([self.bytes[self.at + 4], self.bytes[self.at + 5]]));
                        self.at += len;
                        self.skipped += len as u64;
                    }
                    self.skip();
                    return Some(Item::BadCrc);
                }
            }
            if self.at == self.bytes.len() {
                return self.skipped_item();
            }
        }
    }

    fn skipped_item(&mut self) -> Option<Item> {
        let skipped = core::mem::take(&mut self.skipped);
        (skipped > 0).then_some(Item::Skipped(skipped))
    }

    /// Goes on at the next byte that may begin a frame.
    fn skip(&mut self) {
        let rest = &self.bytes[self.at..];
        let step = rest.iter().skip(1).position(|&byte| byte == SYNC[0]).map_or(rest.len(), |i| i + 1);
        self.at += step;
        self.skipped += step as u64;
    }

    fn front(&self) -> Front {
        let rest = &self.bytes[self.at..];
        let seen = rest.len().min(SYNC.len());
        if rest[..seen] != SYNC[..seen] {
            return Front::No;
        }
        let Some(len) = rest.get(4..6).map(|len| usize::from(u16::from_le_bytes([len[0], len[1]]))) else {
            return Front::Partial;
        };
        if len > MAX_PAYLOAD {
            return Front::No;
        }
        let Some(crc) = rest.get(HEAD_LEN + len..OVERHEAD + len) else { return Front::Partial };
        if CRC.checksum(&rest[SYNC.len()..HEAD_LEN + len]).to_le_bytes() == *crc {
            Front::Whole(OVERHEAD + len)
        } else {
            Front::Broken
        }
    }

    /// The whole frame at `start`, or what has to be said before it.
    fn frame(&mut self, start: usize, len: usize) -> Item {
        let bytes = &self.bytes[start..start + len];
        let (kind, version) = (bytes[6], bytes[7]);
        let seq = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let content = if version != VERSION {
            Err(BadPayload::Version(version))
        } else if let Some(known) = Kind::ALL.get(usize::from(kind)) {
            Frame::of(*known, &bytes[HEAD_LEN..len - 4]).ok_or(BadPayload::Content(kind))
        } else {
            Err(BadPayload::Kind(kind))
        };
        let before = self.before(seq, &content);
        if let Some(Item::Repeated(_)) = before {
            return Item::Repeated(seq);
        }
        self.next_seq = seq.wrapping_add(1);
        if let Ok(Frame::Hello(hello)) = &content {
            self.hello = Some(*hello);
        }
        let item = content.map_or_else(Item::Bad, Item::Frame);
        match before {
            Some(before) => {
                self.held = Some(item);
                before
            }
            None => item,
        }
    }

    /// What the number says about frames before this one.
    fn before(&self, seq: u32, content: &Result<Frame, BadPayload>) -> Option<Item> {
        let ahead = seq.wrapping_sub(self.next_seq);
        let other_boot = match (content, &self.hello) {
            (Ok(Frame::Hello(now)), Some(known)) => now.clock.boot_tsc != known.clock.boot_tsc && seq == 0,
            _ => false,
        };
        match ahead {
            0 => None,
            _ if other_boot => Some(Item::Restart),
            _ if ahead > u32::MAX / 2 => Some(Item::Repeated(seq)),
            _ => Some(Item::Missing(ahead)),
        }
    }
}

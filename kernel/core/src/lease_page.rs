//! The page by which a lease tells about itself: the kernel writes it, programs read it without a system call.
//!
//! Writer: the leased CPU in the kernel, interrupts off, never nested in itself. Readers: anyone, user mode too. Invariants:
//! 1. The sequence is odd while words are written; a reader that found it even and the same before and after has what was
//!    published at once.
//! 2. Each word alone is always whole: who wants one number reads that, without the sequence.
//!
//! ```text
//! byte  0  sequence                       byte  72  TSC of the last breach
//!       8  state 31..0, CPU 63..32              80  its kind 31..0, the sender's CPU 63..32 (0xffffffff: none)
//!      16  number of the lease                  88  the sender's task 31..0, terms 63..32
//!      24  holder's thread 31..0, end 63..32    96  the sender's name, 16 bytes, zero-padded
//!      32  TSC when it was granted             112  name of the kind, 16 bytes, zero-padded
//!      40  TSC when it ended, 0 before
//!      48  kernel entries since it was granted, nested interrupts too
//!      56  of them the program's own
//!      64  breaches
//! ```

use crate::atomics::{AtomicU64, Ordering, fence};
use crate::lease::{EndCause, EntryKind, State, Terms};

/// Words behind the sequence.
pub const WORDS: usize = 15;

/// Bytes from the start of the page, for programs in other languages.
pub mod offset {
    #![allow(missing_docs, reason = "the table of the file")]
    pub const SEQUENCE: usize = 0;
    pub const STATE: usize = 8;
    pub const CPU: usize = 12;
    pub const NUMBER: usize = 16;
    pub const HOLDER: usize = 24;
    pub const END: usize = 28;
    pub const GRANTED_TSC: usize = 32;
    pub const ENDED_TSC: usize = 40;
    pub const ENTRIES: usize = 48;
    pub const OWN_ENTRIES: usize = 56;
    pub const BREACHES: usize = 64;
    pub const LAST_TSC: usize = 72;
    pub const LAST_KIND: usize = 80;
    pub const LAST_SENDER_CPU: usize = 84;
    pub const LAST_SENDER_TASK: usize = 88;
    pub const TERMS: usize = 92;
    pub const LAST_SENDER_COMM: usize = 96;
    pub const LAST_KIND_NAME: usize = 112;
}

/// Words under a sequence count. `repr(C)`: the sequence is first.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct SeqPage<const N: usize> {
    sequence: AtomicU64,
    words: [AtomicU64; N],
}

/// What is at the start of a lease's page.
pub type LeasePage = SeqPage<WORDS>;

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<LeasePage>() == 128);
    assert!(core::mem::offset_of!(LeasePage, sequence) == offset::SEQUENCE);
    assert!(core::mem::offset_of!(LeasePage, words) == offset::STATE);
    assert!(offset::BREACHES == offset::STATE + 8 * BREACHES && offset::ENTRIES == offset::STATE + 8 * ENTRIES);
    assert!(offset::LAST_KIND_NAME + 16 == size_of::<LeasePage>());
};

const ENTRIES: usize = 5;
const BREACHES: usize = 7;

impl<const N: usize> SeqPage<N> {
    /// Zeros.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { sequence: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; N] }
    }

    /// Zeros.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { sequence: AtomicU64::new(0), words: core::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Publishes all words at once. The one writer.
    pub fn publish(&self, words: [u64; N]) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before + 1, Ordering::Relaxed);
        // Who sees one of the words sees that they are being written.
        #[cfg(not(mutant = "lease_mark_fence_dropped"))]
        fence(Ordering::Release);
        for (slot, word) in self.words.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
        self.sequence.store(before + 2, Ordering::Release);
    }

    /// All words as they were published; `None` while they are being written: look again.
    pub fn read(&self) -> Option<[u64; N]> {
        let before = self.sequence.load(Ordering::Acquire);
        if before & 1 != 0 {
            return None;
        }
        let words = core::array::from_fn(|i| self.words[i].load(Ordering::Relaxed));
        #[cfg(not(mutant = "lease_read_fence_dropped"))]
        fence(Ordering::Acquire);
        let after = self.sequence.load(Ordering::Relaxed);
        (before == after || cfg!(mutant = "lease_no_recheck")).then_some(words)
    }
}

impl LeasePage {
    /// Breaches so far: one load.
    #[inline]
    pub fn breaches(&self) -> u64 {
        self.words[BREACHES].load(Ordering::Acquire)
    }

    /// Kernel entries so far: one load.
    #[inline]
    pub fn entries(&self) -> u64 {
        self.words[ENTRIES].load(Ordering::Acquire)
    }
}

#[cfg(not(loom))]
impl<const N: usize> Default for SeqPage<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// What the page says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contents {
    /// Where the lease stands.
    pub state: State,
    /// The leased CPU.
    pub cpu: u32,
    /// Leases of this CPU are numbered from 1.
    pub number: u64,
    /// Thread id of the holder.
    pub holder: u32,
    /// Why it ended.
    pub end: Option<EndCause>,
    /// When it was granted.
    pub granted_tsc: u64,
    /// When it ended; 0 before.
    pub ended_tsc: u64,
    /// Kernel entries since it was granted.
    pub entries: u64,
    /// Of them system calls and exceptions.
    pub own_entries: u64,
    /// Entries that broke the lease.
    pub breaches: u64,
    /// The last breach.
    pub last: Option<Last>,
    /// What was asked for.
    pub terms: Terms,
}

/// The last breach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Last {
    /// When.
    pub tsc: u64,
    /// By what.
    pub kind: EntryKind,
    /// Who sent it, if somebody is known: CPU, task, name.
    pub sender: Option<(u32, u32, [u8; 16])>,
}

const NO_CPU: u32 = u32::MAX;

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let all = u128::from_le_bytes(bytes);
    [all as u64, (all >> 64) as u64]
}

impl Contents {
    /// The words to publish.
    pub fn encode(&self) -> [u64; WORDS] {
        let mut name = [0; 16];
        let (mut last_tsc, mut kind, mut sender) = (0, 0, None);
        if let Some(last) = &self.last {
            (last_tsc, kind, sender) = (last.tsc, last.kind.code() as u32, last.sender);
            let text = last.kind.name().as_bytes();
            name[..text.len()].copy_from_slice(text);
        }
        let (cpu, task, comm) = sender.unwrap_or((NO_CPU, 0, [0; 16]));
        let ([comm_low, comm_high], [name_low, name_high]) = (halves(comm), halves(name));
        [
            pair(self.state as u32, self.cpu),
            self.number,
            pair(self.holder, self.end.map_or(0, |end| end as u32)),
            self.granted_tsc,
            self.ended_tsc,
            self.entries,
            self.own_entries,
            self.breaches,
            last_tsc,
            pair(kind, cpu),
            pair(task, self.terms.bits()),
            comm_low,
            comm_high,
            name_low,
            name_high,
        ]
    }

    /// What words say; `None` if no encoder wrote them.
    pub fn decode(words: &[u64; WORDS]) -> Option<Self> {
        let (low, high) = (|i: usize| words[i] as u32, |i: usize| (words[i] >> 32) as u32);
        let comm = (words[11] as u128 | (words[12] as u128) << 64).to_le_bytes();
        let sender = (high(9) != NO_CPU).then_some((high(9), low(10), comm));
        let last = match words[BREACHES] {
            0 => None,
            _ => Some(Last { tsc: words[8], kind: EntryKind::from_code(low(9) as u8)?, sender }),
        };
        Some(Self {
            state: State::from_u32(low(0))?,
            cpu: high(0),
            number: words[1],
            holder: low(2),
            end: match high(2) {
                0 => None,
                end => Some(EndCause::from_u32(end)?),
            },
            granted_tsc: words[3],
            ended_tsc: words[4],
            entries: words[ENTRIES],
            own_entries: words[6],
            breaches: words[BREACHES],
            last,
            terms: Terms::from_bits(high(10)),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::interruption::Cause;

    #[test]
    fn what_is_published_is_read() {
        let page = LeasePage::new();
        assert_eq!(page.read().and_then(|w| Contents::decode(&w)).map(|c| c.state), Some(State::Free));
        let sender = Some((0, 7, *b"noise\0\0\0\0\0\0\0\0\0\0\0"));
        let last = Last { tsc: 99, kind: EntryKind::Interrupt(Cause::CallFunction), sender };
        let contents = Contents {
            state: State::Ended,
            cpu: 3,
            number: 2,
            holder: 12,
            end: Some(EndCause::Exit),
            granted_tsc: 10,
            ended_tsc: 100,
            entries: 6,
            own_entries: 4,
            breaches: 2,
            last: Some(last),
            terms: Terms::from_bits(0x30a),
        };
        page.publish(contents.encode());
        assert_eq!(page.read().and_then(|w| Contents::decode(&w)), Some(contents));
        assert_eq!((page.breaches(), page.entries()), (2, 6));
        let word = |at: usize| page.words[(at - 8) / 8].load(Ordering::Relaxed);
        let field = |at: usize| (word(at & !7) >> (8 * (at & 4))) as u32;
        assert_eq!([offset::STATE, offset::CPU, offset::HOLDER, offset::END].map(field), [4, 3, 12, 2]);
        assert_eq!([offset::LAST_KIND, offset::LAST_SENDER_CPU].map(field), [2, 0]);
        assert_eq!([offset::LAST_SENDER_TASK, offset::TERMS].map(field), [7, 0x30a]);
        assert_eq!(word(offset::LAST_KIND_NAME).to_le_bytes(), *b"call_fun");
        assert_eq!(word(offset::LAST_SENDER_COMM).to_le_bytes(), *b"noise\0\0\0");
        assert_eq!([offset::ENTRIES, offset::OWN_ENTRIES, offset::LAST_TSC].map(word), [6, 4, 99]);
        assert_eq!([offset::NUMBER, offset::GRANTED_TSC, offset::ENDED_TSC].map(word), [2, 10, 100]);
    }
}

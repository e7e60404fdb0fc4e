//! Restartable sequences: what becomes of a thread that is about to go on in user mode, after something that such a sequence must not survive.
//!
//! Source: rseq(2); Linux include/uapi/linux/rseq.h.

/// Bytes of the area that a thread registers, and its alignment.
pub const AREA_LEN: u64 = 32;
/// Offsets in the area.
pub mod area {
    /// The CPU, or 0 while nothing is registered.
    pub const CPU_ID_START: u64 = 0;
    /// The CPU, or one of the values below 0.
    pub const CPU_ID: u64 = 4;
    /// Address of the descriptor of the sequence that the thread is in, or 0.
    pub const SEQUENCE: u64 = 8;
    /// The node.
    pub const NODE_ID: u64 = 20;
    /// A number that no other running thread of the address space has.
    pub const MM_CID: u64 = 24;
    /// Behind the last of them.
    pub const END: u64 = 28;
}
/// `CPU_ID` of an area that is not registered.
pub const UNINITIALIZED: u32 = u32::MAX;
/// A descriptor as words: version and flags, start, length, where to go on after an abort.
pub const DESCRIPTOR_WORDS: usize = 4;
/// Bytes of the signature.
const SIGNATURE_LEN: u64 = 4;

/// A sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sequence {
    start: u64,
    len: u64,
    abort: u64,
}

/// What follows for a thread that has a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is outside: the descriptor's address is cleared.
    Outside,
    /// It is inside: the address is cleared, and it goes on here.
    Abort(u64),
}

impl Sequence {
    /// The sequence of a descriptor. `None`: no kernel knows this version or these flags, or it lies not in user memory (below `user_end`), or
    /// goes on inside of itself after an abort. The program gets SIGSEGV.
    pub fn decode(words: &[u64; DESCRIPTOR_WORDS], user_end: u64) -> Option<Sequence> {
        let [version_and_flags, start, len, abort] = *words;
        let end = start.checked_add(len)?;
        let in_user_memory = start < user_end && end <= user_end && (SIGNATURE_LEN..user_end).contains(&abort);
        let goes_on_inside = abort.wrapping_sub(start) < len;
        (version_and_flags == 0 && in_user_memory && !goes_on_inside).then_some(Sequence { start, len, abort })
    }

    /// Where its signature stands: in front of the place where it goes on after an abort.
    pub fn signature_at(&self) -> u64 {
        self.abort - SIGNATURE_LEN
    }

    /// What follows for a thread that goes on at `ip`.
    pub fn verdict(&self, ip: u64) -> Verdict {
        if ip.wrapping_sub(self.start) < self.len { Verdict::Abort(self.abort) } else { Verdict::Outside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u64 = 1 << 47;

    #[test]
    fn inside_is_from_the_start_to_before_the_end() {
        let Some(sequence) = Sequence::decode(&[0, 100, 20, 200], END) else { panic!("refused") };
        for (ip, verdict) in
            [(99, Verdict::Outside), (100, Verdict::Abort(200)), (119, Verdict::Abort(200)), (120, Verdict::Outside)]
        {
            assert_eq!(sequence.verdict(ip), verdict, "{ip}");
        }
    }

    #[test]
    fn malformed_ones_are_refused() {
        for words in [
            [1, 100, 20, 200],       // a version
            [1 << 32, 100, 20, 200], // a flag
            [0, 100, u64::MAX, 200], // beyond all memory
            [0, END - 10, 11, 200],  // beyond user memory
            [0, 100, 20, END],       // goes on in the kernel
            [0, 100, 20, 3],         // no place for the signature
            [0, 100, 20, 100],       // for ever
            [0, 100, 20, 119],
        ] {
            assert_eq!(Sequence::decode(&words, END), None, "{words:?}");
        }
        assert!(Sequence::decode(&[0, 100, 20, 120], END).is_some());
    }
}

//! Static keys: the jump table's entries and which five bytes a site gets.
//!
//! Called by the kernel's text patcher, which alone writes code. Invariants: a site is five bytes, either the
//! NOP or a jump to the entry's target; nothing is planned for a site that holds anything else.
//! Encodings: Intel SDM volume 2, "NOP" (recommended multi-byte sequences) and "JMP" (E9 cd).

/// The site of a disabled key: `nop dword ptr [rax + rax + 0]`.
pub const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// First byte of the jump of an enabled key.
pub const JMP32: u8 = 0xe9;
/// Bytes of a site.
pub const SITE_LEN: usize = 5;
/// Bytes of an entry in section `__jump_table`.
pub const ENTRY_LEN: usize = 24;

/// One site, as section `__jump_table` has it: three absolute 8-byte words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct JumpEntry {
    /// Address of the site.
    pub code: u64,
    /// Where the jump goes when the key is on.
    pub target: u64,
    /// Address of the key.
    pub key: u64,
}

/// Why a site cannot be patched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchError {
    /// The target is out of reach of a 32-bit displacement.
    OutOfRange {
        /// The site.
        code: u64,
        /// The target.
        target: u64,
    },
    /// The site holds neither the NOP nor its jump.
    UnexpectedBytes {
        /// The site.
        code: u64,
        /// What is there.
        found: [u8; 5],
        /// What should be there.
        expected: [u8; 5],
    },
    /// The table's size is no multiple of an entry.
    TableSize(usize),
}

impl core::fmt::Display for PatchError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PatchError::OutOfRange { code, target } => {
                write!(f, "static key site {code:#x}: target {target:#x} is out of reach of a 32-bit jump")
            }
            PatchError::UnexpectedBytes { code, found, expected } => {
                write!(f, "static key site {code:#x}: holds {found:02x?}, expected {expected:02x?}")
            }
            PatchError::TableSize(len) => write!(f, "jump table of {len} bytes is no multiple of {ENTRY_LEN}"),
        }
    }
}

impl JumpEntry {
    /// The entry of 24 bytes of the section.
    pub const fn from_words(words: [u64; 3]) -> Self {
        JumpEntry { code: words[0], target: words[1], key: words[2] }
    }
}

/// The entries of a whole section.
pub fn entries(table: &[u8]) -> Result<impl Iterator<Item = JumpEntry> + '_, PatchError> {
    if !table.len().is_multiple_of(ENTRY_LEN) {
        return Err(PatchError::TableSize(table.len()));
    }
    Ok(table.chunks_exact(ENTRY_LEN).map(|entry| {
        let mut words = [0; 3];
        for (word, bytes) in words.iter_mut().zip(entry.chunks_exact(8)) {
            let mut le = [0; 8];
            le.copy_from_slice(bytes);
            *word = u64::from_le_bytes(le);
        }
        JumpEntry::from_words(words)
    }))
}

/// The bytes of a site for a key that is on or off.
pub fn nop_or_jmp(entry: &JumpEntry, enabled: bool) -> Result<[u8; 5], PatchError> {
    if !enabled {
        return Ok(NOP5);
    }
    let next = entry.code.wrapping_add(SITE_LEN as u64);
    let displacement = entry.target.wrapping_sub(next) as i64;
    let Ok(rel32) = i32::try_from(displacement) else {
        return Err(PatchError::OutOfRange { code: entry.code, target: entry.target });
    };
    let [a, b, c, d] = rel32.to_le_bytes();
    Ok([JMP32, a, b, c, d])
}

/// Whether a site that holds `current` reads as on; `None` if it holds neither form.
pub fn state(entry: &JumpEntry, current: &[u8; 5]) -> Option<bool> {
    [false, true].into_iter().find(|&on| nop_or_jmp(entry, on).as_ref() == Ok(current))
}

/// The bytes to write at a site that holds `current` so that the key reads `enable`. A site that is there
/// already gives its own bytes; one that holds neither form is refused.
pub fn plan(entry: &JumpEntry, current: &[u8; 5], enable: bool) -> Result<[u8; 5], PatchError> {
    let new = nop_or_jmp(entry, enable)?;
    let old = nop_or_jmp(entry, !enable)?;
    if *current == old || *current == new || cfg!(mutant = "plan_trusts_old_bytes") {
        Ok(new)
    } else {
        Err(PatchError::UnexpectedBytes { code: entry.code, found: *current, expected: old })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_forward_and_back() {
        let entry = JumpEntry { code: 0xffff_ffff_8000_1000, target: 0xffff_ffff_8000_0ffb, key: 0 };
        assert_eq!(nop_or_jmp(&entry, true), Ok([0xe9, 0xf6, 0xff, 0xff, 0xff]));
        assert_eq!(plan(&entry, &NOP5, true), nop_or_jmp(&entry, true));
        assert_eq!((state(&entry, &NOP5), state(&entry, &[0xe9, 0xf6, 0xff, 0xff, 0xff])), (Some(false), Some(true)));
        assert_eq!(state(&entry, &[0xe9, 0, 0, 0, 0]), None);
        let error = plan(&entry, &[0xcc, 0x1f, 0x44, 0, 0], true).expect_err("int3 is there");
        assert!(error.to_string().contains("0xffffffff80001000"));
        let far = JumpEntry { target: 0xffff_8000_0000_0000, ..entry };
        assert!(matches!(nop_or_jmp(&far, true), Err(PatchError::OutOfRange { .. })));
    }
}

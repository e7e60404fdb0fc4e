//! The stack of a new program: strings, auxiliary vector, environment, arguments, their count.
//!
//! Source: System V ABI, AMD64 supplement, "Initial Stack and Register State"; Linux include/uapi/linux/auxvec.h.

use crate::errno::{E2BIG, ENOMEM, Errno};
use crate::mm::address_space::{AddressSpace, FaultError};
use crate::mm::failure;
use alloc::vec::Vec;
use kcore::restartable::{AREA_LEN, area};

/// Strings, each with its NUL, one after the other.
#[derive(Clone, Default)]
pub struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

/// Longest string (Linux's MAX_ARG_STRLEN).
pub const STRING_MAX: usize = 128 << 10;
/// All strings and pointers together: a quarter of the stack's limit, as in Linux.
const TOTAL_MAX: usize = 2 << 20;

impl Strings {
    /// None.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), count: 0 }
    }

    /// One more.
    pub fn push(&mut self, string: &[u8]) -> Result<(), Errno> {
        if string.len() >= STRING_MAX || self.bytes.len() + string.len() + 1 + self.count * 8 > TOTAL_MAX {
            return Err(E2BIG);
        }
        if failure::strikes() {
            return Err(ENOMEM);
        }
        self.bytes.try_reserve(string.len() + 1).map_err(|_| ENOMEM)?;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.count += 1;
        Ok(())
    }

    /// One more, at the front.
    pub fn push_front(&mut self, string: &[u8]) -> Result<(), Errno> {
        let mut all = Strings::new();
        all.push(string)?;
        self.iter().try_for_each(|s| all.push(s))?;
        *self = all;
        Ok(())
    }

    /// Without the first.
    pub fn remove_first(&mut self) {
        if let Some(end) = self.bytes.iter().position(|&b| b == 0) {
            self.bytes.drain(..=end);
            self.count -= 1;
        }
    }

    /// Each, without its NUL.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split(|&b| b == 0).take(self.count)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// All bytes, for /proc/PID/cmdline.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What the auxiliary vector says about the program.
pub struct Program {
    /// Address of its program headers; 0 if they are not in memory.
    pub phdr: u64,
    /// Size of one
    pub phent: u64,
    /// Number
    pub phnum: u64,
    /// First instruction
    pub entry: u64,
    /// What was added to its interpreter's addresses; 0 without one.
    pub interpreter: u64,
    /// Address of the vDSO.
    pub vdso: u64,
}

/// Types of auxiliary entries.
mod auxiliary {
    pub const NULL: u64 = 0;
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const RSEQ_FEATURE_SIZE: u64 = 27;
    pub const RSEQ_ALIGN: u64 = 28;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// Write the stack below `top`, which is mapped; returns the stack pointer.
pub fn build(
    space: &AddressSpace,
    top: u64,
    name: &[u8],
    args: &Strings,
    env: &Strings,
    program: &Program,
) -> Result<u64, Errno> {
    use auxiliary as a;
    let mut strings: Vec<u8> = Vec::new();
    let total = args.bytes().len() + env.bytes().len() + name.len() + 64;
    if failure::strikes() {
        return Err(ENOMEM);
    }
    strings.try_reserve_exact(total).map_err(|_| ENOMEM)?;
    strings.extend_from_slice(args.bytes());
    strings.extend_from_slice(env.bytes());
    let name_at = strings.len();
    strings.extend_from_slice(name);
    strings.push(0);
    let platform_at = strings.len();
    strings.extend_from_slice(b"x86_64\0");
    let random_at = strings.len();
    let mut random = [0; 16];
    super::random::fill(&mut random);
    strings.extend_from_slice(&random);
    strings.extend_from_slice(&[0; 8]);
    let base = (top - strings.len() as u64) & !15;

    let hardware = core::arch::x86_64::__cpuid(1).edx as u64;
    let mut pairs: Vec<(u64, u64)> = Vec::new();
    pairs.extend_from_slice(&[
        (a::SYSINFO_EHDR, program.vdso),
        (a::MINSIGSTKSZ, crate::arch::fpu::frame_size() as u64 + 1024),
        (a::HWCAP, hardware),
        (a::PAGESZ, 4096),
        (a::CLKTCK, 100),
        (a::PHDR, program.phdr),
        (a::PHENT, program.phent),
        (a::PHNUM, program.phnum),
        (a::BASE, program.interpreter),
        (a::FLAGS, 0),
        (a::ENTRY, program.entry),
        (a::UID, 0),
        (a::EUID, 0),
        (a::GID, 0),
        (a::EGID, 0),
        (a::SECURE, 0),
        (a::RANDOM, base + random_at as u64),
        (a::HWCAP2, 2), // FSGSBASE may be used
        (a::RSEQ_FEATURE_SIZE, area::END),
        (a::RSEQ_ALIGN, AREA_LEN),
        (a::EXECFN, base + name_at as u64),
        (a::PLATFORM, base + platform_at as u64),
        (a::NULL, 0),
    ]);
    let words = 1 + args.len() + 1 + env.len() + 1 + pairs.len() * 2;
    let sp = (base - words as u64 * 8) & !15;
    let mut out: Vec<u8> = Vec::new();
    if failure::strikes() {
        return Err(ENOMEM);
    }
    out.try_reserve_exact((base - sp) as usize + strings.len()).map_err(|_| ENOMEM)?;
    let put = |out: &mut Vec<u8>, word: u64| out.extend_from_slice(&word.to_le_bytes());
    put(&mut out, args.len() as u64);
    let mut at = base;
    for list in [args, env] {
        for string in list.iter() {
            put(&mut out, at);
            at += string.len() as u64 + 1;
        }
        put(&mut out, 0);
    }
    for (kind, value) in pairs {
        put(&mut out, kind);
        put(&mut out, value);
    }
    out.resize((base - sp) as usize, 0);
    out.extend_from_slice(&strings);
    space.write(sp, &out).map_err(|e| if e == FaultError::NoMemory { ENOMEM } else { E2BIG })?;
    Ok(sp)
}

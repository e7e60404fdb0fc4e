//! Decides how an x86_64 ELF file is loaded, and finds sections by name. Field access by the crate `elf`.
//!
//! Callers: the loader ([`plan_kernel`]), exec ([`plan_user`]), host checks and the kernel ([`section`]).
//! Nothing is mapped or copied here. Invariants: no input panics; in a plan every segment lies within the file
//! and within one half of the address space, no two share a byte, and the entry is in an executable one.
//! Source: System V ABI, "Program Header"; System V ABI AMD64 supplement; Linux fs/binfmt_elf.c for what is lenient.

#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;
use core::fmt;
use core::ops::Range;
use elf::abi;
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader};
use elf::parse::{ParseAt, ParseError, ParsingTable};
use elf::section::{SectionHeader, SectionHeaderTable};
use elf::segment::{ProgramHeader, SegmentTable};
use elf::string_table::StringTable;

/// Page size in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// The end of user space: the last page below 2^47 is never mappable.
pub const USER_END: u64 = 0x7fff_ffff_f000;
/// The start of the kernel's half.
pub const KERNEL_START: u64 = 0xffff_8000_0000_0000;
/// The most loadable segments in one file.
pub const MAX_SEGMENTS: usize = 16;

const EHDR_LEN: usize = 64;
const PHDR_LEN: u16 = 56;
const SHDR_LEN: u16 = 64;

/// How a file's addresses are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// ET_EXEC: addresses are final.
    Static,
    /// ET_DYN: addresses are offsets from a base that the loader chooses, a multiple of [`LoadPlan::align`].
    Pie,
}

/// One PT_LOAD with memory. Two segments may share a page, never a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address of the first byte; equal to `file_offset` modulo [`PAGE_SIZE`] where `filesz` > 0.
    pub vaddr: u64,
    /// Bytes in memory; what lies beyond `filesz` is zero.
    pub memsz: u64,
    /// Where the bytes start in the file.
    pub file_offset: u64,
    /// Bytes from the file, at most `memsz`.
    pub filesz: u64,
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
    /// Executable.
    pub exec: bool,
}

impl Segment {
    /// One byte past the last.
    pub const fn end(&self) -> u64 {
        self.vaddr + self.memsz
    }
}

/// PT_TLS: the template of thread-local storage. Only its alignment is checked; the program uses it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Address of the template.
    pub vaddr: u64,
    /// Bytes of the template.
    pub filesz: u64,
    /// Bytes of a thread's copy.
    pub memsz: u64,
    /// Alignment of a thread's copy.
    pub align: u64,
}

/// How to load a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// First instruction. For [`Kind::Pie`] an offset from the base, like every address here.
    pub entry: u64,
    /// Whether addresses are final.
    pub kind: Kind,
    /// What to map, in the file's order.
    pub segments: ArrayVec<Segment, MAX_SEGMENTS>,
    /// Address of the program headers in memory (AT_PHDR), if a segment has them.
    pub phdr_vaddr: Option<u64>,
    /// Number of program headers (AT_PHNUM).
    pub phnum: u16,
    /// Size of a program header (AT_PHENT).
    pub phentsize: u16,
    /// Where the interpreter's path is in the file, without its NUL. Static programs have none.
    pub interp: Option<Range<usize>>,
    /// The program asks for an executable stack.
    pub stack_exec: bool,
    /// Thread-local storage.
    pub tls: Option<Tls>,
    /// The largest alignment of a segment; a power of two, at least [`PAGE_SIZE`].
    pub align: u64,
}

impl LoadPlan {
    /// The lowest page and the end of the highest page that the segments touch.
    pub fn span(&self) -> Range<u64> {
        let start = self.segments.iter().map(|s| s.vaddr).min().unwrap_or(0) & !(PAGE_SIZE - 1);
        let last = self.segments.iter().map(|s| s.vaddr + (s.memsz - 1)).max().unwrap_or(0);
        start..(last & !(PAGE_SIZE - 1)).saturating_add(PAGE_SIZE)
    }
}

/// A section of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Address in memory, 0 for a section that is not loaded.
    pub vaddr: u64,
    /// Size in memory.
    pub size: u64,
    /// Where it is in the file.
    pub file_offset: u64,
    /// `SHF_*` flags.
    pub flags: u64,
    /// `SHT_*` type.
    pub kind: u32,
    /// The bytes; empty for SHT_NOBITS.
    pub data: &'a [u8],
}

/// Why a file cannot be loaded. Each prints as one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// Does not start with the ELF magic.
    NotElf,
    /// The file ends before the named part does.
    Truncated(&'static str),
    /// ELFCLASS32.
    ThirtyTwoBit,
    /// Neither 64-bit little-endian nor version 1.
    BadIdent,
    /// For another processor (`e_machine`).
    OtherMachine(u16),
    /// Neither ET_EXEC nor ET_DYN (`e_type`).
    NotExecutable(u16),
    /// Program or section headers have another size than 64-bit ELF has.
    BadHeaderSize {
        /// Whose size.
        what: &'static str,
        /// The size that the file says.
        size: u16,
    },
    /// No segment to load.
    NoSegments,
    /// More than [`MAX_SEGMENTS`] segments to load.
    TooManySegments,
    /// The segment's bytes lie outside the file.
    OutsideFile {
        /// Number of the program header.
        index: u16,
    },
    /// The segment has more bytes in the file than in memory.
    FileszAboveMemsz {
        /// Number of the program header.
        index: u16,
    },
    /// File offset and address differ modulo the page size.
    Misaligned {
        /// Number of the program header.
        index: u16,
    },
    /// `p_align` is neither 0 nor a power of two.
    BadAlign {
        /// Number of the program header.
        index: u16,
    },
    /// Address plus size runs past 2^64.
    AddressOverflow {
        /// Number of the program header.
        index: u16,
    },
    /// An address in the hole between the two halves.
    NonCanonical {
        /// Number of the program header.
        index: u16,
    },
    /// A program's segment lies above user space, or a kernel's below the kernel's half.
    WrongHalf {
        /// Number of the program header.
        index: u16,
    },
    /// Two segments share bytes.
    Overlap {
        /// Number of the first one among the loaded segments.
        first: u16,
        /// Number of the other one.
        second: u16,
    },
    /// The entry point is in no executable segment.
    BadEntry(u64),
    /// The interpreter's path is empty, longer than a path may be, or without its NUL.
    BadInterp,
    /// The section headers or their names cannot be read.
    BadSections,
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotElf => write!(f, "not an ELF file"),
            Self::Truncated(what) => write!(f, "ELF file truncated: {what} incomplete"),
            Self::ThirtyTwoBit => write!(f, "32-bit ELF file, 64-bit needed"),
            Self::BadIdent => write!(f, "ELF file is not 64-bit little-endian version 1"),
            Self::OtherMachine(machine) => write!(f, "ELF file for machine {machine}, x86_64 (62) needed"),
            Self::NotExecutable(kind) => write!(f, "ELF file of type {kind} is no program (2 or 3 needed)"),
            Self::BadHeaderSize { what, size } => write!(f, "ELF file: {what} header size {size} is wrong"),
            Self::NoSegments => write!(f, "ELF file has no segment to load"),
            Self::TooManySegments => write!(f, "ELF file has more than {MAX_SEGMENTS} segments to load"),
            Self::OutsideFile { index } => write!(f, "ELF program header {index}: bytes lie outside the file"),
            Self::FileszAboveMemsz { index } => {
                write!(f, "ELF program header {index}: more bytes in the file than in memory")
            }
            Self::Misaligned { index } => {
                write!(f, "ELF program header {index}: file offset and address differ within the page")
            }
            Self::BadAlign { index } => write!(f, "ELF program header {index}: alignment is no power of two"),
            Self::AddressOverflow { index } => write!(f, "ELF program header {index}: address plus size overflows"),
            Self::NonCanonical { index } => write!(f, "ELF program header {index}: address is not canonical"),
            Self::WrongHalf { index } => {
                write!(f, "ELF program header {index}: address in the wrong half of the address space")
            }
            Self::Overlap { first, second } => write!(f, "ELF segments {first} and {second} overlap"),
            Self::BadEntry(entry) => write!(f, "ELF entry point {entry:#x} is in no executable segment"),
            Self::BadInterp => write!(f, "ELF interpreter path is broken"),
            Self::BadSections => write!(f, "ELF section headers are broken"),
        }
    }
}

/// Where a file's segments may lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Either,
    User,
    Kernel,
}

/// The plan for a file in either half of the address space, wholly in one of them.
pub fn plan(file: &[u8]) -> Result<LoadPlan, ElfError> {
    plan_in(file, Half::Either)
}

/// The plan for a program: segments below [`USER_END`].
pub fn plan_user(file: &[u8]) -> Result<LoadPlan, ElfError> {
    plan_in(file, Half::User)
}

/// The plan for a kernel: segments from [`KERNEL_START`] up.
pub fn plan_kernel(file: &[u8]) -> Result<LoadPlan, ElfError> {
    plan_in(file, Half::Kernel)
}

fn header(file: &[u8]) -> Result<FileHeader<LittleEndian>, ElfError> {
    if !file.starts_with(&abi::ELFMAGIC) {
        return Err(ElfError::NotElf);
    }
    let (Some(ident), Some(tail)) = (file.get(..abi::EI_NIDENT), file.get(abi::EI_NIDENT..EHDR_LEN)) else {
        return Err(ElfError::Truncated("file header"));
    };
    let ident = elf::file::parse_ident::<LittleEndian>(ident).map_err(|_| ElfError::BadIdent)?;
    if ident.1 == Class::ELF32 {
        return Err(ElfError::ThirtyTwoBit);
    }
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| ElfError::Truncated("file header"))?;
    if header.e_machine != abi::EM_X86_64 {
        return Err(ElfError::OtherMachine(header.e_machine));
    }
    Ok(header)
}

/// The `count` records of `size` bytes at `offset`, or an error that names them.
fn table<'a, P: ParseAt>(
    file: &'a [u8],
    offset: u64,
    count: usize,
    size: u16,
    what: &'static str,
) -> Result<ParsingTable<'a, LittleEndian, P>, ElfError> {
    let bytes = file_range(file, offset, count as u64 * u64::from(size)).ok_or(ElfError::Truncated(what))?;
    Ok(ParsingTable::new(LittleEndian, Class::ELF64, &file[bytes]))
}

fn file_range(file: &[u8], offset: u64, len: u64) -> Option<Range<usize>> {
    let end = offset.checked_add(len).filter(|&end| end <= file.len() as u64)?;
    Some(offset as usize..end as usize)
}

fn plan_in(file: &[u8], half: Half) -> Result<LoadPlan, ElfError> {
    let header = header(file)?;
    let kind = match header.e_type {
        abi::ET_EXEC => Kind::Static,
        abi::ET_DYN => Kind::Pie,
        other => return Err(ElfError::NotExecutable(other)),
    };
    if header.e_phnum == 0 {
        return Err(ElfError::NoSegments);
    }
    if header.e_phentsize != PHDR_LEN {
        return Err(ElfError::BadHeaderSize { what: "program", size: header.e_phentsize });
    }
    let phdrs: SegmentTable<'_, LittleEndian> =
        table(file, header.e_phoff, usize::from(header.e_phnum), PHDR_LEN, "program headers")?;
    let mut plan = LoadPlan {
        entry: header.e_entry,
        kind,
        segments: ArrayVec::new(),
        phdr_vaddr: None,
        phnum: header.e_phnum,
        phentsize: header.e_phentsize,
        interp: None,
        stack_exec: false,
        tls: None,
        align: PAGE_SIZE,
    };
    for (index, phdr) in (0u16..).zip(phdrs.iter()) {
        match phdr.p_type {
            abi::PT_LOAD if phdr.p_memsz > 0 || phdr.p_filesz > 0 => {
                let segment = checked_segment(file, &phdr, index, half)?;
                plan.segments.try_push(segment).map_err(|_| ElfError::TooManySegments)?;
                plan.align = plan.align.max(phdr.p_align);
            }
            abi::PT_INTERP => plan.interp = Some(interp(file, &phdr)?),
            abi::PT_GNU_STACK => plan.stack_exec = phdr.p_flags & abi::PF_X != 0,
            abi::PT_TLS => {
                if phdr.p_align != 0 && !phdr.p_align.is_power_of_two() {
                    return Err(ElfError::BadAlign { index });
                }
                let (vaddr, filesz, memsz) = (phdr.p_vaddr, phdr.p_filesz, phdr.p_memsz);
                plan.tls = Some(Tls { vaddr, filesz, memsz, align: phdr.p_align.max(1) });
            }
            _ => {}
        }
    }
    whole(&plan)?;
    let table_len = u64::from(header.e_phnum) * u64::from(PHDR_LEN);
    plan.phdr_vaddr = plan.segments.iter().find_map(|s| {
        let into = header.e_phoff.checked_sub(s.file_offset)?;
        (into <= s.filesz && table_len <= s.filesz - into).then(|| s.vaddr + into)
    });
    Ok(plan)
}

fn checked_segment(file: &[u8], phdr: &ProgramHeader, index: u16, half: Half) -> Result<Segment, ElfError> {
    if phdr.p_filesz > phdr.p_memsz {
        return Err(ElfError::FileszAboveMemsz { index });
    }
    if file_range(file, phdr.p_offset, phdr.p_filesz).is_none() {
        return Err(ElfError::OutsideFile { index });
    }
    if phdr.p_align != 0 && !phdr.p_align.is_power_of_two() {
        return Err(ElfError::BadAlign { index });
    }
    let Some(end) = phdr.p_vaddr.checked_add(phdr.p_memsz) else {
        return Err(ElfError::AddressOverflow { index });
    };
    let (low, high) = (end <= 1 << 47, phdr.p_vaddr >= KERNEL_START);
    if !low && !high {
        return Err(ElfError::NonCanonical { index });
    }
    if (low && half == Half::Kernel) || (half != Half::Kernel && low && end > USER_END) || (high && half == Half::User)
    {
        return Err(ElfError::WrongHalf { index });
    }
    if phdr.p_filesz > 0 && phdr.p_offset % PAGE_SIZE != phdr.p_vaddr % PAGE_SIZE {
        return Err(ElfError::Misaligned { index });
    }
    Ok(Segment {
        vaddr: phdr.p_vaddr,
        memsz: phdr.p_memsz,
        file_offset: phdr.p_offset,
        filesz: phdr.p_filesz,
        read: phdr.p_flags & abi::PF_R != 0,
        write: phdr.p_flags & abi::PF_W != 0,
        exec: phdr.p_flags & abi::PF_X != 0,
    })
}

fn interp(file: &[u8], phdr: &ProgramHeader) -> Result<Range<usize>, ElfError> {
    let range = file_range(file, phdr.p_offset, phdr.p_filesz).ok_or(ElfError::BadInterp)?;
    match file[range.clone()].split_last() {
        Some((0, path)) if !path.is_empty() && path.len() < 4096 && !path.contains(&0) => {
            Ok(range.start..range.end - 1)
        }
        _ => Err(ElfError::BadInterp),
    }
}

/// Checks what concerns all segments together.
fn whole(plan: &LoadPlan) -> Result<(), ElfError> {
    if plan.segments.is_empty() {
        return Err(ElfError::NoSegments);
    }
    for (second, b) in (0u16..).zip(&plan.segments) {
        for (first, a) in (0u16..second).zip(&plan.segments) {
            if a.vaddr < b.end() && b.vaddr < a.end() {
                return Err(ElfError::Overlap { first, second });
            }
            if (a.vaddr < KERNEL_START) != (b.vaddr < KERNEL_START) {
                return Err(ElfError::WrongHalf { index: second });
            }
        }
    }
    if !plan.segments.iter().any(|s| s.exec && (s.vaddr..s.end()).contains(&plan.entry)) {
        return Err(ElfError::BadEntry(plan.entry));
    }
    Ok(())
}

/// The first section with this name, `None` if there is none or the file has no section headers.
pub fn section<'a>(file: &'a [u8], name: &str) -> Result<Option<Section<'a>>, ElfError> {
    let header = header(file)?;
    if header.e_shoff == 0 || header.e_shnum == 0 {
        return Ok(None);
    }
    if header.e_shentsize != SHDR_LEN {
        return Err(ElfError::BadHeaderSize { what: "section", size: header.e_shentsize });
    }
    let headers: SectionHeaderTable<'_, LittleEndian> =
        table(file, header.e_shoff, usize::from(header.e_shnum), SHDR_LEN, "section headers")?;
    let broken = |_: ParseError| ElfError::BadSections;
    let names = headers.get(usize::from(header.e_shstrndx)).map_err(broken)?;
    let names = file_range(file, names.sh_offset, names.sh_size).ok_or(ElfError::BadSections)?;
    let names = StringTable::new(&file[names]);
    for section in headers.iter() {
        let SectionHeader { sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, .. } = section;
        if names.get_raw(sh_name as usize).map_err(broken)? != name.as_bytes() {
            continue;
        }
        let data = match sh_type {
            abi::SHT_NOBITS => &[][..],
            _ => &file[file_range(file, sh_offset, sh_size).ok_or(ElfError::Truncated("section"))?],
        };
        let (vaddr, size, file_offset) = (sh_addr, sh_size, sh_offset);
        return Ok(Some(Section { vaddr, size, file_offset, flags: sh_flags, kind: sh_type, data }));
    }
    Ok(None)
}

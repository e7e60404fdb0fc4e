//! The values that the address-space map works with: rights, kinds, regions, pieces, limits, faults.
//!
//! Callers as in [`crate::vma`], which exports all of this. Invariant: a region handed out has `start < end`.

use alloc::vec::Vec;
use core::ops::Range;

/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// The end of user space: the last page below 2^47 is never mapped, so that SYSRET never sees its end.
pub const USER_END: u64 = 0x7fff_ffff_f000;
/// The lowest address that can be mapped (Linux's vm.mmap_min_addr).
pub const MMAP_MIN_ADDR: u64 = 0x1_0000;
/// Bytes kept free below a stack (Linux's stack_guard_gap).
pub const STACK_GAP: u64 = 256 * PAGE_SIZE;
/// The most regions (Linux's vm.max_map_count).
pub const MAX_REGIONS: usize = 65530;

/// Access rights; the bits of PROT_READ, PROT_WRITE, PROT_EXEC in Linux mman.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Prot(u8);

impl Prot {
    /// No access.
    pub const NONE: Self = Self(0);
    /// Reading.
    pub const R: Self = Self(1);
    /// Writing.
    pub const W: Self = Self(2);
    /// Execution.
    pub const X: Self = Self(4);
    /// Reading and writing.
    pub const RW: Self = Self(3);
    /// Reading and execution.
    pub const RX: Self = Self(5);

    /// The rights in an argument of mmap or mprotect; `None` if it has other bits.
    pub const fn from_linux(bits: u64) -> Option<Self> {
        if bits & !7 == 0 { Some(Self(bits as u8)) } else { None }
    }

    /// The bits of Linux mman.h.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The rights of both.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// May be read. As on x86 every page with any right can be read, use [`Prot::allows`] for faults.
    pub const fn read(self) -> bool {
        self.0 & 1 != 0
    }

    /// May be written.
    pub const fn write(self) -> bool {
        self.0 & 2 != 0
    }

    /// May be executed.
    pub const fn exec(self) -> bool {
        self.0 & 4 != 0
    }

    /// True if the hardware lets this access pass: x86 pages with any right are readable.
    pub const fn allows(self, access: Access) -> bool {
        match access {
            Access::Read => self.0 != 0,
            Access::Write => self.write(),
            Access::Exec => self.exec(),
        }
    }
}

/// What a region holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Private memory that starts as zeros.
    Anonymous,
    /// A private copy-on-write view of a file.
    FileBacked {
        /// The caller's number for the file.
        file: u32,
        /// Where in the file the region starts, in bytes.
        offset: u64,
    },
    /// Memory that several address spaces share.
    Shared {
        /// The caller's number for the memory object or file.
        object: u32,
        /// Where in it the region starts, in bytes.
        offset: u64,
    },
    /// A private stack, growing downwards.
    Stack,
    /// The memory that brk(2) moves.
    Heap,
    /// Pages of the kernel's: vDSO, its data. Never joined with a neighbour.
    Special {
        /// Where in the caller's special pages the region starts, in bytes.
        offset: u64,
    },
}

impl Kind {
    /// The kind of what lies `bytes` further on.
    pub const fn advanced(self, bytes: u64) -> Self {
        match self {
            Self::FileBacked { file, offset } => Self::FileBacked { file, offset: offset.wrapping_add(bytes) },
            Self::Shared { object, offset } => Self::Shared { object, offset: offset.wrapping_add(bytes) },
            Self::Special { offset } => Self::Special { offset: offset.wrapping_add(bytes) },
            same => same,
        }
    }
}

/// A mapped range of pages with one kind and one set of rights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Region {
    /// First byte; a multiple of [`PAGE_SIZE`].
    pub start: u64,
    /// One past the last byte; a multiple of [`PAGE_SIZE`].
    pub end: u64,
    /// Rights.
    pub prot: Prot,
    /// Contents.
    pub kind: Kind,
}

impl Region {
    /// A region over `range`; checked when it is mapped.
    pub const fn new(range: Range<u64>, prot: Prot, kind: Kind) -> Self {
        Self { start: range.start, end: range.end, prot, kind }
    }

    /// Bytes.
    pub const fn size(&self) -> u64 {
        self.end - self.start
    }

    /// The part within `start..end`, which overlaps the region.
    pub(super) fn cut(&self, start: u64, end: u64) -> Self {
        let (from, to) = (self.start.max(start), self.end.min(end));
        Self { start: from, end: to, prot: self.prot, kind: self.kind.advanced(from - self.start) }
    }

    pub(super) fn joins(&self, next: &Self) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && !matches!(self.kind, Kind::Special { .. })
            && self.kind.advanced(self.size()) == next.kind
    }

    /// Where the region, with the gap that a stack keeps below it, starts.
    pub(super) fn start_with_gap(&self) -> u64 {
        if self.kind == Kind::Stack { self.start.saturating_sub(STACK_GAP) } else { self.start }
    }
}

/// Why a call failed; each is one errno.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// ENOMEM: no room, too many regions, or a hole where there must be none.
    NoMem,
    /// EINVAL: not page-aligned, empty, or beyond the address space.
    Inval,
    /// EEXIST: something is mapped there already.
    Exist,
    /// EPERM: below the lowest address that may be mapped.
    Perm,
}

/// Old regions, or parts of them, that a call replaced: their pages are to be unmapped or their rights renewed.
///
/// In rising order. One piece, the usual case, needs no memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    first: Option<Region>,
    /// Room is made by the map before it changes anything.
    pub(super) more: Vec<Region>,
}

impl Pieces {
    /// None.
    pub const fn new() -> Self {
        Self { first: None, more: Vec::new() }
    }

    /// The pieces in rising order.
    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.first.iter().chain(&self.more)
    }

    /// True if there are none.
    pub const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// How many.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// From the first byte of the first piece to the end of the last.
    pub fn span(&self) -> Option<Range<u64>> {
        let first = self.first?;
        Some(first.start..self.more.last().unwrap_or(&first).end)
    }

    /// Adds a piece above the others.
    pub(super) fn push(&mut self, piece: Region) {
        match self.first {
            None => self.first = Some(piece),
            Some(_) => self.more.push(piece),
        }
    }
}

/// The addresses that a process may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The lowest address; [`MMAP_MIN_ADDR`].
    pub min: u64,
    /// mmap without an address places below this, from top to bottom.
    pub mmap_base: u64,
    /// One past the highest address; at most [`USER_END`].
    pub max: u64,
}

impl Limits {
    /// Linux's layout for a stack that may grow to `stack_rlimit` bytes, without randomisation: mmap starts below
    /// the room for the stack, which is at least 128 MiB and at most five sixths of everything.
    pub const fn for_stack(stack_rlimit: u64) -> Self {
        let (least, most) = (128 << 20, USER_END / 6 * 5);
        let room = if stack_rlimit < least {
            least
        } else if stack_rlimit > most {
            most
        } else {
            stack_rlimit
        };
        Self { min: MMAP_MIN_ADDR, mmap_base: (USER_END - room - STACK_GAP) & !(PAGE_SIZE - 1), max: USER_END }
    }
}

/// What an instruction tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
}

/// What the page table has at the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pte {
    /// Nothing.
    Absent,
    /// The page of zeros that all share, read-only.
    ZeroPage,
    /// A page.
    Page {
        /// The entry allows writing.
        writable: bool,
        /// No one else maps or caches the page.
        sole_owner: bool,
    },
}

/// What to do about a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultDecision {
    /// Map a new page of zeros, writable if the rights are.
    ZeroFill,
    /// Map the shared page of zeros read-only.
    ReadZero,
    /// Map the file's page read-only.
    FileRead {
        /// The region's file.
        file: u32,
        /// Offset of the page in the file, in bytes.
        offset: u64,
    },
    /// Map a new page with a copy of the file's page, writable.
    FileCopy {
        /// The region's file.
        file: u32,
        /// Offset of the page in the file, in bytes.
        offset: u64,
    },
    /// Map the object's page with the region's rights.
    SharedPage {
        /// The region's object.
        object: u32,
        /// Offset of the page in the object, in bytes.
        offset: u64,
    },
    /// Map the kernel's special page read-only; a write copies it.
    SpecialPage {
        /// Offset of the page in the caller's special pages, in bytes.
        offset: u64,
    },
    /// Replace the page with a writable copy.
    CopyOnWrite,
    /// Make the entry writable: the page is ours alone, or shared on purpose.
    MakeWritable,
    /// The page is there: renew the entry's other rights, forget the stale translation, go on.
    Refresh,
    /// A stack above may grow: call [`AddressSpaceMap::grow_stack`]; if it does, decide again, else SEGV_MAPERR.
    GrowStack,
    /// Send SIGSEGV.
    Segv(SegvCode),
}

/// `si_code` of SIGSEGV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegvCode {
    /// SEGV_MAPERR (1): nothing is mapped there.
    MapErr = 1,
    /// SEGV_ACCERR (2): the rights do not allow it.
    AccErr = 2,
}

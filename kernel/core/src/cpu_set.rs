//! A set of CPUs, its Linux list syntax (`0-2,5`) and its Linux mask syntax (`f,00000000`).
//!
//! Anyone may call it, interrupt context included: a set is 64 bytes by value and nothing allocates.
//! Invariant: no function panics; a CPU number of [`MAX_CPUS`] or more is in no set and cannot be put in one.
//! Source of both syntaxes: Linux Documentation/admin-guide/kernel-parameters.rst, "cpu lists", and the
//! files `cpulist`/`cpumask` under /sys.

mod shared;
#[cfg(test)]
mod tests;

pub use shared::SharedCpuSet;

use core::fmt;

/// The most CPUs that a set, and so the kernel, can name.
pub const MAX_CPUS: usize = 512;

const WORDS: usize = MAX_CPUS / 64;

/// The number of one CPU, as the kernel counts them (0 is the boot CPU).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CpuId(pub u32);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of CPU numbers below [`MAX_CPUS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CpuSet {
    words: [u64; WORDS],
}

impl CpuSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self { words: [0; WORDS] }
    }

    /// The empty set; the same as [`CpuSet::new`].
    pub const fn empty() -> Self {
        Self::new()
    }

    /// CPUs 0 to `n - 1`; `n` above [`MAX_CPUS`] counts as [`MAX_CPUS`].
    pub const fn full(n: u32) -> Self {
        let mut set = Self::new();
        let mut word = 0;
        while word < WORDS {
            let low = word as u32 * 64;
            if n >= low + 64 {
                set.words[word] = u64::MAX;
            } else if n > low {
                set.words[word] = (1 << (n - low)) - 1;
            }
            word += 1;
        }
        set
    }

    /// The set of one CPU; empty if `cpu` is not below [`MAX_CPUS`].
    pub const fn single(cpu: u32) -> Self {
        let mut set = Self::new();
        set.insert(cpu);
        set
    }

    /// The set whose 64-bit words, lowest CPUs first, are `words`.
    pub const fn from_words(words: [u64; WORDS]) -> Self {
        Self { words }
    }

    /// The 64-bit words of the set, lowest CPUs first: Linux's `cpu_set_t` on x86_64.
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// Adds `cpu`. True if it was not in the set and now is.
    pub const fn insert(&mut self, cpu: u32) -> bool {
        if cpu as usize >= MAX_CPUS || self.contains(cpu) {
            return false;
        }
        self.words[cpu as usize / 64] |= 1 << (cpu % 64);
        true
    }

    /// Takes `cpu` out. True if it was in the set.
    pub const fn remove(&mut self, cpu: u32) -> bool {
        if !self.contains(cpu) {
            return false;
        }
        self.words[cpu as usize / 64] &= !(1 << (cpu % 64));
        true
    }

    /// True if `cpu` is in the set.
    pub const fn contains(&self, cpu: u32) -> bool {
        (cpu as usize) < MAX_CPUS && self.words[cpu as usize / 64] >> (cpu % 64) & 1 == 1
    }

    /// The CPUs of the set in rising order.
    pub const fn iter(&self) -> Iter {
        Iter { words: self.words, word: 0 }
    }

    /// The CPUs in either set.
    pub const fn union(&self, other: &Self) -> Self {
        let mut set = *self;
        let mut word = 0;
        while word < WORDS {
            set.words[word] |= other.words[word];
            word += 1;
        }
        set
    }

    /// The CPUs in both sets.
    pub const fn intersection(&self, other: &Self) -> Self {
        let mut set = *self;
        let mut word = 0;
        while word < WORDS {
            set.words[word] &= other.words[word];
            word += 1;
        }
        set
    }

    /// The CPUs of this set that are not in `other`.
    pub const fn difference(&self, other: &Self) -> Self {
        let mut set = *self;
        let mut word = 0;
        while word < WORDS {
            set.words[word] &= !other.words[word];
            word += 1;
        }
        set
    }

    /// The CPUs below `n` that are not in this set.
    pub const fn complement(&self, n: u32) -> Self {
        Self::full(n).difference(self)
    }

    /// True if no CPU is in the set.
    pub const fn is_empty(&self) -> bool {
        self.first().is_none()
    }

    /// True if every CPU of this set is in `other`.
    pub const fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// How many CPUs are in the set.
    pub const fn count(&self) -> u32 {
        let mut count = 0;
        let mut word = 0;
        while word < WORDS {
            count += self.words[word].count_ones();
            word += 1;
        }
        count
    }

    /// The lowest CPU of the set.
    pub const fn first(&self) -> Option<u32> {
        let mut word = 0;
        while word < WORDS {
            if self.words[word] != 0 {
                return Some(word as u32 * 64 + self.words[word].trailing_zeros());
            }
            word += 1;
        }
        None
    }

    /// The highest CPU of the set.
    pub const fn last(&self) -> Option<u32> {
        let mut word = WORDS;
        while word > 0 {
            word -= 1;
            if self.words[word] != 0 {
                return Some(word as u32 * 64 + 63 - self.words[word].leading_zeros());
            }
        }
        None
    }

    /// The set of a mask as Linux's cpumask files take it: hexadecimal digits, commas where one likes, a newline at the end.
    /// `None`: something else is in it, nothing is, or a CPU of [`MAX_CPUS`] or more.
    pub fn from_mask(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        let text = text.strip_prefix("0x").unwrap_or(text);
        let mut set = Self::new();
        let mut at = 0;
        for digit in text.bytes().rev().filter(|&b| b != b',') {
            let value = (digit as char).to_digit(16)?;
            for bit in (0..4).filter(|bit| value >> bit & 1 != 0) {
                if !set.insert(at + bit) {
                    return None;
                }
            }
            at += 4;
        }
        Some(set).filter(|_| at != 0)
    }

    /// What prints the set as Linux's cpumask files do for `nr_cpus` CPUs: 32-bit groups in hex, the highest
    /// first, separated by commas; the first group only as wide as `nr_cpus` needs.
    pub const fn mask(&self, nr_cpus: u32) -> Mask<'_> {
        Mask { set: self, nr_cpus }
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut set = Self::new();
        for cpu in cpus {
            set.insert(cpu);
        }
        set
    }
}

impl IntoIterator for &CpuSet {
    type Item = u32;
    type IntoIter = Iter;
    fn into_iter(self) -> Iter {
        self.iter()
    }
}

/// The CPUs of a set in rising order; made by [`CpuSet::iter`], and independent of the set after that.
#[derive(Clone, Debug)]
pub struct Iter {
    words: [u64; WORDS],
    word: usize,
}

impl Iterator for Iter {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        while let Some(bits) = self.words.get_mut(self.word) {
            if *bits != 0 {
                let cpu = self.word as u32 * 64 + bits.trailing_zeros();
                *bits &= *bits - 1;
                return Some(cpu);
            }
            self.word += 1;
        }
        None
    }
}

impl fmt::Display for CpuSet {
    /// Linux's list form: `0-2,5`; two neighbours are a range too (`0-1`); nothing for the empty set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(start) = cpus.next() {
            let mut end = start;
            while cpus.next_if_eq(&(end + 1)).is_some() {
                end += 1;
            }
            write!(f, "{comma}{start}")?;
            if end != start {
                write!(f, "-{end}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

/// Prints a set in Linux's cpumask form; made by [`CpuSet::mask`].
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    set: &'a CpuSet,
    nr_cpus: u32,
}

impl fmt::Display for Mask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nr_cpus = self.nr_cpus.clamp(1, MAX_CPUS as u32);
        let shown = self.set.intersection(&CpuSet::full(nr_cpus));
        let groups = nr_cpus.div_ceil(32);
        for group in (0..groups).rev() {
            let value = (shown.words[group as usize / 2] >> (group % 2 * 32)) as u32;
            if group + 1 == groups {
                let bits = nr_cpus - group * 32;
                write!(f, "{value:0width$x}", width = bits.div_ceil(4) as usize)?;
            } else {
                write!(f, ",{value:08x}")?;
            }
        }
        Ok(())
    }
}

/// What is wrong with a CPU list, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListError {
    /// Where: bytes from the start of the list.
    pub offset: usize,
    /// What.
    pub kind: ListErrorKind,
}

/// The ways in which a CPU list can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListErrorKind {
    /// A number was expected; this stands there instead (`None`: the list ends).
    NotANumber(Option<char>),
    /// A number does not fit into 32 bits.
    TooBig,
    /// After a number or a range this character cannot stand (`None`: the list cannot end there).
    Unexpected(Option<char>),
    /// The range's end lies before its start.
    Backwards {
        /// The range's first CPU as written.
        start: u32,
        /// The range's last CPU as written.
        end: u32,
    },
    /// A stride `used/group` with an empty group, or with more CPUs used than the group has.
    BadStride {
        /// CPUs used out of each group.
        used: u32,
        /// CPUs in a group.
        group: u32,
    },
    /// The list names this CPU, and the machine has only `nr_cpus`.
    NoSuchCpu {
        /// The highest CPU named.
        cpu: u32,
        /// How many CPUs there are.
        nr_cpus: u32,
    },
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.offset + 1;
        match self.kind {
            ListErrorKind::NotANumber(Some(c)) => write!(f, "CPU number expected at character {at}, found {c:?}"),
            ListErrorKind::NotANumber(None) => write!(f, "CPU number expected at character {at}, found the end"),
            ListErrorKind::TooBig => write!(f, "number at character {at} is too big"),
            ListErrorKind::Unexpected(Some(c)) => write!(f, "unexpected {c:?} at character {at}"),
            ListErrorKind::Unexpected(None) => write!(f, "unexpected end at character {at}"),
            ListErrorKind::Backwards { start, end } => {
                write!(f, "range {start}-{end} at character {at} runs backwards")
            }
            ListErrorKind::BadStride { used, group } => {
                write!(f, "stride {used}/{group} at character {at} must be used/group with group > 0, used <= group")
            }
            ListErrorKind::NoSuchCpu { cpu, nr_cpus: 0 } => write!(f, "CPU {cpu} does not exist"),
            ListErrorKind::NoSuchCpu { cpu, nr_cpus } => {
                write!(f, "CPU {cpu} does not exist, the last one is {}", nr_cpus - 1)
            }
        }
    }
}

/// The set that a Linux CPU list names, on a machine with CPUs 0 to `nr_cpus - 1`.
///
/// `2`, `1-3`, `0-31:1/4` (of every 4 CPUs the first), `N` for the last CPU, `all`; separated by commas or
/// blanks, empty items allowed. The empty list is the empty set. A CPU that does not exist is an error.
pub fn parse_list(list: &str, nr_cpus: u32) -> Result<CpuSet, ListError> {
    match parse_list_clipped(list, nr_cpus)? {
        (set, None) => Ok(set),
        (_, Some(error)) => Err(error),
    }
}

/// Like [`parse_list`], but drops CPUs that do not exist and returns the error that names the first such item
/// beside the set: for the caller who wants to correct the list and say so.
pub fn parse_list_clipped(list: &str, nr_cpus: u32) -> Result<(CpuSet, Option<ListError>), ListError> {
    let nr_cpus = nr_cpus.min(MAX_CPUS as u32);
    let mut scan = Scan { list, pos: 0, nr_cpus };
    let mut set = CpuSet::new();
    let mut clipped = None;
    loop {
        while scan.peek().is_some_and(is_separator) {
            scan.pos += 1;
        }
        if scan.peek().is_none() {
            return Ok((set, clipped));
        }
        let item = scan.item()?;
        if item.end >= nr_cpus && !item.all && clipped.is_none() {
            let kind = ListErrorKind::NoSuchCpu { cpu: item.end, nr_cpus };
            clipped = Some(ListError { offset: item.offset, kind });
        }
        for cpu in item.start..item.end.saturating_add(1).min(nr_cpus) {
            if (cpu - item.start) % item.group < item.used {
                set.insert(cpu);
            }
        }
    }
}

fn is_separator(byte: u8) -> bool {
    byte == b',' || byte.is_ascii_whitespace() || byte == 0x0b
}

/// One item of a list: `start-end:used/group`.
struct Item {
    offset: usize,
    start: u32,
    end: u32,
    used: u32,
    group: u32,
    all: bool,
}

/// The reading position in a list. Invariant: `pos` is at a character boundary, as only ASCII is stepped over.
struct Scan<'a> {
    list: &'a str,
    pos: usize,
    nr_cpus: u32,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.list.as_bytes().get(self.pos).copied()
    }

    fn found(&self) -> Option<char> {
        self.list.get(self.pos..).and_then(|rest| rest.chars().next())
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    fn unexpected(&self) -> ListError {
        ListError { offset: self.pos, kind: ListErrorKind::Unexpected(self.found()) }
    }

    fn number(&mut self) -> Result<u32, ListError> {
        let offset = self.pos;
        if self.nr_cpus > 0 && self.take(b'N') {
            return Ok(self.nr_cpus - 1);
        }
        let mut value: u32 = 0;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(u32::from(digit - b'0')))
                .ok_or(ListError { offset, kind: ListErrorKind::TooBig })?;
            self.pos += 1;
        }
        if self.pos == offset {
            return Err(ListError { offset, kind: ListErrorKind::NotANumber(self.found()) });
        }
        Ok(value)
    }

    fn at_item_end(&self) -> bool {
        self.peek().is_none_or(is_separator)
    }

    fn item(&mut self) -> Result<Item, ListError> {
        let offset = self.pos;
        let all = self.list.as_bytes()[self.pos..].get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"all"));
        let (start, end) = if all {
            self.pos += 3;
            (0, self.nr_cpus.saturating_sub(1))
        } else {
            let start = self.number()?;
            let end = if self.take(b'-') { self.number()? } else { start };
            (start, end)
        };
        let mut item = Item { offset, start, end, used: u32::MAX, group: u32::MAX, all };
        if end < start {
            return Err(ListError { offset, kind: ListErrorKind::Backwards { start, end } });
        }
        if self.at_item_end() {
            return Ok(item);
        }
        if !self.take(b':') {
            return Err(self.unexpected());
        }
        let stride = self.pos;
        item.used = self.number()?;
        if !self.take(b'/') {
            return Err(self.unexpected());
        }
        item.group = self.number()?;
        if !self.at_item_end() {
            return Err(self.unexpected());
        }
        if item.group == 0 || item.used > item.group {
            let kind = ListErrorKind::BadStride { used: item.used, group: item.group };
            return Err(ListError { offset: stride, kind });
        }
        Ok(item)
    }
}

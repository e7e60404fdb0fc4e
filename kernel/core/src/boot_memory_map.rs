//! The memory map that the direct loader builds: firmware's ranges sorted and made disjoint, then pieces of
//! usable memory carved out for what the loader puts there. Called by boot only.
//!
//! Invariants: regions are sorted by base, never overlap and are never empty; usable regions, and whatever is
//! carved out of them, start and end on page boundaries; neighbours that touch differ in kind.

use arrayvec::ArrayVec;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
/// Most regions that a map can hold.
pub const REGION_LIMIT: usize = 256;
/// Most ranges that are taken from firmware.
pub const FIRMWARE_LIMIT: usize = 128;

/// What a region is, numbered as in the Limine protocol ("Memory Map Feature"), except that the order of
/// firmware's kinds in an overlap is `strength`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Kind {
    /// Free memory.
    Usable = 0,
    /// Not memory, or not to be touched.
    Reserved = 1,
    /// ACPI tables; usable once they are read.
    AcpiReclaimable = 2,
    /// Firmware's own, to be kept over sleep.
    AcpiNvs = 3,
    /// Defective memory.
    Bad = 4,
    /// The loader, its tables and its answers; usable once they are no longer needed.
    BootloaderReclaimable = 5,
    /// The loaded kernel, its file and the modules.
    ExecutableAndModules = 6,
}

impl Kind {
    /// From an E820, multiboot2 or PVH type number (ACPI specification, "Address Range Types").
    pub fn from_e820(number: u32) -> Kind {
        match number {
            1 => Kind::Usable,
            3 => Kind::AcpiReclaimable,
            4 => Kind::AcpiNvs,
            5 => Kind::Bad,
            _ => Kind::Reserved,
        }
    }

    /// Where two firmware ranges overlap, the stronger one is believed.
    fn strength(self) -> u8 {
        match self {
            Kind::Usable => 0,
            Kind::AcpiReclaimable => 1,
            Kind::AcpiNvs => 2,
            Kind::Reserved => 3,
            Kind::Bad => 4,
            Kind::BootloaderReclaimable => 5,
            Kind::ExecutableAndModules => 6,
        }
    }
}

/// A range of physical addresses of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// First byte's physical address.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// What it is.
    pub kind: Kind,
}

impl Region {
    /// The address behind the last byte.
    pub fn end(&self) -> u64 {
        self.base + self.length
    }
}

/// Why a map could not be built or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// Firmware gave more than [`FIRMWARE_LIMIT`] ranges.
    TooManyRanges,
    /// More than [`REGION_LIMIT`] regions would be needed.
    TooManyRegions,
}

/// The map.
#[derive(Clone, Debug, Default)]
pub struct BootMemoryMap {
    regions: ArrayVec<Region, REGION_LIMIT>,
}

impl BootMemoryMap {
    /// Builds the map from firmware's ranges, which may be unsorted, overlapping or empty. Page 0 is reserved.
    pub fn from_firmware(ranges: impl Iterator<Item = Region>) -> Result<Self, MapError> {
        let mut given = ArrayVec::<Region, FIRMWARE_LIMIT>::new();
        for range in ranges {
            let length = range.length.min(u64::MAX - range.base);
            if length != 0 {
                given.try_push(Region { length, ..range }).map_err(|_| MapError::TooManyRanges)?;
            }
        }
        let mut edges = ArrayVec::<u64, { 2 * FIRMWARE_LIMIT + 2 }>::new();
        edges.extend(given.iter().flat_map(|range| [range.base, range.end()]));
        if given.iter().any(|range| range.base < PAGE_SIZE) {
            edges.push(PAGE_SIZE);
        }
        edges.sort_unstable();

        let mut map = Self::default();
        for pair in edges.windows(2) {
            let (base, end) = (pair[0], pair[1]);
            if base == end {
                continue;
            }
            let covering = given.iter().filter(|range| range.base <= base && end <= range.end());
            let Some(mut kind) = covering.map(|range| range.kind).max_by_key(|kind| kind.strength()) else { continue };
            if kind == Kind::Usable && base < PAGE_SIZE {
                kind = Kind::Reserved;
            }
            map.push(Region { base, length: end - base, kind })?;
        }
        map.shrink_usable();
        Ok(map)
    }

    /// The regions, by rising base.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Bytes of usable memory that lie below `limit`.
    pub fn usable_below(&self, limit: u64) -> u64 {
        let usable = self.regions.iter().filter(|region| region.kind == Kind::Usable);
        usable.map(|region| region.end().min(limit).saturating_sub(region.base)).sum()
    }

    /// Gives the usable memory in the pages of `base .. base + length` the kind `kind`; what is not usable stays
    /// as it is.
    pub fn carve(&mut self, base: u64, length: u64, kind: Kind) -> Result<(), MapError> {
        self.change(base, length, Kind::Usable, kind)
    }

    /// As [`carve`](Self::carve), but changes pages that are `from` now.
    pub fn change(&mut self, base: u64, length: u64, from: Kind, kind: Kind) -> Result<(), MapError> {
        if length == 0 {
            return Ok(());
        }
        let start = base & !(PAGE_SIZE - 1);
        let end = base.saturating_add(length).checked_next_multiple_of(PAGE_SIZE).unwrap_or(!(PAGE_SIZE - 1));
        let old = core::mem::take(&mut self.regions);
        for region in old {
            let (from_here, to_here) = (start.max(region.base), end.min(region.end()));
            if region.kind != from || from_here >= to_here {
                self.push(region)?;
                continue;
            }
            self.push(Region { length: from_here - region.base, ..region })?;
            self.push(Region { base: from_here, length: to_here - from_here, kind })?;
            self.push(Region { base: to_here, length: region.end() - to_here, ..region })?;
        }
        Ok(())
    }

    /// Takes `length` bytes of usable memory, as high as possible below `limit`, aligned to `align` (a power of
    /// two, at least a page), and marks them as `kind`. Returns their base, or None when there is no such block.
    pub fn allocate(&mut self, length: u64, align: u64, limit: u64, kind: Kind) -> Result<Option<u64>, MapError> {
        let length = length.next_multiple_of(PAGE_SIZE).max(PAGE_SIZE);
        let align = align.max(PAGE_SIZE);
        for index in (0..self.regions.len()).rev() {
            let region = self.regions[index];
            if region.kind != Kind::Usable {
                continue;
            }
            let Some(highest) = region.end().min(limit).checked_sub(length) else { continue };
            let base = highest & !(align - 1);
            if base >= region.base {
                self.carve(base, length, kind)?;
                return Ok(Some(base));
            }
        }
        Ok(None)
    }

    /// Appends a region, which must lie behind the last one, joining it with that where they touch.
    fn push(&mut self, region: Region) -> Result<(), MapError> {
        if region.length == 0 {
            return Ok(());
        }
        match self.regions.last_mut() {
            Some(last) if last.end() == region.base && last.kind == region.kind => last.length += region.length,
            _ => self.regions.try_push(region).map_err(|_| MapError::TooManyRegions)?,
        }
        Ok(())
    }

    /// Cuts usable regions down to whole pages and drops those of less than a page.
    fn shrink_usable(&mut self) {
        self.regions.retain(|region| {
            if region.kind == Kind::Usable {
                let end = region.end() & !(PAGE_SIZE - 1);
                region.base = region.base.next_multiple_of(PAGE_SIZE);
                region.length = end.saturating_sub(region.base);
            }
            region.length != 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region(base: u64, end: u64, kind: Kind) -> Region {
        Region { base, length: end - base, kind }
    }

    #[test]
    fn unsorted_firmware_ranges_are_sorted_and_page_zero_is_reserved() {
        let given = [
            region(0x10_0000, 0x800_0000, Kind::Usable),
            region(0xf_0000, 0x10_0000, Kind::Reserved),
            region(0, 0x9_fc00, Kind::Usable),
        ];
        let map = BootMemoryMap::from_firmware(given.into_iter()).unwrap();
        let expected = [
            region(0, 0x1000, Kind::Reserved),
            region(0x1000, 0x9_f000, Kind::Usable),
            region(0xf_0000, 0x10_0000, Kind::Reserved),
            region(0x10_0000, 0x800_0000, Kind::Usable),
        ];
        assert_eq!(map.regions(), expected);
        assert_eq!(map.usable_below(0x10_0000), 0x9_e000);
    }

    #[test]
    fn in_an_overlap_the_reserved_range_wins() {
        let given = [region(0x1000, 0x9000, Kind::Usable), region(0x2800, 0x3800, Kind::Reserved)];
        let map = BootMemoryMap::from_firmware(given.into_iter()).unwrap();
        let expected = [
            region(0x1000, 0x2000, Kind::Usable),
            region(0x2800, 0x3800, Kind::Reserved),
            region(0x4000, 0x9000, Kind::Usable),
        ];
        assert_eq!(map.regions(), expected);
    }

    #[test]
    fn carving_takes_whole_pages_of_usable_memory_only() {
        let given = [region(0x1000, 0x5000, Kind::Usable), region(0x5000, 0x6000, Kind::AcpiNvs)];
        let mut map = BootMemoryMap::from_firmware(given.into_iter()).unwrap();
        map.carve(0x3010, 0x2800, Kind::BootloaderReclaimable).unwrap();
        let expected = [
            region(0x1000, 0x3000, Kind::Usable),
            region(0x3000, 0x5000, Kind::BootloaderReclaimable),
            region(0x5000, 0x6000, Kind::AcpiNvs),
        ];
        assert_eq!(map.regions(), expected);
    }

    #[test]
    fn allocation_is_highest_first_below_the_limit_and_ends_with_none() {
        let mut map = BootMemoryMap::from_firmware([region(0x1000, 0x5000, Kind::Usable)].into_iter()).unwrap();
        let kind = Kind::BootloaderReclaimable;
        assert_eq!(map.allocate(1, 1, 0x4800, kind), Ok(Some(0x3000)));
        assert_eq!(map.allocate(0x1000, 0x1000, u64::MAX, kind), Ok(Some(0x4000)));
        assert_eq!(map.allocate(0x1000, 0x2000, u64::MAX, kind), Ok(Some(0x2000)));
        assert_eq!(map.allocate(0x2000, 0x1000, u64::MAX, kind), Ok(None));
        assert_eq!(map.allocate(0x1000, 0x1000, u64::MAX, kind), Ok(Some(0x1000)));
        assert_eq!(map.regions(), [region(0x1000, 0x5000, kind)]);
    }

    #[test]
    fn too_many_firmware_ranges_are_an_error() {
        let ranges = (0..FIRMWARE_LIMIT as u64 + 1).map(|n| region(n * 0x2000, n * 0x2000 + 0x1000, Kind::Usable));
        assert_eq!(BootMemoryMap::from_firmware(ranges).unwrap_err(), MapError::TooManyRanges);
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        (1u32..=6).prop_map(Kind::from_e820)
    }

    fn kind_at(map: &BootMemoryMap, address: u64) -> Option<Kind> {
        map.regions().iter().find(|region| region.base <= address && address < region.end()).map(|region| region.kind)
    }

    proptest! {
        #[test]
        fn maps_are_sorted_disjoint_and_never_call_other_memory_usable(
            ranges in proptest::collection::vec((0u64..0x40_0000, 0u64..0x10_0000, any_kind()), 0..40),
            carved in proptest::collection::vec((0u64..0x40_0000, 0u64..0x8000), 0..10),
            probes in proptest::collection::vec(0u64..0x50_0000, 64),
        ) {
            let given: Vec<Region> = ranges.iter().map(|&(base, length, kind)| Region { base, length, kind }).collect();
            let mut map = BootMemoryMap::from_firmware(given.iter().copied()).unwrap();
            for &(base, length) in &carved {
                map.carve(base, length, Kind::BootloaderReclaimable).unwrap();
            }
            for pair in map.regions().windows(2) {
                prop_assert!(pair[0].end() <= pair[1].base);
                prop_assert!(pair[0].end() != pair[1].base || pair[0].kind != pair[1].kind);
            }
            for region in map.regions() {
                prop_assert!(region.length != 0);
                if matches!(region.kind, Kind::Usable | Kind::BootloaderReclaimable) {
                    prop_assert!(region.base % PAGE_SIZE == 0 && region.length % PAGE_SIZE == 0);
                }
            }
            for &address in &probes {
                if kind_at(&map, address) == Some(Kind::Usable) {
                    let covering = given.iter().filter(|range| range.base <= address && address < range.end());
                    let kinds: Vec<Kind> = covering.map(|range| range.kind).collect();
                    prop_assert!(!kinds.is_empty() && kinds.iter().all(|&kind| kind == Kind::Usable));
                    prop_assert!(address >= PAGE_SIZE);
                    let page = address & !(PAGE_SIZE - 1);
                    let touches = |&&(base, length): &&(u64, u64)| length != 0 && base < page + PAGE_SIZE && page < base + length;
                    prop_assert_eq!(carved.iter().find(touches), None);
                }
            }
        }
    }
}

//! Physical memory as Rust slices: what firmware left for reading, and blocks that the loader takes for itself.
//!
//! The only file that turns physical addresses into references. Invariant: every block comes out of usable
//! memory of the map and is handed out once; firmware's data, the loader and the archive are carved out of the
//! map before the first block is taken, so that blocks never overlap anything that is read.

use crate::entry::{DIRECT_MAP, REACHABLE_END};
use crate::fail;
use kcore::boot_memory_map::{BootMemoryMap, Kind, PAGE_SIZE};

unsafe extern "C" {
    static boot_image_start: u8;
    static boot_image_end: u8;
}

/// The loader's own image, .bss included: base and length.
pub fn loader_image() -> (u64, u64) {
    let start = &raw const boot_image_start as u64;
    (start, &raw const boot_image_end as u64 - start)
}

/// The direct-map address of something in the loader's image or in a block.
pub fn direct_map_of<T: ?Sized>(thing: &T) -> u64 {
    core::ptr::from_ref(thing).cast::<u8>() as u64 + DIRECT_MAP
}

/// What firmware or the boot protocol left at `base`; None when the range is empty, lies above 4 GiB or in the
/// loader's own image.
pub fn firmware_bytes(base: u64, length: u64) -> Option<&'static [u8]> {
    let end = base.checked_add(length)?;
    let (image, image_length) = loader_image();
    let in_image = base < image + image_length && image < end;
    if base == 0 || length == 0 || end > REACHABLE_END || in_image {
        return None;
    }
    // SAFETY: 1. The range is mapped: the boot tables map all of the first 4 GiB, checked above. 2. It is not
    // null and not the loader's own memory, checked above. 3. Nobody writes it while the loader runs: the other
    // CPUs do not run yet, and blocks come out of memory that firmware calls usable and from which the callers'
    // ranges have been carved (the file's invariant).
    Some(unsafe { core::slice::from_raw_parts(base as *const u8, length as usize) })
}

/// The bytes of a zero-terminated string at `base`, without the zero; at most `limit` bytes.
pub fn firmware_string(base: u64, limit: u64) -> Option<&'static [u8]> {
    let bytes = firmware_bytes(base, limit.min(REACHABLE_END.checked_sub(base)?))?;
    Some(&bytes[..bytes.iter().position(|&byte| byte == 0)?])
}

/// A block of memory taken from the map; its content is whatever was there.
pub struct Block {
    /// Physical address of the first byte; a multiple of the page size.
    pub base: u64,
    /// The block.
    pub bytes: &'static mut [u8],
}

impl Block {
    /// The direct-map address of the first byte.
    pub fn direct_map(&self) -> u64 {
        self.base + DIRECT_MAP
    }
}

/// Takes blocks out of the memory map.
pub struct PhysicalMemory {
    map: BootMemoryMap,
}

impl PhysicalMemory {
    /// The memory of `map`, from which everything that is read later has been carved.
    pub fn new(map: BootMemoryMap) -> Self {
        Self { map }
    }

    /// The map as it is now.
    pub fn map(&self) -> &BootMemoryMap {
        &self.map
    }

    /// Gives pages that are bootloader-reclaimable another kind.
    pub fn retype(&mut self, base: u64, length: u64, kind: Kind) {
        if self.map.change(base, length, Kind::BootloaderReclaimable, kind).is_err() {
            fail!("the memory map does not fit into {} regions", kcore::boot_memory_map::REGION_LIMIT);
        }
    }

    /// Gives the pages that are wholly in the range, and still bootloader-reclaimable, back as usable memory. Nothing is read from them any more.
    pub fn give_back(&mut self, base: u64, length: u64) {
        let first = base.next_multiple_of(PAGE_SIZE);
        let end = (base + length) & !(PAGE_SIZE - 1);
        if first < end {
            self.retype(first, end - first, Kind::Usable);
        }
    }

    /// A block of whole pages for `purpose`, below `limit` (at most 4 GiB), aligned to `align`; fails the boot
    /// when there is none.
    pub fn take(&mut self, length: u64, align: u64, limit: u64, kind: Kind, purpose: &str) -> Block {
        let length = length.max(1).next_multiple_of(PAGE_SIZE);
        let limit = limit.min(REACHABLE_END);
        match self.map.allocate(length, align, limit, kind) {
            Ok(Some(base)) => {
                // SAFETY: 1. The block was usable memory below 4 GiB: mapped, and nobody's. 2. It is no longer
                // usable in the map, so it is handed out once. 3. Any bytes are valid u8s.
                let bytes = unsafe { core::slice::from_raw_parts_mut(base as *mut u8, length as usize) };
                Block { base, bytes }
            }
            Ok(None) => fail!(
                "too little memory: {} KiB are free below {} MiB, one block of {} KiB is needed for {purpose}",
                self.map.usable_below(limit) >> 10,
                limit >> 20,
                length >> 10
            ),
            Err(_) => fail!("the memory map does not fit into {} regions", kcore::boot_memory_map::REGION_LIMIT),
        }
    }

    /// A zeroed page for a page table.
    pub fn take_table(&mut self) -> (u64, &'static mut [u64; 512]) {
        let block = self.take(PAGE_SIZE, PAGE_SIZE, REACHABLE_END, Kind::BootloaderReclaimable, "a page table");
        block.bytes.fill(0);
        // SAFETY: 1. The block is a whole page, aligned to a page, and ours alone. 2. Zero is a valid u64.
        (block.base, unsafe { &mut *block.bytes.as_mut_ptr().cast::<[u64; 512]>() })
    }
}

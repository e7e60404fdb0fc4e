//! The vDSO's pages: the shared object of kernel/vdso, and behind it the page that tells programs the time.
//!
//! Filled at boot after calibration, and when the clock is set; mapped into every program by exec, at once, so that its first use costs no fault. The
//! pages are the kernel's for good: programs see them read-only; a write to the code, where mprotect allows it, makes a copy.

use super::address_space::{AddressSpace, Content, Place};
use super::kernel_map;
use crate::arch::cpu_features::Features;
use crate::arch::page_table::PAGE_SIZE;
use crate::arch::tsc;
use crate::errno::Errno;
use kcore::vma::{Access, Prot};
use vdso::page::{Page, cpu_by};

const IMAGE_BYTES: usize = include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so")).len();

#[repr(C, align(4096))]
struct Image([u8; IMAGE_BYTES]);

/// The page alone in its frame: nothing else of the kernel can be read there.
#[repr(C, align(4096))]
struct Data(Page);

static IMAGE: Image = Image(*include_bytes!(concat!(env!("OUT_DIR"), "/vdso.so")));
static DATA: Data = Data(Page::new());

const _: () = assert!(IMAGE_BYTES.is_multiple_of(PAGE_SIZE as usize) && size_of::<Data>() == PAGE_SIZE as usize);

/// Bytes that `map` takes.
pub const SIZE: u64 = DATA_OFFSET + PAGE_SIZE;
/// Where the data page lies.
const DATA_OFFSET: u64 = IMAGE_BYTES as u64;

const REALTIME: [u32; 3] = [0, 5, 11]; // itself, its coarse form, TAI

/// Tell programs how to read the time and their CPU. Boot CPU, after calibration, before the first program.
pub fn publish(features: &Features, wall_at_0_ns: u64) {
    const MONOTONIC: [u32; 4] = [1, 4, 6, 7]; // itself, RAW, its coarse form, BOOTTIME
    let mut clocks = [(0, 0); 7];
    for (slot, clock) in clocks.iter_mut().zip(REALTIME.into_iter().chain(MONOTONIC)) {
        *slot = (clock, if REALTIME.contains(&clock) { wall_at_0_ns } else { 0 });
    }
    DATA.0.promise_clocks(tsc::boot(), tsc::ns_per_tick(), &clocks);
    DATA.0.promise_cpu(match (features.rdpid, features.rdtscp) {
        (true, _) => cpu_by::RDPID,
        (false, true) => cpu_by::RDTSCP,
        (false, false) => cpu_by::SYSCALL,
    });
}

/// The wall clock was set. Called under its lock.
pub fn set_wall(at_0_ns: u64) {
    for clock in REALTIME {
        DATA.0.set_clock(clock, at_0_ns);
    }
}

/// struct timezone that programs see.
pub fn zone() -> u64 {
    DATA.0.zone()
}

/// Let programs see this one.
pub fn set_zone(zone: u64) {
    DATA.0.set_zone(zone);
}

/// The frame at byte `offset` of what `map` maps.
pub(super) fn frame_at(offset: u64) -> Option<u64> {
    match offset {
        0..DATA_OFFSET => Some(kernel_map::virt_to_phys(&raw const IMAGE as u64) + offset),
        DATA_OFFSET => Some(kernel_map::virt_to_phys(&raw const DATA as u64)),
        _ => None,
    }
}

/// Map the object at `at`, where `SIZE` bytes are free, with the page behind it.
pub fn map(space: &AddressSpace, at: u64) -> Result<(), Errno> {
    space.map(Place::FixedNoReplace(at), DATA_OFFSET, Prot::RX, Content::Special(0))?;
    space.map(Place::FixedNoReplace(at + DATA_OFFSET), PAGE_SIZE, Prot::R, Content::Special(DATA_OFFSET))?;
    for page in (0..SIZE).step_by(PAGE_SIZE as usize) {
        space.fault(at + page, Access::Read).map_err(|_| crate::errno::ENOMEM)?;
    }
    Ok(())
}

/// Whether a region that starts at `offset` is the data page, for /proc/PID/maps.
pub const fn is_data(offset: u64) -> bool {
    offset >= DATA_OFFSET
}

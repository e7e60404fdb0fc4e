//! bench: page faults and mappings.

use super::{Bench, skip};
use crate::instruction::{call6, mark_begin, mark_end, rdtsc, region, timed_read, timed_write};

const PAGE: usize = 4096;

/// A new private mapping of `bytes`, or the error number.
#[inline(always)]
fn map(bytes: usize) -> Result<*mut u8, i64> {
    let protection = i64::from(libc::PROT_READ | libc::PROT_WRITE);
    let flags = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: (1) a new mapping at an address of the kernel's choice touches no memory that exists.
    match unsafe { call6(libc::SYS_mmap, [0, bytes as i64, protection, flags, -1, 0]) } {
        error @ -4095..0 => Err(-error),
        address => Ok(address as *mut u8),
    }
}

/// Removes a mapping made by [`map`].
#[inline(always)]
fn unmap(address: *mut u8, bytes: usize) {
    // SAFETY: (1) callers pass a mapping of their own, to which nothing refers.
    unsafe { call6(libc::SYS_munmap, [address as i64, bytes as i64, 0, 0, 0, 0]) };
}

/// The first write to a page, and the first read.
pub fn faults(bench: &mut Bench) {
    const PAGES: usize = 250;
    for read in [false, true] {
        let name = if read { "fault_read" } else { "fault_minor" };
        bench.samples.clear();
        let mut failed = None;
        for _ in 0..2 {
            let start = match map(PAGES * PAGE) {
                Ok(start) => start,
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            };
            // SAFETY: (1) advice on a mapping of our own; a kernel without it is as good.
            unsafe { libc::madvise(start.cast(), PAGES * PAGE, libc::MADV_NOHUGEPAGE) };
            // SAFETY: (1) every address is inside the mapping.
            let pages = (0..PAGES).map(|page| unsafe { start.add(page * PAGE) });
            if read {
                mark_begin::<{ region::FAULT_READ }>();
                // SAFETY: (1) as above.
                pages.for_each(|page| bench.samples.add(unsafe { timed_read(page) }));
                mark_end::<{ region::FAULT_READ }>();
            } else {
                mark_begin::<{ region::FAULT }>();
                // SAFETY: (1) as above.
                pages.for_each(|page| bench.samples.add(unsafe { timed_write(page) }));
                mark_end::<{ region::FAULT }>();
            }
            unmap(start, PAGES * PAGE);
        }
        match failed {
            Some(errno) => skip(name, errno),
            None => bench.report(name),
        }
    }
}

/// mmap and munmap of one page, untouched and touched.
pub fn mappings(bench: &mut Bench) {
    for touch in [false, true] {
        bench.samples.clear();
        let mut failed = None;
        if !touch {
            mark_begin::<{ region::MMAP }>();
        }
        for _ in 0..bench.iterations {
            let start = rdtsc();
            match map(PAGE) {
                Ok(page) => {
                    if touch {
                        // SAFETY: (1) the page was just mapped, writable.
                        unsafe { page.write_volatile(1) };
                    }
                    unmap(page, PAGE);
                }
                Err(errno) => {
                    failed = Some(errno);
                    break;
                }
            }
            let ticks = rdtsc() - start;
            bench.samples.add(ticks);
        }
        if !touch {
            mark_end::<{ region::MMAP }>();
        }
        let name = if touch { "mmap_touch_munmap" } else { "mmap_munmap" };
        match failed {
            Some(errno) => skip(name, errno),
            None => bench.report(name),
        }
    }
}

//! hazard_mce: uses a page, in user mode alone, until the machine says that the page is lost (`mce` in QEMU's monitor).
//!
//! What went wrong elsewhere: Linux before 4.13 ended the whole machine, or killed a program that had nothing to do with it, when the error was
//! found by a CPU that ran another one; a program that handles SIGBUS has to learn the address by which it knows the page; and a kernel that reads
//! the page for the program, in write(2) say, has a machine check of its own, which is its end.

use crate::entry::{Args, Failure, Outcome};
use crate::linux;
use crate::output::write_out;
use crate::program::hazard::with_handler;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

const PAGE: usize = 4096;
const USAGE: &str = "usage: hazard_mce [handle]";

static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
static ORDER: AtomicI64 = AtomicI64::new(0);
/// A system call could still read it.
static READ: AtomicBool = AtomicBool::new(false);

extern "C" fn handle(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: (1) the kernel passes valid information to handlers that ask for it; (2) of SIGBUS the address is set, and si_addr_lsb, a short
    // behind it, which the libc crate does not name.
    let (code, address, order) =
        unsafe { ((*info).si_code, (*info).si_addr() as u64, info.cast::<u8>().add(24).cast::<i16>().read()) };
    ADDRESS.store(address, Ordering::Relaxed);
    ORDER.store(order.into(), Ordering::Relaxed);
    // The kernel reads it for nobody.
    // SAFETY: (1) write(2) checks the address itself.
    let written = unsafe { libc::write(1, address as *const c_void, 1) };
    READ.store(written >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT), Ordering::Relaxed);
    // Another page in its place, so that the access goes on.
    // SAFETY: (1) the page at this address is the program's own, which holds nothing there any more.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        libc::mmap(address as *mut c_void, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
    }
    CODE.store(code, Ordering::Relaxed);
}

/// `hazard_mce [handle]`: without the word the signal ends it.
pub fn main(args: &Args) -> Outcome {
    const BUS_MCEERR_AR: i32 = 4;
    match args.rest() {
        [] => {}
        [word] if word == "handle" => with_handler(libc::SIGBUS, handle),
        _ => return Err(Failure::usage(USAGE)),
    }
    let mut told = Err(String::new());
    let mapped = linux::with_new_memory(PAGE, |memory| {
        let at = memory.as_mut_ptr();
        memory[0] = 1;
        write_out(format!("hazard_mce uses {:#x}.\n", at as u64).as_bytes());
        while CODE.load(Ordering::Relaxed) == 0 {
            // SAFETY: (1) the page is ours.
            unsafe { at.read_volatile() };
        }
        let saw = (CODE.load(Ordering::Relaxed), ADDRESS.load(Ordering::Relaxed), ORDER.load(Ordering::Relaxed));
        told =
            if saw == (BUS_MCEERR_AR, at as u64, 12) { Ok(()) } else { Err(format!("code, address, order: {saw:x?}")) };
    });
    mapped.map_err(|e| Failure::new(format!("mmap: {e}")))?;
    told.map_err(Failure::new)?;
    if READ.load(Ordering::Relaxed) {
        return Err(Failure::new("write(2) of the lost page is not EFAULT"));
    }
    write_out(b"hazard_mce: SIGBUS with the page's address\n");
    Ok(0)
}

//! /sys/kernel/quiesce/debug/user_access: the kernel itself reads, writes and runs a page of the program that asks, as it never does: SMAP and SMEP have to
//! refuse it. Where there is no SMEP, the page is run, and who asks must be alone in its memory.

use crate::arch::cpu_features::enabled;
use crate::arch::page_table::PAGE_SIZE;
use crate::errno::{EPERM, ESRCH, Errno};
use crate::mm::address_space::{AddressSpace, Content, Place};
use crate::mm::{user_attempt, user_copy};
use crate::process::{Thread, try_current_thread};
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;
use kcore::vma::Prot;

/// Whether the running thread is the only one of its process, and nobody else uses its memory or holds it open.
fn is_alone(thread: &Thread, space: &Arc<AddressSpace>) -> bool {
    // The thread's and its process's.
    const OWN: usize = 2;
    thread.process.threads.lock().len() == 1 && Arc::strong_count(space) <= OWN
}

/// One line: each attempt, with the error code of the fault that refused it.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    let thread = try_current_thread().ok_or(ESRCH)?;
    let space = thread.address_space().ok_or(ESRCH)?;
    if !enabled().smep && !is_alone(thread, space) {
        return Err(EPERM);
    }
    let at = space.map(Place::Anywhere(0), PAGE_SIZE, Prot::RW.with(Prot::X), Content::Anonymous)?;
    let told = user_copy::write_bytes(at, &[user_attempt::RETURN]).map(|()| {
        // SAFETY: mapped for this, and present: it was written to. Nobody changes it before it is run: with SMEP it is not run at all; without, the
        // running thread alone has this memory, as was checked, and only it could make another user of it (fork, clone). A tracer that attaches
        // meanwhile, or opens /proc/PID/mem, is root's, as all programs are, and would have to find the page in this moment.
        unsafe { user_attempt::all(at) }
    });
    space.unmap(at, PAGE_SIZE)?;
    for (how, refused) in ["read", "write", "run"].iter().zip(told?) {
        let _ = match refused {
            Some(code) => write!(out, "{how}=refused code={code:#x} "),
            None => write!(out, "{how}=taken "),
        };
    }
    out.push('\n');
    Ok(())
}

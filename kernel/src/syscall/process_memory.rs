//! process_vm_readv(2) and process_vm_writev(2): memory of another process, without the other's help.

use super::file::stretches;
use super::table::Calls;
use crate::errno::{EFAULT, EINVAL, ENOMEM, ESRCH, Errno, SysResult};
use crate::fs::user_buffer::UserBuffer;
use crate::mm::address_space::AddressSpace;
use crate::mm::user_copy;
use crate::process::tree;
use crate::system_call;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Numbers and handlers.
pub const CALLS: Calls = &[(310, process_vm_readv), (311, process_vm_writev)];

/// Bytes that are moved at once.
const CHUNK: usize = 4096;

/// The memory of the process that thread `tid` belongs to. ESRCH: there is none.
pub fn space_of(tid: u32) -> Result<Arc<AddressSpace>, Errno> {
    let thread = tree::find_thread(tid).ok_or(ESRCH)?;
    thread.process.address_space.lock().clone().ok_or(ESRCH)
}

/// A buffer of `CHUNK` bytes.
pub(super) fn chunk() -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(CHUNK).map_err(|_| ENOMEM)?;
    bytes.resize(CHUNK, 0);
    Ok(bytes)
}

/// (address, length) pairs of the other process's memory: addresses are looked at when they are used.
fn foreign(at: u64, count: u64) -> Result<Vec<[u64; 2]>, Errno> {
    const MOST: u64 = 1024;
    if count > MOST {
        return Err(EINVAL);
    }
    (0..count).map(|i| Ok(user_copy::read::<[u64; 2]>(at.wrapping_add(i * 16))?)).collect()
}

/// `step` moves up to so many bytes between the buffer and an address of the other process; how many.
fn each_piece(
    own: &mut UserBuffer,
    theirs: &[[u64; 2]],
    mut step: impl FnMut(&mut UserBuffer, u64, usize) -> Result<usize, Errno>,
) -> SysResult {
    let mut done = 0u64;
    for &[at, len] in theirs {
        let mut moved = 0;
        while moved < len && own.left() > 0 {
            let from = at.wrapping_add(moved);
            let to_page_end = (CHUNK as u64 - from % CHUNK as u64) as usize;
            let n = to_page_end.min((len - moved).min(own.left() as u64) as usize);
            match step(own, from, n) {
                Ok(got) if got > 0 => {
                    moved += got as u64;
                    done += got as u64;
                }
                _ if done > 0 => return Ok(done),
                Err(e) => return Err(e),
                Ok(_) => return Err(EFAULT),
            }
        }
    }
    Ok(done)
}

system_call! {
    /// process_vm_readv(2)
    process_vm_readv(pid, own, own_count, theirs, their_count, flags) {
        if flags != 0 {
            return Err(EINVAL);
        }
        let own = stretches(own, own_count)?;
        let theirs = foreign(theirs, their_count)?;
        let space = space_of(pid as u32)?;
        let mut bytes = chunk()?;
        each_piece(&mut UserBuffer::of(&own), &theirs, |own, from, n| {
            let got = space.read_foreign(from, &mut bytes[..n], false);
            own.put(&bytes[..got])
        })
    }
}

system_call! {
    /// process_vm_writev(2)
    process_vm_writev(pid, own, own_count, theirs, their_count, flags) {
        if flags != 0 {
            return Err(EINVAL);
        }
        let own = stretches(own, own_count)?;
        let theirs = foreign(theirs, their_count)?;
        let space = space_of(pid as u32)?;
        let mut bytes = chunk()?;
        each_piece(&mut UserBuffer::of(&own), &theirs, |own, to, n| {
            let n = own.take(&mut bytes[..n])?;
            Ok(space.write_foreign(to, &bytes[..n], false))
        })
    }
}

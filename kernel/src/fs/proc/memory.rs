//! /proc/PID/mem and /proc/PID/auxv: a program's memory as its debugger reads and writes it.

use crate::errno::{EFAULT, EIO, ENOMEM, Errno};
use crate::fs::open_file::{File, How};
use crate::fs::user_buffer::UserBuffer;
use crate::mm::address_space::AddressSpace;
use crate::process::Process;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// An open mem: the memory that the program had at the open, also after its execve. `None`: it has none.
struct Memory(Option<Arc<AddressSpace>>);

/// Bytes that are moved at once.
const CHUNK: usize = 4096;

/// Open the memory of the process behind `pid`.
pub fn open(pid: u64) -> Arc<dyn File> {
    let process = super::process::process(pid).ok();
    Arc::new(Memory(process.and_then(|p| p.address_space.lock().clone())))
}

fn chunk() -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(CHUNK).map_err(|_| ENOMEM)?;
    bytes.resize(CHUNK, 0);
    Ok(bytes)
}

impl File for Memory {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let Some(space) = &self.0 else { return Ok(0) };
        let mut bytes = chunk()?;
        let mut done = 0;
        while to.left() > 0 {
            let n = to.left().min(CHUNK);
            let got = space.read_foreign(how.offset.wrapping_add(done as u64), &mut bytes[..n], true);
            match to.put(&bytes[..got]) {
                Ok(put) => done += put,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
            if got < n {
                break;
            }
        }
        if done == 0 && to.left() > 0 { Err(EIO) } else { Ok(done) }
    }

    fn write(&self, from: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let Some(space) = &self.0 else { return Ok(0) };
        let mut bytes = chunk()?;
        let mut done = 0;
        while from.left() > 0 {
            let n = match from.take(&mut bytes) {
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            let put = space.write_foreign(how.offset.wrapping_add(done as u64), &bytes[..n], true);
            done += put;
            if put < n {
                break;
            }
        }
        if done == 0 && from.left() > 0 { Err(EIO) } else { Ok(done) }
    }
}

/// The auxiliary vector as it lies on the program's stack.
fn auxiliary(process: &Process) -> Result<Vec<u8>, Errno> {
    let space = process.address_space.lock().clone();
    let Some(space) = space else { return Ok(Vec::new()) };
    let mut at = process.stack_start.load(Ordering::Relaxed);
    let mut next = || {
        let mut word = [0; 8];
        let whole = space.read_foreign(at, &mut word, true) == word.len();
        at += 8;
        if whole { Ok(u64::from_le_bytes(word)) } else { Err(EFAULT) }
    };
    next()?; // argc
    for _ in ["arguments", "environment"] {
        while next()? != 0 {}
    }
    let mut out = Vec::new();
    loop {
        let pair = [next()?, next()?];
        pair.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        if pair[0] == 0 {
            return Ok(out);
        }
    }
}

/// An open auxv.
struct Auxiliary(Option<Arc<Process>>);

/// Open that of the process behind `pid`.
pub fn open_auxiliary(pid: u64) -> Arc<dyn File> {
    Arc::new(Auxiliary(super::process::process(pid).ok()))
}

impl File for Auxiliary {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        let bytes = self.0.as_ref().map_or(Ok(Vec::new()), |p| auxiliary(p))?;
        to.put(&bytes[(how.offset as usize).min(bytes.len())..])
    }
}

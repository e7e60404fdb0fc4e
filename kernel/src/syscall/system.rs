//! System calls about the machine: its name, memory, random bytes, its end.

use super::table::Calls;
use crate::arch::power::{End, end};
use crate::arch::tsc;
use crate::errno::{EFAULT, EINVAL, SysResult};
use crate::mm::{frame, user_copy};
use crate::process::random;
use crate::sched::task;
use crate::system_call;

/// Numbers and handlers.
pub const CALLS: Calls = &[(63, uname), (99, sysinfo), (162, sync), (169, reboot), (318, getrandom)];

/// What uname(2) says: a program that asks for features by version gets one that has static programs' needs.
pub const RELEASE: &str = "6.1.0-quiesce";

system_call! {
    /// uname(2)
    uname(at) {
        const FIELD: usize = 65;
        let version = concat!("#1 SMP Quiesce ", env!("CARGO_PKG_VERSION"));
        let fields = ["Linux", "quiesce", RELEASE, version, "x86_64", "(none)"];
        let mut out = [0u8; FIELD * 6];
        for (field, text) in out.chunks_exact_mut(FIELD).zip(fields) {
            field[..text.len()].copy_from_slice(text.as_bytes());
        }
        user_copy::write_bytes(at, &out)?;
        Ok(0)
    }
}

system_call! {
    /// sysinfo(2)
    sysinfo(at) {
        let mut words = [0u64; 14];
        words[0] = tsc::now_ns() / 1_000_000_000;
        words[4] = frame::ram_bytes();
        words[5] = frame::free_bytes();
        words[10] = task::count() as u64; // procs: a u16, the padding behind it is zero
        words[13] = 1; // mem_unit
        user_copy::write_bytes(at, words.map(u64::to_le_bytes).as_flattened())?;
        Ok(0)
    }
}

system_call! {
    /// sync(2): nothing is kept on a disk.
    sync() { Ok(0) }
}

system_call! {
    /// reboot(2)
    reboot(magic, magic2, command) {
        const MAGIC: u32 = 0xfee1_dead;
        const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
        const RESTART: u32 = 0x0123_4567;
        const HALT: u32 = 0xcdef_0123;
        const POWER_OFF: u32 = 0x4321_fedc;
        const CAD: [u32; 2] = [0, 0x89ab_cdef];
        if magic as u32 != MAGIC || !MAGIC2.contains(&(magic2 as u32)) {
            return Err(EINVAL);
        }
        let what = match command as u32 {
            POWER_OFF => "Power down",
            RESTART => "Restarting system",
            HALT => "System halted",
            c if CAD.contains(&c) => return Ok(0),
            _ => return Err(EINVAL),
        };
        crate::info!("reboot: {what}");
        crate::trace::stream::finish();
        end(End::PowerOff)
    }
}

system_call! {
    /// getrandom(2)
    getrandom(at, len, flags) {
        const RANDOM: u64 = 2;
        const INSECURE: u64 = 4;
        if flags & !7 != 0 || flags & (RANDOM | INSECURE) == RANDOM | INSECURE {
            return Err(EINVAL);
        }
        fill(at, len.min(32 << 20))
    }
}

fn fill(at: u64, len: u64) -> SysResult {
    let mut done = 0;
    while done < len {
        let mut chunk = [0u8; 256];
        let n = (len - done).min(256) as usize;
        random::fill(&mut chunk[..n]);
        if user_copy::write_bytes(at + done, &chunk[..n]).is_err() {
            return if done > 0 { Ok(done) } else { Err(EFAULT) };
        }
        done += n as u64;
    }
    Ok(len)
}

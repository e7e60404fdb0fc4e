//! System calls about the machine: its name, memory, random bytes, its end.

use super::table::Calls;
use crate::arch::power::{End, end};
use crate::arch::tsc;
use crate::console;
use crate::errno::{EFAULT, EINVAL, ENOMEM, Errno, SysResult};
use crate::mm::{frame, user_copy};
use crate::process::random;
use crate::sched::task;
use crate::spin_lock::{SpinLock, rank};
use crate::system_call;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

/// Numbers and handlers.
pub const CALLS: Calls = &[
    (63, uname),
    (99, sysinfo),
    (103, syslog),
    (162, sync),
    (169, reboot),
    (170, sethostname),
    (171, setdomainname),
    (318, getrandom),
];

/// What uname(2) says: a program that asks for features by version gets one that has static programs' needs.
pub const RELEASE: &str = "6.1.0-quiesce";

/// A name that root may change: utsname's field and its length.
struct Name {
    text: [u8; NAME_MAX],
    len: usize,
}

impl Name {
    const fn new(text: &[u8]) -> Name {
        let mut name = Name { text: [0; NAME_MAX], len: text.len() };
        let mut i = 0;
        while i < text.len() {
            name.text[i] = text[i];
            i += 1;
        }
        name
    }

    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// Longest name (Linux's __NEW_UTS_LEN).
const NAME_MAX: usize = 64;
static HOST: SpinLock<Name, { rank::FILE }> = SpinLock::new(Name::new(b"quiesce"));
static DOMAIN: SpinLock<Name, { rank::FILE }> = SpinLock::new(Name::new(b"(none)"));

fn set_name(name: &SpinLock<Name, { rank::FILE }>, at: u64, len: u64) -> SysResult {
    let len = usize::try_from(len).ok().filter(|&n| n <= NAME_MAX).ok_or(EINVAL)?;
    let mut new = Name { text: [0; NAME_MAX], len };
    user_copy::read_bytes(at, &mut new.text[..len])?;
    *name.lock() = new;
    Ok(0)
}

system_call! {
    /// sethostname(2)
    sethostname(at, len) { set_name(&HOST, at, len) }
}
system_call! {
    /// setdomainname(2)
    setdomainname(at, len) { set_name(&DOMAIN, at, len) }
}
system_call! {
    /// uname(2)
    uname(at) {
        const FIELD: usize = NAME_MAX + 1;
        let version = concat!("#1 SMP Quiesce ", env!("CARGO_PKG_VERSION"));
        let mut out = [0u8; FIELD * 6];
        let mut put = |index: usize, text: &[u8]| out[index * FIELD..index * FIELD + text.len()].copy_from_slice(text);
        put(0, b"Linux");
        put(1, HOST.lock().as_bytes());
        put(2, RELEASE.as_bytes());
        put(3, version.as_bytes());
        put(4, b"x86_64");
        put(5, DOMAIN.lock().as_bytes());
        user_copy::write_bytes(at, &out)?;
        Ok(0)
    }
}

/// Where syslog(2) READ is, and what CLEAR hides: positions in the log.
static READ_TO: AtomicU64 = AtomicU64::new(0);
static CLEARED: AtomicU64 = AtomicU64::new(0);

/// The log from position `from` on, each line with its priority before it; and where it ends.
fn log_lines(from: u64) -> Result<(Vec<u8>, u64), Errno> {
    let mut text = Vec::new();
    text.try_reserve_exact(console::LOG_SIZE).map_err(|_| ENOMEM)?;
    text.resize(console::LOG_SIZE, 0);
    let (n, end) = console::read_log(from, &mut text);
    // What was overwritten took the first line's start along.
    let start = if end - n as u64 > from { text[..n].iter().position(|&b| b == b'\n').map_or(n, |i| i + 1) } else { 0 };
    let mut out = Vec::new();
    for line in text[start..n].split_inclusive(|&b| b == b'\n') {
        out.extend_from_slice(b"<6>");
        out.extend_from_slice(line);
    }
    Ok((out, end))
}

system_call! {
    /// syslog(2). The console's level is the command line's; those requests change nothing.
    syslog(action, at, len) {
        const READ: u64 = 2;
        const READ_ALL: u64 = 3;
        const READ_CLEAR: u64 = 4;
        const CLEAR: u64 = 5;
        const CONSOLE_LEVEL: u64 = 8;
        const SIZE_UNREAD: u64 = 9;
        const SIZE_BUFFER: u64 = 10;
        let reads = matches!(action, READ..=READ_CLEAR);
        if reads && (at == 0 || (len as i32) < 0) || action == CONSOLE_LEVEL && !(1..=8).contains(&len) {
            return Err(EINVAL);
        }
        match action {
            0 | 1 | 6 | 7 | CONSOLE_LEVEL => Ok(0),
            CLEAR => {
                CLEARED.store(console::read_log(u64::MAX, &mut []).1, Ordering::Relaxed);
                Ok(0)
            }
            READ => {
                let (text, end) = log_lines(READ_TO.load(Ordering::Relaxed))?;
                let n = text.len().min(len as usize);
                user_copy::write_bytes(at, &text[..n])?;
                READ_TO.store(end, Ordering::Relaxed);
                Ok(n as u64)
            }
            READ_ALL | READ_CLEAR => {
                let (text, end) = log_lines(CLEARED.load(Ordering::Relaxed))?;
                // The last whole lines that fit.
                let from = text.len().saturating_sub(len as usize);
                let whole = |&i: &usize| i == 0 || text[i - 1] == b'\n';
                let from = (from..text.len()).find(whole).unwrap_or(text.len());
                user_copy::write_bytes(at, &text[from..])?;
                if action == READ_CLEAR {
                    CLEARED.store(end, Ordering::Relaxed);
                }
                Ok((text.len() - from) as u64)
            }
            SIZE_UNREAD => Ok(log_lines(READ_TO.load(Ordering::Relaxed))?.0.len() as u64),
            SIZE_BUFFER => Ok(console::LOG_SIZE as u64),
            _ => Err(EINVAL),
        }
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

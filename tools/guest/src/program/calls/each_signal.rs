//! The listed calls about signals: rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack, kill, tkill, tgkill.

use super::each::{KERNEL, NOWHERE, at, gives, refused, seen, to};
use super::{Check, ensure, equal, in_child};
use crate::linux::{self, Ended, Fork};
use libc::{
    EFAULT, EINVAL, ENOMEM, EPERM, ESRCH, SYS_kill, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn,
    SYS_sigaltstack, SYS_tgkill, SYS_tkill,
};
use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("each_rt_sigaction", rt_sigaction),
    ("each_rt_sigprocmask", rt_sigprocmask),
    ("each_rt_sigreturn", rt_sigreturn),
    ("each_sigaltstack", sigaltstack),
    ("each_kill", kill),
];

const USR1: u64 = libc::SIGUSR1 as u64;
const NOBODY: u64 = 4_000_000;

static COUNT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(_: c_int) {
    COUNT.fetch_add(1, Ordering::SeqCst);
}

fn install(handler: extern "C" fn(c_int)) -> Result<(), String> {
    linux::set_signal(libc::SIGUSR1, linux::Disposition::Call(handler)).map_err(|e| e.to_string())
}

fn blocked() -> Result<u64, String> {
    let mut mask = u64::MAX;
    gives(SYS_rt_sigprocmask, &[0, 0, to(&mut mask), 8], 0)?;
    Ok(mask)
}

fn rt_sigaction() -> Result<(), String> {
    const RESTART: u64 = 0x1000_0000;
    // The kernel's form: handler, flags, restorer, mask.
    let ignore = [1u64, RESTART, 0, 1 << 3 | 1 << 8 | 1 << 18];
    let mut old = [9u64; 4];
    gives(SYS_rt_sigaction, &[USR1, at(&ignore), to(&mut old), 8], 0)?;
    equal!(old, [0; 4]);
    gives(SYS_rt_sigaction, &[USR1, 0, to(&mut old), 8], 0)?;
    equal!(old, [1, RESTART, 0, 1 << 3]); // SIGKILL and SIGSTOP are never kept off
    gives(SYS_rt_sigaction, &[64, at(&ignore), 0, 8], 0)?;
    gives(SYS_rt_sigaction, &[9, 0, to(&mut old), 8], 0)?; // asking is allowed
    equal!(old[0], 0);
    for signal in [9, 19] {
        refused(SYS_rt_sigaction, &[signal, at(&ignore), 0, 8], EINVAL)?;
    }
    for signal in [0, 65, u64::MAX] {
        refused(SYS_rt_sigaction, &[signal, 0, to(&mut old), 8], EINVAL)?;
    }
    refused(SYS_rt_sigaction, &[USR1, at(&ignore), 0, 16], EINVAL)?;
    refused(SYS_rt_sigaction, &[USR1, KERNEL, 0, 8], EFAULT)?;
    refused(SYS_rt_sigaction, &[USR1, 0, NOWHERE, 8], EFAULT)?;
    // What is ignored from now on does not wait any more.
    let default = [0u64; 4];
    gives(SYS_rt_sigaction, &[USR1, at(&default), 0, 8], 0)?;
    gives(SYS_rt_sigprocmask, &[0, at(&(1u64 << (USR1 - 1))), 0, 8], 0)?;
    gives(SYS_kill, &[linux::own_pid() as u64, USR1], 0)?;
    gives(SYS_rt_sigaction, &[USR1, at(&ignore), 0, 8], 0)?;
    gives(SYS_rt_sigaction, &[USR1, at(&default), 0, 8], 0)?;
    gives(SYS_rt_sigprocmask, &[1, at(&(1u64 << (USR1 - 1))), 0, 8], 0)?;
    Ok(())
}

fn rt_sigprocmask() -> Result<(), String> {
    let set = |signals: &[u64]| signals.iter().map(|s| 1u64 << (s - 1)).sum::<u64>();
    let mut old = u64::MAX;
    gives(SYS_rt_sigprocmask, &[2, at(&set(&[10, 40])), to(&mut old), 8], 0)?;
    equal!((old, blocked()?), (0, set(&[10, 40])));
    gives(SYS_rt_sigprocmask, &[0, at(&set(&[12])), 0, 8], 0)?;
    gives(SYS_rt_sigprocmask, &[1, at(&set(&[40])), to(&mut old), 8], 0)?;
    equal!((old, blocked()?), (set(&[10, 12, 40]), set(&[10, 12])));
    gives(SYS_rt_sigprocmask, &[2, at(&u64::MAX), 0, 8], 0)?;
    equal!(blocked()?, !set(&[9, 19]));
    // A child inherits it.
    let mask = blocked()?;
    equal!(in_child(|| u8::from(blocked() != Ok(mask)))?, Ended::Exit(0));
    gives(SYS_rt_sigprocmask, &[2, at(&0u64), 0, 8], 0)?;
    gives(SYS_rt_sigprocmask, &[99, 0, to(&mut old), 8], 0)?; // nothing to do: how does not matter
    refused(SYS_rt_sigprocmask, &[3, at(&0u64), 0, 8], EINVAL)?;
    refused(SYS_rt_sigprocmask, &[0, at(&0u64), 0, 4], EINVAL)?;
    refused(SYS_rt_sigprocmask, &[0, KERNEL, 0, 8], EFAULT)?;
    refused(SYS_rt_sigprocmask, &[0, 0, NOWHERE, 8], EFAULT)?;
    Ok(())
}

static IN_HANDLER: AtomicU64 = AtomicU64::new(0);

extern "C" fn mask_seen(_: c_int) {
    let mut mask = 0u64;
    let _ = super::call(SYS_rt_sigprocmask, [0, 0, to(&mut mask), 8, 0, 0]);
    IN_HANDLER.store(mask, Ordering::SeqCst);
}

/// A handler's end brings the mask back; without a frame there is nothing to go back to.
fn rt_sigreturn() -> Result<(), String> {
    install(mask_seen)?;
    let pid = linux::own_pid() as u64;
    let mask = 1u64 << 39;
    gives(SYS_rt_sigprocmask, &[2, at(&mask), 0, 8], 0)?;
    gives(SYS_kill, &[pid, USR1], 0)?;
    equal!(IN_HANDLER.load(Ordering::SeqCst), mask | 1 << (USR1 - 1));
    equal!(blocked()?, mask);
    seen(SYS_rt_sigreturn, Ok(()));
    let ended = in_child(|| {
        // SAFETY: (1) a child of the check's own, which does not come back from this.
        unsafe { std::arch::asm!("mov rsp, 4096", "mov eax, 15", "syscall", "ud2", options(noreturn)) }
    })?;
    equal!(ended, Ended::Signal(libc::SIGSEGV));
    seen(SYS_rt_sigreturn, Err(()));
    Ok(())
}

static ROOM: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_the_stack(_: c_int) {
    let room = ROOM.load(Ordering::SeqCst);
    let here = 0u8;
    let inside = (room..room + 65536).contains(&at(&here));
    let mut now = [0u64; 3];
    let asked = gives(SYS_sigaltstack, &[0, to(&mut now)], 0).is_ok();
    let kept = refused(SYS_sigaltstack, &[at(&[0u64, 2, 0]), 0], EPERM).is_ok();
    if inside && asked && kept && now[..2] == [room, 1] {
        COUNT.fetch_add(1, Ordering::SeqCst);
    }
}

fn sigaltstack() -> Result<(), String> {
    const DISABLED: u64 = 2;
    let mut room = vec![0u8; 65536];
    let start = to(&mut room[..]);
    ROOM.store(start, Ordering::SeqCst);
    let mut old = [9u64; 3];
    // Rust's runtime has given the first thread one, for its guard page.
    gives(SYS_sigaltstack, &[at(&[0u64, DISABLED, 0]), 0], 0)?;
    gives(SYS_sigaltstack, &[at(&[start, 0, 65536]), to(&mut old)], 0)?;
    equal!((old[0], old[1] & 0xffff_ffff, old[2]), (0, DISABLED, 0));
    gives(SYS_sigaltstack, &[0, to(&mut old)], 0)?;
    equal!((old[0], old[1] & 0xffff_ffff, old[2]), (start, 0, 65536));
    let action = [on_the_stack as *const () as u64, 0x0c00_0000, restorer as *const () as u64, 0];
    gives(SYS_rt_sigaction, &[USR1, at(&action), 0, 8], 0)?;
    gives(SYS_kill, &[linux::own_pid() as u64, USR1], 0)?;
    equal!(COUNT.load(Ordering::SeqCst), 1);
    refused(SYS_sigaltstack, &[at(&[start, 0, 2047]), 0], ENOMEM)?;
    refused(SYS_sigaltstack, &[at(&[start, 4, 65536]), 0], EINVAL)?;
    refused(SYS_sigaltstack, &[KERNEL, 0], EFAULT)?;
    refused(SYS_sigaltstack, &[0, NOWHERE], EFAULT)?;
    gives(SYS_sigaltstack, &[0, to(&mut old)], 0)?;
    equal!(old[0], start); // what was refused changed nothing
    gives(SYS_sigaltstack, &[at(&[start, DISABLED, 1]), 0], 0)?;
    gives(SYS_sigaltstack, &[0, to(&mut old)], 0)?;
    equal!((old[0], old[1] & 0xffff_ffff, old[2]), (0, DISABLED, 0));
    Ok(())
}

/// What a handler returns to.
#[unsafe(naked)]
unsafe extern "C" fn restorer() {
    std::arch::naked_asm!("mov eax, 15", "syscall")
}

fn kill() -> Result<(), String> {
    install(note)?;
    let me = linux::own_pid() as u64;
    gives(SYS_kill, &[me, USR1], 0)?;
    gives(SYS_kill, &[0, USR1], 0)?; // the group
    gives(SYS_kill, &[-(me as i64) as u64, USR1], 0)?;
    gives(SYS_tkill, &[me, USR1], 0)?;
    gives(SYS_tgkill, &[me, me, USR1], 0)?;
    equal!(COUNT.load(Ordering::SeqCst), 5);
    for (number, args) in [(SYS_kill, [me, 0, 0]), (SYS_tkill, [me, 0, 0]), (SYS_tgkill, [me, me, 0])] {
        gives(number, &args, 0)?; // no signal: is it there
    }
    let Fork::Parent(child) = linux::fork().map_err(|e| e.to_string())? else { linux::exit_now(0) };
    let _ = super::call(libc::SYS_waitid, [1, child as u64, 0, 4 | 0x0100_0000, 0, 0]);
    gives(SYS_kill, &[child as u64, USR1], 0)?; // it has ended and is there until it is waited for
    linux::wait_for(child).map_err(|e| e.to_string())?;
    refused(SYS_kill, &[child as u64, USR1], ESRCH)?;
    refused(SYS_kill, &[NOBODY, USR1], ESRCH)?;
    refused(SYS_kill, &[-(NOBODY as i64) as u64, USR1], ESRCH)?;
    refused(SYS_kill, &[i64::from(i32::MIN) as u64, USR1], ESRCH)?;
    refused(SYS_tkill, &[NOBODY, USR1], ESRCH)?;
    refused(SYS_tgkill, &[me, NOBODY, USR1], ESRCH)?;
    refused(SYS_tgkill, &[NOBODY, me, USR1], ESRCH)?; // not of that process
    for signal in [65, u64::MAX] {
        refused(SYS_kill, &[me, signal], EINVAL)?;
        refused(SYS_tkill, &[me, signal], EINVAL)?;
        refused(SYS_tgkill, &[me, me, signal], EINVAL)?;
    }
    for id in [0, u64::MAX] {
        refused(SYS_tkill, &[id, USR1], EINVAL)?;
        refused(SYS_tgkill, &[me, id, USR1], EINVAL)?;
        refused(SYS_tgkill, &[id, me, USR1], EINVAL)?;
    }
    // To one thread.
    let ended = in_child(|| {
        let me = linux::own_pid() as u64;
        let thread = std::thread::spawn(move || {
            let tid = super::call(libc::SYS_gettid, [0; 6]).unwrap_or(0);
            let before = COUNT.load(Ordering::SeqCst);
            let sent = gives(SYS_tgkill, &[me, tid, USR1], 0).is_ok() && gives(SYS_tkill, &[tid, USR1], 0).is_ok();
            sent && COUNT.load(Ordering::SeqCst) == before + 2
        });
        u8::from(!thread.join().unwrap_or(false))
    })?;
    equal!(ended, Ended::Exit(0));
    ensure!(COUNT.load(Ordering::SeqCst) == 5);
    Ok(())
}

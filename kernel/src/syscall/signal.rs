//! System calls about signals.

use super::table::Calls;
use crate::arch::tsc;
use crate::errno::{EAGAIN, EFAULT, EINTR, EINVAL, ENOMEM, EPERM, ERESTARTNOHAND, ESRCH, Errno, SysResult};
use crate::mm::user_copy;
use crate::process::signal::{self, Action, Info, UNBLOCKABLE, bit, sig};
use crate::process::signal_frame::{self, AUTO_DISARM, AlternateStack, DISABLED, ON_STACK};
use crate::process::{Process, current, current_thread, tree};
use crate::system_call;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// Numbers and handlers. rt_sigreturn is in `frame_call`.
pub const CALLS: Calls = &[
    (13, rt_sigaction),
    (14, rt_sigprocmask),
    (34, pause),
    (62, kill),
    (127, rt_sigpending),
    (128, rt_sigtimedwait),
    (129, rt_sigqueueinfo),
    (130, rt_sigsuspend),
    (131, sigaltstack),
    (200, tkill),
    (234, tgkill),
];

const SET_SIZE: u64 = 8;

pub(super) fn number(signal: u64) -> Result<u32, Errno> {
    if (1..=sig::MAX as u64).contains(&signal) { Ok(signal as u32) } else { Err(EINVAL) }
}

system_call! {
    /// rt_sigaction(2)
    rt_sigaction(signal, new, old, size) {
        let signal = number(signal)?;
        if size != SET_SIZE {
            return Err(EINVAL);
        }
        let wanted = match new {
            0 => None,
            at => Some(user_copy::read::<[u64; 4]>(at)?),
        };
        if wanted.is_some() && UNBLOCKABLE & bit(signal) != 0 {
            return Err(EINVAL);
        }
        let mut actions = current().actions.lock();
        let before = actions.of(signal);
        if let Some([handler, flags, restorer, mask]) = wanted {
            actions.set(signal, Action { handler, flags, restorer, mask: mask & !UNBLOCKABLE });
        }
        let ignored = wanted.is_some() && actions.ignores(signal);
        drop(actions);
        if ignored {
            signal::forget(current(), signal);
        }
        if old != 0 {
            user_copy::write(old, &[before.handler, before.flags, before.restorer, before.mask])?;
        }
        Ok(0)
    }
}

system_call! {
    /// rt_sigprocmask(2)
    rt_sigprocmask(how, new, old, size) {
        if size != SET_SIZE {
            return Err(EINVAL);
        }
        let thread = current_thread();
        let before = thread.blocked.load(Ordering::Relaxed);
        if new != 0 {
            let set: u64 = user_copy::read(new)?;
            let after = match how {
                0 => before | set,
                1 => before & !set,
                2 => set,
                _ => return Err(EINVAL),
            };
            signal::set_blocked(thread, after);
        }
        if old != 0 {
            user_copy::write(old, &before)?;
        }
        Ok(0)
    }
}

system_call! {
    /// rt_sigpending(2)
    rt_sigpending(at, size) {
        if size > SET_SIZE {
            return Err(EINVAL);
        }
        let thread = current_thread();
        let set = (thread.pending.set() | thread.process.pending.set()) & thread.blocked.load(Ordering::Relaxed);
        user_copy::write_bytes(at, &set.to_le_bytes()[..size as usize])?;
        Ok(0)
    }
}

/// Sleep until a signal is to be handled.
fn wait_for_signal() -> Errno {
    let task = crate::sched::current();
    loop {
        task.state.prepare_sleep(true);
        if task.signal_pending.load(Ordering::SeqCst) {
            task.state.cancel_sleep();
            return ERESTARTNOHAND;
        }
        crate::sched::schedule();
    }
}

system_call! {
    /// pause(2)
    pause() { Err(wait_for_signal()) }
}
system_call! {
    /// rt_sigsuspend(2)
    rt_sigsuspend(at, size) {
        if size != SET_SIZE {
            return Err(EINVAL);
        }
        let set: u64 = user_copy::read(at)?;
        let thread = current_thread();
        thread.save_blocked(thread.blocked.load(Ordering::Relaxed));
        signal::set_blocked(thread, set);
        Err(wait_for_signal())
    }
}

system_call! {
    /// rt_sigtimedwait(2)
    rt_sigtimedwait(set, info, timeout, size) {
        if size != SET_SIZE {
            return Err(EINVAL);
        }
        let wanted: u64 = user_copy::read::<u64>(set)? & !UNBLOCKABLE;
        let deadline = match timeout {
            0 => None,
            at => Some(tsc::now().saturating_add(tsc::ns_to_ticks(super::time::read_duration(at)?))),
        };
        let thread = current_thread();
        let task = crate::sched::current();
        // Open for what is waited for, so that its sender wakes this thread.
        let before = thread.blocked.load(Ordering::Relaxed);
        thread.waits_for.store(before & wanted, Ordering::SeqCst);
        signal::set_blocked(thread, before & !wanted);
        let found = loop {
            task.state.prepare_sleep(true);
            if let Some(found) = thread.pending.take(wanted).or_else(|| thread.process.pending.take(wanted)) {
                task.state.cancel_sleep();
                break Ok(found);
            }
            if task.signal_pending.load(Ordering::SeqCst) && thread.deliverable() & !wanted != 0 {
                task.state.cancel_sleep();
                break Err(EINTR);
            }
            if thread.process.ending().is_some() || thread.must_end.load(Ordering::SeqCst) {
                task.state.cancel_sleep();
                break Err(EINTR);
            }
            match deadline {
                Some(d) if tsc::now() >= d => {
                    task.state.cancel_sleep();
                    break Err(EAGAIN);
                }
                Some(d) => crate::time::timer::sleep_until(task, d),
                None => crate::sched::schedule(),
            }
        };
        signal::set_blocked(thread, before);
        thread.waits_for.store(0, Ordering::SeqCst);
        let found = found?;
        if info != 0 {
            let mut words = [0u64; 16];
            signal_frame::fill_info(&mut words, &found);
            user_copy::write(info, &words)?;
        }
        Ok(found.signal as u64)
    }
}

system_call! {
    /// kill(2)
    kill(pid, signal) {
        let me = current_thread();
        if pid as u32 == me.process.pid && has_number(signal) && signal::send_to_self(me, signal as u32, true) {
            return Ok(0);
        }
        kill_any(pid, signal)
    }
}

/// Whether it is a signal's number.
#[inline(always)]
fn has_number(signal: u64) -> bool {
    signal.wrapping_sub(1) < sig::MAX as u64
}

#[inline(never)]
fn kill_any(pid: u64, signal: u64) -> SysResult {
    if signal > sig::MAX as u64 {
        return Err(EINVAL);
    }
    let signal = signal as u32;
    let me = current();
    let send = |p: &Arc<Process>| {
        if signal != 0 {
            signal::send_to_process(p, Info::from_user(signal));
        }
    };
    let to_many = |select: &dyn Fn(&Process) -> bool| {
        let found = match signal {
            0 => tree::each_live(select, |_| ()),
            _ => signal::send_to_many(select, Info::from_user(signal)),
        };
        if found == 0 { Err(ESRCH) } else { Ok(0) }
    };
    let group = |pgid: u32| to_many(&|p| p.pgid.load(Ordering::Relaxed) == pgid);
    match pid as i32 {
        pid if pid as u32 == me.pid => {
            send(&current_thread().process);
            Ok(0)
        }
        pid if pid > 0 => {
            let process = tree::find(pid as u32).ok_or(ESRCH)?;
            send(&process);
            Ok(0)
        }
        0 => group(me.pgid.load(Ordering::Relaxed)),
        -1 => to_many(&|p| p.pid > 1 && p.pid != me.pid),
        i32::MIN => Err(ESRCH),
        pgid => group(pgid.unsigned_abs()),
    }
}

fn to_thread(tgid: Option<u64>, tid: u64, signal: u64) -> SysResult {
    if signal > sig::MAX as u64 || tid as i32 <= 0 || tgid.is_some_and(|t| t as i32 <= 0) {
        return Err(EINVAL);
    }
    let me = current_thread();
    if tid as u32 == me.tid.load(Ordering::Relaxed)
        && tgid.is_none_or(|t| t as u32 == me.process.pid)
        && signal != 0
        && signal::send_to_self(me, signal as u32, false)
    {
        return Ok(0);
    }
    let thread = tree::find_thread(tid as u32).ok_or(ESRCH)?;
    if tgid.is_some_and(|t| t as u32 != thread.process.pid) {
        return Err(ESRCH);
    }
    if signal != 0 {
        signal::send_to_thread(&thread, Info::from_thread(signal as u32));
    }
    Ok(0)
}

system_call! {
    /// tkill(2)
    tkill(tid, signal) { to_thread(None, tid, signal) }
}
system_call! {
    /// tgkill(2)
    tgkill(tgid, tid, signal) { to_thread(Some(tgid), tid, signal) }
}
/// What the first `words` of a siginfo_t tell `process`. EPERM: it is what the kernel, or kill(2), says of somebody else.
pub(super) fn queued_info(signal: u32, words: [u64; 4], process: &Process) -> Result<Info, Errno> {
    let code = words[1] as i32;
    if (code >= 0 || code == -6) && process.pid != current().pid {
        return Err(EPERM);
    }
    let (pid, uid) = (words[2] as u32, (words[2] >> 32) as u32);
    Ok(Info { signal, code, pid, uid, value: words[3], address: 0 })
}

system_call! {
    /// rt_sigqueueinfo(2)
    rt_sigqueueinfo(pid, signal, at) {
        let signal = number(signal)?;
        let words = user_copy::read(at)?;
        let process = tree::find(pid as u32).ok_or(ESRCH)?;
        let info = queued_info(signal, words, &process)?;
        signal::send_to_process(&process, info);
        Ok(0)
    }
}

system_call! {
    /// sigaltstack(2)
    sigaltstack(new, old) {
        const SMALLEST: u64 = 2048;
        let thread = current_thread();
        // The stack pointer is in the frame that the entry path left at the top of the kernel stack.
        let frame_rsp = crate::sched::current().stack_top() - 16;
        // SAFETY: `rsp` is the second word from the top of a system call's frame.
        let rsp = unsafe { (frame_rsp as *const u64).read() };
        let before = thread.alternate_stack();
        if new != 0 {
            let [base, flags, size]: [u64; 3] = user_copy::read(new)?;
            if before.holds(rsp) && before.flags & AUTO_DISARM == 0 {
                return Err(EPERM);
            }
            let flags = flags as u32;
            let after = match flags & !AUTO_DISARM {
                DISABLED => AlternateStack::default(),
                0 | ON_STACK if size < SMALLEST => return Err(ENOMEM),
                0 | ON_STACK => AlternateStack { base, size, flags: flags & AUTO_DISARM },
                _ => return Err(EINVAL),
            };
            base.checked_add(size).ok_or(EFAULT)?;
            thread.set_alternate_stack(after);
        }
        if old != 0 {
            let flags = signal_frame::stack_flags(&before, rsp);
            user_copy::write(old, &[before.base, flags as u64, before.size])?;
        }
        Ok(0)
    }
}

//! What a pending signal does: it ends or stops the process, or its handler is what user mode goes on with.
//!
//! Called by the exit work alone, process context, in the thread that the signals are for. Source: signal(7).

use super::call_restart::restart_system_call;
use super::job_stop::{stop, wait_while_stopped};
use super::signal::{
    Action, DEFAULT, IGNORE, IGNORED_BY_DEFAULT, Info, SI_TKILL, STOPS, bit, force, is_dropped, kept_by, kill, sa,
    set_blocked, sig,
};
use super::{Process, Thread, ptrace, signal_frame, tree};
use crate::arch::irq_flag::IrqOff;
use crate::entry::exit_work;
use crate::entry::frame::Frame;
use crate::percpu;
use core::sync::atomic::Ordering;

/// Exit work: `deliver_pending` comes, and sees all that was sent up to now.
#[inline]
pub fn begin_delivery(irq_off: &IrqOff) {
    crate::sched::current().signal_pending.store(false, Ordering::SeqCst);
    percpu::this(irq_off).head.exit_work.fetch_and(!exit_work::SIGNAL, Ordering::SeqCst);
}

/// Exit work, after `begin_delivery`: end, stop, or handle signals, until none is left to handle now. `frame` is what user mode goes on with:
/// a handler, if true comes back, before which a restartable sequence was looked at.
#[inline(never)]
pub fn deliver_pending(frame: &mut Frame) -> bool {
    let Some(thread) = super::try_current_thread() else { return false };
    let own = thread.sent_to_self();
    if own.signal != 0 {
        if nothing_else(thread) {
            let action = thread.process.actions.lock().of(own.signal);
            if action.handler > IGNORE {
                let begins = begin_handler(frame, thread, &action, own);
                thread.clear_sent_to_self();
                return begins;
            }
        }
        queue_own(thread);
    }
    deliver_queued(frame, thread)
}

/// What the thread sent to itself is a signal like others from here on: what other threads may see in a queue (signalfd, rt_sigtimedwait), or, as with
/// `signal::send_to_process`, nothing.
#[cold]
#[inline(never)]
fn queue_own(thread: &Thread) {
    let info = *thread.sent_to_self();
    thread.clear_sent_to_self();
    if is_dropped(&thread.process, info.signal, kept_by(thread)) {
        return;
    }
    if info.code == SI_TKILL {
        thread.pending.add(info);
    } else {
        thread.process.pending.add(info);
    }
}

/// Nothing ends, stops or traces the running thread, and no other signal is to be handled now.
#[inline(always)]
fn nothing_else(thread: &Thread) -> bool {
    let process: &Process = &thread.process;
    let held = thread.traced.load(Ordering::SeqCst)
        | thread.must_end.load(Ordering::SeqCst)
        | process.stopped.load(Ordering::SeqCst);
    let waits = thread.pending.set() | process.pending.set();
    !held && process.ending().is_none() && waits & !thread.blocked.load(Ordering::SeqCst) == 0
}

#[inline(never)]
fn deliver_queued(frame: &mut Frame, thread: &Thread) -> bool {
    let process = &thread.process;
    loop {
        let traced = thread.traced.load(Ordering::SeqCst);
        let must_end = || thread.must_end.load(Ordering::SeqCst).then_some(0);
        if let Some(status) = process.ending().or_else(must_end) {
            if traced {
                ptrace::about_to_end(thread, frame, status);
            }
            super::exit::exit_thread(status);
        }
        if traced {
            if ptrace::take_due(thread, frame) {
                continue;
            }
        } else if process.stopped.load(Ordering::SeqCst) {
            wait_while_stopped(thread);
            continue;
        }
        let wanted = !thread.blocked.load(Ordering::SeqCst);
        let continues = || process.continues.load(Ordering::SeqCst);
        let mut info = Info::NONE;
        let own = thread.pending.take_and(wanted, &mut info, continues);
        let Some(continues) = own.or_else(|| process.pending.take_and(wanted, &mut info, continues)) else { break };
        if traced && info.signal != sig::KILL {
            match ptrace::signal_stop(thread, frame, info) {
                Some(info) if thread.blocked.load(Ordering::SeqCst) & bit(info.signal) != 0 => {
                    thread.pending.add(info);
                    continue;
                }
                Some(changed) => info = changed,
                None => continue,
            }
        }
        let action = process.actions.lock().of(info.signal);
        match action.handler {
            IGNORE => continue,
            DEFAULT => {
                if IGNORED_BY_DEFAULT & bit(info.signal) != 0 || process.pid == 1 {
                    continue;
                }
                if STOPS & bit(info.signal) != 0 {
                    let (pgid, sid) = (process.pgid.load(Ordering::Relaxed), process.sid.load(Ordering::Relaxed));
                    if info.signal != sig::STOP && tree::is_orphaned(pgid, sid) {
                        continue;
                    }
                    stop(thread, info.signal, continues);
                    continue;
                }
                kill(process, info.signal);
                continue;
            }
            _ => {}
        }
        if !begin_queued(frame, thread, &action, &info) {
            continue;
        }
        if traced {
            ptrace::handler_begins(thread, frame);
        }
        return true;
    }
    restart_system_call(frame, None);
    if let Some(old) = thread.take_saved_blocked() {
        set_blocked(thread, old);
    }
    false
}

/// `begin_handler` of a signal from a queue.
#[inline(never)]
fn begin_queued(frame: &mut Frame, thread: &Thread, action: &Action, info: &Info) -> bool {
    begin_handler(frame, thread, action, info)
}

/// The handler that `action` names for `info` is what `frame` goes on with. False: there is no stack for it, and the signal is gone: SIGSEGV
/// is due instead, or the process has to end.
#[inline(always)]
fn begin_handler(frame: &mut Frame, thread: &Thread, action: &Action, info: &Info) -> bool {
    if action.flags & sa::RESETHAND != 0 {
        core::hint::cold_path();
        thread.process.actions.lock().set(info.signal, Action::default());
    }
    // A tracer saw where the program was. The handler goes back to where a sequence that it was in starts anew.
    super::restartable::before_user_mode(frame, false);
    restart_system_call(frame, Some(action));
    let before = thread.blocked.load(Ordering::Relaxed);
    let old = thread.take_saved_blocked().unwrap_or(before);
    if signal_frame::push(frame, thread, action, info, old).is_err() {
        no_stack(frame, thread, info.signal, old);
        return false;
    }
    let mut blocked = before | action.mask;
    if action.flags & sa::NODEFER == 0 {
        blocked |= bit(info.signal);
    }
    set_blocked(thread, blocked);
    true
}

/// No stack to put the frame on: SIGSEGV, whose handler may have another one. Without that, or if it was SIGSEGV, the program ends. `old`: what is to be
/// blocked after the handler, whichever that is.
#[cold]
#[inline(never)]
fn no_stack(frame: &Frame, thread: &Thread, signal: u32, old: u64) {
    thread.save_blocked(old);
    if signal == sig::SEGV || thread.process.actions.lock().of(sig::SEGV).handler <= IGNORE {
        super::fault::say(thread, frame, format_args!("no stack for the frame of signal {signal}"));
    }
    if signal == sig::SEGV {
        kill(&thread.process, sig::SEGV);
    } else {
        force(Info::from_kernel(sig::SEGV));
    }
}

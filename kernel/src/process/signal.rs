//! Signals: sending and blocking. What a pending one does is `signal_delivery`'s work, frames for handlers are `signal_frame`'s.
//!
//! Sending: process context, also with the process tree locked, never with a lock of rank PROCESS_PART. A thread with something
//! to do has `signal_pending` set in its task, which is exit work: `deliver_pending` clears it first and looks then.
//! Source: signal(7); Linux kernel/signal.c for what that leaves open (who gets a signal, what init ignores).

pub use super::pending_signals::{file_queue, files_changed};
use super::{Process, Thread, current_thread, ptrace, tree};
use crate::arch::cpu_head;
use crate::entry::exit_work;
use crate::mm::user_context::info_at;
use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

/// Numbers (asm/signal.h).
#[allow(missing_docs, dead_code, reason = "the names say it; the lists are Linux's")]
pub mod sig {
    pub const ILL: u32 = 4;
    pub const TRAP: u32 = 5;
    pub const BUS: u32 = 7;
    pub const FPE: u32 = 8;
    pub const KILL: u32 = 9;
    pub const SEGV: u32 = 11;
    pub const PIPE: u32 = 13;
    pub const ALRM: u32 = 14;
    pub const CHLD: u32 = 17;
    pub const VTALRM: u32 = 26;
    pub const PROF: u32 = 27;
    pub const CONT: u32 = 18;
    pub const STOP: u32 = 19;
    pub const TSTP: u32 = 20;
    pub const TTIN: u32 = 21;
    pub const TTOU: u32 = 22;
    pub const URG: u32 = 23;
    pub const WINCH: u32 = 28;
    pub const SYS: u32 = 31;
    pub const RTMIN: u32 = 32;
    pub const MAX: u32 = 64;
}

/// The bit of a signal in a set.
#[inline]
pub const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

pub(super) const STOPS: u64 = bit(sig::STOP) | bit(sig::TSTP) | bit(sig::TTIN) | bit(sig::TTOU);
pub(super) const IGNORED_BY_DEFAULT: u64 = bit(sig::CHLD) | bit(sig::CONT) | bit(sig::URG) | bit(sig::WINCH);
/// Always do what they do by default.
pub const UNBLOCKABLE: u64 = bit(sig::KILL) | bit(sig::STOP);

/// Stops, goes on or ends at once, before it is taken out.
const ACTS_AT_ONCE: u64 = STOPS | bit(sig::CONT) | bit(sig::KILL);
/// si_code of tkill and tgkill.
pub(super) const SI_TKILL: i32 = -6;

/// SIG_DFL
pub const DEFAULT: u64 = 0;
/// SIG_IGN
pub const IGNORE: u64 = 1;
/// SA_* flags (asm/signal.h).
#[allow(missing_docs, dead_code, reason = "the names say it; the lists are Linux's")]
pub mod sa {
    pub const NOCLDSTOP: u64 = 1;
    pub const NOCLDWAIT: u64 = 2;
    pub const RESTORER: u64 = 0x0400_0000;
    pub const ONSTACK: u64 = 0x0800_0000;
    pub const RESTART: u64 = 0x1000_0000;
    pub const NODEFER: u64 = 0x4000_0000;
    pub const RESETHAND: u64 = 0x8000_0000;
}

/// What to do with one signal, as rt_sigaction has it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Action {
    /// DEFAULT, IGNORE or an address.
    pub handler: u64,
    /// SA_*.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// What is blocked while it runs.
    pub mask: u64,
}

/// A process's actions by signal number.
#[derive(Clone)]
pub struct SignalActions([Action; sig::MAX as usize]);

impl SignalActions {
    /// All default.
    pub const fn new() -> Self {
        Self([Action { handler: DEFAULT, flags: 0, restorer: 0, mask: 0 }; sig::MAX as usize])
    }

    /// The action of `signal`, 1 to 64.
    #[inline]
    pub fn of(&self, signal: u32) -> Action {
        self.0[signal as usize - 1]
    }

    /// Change it.
    pub fn set(&mut self, signal: u32, action: Action) {
        self.0[signal as usize - 1] = action;
    }

    /// exec: handlers are gone, what is ignored stays so.
    pub fn reset_for_exec(&mut self) {
        for action in &mut self.0 {
            let handler = if action.handler == IGNORE { IGNORE } else { DEFAULT };
            *action = Action { handler, ..Action::default() };
        }
    }

    /// Whether stops and continuations of children raise no SIGCHLD (SA_NOCLDSTOP).
    pub fn stops_of_children_are_silent(&self) -> bool {
        self.of(sig::CHLD).flags & sa::NOCLDSTOP != 0
    }

    /// Whether ended children are forgotten at once (SIGCHLD ignored, or SA_NOCLDWAIT).
    pub fn children_are_not_waited_for(&self) -> bool {
        let action = self.of(sig::CHLD);
        action.handler == IGNORE || action.flags & sa::NOCLDWAIT != 0
    }

    /// Whether `signal` does nothing: by SIG_IGN, or by default.
    pub fn ignores(&self, signal: u32) -> bool {
        match self.of(signal).handler {
            IGNORE => true,
            DEFAULT => IGNORED_BY_DEFAULT & bit(signal) != 0,
            _ => false,
        }
    }
}

/// What waits of `signal` for `process` and its threads goes: it is ignored from now on (POSIX, sigaction).
pub fn forget(process: &Process, signal: u32) {
    while process.pending.take(bit(signal)).is_some() {}
    let threads = process.threads.lock().clone();
    for thread in threads.iter().filter(|t| t.waits_for.load(Ordering::SeqCst) & bit(signal) == 0) {
        while thread.pending.take(bit(signal)).is_some() {}
    }
}

/// What comes with a signal (siginfo_t, as far as we fill it).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Number
    pub signal: u32,
    /// si_code
    pub code: i32,
    /// Sender, or child
    pub pid: u32,
    /// Its user
    pub uid: u32,
    /// si_status, or sigqueue's value
    pub value: u64,
    /// si_addr of faults
    pub address: u64,
}

const _: () = assert!(
    offset_of!(Info, signal) == info_at::SIGNAL
        && offset_of!(Info, code) == info_at::CODE
        && offset_of!(Info, pid) == info_at::SENDER
        && offset_of!(Info, uid) == info_at::SENDER + 4
        && offset_of!(Info, value) == info_at::VALUE
);

impl Info {
    /// No signal.
    pub(super) const NONE: Self = Self { signal: 0, code: 0, pid: 0, uid: 0, value: 0, address: 0 };

    /// From the kernel (SI_KERNEL).
    pub const fn from_kernel(signal: u32) -> Self {
        Self { signal, code: 0x80, pid: 0, uid: 0, value: 0, address: 0 }
    }

    /// From kill(2) (SI_USER) by the running process.
    pub fn from_user(signal: u32) -> Self {
        Self { signal, code: 0, pid: super::current().pid, uid: 0, value: 0, address: 0 }
    }

    /// From tkill or tgkill (SI_TKILL).
    pub fn from_thread(signal: u32) -> Self {
        Self { code: SI_TKILL, ..Self::from_user(signal) }
    }

    /// A fault at `address`.
    pub const fn fault(signal: u32, code: i32, address: u64) -> Self {
        Self { signal, code, pid: 0, uid: 0, value: 0, address }
    }
}

impl Thread {
    /// Signals that wait for this thread and are not blocked.
    #[inline]
    pub fn deliverable(&self) -> u64 {
        (self.pending.set() | self.process.pending.set()) & !self.blocked.load(Ordering::SeqCst)
    }

    /// Have the thread look at its signals, and wake it from an interruptible sleep.
    #[track_caller]
    fn notify(&self) {
        let _ = crate::sched::task::with(self.task, |t| crate::sched::notify_signal(t));
    }
}

/// Have `thread` look at what is due for it before user mode, and wake it from an interruptible sleep.
#[track_caller]
pub fn notify(thread: &Thread) {
    thread.notify();
}

/// A signal for the running thread that nobody sent and nothing drops.
pub fn post_to_self(thread: &Thread, info: Info) {
    thread.pending.add(info);
    look_again();
}

/// What a stop or continue signal does at once, whatever its action and mask.
#[inline]
fn prepare(process: &Arc<Process>, signal: u32) {
    if (STOPS | bit(sig::CONT)) & bit(signal) != 0 {
        take_out_opposite(process, signal);
    }
}

#[cold]
fn take_out_opposite(process: &Arc<Process>, signal: u32) {
    if STOPS & bit(signal) != 0 {
        process.pending.remove(bit(sig::CONT));
        threads(process).iter().for_each(|t| t.pending.remove(bit(sig::CONT)));
    } else if signal == sig::CONT {
        process.pending.remove(STOPS);
        threads(process).iter().for_each(|t| t.pending.remove(STOPS));
        // A stop that was taken out before this, but has not stopped the process yet, sees it (`stop`).
        process.continues.fetch_add(1, Ordering::SeqCst);
        go_on(process);
        ptrace::group_continue(process);
    }
}

pub(super) fn threads(process: &Process) -> alloc::vec::Vec<Arc<Thread>> {
    process.threads.lock().clone()
}

pub(super) fn go_on(process: &Process) {
    if process.stopped.swap(false, Ordering::SeqCst) {
        process.changed.wake_all();
    }
}

/// The signals that wait for `thread` even where they are ignored: it blocks them or waits for them, or its tracer is told of them.
#[inline(always)]
pub(super) fn kept_by(thread: &Thread) -> u64 {
    if thread.traced.load(Ordering::SeqCst) {
        return u64::MAX;
    }
    thread.waits_for.load(Ordering::SeqCst) | thread.blocked.load(Ordering::SeqCst)
}

/// Whether the signal changes nothing and is dropped: none of the `kept` ones, and ignored or the default action of the first process.
#[inline(always)]
pub(super) fn is_dropped(process: &Process, signal: u32, kept: u64) -> bool {
    if kept & bit(signal) != 0 {
        return false;
    }
    let actions = process.actions.lock();
    process.pid == 1 && actions.of(signal).handler == DEFAULT || actions.ignores(signal)
}

/// One of the threads of `process` that do not block all of `set` looks at its signals.
#[track_caller]
fn notify_one(process: &Process, set: u64, but: Option<u32>) -> bool {
    let takes = |t: &&Arc<Thread>| Some(t.task) != but && set & !t.blocked.load(Ordering::SeqCst) != 0;
    process.threads.lock().iter().find(takes).map(|t| t.notify()).is_some()
}

/// The running thread, which `set` of its process's signals may have been meant for, will not take them: others do.
#[track_caller]
pub fn leave_to_others(thread: &Thread, set: u64) {
    let mut left = thread.process.pending.set() & set;
    while left != 0 {
        let one = left & left.wrapping_neg();
        let _ = notify_one(&thread.process, one, Some(thread.task));
        left &= !one;
    }
}

/// What kill and tgkill do where the running thread is to take the signal itself, at the end of the call: it waits in the thread's own place,
/// for which nobody else looks, and delivery finds it there without a queue, an allocation or a lock. False: the general way has to be gone.
///
/// `to_process`: kill(2) of the own process. Its main thread takes that if it does not block it, so the caller has to be that one; nobody else
/// changes what it blocks. Nobody else sees it there. Delivery begins its handler, or drops it if it does nothing, or puts it into the queue where the
/// general way would have: only there another thread that blocks it may read it by signalfd or rt_sigtimedwait first.
#[inline(always)]
pub fn send_to_self(thread: &Thread, signal: u32, to_process: bool) -> bool {
    let process: &Process = &thread.process;
    if to_process && thread.tid.load(Ordering::Relaxed) != process.pid {
        return false;
    }
    // Those that act on other threads, and those that wait: blocked, or there already.
    let general = ACTS_AT_ONCE | thread.blocked.load(Ordering::Relaxed) | thread.pending.set() | process.pending.set();
    if general & bit(signal) != 0 || thread.traced.load(Ordering::SeqCst) {
        return false;
    }
    let code = if to_process { 0 } else { SI_TKILL };
    thread.set_sent_to_self(Info { signal, code, pid: process.pid, uid: 0, value: 0, address: 0 });
    look_again();
    true
}

/// Send to the process: one of its threads that does not block it gets it. See the module for where this may be called.
#[track_caller]
pub fn send_to_process(process: &Arc<Process>, info: Info) {
    let signal = info.signal;
    if signal == sig::KILL {
        if process.pid != 1 {
            kill(process, signal);
        }
        return;
    }
    prepare(process, signal);
    let (kept, is_own) = process.threads.lock().first().map_or((0, false), |first| {
        let takes = first.blocked.load(Ordering::SeqCst) & bit(signal) == 0;
        (kept_by(first), takes && super::try_current_thread().is_some_and(|me| core::ptr::eq(me, &**first)))
    });
    if is_dropped(process, signal, kept) {
        return;
    }
    // First to the queue, then the look for who takes it: one who opens its mask meanwhile looks itself.
    process.pending.add(info);
    if is_own {
        // The running thread would be found again: nobody else changes what it blocks.
        return look_again();
    }
    // Only now: who blocks the signal or ends from here on finds it pending and passes it on (`leave_to_others`).
    notify_one(process, bit(signal), None);
}

/// Send to one thread.
#[track_caller]
pub fn send_to_thread(thread: &Arc<Thread>, info: Info) {
    let signal = info.signal;
    if signal == sig::KILL {
        if thread.process.pid != 1 {
            kill(&thread.process, signal);
        }
        return;
    }
    prepare(&thread.process, signal);
    if is_dropped(&thread.process, signal, kept_by(thread)) {
        return;
    }
    thread.pending.add(info);
    // Only now: who unblocks it from here on finds it pending.
    if thread.blocked.load(Ordering::SeqCst) & bit(signal) == 0 {
        thread.notify();
    }
}

/// Send the expiry of a timer, to the process or to one thread of it. False: it is ignored.
pub fn send_expiry(process: &Arc<Process>, thread: Option<&Arc<Thread>>, info: Info) -> bool {
    if info.signal == sig::KILL {
        send_to_process(process, info);
        return true;
    }
    prepare(process, info.signal);
    let first = process.threads.lock().first().cloned();
    if is_dropped(process, info.signal, thread.or(first.as_ref()).map_or(0, |t| kept_by(t))) {
        return false;
    }
    match thread {
        Some(thread) => {
            thread.pending.add_expiry(info);
            if thread.blocked.load(Ordering::SeqCst) & bit(info.signal) == 0 {
                thread.notify();
            }
        }
        None => {
            process.pending.add_expiry(info);
            notify_one(process, bit(info.signal), None);
        }
    }
    true
}

/// Send to each live process that `select` takes. How many there are. Whom they fork meanwhile gets it too (`Thread::sent_to_many`).
#[track_caller]
pub fn send_to_many(select: impl FnMut(&Process) -> bool, info: Info) -> usize {
    // A stop and a continuation take each other out, as they do among pending signals.
    let undone = match info.signal {
        sig::CONT => STOPS,
        signal if STOPS & bit(signal) != 0 => bit(sig::CONT),
        _ => 0,
    };
    tree::each_live(select, |process| {
        for thread in process.threads.lock().iter() {
            thread.sent_to_many.fetch_and(!undone, Ordering::SeqCst);
            thread.sent_to_many.fetch_or(bit(info.signal), Ordering::SeqCst);
        }
        send_to_process(process, info);
    })
}

/// Send to all processes of a group. How many there are.
#[track_caller]
pub fn send_to_group(pgid: u32, info: Info) -> usize {
    send_to_many(|p| p.pgid.load(Ordering::Relaxed) == pgid, info)
}

/// The signals of `set`, whose senders are not known any more, to a process that has not run yet.
#[track_caller]
pub fn send_set(process: &Arc<Process>, set: u64) {
    (1..=sig::MAX)
        .filter(|&signal| set & bit(signal) != 0)
        .for_each(|signal| send_to_process(process, Info { code: 0, ..Info::from_kernel(signal) }));
}

/// All threads end with `status`.
#[track_caller]
pub fn kill(process: &Process, status: u32) {
    process.set_ending(status);
    if status == sig::KILL {
        process.killed.store(true, Ordering::SeqCst);
    }
    process.stopped.store(false, Ordering::SeqCst);
    for thread in threads(process) {
        thread.notify();
        // A stopped thread does not sleep interruptibly.
        process.changed.wake_all();
    }
}

/// A fault of the running thread: the signal cannot be blocked or ignored, only handled. Kills the process otherwise.
pub fn force(info: Info) {
    let thread = current_thread();
    let blocked = thread.blocked.load(Ordering::SeqCst) & bit(info.signal) != 0;
    let mut actions = thread.process.actions.lock();
    let handler = actions.of(info.signal).handler;
    let traced = thread.traced.load(Ordering::SeqCst);
    if traced {
        if blocked || handler == IGNORE {
            actions.set(info.signal, Action::default());
            thread.blocked.fetch_and(!bit(info.signal), Ordering::SeqCst);
        }
    } else if blocked || handler == IGNORE || handler == DEFAULT {
        actions.set(info.signal, Action::default());
        drop(actions);
        kill(&thread.process, info.signal);
        return;
    }
    drop(actions);
    thread.pending.add(info);
    look_again();
}

/// Have the running thread look at its signals before it goes back to user mode.
#[inline]
pub fn look_again() {
    crate::sched::current().signal_pending.store(true, Ordering::SeqCst);
    // Whoever is moved to another CPU before this has the bit there, by the switch.
    cpu_head::add_exit_work(exit_work::SIGNAL);
}

/// Change the running thread's blocked set; signals that are not blocked any more are handled before user mode.
#[inline(always)]
pub fn set_blocked(thread: &Thread, set: u64) {
    let set = set & !UNBLOCKABLE;
    let newly = set & !thread.blocked.swap(set, Ordering::SeqCst);
    // Mostly nothing waits at all. Looked for after the change: who sends from here on sees the new set.
    if thread.pending.set() | thread.process.pending.set() != 0 {
        core::hint::cold_path();
        blocked_changed(thread, newly);
    }
}

/// The running thread blocks `newly`, and something waits.
#[inline(never)]
fn blocked_changed(thread: &Thread, newly: u64) {
    leave_to_others(thread, newly);
    if thread.deliverable() != 0 {
        look_again();
    }
}

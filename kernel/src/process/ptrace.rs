//! ptrace(2): who traces whom, and how a traced thread stops and goes on. What it stops for decides `kcore::ptrace`.
//!
//! One lock for all of it (rank TRACED): a thread that is not traced takes it never and finds that out by one flag. A thread that stops
//! leaves its registers in `Thread::stopped`, sleeps, and takes them up again, changed or not: nobody touches its kernel stack.
//! Requests come from the tracing thread, by `with_stopped`. Process context; user memory is not touched with the lock held.

use super::ptrace_registers::Registers;
use super::signal::{self, Info, sig};
use super::{Process, Thread, current_thread, tree};
use crate::arch::irq_flag::IrqOff;
use crate::entry::frame::Frame;
use crate::errno::{EINVAL, EIO, EPERM, ESRCH, Errno};
use crate::sched::{self, switch, task};
use crate::spin_lock::{SpinLock, rank};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use kcore::ptrace::{Event, Go, Refused, Stop, Tracee as State, option};

/// One traced thread.
struct Tracee {
    thread: Arc<Thread>,
    tracer: Arc<Process>,
    /// The tracing thread's task; 0: any thread of `tracer` (PTRACE_TRACEME names none).
    tracer_task: u32,
    state: State,
}

/// A traced thread that has ended, not the first of its process: its tracer waits for it alone.
struct Ended {
    tid: u32,
    tracer: u32,
    status: u32,
}

struct All {
    /// By task.
    tracees: BTreeMap<u32, Tracee>,
    ended: Vec<Ended>,
}

static ALL: SpinLock<All, { rank::TRACED }> = SpinLock::new(All { tracees: BTreeMap::new(), ended: Vec::new() });
/// Entries in both, and processes whose first thread or all of which has ended without that their tracer has seen it: for who wants to know
/// whether there is any.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl From<Refused> for Errno {
    fn from(refused: Refused) -> Errno {
        match refused {
            Refused::NotStopped => ESRCH,
            Refused::Io => EIO,
            Refused::Invalid => EINVAL,
        }
    }
}

impl All {
    fn of(&mut self, thread: &Thread) -> Option<&mut Tracee> {
        self.tracees.get_mut(&thread.task)
    }

    fn add(&mut self, tracee: Tracee) {
        let thread = tracee.thread.clone();
        thread.traced.store(true, Ordering::SeqCst);
        let _ = task::with(thread.task, |t| t.signal_pending.set_traced(true));
        self.tracees.insert(thread.task, tracee);
        COUNT.fetch_add(1, Ordering::SeqCst);
    }

    /// The thread is traced no more; if it stands still, it goes on.
    fn remove(&mut self, thread: &Thread) -> Option<Tracee> {
        let gone = self.tracees.remove(&thread.task)?;
        COUNT.fetch_sub(1, Ordering::SeqCst);
        thread.traced.store(false, Ordering::SeqCst);
        thread.stands.store(false, Ordering::SeqCst);
        let _ = task::with(thread.task, |t| {
            t.signal_pending.set_traced(false);
            t.breakpoints.set(&[0; 4], 0);
        });
        Some(gone)
    }
}

impl Tracee {
    fn is_traced_by(&self, thread: &Thread) -> bool {
        self.tracer.pid == thread.process.pid && (self.tracer_task == 0 || self.tracer_task == thread.task)
    }
}

/// Whether anybody is traced, or was and has not been waited for.
#[inline]
pub fn anybody() -> bool {
    COUNT.load(Ordering::SeqCst) != 0
}

/// The end of a process, or of its first thread, is its tracer's to see, or has been seen.
pub fn owe(owed: bool) {
    if owed {
        COUNT.fetch_add(1, Ordering::SeqCst);
    } else {
        COUNT.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The end of `process` is nobody's to see as a tracer any more.
pub fn forget_end(process: &Process) {
    if process.traced_by.swap(0, Ordering::SeqCst) != 0 {
        owe(false);
    }
}

/// The tracer of a thread: its process's id, 0 for none.
pub fn tracer_of(thread: &Thread) -> u32 {
    if !thread.traced.load(Ordering::SeqCst) {
        return 0;
    }
    ALL.lock().of(thread).map_or(0, |t| t.tracer.pid)
}

/// Whether the first thread of `process` is traced by process `tracer`.
pub fn is_traced_by(process: &Process, tracer: u32) -> bool {
    let first = process.threads.lock().first().cloned();
    anybody() && first.is_some_and(|t| tracer_of(&t) == tracer)
}

/// Whether a traced thread is stopped for its tracer.
pub fn stands(thread: &Thread) -> bool {
    thread.stands.load(Ordering::SeqCst)
}

/// PTRACE_TRACEME: the running thread is traced by its parent.
pub fn trace_me() -> Result<(), Errno> {
    let me = current_thread();
    let tracer = tree::find(me.process.ppid.load(Ordering::Relaxed)).ok_or(EPERM)?;
    let thread = own(me).ok_or(ESRCH)?;
    let mut all = ALL.lock();
    if me.traced.load(Ordering::SeqCst) {
        return Err(EPERM);
    }
    all.add(Tracee { thread, tracer: tracer.clone(), tracer_task: 0, state: State::new(false, 0) });
    // A parent whose last thread has gone looks for its tracees no more.
    let gone = if tracer.threads.lock().is_empty() { all.remove(me) } else { None };
    drop(all);
    drop(gone);
    switch::follow_tracing(&IrqOff::new());
    Ok(())
}

/// PTRACE_ATTACH, and with its options PTRACE_SEIZE, of `thread` by the running one.
pub fn attach(thread: &Arc<Thread>, seize: Option<u64>) -> Result<(), Errno> {
    let me = current_thread();
    let options = State::check_options(seize.unwrap_or(0)).map_err(|_| EIO)?;
    if thread.process.pid == me.process.pid {
        return Err(EPERM);
    }
    let tracer = me.process.clone();
    let mut state = State::new(seize.is_some(), options);
    let mut all = ALL.lock();
    if thread.traced.load(Ordering::SeqCst) {
        return Err(EPERM);
    }
    let was_stopped = thread.process.stopped.load(Ordering::SeqCst);
    if was_stopped {
        state.group_stop(thread.process.stop_signal.load(Ordering::SeqCst));
    }
    all.add(Tracee { thread: thread.clone(), tracer, tracer_task: me.task, state });
    // Counted now: a thread that ends later than this look finds itself traced (`exit_thread`).
    if thread.ended.load(Ordering::SeqCst) {
        let gone = all.remove(thread);
        drop(all);
        drop(gone);
        return Err(EPERM);
    }
    drop(all);
    if seize.is_none() {
        signal::send_to_thread(thread, Info::from_kernel(sig::STOP));
    } else {
        // It goes on running, and its next system call is its tracer's matter already.
        let _ = task::with(thread.task, switch::follow_tracing_of);
    }
    if was_stopped {
        thread.process.changed.wake_all();
    }
    Ok(())
}

/// PTRACE_DETACH with `signal`.
pub fn detach(thread: &Arc<Thread>, signal: u64) -> Result<(), Errno> {
    let gone = {
        let mut all = ALL.lock();
        let tracee = mine(&mut all, thread)?;
        tracee.state.go_on(Go::Continue, signal)?;
        if let Some(registers) = thread.stopped.lock().as_mut() {
            (registers.signal, registers.steps) = (signal as u32, false);
        }
        all.remove(thread)
    };
    thread.process.changed.wake_all();
    drop(gone);
    Ok(())
}

/// The entry of `thread`, if the running thread traces it.
fn mine<'a>(all: &'a mut All, thread: &Thread) -> Result<&'a mut Tracee, Errno> {
    all.of(thread).filter(|t| t.is_traced_by(current_thread())).ok_or(ESRCH)
}

/// A request about a thread that the running one traces and that is stopped.
pub fn with_stopped<R>(
    thread: &Thread,
    f: impl FnOnce(&mut State, &mut Registers) -> Result<R, Errno>,
) -> Result<R, Errno> {
    let mut all = ALL.lock();
    let tracee = mine(&mut all, thread)?;
    tracee.state.stop()?;
    let mut registers = thread.stopped.lock();
    f(&mut tracee.state, registers.as_mut().ok_or(ESRCH)?)
}

/// PTRACE_CONT and the like.
pub fn go_on(thread: &Thread, go: Go, signal: u64) -> Result<(), Errno> {
    with_stopped(thread, |state, registers| {
        state.go_on(go, signal)?;
        (registers.signal, registers.steps) = (state.take_signal(), go.steps());
        thread.stands.store(false, Ordering::SeqCst);
        Ok(())
    })?;
    thread.process.changed.wake_all();
    Ok(())
}

/// PTRACE_LISTEN
pub fn listen(thread: &Thread) -> Result<(), Errno> {
    let again = with_stopped(thread, |state, registers| {
        registers.signal = 0;
        let again = state.listen()?;
        if again {
            thread.stands.store(false, Ordering::SeqCst);
        }
        Ok(again)
    })?;
    if again {
        thread.process.changed.wake_all();
    }
    Ok(())
}

/// PTRACE_INTERRUPT
pub fn interrupt(thread: &Thread) -> Result<(), Errno> {
    let wake = {
        let mut all = ALL.lock();
        let wake = mine(&mut all, thread)?.state.interrupt()?;
        if wake {
            thread.stands.store(false, Ordering::SeqCst);
        }
        wake
    };
    if wake {
        thread.process.changed.wake_all();
    }
    signal::notify(thread);
    Ok(())
}

/// PTRACE_KILL: the running thread traces `thread`, stopped or not.
pub fn may_kill(thread: &Thread) -> Result<(), Errno> {
    mine(&mut ALL.lock(), thread).map(|_| ())
}

/// `process` is stopped by `signal`: its traced threads say so to their tracers.
pub fn group_stop(process: &Process, signal: u32) {
    each_of(process, |t| {
        t.state.group_stop(signal);
        false
    });
}

/// `process` goes on by SIGCONT.
pub fn group_continue(process: &Process) {
    each_of(process, |t| t.state.group_continue());
}

/// `f` of all traced threads of `process`; those of which it says so are woken, and all look at what is due.
fn each_of(process: &Process, mut f: impl FnMut(&mut Tracee) -> bool) {
    if !anybody() {
        return;
    }
    let mut wake = false;
    let mut threads = Vec::new();
    {
        let mut all = ALL.lock();
        for tracee in all.tracees.values_mut().filter(|t| t.thread.process.pid == process.pid) {
            if f(tracee) {
                tracee.thread.stands.store(false, Ordering::SeqCst);
                wake = true;
            }
            threads.push(tracee.thread.clone());
        }
    }
    if wake {
        process.changed.wake_all();
    }
    threads.iter().for_each(|t| signal::notify(t));
}

/// The counted reference to the running thread.
fn own(me: &Thread) -> Option<Arc<Thread>> {
    me.process.threads.lock().iter().find(|t| t.task == me.task).cloned()
}

/// The tracer hears of a stop by a SIGCHLD, and by wait4(2).
fn tell(tracer: &Arc<Process>, tid: u32, cause: i32, status: u32) {
    let silent = tracer.actions.lock().stops_of_children_are_silent();
    if !silent {
        let info = Info { signal: sig::CHLD, code: cause, pid: tid, uid: 0, value: status as u64, address: 0 };
        signal::send_to_process(tracer, info);
    }
    tracer.children_changed.wake_all();
}

/// The running thread, which is traced, stops for `why` until its tracer lets it go on. `info`: of the signal that it is about to take.
/// Gives the signal to go on with. It does not stop if it is not traced any more or has to end.
pub fn stop(thread: &Thread, frame: &mut Frame, why: Stop, info: Option<Info>, message: u64) -> Option<Info> {
    const CLD_TRAPPED: i32 = 4;
    let process = &thread.process;
    let at_end = why == Stop::Event(Event::Exit);
    let must_end = || {
        process.killed.load(Ordering::SeqCst)
            || !at_end && (process.ending().is_some() || thread.must_end.load(Ordering::SeqCst))
    };
    let tid = thread.tid.load(Ordering::Relaxed);
    let mut registers = Box::new(Registers::of_running(frame));
    let mut told = {
        let mut all = ALL.lock();
        let tracee = all.of(thread)?;
        if must_end() {
            return None;
        }
        let options = tracee.state.options();
        let trap = why.info_code(options).map(|code| Info {
            code,
            pid: tid,
            ..Info::from_kernel(match why {
                Stop::Seized(signal) => signal,
                _ => sig::TRAP,
            })
        });
        registers.info = info.or(trap);
        tracee.state.begin(why, message);
        *thread.stopped.lock() = Some(registers);
        thread.stands.store(true, Ordering::SeqCst);
        Some((tracee.tracer.clone(), why.code(options)))
    };
    if let Some((tracer, code)) = told.take() {
        tell(&tracer, tid, CLD_TRAPPED, code & 0x7f);
    }
    let over = || (!thread.stands.load(Ordering::SeqCst) || must_end()).then_some(());
    let _ = process.changed.wait(false, over);

    // Once the lock was taken nobody changes the registers any more: requests want a thread that stands.
    let tracer = {
        let mut all = ALL.lock();
        thread.stands.store(false, Ordering::SeqCst);
        all.of(thread).map(|t| {
            if t.state.stop().is_ok() {
                let _ = t.state.go_on(Go::Continue, 0);
            }
            t.tracer.pid
        })
    };
    let registers = thread.stopped.lock().take()?;
    registers.load(frame);
    switch::follow_tracing(&IrqOff::new());
    let signal = registers.signal;
    match registers.info {
        _ if signal == 0 => None,
        Some(info) if info.signal == signal => Some(info),
        _ => Some(Info { pid: tracer.unwrap_or(0), code: 0, ..Info::from_kernel(signal) }),
    }
}

/// A stop that is due for the running thread, which is traced, before it goes back to user mode. True: it was.
pub fn take_due(thread: &Thread, frame: &mut Frame) -> bool {
    let due = ALL.lock().of(thread).and_then(|t| t.state.take_due());
    let Some(why) = due else { return false };
    stop(thread, frame, why, None, 0);
    true
}

/// The event `event` of the running thread, if it is traced and its tracer wants to hear of it.
pub fn event(thread: &Thread, frame: &mut Frame, event: Event, message: u64) {
    if thread.traced.load(Ordering::SeqCst) && wants(thread, event) {
        stop(thread, frame, Stop::Event(event), None, message);
    }
}

fn wants(thread: &Thread, event: Event) -> bool {
    ALL.lock().of(thread).is_some_and(|t| t.state.wants(event))
}

/// The running thread, with all its registers in `frame`, is about to end with `status`.
pub fn about_to_end(thread: &Thread, frame: &mut Frame, status: u32) {
    event(thread, frame, Event::Exit, status as u64);
}

/// A system call begins. False: it is not run.
pub fn call_begins(thread: &Thread, frame: &mut Frame) -> bool {
    let begins = ALL.lock().of(thread).map(|t| t.state.call_begins());
    let Some(begins) = begins else { return true };
    if begins.stop {
        pass_on(thread, stop(thread, frame, Stop::CallEntry, None, 0));
    }
    !begins.emulated && !thread.process.killed.load(Ordering::SeqCst)
}

/// It has ended, or was not run.
pub fn call_ends(thread: &Thread, frame: &mut Frame) {
    const TRAP_BRKPT: i32 = 1;
    let why = ALL.lock().of(thread).and_then(|t| t.state.call_ends());
    let Some(why) = why else { return };
    let info = (why == Stop::Trap).then(|| Info::fault(sig::TRAP, TRAP_BRKPT, frame.rip));
    pass_on(thread, stop(thread, frame, why, info, 0));
}

/// The tracer sent a signal with its request at a system call: it is delivered as any other.
fn pass_on(thread: &Thread, info: Option<Info>) {
    if let Some(info) = info {
        signal::post_to_self(thread, info);
    }
}

/// The running thread is about to take the signal of `info`: its tracer may change or drop it.
pub fn signal_stop(thread: &Thread, frame: &mut Frame, info: Info) -> Option<Info> {
    stop(thread, frame, Stop::Signal(info.signal), Some(info), 0)
}

/// A handler begins while the running thread is single-stepped: it stops at its first instruction.
pub fn handler_begins(thread: &Thread, frame: &mut Frame) {
    let steps = ALL.lock().of(thread).is_some_and(|t| t.state.go().steps());
    if steps {
        stop(thread, frame, Stop::Trap, Some(Info { code: 0, ..Info::from_kernel(sig::TRAP) }), 0);
    }
}

/// Another program runs in the thread, whose id was `old_tid`.
pub fn exec_done(thread: &Thread, frame: &mut Frame, old_tid: u32) {
    let task = sched::current();
    task.breakpoints.set(&[0; 4], 0);
    switch::follow_tracing(&IrqOff::new());
    let Some((wanted, seized)) = ALL.lock().of(thread).map(|t| (t.state.wants(Event::Exec), t.state.is_seized()))
    else {
        return;
    };
    if wanted {
        stop(thread, frame, Stop::Event(Event::Exec), None, old_tid as u64);
    } else if !seized {
        signal::post_to_self(thread, Info::from_user(sig::TRAP));
    }
}

/// The running thread makes `child`, which has not run yet. It is traced too, if the tracer wants that or clone(2) said so
/// (`asked`). True: the tracer wants to hear of `event`.
pub fn child_begins(me: &Thread, child: &Arc<Thread>, event: Option<Event>, asked: bool) -> bool {
    let mut all = ALL.lock();
    let Some(parent) = all.of(me) else { return false };
    let wanted = event.is_some_and(|e| parent.state.wants(e));
    if !wanted && !asked {
        return false;
    }
    let (state, stops) = State::child_of(&parent.state);
    let (tracer, tracer_task) = (parent.tracer.clone(), parent.tracer_task);
    all.add(Tracee { thread: child.clone(), tracer, tracer_task, state });
    drop(all);
    if stops {
        child.pending.add(Info::from_kernel(sig::STOP));
    }
    let _ = task::with(child.task, |t| t.signal_pending.store(true, Ordering::SeqCst));
    wanted
}

/// The running thread ends with `status`: its tracer waits for it. The first thread of its process is one of its threads still, so that the process ends after
/// this; another one is not any more, so that who has waited for it does not find it there.
pub fn tracee_ends(thread: &Thread, status: u32) {
    const CLD_EXITED: i32 = 1;
    let tid = thread.tid.load(Ordering::Relaxed);
    let mut all = ALL.lock();
    let Some(mine) = all.of(thread) else { return };
    let pid = mine.tracer.pid;
    // Counted before it is taken out, and marked before the lock is free: its tracer always finds it as one or the other.
    owe(true);
    let gone = all.remove(thread);
    if tid == thread.process.pid {
        // The process waits for its other threads; then `tree::ended` looks at this.
        thread.process.traced_by.store(pid, Ordering::SeqCst);
        return;
    }
    all.ended.push(Ended { tid, tracer: pid, status });
    task::hold_id(tid);
    drop(all);
    if let Some(gone) = gone {
        tell(&gone.tracer, tid, CLD_EXITED, status >> 8);
    }
}

/// The running thread, or its process with it, ends: those that it traces go on alone.
pub fn tracer_ends(thread: &Thread, last: bool) {
    let mut left = Vec::new();
    {
        let mut all = ALL.lock();
        let process = &thread.process;
        let is_mine = |t: &Tracee| t.tracer.pid == process.pid && (last || t.tracer_task == thread.task);
        let mine: Vec<Arc<Thread>> = all.tracees.values().filter(|t| is_mine(t)).map(|t| t.thread.clone()).collect();
        left.extend(mine.iter().filter_map(|t| all.remove(t)));
        if last {
            all.ended.retain(|e| {
                let stays = e.tracer != process.pid;
                if !stays {
                    COUNT.fetch_sub(1, Ordering::SeqCst);
                    task::drop_id(e.tid);
                }
                stays
            });
        }
    }
    for tracee in &left {
        if tracee.state.options() & option::EXITKILL != 0 && tracee.thread.process.pid != 1 {
            signal::kill(&tracee.thread.process, sig::KILL);
        }
        tracee.thread.process.changed.wake_all();
    }
}

/// What a traced thread has to report.
pub struct Report {
    /// Its id.
    pub tid: u32,
    /// Its wait status.
    pub status: u32,
    /// It stopped; else it ended.
    pub stopped: bool,
}

/// One look at the threads that `tracer` traces, those of which `wanted` says so by id and group: what one of them has to report, and
/// whether there are any.
pub fn look(tracer: u32, keep: bool, wanted: impl Fn(u32, Option<&Process>) -> bool) -> (Option<Report>, bool) {
    let mut all = ALL.lock();
    let mut any = false;
    for tracee in all.tracees.values_mut().filter(|t| t.tracer.pid == tracer) {
        let tid = tracee.thread.tid.load(Ordering::Relaxed);
        if wanted(tid, Some(&tracee.thread.process)) {
            any = true;
            if let Some(code) = tracee.state.report(keep) {
                return (Some(Report { tid, status: code << 8 | 0x7f, stopped: true }), true);
            }
        }
    }
    let Some(at) = all.ended.iter().position(|e| e.tracer == tracer && wanted(e.tid, None)) else {
        return (None, any);
    };
    let report = Report { tid: all.ended[at].tid, status: all.ended[at].status, stopped: false };
    if !keep {
        all.ended.swap_remove(at);
        COUNT.fetch_sub(1, Ordering::SeqCst);
        task::drop_id(report.tid);
    }
    (Some(report), true)
}

//! Timers of a process that send signals: its alarms (setitimer) and those of timer_create.
//!
//! Process context. They expire in the thread of `sched::unbound_timer`, on a housekeeping CPU: an isolated CPU runs no timer for them.
//! A timer of CPU time is looked at when it can have expired at the earliest, so it costs whom it measures nothing; it may be
//! late by `LOOK_NS`. Invariant: one signal of a POSIX timer waits at a time; what expires until it is taken is its overrun.
//! Source: setitimer(2), timer_create(2), timer_getoverrun(2).

use super::signal::{self, Info, sig};
use super::{Process, Thread, try_current_thread};
use crate::arch::tsc;
use crate::errno::{EAGAIN, EINVAL, Errno};
use crate::sched::unbound_timer::{self, Expire};
use crate::sched::wait_queue::WaitQueue;
use crate::sched::{self, task};
use crate::spin_lock::{PreemptOff, SpinLock, rank};
use crate::time::wall;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::interval_timer::{IntervalTimer, Start};

/// si_code of a timer's signal.
pub const SI_TIMER: i32 = -2;
/// What repeats unheard, and alarms, are not looked at more often than this; what was missed is not made up for.
const SHORTEST_INTERVAL_NS: u64 = 100_000;
/// How exact CPU time is measured.
const LOOK_NS: u64 = 1_000_000;
/// Timers of one process at most, as RLIMIT_SIGPENDING has it.
const MAX_TIMERS: usize = (task::PID_MAX / 2) as usize;

/// What a timer measures.
pub enum Clock {
    /// Time since boot.
    Boot,
    /// CPU time of the process.
    Process,
    /// CPU time of one thread.
    Thread(Weak<Thread>),
}

/// What an expiry does.
pub enum Notify {
    /// Nothing: the program looks.
    Nothing,
    /// An alarm's signal, from the kernel.
    Alarm(u32),
    /// A POSIX timer's signal with its value, to one thread if there is one here.
    Signal(u32, u64, Option<Weak<Thread>>),
}

struct State {
    timer: IntervalTimer,
    /// By which number the signal is known that waits to be taken; 0: none.
    waiting: u64,
    /// Expiries that signal stands for, beside its own.
    overrun: u64,
    /// That of the signal that was taken last.
    last_overrun: u32,
    /// An expiry was counted whose signal is not sent yet.
    is_sending: bool,
}

/// One timer.
pub struct Timer {
    clock: Clock,
    notify: Notify,
    /// Absolute times are those of the day.
    pub is_realtime: bool,
    /// As timer_create gives it; -1: an alarm.
    number: i32,
    id: u64,
    process: Weak<Process>,
    state: SpinLock<State, { rank::FILE }>,
    /// Who sets it while a signal is being sent waits here.
    sent: WaitQueue,
}

/// One reading of a timer's clock.
#[derive(Clone, Copy)]
struct Reading {
    now_ns: u64,
    /// So many CPUs at most move it at once; 0: it is the time since boot.
    runners: u64,
}

/// The timers of one process.
pub struct Timers {
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    alarms: [Option<Arc<Timer>>; 3],
    posix: BTreeMap<i32, Arc<Timer>>,
    next_number: i32,
}

/// Signals of expiries so far: each has a number of its own.
static NEXT_EXPIRY: AtomicU64 = AtomicU64::new(1);

impl Timers {
    /// None.
    pub const fn new() -> Self {
        Self { alarms: [const { None }; 3], posix: BTreeMap::new(), next_number: 0 }
    }
}

impl Timer {
    fn new(process: &Arc<Process>, clock: Clock, notify: Notify, is_realtime: bool, number: i32) -> Arc<Timer> {
        let state = State { timer: IntervalTimer::new(), waiting: 0, overrun: 0, last_overrun: 0, is_sending: false };
        let (id, process) = (unbound_timer::new_id(), Arc::downgrade(process));
        Arc::new(Timer {
            clock,
            notify,
            is_realtime,
            number,
            id,
            process,
            state: SpinLock::new(state),
            sent: WaitQueue::new(),
        })
    }

    /// The time that it measures, ns.
    pub fn now_ns(&self) -> u64 {
        match &self.clock {
            Clock::Boot => tsc::now_ns(),
            Clock::Process => self.process.upgrade().map_or(0, |p| p.runtime_ns()),
            Clock::Thread(thread) => {
                let run = |t: Arc<Thread>| task::with(t.task, sched::runtime_ns);
                thread.upgrade().and_then(run).unwrap_or(0)
            }
        }
    }

    /// Its clock now. With no lock of a timer held.
    fn read(&self) -> Reading {
        let runners = match &self.clock {
            Clock::Boot => 0,
            Clock::Process => self.process.upgrade().map_or(1, |p| p.threads.lock().len().max(1) as u64),
            Clock::Thread(_) => 1,
        };
        Reading { now_ns: self.now_ns(), runners }
    }

    /// Lets it expire when `state`, which is its own and locked, says so: who sets it next comes after both.
    fn arm(self: &Arc<Self>, state: &State, reading: Reading) {
        match state.timer.deadline() {
            Some(deadline_ns) if !matches!(self.notify, Notify::Nothing) => {
                unbound_timer::arm(&(self.clone() as Arc<dyn Expire>), reading.look_at_ns(deadline_ns));
            }
            _ => unbound_timer::disarm(self.id),
        }
    }

    /// Set it to expire at `start` of its clock, then every `interval_ns` if that is not 0; `None` ends it. What it was set to, as `setting`: with
    /// time left, its signal was not sent and is not sent any more; without, it waits or was taken. EAGAIN if the first timer of all finds no memory to
    /// start; then nothing has changed.
    pub fn set(self: &Arc<Self>, start: Option<Start>, interval_ns: u64) -> Result<(u64, u64), Errno> {
        if start.is_some() {
            unbound_timer::start()?;
        }
        loop {
            let reading = self.read();
            let mut state = self.state.lock();
            if state.is_sending {
                drop(state);
                self.sent.wait(false, || (!self.state.lock().is_sending).then_some(()))?;
                continue;
            }
            let follows = matches!(start, Some(Start::OfDay(_)));
            if follows || state.timer.follows_wall() {
                unbound_timer::follow_wall(&(self.clone() as Arc<dyn Expire>), follows);
            }
            let (now_ns, interval_ns) = (reading.now_ns, if start.is_some() { interval_ns } else { 0 });
            let (was, expired) = state.timer.replace(now_ns, wall::at_0_ns(), start, interval_ns);
            // A signal that waits still is of the earlier setting.
            (state.waiting, state.overrun, state.last_overrun) = (0, 0, 0);
            self.arm(&state, reading);
            return Ok(self.shown(was, expired > 0));
        }
    }

    /// Time until it expires (0: it will not), and the interval, ns.
    pub fn setting(&self) -> (u64, u64) {
        let now_ns = self.now_ns();
        let mut state = self.state.lock();
        let setting = state.timer.setting(now_ns);
        // A signal that is taken already was sent, though its sender may not have said so.
        let is_due = state.timer.has_expired() || state.is_sending && state.waiting != 0;
        self.shown(setting, is_due)
    }

    /// A setting as the program sees it: a timer that is due, and whose signal is not sent yet, is still set.
    fn shown(&self, (left_ns, interval_ns): (u64, u64), has_expired: bool) -> (u64, u64) {
        let is_due = left_ns == 0 && has_expired && !matches!(self.notify, Notify::Nothing);
        (if is_due { 1 } else { left_ns }, interval_ns)
    }

    /// The overrun of its last signal.
    pub fn overrun(&self) -> u32 {
        self.state.lock().last_overrun
    }

    /// Send the signal of the expiry `expiry`, to `thread` if it is for one that is there. Whether anybody hears it. Does not sleep.
    fn send(&self, process: &Arc<Process>, thread: Option<&Arc<Thread>>, expiry: u64) -> bool {
        match &self.notify {
            Notify::Nothing => true,
            Notify::Alarm(signal) => {
                signal::send_to_process(process, Info::from_kernel(*signal));
                true
            }
            Notify::Signal(signal, value, to) => {
                let (code, pid) = (SI_TIMER, self.number as u32);
                let info = Info { signal: *signal, code, pid, uid: 0, value: *value, address: expiry };
                match to.as_ref().map(|_| thread) {
                    None => signal::send_expiry(process, None, info),
                    Some(Some(thread)) if !thread.ended.load(Ordering::SeqCst) => {
                        signal::send_expiry(process, Some(thread), info)
                    }
                    // The thread is gone: nobody hears it.
                    Some(_) => false,
                }
            }
        }
    }
}

impl Reading {
    /// When to look whether it is `deadline_ns` by the clock that was read, ns since boot.
    fn look_at_ns(self, deadline_ns: u64) -> u64 {
        match deadline_ns.saturating_sub(self.now_ns).checked_div(self.runners) {
            Some(left_ns) => tsc::now_ns().saturating_add(left_ns.max(LOOK_NS)),
            None => deadline_ns,
        }
    }
}

impl Expire for Timer {
    fn expire(&self) -> Option<u64> {
        let process = self.process.upgrade()?;
        // The last of a thread does not go while preemption is off.
        let thread = match &self.notify {
            Notify::Signal(.., Some(thread)) => thread.upgrade(),
            _ => None,
        };
        let reading = self.read();
        let now_ns = reading.now_ns;
        let mut state = self.state.lock();
        let expired = state.timer.take(now_ns);
        let next_ns = state.timer.look(now_ns);
        let is_alarm = matches!(self.notify, Notify::Alarm(_));
        let mut again = true;
        if expired > 0 {
            if !is_alarm && state.waiting != 0 {
                state.overrun = state.overrun.saturating_add(expired);
                return None;
            }
            let expiry = NEXT_EXPIRY.fetch_add(1, Ordering::Relaxed);
            (state.waiting, state.overrun, state.is_sending) = (expiry, expired - 1, true);
            // Who sets it waits for the end, whatever its priority: nothing here sleeps, and nothing comes between.
            let preempt_off = PreemptOff::new();
            drop(state);
            again = !self.send(&process, thread.as_ref(), expiry) || is_alarm;
            state = self.state.lock();
            state.is_sending = false;
            if again && state.waiting == expiry {
                state.waiting = 0;
            }
            drop(state);
            self.sent.wake_all();
            drop(preempt_off);
        } else {
            drop(state);
        }
        // The next one of a POSIX timer is armed when its signal is taken.
        let next_ns = next_ns.filter(|_| again)?;
        let soonest_ns = if expired > 0 { tsc::now_ns().saturating_add(SHORTEST_INTERVAL_NS) } else { 0 };
        Some(reading.look_at_ns(next_ns).max(soonest_ns))
    }

    fn timer_id(&self) -> u64 {
        self.id
    }

    fn wall_was_set(self: Arc<Self>) {
        let reading = self.read();
        let mut state = self.state.lock();
        state.timer.follow(reading.now_ns, wall::at_0_ns());
        if state.waiting != 0 {
            // It is armed when its signal is taken.
        } else if state.timer.has_expired() && !matches!(self.notify, Notify::Nothing) {
            unbound_timer::arm(&(self.clone() as Arc<dyn Expire>), reading.now_ns);
        } else {
            self.arm(&state, reading);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        unbound_timer::forget(self.id);
    }
}

/// The signal `info` of a timer is taken by the running process: with the overrun by now. The timer goes on.
pub fn taken(info: Info) -> Info {
    let (expiry, info) = (info.address, Info { address: 0, ..info });
    // One that a program made up has none.
    let Some(thread) = try_current_thread().filter(|_| expiry != 0) else { return info };
    let timer = thread.process.timers.lock().posix.get(&(info.pid as i32)).cloned();
    let Some(timer) = timer else { return info };
    let reading = timer.read();
    let mut state = timer.state.lock();
    if state.waiting != expiry {
        return info;
    }
    let overrun = state.timer.take(reading.now_ns).saturating_add(state.overrun).min(i32::MAX as u64) as u32;
    (state.waiting, state.overrun, state.last_overrun) = (0, 0, overrun);
    if state.timer.deadline().is_some() {
        timer.arm(&state, reading);
    }
    drop(state);
    Info { uid: overrun, ..info }
}

fn alarm_of(process: &Process, which: usize) -> Option<Arc<Timer>> {
    process.timers.lock().alarms[which].clone()
}

/// Alarm `which` (0 to 2) of `process`: time left and interval, ns.
pub fn alarm(process: &Process, which: usize) -> (u64, u64) {
    alarm_of(process, which).map_or((0, 0), |timer| timer.setting())
}

/// Set alarm `which` (0 to 2) to expire in `left_ns`, or with 0 end it; what it was, as `alarm`. EAGAIN as `Timer::set`.
pub fn set_alarm(process: &Arc<Process>, which: usize, left_ns: u64, interval_ns: u64) -> Result<(u64, u64), Errno> {
    let timer = match alarm_of(process, which) {
        Some(timer) => timer,
        None if left_ns == 0 => return Ok((0, 0)),
        None => {
            let signal = [sig::ALRM, sig::VTALRM, sig::PROF][which];
            let clock = if which == 0 { Clock::Boot } else { Clock::Process };
            let new = Timer::new(process, clock, Notify::Alarm(signal), false, -1);
            process.timers.lock().alarms[which].get_or_insert(new).clone()
        }
    };
    timer.set((left_ns != 0).then_some(Start::After(left_ns)), interval_ns)
}

/// timer_create(2): the number. `notify` is asked with it. EAGAIN: too many.
pub fn create(
    process: &Arc<Process>,
    clock: Clock,
    is_realtime: bool,
    notify: impl FnOnce(i32) -> Notify,
) -> Result<i32, Errno> {
    let number = {
        let mut timers = process.timers.lock();
        if timers.posix.len() >= MAX_TIMERS {
            return Err(EAGAIN);
        }
        loop {
            let number = timers.next_number;
            timers.next_number = number.checked_add(1).unwrap_or(0);
            if !timers.posix.contains_key(&number) {
                break number;
            }
        }
    };
    let timer = Timer::new(process, clock, notify(number), is_realtime, number);
    process.timers.lock().posix.insert(number, timer);
    Ok(number)
}

/// Timer `number` of `process`. EINVAL: there is none.
pub fn find(process: &Process, number: i32) -> Result<Arc<Timer>, Errno> {
    process.timers.lock().posix.get(&number).cloned().ok_or(EINVAL)
}

/// timer_delete(2). EINVAL: there is none.
pub fn delete(process: &Process, number: i32) -> Result<(), Errno> {
    let gone = process.timers.lock().posix.remove(&number).ok_or(EINVAL)?;
    // A signal that is being sent is there before it is gone.
    gone.set(None, 0).map(drop)
}

/// execve: the program's POSIX timers go, alarms stay.
pub fn program_ends(process: &Process) {
    let gone = core::mem::take(&mut process.timers.lock().posix);
    drop(gone);
}

/// The last thread of `process` ends.
pub fn process_ends(process: &Process) {
    let gone = core::mem::replace(&mut *process.timers.lock(), Timers::new());
    drop(gone);
}

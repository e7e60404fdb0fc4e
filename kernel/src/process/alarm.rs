//! Alarms: the interval timer in real time of each process (ITIMER_REAL), which sends SIGALRM.
//!
//! Process context. A kernel thread on a housekeeping CPU, started by the first alarm, sends the signals: an isolated CPU runs no
//! timer for them. Source: setitimer(2).

use super::Process;
use super::signal::{self, Info, sig};
use crate::arch::tsc;
use crate::errno::{EAGAIN, Errno};
use crate::fs::waiting;
use crate::sched::task;
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

/// One that is set.
struct Alarm {
    process: Arc<Process>,
    deadline_tsc: u64,
    /// 0: once.
    interval_ns: u64,
}

/// An alarm that repeats is not sent more often than this; what was missed is not made up for.
const SHORTEST_INTERVAL_NS: u64 = 100_000;

static ALARMS: SpinLock<Vec<Alarm>, { rank::PROCESS }> = SpinLock::new(Vec::new());
/// Where the thread waits, and whether there is something for it to look at.
static THREAD: WaitQueue = WaitQueue::new();
static CHANGED: AtomicBool = AtomicBool::new(false);
static STARTED: AtomicBool = AtomicBool::new(false);

/// Time until an alarm, and its interval, in ns; 0: none.
#[derive(Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Setting {
    pub left_ns: u64,
    pub interval_ns: u64,
}

impl Alarm {
    fn setting(&self) -> Setting {
        // One that is due and not sent yet is still set.
        let left_ns = tsc::ticks_to_ns(self.deadline_tsc.saturating_sub(tsc::now())).max(1);
        Setting { left_ns, interval_ns: self.interval_ns }
    }
}

/// The alarm of `process`.
pub fn get(process: &Process) -> Setting {
    let alarms = ALARMS.lock();
    alarms.iter().find(|a| a.process.pid == process.pid).map_or(Setting::default(), Alarm::setting)
}

/// Set the alarm of `process`, or with a time of 0 end it; what it was. EAGAIN if the first alarm finds no memory for its thread.
pub fn set(process: &Arc<Process>, new: Setting) -> Result<Setting, Errno> {
    if new.left_ns != 0 && !STARTED.swap(true, Ordering::SeqCst) {
        let thread = task::spawn_kthread("alarms", send_when_due, 0);
        thread.map_err(|_| {
            STARTED.store(false, Ordering::SeqCst);
            EAGAIN
        })?;
    }
    let mut alarms = ALARMS.lock();
    let at = alarms.iter().position(|a| a.process.pid == process.pid);
    let old = at.map(|at| alarms.swap_remove(at));
    if new.left_ns != 0 {
        let deadline_tsc = tsc::now().saturating_add(tsc::ns_to_ticks(new.left_ns));
        alarms.push(Alarm { process: process.clone(), deadline_tsc, interval_ns: new.interval_ns });
    }
    process.has_alarm.store(new.left_ns != 0, Ordering::Relaxed);
    drop(alarms);
    if new.left_ns != 0 {
        CHANGED.store(true, Ordering::SeqCst);
        THREAD.wake_all();
    }
    Ok(old.map_or(Setting::default(), |a| a.setting()))
}

/// The last thread of `process` ends: nobody is to get its alarm.
pub fn process_ends(process: &Process) {
    if !process.has_alarm.load(Ordering::Relaxed) {
        return;
    }
    let mut alarms = ALARMS.lock();
    let at = alarms.iter().position(|a| a.process.pid == process.pid);
    let gone = at.map(|at| alarms.swap_remove(at));
    drop(alarms);
    drop(gone);
}

/// Take out who is due at `now_tsc`, and tell when the next one is.
fn due(now_tsc: u64) -> (Vec<Arc<Process>>, Option<u64>) {
    let mut due = Vec::new();
    let mut alarms = ALARMS.lock();
    let mut i = 0;
    while i < alarms.len() {
        if alarms[i].deadline_tsc > now_tsc {
            i += 1;
        } else if alarms[i].interval_ns == 0 {
            let alarm = alarms.swap_remove(i);
            alarm.process.has_alarm.store(false, Ordering::Relaxed);
            due.push(alarm.process);
        } else {
            let alarm = &mut alarms[i];
            let interval = tsc::ns_to_ticks(alarm.interval_ns.max(SHORTEST_INTERVAL_NS));
            let missed = (now_tsc - alarm.deadline_tsc) / interval;
            alarm.deadline_tsc = alarm.deadline_tsc.saturating_add(interval.saturating_mul(missed + 1));
            due.push(alarm.process.clone());
            i += 1;
        }
    }
    (due, alarms.iter().map(|a| a.deadline_tsc).min())
}

/// The thread.
fn send_when_due(_: usize) {
    loop {
        let (due, next_tsc) = due(tsc::now());
        for process in due {
            signal::send_to_process(&process, Info::from_kernel(sig::ALRM));
        }
        // No signal reaches a kernel thread: it ends by a change or by the time.
        let _ = waiting::wait_any(&[&THREAD], next_tsc, || CHANGED.swap(false, Ordering::SeqCst).then_some(()));
    }
}

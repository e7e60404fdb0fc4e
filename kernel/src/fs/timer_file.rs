//! timerfd: a timer that is a file. Reads wait for it and take how often it has expired.
//!
//! Process context; the thread of `sched::unbound_timer` wakes who waits. Readers count for themselves, so the count is right however late
//! that thread comes, and a timer that nobody reads wakes once: the next expiry is armed when somebody looks, as on Linux. Source: timerfd_create(2).

use super::inode::{Stat, device_number};
use super::open_file::{File, How, poll};
use super::user_buffer::UserBuffer;
use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::sched::unbound_timer::{self, Expire};
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use crate::time::wall;
use alloc::sync::{Arc, Weak};
use kcore::interval_timer::{IntervalTimer, Start};

struct State {
    /// Times are ns since boot.
    timer: IntervalTimer,
    /// Where a set of the wall clock ends the wait: how often it had been set when that was last told.
    cancels_from: Option<u64>,
}

/// The timer.
pub struct TimerFile {
    state: SpinLock<State, { rank::FILE }>,
    readable: WaitQueue,
    id: u64,
    me: Weak<TimerFile>,
    /// CLOCK_REALTIME, or another that starts at boot.
    pub is_realtime: bool,
}

impl TimerFile {
    /// One that is not set.
    pub fn new(is_realtime: bool) -> Arc<TimerFile> {
        let state = SpinLock::new(State { timer: IntervalTimer::new(), cancels_from: None });
        let (readable, id) = (WaitQueue::new(), unbound_timer::new_id());
        Arc::new_cyclic(|me| TimerFile { state, readable, id, me: me.clone(), is_realtime })
    }

    /// Set it to expire at `start`, then every `interval_ns` if that is not 0; `None` ends it. With `cancels` who waits is told when the wall clock is
    /// set. What it was set to, as `setting`. EAGAIN if the first timer of all finds no memory to start; then nothing has changed. ECANCELED if the
    /// clock was set, and nobody was told; then it is set all the same.
    pub fn set(self: &Arc<Self>, start: Option<Start>, interval_ns: u64, cancels: bool) -> Result<(u64, u64), Errno> {
        if start.is_some() {
            unbound_timer::start()?;
        }
        let mut state = self.state.lock();
        let follows = cancels || matches!(start, Some(Start::OfDay(_)));
        if follows || state.cancels_from.is_some() || state.timer.follows_wall() {
            unbound_timer::follow_wall(&(self.clone() as Arc<dyn Expire>), follows);
        }
        let was_cancelled = cancels && state.tell_cancelled();
        state.cancels_from = cancels.then(wall::sets);
        let (was, _) = state.timer.replace(tsc::now_ns(), wall::at_0_ns(), start, interval_ns);
        self.arm(&state.timer);
        if was_cancelled { Err(errno::ECANCELED) } else { Ok(was) }
    }

    /// Time until it expires (0: it will not), and the interval, ns.
    pub fn setting(self: &Arc<Self>) -> (u64, u64) {
        let mut state = self.state.lock();
        let setting = state.timer.setting(tsc::now_ns());
        self.arm(&state.timer);
        setting
    }

    /// Lets it expire when `timer`, which is its own and locked, says so: who sets it next comes after both.
    fn arm(&self, timer: &IntervalTimer) {
        match (timer.deadline(), self.me.upgrade()) {
            (Some(deadline_ns), Some(me)) => unbound_timer::arm(&(me as Arc<dyn Expire>), deadline_ns),
            _ => unbound_timer::disarm(self.id),
        }
    }

    /// How often it has expired, which lets it expire again; ECANCELED once if the clock was set, and what it has expired is forgotten.
    fn take(&self) -> Option<Result<u64, Errno>> {
        let mut state = self.state.lock();
        let was_cancelled = state.tell_cancelled();
        let expired = state.timer.take(tsc::now_ns());
        if expired == 0 && !was_cancelled {
            return None;
        }
        self.arm(&state.timer);
        Some(if was_cancelled { Err(errno::ECANCELED) } else { Ok(expired) })
    }
}

impl State {
    /// Whether the clock was set, and nobody was told.
    fn is_cancelled(&self) -> bool {
        self.cancels_from.is_some_and(|from| from != wall::sets())
    }

    /// The same; it is told now.
    fn tell_cancelled(&mut self) -> bool {
        let was = self.is_cancelled();
        if was {
            self.cancels_from = Some(wall::sets());
        }
        was
    }
}

impl Expire for TimerFile {
    fn expire(&self) -> Option<u64> {
        self.state.lock().timer.look(tsc::now_ns());
        self.readable.wake_all();
        None
    }

    fn timer_id(&self) -> u64 {
        self.id
    }

    fn wall_was_set(self: Arc<Self>) {
        let mut state = self.state.lock();
        state.timer.follow(tsc::now_ns(), wall::at_0_ns());
        self.arm(&state.timer);
        drop(state);
        self.readable.wake_all();
    }
}

impl Drop for TimerFile {
    fn drop(&mut self) {
        unbound_timer::forget(self.id);
    }
}

impl File for TimerFile {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        if to.left() < 8 {
            return Err(errno::EINVAL);
        }
        let expired = match self.take() {
            Some(taken) => taken?,
            None if how.nonblock() => return Err(errno::EAGAIN),
            None => self.readable.wait(true, || self.take())??,
        };
        to.put(&expired.to_le_bytes())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let mut state = self.state.lock();
        state.timer.look(tsc::now_ns());
        if state.timer.has_expired() || state.is_cancelled() { poll::IN | poll::RDNORM } else { 0 }
    }

    fn wait_queues(&self) -> [Option<&WaitQueue>; 2] {
        [Some(&self.readable), None]
    }

    fn as_timer(self: Arc<Self>) -> Option<Arc<TimerFile>> {
        Some(self)
    }

    fn stat(&self) -> Stat {
        Stat { dev: device_number::ANONYMOUS, ino: 1, mode: 0o600, nlink: 1, ..Stat::default() }
    }
}

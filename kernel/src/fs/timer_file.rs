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
use alloc::sync::{Arc, Weak};
use kcore::interval_timer::{IntervalTimer, Start};

/// The timer. Times are ns since boot.
pub struct TimerFile {
    timer: SpinLock<IntervalTimer, { rank::FILE }>,
    readable: WaitQueue,
    id: u64,
    me: Weak<TimerFile>,
    /// CLOCK_REALTIME, or another that starts at boot.
    pub is_realtime: bool,
}

impl TimerFile {
    /// One that is not set.
    pub fn new(is_realtime: bool) -> Arc<TimerFile> {
        let timer = SpinLock::new(IntervalTimer::new());
        let (readable, id) = (WaitQueue::new(), unbound_timer::new_id());
        Arc::new_cyclic(|me| TimerFile { timer, readable, id, me: me.clone(), is_realtime })
    }

    /// Set it to expire at `start`, then every `interval_ns` if that is not 0; `None` ends it. What it was set to, as `setting`. EAGAIN if the first
    /// timer of all finds no memory to start; then nothing has changed.
    pub fn set(self: &Arc<Self>, start: Option<Start>, interval_ns: u64) -> Result<(u64, u64), Errno> {
        if start.is_some() {
            unbound_timer::start()?;
        }
        let mut timer = self.timer.lock();
        let (was, _) = timer.replace(tsc::now_ns(), start, interval_ns);
        self.arm(&timer);
        Ok(was)
    }

    /// Time until it expires (0: it will not), and the interval, ns.
    pub fn setting(self: &Arc<Self>) -> (u64, u64) {
        let mut timer = self.timer.lock();
        let setting = timer.setting(tsc::now_ns());
        self.arm(&timer);
        setting
    }

    /// Lets it expire when `timer`, which is its own and locked, says so: who sets it next comes after both.
    fn arm(&self, timer: &IntervalTimer) {
        match (timer.deadline(), self.me.upgrade()) {
            (Some(deadline_ns), Some(me)) => unbound_timer::arm(&(me as Arc<dyn Expire>), deadline_ns),
            _ => unbound_timer::disarm(self.id),
        }
    }

    /// How often it has expired, which lets it expire again.
    fn take(&self) -> Option<u64> {
        let mut timer = self.timer.lock();
        let expired = timer.take(tsc::now_ns());
        if expired == 0 {
            return None;
        }
        self.arm(&timer);
        Some(expired)
    }
}

impl Expire for TimerFile {
    fn expire(&self) -> Option<u64> {
        self.timer.lock().look(tsc::now_ns());
        self.readable.wake_all();
        None
    }

    fn timer_id(&self) -> u64 {
        self.id
    }
}

impl Drop for TimerFile {
    fn drop(&mut self) {
        unbound_timer::disarm(self.id);
    }
}

impl File for TimerFile {
    fn read(&self, to: &mut UserBuffer, how: How) -> Result<usize, Errno> {
        if to.left() < 8 {
            return Err(errno::EINVAL);
        }
        let expired = match self.take() {
            Some(expired) => expired,
            None if how.nonblock() => return Err(errno::EAGAIN),
            None => self.readable.wait(true, || self.take())?,
        };
        to.put(&expired.to_le_bytes())
    }

    fn is_seekable(&self) -> bool {
        false
    }

    fn poll(&self, _: u32) -> u32 {
        let mut timer = self.timer.lock();
        timer.look(tsc::now_ns());
        if timer.has_expired() { poll::IN | poll::RDNORM } else { 0 }
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

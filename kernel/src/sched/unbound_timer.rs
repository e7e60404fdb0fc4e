//! Timers that are bound to no CPU: what is due runs in a kernel thread on a housekeeping CPU, so that an isolated CPU runs none of them.
//!
//! Process context for arming. The thread is made before the first timer is armed. It calls `Expire::expire` with no lock held; a timer that
//! is dropped or armed again meanwhile is not found, or runs early, which it has to bear. Deadlines are ns since boot.

use super::task;
use super::wait_queue::WaitQueue;
use crate::arch::tsc;
use crate::errno::{EAGAIN, Errno};
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use kcore::map_memory::give_back;

/// What has a timer.
pub trait Expire: Send + Sync {
    /// The time has come, or has passed; the next deadline, if there is one.
    fn expire(&self) -> Option<u64>;
    /// Its number, from `new_id`.
    fn timer_id(&self) -> u64;
    /// The wall clock was set, which it follows: it is to arm itself anew. No lock is held.
    fn wall_was_set(self: Arc<Self>) {}
}

struct Timers {
    /// By deadline and number.
    due: BTreeMap<(u64, u64), Weak<dyn Expire>>,
    /// The deadline by number, of those that are armed.
    armed: BTreeMap<u64, u64>,
    /// Those that follow the wall clock, by number, armed or not.
    follow_wall: BTreeMap<u64, Weak<dyn Expire>>,
}

/// Taken with the lock of what has the timer held, so that both agree.
static TIMERS: SpinLock<Timers, { rank::WAIT_QUEUE }> =
    SpinLock::new(Timers { due: BTreeMap::new(), armed: BTreeMap::new(), follow_wall: BTreeMap::new() });
static NEXT_ID: AtomicU64 = AtomicU64::new(1);
/// Where the thread waits, and whether the first deadline has changed.
static THREAD: WaitQueue = WaitQueue::new();
static CHANGED: AtomicBool = AtomicBool::new(false);
static STAGE: AtomicU32 = AtomicU32::new(stage::NONE);
/// Who starts it while somebody else does.
static STARTING: WaitQueue = WaitQueue::new();

/// How far the thread is.
mod stage {
    pub const NONE: u32 = 0;
    pub const BEGUN: u32 = 1;
    pub const THERE: u32 = 2;
}

/// A number for a new timer.
pub fn new_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl Timers {
    fn arm(&mut self, timer: &Arc<dyn Expire>, deadline_ns: u64) {
        let id = timer.timer_id();
        self.disarm(id);
        self.armed.insert(id, deadline_ns);
        self.due.insert((deadline_ns, id), Arc::downgrade(timer));
    }

    fn disarm(&mut self, id: u64) {
        if let Some(deadline_ns) = self.armed.remove(&id) {
            self.due.remove(&(deadline_ns, id));
        }
    }

    fn unfollow(&mut self, id: u64) {
        self.follow_wall.remove(&id);
        give_back(&mut self.follow_wall);
    }
}

/// The thread is there when this has been done. EAGAIN if it finds no memory for it. No lock is held.
pub fn start() -> Result<(), Errno> {
    if STAGE.load(Ordering::Acquire) == stage::THERE { Ok(()) } else { start_first() }
}

#[cold]
fn start_first() -> Result<(), Errno> {
    loop {
        match STAGE.compare_exchange(stage::NONE, stage::BEGUN, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => {
                let thread = task::spawn_kthread("timers", run, 0);
                STAGE.store(if thread.is_ok() { stage::THERE } else { stage::NONE }, Ordering::SeqCst);
                STARTING.wake_all();
                return thread.map(drop).map_err(|_| EAGAIN);
            }
            Err(stage::THERE) => return Ok(()),
            // Somebody else's may fail.
            Err(_) => STARTING.wait(false, || (STAGE.load(Ordering::SeqCst) != stage::BEGUN).then_some(()))?,
        }
    }
}

/// Let `timer` expire at `deadline_ns`, not before; its earlier deadline is forgotten. After `start`.
pub fn arm(timer: &Arc<dyn Expire>, deadline_ns: u64) {
    TIMERS.lock().arm(timer, deadline_ns);
    CHANGED.store(true, Ordering::SeqCst);
    THREAD.wake_all();
}

/// Timer `id` does not expire any more, unless it is just doing so.
pub fn disarm(id: u64) {
    TIMERS.lock().disarm(id);
}

/// Whether `timer` is told when the wall clock was set. Before it reads that clock, with its lock held.
pub fn follow_wall(timer: &Arc<dyn Expire>, follows: bool) {
    let (mut timers, id) = (TIMERS.lock(), timer.timer_id());
    if follows {
        timers.follow_wall.insert(id, Arc::downgrade(timer));
    } else {
        timers.unfollow(id);
    }
}

/// Timer `id` is gone.
pub fn forget(id: u64) {
    let mut timers = TIMERS.lock();
    timers.disarm(id);
    timers.unfollow(id);
}

/// Tell who follows the wall clock that it was set. One that begins to follow meanwhile reads the new time.
pub fn wall_was_set() {
    let mut next = 0;
    loop {
        let found = TIMERS.lock().follow_wall.range(next..).next().map(|(id, timer)| (*id, timer.clone()));
        let Some((id, timer)) = found else { return };
        next = id + 1;
        if let Some(timer) = timer.upgrade() {
            timer.wall_was_set();
        }
    }
}

/// Take out one timer that is due, or tell when the first one is.
fn first_due() -> Result<Weak<dyn Expire>, Option<u64>> {
    let mut timers = TIMERS.lock();
    let first = timers.due.first_entry().ok_or(None)?;
    let (deadline_ns, id) = *first.key();
    if deadline_ns > tsc::now_ns() {
        return Err(Some(deadline_ns));
    }
    let timer = first.remove();
    timers.armed.remove(&id);
    Ok(timer)
}

/// The thread.
fn run(_: usize) {
    loop {
        match first_due() {
            Ok(timer) => {
                if let Some(timer) = timer.upgrade()
                    && let Some(next_ns) = timer.expire()
                {
                    let mut timers = TIMERS.lock();
                    // Who armed it again meanwhile knows better.
                    if !timers.armed.contains_key(&timer.timer_id()) {
                        timers.arm(&timer, next_ns);
                    }
                }
            }
            Err(next_ns) => wait_for_change(next_ns),
        }
    }
}

/// Sleep until the first deadline may have changed, or until `next_ns`.
fn wait_for_change(next_ns: Option<u64>) {
    let me = super::current();
    me.state.prepare_sleep(false);
    THREAD.join(me);
    if CHANGED.swap(false, Ordering::SeqCst) {
        me.state.cancel_sleep();
    } else {
        match next_ns {
            Some(deadline_ns) => crate::time::timer::sleep_until(me, tsc::at_ns(deadline_ns)),
            None => super::schedule(),
        }
    }
    THREAD.leave(me);
}

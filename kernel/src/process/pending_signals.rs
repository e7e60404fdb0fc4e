//! Signals that wait for a thread or a process, and what came with them.
//!
//! `signal` alone puts them in; process context. Anyone may ask which ones there are, or take some out (signalfd, rt_sigtimedwait).
//! Invariant: a bit of the set is on exactly while the queue has that signal; both change under the queue's lock.

use super::signal::{Info, bit, sig};
use super::timer::{self, SI_TIMER};
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Faults of the thread itself come first.
const SYNCHRONOUS: u64 =
    bit(sig::SEGV) | bit(sig::BUS) | bit(sig::ILL) | bit(sig::TRAP) | bit(sig::FPE) | bit(sig::SYS);

/// How many signalfds are open, and where those wait who read them.
static FILES: AtomicU32 = AtomicU32::new(0);
static FILE_QUEUE: WaitQueue = WaitQueue::new();

/// One signalfd more (`opened`), or less.
pub fn files_changed(opened: bool) {
    FILES.fetch_add(if opened { 1 } else { u32::MAX }, Ordering::SeqCst);
}

/// Woken by each signal that is sent to anybody while a signalfd is open.
pub fn file_queue() -> &'static WaitQueue {
    &FILE_QUEUE
}

/// Signals that wait, of a thread or of a process.
pub struct PendingSignals {
    set: AtomicU64,
    queue: SpinLock<Waiting, { rank::PROCESS_PART }>,
}

/// What waits, oldest first. One signal is the usual number: it needs no memory, and no search.
struct Waiting {
    /// The oldest; signal 0: nothing waits.
    first: Info,
    /// All others.
    more: VecDeque<Info>,
}

impl Waiting {
    const fn new() -> Self {
        Self { first: Info::NONE, more: VecDeque::new() }
    }

    fn len(&self) -> usize {
        (self.first.signal != 0) as usize + self.more.len()
    }

    #[inline(always)]
    fn push(&mut self, info: &Info) {
        if self.first.signal == 0 {
            self.first = *info;
        } else {
            self.more.push_back(*info);
        }
    }

    /// Take out the oldest of `signal` into `to`. False if there is none.
    #[inline(always)]
    fn take(&mut self, signal: u32, to: &mut Info) -> bool {
        if self.first.signal != signal {
            return self.take_from_more(signal).map(|info| *to = info).is_some();
        }
        *to = self.first;
        self.refill();
        true
    }

    #[cold]
    fn take_from_more(&mut self, signal: u32) -> Option<Info> {
        let at = self.more.iter().position(|i| i.signal == signal)?;
        self.more.remove(at)
    }

    /// The first one is gone.
    #[inline(always)]
    fn refill(&mut self) {
        self.first.signal = 0;
        if !self.more.is_empty() {
            core::hint::cold_path();
            self.first = self.more.pop_front().unwrap_or(Info::NONE);
        }
    }

    fn has(&self, signal: u32) -> bool {
        self.first.signal == signal || !self.more.is_empty() && self.more.iter().any(|i| i.signal == signal)
    }

    /// Forget the signals of `set`.
    fn remove(&mut self, set: u64) {
        self.more.retain(|i| bit(i.signal) & set == 0);
        if self.first.signal != 0 && bit(self.first.signal) & set != 0 {
            self.refill();
        }
    }
}

/// Real-time signals queued at most, per queue.
const QUEUE_MAX: usize = 256;

impl PendingSignals {
    /// None.
    pub const fn new() -> Self {
        Self { set: AtomicU64::new(0), queue: SpinLock::new(Waiting::new()) }
    }

    /// Which ones.
    #[inline]
    pub fn set(&self) -> u64 {
        self.set.load(Ordering::SeqCst)
    }

    /// Add one. A standard signal that waits already is not added again.
    #[inline]
    pub(super) fn add(&self, info: Info) {
        let mut queue = self.queue.lock();
        if self.set() & bit(info.signal) != 0 && (info.signal < sig::RTMIN || queue.len() >= QUEUE_MAX) {
            return;
        }
        queue.push(&info);
        self.set.fetch_or(bit(info.signal), Ordering::SeqCst);
        drop(queue);
        if FILES.load(Ordering::Relaxed) != 0 {
            FILE_QUEUE.wake_all();
        }
    }

    /// Add the expiry of a timer, which waits beside another signal of its number.
    pub(super) fn add_expiry(&self, info: Info) {
        let mut queue = self.queue.lock();
        queue.push(&info);
        self.set.fetch_or(bit(info.signal), Ordering::SeqCst);
        drop(queue);
        if FILES.load(Ordering::Relaxed) != 0 {
            FILE_QUEUE.wake_all();
        }
    }

    /// Take out the first of the lowest signal that is in `wanted`; faults first.
    pub fn take(&self, wanted: u64) -> Option<Info> {
        let mut info = Info::NONE;
        self.take_and(wanted, &mut info, || ()).map(|()| info)
    }

    /// `take` into `to`, with what `read` gives while the signal still waits: who removes it later than that finds it gone.
    #[inline(always)]
    pub(super) fn take_and<R>(&self, wanted: u64, to: &mut Info, read: impl FnOnce() -> R) -> Option<R> {
        if self.set() & wanted == 0 {
            return None;
        }
        let mut queue = self.queue.lock();
        let ready = self.set() & wanted;
        let first = if ready & SYNCHRONOUS != 0 { ready & SYNCHRONOUS } else { ready };
        if first == 0 {
            return None;
        }
        let signal = first.trailing_zeros() + 1;
        let read = read();
        if !queue.take(signal, to) {
            return None;
        }
        if !queue.has(signal) {
            self.set.fetch_and(!bit(signal), Ordering::SeqCst);
        }
        if to.code == SI_TIMER {
            core::hint::cold_path();
            drop(queue);
            *to = timer::taken(*to);
        }
        Some(read)
    }

    pub(super) fn remove(&self, set: u64) {
        if self.set() & set != 0 {
            let mut queue = self.queue.lock();
            queue.remove(set);
            self.set.fetch_and(!set, Ordering::SeqCst);
        }
    }
}

//! Grace periods by number: how many there were, and whether one that started after a given time is over.
//!
//! A counter is written by the thread that drives its grace periods, and read by anyone in any context. A cookie stands for the readers
//! of one time. Invariants:
//! 1. A cookie is done only if a whole grace period, of either kind, started after the cookie was taken and has ended.
//! 2. What its taker stored before is seen by every reader that such a grace period does not wait for; what the others did is seen by
//!    who finds the cookie done.
//! 3. A count that has wrapped is wrong on one side only: a cookie that is looked at too late is found not done, never too early.
//!
//! Numbering as in Linux kernel/rcu/rcu.h: the low two bits of a sequence say whether one is in progress. The names of the polled
//! operations are those of Linux include/linux/rcupdate.h.

use super::snapshot_fence;
use crate::atomics::{AtomicU64, Ordering, const_unless_loom, fence_full};

const STATE_BITS: u64 = 0x3;
/// Width of the count in the kernel; tests take 2.
pub const COUNT_BITS: u32 = 62;

/// The number of a grace period: bits 2.. count those that ended, `W` bits wide; bits 0-1 are non-zero while one runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(transparent)]
pub struct GpSeq<const W: u32 = COUNT_BITS>(pub u64);

impl<const W: u32> GpSeq<W> {
    /// Bits that are not used.
    const UNUSED: u32 = {
        assert!(W >= 2 && W <= COUNT_BITS, "a cookie is up to 2 ahead, and may not look as if it were behind");
        COUNT_BITS - W
    };

    /// None yet.
    pub const fn new() -> Self {
        GpSeq(0)
    }

    const fn wrapped(number: u64) -> Self {
        GpSeq(number << Self::UNUSED >> Self::UNUSED)
    }

    /// Whether a grace period runs.
    #[inline]
    pub const fn in_progress(self) -> bool {
        self.0 & STATE_BITS != 0
    }

    /// One starts. Of a running one: the same.
    #[inline]
    pub const fn started(self) -> Self {
        GpSeq(self.0 & !STATE_BITS | 1)
    }

    /// The running one ends.
    #[inline]
    pub const fn ended(self) -> Self {
        if self.in_progress() { Self::wrapped((self.0 | STATE_BITS).wrapping_add(1)) } else { self }
    }

    /// The sequence at whose end a callback queued now may run: one that starts from now on, not the running
    /// one.
    #[inline]
    pub const fn snap(self) -> Self {
        if cfg!(mutant = "rcu_snap_takes_running") {
            return Self::wrapped((self.0 | STATE_BITS).wrapping_add(1));
        }
        let running = if self.in_progress() { STATE_BITS + 1 } else { 0 };
        Self::wrapped((self.0 & !STATE_BITS).wrapping_add(running + STATE_BITS + 1))
    }

    /// Whether `wanted`, from [`snap`](Self::snap), has been reached.
    #[inline]
    pub const fn done(self, wanted: Self) -> bool {
        if cfg!(mutant = "rcu_done_unsigned") {
            return self.0 >= wanted.0;
        }
        (self.0.wrapping_sub(wanted.0) << Self::UNUSED) as i64 >= 0
    }
}

/// The number of the last grace period of one kind, shared.
#[derive(Debug)]
pub struct GpCounter<const W: u32 = COUNT_BITS>(AtomicU64);

impl<const W: u32> GpCounter<W> {
    const_unless_loom! {
        /// No grace period yet.
        pub fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    /// Its number now; orders nothing.
    #[inline]
    pub fn now(&self) -> GpSeq<W> {
        GpSeq(self.0.load(Ordering::Relaxed))
    }

    /// One starts: from here on snapshots may be taken. By its driver alone.
    pub fn start(&self) {
        self.0.store(self.now().started().0, Ordering::SeqCst);
        snapshot_fence();
    }

    /// The running one ends: everyone has passed, as its driver, who alone may call this, has seen by loads with acquire.
    pub fn end(&self) {
        let order = if cfg!(mutant = "rcu_end_unordered") { Ordering::Relaxed } else { Ordering::Release };
        self.0.store(self.now().ended().0, order);
    }

    /// The number that is reached by the first grace period that starts from now on. A full fence: what the caller unpublished comes
    /// before it.
    #[inline]
    pub fn snap(&self) -> GpSeq<W> {
        #[cfg(not(mutant = "rcu_cookie_fence_dropped"))]
        fence_full();
        GpSeq(self.0.load(Ordering::SeqCst)).snap()
    }

    /// Whether `wanted`, from [`snap`](Self::snap), has been reached. What follows comes after the end of the readers.
    #[inline]
    pub fn is_done(&self, wanted: GpSeq<W>) -> bool {
        let order = if cfg!(mutant = "rcu_poll_unordered") { Ordering::Relaxed } else { Ordering::Acquire };
        GpSeq(self.0.load(order)).done(wanted)
    }
}

impl<const W: u32> Default for GpCounter<W> {
    fn default() -> Self {
        Self::new()
    }
}

/// What stands for the readers of one time: they are gone when a normal or an expedited grace period has passed since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookie<const W: u32 = COUNT_BITS> {
    normal: GpSeq<W>,
    expedited: GpSeq<W>,
}

/// A cookie for the readers of now. Nothing is started: somebody may do that later, or somebody else.
#[inline]
pub fn get_state_synchronize_rcu<const W: u32>(normal: &GpCounter<W>, expedited: &GpCounter<W>) -> Cookie<W> {
    Cookie { normal: normal.snap(), expedited: expedited.snap() }
}

/// Whether the readers that `cookie` stands for are gone.
#[inline]
pub fn poll_state_synchronize_rcu<const W: u32>(
    normal: &GpCounter<W>,
    expedited: &GpCounter<W>,
    cookie: Cookie<W>,
) -> bool {
    normal.is_done(cookie.normal) || expedited.is_done(cookie.expedited)
}

/// Whether a grace period has to be waited for: the same question, asked once by who can wait.
#[inline]
pub fn cond_synchronize_rcu_waits<const W: u32>(
    normal: &GpCounter<W>,
    expedited: &GpCounter<W>,
    cookie: Cookie<W>,
) -> bool {
    !poll_state_synchronize_rcu(normal, expedited, cookie)
}

//! A timer that expires once or at an interval, and counts what nobody has taken: timerfd.
//!
//! Called under its owner's lock. Times are ticks of one clock. Invariant: an expiry is counted once, however late anybody looks.
//! Source: timerfd_create(2).

/// The timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntervalTimer {
    /// The next expiry; `None`: not set.
    deadline: Option<u64>,
    /// 0: once.
    interval: u64,
    expired: u64,
}

impl IntervalTimer {
    /// Not set.
    pub const fn new() -> Self {
        Self { deadline: None, interval: 0, expired: 0 }
    }

    /// Sets it, or with `None` ends it; what was counted is forgotten.
    pub const fn set(&mut self, deadline: Option<u64>, interval: u64) {
        *self = Self { deadline, interval, expired: 0 };
    }

    /// Counts what has expired by `now`. The next deadline.
    pub fn look(&mut self, now: u64) -> Option<u64> {
        let deadline = self.deadline?;
        if now < deadline {
            return self.deadline;
        }
        let more = (now - deadline).checked_div(self.interval).unwrap_or(0);
        self.expired = self.expired.saturating_add(1).saturating_add(more);
        let elapsed = self.interval.saturating_mul(more.saturating_add(1));
        self.deadline = if self.interval == 0 { None } else { Some(deadline.saturating_add(elapsed)) };
        self.deadline
    }

    /// How often it has expired since this was last asked; looks first.
    pub fn take(&mut self, now: u64) -> u64 {
        self.look(now);
        core::mem::take(&mut self.expired)
    }

    /// Whether there is something to take.
    pub const fn has_expired(&self) -> bool {
        self.expired > 0
    }

    /// Ticks until the next expiry, at least 1 while it is set, and the interval; looks first.
    pub fn setting(&mut self, now: u64) -> (u64, u64) {
        match self.look(now) {
            Some(deadline) => ((deadline - now).max(1), self.interval),
            None => (0, self.interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn once() {
        let mut timer = IntervalTimer::new();
        assert_eq!((timer.look(5), timer.take(5)), (None, 0));
        timer.set(Some(10), 0);
        assert_eq!((timer.look(9), timer.setting(9), timer.has_expired()), (Some(10), (1, 0), false));
        assert_eq!((timer.look(10), timer.has_expired(), timer.setting(11)), (None, true, (0, 0)));
        assert_eq!((timer.take(500), timer.take(500)), (1, 0));
    }

    #[test]
    fn setting_again_forgets() {
        let mut timer = IntervalTimer::new();
        timer.set(Some(10), 5);
        assert_eq!(timer.look(20), Some(25));
        timer.set(Some(100), 0);
        assert_eq!(timer.take(50), 0);
        timer.set(None, 0);
        assert_eq!(timer.take(u64::MAX), 0);
    }

    proptest! {
        /// Looked at however often, every expiry is counted once.
        #[test]
        fn counts_each_once(first in 0u64..100, interval in 1u64..50, steps in prop::collection::vec(0u64..200, 1..20)) {
            let mut timer = IntervalTimer::new();
            timer.set(Some(first), interval);
            let (mut now, mut taken) = (0, 0);
            for (turn, step) in steps.into_iter().enumerate() {
                now += step;
                if turn % 2 == 0 { taken += timer.take(now) } else { timer.look(now); }
            }
            taken += timer.take(now);
            let wanted = if now < first { 0 } else { (now - first) / interval + 1 };
            prop_assert_eq!(taken, wanted);
            prop_assert_eq!(timer.look(now), Some(first + wanted * interval));
        }

        /// The largest numbers are no overflow.
        #[test]
        fn ends_of_time(deadline: u64, interval: u64, now: u64) {
            let mut timer = IntervalTimer::new();
            timer.set(Some(deadline), interval);
            timer.setting(now);
            prop_assert!(timer.take(u64::MAX) >= u64::from(timer.look(u64::MAX).is_none()) || deadline > now);
        }
    }
}

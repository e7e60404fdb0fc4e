//! A timer that expires once or at an interval, and counts what nobody has taken: timerfd.
//!
//! Called under its owner's lock. Times are ticks of one clock. Invariant: an expiry is counted once, however late anybody looks.
//! Source: timerfd_create(2).

use crate::wall_clock::since_boot;

/// When a timer is to expire first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this tick, at once if that has passed.
    At(u64),
    /// So many ticks from now.
    After(u64),
    /// At this time of day, ns since 1970; the wall clock may be set meanwhile. For timers whose ticks are ns since boot.
    OfDay(u64),
}

impl Start {
    /// The tick that it means now, with `wall_at_0` the time of day at tick 0.
    pub const fn deadline(self, now: u64, wall_at_0: u64) -> u64 {
        match self {
            Start::At(deadline) => deadline,
            Start::After(ticks) => now.saturating_add(ticks),
            Start::OfDay(of_day) => since_boot(of_day, wall_at_0),
        }
    }
}

/// The timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntervalTimer {
    /// The next expiry; `None`: not set.
    deadline: Option<u64>,
    /// 0: once.
    interval: u64,
    expired: u64,
    /// The latest tick at which somebody looked: who read the clock before and comes later is told nothing of an earlier time.
    seen: u64,
    /// The time of day at tick 0 that the deadline was computed with, if it follows the wall clock.
    wall_at_0: Option<u64>,
}

impl IntervalTimer {
    /// Not set.
    pub const fn new() -> Self {
        Self { deadline: None, interval: 0, expired: 0, seen: 0, wall_at_0: None }
    }

    /// Sets it, or with `None` ends it; what was counted is forgotten.
    pub const fn set(&mut self, deadline: Option<u64>, interval: u64) {
        *self = Self { deadline, interval, expired: 0, seen: self.seen, wall_at_0: None };
    }

    /// The next deadline, if it is set.
    pub const fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Sets it by one reading of the clock, `wall_at_0` being the time of day at tick 0: what it was set to until then (`setting`), and how often it had expired untaken. Each expiry of the
    /// earlier setting is taken, counted here, or still to come by the time that is left: one of the three.
    pub fn replace(&mut self, now: u64, wall_at_0: u64, start: Option<Start>, interval: u64) -> ((u64, u64), u64) {
        self.follow(now, wall_at_0);
        let was = self.setting(now);
        let expired = self.expired;
        self.set(start.map(|start| start.deadline(self.seen, wall_at_0)), interval);
        if let Some(Start::OfDay(_)) = start {
            self.wall_at_0 = Some(wall_at_0);
        }
        (was, expired)
    }

    /// Whether it is set by the time of day.
    pub const fn follows_wall(&self) -> bool {
        self.wall_at_0.is_some()
    }

    /// The wall clock was set: `wall_at_0` is the time of day at tick 0 now. What expired before has expired; what was to come at a time of day
    /// comes at that time of day. Idempotent.
    pub fn follow(&mut self, now: u64, wall_at_0: u64) {
        let Some(was) = self.wall_at_0.filter(|was| *was != wall_at_0) else { return };
        self.look(now);
        // By the time of day: the deadline may be before tick 0 now.
        self.deadline = self.deadline.map(|deadline| deadline.saturating_add(was));
        self.count(self.seen.saturating_add(wall_at_0));
        self.deadline = self.deadline.map(|of_day| since_boot(of_day, wall_at_0));
        self.wall_at_0 = Some(wall_at_0);
    }

    /// Counts what has expired by `now`. The next deadline.
    pub fn look(&mut self, now: u64) -> Option<u64> {
        let now = now.max(self.seen);
        self.seen = now;
        self.count(now)
    }

    /// `look` by a reading that is no earlier than others.
    fn count(&mut self, now: u64) -> Option<u64> {
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
            Some(deadline) => ((deadline - self.seen).max(1), self.interval),
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

    #[test]
    fn replaced_in_one_step() {
        let mut timer = IntervalTimer::new();
        assert_eq!(timer.replace(5, 0, Some(Start::After(10)), 0), ((0, 0), 0));
        assert_eq!(timer.replace(14, 0, Some(Start::After(10)), 3), ((1, 0), 0));
        assert_eq!((timer.deadline(), timer.take(23)), (Some(24), 0));
        // It expired at 24 and 27.
        assert_eq!(timer.replace(28, 0, Some(Start::At(40)), 0), ((2, 3), 2));
        assert_eq!(timer.replace(40, 0, None, 7), ((0, 0), 1));
        assert_eq!(timer.replace(50, 0, Some(Start::At(20)), 0), ((0, 7), 0));
        assert_eq!(timer.take(50), 1);
    }

    #[test]
    fn who_read_the_clock_first_and_comes_last() {
        let mut timer = IntervalTimer::new();
        timer.set(Some(10), 100);
        assert_eq!(timer.take(11), 1);
        // At 9 there was 1 left, which has been taken meanwhile.
        assert_eq!(timer.setting(9), (99, 100));
        assert_eq!(timer.replace(9, 0, Some(Start::After(5)), 0), ((99, 100), 0));
        assert_eq!(timer.deadline(), Some(16));
    }

    #[test]
    fn follows_the_wall_clock() {
        let mut timer = IntervalTimer::new();
        timer.replace(5, 1000, Some(Start::OfDay(1100)), 0);
        assert_eq!(timer.setting(5), (95, 0));
        timer.follow(10, 940);
        assert_eq!((timer.setting(10), timer.take(159)), ((150, 0), 0));
        timer.follow(20, 940);
        assert_eq!(timer.deadline(), Some(160));
        // The time of day is reached by a set.
        timer.follow(30, 1075);
        assert_eq!((timer.deadline(), timer.take(159), timer.take(200)), (None, 1, 0));
        // At an interval: what expired before the set has, whichever way it goes; those to come are at their times of day.
        timer.replace(200, 1000, Some(Start::OfDay(1210)), 100);
        timer.follow(450, 700);
        assert_eq!((timer.take(450), timer.deadline()), (3, Some(810)));
        timer.follow(460, 2000);
        assert_eq!((timer.take(460), timer.deadline()), (10, Some(510)));
        // Set again without a look in between; one that does not follow does not.
        assert_eq!(timer.replace(470, 1990, Some(Start::After(10)), 0), ((50, 100), 0));
        timer.follow(475, 3000);
        assert_eq!((timer.deadline(), timer.follows_wall()), (Some(480), false));
        timer.replace(475, 3000, Some(Start::At(600)), 0);
        timer.follow(475, 10);
        assert_eq!(timer.deadline(), Some(600));
    }

    proptest! {
        /// However often it is set anew, every expiry is one of: taken, told by who sets it, or not reached by the time that was left.
        #[test]
        fn lost_or_twice_never(turns in prop::collection::vec((0u64..30, 0u64..40, 0u64..3), 1..40)) {
            let mut timer = IntervalTimer::new();
            let (mut now, mut due, mut accounted) = (0, 0u64, 0);
            let mut armed: Option<u64> = None;
            for (step, ticks, what) in turns {
                now += step;
                if armed.is_some_and(|at| at <= now) {
                    due += 1;
                    armed = None;
                }
                match what {
                    0 => accounted += timer.take(now),
                    _ => {
                        let start = (what == 1).then_some(Start::After(ticks));
                        let ((left, _), expired) = timer.replace(now, 0, start, 0);
                        prop_assert_eq!(left > 0, armed.is_some());
                        accounted += expired;
                        armed = start.map(|start| start.deadline(now, 0));
                    }
                }
                prop_assert!(accounted <= due);
            }
            now += 100;
            due += u64::from(armed.is_some());
            prop_assert_eq!(accounted + timer.take(now), due);
        }

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

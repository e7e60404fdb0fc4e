//! The wall clock's arithmetic: which times it may be set to, and what a set makes of them.
//!
//! The clock is one number, the time of day at time 0 (ns since 1970); what it shows is that and the ns since boot. Invariant: it never shows
//! less than the time since boot, so the number is not negative. Source: clock_settime(2), adjtimex(2); Linux include/linux/time64.h.

/// Nanoseconds in a second.
const NS: u64 = 1_000_000_000;
/// Seconds that a set may not reach: Linux keeps 30 years of 2^63 ns for the time that the machine may be up.
pub const SECONDS_END: u64 = i64::MAX as u64 / NS - 30 * 365 * 24 * 3600;

/// Whether a program may ask for this time at all.
pub const fn is_time(seconds: u64, ns: u64) -> bool {
    seconds < SECONDS_END && ns < NS
}

/// The new time of day at time 0 when at `now_ns` since boot it is `seconds` and `ns` since 1970. `None`: that is no time, or before the
/// time since boot.
pub const fn set(now_ns: u64, seconds: u64, ns: u64) -> Option<u64> {
    if !is_time(seconds, ns) {
        return None;
    }
    (seconds * NS + ns).checked_sub(now_ns)
}

/// The new time of day at time 0, `at_0_ns` so far, when the clock is moved by `seconds`, which may be negative, and `ns` on top. `None` as `set`.
pub fn moved(at_0_ns: u64, now_ns: u64, seconds: i64, ns: u64) -> Option<u64> {
    if ns >= NS {
        return None;
    }
    let shown = at_0_ns as i128 + now_ns as i128 + seconds as i128 * NS as i128 + ns as i128;
    let shown = u64::try_from(shown).ok()?;
    set(now_ns, shown / NS, shown % NS)
}

/// When it is `of_day_ns` since 1970, ns since boot; 0 if that was before.
pub const fn since_boot(of_day_ns: u64, at_0_ns: u64) -> u64 {
    of_day_ns.saturating_sub(at_0_ns)
}

/// Modes of adjtimex(2).
pub mod mode {
    /// Move the clock by `time`.
    pub const SETOFFSET: u32 = 0x100;
    /// Fractions of seconds are microseconds from now on.
    pub const MICRO: u32 = 0x1000;
    /// Or nanoseconds.
    pub const NANO: u32 = 0x2000;
    /// What is left of adjtime(3)'s slow move: nothing, since there is none.
    pub const SS_READ: u32 = 0xa001;
}

/// What adjtimex(2) is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjustment {
    /// Move the clock by so many seconds and nanoseconds.
    pub by: Option<(i64, u64)>,
    /// The unit of fractions from now on: nanoseconds or not.
    pub nano: Option<bool>,
}

/// What `modes` with `time` (seconds and a fraction) ask for. `None`: nothing that there is; the clock's rate is not changed.
pub fn adjustment(modes: u32, [seconds, fraction]: [u64; 2]) -> Option<Adjustment> {
    if modes == mode::SS_READ {
        return Some(Adjustment { by: None, nano: None });
    }
    if modes & !(mode::SETOFFSET | mode::MICRO | mode::NANO) != 0 {
        return None;
    }
    let unit = if modes & mode::NANO != 0 { 1 } else { 1000 };
    let by = match modes & mode::SETOFFSET {
        0 => None,
        _ if fraction >= NS / unit => return None,
        _ => Some((seconds as i64, fraction * unit)),
    };
    let nano = if modes & mode::MICRO != 0 { Some(false) } else { (modes & mode::NANO != 0).then_some(true) };
    Some(Adjustment { by, nano })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_may_be_set() {
        assert_eq!(set(5 * NS, 7, 3), Some(2 * NS + 3));
        // Not before the time since boot, which it may show.
        assert_eq!((set(5 * NS, 5, 0), set(5 * NS, 4, NS - 1)), (Some(0), None));
        assert_eq!((set(0, 7, NS), set(0, u64::MAX, 0), set(0, SECONDS_END, 0)), (None, None, None));
        assert_eq!(set(1, SECONDS_END - 1, NS - 1), Some(SECONDS_END * NS - 2));
        // Linux's own number.
        assert_eq!(SECONDS_END, 8_277_292_036);
    }

    #[test]
    fn moved_forth_and_back() {
        let at_0 = 1_700_000_000 * NS;
        assert_eq!(moved(at_0, 9, 3600, 5), Some(at_0 + 3600 * NS + 5));
        assert_eq!(moved(at_0, 9, -1, NS - 1), Some(at_0 - 1));
        assert_eq!(moved(at_0, 9, 0, NS), None);
        assert_eq!((moved(at_0, 9, -1_700_000_000, 0), moved(at_0, 9, -1_700_000_001, NS - 1)), (Some(0), None));
        assert_eq!((moved(at_0, 9, i64::MIN, 0), moved(at_0, 9, i64::MAX, NS - 1)), (None, None));
    }

    #[test]
    fn what_adjtimex_asks_for() {
        let adjusts = |by, nano| Some(Adjustment { by, nano });
        assert_eq!(adjustment(0, [1, u64::MAX]), adjusts(None, None));
        assert_eq!(adjustment(mode::SS_READ, [1, 2]), adjusts(None, None));
        assert_eq!(adjustment(mode::SETOFFSET, [u64::MAX, 999_999]), adjusts(Some((-1, 999_999_000)), None));
        assert_eq!(adjustment(mode::SETOFFSET, [0, 1_000_000]), None);
        let both = mode::SETOFFSET | mode::NANO;
        assert_eq!(adjustment(both, [0, NS - 1]), adjusts(Some((0, NS - 1)), Some(true)));
        assert_eq!((adjustment(both, [0, NS]), adjustment(both, [0, u64::MAX])), (None, None));
        assert_eq!(adjustment(mode::MICRO | mode::NANO, [0; 2]), adjusts(None, Some(false)));
        // The rate, the slow move, and the rest.
        for modes in [1, 2, 4, 8, 0x10, 0x20, 0x80, 0x4000, 0x8001, 0x8000_0000] {
            assert_eq!(adjustment(modes, [0; 2]), None);
        }
    }

    proptest! {
        /// What is set is shown, and a move back undoes a move.
        #[test]
        fn shown_as_set(now in 0u64..1 << 60, seconds in 0..SECONDS_END, ns in 0..NS, by in -4_000_000_000i64..4_000_000_000) {
            let wanted = seconds * NS + ns;
            match set(now, seconds, ns) {
                Some(at_0) => {
                    prop_assert_eq!(at_0 + now, wanted);
                    prop_assert_eq!(since_boot(wanted, at_0), now);
                    if let Some(there) = moved(at_0, now, by, ns) {
                        let back = if ns == 0 { (-by, 0) } else { (-by - 1, NS - ns) };
                        prop_assert_eq!(moved(there, now, back.0, back.1), Some(at_0));
                    }
                }
                None => prop_assert!(wanted < now),
            }
        }

        /// No number overflows.
        #[test]
        fn ends_of_time(at_0 in 0..SECONDS_END * NS, now in 0u64..1 << 62, seconds: i64, ns: u64) {
            if let Some(there) = moved(at_0, now, seconds, ns) {
                prop_assert!(there.checked_add(now).is_some_and(|shown| shown < SECONDS_END * NS));
            }
        }
    }
}

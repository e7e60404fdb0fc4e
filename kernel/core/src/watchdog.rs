//! The lockup watchdog's rules: when a CPU that runs kernel code has been there for too long without a sign of life.
//!
//! A housekeeping thread looks at every CPU's counters now and then ([`CpuWatch::look`]) and never interrupts one that shows a sign of
//! life. A CPU in user mode or idle is not locked up, so its word alone is enough, and an isolated CPU that computes is never asked.
//! In the kernel, a system call, a transition or a task switch is a sign of life; interrupts alone are not, but they tell a soft lockup
//! (interrupts are taken, nothing else runs) from a hard one (they are off). A CPU that takes none may just have no tick: it is asked once, by
//! an NMI, whether they are off.
//! Source of the thresholds: Linux Documentation/admin-guide/lockup-watchdogs.rst.

use crate::context_tracking::{State, counter};

/// `watchdog_thresh=` where it is not given, in seconds: of a hard lockup; a soft one is told after twice the time.
pub const DEFAULT_THRESHOLD_S: u32 = 10;
/// The largest threshold, Linux's.
pub const MAX_THRESHOLD_S: u32 = 60;

/// What another CPU can see of a CPU without asking it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Signs {
    /// Its context word.
    pub word: u64,
    /// System calls so far.
    pub syscalls: u64,
    /// Quiescent states so far (switches, ticks that hit user mode).
    pub quiescent: u32,
    /// Interrupts so far, of all causes but NMIs.
    pub interrupts: u64,
}

/// What a look found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Alive, or it was told already.
    Fine,
    /// No interrupt and no sign of life for so many ns, more than the threshold: a hard lockup if interrupts are off there. Then
    /// [`CpuWatch::is_hard`] is to be called.
    Silent(u64),
    /// No sign of life for so many ns, more than twice the threshold: a soft lockup.
    Soft(u64),
}

/// What the watchdog knows of one CPU.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuWatch {
    last: Signs,
    alive_ns: u64,
    interrupted_ns: u64,
    asked: bool,
    told: bool,
}

impl CpuWatch {
    /// The silent CPU has interrupts off, and is told: nothing more is until it shows a sign of life.
    pub fn is_hard(&mut self) {
        self.told = true;
    }

    /// Look at a CPU that shows `now` at time `now_ns`. A lockup is told once; another one after a sign of life.
    pub fn look(&mut self, now_ns: u64, now: Signs, threshold_ns: u64) -> Verdict {
        let before = core::mem::replace(&mut self.last, now);
        let in_kernel = State::of(now.word) == State::Kernel;
        let moved = counter(now.word) != counter(before.word)
            || now.syscalls != before.syscalls
            || now.quiescent != before.quiescent;
        if !in_kernel || moved || self.alive_ns == 0 {
            *self = CpuWatch { last: now, alive_ns: now_ns, interrupted_ns: now_ns, asked: false, told: false };
            return Verdict::Fine;
        }
        if now.interrupts != before.interrupts {
            self.interrupted_ns = now_ns;
        }
        let (dead_ns, silent_ns) = (now_ns - self.alive_ns, now_ns - self.interrupted_ns);
        if self.told {
            Verdict::Fine
        } else if dead_ns > 2 * threshold_ns {
            self.told = true;
            Verdict::Soft(dead_ns)
        } else if silent_ns > threshold_ns && !self.asked {
            self.asked = true;
            Verdict::Silent(silent_ns)
        } else {
            Verdict::Fine
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn signs(state: State, transitions: u64, syscalls: u64, quiescent: u32, interrupts: u64) -> Signs {
        let word = transitions << crate::context_tracking::COUNTER_SHIFT | state as u64;
        Signs { word, syscalls, quiescent, interrupts }
    }

    fn looks(each: impl Fn(u64) -> Signs) -> Vec<(u64, Verdict)> {
        let mut watch = CpuWatch::default();
        let all = (1..100).map(|s| (s, watch.look(s * S, each(s), 10 * S)));
        all.filter(|(_, verdict)| *verdict != Verdict::Fine).collect()
    }

    #[test]
    fn each_sign_of_life_is_one() {
        assert_eq!(looks(|_| signs(State::User, 1, 1, 1, 1)), []);
        assert_eq!(looks(|_| signs(State::Idle, 1, 1, 1, 1)), []);
        assert_eq!(looks(|s| signs(State::Kernel, s, 1, 1, 1)), []);
        assert_eq!(looks(|s| signs(State::Kernel, 1, s, 1, 1)), []);
        assert_eq!(looks(|s| signs(State::Kernel, 1, 1, s as u32, 1)), []);
        // One in nine seconds is enough.
        assert_eq!(looks(|s| signs(State::Kernel, 1, s / 9, 1, 1)), []);
    }

    #[test]
    fn lockups_are_told_once_with_their_kind() {
        // Silent, and if nobody says that its interrupts are off, softly locked up later.
        let silent = |_| signs(State::Kernel, 1, 1, 1, 1);
        assert_eq!(looks(silent), [(12, Verdict::Silent(11 * S)), (22, Verdict::Soft(21 * S))]);
        let mut watch = CpuWatch::default();
        (1..12).for_each(|s| assert_eq!(watch.look(s * S, silent(s), 10 * S), Verdict::Fine));
        assert_eq!(watch.look(12 * S, silent(12), 10 * S), Verdict::Silent(11 * S));
        watch.is_hard();
        (13..99).for_each(|s| assert_eq!(watch.look(s * S, silent(s), 10 * S), Verdict::Fine));
        assert_eq!(looks(|s| signs(State::Kernel, 1, 1, 1, s)), [(22, Verdict::Soft(21 * S))]);
        // Alive again at 30, and locked up again.
        let twice = looks(|s| signs(State::Kernel, 1, 1, (s >= 30).into(), s));
        assert_eq!(twice, [(22, Verdict::Soft(21 * S)), (51, Verdict::Soft(21 * S))]);
    }
}

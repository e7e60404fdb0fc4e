//! Which program ends when memory has run out: Linux's rule.
//!
//! Called by `process::oom` of the kernel, which gives what each process has and ends the one that is named; and by /proc, which shows the score.
//! A process is as bad as the memory is large that its end frees, changed by what was written to its oom_score_adj.
//! Source: proc_pid_oom_score_adj(5), proc_pid_oom_score(5).

/// The adjustment of a process that is never ended.
pub const NEVER: i32 = -1000;
/// The greatest adjustment: as bad as if it had all memory more.
pub const MOST: i32 = 1000;

/// What counts of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub pid: u32,
    /// Pages that it has: those mapped, and its page tables.
    pub pages: u64,
    /// Its oom_score_adj, from `NEVER` to `MOST`.
    pub adjustment: i32,
}

impl Candidate {
    /// Pages, and a thousandth of the machine's `total_pages` for each unit of the adjustment. `None`: it is never ended.
    pub fn badness(&self, total_pages: u64) -> Option<i64> {
        if self.adjustment <= NEVER {
            return None;
        }
        let share = i64::try_from(total_pages / 1000).unwrap_or(i64::MAX).saturating_mul(self.adjustment.into());
        Some(i64::try_from(self.pages).unwrap_or(i64::MAX).saturating_add(share))
    }

    /// /proc/PID/oom_score: 0 for one that is never ended, 666 for one that has nothing and no adjustment, 2000 at most.
    pub fn score(&self, total_pages: u64) -> u32 {
        let Some(badness) = self.badness(total_pages) else { return 0 };
        let total = i64::try_from(total_pages).unwrap_or(i64::MAX).max(1);
        let thousandths = badness.saturating_mul(1000) / total;
        (thousandths.saturating_add(1000).saturating_mul(2) / 3).clamp(0, 2000) as u32
    }
}

/// The worst of `all`; of equals the last. `None`: none may be ended.
///
/// `asker`, who found no memory, ends itself where nobody stands out: it does so at once, and need not be waited for. Of many small ones that fork
/// without end so those end that want more, and not the shell.
pub fn worst(
    all: impl IntoIterator<Item = Candidate>,
    asker: Option<Candidate>,
    total_pages: u64,
) -> Option<Candidate> {
    let rated = all.into_iter().filter_map(|c| Some((c.badness(total_pages)?, c)));
    let (_, worst) = rated.max_by_key(|(badness, _)| *badness)?;
    let asker = asker.filter(|asker| asker.adjustment > NEVER && !stands_out(&worst, asker, total_pages));
    Some(asker.unwrap_or(worst))
}

/// Whether `one` is worse than the asker by more than a hundredth of the machine.
pub fn stands_out(one: &Candidate, asker: &Candidate, total_pages: u64) -> bool {
    let least = i64::try_from(total_pages / 100).unwrap_or(i64::MAX);
    match (one.badness(total_pages), asker.badness(total_pages)) {
        (Some(one), Some(asker)) => one.saturating_sub(asker) > least,
        (one, _) => one.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOTAL: u64 = 100_000;

    const fn with(pid: u32, pages: u64, adjustment: i32) -> Candidate {
        Candidate { pid, pages, adjustment }
    }

    #[test]
    fn the_largest_goes_first() {
        let all = [with(2, 10, 0), with(3, 5000, 0), with(4, 400, 0)];
        assert_eq!(worst(all, None, TOTAL), Some(all[1]));
        assert_eq!(worst([], None, TOTAL), None);
        // Of equals the youngest.
        assert_eq!(worst([with(5, 10, 0), with(6, 10, 0)], None, TOTAL).map(|c| c.pid), Some(6));
        assert_eq!(worst([with(5, 12, 0), with(6, 10, 0)], None, TOTAL).map(|c| c.pid), Some(5));
        // Who asks, where nobody has a hundredth of the machine more.
        let asks = with(5, 10, 0);
        assert_eq!(worst([asks, with(6, 1010, 0), with(7, 20, 0)], Some(asks), TOTAL), Some(asks));
        assert_eq!(worst([asks, with(6, 1011, 0)], Some(asks), TOTAL).map(|c| c.pid), Some(6));
        let spared = with(5, 10, NEVER);
        assert_eq!(worst([spared, with(6, 20, 0)], Some(spared), TOTAL).map(|c| c.pid), Some(6));
    }

    #[test]
    fn the_adjustment_counts_in_thousandths_of_the_machine() {
        let small = with(2, 10, 100);
        assert_eq!(worst([small, with(3, 9_000, 0)], None, TOTAL), Some(small));
        assert_eq!(worst([small, with(3, 11_000, 0)], None, TOTAL).map(|c| c.pid), Some(3));
        // Spared, but not for ever: where nobody else is there it goes.
        assert_eq!(worst([with(4, 1, -999)], None, TOTAL).map(|c| c.pid), Some(4));
    }

    #[test]
    fn who_is_never_ended_is_not_chosen() {
        let all = [with(2, 90_000, NEVER), with(3, 1, -999)];
        assert_eq!(worst(all, None, TOTAL).map(|c| c.pid), Some(3));
        assert_eq!(worst([all[0]], None, TOTAL), None);
    }

    #[test]
    fn scores_are_those_of_proc() {
        let score = |pages, adjustment| with(1, pages, adjustment).score(TOTAL);
        assert_eq!([score(0, 0), score(TOTAL, 0), score(TOTAL, 1000)], [666, 1333, 2000]);
        assert_eq!([score(0, -999), score(TOTAL, NEVER), score(u64::MAX, 1000)], [0, 0, 2000]);
        assert_eq!(with(1, 5, 5).score(0), 2000);
    }
}

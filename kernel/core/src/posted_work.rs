//! What a trace tells of work that waited: who left it, and that it was done before the kernel code that it waited for.
//!
//! Fed by the host in two passes: first what was posted, by the senders' records; then, by the target's own records in their order,
//! that it left the kernel, found work, and came in. Nothing here compares clocks of two CPUs: a post names the word that it found, whose
//! counter says in which stay outside the kernel it came.
//!
//! Invariants that are checked, for each stay: what was posted in it was found at its end, before anything else was recorded; what was
//! found had been posted in it, unless senders' records are missing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What was posted, and what came of it, by CPU.
#[derive(Clone, Debug, Default)]
pub struct PostedWork {
    cpus: BTreeMap<u32, Target>,
    /// Records of some sender are missing.
    incomplete: bool,
    /// Posts in all.
    pub posts: u64,
    /// Of them, those that were found.
    pub ran: u64,
    /// Entries that found work.
    pub entries: u64,
}

#[derive(Clone, Debug, Default)]
struct Target {
    /// Counter of the word that was found, and bits; in the order of the counters once they are looked at.
    posts: Vec<(u64, u8)>,
    /// All before this one have been looked at.
    next: usize,
    /// The counter of the stay outside the kernel that it is in, if that is known.
    left: Option<u64>,
    /// What it found since then.
    found: u8,
}

/// What cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// This was posted, and kernel code ran without having found it.
    NotRun(u8),
    /// This was found, and nobody posted it.
    NotPosted(u8),
}

impl core::fmt::Display for Wrong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Wrong::NotRun(bits) => write!(f, "work {bits:#x} was posted and has not run before this"),
            Wrong::NotPosted(bits) => write!(f, "work {bits:#x} ran that nobody posted"),
        }
    }
}

impl PostedWork {
    /// A sender left `bits` for CPU `target`, in whose word the counter was `counter`.
    pub fn post(&mut self, target: u32, counter: u64, bits: u8) {
        self.posts += 1;
        self.cpus.entry(target).or_default().posts.push((counter, bits));
    }

    /// Records of a sender are missing: posts may be.
    pub fn posts_missing(&mut self) {
        self.incomplete = true;
    }

    /// All posts are known.
    pub fn sort(&mut self) {
        self.cpus.values_mut().for_each(|target| target.posts.sort_unstable());
    }

    /// CPU `cpu` leaves the kernel; from then on its counter is `counter`.
    pub fn left(&mut self, cpu: u32, counter: u64) {
        let target = self.cpus.entry(cpu).or_default();
        (target.left, target.found) = (Some(counter), 0);
    }

    /// CPU `cpu` found `bits` in its word; its counter is `counter` since it came in.
    pub fn ran(&mut self, cpu: u32, counter: u64, bits: u8) -> Result<(), Wrong> {
        self.entries += 1;
        let incomplete = self.incomplete;
        let target = self.cpus.entry(cpu).or_default();
        let Some(left) = target.left else {
            // Ways out are not in the trace: what was posted before this is found here or is not known.
            while let Some(&(_, posted)) = target.posts.get(target.next).filter(|post| post.0 < counter) {
                target.next += 1;
                self.ran += u64::from(posted & !bits == 0);
            }
            return Ok(());
        };
        target.found |= bits;
        let posted = target.posts[target.next..].iter().filter(|post| (left..counter).contains(&post.0));
        match bits & !posted.fold(0, |all, post| all | post.1) {
            0 => Ok(()),
            _ if incomplete => Ok(()),
            extra => Err(Wrong::NotPosted(extra)),
        }
    }

    /// CPU `cpu` has come in and records something that is no part of that; its counter is `counter` since then.
    pub fn came_in(&mut self, cpu: u32, counter: u64) -> Result<(), Wrong> {
        let Some(target) = self.cpus.get_mut(&cpu) else { return Ok(()) };
        let (left, found) = (target.left.take(), core::mem::take(&mut target.found));
        let mut missing = 0;
        while let Some(&(at, bits)) = target.posts.get(target.next).filter(|post| post.0 < counter) {
            target.next += 1;
            self.ran += u64::from(bits & !found == 0);
            // Of what was posted in stays that are not in the trace nothing is known.
            missing |= if left.is_some_and(|left| at >= left) { bits & !found } else { 0 };
        }
        if missing == 0 { Ok(()) } else { Err(Wrong::NotRun(missing)) }
    }

    /// Records of CPU `cpu` are missing: what it found may be among them.
    pub fn target_missing(&mut self, cpu: u32) {
        if let Some(target) = self.cpus.get_mut(&cpu) {
            (target.left, target.found) = (None, 0);
        }
    }

    /// Posts to CPUs that have not come in since.
    pub fn waiting(&self) -> u64 {
        self.cpus.values().map(|target| (target.posts.len() - target.next) as u64).sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// CPU 1 leaves with counter 2 and comes in with 3, and so on; `posts` of counter and bits.
    fn with(posts: &[(u64, u8)]) -> PostedWork {
        let mut work = PostedWork::default();
        posts.iter().for_each(|&(counter, bits)| work.post(1, counter, bits));
        work.sort();
        work
    }

    #[test]
    fn what_was_posted_in_a_stay_is_found_at_its_end() {
        let mut work = with(&[(6, 1), (2, 2), (2, 1), (2, 2)]);
        work.left(1, 2);
        assert_eq!((work.ran(1, 3, 3), work.came_in(1, 3)), (Ok(()), Ok(())));
        work.left(1, 4);
        assert_eq!(work.came_in(1, 5), Ok(()));
        work.left(1, 6);
        assert_eq!((work.posts, work.ran, work.entries, work.waiting()), (4, 3, 1, 1));
        // An NMI in the stay moves the counter by two.
        assert_eq!((work.ran(1, 9, 1), work.came_in(1, 9), work.waiting()), (Ok(()), Ok(()), 0));
    }

    #[test]
    fn what_was_not_found_is_a_fault_and_so_is_what_was_not_posted() {
        let mut work = with(&[(2, 3)]);
        work.left(1, 2);
        assert_eq!((work.ran(1, 3, 1), work.came_in(1, 3)), (Ok(()), Err(Wrong::NotRun(2))));
        work.left(1, 4);
        assert_eq!(work.ran(1, 5, 1), Err(Wrong::NotPosted(1)), "it was for the stay before");
        let mut late = with(&[(2, 1)]);
        late.left(1, 2);
        assert_eq!(late.came_in(1, 3), Err(Wrong::NotRun(1)), "found by nobody");
    }

    #[test]
    fn what_is_missing_is_not_held_against_anybody() {
        let mut work = with(&[(2, 1), (6, 2)]);
        work.left(1, 2);
        work.target_missing(1);
        assert_eq!(work.came_in(1, 5), Ok(()));
        work.left(1, 6);
        work.posts_missing();
        assert_eq!((work.ran(1, 7, 6), work.came_in(1, 7)), (Ok(()), Ok(())));
        assert_eq!((work.ran, work.waiting()), (1, 0));
    }
}

//! Priority inheritance: who holds which lock, who waits for it, and how urgent that makes its holder.
//!
//! Called by `sched::priority_futex` under one lock. It knows locks that somebody waits for, and the tasks that hold them or wait; every other
//! lock is the business of its users alone. Invariants:
//! 1. A task waits for at most one lock, and no task waits, by way of others, for itself: `wait` refuses what would close a circle.
//! 2. What a task inherits is the highest priority among those who wait for its locks, each with what it inherits itself, as far as
//!    [`LONGEST_CHAIN`] goes.
//! 3. Waiters of a lock stand by priority, equals in the order in which they came; who becomes more or less urgent goes behind its new equals.
//!
//! Source: futex(2), "Priority-inheritance futexes"; sched(7).

use crate::map_memory::give_back;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// 0: no real-time priority; else that of SCHED_FIFO, 1 to 99.
pub type Priority = u8;

/// How far one operation goes along a chain of tasks that wait for each other: a task does not wait for one that is further from its chain's end,
/// as if that were a circle. A chain that is made longer at its other end may get longer than this; of what changes, those beyond it are not told.
/// Linux's limit (max_lock_depth); fewer where an interpreter runs it. Each step also looks at the locks of its task and at the waiters of one.
pub const LONGEST_CHAIN: usize = if cfg!(miri) { 32 } else { 1024 };

/// Why a task cannot wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Its wait would close a circle, or a chain that is too long: EDEADLK.
    Deadlock,
    /// The lock has another holder than the one that was named: EINVAL.
    OtherHolder,
    /// The task waits already: EINVAL.
    Waits,
}

/// What a task inherits from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// The task.
    pub task: u32,
    /// The highest priority of those who wait for it; 0: none is.
    pub inherits: Priority,
}

/// Changes to be made, in this order.
pub type Changes = Vec<Change>;

/// A lock's new holder.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "the new holder is to be told"]
pub struct HandedOver {
    /// Who holds it now.
    pub task: u32,
    /// What that changes.
    pub changes: Changes,
}

#[derive(Debug)]
struct Lock {
    holder: u32,
    /// Its holder has not written its name yet: known also without waiters.
    unsettled: bool,
    /// The first one is next.
    waiters: Vec<u32>,
}

#[derive(Debug)]
struct Member<K> {
    own: Priority,
    inherits: Priority,
    waits_for: Option<K>,
    /// Locks that it holds, of those that are known.
    holds: Vec<K>,
}

impl<K> Member<K> {
    fn priority(&self) -> Priority {
        self.own.max(self.inherits)
    }
}

/// All locks that are waited for.
#[derive(Debug)]
pub struct Inheritance<K> {
    locks: BTreeMap<K, Lock>,
    members: BTreeMap<u32, Member<K>>,
}

impl<K: Copy + Ord> Default for Inheritance<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Ord> Inheritance<K> {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { locks: BTreeMap::new(), members: BTreeMap::new() }
    }

    /// Who holds `lock`, if it is known.
    pub fn holder(&self, lock: K) -> Option<u32> {
        self.locks.get(&lock).map(|l| l.holder)
    }

    /// Whether the holder has written its name: true also of unknown locks.
    pub fn is_settled(&self, lock: K) -> bool {
        self.locks.get(&lock).is_none_or(|l| !l.unsettled)
    }

    /// Who gets `lock` next.
    pub fn next(&self, lock: K) -> Option<u32> {
        self.locks.get(&lock)?.waiters.first().copied()
    }

    /// A known lock that `task` holds.
    pub fn held_by(&self, task: u32) -> Option<K> {
        self.members.get(&task)?.holds.first().copied()
    }

    /// What `task` inherits.
    pub fn inherited(&self, task: u32) -> Priority {
        self.members.get(&task).map_or(0, |m| m.inherits)
    }

    /// `waiter` waits for `lock`, which `holder` holds; each with its own priority, without what it inherits. That of a holder that is known
    /// already is not looked at: `set_own` tells it.
    pub fn wait(&mut self, lock: K, holder: (u32, Priority), waiter: (u32, Priority)) -> Result<Changes, Refused> {
        if self.members.get(&waiter.0).is_some_and(|m| m.waits_for.is_some()) {
            return Err(Refused::Waits);
        }
        if self.holder(lock).is_some_and(|known| known != holder.0) {
            return Err(Refused::OtherHolder);
        }
        let mut at = holder.0;
        for step in 0.. {
            if at == waiter.0 || step == LONGEST_CHAIN {
                return Err(Refused::Deadlock);
            }
            let Some(next) = self.members.get(&at).and_then(|m| m.waits_for) else { break };
            let Some(next) = self.holder(next) else { break };
            at = next;
        }
        self.hold(lock, holder);
        let new = || Member { own: waiter.1, inherits: 0, waits_for: None, holds: Vec::new() };
        let member = self.members.entry(waiter.0).or_insert_with(new);
        (member.own, member.waits_for) = (waiter.1, Some(lock));
        self.stand(lock, waiter.0);
        Ok(self.follow(holder.0))
    }

    /// `waiter` does not wait for `lock` any more, and has not got it.
    pub fn leave(&mut self, lock: K, waiter: u32) -> Changes {
        let Some(known) = self.locks.get_mut(&lock) else { return Changes::new() };
        let Some(at) = known.waiters.iter().position(|&w| w == waiter) else { return Changes::new() };
        known.waiters.remove(at);
        let holder = known.holder;
        if let Some(member) = self.members.get_mut(&waiter) {
            member.waits_for = None;
        }
        let changes = self.follow(holder);
        self.forget(lock);
        self.forget_member(waiter);
        changes
    }

    /// `lock` goes from its holder to who is next. `settled`: the new holder's name is written already; else `settle` says when. None: nobody
    /// waits, and the lock is not known any more.
    pub fn hand_over(&mut self, lock: K, settled: bool) -> Option<HandedOver> {
        let known = self.locks.get_mut(&lock)?;
        let (old, next) = (known.holder, known.waiters.first().copied());
        if let Some(member) = self.members.get_mut(&old) {
            member.holds.retain(|&held| held != lock);
        }
        let Some(next) = next else {
            self.forget_lock(lock);
            let _ = self.follow(old);
            self.forget_member(old);
            return None;
        };
        known.waiters.remove(0);
        known.holder = next;
        known.unsettled = !settled;
        if let Some(member) = self.members.get_mut(&next) {
            member.waits_for = None;
            member.holds.push(lock);
        }
        let mut changes = self.follow(next);
        changes.extend(self.follow(old));
        self.forget_member(old);
        self.forget(lock);
        Some(HandedOver { task: next, changes })
    }

    /// The holder of `lock` has written its name.
    pub fn settle(&mut self, lock: K) {
        if let Some(known) = self.locks.get_mut(&lock) {
            known.unsettled = false;
            self.forget(lock);
        }
    }

    /// The priority of `task` itself has become `own`.
    pub fn set_own(&mut self, task: u32, own: Priority) -> Changes {
        let Some(member) = self.members.get_mut(&task) else { return Changes::new() };
        if member.own == own {
            return Changes::new();
        }
        let before = member.priority();
        member.own = own;
        match (member.waits_for, member.priority() != before) {
            (Some(lock), true) => {
                self.stand_anew(lock, task);
                self.holder(lock).map_or(Changes::new(), |holder| self.follow(holder))
            }
            _ => Changes::new(),
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.locks.is_empty() && self.members.is_empty()
    }

    fn hold(&mut self, lock: K, holder: (u32, Priority)) {
        let new = || Lock { holder: holder.0, unsettled: false, waiters: Vec::new() };
        self.locks.entry(lock).or_insert_with(new);
        // The place of one who waits itself goes by `own`: what is known of it changes by `set_own` alone, which gives it another place.
        let new = || Member { own: holder.1, inherits: 0, waits_for: None, holds: Vec::new() };
        let member = self.members.entry(holder.0).or_insert_with(new);
        if !member.holds.contains(&lock) {
            member.holds.push(lock);
        }
    }

    fn priority(&self, task: u32) -> Priority {
        self.members.get(&task).map_or(0, Member::priority)
    }

    /// Behind those that are as urgent.
    fn stand(&mut self, lock: K, task: u32) {
        let priority = self.priority(task);
        let Some(known) = self.locks.get(&lock) else { return };
        let at = known.waiters.iter().position(|&w| self.priority(w) < priority).unwrap_or(known.waiters.len());
        if let Some(known) = self.locks.get_mut(&lock) {
            known.waiters.insert(at, task);
        }
    }

    fn stand_anew(&mut self, lock: K, task: u32) {
        if let Some(known) = self.locks.get_mut(&lock) {
            known.waiters.retain(|&w| w != task);
        }
        self.stand(lock, task);
    }

    /// What `task` inherits follows its locks; if it waits itself, so does what its lock's holder inherits, and so on for [`LONGEST_CHAIN`] tasks.
    fn follow(&mut self, task: u32) -> Changes {
        let (mut changes, mut at) = (Changes::new(), task);
        // No circle, so each step is at another task.
        for _ in 0..LONGEST_CHAIN {
            let Some(member) = self.members.get(&at) else { return changes };
            let firsts = member.holds.iter().filter_map(|lock| self.next(*lock));
            let inherits = firsts.map(|waiter| self.priority(waiter)).max().unwrap_or(0);
            let Some(member) = self.members.get_mut(&at) else { return changes };
            if member.inherits == inherits {
                return changes;
            }
            let before = member.priority();
            member.inherits = inherits;
            changes.push(Change { task: at, inherits });
            let (Some(lock), true) = (member.waits_for, member.priority() != before) else { return changes };
            self.stand_anew(lock, at);
            let Some(holder) = self.holder(lock) else { return changes };
            at = holder;
        }
        changes
    }

    /// A lock that nobody waits for is not known, unless its holder has to write its name first.
    fn forget(&mut self, lock: K) {
        let Some(known) = self.locks.get(&lock).filter(|l| l.waiters.is_empty() && !l.unsettled) else { return };
        let holder = known.holder;
        self.forget_lock(lock);
        if let Some(member) = self.members.get_mut(&holder) {
            member.holds.retain(|&held| held != lock);
        }
        self.forget_member(holder);
    }

    fn forget_member(&mut self, task: u32) {
        if self.members.get(&task).is_some_and(|m| m.holds.is_empty() && m.waits_for.is_none()) {
            self.members.remove(&task);
            give_back(&mut self.members);
        }
    }

    fn forget_lock(&mut self, lock: K) {
        self.locks.remove(&lock);
        give_back(&mut self.locks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (u32, Priority) = (1, 0);
    const B: (u32, Priority) = (2, 10);
    const C: (u32, Priority) = (3, 30);

    fn change(task: u32, inherits: Priority) -> Change {
        Change { task, inherits }
    }

    #[test]
    fn a_holder_inherits_until_it_hands_over() {
        let mut all = Inheritance::new();
        assert_eq!(all.wait('x', A, B), Ok(vec![change(1, 10)]));
        assert_eq!(all.wait('x', A, C), Ok(vec![change(1, 30)]));
        // The more urgent one first, though it came last; the other now waits for it, and is no news.
        let handed = all.hand_over('x', true);
        assert_eq!(handed, Some(HandedOver { task: 3, changes: vec![change(3, 10), change(1, 0)] }));
        assert_eq!(all.hand_over('x', true), Some(HandedOver { task: 2, changes: vec![change(3, 0)] }));
        assert!(all.is_empty(), "{all:?}");
    }

    #[test]
    fn chains_pass_it_on_and_circles_are_refused() {
        let mut all = Inheritance::new();
        assert_eq!(all.wait('x', A, B), Ok(vec![change(1, 10)]));
        assert_eq!(all.wait('y', B, C), Ok(vec![change(2, 30), change(1, 30)]));
        assert_eq!(all.wait('y', B, A), Err(Refused::Deadlock));
        assert_eq!(all.wait('z', A, A), Err(Refused::Deadlock));
        assert_eq!(all.wait('x', C, (4, 0)), Err(Refused::OtherHolder));
        assert_eq!(all.wait('z', (5, 0), C), Err(Refused::Waits));
        assert_eq!(all.set_own(3, 50), [change(2, 50), change(1, 50)]);
        assert_eq!(all.leave('y', 3), [change(2, 0), change(1, 10)]);
        assert_eq!(all.set_own(2, 0), [change(1, 0)]);
        assert_eq!(all.leave('x', 2), []);
        assert!(all.is_empty(), "{all:?}");
    }

    #[test]
    fn who_becomes_more_urgent_overtakes_and_equals_keep_their_order() {
        let mut all = Inheritance::new();
        for waiter in [(2, 5), (3, 5), (4, 5)] {
            let _ = all.wait('x', A, waiter);
        }
        assert_eq!(all.next('x'), Some(2));
        assert_eq!(all.wait('y', (4, 5), (5, 30)), Ok(vec![change(4, 30), change(1, 30)]));
        assert_eq!(all.next('x'), Some(4));
        assert_eq!(all.leave('y', 5), [change(4, 0), change(1, 5)]);
        assert_eq!(all.next('x'), Some(2));
    }

    #[test]
    fn an_unsettled_lock_is_known_until_its_holder_says_so() {
        let mut all = Inheritance::new();
        let _ = all.wait('x', A, B);
        assert_eq!(all.hand_over('x', false), Some(HandedOver { task: 2, changes: vec![change(1, 0)] }));
        assert_eq!((all.holder('x'), all.is_settled('x'), all.held_by(2)), (Some(2), false, Some('x')));
        let _ = all.wait('x', B, C);
        let _ = all.leave('x', 3);
        assert_eq!(all.holder('x'), Some(2));
        all.settle('x');
        assert!(all.is_settled('x') && all.is_empty(), "{all:?}");
        // Its holder dies before that, and nobody waits.
        let _ = all.wait('x', A, B);
        let _ = all.hand_over('x', false);
        assert_eq!(all.hand_over('x', false), None);
        assert!(all.is_empty(), "{all:?}");
    }

    #[test]
    fn a_chain_has_an_end() {
        let mut all = Inheritance::new();
        let chain = LONGEST_CHAIN as u32;
        for i in 0..chain {
            assert!(all.wait(i, (i, 0), (i + 1, 0)).is_ok());
        }
        assert_eq!(all.wait(chain, (chain, 0), (chain + 1, 0)), Err(Refused::Deadlock));
        // Made longer at the other end it has none, but nobody goes along all of it, nor closes a circle.
        let mut all = Inheritance::new();
        for i in (0..2 * chain).rev() {
            assert_eq!(all.wait(i, (i, 0), (i + 1, 0)), Ok(vec![]));
        }
        assert_eq!(all.wait(2 * chain, (2 * chain, 0), (0, 0)), Err(Refused::Deadlock));
        let changes = all.set_own(2 * chain, 50);
        assert_eq!((changes.len(), changes.last()), (LONGEST_CHAIN, Some(&change(chain, 50))));
        let back = all.set_own(2 * chain, 0);
        assert_eq!((back.len(), all.inherited(chain)), (LONGEST_CHAIN, 0));
        for i in 0..2 * chain {
            let _ = all.leave(i, i + 1);
        }
        assert!(all.is_empty(), "{all:?}");
    }
}

//! Property tests: what tasks inherit, against a model that computes it anew from who holds and who waits.
#![cfg(not(loom))]

use kcore::priority_inheritance::*;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

const TASKS: u32 = 8;
const LOCKS: u32 = 5;

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The task takes the lock, or waits for it; the holder's own priority has become this one by then, if there is one, and nobody was told yet.
    Take(u32, u32, Option<Priority>),
    /// The task gives up what it waits for.
    Leave(u32),
    /// The lock's holder gives it away.
    Release(u32, bool),
    /// The lock's holder has written its name.
    Settle(u32),
    /// The task's own priority.
    Own(u32, Priority),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (0..TASKS, 0..LOCKS, proptest::option::of(0u8..5)).prop_map(|(t, l, p)| Op::Take(t, l, p)),
        1 => (0..TASKS).prop_map(Op::Leave),
        2 => (0..LOCKS, any::<bool>()).prop_map(|(l, settled)| Op::Release(l, settled)),
        1 => (0..LOCKS).prop_map(Op::Settle),
        1 => (0..TASKS, 0u8..5).prop_map(|(t, p)| Op::Own(t, p)),
    ]
}

#[derive(Default)]
struct Model {
    own: BTreeMap<u32, Priority>,
    holder: BTreeMap<u32, u32>,
    waits: BTreeMap<u32, u32>,
    /// Locks whose holder has not written its name.
    unsettled: BTreeSet<u32>,
    /// When a task that waits came to its place, and with which priority.
    places: BTreeMap<u32, (u64, Priority)>,
    now: u64,
    /// What the changes said last.
    told: BTreeMap<u32, Priority>,
}

impl Model {
    fn own(&self, task: u32) -> Priority {
        self.own.get(&task).copied().unwrap_or(0)
    }

    /// By depth first: there are no circles.
    fn inherits(&self, task: u32) -> Priority {
        let behind = self.waits.iter().filter(|(_, lock)| self.holder.get(lock) == Some(&task));
        behind.map(|(waiter, _)| self.own(*waiter).max(self.inherits(*waiter))).max().unwrap_or(0)
    }

    fn waits_for_itself(&self, task: u32, lock: u32) -> bool {
        let mut at = self.holder.get(&lock).copied();
        while let Some(holder) = at {
            if holder == task {
                return true;
            }
            at = self.waits.get(&holder).and_then(|lock| self.holder.get(lock)).copied();
        }
        false
    }

    fn priority(&self, task: u32) -> Priority {
        self.own(task).max(self.inherits(task))
    }

    /// One operation has changed this much. Who waits with another priority than before is behind its new equals.
    fn take(&mut self, changes: Changes) {
        for change in changes {
            self.told.insert(change.task, change.inherits);
        }
        self.now += 1;
        let mut places = BTreeMap::new();
        for &task in self.waits.keys() {
            let priority = self.priority(task);
            let stays = self.places.get(&task).filter(|(_, before)| *before == priority);
            places.insert(task, stays.copied().unwrap_or((self.now, priority)));
        }
        self.places = places;
    }

    /// The most urgent one; of equals who came first.
    fn next(&self, lock: u32) -> Option<u32> {
        let waiting = self.waits.iter().filter(|(_, l)| **l == lock).map(|(task, _)| *task);
        waiting.min_by_key(|task| {
            let (since, priority) = self.places[task];
            (Reverse(priority), since)
        })
    }
}

proptest! {
    #[test]
    fn inherits_what_the_model_says(ops in proptest::collection::vec(op(), 1..200)) {
        let (mut all, mut model) = (Inheritance::new(), Model::default());
        for op in ops {
            match op {
                Op::Take(task, ..) if model.waits.contains_key(&task) => {}
                Op::Take(task, lock, changed) => match model.holder.get(&lock).copied() {
                    None => {
                        model.holder.insert(lock, task);
                    }
                    Some(holder) => {
                        let circle = model.waits_for_itself(task, lock);
                        let own = changed.unwrap_or(model.own(holder));
                        match all.wait(lock, (holder, own), (task, model.own(task))) {
                            Ok(changes) => {
                                prop_assert!(!circle);
                                model.waits.insert(task, lock);
                                model.take(changes);
                            }
                            Err(why) => prop_assert!(circle && why == Refused::Deadlock, "{:?}", why),
                        }
                        // The change is told behind the wait that has seen it already.
                        model.own.insert(holder, own);
                        let changes = all.set_own(holder, own);
                        model.take(changes);
                    }
                },
                Op::Leave(task) => if let Some(lock) = model.waits.remove(&task) {
                    let changes = all.leave(lock, task);
                    model.take(changes);
                },
                Op::Release(lock, settled) => {
                    let next = model.next(lock);
                    model.holder.remove(&lock);
                    model.unsettled.remove(&lock);
                    let handed = all.hand_over(lock, settled);
                    prop_assert_eq!(handed.as_ref().map(|h| h.task), next);
                    if let Some(handed) = handed {
                        model.waits.remove(&handed.task);
                        model.holder.insert(lock, handed.task);
                        if !settled {
                            model.unsettled.insert(lock);
                        }
                        model.take(handed.changes);
                    }
                }
                Op::Settle(lock) => {
                    all.settle(lock);
                    model.unsettled.remove(&lock);
                }
                Op::Own(task, own) => {
                    model.own.insert(task, own);
                    let changes = all.set_own(task, own);
                    model.take(changes);
                }
            }
            for task in 0..TASKS {
                let inherits = model.inherits(task);
                prop_assert_eq!(all.inherited(task), inherits);
                prop_assert_eq!(model.told.get(&task).copied().unwrap_or(0), inherits, "task {} after {:?}", task, op);
            }
            for lock in 0..LOCKS {
                let (next, settled) = (model.next(lock), !model.unsettled.contains(&lock));
                prop_assert_eq!((all.next(lock), all.is_settled(lock)), (next, settled), "lock {} after {:?}", lock, op);
                let known = next.is_some() || !settled;
                prop_assert_eq!(all.holder(lock), model.holder.get(&lock).copied().filter(|_| known));
            }
        }
        // All write their names, and all give up: nothing is left behind.
        model.unsettled.iter().for_each(|lock| all.settle(*lock));
        for (task, lock) in std::mem::take(&mut model.waits) {
            let _ = all.leave(lock, task);
        }
        prop_assert!(all.is_empty(), "{:?}", all);
    }
}

//! One CPU's queue of runnable tasks, the running one not among them.
//!
//! Called by the scheduler under the queue's lock, interrupts off. Classes: the kernel's own stop tasks, FIFO priorities 99 down to 1, then
//! fair by virtual runtime, then idle (never queued: [`RunQueue::pick`] returns None).
//! Invariants:
//! 1. A task is in at most one queue, by its [`RunNode`]; its class changes by its queue, its nice only while it is in none.
//! 2. `pick` makes the returned task the current one (none: idle); `put_prev` or blocking ends that.
//! 3. A fair task that waits has a virtual runtime of at least `min_vruntime` - [`SLEEPER_BONUS_NS`] at the time it came. That of a FIFO task is
//!    one of this queue, and follows when it falls back to fair.
//!
//! The order of use at a switch: `charge` the current task; if it stays runnable `put_prev`; `pick`.

mod class;
mod fair;
mod fifo;
#[cfg(test)]
mod tests;
mod weight;

pub use class::{Class, FIFO_MAX, FIFO_STOP};
pub use weight::{NICE_0_WEIGHT, nice_weight};

use crate::pairing_heap::{HeapNode, NIL};
use class::{FAIR_RANK, IDLE_RANK};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use fair::FairTasks;
use fifo::FifoTasks;

/// Every fair task runs once in this time, as long as slices stay above [`SLICE_MIN_NS`].
pub const LATENCY_NS: u64 = 6_000_000;
/// The shortest slice.
pub const SLICE_MIN_NS: u64 = 750_000;
/// How far a sleeper may be placed before the others.
pub const SLEEPER_BONUS_NS: u64 = 3_000_000;
/// A woken fair task preempts only one that is ahead of it by more than this.
pub const WAKEUP_GRANULARITY_NS: u64 = 1_000_000;

/// The part of a task that the run queue uses.
#[derive(Debug)]
pub struct RunNode {
    heap: HeapNode,
    next: AtomicU32,
    prev: AtomicU32,
    /// What it runs with: the higher of the next two.
    rank: AtomicU32,
    own_rank: AtomicU32,
    /// From those who wait for a lock of its; 0: nothing.
    inherited_rank: AtomicU32,
    weight: AtomicU32,
    queued: AtomicU32,
    vruntime_ns: AtomicU64,
}

impl RunNode {
    /// A task of `class`, nice 0, in no queue.
    pub const fn new(class: Class) -> Self {
        RunNode {
            heap: HeapNode::new(),
            next: AtomicU32::new(NIL),
            prev: AtomicU32::new(NIL),
            rank: AtomicU32::new(class.rank()),
            own_rank: AtomicU32::new(class.rank()),
            inherited_rank: AtomicU32::new(0),
            weight: AtomicU32::new(NICE_0_WEIGHT),
            queued: AtomicU32::new(0),
            vruntime_ns: AtomicU64::new(0),
        }
    }

    /// The class that it runs in: its own, or a higher one that it inherits.
    #[inline]
    pub fn class(&self) -> Class {
        Class::of_rank(self.rank.load(Relaxed))
    }

    #[inline]
    fn rank(&self) -> u32 {
        self.rank.load(Relaxed)
    }

    /// A number that is the higher, the more urgent its class is.
    #[inline]
    pub fn class_rank(&self) -> u32 {
        self.rank()
    }

    /// Its own class.
    #[inline]
    pub fn own_class(&self) -> Class {
        Class::of_rank(self.own_rank.load(Relaxed))
    }

    /// Changes its own class, before it has ever been in a queue.
    #[inline]
    pub fn set_class(&self, class: Class) {
        self.own_rank.store(class.rank(), Relaxed);
        self.rank.store(class.rank().max(self.inherited_rank.load(Relaxed)), Relaxed);
    }

    /// From now on it runs as FIFO with at least this priority; 0: as its own class says. Returns the rank that this gives it.
    fn inherit(&self, priority: u8) -> u32 {
        let inherited = if priority == 0 { 0 } else { Class::Fifo(priority).rank() };
        self.inherited_rank.store(inherited, Relaxed);
        self.own_rank.load(Relaxed).max(inherited)
    }

    /// Changes its weight to that of a nice level.
    #[inline]
    pub fn set_nice(&self, nice: i8) {
        self.weight.store(nice_weight(nice), Relaxed);
    }

    /// Its weight.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Its virtual runtime.
    #[inline]
    pub fn vruntime_ns(&self) -> u64 {
        self.vruntime_ns.load(Relaxed)
    }

    /// Sets the virtual runtime: a child takes its parent's. Only while it is in no queue.
    #[inline]
    pub fn set_vruntime_ns(&self, vruntime_ns: u64) {
        self.vruntime_ns.store(vruntime_ns, Relaxed);
    }

    /// Whether it waits in a queue.
    #[inline]
    pub fn is_queued(&self) -> bool {
        self.queued.load(Relaxed) != 0
    }
}

/// Where the tasks are.
pub trait RunStore {
    /// The node of task `id`; always the same one.
    fn run_node(&self, id: u32) -> &RunNode;
}

/// Why a task is enqueued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// It slept: it gets a bonus, at most [`SLEEPER_BONUS_NS`].
    Wakeup,
    /// It is new here, from fork or another CPU: it starts level with the others.
    New,
}

/// Why the current task stops running though it is runnable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prev {
    /// Something else goes first: a FIFO task keeps its place at the head.
    Preempted,
    /// It yielded: behind its equals; a fair one behind the next fair one.
    Yielded,
}

/// Result of an enqueue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the current task may have to go"]
pub struct Enqueued {
    /// The task should replace the current one now.
    pub preempts: bool,
}

/// The queue.
#[derive(Debug)]
pub struct RunQueue {
    fifo: FifoTasks,
    fair: FairTasks,
    current: u32,
    min_vruntime_ns: u64,
}

impl RunQueue {
    /// An empty queue, idle current.
    pub const fn new() -> Self {
        RunQueue { fifo: FifoTasks::new(), fair: FairTasks::new(), current: NIL, min_vruntime_ns: 0 }
    }

    /// Number of waiting tasks.
    #[inline]
    pub fn len(&self) -> usize {
        self.fifo.len() + self.fair.len()
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.fifo.is_empty() && self.fair.is_empty()
    }

    /// Number of waiting FIFO tasks.
    #[inline]
    pub fn nr_fifo(&self) -> usize {
        self.fifo.len()
    }

    /// Number of waiting fair tasks.
    #[inline]
    pub fn nr_fair(&self) -> usize {
        self.fair.len()
    }

    /// The task that the last `pick` returned, unless it was put back.
    #[inline]
    pub fn current(&self) -> Option<u32> {
        if self.current == NIL { None } else { Some(self.current) }
    }

    /// The virtual runtime at which a new task starts.
    #[inline]
    pub fn min_vruntime_ns(&self) -> u64 {
        self.min_vruntime_ns
    }

    /// Adds task `id`, which is in no queue and not current (else nothing happens). `charge` the current task
    /// before, so that the comparison is fair.
    #[inline]
    pub fn enqueue<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, why: Why) -> Enqueued {
        let current = self.current().map(|id| store.run_node(id));
        self.enqueue_beside(store, current, (id, store.run_node(id)), why)
    }

    /// [`RunQueue::enqueue`] for who has the nodes at hand: that of the current task, and the new one's beside its `id`.
    #[inline(always)]
    pub fn enqueue_beside<S: RunStore + ?Sized>(
        &mut self,
        store: &S,
        current: Option<&RunNode>,
        (id, node): (u32, &RunNode),
        why: Why,
    ) -> Enqueued {
        if node.is_queued() || current.is_some_and(|current| core::ptr::eq(current, node)) {
            return Enqueued { preempts: false };
        }
        let rank = node.rank();
        let (current_rank, current_ns) = current.map_or((IDLE_RANK, 0), |c| (c.rank(), c.vruntime_ns()));
        if rank == FAIR_RANK {
            let preempts = if current_rank == FAIR_RANK {
                let vruntime_ns = self.place(store, Some(current_ns), node, why);
                is_far_ahead(current_ns, vruntime_ns)
            } else {
                self.place(store, None, node, why);
                current_rank == IDLE_RANK
            };
            self.fair.insert(store, id, node);
            node.queued.store(1, Relaxed);
            return Enqueued { preempts };
        }
        if why == Why::New {
            // It may fall back to fair while it is here.
            self.place(store, (current_rank == FAIR_RANK).then_some(current_ns), node, why);
        }
        if rank > FAIR_RANK {
            self.fifo.insert(store, id, node, false);
            node.queued.store(1, Relaxed);
        }
        Enqueued { preempts: rank > current_rank }
    }

    /// Gives a task a virtual runtime among those of this queue: which. `fair_ns` is that of the current task, if that is fair.
    #[inline]
    fn place<S: RunStore + ?Sized>(&mut self, store: &S, fair_ns: Option<u64>, node: &RunNode, why: Why) -> u64 {
        let min_ns = self.advance_min_vruntime(store, fair_ns);
        let own_ns = node.vruntime_ns();
        let vruntime_ns = match why {
            Why::Wakeup if own_ns.wrapping_add(SLEEPER_BONUS_NS) >= min_ns => return own_ns,
            Why::Wakeup => min_ns - SLEEPER_BONUS_NS,
            Why::New => min_ns,
        };
        node.set_vruntime_ns(vruntime_ns);
        vruntime_ns
    }

    /// The own class of task `id` has become `class`; else as [`RunQueue::set_inherited`].
    pub fn set_class<S: RunStore + ?Sized>(&mut self, store: &S, (id, node): (u32, &RunNode), class: Class) -> bool {
        node.own_rank.store(class.rank(), Relaxed);
        let new = class.rank().max(node.inherited_rank.load(Relaxed));
        self.change_rank(store, (id, node), new)
    }

    /// What task `id` inherits has become `priority` (0: nothing): if it is the current one or waits here, it goes on where it is, and a waiting
    /// one that falls goes before its new equals. `charge` the current task before. True: what waits should replace the current task now, or
    /// has to share with it, which the tick has to know. One that has ended waits nowhere, and its id may be another's.
    pub fn set_inherited<S: RunStore + ?Sized>(
        &mut self,
        store: &S,
        (id, node): (u32, &RunNode),
        priority: u8,
    ) -> bool {
        let new = node.inherit(priority);
        self.change_rank(store, (id, node), new)
    }

    fn change_rank<S: RunStore + ?Sized>(&mut self, store: &S, (id, node): (u32, &RunNode), new: u32) -> bool {
        let old = node.rank();
        if new == old {
            return false;
        }
        let queued = self.dequeue(store, (id, node));
        node.rank.store(new, Relaxed);
        let current = self.current().map(|id| store.run_node(id)).filter(|current| !core::ptr::eq(*current, node));
        if new == FAIR_RANK {
            // What it slept as another is not held in its favour.
            let fair_ns = current.filter(|c| c.rank() == FAIR_RANK).map(RunNode::vruntime_ns);
            self.place(store, fair_ns, node, Why::Wakeup);
        }
        if queued {
            self.insert(store, id, node, new < old);
            let current = current.map_or((IDLE_RANK, 0), |c| (c.rank(), c.vruntime_ns()));
            return outranks(current, (new, node.vruntime_ns()));
        }
        let waits = self.peek_class(store).map_or(IDLE_RANK, Class::rank);
        new < old && self.current == id && (waits > new || (waits == FAIR_RANK && new == FAIR_RANK))
    }

    /// Takes a waiting task out. False if it was not waiting.
    #[inline]
    pub fn dequeue<S: RunStore + ?Sized>(&mut self, store: &S, (id, node): (u32, &RunNode)) -> bool {
        if !node.is_queued() {
            return false;
        }
        match node.class() {
            Class::Fifo(_) => self.fifo.remove(store, id, node),
            _ => self.fair.remove(store, id),
        }
        node.queued.store(0, Relaxed);
        true
    }

    /// Takes the task that runs next and makes it current; None: idle.
    #[inline(always)]
    pub fn pick<S: RunStore + ?Sized>(&mut self, store: &S) -> Option<u32> {
        let (id, node) = if !self.fifo.is_empty() {
            let id = self.fifo.pop(store);
            (id, store.run_node(id))
        } else if let Some(id) = self.fair.pop(store) {
            let node = store.run_node(id);
            self.min_vruntime_ns = self.min_vruntime_ns.max(node.vruntime_ns());
            (id, node)
        } else {
            self.current = NIL;
            return None;
        };
        node.queued.store(0, Relaxed);
        self.current = id;
        Some(id)
    }

    /// The class of the task that `pick` would take.
    #[inline]
    pub fn peek_class<S: RunStore + ?Sized>(&self, store: &S) -> Option<Class> {
        let fair = if self.fair.is_empty() { None } else { Some(Class::Fair) };
        self.fifo.first_class(store).or(fair)
    }

    /// Puts the current task back because it stays runnable. `charge` it before.
    #[inline]
    pub fn put_prev<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, prev: Prev) {
        if self.current == id {
            self.current = NIL;
        }
        let node = store.run_node(id);
        if node.is_queued() {
            return;
        }
        if prev == Prev::Yielded
            && node.class() == Class::Fair
            && let Some(first) = self.fair.first_vruntime_ns(store)
        {
            // Level with the next one and inserted later: behind it.
            node.set_vruntime_ns(node.vruntime_ns().max(first));
        }
        self.insert(store, id, node, prev == Prev::Preempted && !cfg!(mutant = "fifo_preempted_to_tail"));
    }

    /// Charges `delta_ns` of running time to a task that is not waiting. What it runs as another than a fair one is no debt to those.
    #[inline]
    pub fn charge(&mut self, node: &RunNode, delta_ns: u64) {
        if node.rank() != FAIR_RANK {
            return;
        }
        let weight = node.weight();
        let delta = if weight == NICE_0_WEIGHT {
            delta_ns
        } else {
            delta_ns.saturating_mul(NICE_0_WEIGHT as u64) / (weight as u64)
        };
        // 64 bits of nanoseconds are more than eight years of running at the smallest weight.
        node.set_vruntime_ns(node.vruntime_ns().wrapping_add(delta));
    }

    /// At a tick or another look: whether the current fair task has used its slice of `ran_ns` since it was
    /// picked and another fair one waits.
    #[inline]
    pub fn slice_used(&self, current_class: Class, ran_ns: u64) -> bool {
        self.tick_needed(current_class) && ran_ns >= slice_ns(self.nr_fair() + 1)
    }

    /// Whether a tick could change what runs next: another fair task waits for a fair one. A lower class that
    /// waits behind a higher one is no reason, and a higher one preempts at once without a tick.
    #[inline]
    pub fn tick_needed(&self, current_class: Class) -> bool {
        match current_class {
            Class::Fair => self.fifo.is_empty() && !self.fair.is_empty(),
            Class::Fifo(_) if cfg!(mutant = "tick_for_lower_class") => self.nr_fair() > 0,
            Class::Fifo(_) | Class::Idle => false,
        }
    }

    /// [`RunQueue::tick_needed`] for the class of the task that runs.
    #[inline]
    pub fn needs_tick<S: RunStore + ?Sized>(&self, store: &S) -> bool {
        // Asked at every switch: usually no fair task waits.
        !self.fair.is_empty() && self.tick_needed(self.current_class(store))
    }

    /// The class of the task that runs.
    #[inline]
    pub fn current_class<S: RunStore + ?Sized>(&self, store: &S) -> Class {
        self.current().map_or(Class::Idle, |id| store.run_node(id).class())
    }

    /// min_vruntime follows the smallest virtual runtime among the waiting tasks and the current one, if that is fair; never back. What it is.
    #[inline]
    fn advance_min_vruntime<S: RunStore + ?Sized>(&mut self, store: &S, current: Option<u64>) -> u64 {
        let first = self.fair.first_vruntime_ns(store);
        let floor = match (first, current) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return self.min_vruntime_ns,
        };
        let min_ns = self.min_vruntime_ns.max(floor);
        self.min_vruntime_ns = min_ns;
        min_ns
    }

    #[inline]
    fn insert<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, node: &RunNode, at_head: bool) {
        match node.class() {
            Class::Fifo(_) => self.fifo.insert(store, id, node, at_head),
            Class::Fair => self.fair.insert(store, id, node),
            Class::Idle => return,
        }
        node.queued.store(1, Relaxed);
    }
}

impl Default for RunQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a task that became runnable replaces the current one: higher class or FIFO priority, or both fair
/// and the current one ahead by more than [`WAKEUP_GRANULARITY_NS`]. Pairs of class and virtual runtime in ns.
#[inline]
pub fn should_preempt(current: (Class, u64), candidate: (Class, u64)) -> bool {
    outranks((current.0.rank(), current.1), (candidate.0.rank(), candidate.1))
}

/// [`should_preempt`] by rank.
#[inline]
fn outranks(current: (u32, u64), candidate: (u32, u64)) -> bool {
    if current.0 == FAIR_RANK && candidate.0 == FAIR_RANK {
        return is_far_ahead(current.1, candidate.1);
    }
    candidate.0 > current.0
}

/// Whether a woken fair task preempts the current one, by their virtual runtimes.
#[inline]
fn is_far_ahead(current_ns: u64, woken_ns: u64) -> bool {
    current_ns > woken_ns.wrapping_add(WAKEUP_GRANULARITY_NS)
}

/// Length of a slice with `nr` runnable fair tasks, the current one included.
#[inline]
pub const fn slice_ns(nr: usize) -> u64 {
    if nr <= 1 {
        return LATENCY_NS;
    }
    let slice = LATENCY_NS / nr as u64;
    if slice < SLICE_MIN_NS { SLICE_MIN_NS } else { slice }
}

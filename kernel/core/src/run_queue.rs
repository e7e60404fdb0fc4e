//! One CPU's queue of runnable tasks, the running one not among them.
//!
//! Called by the scheduler under the queue's lock, interrupts off. Classes: the kernel's own stop tasks, FIFO priorities 99 down to 1, then
//! fair by virtual runtime, then idle (never queued: [`RunQueue::pick`] returns None).
//! Invariants:
//! 1. A task is in at most one queue, by its [`RunNode`]; its class and nice change only while it is in none.
//! 2. `pick` makes the returned task the current one (none: idle); `put_prev` or blocking ends that.
//! 3. A fair task that waits has a virtual runtime of at least `min_vruntime` - [`SLEEPER_BONUS_NS`] at the time it came.
//!
//! The order of use at a switch: `charge` the current task; if it stays runnable `put_prev`; `pick`.

use crate::pairing_heap::{HeapNode, HeapStore, NIL, PairingHeap};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Highest FIFO priority of programs; the lowest is 1.
pub const FIFO_MAX: u8 = 99;
/// FIFO priority of the kernel's own tasks that stop a CPU: before every program.
pub const FIFO_STOP: u8 = FIFO_MAX + 1;
/// Every fair task runs once in this time, as long as slices stay above [`SLICE_MIN_NS`].
pub const LATENCY_NS: u64 = 6_000_000;
/// The shortest slice.
pub const SLICE_MIN_NS: u64 = 750_000;
/// How far a sleeper may be placed before the others.
pub const SLEEPER_BONUS_NS: u64 = 3_000_000;
/// A woken fair task preempts only one that is ahead of it by more than this.
pub const WAKEUP_GRANULARITY_NS: u64 = 1_000_000;
/// Weight of nice 0; a nice level is a factor of 5/4.
pub const NICE_0_WEIGHT: u32 = 1024;

const NICE_WEIGHTS: [u32; 40] = nice_weights();

const fn nice_weights() -> [u32; 40] {
    let mut table = [0; 40];
    let mut i = 0;
    while i < 40 {
        // 16 more bits while multiplying, rounded at the end.
        let mut w = (NICE_0_WEIGHT as u64) << 16;
        let mut n = i as i32 - 20;
        while n < 0 {
            w = w * 5 / 4;
            n += 1;
        }
        while n > 0 {
            w = w * 4 / 5;
            n -= 1;
        }
        table[i] = ((w + (1 << 15)) >> 16) as u32;
        i += 1;
    }
    table
}

/// Weight of a nice level, -20 to 19; others are taken as the nearest.
pub const fn nice_weight(nice: i8) -> u32 {
    let i = if nice < -20 {
        0
    } else if nice > 19 {
        39
    } else {
        nice as i32 + 20
    };
    NICE_WEIGHTS[i as usize]
}

/// Scheduling class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Runs until it blocks or a higher priority comes; 1 to [`FIFO_STOP`], others are taken as the nearest.
    Fifo(u8),
    /// Shares by weight.
    Fair,
    /// The idle task.
    Idle,
}

/// Ranks of the classes; those of FIFO priorities are above.
const IDLE_RANK: u32 = 0;
const FAIR_RANK: u32 = 1;

impl Class {
    #[inline]
    const fn rank(self) -> u32 {
        match self {
            Class::Idle => IDLE_RANK,
            Class::Fair => FAIR_RANK,
            Class::Fifo(prio) => FAIR_RANK + clamp_prio(prio) as u32,
        }
    }

    #[inline]
    const fn of_rank(rank: u32) -> Class {
        match rank {
            IDLE_RANK => Class::Idle,
            FAIR_RANK => Class::Fair,
            r => Class::Fifo((r - FAIR_RANK) as u8),
        }
    }
}

#[inline]
const fn clamp_prio(prio: u8) -> u8 {
    if prio == 0 {
        1
    } else if prio > FIFO_STOP {
        FIFO_STOP
    } else {
        prio
    }
}

/// The part of a task that the run queue uses.
#[derive(Debug)]
pub struct RunNode {
    heap: HeapNode,
    next: AtomicU32,
    prev: AtomicU32,
    rank: AtomicU32,
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
            weight: AtomicU32::new(NICE_0_WEIGHT),
            queued: AtomicU32::new(0),
            vruntime_ns: AtomicU64::new(0),
        }
    }

    /// Its class.
    #[inline]
    pub fn class(&self) -> Class {
        Class::of_rank(self.rank.load(Relaxed))
    }

    #[inline]
    fn rank(&self) -> u32 {
        self.rank.load(Relaxed)
    }

    /// Changes its class. Only while it is in no queue.
    #[inline]
    pub fn set_class(&self, class: Class) {
        self.rank.store(class.rank(), Relaxed);
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

struct FairStore<'a, S: ?Sized>(&'a S);

impl<S: RunStore + ?Sized> HeapStore for FairStore<'_, S> {
    #[inline]
    fn heap_node(&self, id: u32) -> &HeapNode {
        &self.0.run_node(id).heap
    }
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
    /// Bit p: FIFO list p has tasks.
    fifo_bits: u128,
    fifo: [(u32, u32); FIFO_STOP as usize + 1],
    fair: PairingHeap,
    nr_fifo: u32,
    current: u32,
    min_vruntime_ns: u64,
}

impl RunQueue {
    /// An empty queue, idle current.
    pub const fn new() -> Self {
        RunQueue {
            fifo_bits: 0,
            fifo: [(NIL, NIL); FIFO_STOP as usize + 1],
            fair: PairingHeap::new(),
            nr_fifo: 0,
            current: NIL,
            min_vruntime_ns: 0,
        }
    }

    /// Number of waiting tasks.
    #[inline]
    pub fn len(&self) -> usize {
        self.nr_fifo as usize + self.fair.len()
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.nr_fifo == 0 && self.fair.is_empty()
    }

    /// Number of waiting FIFO tasks.
    #[inline]
    pub fn nr_fifo(&self) -> usize {
        self.nr_fifo as usize
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
    #[inline(always)]
    pub fn enqueue<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, why: Why) -> Enqueued {
        let node = store.run_node(id);
        if node.is_queued() || id == self.current {
            return Enqueued { preempts: false };
        }
        let rank = node.rank();
        let current = self.current().map(|id| store.run_node(id));
        let (current_rank, current_ns) = current.map_or((IDLE_RANK, 0), |c| (c.rank(), c.vruntime_ns()));
        if rank == FAIR_RANK {
            self.advance_min_vruntime(store, (current_rank == FAIR_RANK).then_some(current_ns));
            let vruntime_ns = match why {
                Why::Wakeup => node.vruntime_ns().max(self.min_vruntime_ns.saturating_sub(SLEEPER_BONUS_NS)),
                Why::New => self.min_vruntime_ns,
            };
            node.set_vruntime_ns(vruntime_ns);
            self.fair.insert(&FairStore(store), id, vruntime_ns);
            node.queued.store(1, Relaxed);
        } else {
            self.insert(store, id, node, false);
        }
        Enqueued { preempts: outranks((current_rank, current_ns), (rank, node.vruntime_ns())) }
    }

    /// Takes a waiting task out. False if it was not waiting.
    #[inline]
    pub fn dequeue<S: RunStore + ?Sized>(&mut self, store: &S, id: u32) -> bool {
        let node = store.run_node(id);
        if !node.is_queued() {
            return false;
        }
        match node.class() {
            Class::Fifo(prio) => self.fifo_unlink(store, prio, id, node),
            _ => {
                self.fair.remove(&FairStore(store), id);
            }
        }
        node.queued.store(0, Relaxed);
        true
    }

    /// Takes the task that runs next and makes it current; None: idle.
    #[inline]
    pub fn pick<S: RunStore + ?Sized>(&mut self, store: &S) -> Option<u32> {
        let id = if self.nr_fifo != 0 {
            let prio = self.top_prio();
            let id = self.fifo[prio as usize].0;
            self.fifo_unlink(store, prio, id, store.run_node(id));
            id
        } else if let Some((id, vruntime_ns)) = self.fair.pop(&FairStore(store)) {
            self.min_vruntime_ns = self.min_vruntime_ns.max(vruntime_ns);
            id
        } else {
            self.current = NIL;
            return None;
        };
        store.run_node(id).queued.store(0, Relaxed);
        self.current = id;
        Some(id)
    }

    /// The class of the task that `pick` would take.
    #[inline]
    pub fn peek_class<S: RunStore + ?Sized>(&self, _store: &S) -> Option<Class> {
        if self.nr_fifo != 0 {
            Some(Class::Fifo(self.top_prio()))
        } else if !self.fair.is_empty() {
            Some(Class::Fair)
        } else {
            None
        }
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
            && let Some((_, first)) = self.fair.peek(&FairStore(store))
        {
            // Level with the next one and inserted later: behind it.
            node.set_vruntime_ns(node.vruntime_ns().max(first));
        }
        self.insert(store, id, node, prev == Prev::Preempted && !cfg!(mutant = "fifo_preempted_to_tail"));
    }

    /// Charges `delta_ns` of running time to a task that is not waiting.
    #[inline]
    pub fn charge(&mut self, node: &RunNode, delta_ns: u64) {
        let weight = node.weight();
        let delta = if weight == NICE_0_WEIGHT {
            delta_ns
        } else {
            delta_ns.saturating_mul(NICE_0_WEIGHT as u64) / (weight as u64)
        };
        node.set_vruntime_ns(node.vruntime_ns().saturating_add(delta));
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
        tick_needed(current_class, self)
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

    #[inline]
    fn top_prio(&self) -> u8 {
        (127 - self.fifo_bits.leading_zeros()) as u8
    }

    /// min_vruntime follows the smallest virtual runtime among the waiting tasks and the current one, if that is fair; never back.
    #[inline]
    fn advance_min_vruntime<S: RunStore + ?Sized>(&mut self, store: &S, current: Option<u64>) {
        let first = self.fair.peek(&FairStore(store)).map(|(_, vruntime_ns)| vruntime_ns);
        let floor = match (first, current) {
            (Some(a), Some(b)) => a.min(b),
            (Some(a), None) | (None, Some(a)) => a,
            (None, None) => return,
        };
        self.min_vruntime_ns = self.min_vruntime_ns.max(floor);
    }

    #[inline]
    fn insert<S: RunStore + ?Sized>(&mut self, store: &S, id: u32, node: &RunNode, at_head: bool) {
        match node.class() {
            Class::Fifo(prio) => self.fifo_link(store, prio, id, node, at_head),
            Class::Fair => {
                self.fair.insert(&FairStore(store), id, node.vruntime_ns());
            }
            Class::Idle => return,
        }
        node.queued.store(1, Relaxed);
    }

    #[inline]
    fn fifo_link<S: RunStore + ?Sized>(&mut self, store: &S, prio: u8, id: u32, node: &RunNode, at_head: bool) {
        let (head, tail) = self.fifo[prio as usize];
        let (prev, next) = if at_head { (NIL, head) } else { (tail, NIL) };
        node.prev.store(prev, Relaxed);
        node.next.store(next, Relaxed);
        self.fifo[prio as usize] = if head == NIL {
            (id, id)
        } else if at_head {
            store.run_node(head).prev.store(id, Relaxed);
            (id, tail)
        } else {
            store.run_node(tail).next.store(id, Relaxed);
            (head, id)
        };
        self.fifo_bits |= 1 << prio;
        self.nr_fifo += 1;
    }

    #[inline]
    fn fifo_unlink<S: RunStore + ?Sized>(&mut self, store: &S, prio: u8, _id: u32, node: &RunNode) {
        let (prev, next) = (node.prev.load(Relaxed), node.next.load(Relaxed));
        let list = &mut self.fifo[prio as usize];
        if prev == NIL {
            list.0 = next
        } else {
            store.run_node(prev).next.store(next, Relaxed)
        }
        if next == NIL {
            list.1 = prev
        } else {
            store.run_node(next).prev.store(prev, Relaxed)
        }
        if list.0 == NIL {
            self.fifo_bits &= !(1 << prio);
        }
        self.nr_fifo -= 1;
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
        return current.1 > candidate.1.saturating_add(WAKEUP_GRANULARITY_NS);
    }
    candidate.0 > current.0
}

/// See [`RunQueue::tick_needed`].
#[inline]
pub fn tick_needed(current_class: Class, queue: &RunQueue) -> bool {
    match current_class {
        Class::Fair => queue.nr_fifo() == 0 && queue.nr_fair() > 0,
        Class::Fifo(_) if cfg!(mutant = "tick_for_lower_class") => queue.nr_fair() > 0,
        Class::Fifo(_) | Class::Idle => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Tasks([RunNode; 4]);

    impl RunStore for Tasks {
        fn run_node(&self, id: u32) -> &RunNode {
            &self.0[id as usize]
        }
    }

    /// 0 and 1 are FIFO 10, 2 and 3 fair.
    fn tasks() -> Tasks {
        let fifo = || RunNode::new(Class::Fifo(10));
        Tasks([fifo(), fifo(), RunNode::new(Class::Fair), RunNode::new(Class::Fair)])
    }

    #[test]
    fn fifo_before_fair_and_no_tick_for_who_waits_behind() {
        let (tasks, mut queue) = (tasks(), RunQueue::new());
        for id in [2, 3, 0, 1] {
            let _ = queue.enqueue(&tasks, id, Why::New);
        }
        assert_eq!(queue.pick(&tasks), Some(0));
        assert!(!queue.tick_needed(Class::Fifo(10)));
        queue.put_prev(&tasks, 0, Prev::Preempted);
        assert_eq!(queue.pick(&tasks), Some(0), "a preempted FIFO task keeps its place");
        queue.put_prev(&tasks, 0, Prev::Yielded);
        assert_eq!(queue.pick(&tasks), Some(1));
        assert!(queue.dequeue(&tasks, 0));
        assert_eq!(queue.pick(&tasks), Some(2));
        assert!(queue.tick_needed(Class::Fair));
        assert!(queue.enqueue(&tasks, 0, Why::Wakeup).preempts);
        assert!(!queue.tick_needed(Class::Fair), "a FIFO task preempts at once, without a tick");
    }

    #[test]
    fn sleeper_preempts_a_spinner_but_gets_no_more_than_its_bonus() {
        let (tasks, mut queue) = (tasks(), RunQueue::new());
        let _ = queue.enqueue(&tasks, 2, Why::New);
        assert_eq!(queue.pick(&tasks), Some(2));
        queue.charge(tasks.run_node(2), 1_000_000_000);
        assert!(queue.enqueue(&tasks, 3, Why::Wakeup).preempts);
        assert_eq!(tasks.run_node(3).vruntime_ns(), 1_000_000_000 - SLEEPER_BONUS_NS);
    }

    #[test]
    fn weights_are_powers_of_five_quarters() {
        assert_eq!([nice_weight(-20), nice_weight(-1), nice_weight(0), nice_weight(5)], [88818, 1280, 1024, 336]);
        assert_eq!((nice_weight(-128), nice_weight(127)), (nice_weight(-20), nice_weight(19)));
        assert_eq!((slice_ns(1), slice_ns(2), slice_ns(100)), (6_000_000, 3_000_000, 750_000));
    }
}

//! Property tests: the run queue against a plain list, and fairness over a simulated run.
#![cfg(not(loom))]

use kcore::run_queue::*;
use proptest::prelude::*;

const TASKS: u32 = 12;

struct Tasks(Vec<RunNode>);

impl RunStore for Tasks {
    fn run_node(&self, id: u32) -> &RunNode {
        &self.0[id as usize]
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Wake(u32),
    New(u32),
    Dequeue(u32),
    Block,
    Yield,
    Preempt,
    Run(u64),
    Class(u32, Class),
    Inherit(u32, u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..TASKS).prop_map(Op::Wake),
        1 => (0..TASKS).prop_map(Op::New),
        1 => (0..TASKS).prop_map(Op::Dequeue),
        1 => Just(Op::Block),
        1 => Just(Op::Yield),
        1 => Just(Op::Preempt),
        2 => (1u64..8_000_000).prop_map(Op::Run),
        1 => (0..TASKS, class()).prop_map(|(id, class)| Op::Class(id, class)),
        1 => (0..TASKS, prop_oneof![Just(0u8), Just(2), Just(60)]).prop_map(|(id, priority)| Op::Inherit(id, priority)),
    ]
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![2 => Just(Class::Fair), 1 => prop_oneof![Just(1u8), Just(2), Just(50), Just(99)].prop_map(Class::Fifo)]
}

fn prio(class: Class) -> u8 {
    match class {
        Class::Fifo(p) => p,
        _ => 0,
    }
}

/// The waiting tasks in the order of the rules: by priority, then place in line (FIFO) or virtual runtime and
/// time of insertion (fair).
#[derive(Default)]
struct Model {
    waiting: Vec<(u32, Class, i64)>,
    current: Option<u32>,
    time: i64,
}

impl Model {
    fn add(&mut self, id: u32, class: Class, at_head: bool) {
        self.time += 1;
        self.waiting.push((id, class, if at_head && class != Class::Fair { -self.time } else { self.time }));
    }

    fn first(&self, tasks: &Tasks) -> Option<(u32, Class)> {
        let key = |&&(id, class, place): &&(u32, Class, i64)| {
            let vruntime = if class == Class::Fair { tasks.run_node(id).vruntime_ns() } else { 0 };
            (100 - prio(class), vruntime, place)
        };
        self.waiting.iter().min_by_key(key).map(|&(id, class, _)| (id, class))
    }
}

proptest! {
    #[test]
    fn picks_what_the_rules_say(
        classes in proptest::collection::vec((class(), -20i8..20), TASKS as usize),
        ops in proptest::collection::vec(op(), 1..300),
    ) {
        let tasks = Tasks(classes.iter().map(|&(class, _)| RunNode::new(class)).collect());
        for (id, &(_, nice)) in classes.iter().enumerate() {
            tasks.run_node(id as u32).set_nice(nice);
        }
        let mut queue = RunQueue::new();
        let mut model = Model::default();
        let mut own: Vec<_> = classes.iter().map(|&(class, _)| class).collect();
        let mut inherited = [0; TASKS as usize];
        for op in ops {
            let min_before = queue.min_vruntime_ns();
            let effective = |own: &[Class], inherited: &[u8], id: u32| {
                let (own, inherited) = (own[id as usize], inherited[id as usize]);
                if prio(own) >= inherited { own } else { Class::Fifo(inherited) }
            };
            let now = |id: u32| (id, tasks.run_node(id));
            if let Op::Class(id, _) | Op::Inherit(id, _) = op {
                let old = effective(&own, &inherited, id);
                let look = match op {
                    Op::Class(_, class) => {
                        own[id as usize] = class;
                        queue.set_class(&tasks, now(id), class)
                    }
                    Op::Inherit(_, priority) => {
                        inherited[id as usize] = priority;
                        queue.set_inherited(&tasks, now(id), priority)
                    }
                    _ => unreachable!(),
                };
                let new = effective(&own, &inherited, id);
                let waits = model.waiting.iter().position(|w| w.0 == id);
                if new != old && let Some(at) = waits {
                    model.waiting.remove(at);
                    model.add(id, new, prio(new) < prio(old));
                }
                let expected = match (model.current, waits) {
                    _ if new == old => false,
                    (None, Some(_)) => true,
                    (Some(c), Some(_)) => {
                        let running = effective(&own, &inherited, c);
                        prio(new) > prio(running)
                            || new == Class::Fair && running == Class::Fair
                                && tasks.run_node(c).vruntime_ns() > tasks.run_node(id).vruntime_ns() + WAKEUP_GRANULARITY_NS
                    }
                    (Some(c), None) if c == id && prio(new) < prio(old) => model
                        .first(&tasks)
                        .is_some_and(|(_, first)| prio(first) > prio(new) || first == Class::Fair && new == Class::Fair),
                    _ => false,
                };
                prop_assert_eq!(look, expected);
            }
            let class_of = |id: u32| effective(&own, &inherited, id);
            match op {
                Op::Class(..) | Op::Inherit(..) => {}
                Op::Wake(id) | Op::New(id) => {
                    let why = if matches!(op, Op::New(_)) { Why::New } else { Why::Wakeup };
                    let idle = model.waiting.iter().all(|w| w.0 != id) && model.current != Some(id);
                    let old = tasks.run_node(id).vruntime_ns();
                    let Enqueued { preempts } = queue.enqueue(&tasks, id, why);
                    if idle {
                        model.add(id, class_of(id), false);
                        let node = tasks.run_node(id);
                        if class_of(id) == Class::Fair && why == Why::Wakeup {
                            prop_assert!(node.vruntime_ns() >= old);
                            prop_assert!(node.vruntime_ns() + SLEEPER_BONUS_NS >= queue.min_vruntime_ns());
                        }
                        let expected = match model.current {
                            None => true,
                            Some(c) if prio(class_of(id)) != prio(class_of(c)) => prio(class_of(id)) > prio(class_of(c)),
                            Some(c) => class_of(c) == Class::Fair
                                && tasks.run_node(c).vruntime_ns() > node.vruntime_ns() + WAKEUP_GRANULARITY_NS,
                        };
                        prop_assert_eq!(preempts, expected);
                    } else {
                        prop_assert!(!preempts);
                    }
                }
                Op::Dequeue(id) => {
                    let at = model.waiting.iter().position(|w| w.0 == id);
                    prop_assert_eq!(queue.dequeue(&tasks, now(id)), at.is_some());
                    if let Some(at) = at {
                        model.waiting.remove(at);
                    }
                }
                Op::Block | Op::Yield | Op::Preempt => {
                    if let Some(current) = model.current.take()
                        && !matches!(op, Op::Block)
                    {
                        let preempted = matches!(op, Op::Preempt);
                        queue.put_prev(&tasks, current, if preempted { Prev::Preempted } else { Prev::Yielded });
                        model.add(current, class_of(current), preempted);
                        if !preempted && class_of(current) == Class::Fair && queue.nr_fifo() == 0 && queue.nr_fair() > 1 {
                            prop_assert!(model.first(&tasks).map(|f| f.0) != Some(current), "a yield must let another run");
                        }
                    }
                    let expected = model.first(&tasks);
                    prop_assert_eq!(queue.peek_class(&tasks), expected.map(|e| e.1));
                    prop_assert_eq!(queue.pick(&tasks), expected.map(|e| e.0));
                    model.current = expected.map(|e| e.0);
                    model.waiting.retain(|w| Some(w.0) != model.current);
                }
                Op::Run(ns) => {
                    if let Some(current) = model.current {
                        let node = tasks.run_node(current);
                        let before = node.vruntime_ns();
                        queue.charge(node, ns);
                        let charged = if class_of(current) == Class::Fair { ns * 1024 / node.weight() as u64 } else { 0 };
                        prop_assert_eq!(node.vruntime_ns() - before, charged);
                    }
                }
            }
            let nr_fair = model.waiting.iter().filter(|w| w.1 == Class::Fair).count();
            let nr_fifo = model.waiting.len() - nr_fair;
            prop_assert_eq!((queue.nr_fifo(), queue.nr_fair(), queue.len()), (nr_fifo, nr_fair, model.waiting.len()));
            prop_assert_eq!(queue.is_empty(), model.waiting.is_empty());
            prop_assert_eq!(queue.current(), model.current);
            prop_assert!(queue.min_vruntime_ns() >= min_before, "min_vruntime went back");
            for id in 0..TASKS {
                prop_assert_eq!(tasks.run_node(id).is_queued(), model.waiting.iter().any(|w| w.0 == id));
                prop_assert_eq!(tasks.run_node(id).class(), class_of(id));
            }
            prop_assert_eq!(queue.tick_needed(Class::Fair), nr_fifo == 0 && nr_fair > 0);
            prop_assert!(!queue.tick_needed(Class::Fifo(1)) && !queue.tick_needed(Class::Idle));
        }
    }

    /// Spinning fair tasks share by weight: no one is more than two slices of the longest away from its share.
    #[test]
    fn spinning_tasks_share_by_weight(nices in proptest::collection::vec(-5i8..=5, 2..6)) {
        let tasks = Tasks(nices.iter().map(|_| RunNode::new(Class::Fair)).collect());
        let mut queue = RunQueue::new();
        for (id, &nice) in nices.iter().enumerate() {
            tasks.run_node(id as u32).set_nice(nice);
            let _ = queue.enqueue(&tasks, id as u32, Why::New);
        }
        let slice = slice_ns(nices.len());
        let mut ran = vec![0u64; nices.len()];
        let mut current = queue.pick(&tasks).expect("a task");
        for _ in 0..2000 {
            queue.charge(tasks.run_node(current), slice);
            ran[current as usize] += slice;
            prop_assert!(queue.slice_used(Class::Fair, slice) && !queue.slice_used(Class::Fair, slice - 1));
            queue.put_prev(&tasks, current, Prev::Preempted);
            current = queue.pick(&tasks).expect("a task");
        }
        let total: u64 = ran.iter().sum();
        let weights: u64 = nices.iter().map(|&n| nice_weight(n) as u64).sum();
        for (i, &nice) in nices.iter().enumerate() {
            let share = total * nice_weight(nice) as u64 / weights;
            let bound = 2 * slice * nices.len() as u64;
            prop_assert!(ran[i].abs_diff(share) <= bound, "task {i} nice {nice} ran {} of {share}", ran[i]);
        }
    }
}

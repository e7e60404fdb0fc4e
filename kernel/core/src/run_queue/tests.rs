//! Unit tests of the run queue; `tests/prop_run_queue.rs` has its properties.

use super::*;

struct Tasks([RunNode; 4]);

impl RunStore for Tasks {
    fn run_node(&self, id: u32) -> &RunNode {
        &self.0[id as usize]
    }
}

impl Tasks {
    fn at(&self, id: u32) -> (u32, &RunNode) {
        (id, self.run_node(id))
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
    assert!(queue.dequeue(&tasks, tasks.at(0)));
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
fn who_falls_back_to_fair_is_level_with_the_others() {
    for foreign_ns in [1_000_000_000_000, 0] {
        let (tasks, mut queue) = (tasks(), RunQueue::new());
        let _ = queue.enqueue(&tasks, 2, Why::New);
        assert_eq!(queue.pick(&tasks), Some(2));
        queue.charge(tasks.run_node(2), 1_000_000_000);
        // Comes from another CPU, urgent.
        tasks.run_node(3).set_vruntime_ns(foreign_ns);
        assert!(!queue.set_inherited(&tasks, tasks.at(3), 20));
        assert!(queue.enqueue(&tasks, 3, Why::New).preempts);
        queue.put_prev(&tasks, 2, Prev::Preempted);
        assert_eq!(queue.pick(&tasks), Some(3));
        // However long it ran as an urgent one.
        queue.charge(tasks.run_node(3), 10_000_000_000);
        assert!(queue.set_inherited(&tasks, tasks.at(3), 0), "the other one waits for it as its equal");
        queue.put_prev(&tasks, 3, Prev::Preempted);
        assert_eq!(tasks.run_node(3).vruntime_ns(), queue.min_vruntime_ns());
        assert_eq!(queue.pick(&tasks), Some(2));
    }
}

#[test]
fn who_slept_as_an_urgent_one_is_not_ahead_of_the_others_when_it_falls_back() {
    for inherits in [true, false] {
        let (tasks, mut queue) = (tasks(), RunQueue::new());
        let _ = queue.enqueue(&tasks, 2, Why::New);
        assert_eq!(queue.pick(&tasks), Some(2));
        queue.charge(tasks.run_node(2), 1_000_000_000);
        tasks.run_node(3).set_class(if inherits { Class::Fair } else { Class::Fifo(20) });
        queue.set_inherited(&tasks, tasks.at(3), if inherits { 20 } else { 0 });
        assert!(queue.enqueue(&tasks, 3, Why::Wakeup).preempts);
        queue.put_prev(&tasks, 2, Prev::Preempted);
        assert_eq!(queue.pick(&tasks), Some(3));
        if inherits {
            assert!(queue.set_inherited(&tasks, tasks.at(3), 0));
        } else {
            assert!(queue.set_class(&tasks, tasks.at(3), Class::Fair));
        }
        assert_eq!(tasks.run_node(3).vruntime_ns(), 1_000_000_000 - SLEEPER_BONUS_NS);
    }
}

#[test]
fn who_inherits_keeps_its_place_if_that_changes_nothing() {
    let (tasks, mut queue) = (tasks(), RunQueue::new());
    for id in [0, 1, 2] {
        let _ = queue.enqueue(&tasks, id, Why::New);
    }
    assert!(!queue.set_inherited(&tasks, tasks.at(0), 10) && !queue.set_inherited(&tasks, tasks.at(0), 0));
    assert_eq!(queue.pick(&tasks), Some(0));
    // Nothing waits that would run in its place: the CPU is left alone.
    assert!(!queue.set_inherited(&tasks, tasks.at(0), 50) && !queue.set_inherited(&tasks, tasks.at(0), 10));
    // One that falls is before its equals, a more urgent one replaces who runs.
    tasks.run_node(3).set_class(Class::Fifo(5));
    let _ = queue.enqueue(&tasks, 3, Why::New);
    assert!(!queue.set_inherited(&tasks, tasks.at(3), 10));
    assert!(queue.set_inherited(&tasks, tasks.at(3), 11));
    assert!(!queue.set_inherited(&tasks, tasks.at(3), 10));
    queue.put_prev(&tasks, 0, Prev::Yielded);
    assert_eq!(queue.pick(&tasks), Some(3));
    assert!(queue.set_inherited(&tasks, tasks.at(3), 0), "two of priority 10 wait");
}

#[test]
fn a_class_that_stays_changes_nothing_and_one_that_changes_lifts_no_minimum() {
    let (tasks, mut queue) = (tasks(), RunQueue::new());
    let _ = queue.enqueue(&tasks, 2, Why::New);
    assert_eq!(queue.pick(&tasks), Some(2));
    tasks.run_node(3).set_vruntime_ns(200_000_000);
    let _ = queue.enqueue(&tasks, 3, Why::Wakeup);
    assert!(!queue.set_class(&tasks, tasks.at(3), Class::Fair));
    assert_eq!(tasks.run_node(3).vruntime_ns(), 200_000_000, "nothing is forgotten");
    // Asleep; the current one has run less than who waits.
    assert!(!queue.set_class(&tasks, tasks.at(0), Class::Fair));
    assert_eq!(queue.min_vruntime_ns(), 0);
}

#[test]
fn weights_are_powers_of_five_quarters() {
    assert_eq!([nice_weight(-20), nice_weight(-1), nice_weight(0), nice_weight(5)], [88818, 1280, 1024, 336]);
    assert_eq!((nice_weight(-128), nice_weight(127)), (nice_weight(-20), nice_weight(19)));
    assert_eq!((slice_ns(1), slice_ns(2), slice_ns(100)), (6_000_000, 3_000_000, 750_000));
}

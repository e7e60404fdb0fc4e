//! Property tests: the context word against a model that keeps its fields apart.
#![cfg(not(loom))]

use kcore::context_tracking::*;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Step(Step),
    Post(u8),
    Nmi { nested: bool, post: u8 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => prop_oneof![Just(Step::UserEnter), Just(Step::UserExit), Just(Step::IdleEnter), Just(Step::IdleExit)].prop_map(Op::Step),
        2 => (1u8..16).prop_map(Op::Post),
        1 => (any::<bool>(), 0u8..16).prop_map(|(nested, post)| Op::Nmi { nested, post }),
    ];
    proptest::collection::vec(op, 1..200)
}

struct Model {
    state: State,
    posted: u8,
    transitions: u64,
}

fn from_to(step: Step) -> (State, State) {
    match step {
        Step::UserEnter => (State::Kernel, State::User),
        Step::UserExit => (State::User, State::Kernel),
        Step::IdleEnter => (State::Kernel, State::Idle),
        Step::IdleExit => (State::Idle, State::Kernel),
    }
}

fn run<const BITS: u32>(ops: &[Op]) -> Result<(), TestCaseError> {
    let word = ContextWord::<BITS>::new();
    let mut model = Model { state: State::Kernel, posted: 0, transitions: 1 };
    for &op in ops {
        let before = word.load();
        match op {
            Op::Step(step) => {
                let (from, to) = from_to(step);
                let made = word.step(step);
                prop_assert_eq!(made.old, before);
                if from == model.state {
                    prop_assert_eq!(made.check(), Ok(model.posted));
                    prop_assert_eq!(made.is_plain(), model.posted == 0);
                    prop_assert_eq!(made.deferred(), model.posted);
                    let mut ran = 0;
                    if model.posted != 0 {
                        word.run_deferred(model.posted, |bits| {
                            ran = bits;
                            // An NMI here still finds them.
                            let token = word.nmi_enter();
                            assert_eq!((token.entered, token.deferred), (false, bits));
                            word.nmi_exit(token);
                        });
                    }
                    prop_assert_eq!(ran, model.posted);
                    model = Model { state: to, posted: 0, transitions: model.transitions + 1 };
                } else {
                    prop_assert_eq!(made.check(), Err(Illegal { step, old: before }));
                    prop_assert!(!made.is_legal() && !made.is_plain());
                    prop_assert_eq!(made.deferred(), Deferred::ALL);
                    prop_assert_eq!(word.recover(), Deferred::ALL);
                    let now = word.load();
                    prop_assert_eq!(now & LOW_MASK, KERNEL_EXPECTED);
                    // Resynchronise with the counter as it is.
                    model = Model { state: State::Kernel, posted: 0, transitions: counter(now) };
                }
            }
            Op::Post(bits) => match word.post_bits(bits) {
                Posted::Left { .. } => {
                    prop_assert!(model.state != State::Kernel);
                    model.posted |= bits;
                }
                Posted::SendIpi { state } => {
                    prop_assert_eq!(state, State::Kernel);
                    prop_assert_eq!(model.state, State::Kernel);
                }
            },
            Op::Nmi { nested, post } => {
                let outside = model.state != State::Kernel;
                let token = word.nmi_enter();
                prop_assert_eq!((token.entered, token.deferred), (outside, model.posted));
                prop_assert!(is_watching(word.load()));
                if nested {
                    let inner = word.nmi_enter();
                    prop_assert_eq!((inner.entered, inner.deferred), (false, model.posted));
                    word.nmi_exit(inner);
                    prop_assert!(is_watching(word.load()));
                }
                if post != 0 {
                    prop_assert_eq!(word.post_bits(post), Posted::SendIpi { state: model.state });
                }
                word.nmi_exit(token);
                if outside {
                    model.transitions += 2;
                }
            }
        }
        let now = word.load();
        prop_assert_eq!(State::of(now), model.state);
        prop_assert_eq!(deferred(now), model.posted);
        prop_assert_eq!(is_watching(now), model.state == State::Kernel);
        prop_assert_eq!(now & RESERVED_MASK, 0);
        let width = (1u64 << BITS) - 1;
        prop_assert_eq!(counter(now), model.transitions & width);
        if is_watching(before) && quiescent_width::<BITS>(before, now) {
            prop_assert!(before != now);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn word_follows_the_model(ops in ops()) {
        run::<48>(&ops)?;
        run::<2>(&ops)?;
    }

    /// Every word has one verdict per transition, and only the low bits count.
    #[test]
    fn checks_look_at_the_low_bits_only(old in any::<u64>(), low in 0u64..=LOW_MASK) {
        for word in [old, old & COUNTER_MASK & !WATCH | low] {
            for step in [Step::UserEnter, Step::UserExit, Step::IdleEnter, Step::IdleExit] {
                let (from, _) = from_to(step);
                let clean = word & RESERVED_MASK == 0 && State::of(word) == from;
                let legal = clean && match from {
                    State::Kernel => is_watching(word) && deferred(word) == 0,
                    _ => !is_watching(word),
                };
                prop_assert_eq!(check(step, word).is_ok(), legal);
                if legal {
                    prop_assert_eq!(check(step, word), Ok(deferred(word)));
                    let new = word.wrapping_add(step.delta());
                    prop_assert_eq!(State::of(new), from_to(step).1);
                    prop_assert_eq!(counter(new), counter(word).wrapping_add(1) & (COUNTER_MASK >> COUNTER_SHIFT));
                    prop_assert_eq!(deferred(new), deferred(word));
                }
            }
            let safe = recover(word);
            prop_assert_eq!(safe & LOW_MASK, KERNEL_EXPECTED);
            prop_assert!(counter(safe).wrapping_sub(counter(word)) & 0xffff_ffff_ffff <= 1);
        }
    }
}

//! Property tests: interruption records, tick decisions and logs, static-key planning, RCU callbacks.
#![cfg(not(loom))]

use kcore::cpu_set::CpuSet;
use kcore::interruption::{Cause, DecodeError, Interruption};
use kcore::ipi_ledger::IpiCause;
use kcore::rcu::{CallbackSegments, CpuSnapshot, GpSeq, GracePeriod, KICK_EVERY};
use kcore::static_key::{JumpEntry, NOP5, PatchError, entries, nop_or_jmp, plan};
use kcore::tick::{self, Change, Decision, Held, HeldTable, LOG_LEN, Scope, TickDep, TickLog, TickMask};
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

fn cause() -> impl Strategy<Value = Cause> {
    (0u8..13, any::<u8>()).prop_map(|(code, vector)| Cause::from_code(code, vector).expect("a cause"))
}

fn dep() -> impl Strategy<Value = TickDep> {
    (0usize..tick::NR_DEPS).prop_map(|i| TickDep::ALL[i])
}

/// Masks at random seldom have one bit in all.
#[test]
fn each_dependency_alone_keeps_the_tick() {
    for dep in TickDep::ALL {
        for scope in Scope::ALL {
            let mut masks = [0; 4];
            masks[scope as usize] = dep.bit();
            assert_eq!(tick::decide(masks[0], masks[1], masks[2], masks[3]), Decision::Keep { dep, scope });
        }
    }
}

proptest! {
    #[test]
    fn interruption_round_trip(
        tsc in any::<(u64, u64)>(), cpu in any::<u32>(), cause in cause(), sender_cpu in any::<Option<u32>>(),
        sender_task in any::<u32>(), sender_comm in any::<[u8; 16]>(), site in any::<u64>(), total in any::<u64>(),
        ipi in proptest::option::of(0..IpiCause::ALL.len()),
    ) {
        let ipi = ipi.filter(|_| sender_cpu.is_some()).map(|code| IpiCause::ALL[code]);
        let record = Interruption {
            start_tsc: tsc.0, end_tsc: tsc.1, cpu, cause, sender_cpu, sender_task, sender_comm, ipi, site, total,
        };
        prop_assert_eq!(Interruption::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn foreign_words_are_refused_or_named(words in any::<[u64; 8]>()) {
        match Interruption::decode(&words) {
            Ok(record) => prop_assert!(Cause::from_code(record.cause.code(), 0).is_some()),
            Err(DecodeError::UnknownCause(code)) => prop_assert!(Cause::from_code(code, 0).is_none()),
            Err(DecodeError::UnknownFlags(flags)) => prop_assert!(flags > 1),
        }
    }

    #[test]
    fn tick_decision_names_a_real_reason(masks in any::<[u32; 4]>(), narrow in any::<bool>()) {
        let masks = masks.map(|m| if narrow { m & (m >> 8) & (m >> 16) & 0x7f } else { m });
        let all: Vec<_> = tick::held(masks[0], masks[1], masks[2], masks[3]).collect();
        let bits: u32 = masks.iter().map(|m| (m & 0x7f).count_ones()).sum();
        prop_assert_eq!(all.len() as u32, bits);
        match tick::decide(masks[0], masks[1], masks[2], masks[3]) {
            Decision::Stop => prop_assert_eq!(masks, [0; 4]),
            Decision::Keep { dep, scope } if bits != 0 => {
                prop_assert_eq!((dep, scope), all[0]);
                prop_assert!(masks[scope as usize] & dep.bit() != 0);
            }
            Decision::Keep { .. } => prop_assert!(masks.iter().any(|&m| m != 0)),
        }
    }

    /// A CPU whose tick may be stopped (its mask was empty) is kicked by whoever sets a bit; others are not.
    #[test]
    fn tick_set_kicks_exactly_from_empty(ops in proptest::collection::vec((any::<bool>(), dep()), 1..60)) {
        let mask = TickMask::new();
        let mut model = 0;
        for (set, dep) in ops {
            if set {
                prop_assert_eq!(mask.set(dep), model == 0);
                prop_assert_eq!(tick::set(model, dep), (model | dep.bit(), model == 0));
                model |= dep.bit();
            } else {
                prop_assert_eq!(mask.clear(dep), model & dep.bit() != 0);
                prop_assert_eq!(tick::clear(model, dep), model & !dep.bit());
                model &= !dep.bit();
            }
            prop_assert_eq!(mask.load(), model);
            prop_assert_eq!(TickDep::first(model).map_or(0, TickDep::bit), model & model.wrapping_neg());
        }
    }

    #[test]
    fn tick_log_keeps_the_last_changes_in_order(times in proptest::collection::vec(any::<u64>(), 0..60)) {
        let mut log = TickLog::new();
        let mut model = VecDeque::new();
        for at_ns in times {
            let change = Change {
                at_ns, on: at_ns % 2 == 0, dep: None, scope: Scope::Cpu, site: at_ns as u32, task: 1, comm: *b"spin............",
            };
            log.push(change);
            model.push_back(change);
            if model.len() > LOG_LEN {
                model.pop_front();
            }
            prop_assert!(log.iter().eq(model.iter()));
            prop_assert_eq!(log.last(), model.back());
        }
    }

    #[test]
    fn held_table_keeps_the_first_holder(ops in proptest::collection::vec((any::<bool>(), dep(), any::<u64>()), 1..60)) {
        let mut table = HeldTable::new();
        let mut model = BTreeMap::new();
        for (set, dep, since_ns) in ops {
            let held = Held { since_ns, site: since_ns, task: 3, comm: [7; 16] };
            if set {
                table.set(dep, held);
                model.entry(dep.index()).or_insert(held);
            } else {
                prop_assert_eq!(table.clear(dep), model.remove(&dep.index()));
            }
            prop_assert_eq!(table.holder(dep), model.get(&dep.index()).copied());
            prop_assert!(table.iter().map(|(dep, held)| (dep.index(), *held)).eq(model.iter().map(|(&i, &h)| (i, h))));
            prop_assert_eq!(table.mask(), model.keys().fold(0, |m, &i| m | 1 << i));
        }
    }

    #[test]
    fn patch_plans_flip_and_refuse(code in any::<u64>(), target in any::<u64>(), near in any::<i32>(), bytes in any::<[u8; 5]>()) {
        let entry = JumpEntry { code, target: code.wrapping_add(5).wrapping_add(near as i64 as u64), key: 1 };
        let jmp = nop_or_jmp(&entry, true).expect("in range");
        prop_assert_eq!(jmp[0], 0xe9);
        prop_assert_eq!(i32::from_le_bytes([jmp[1], jmp[2], jmp[3], jmp[4]]), near);
        prop_assert_eq!(plan(&entry, &NOP5, true), Ok(jmp));
        prop_assert_eq!(plan(&entry, &jmp, false), Ok(NOP5));
        prop_assert_eq!(plan(&entry, &jmp, true), Ok(jmp));
        prop_assert_eq!(plan(&entry, &NOP5, false), Ok(NOP5));
        if bytes != NOP5 && bytes != jmp {
            let refused = plan(&entry, &bytes, true);
            prop_assert_eq!(refused, Err(PatchError::UnexpectedBytes { code, found: bytes, expected: NOP5 }));
        }
        let far = JumpEntry { code, target, key: 1 };
        let displacement = target.wrapping_sub(code.wrapping_add(5)) as i64;
        prop_assert_eq!(nop_or_jmp(&far, true).is_ok(), i32::try_from(displacement).is_ok());
    }

    #[test]
    fn jump_table_bytes_round_trip(words in proptest::collection::vec(any::<[u64; 3]>(), 0..8), cut in 1usize..24) {
        let bytes: Vec<u8> = words.iter().flatten().flat_map(|w| w.to_le_bytes()).collect();
        let read: Vec<_> = entries(&bytes).expect("whole").collect();
        prop_assert!(read.iter().copied().eq(words.iter().map(|&w| JumpEntry::from_words(w))));
        if !bytes.is_empty() {
            prop_assert_eq!(entries(&bytes[cut..]).err(), Some(PatchError::TableSize(bytes.len() - cut)));
        }
    }

    /// Callbacks run in order, each only after a grace period that started after it was queued, and all run.
    #[test]
    fn callbacks_wait_for_a_whole_grace_period(ops in proptest::collection::vec(0u8..6, 1..200), start in any::<u64>()) {
        // Near the wrap too.
        let mut seq = GpSeq(start & !3);
        let mut segments = CallbackSegments::new();
        // Grace periods started when each callback was queued; those not yet started then count.
        let (mut started, mut ended) = (0u64, 0u64);
        let mut list: VecDeque<u64> = VecDeque::new();
        let mut ready = 0;
        for op in ops {
            match op {
                0..=2 => {
                    segments.enqueue(seq.snap());
                    list.push_back(started);
                }
                3 => {
                    if !seq.in_progress() {
                        started += 1;
                    }
                    seq = seq.started();
                }
                4 => {
                    if seq.in_progress() {
                        ended = started;
                    }
                    seq = seq.ended();
                }
                _ => {
                    let count = segments.advance(seq);
                    ready += count;
                    prop_assert_eq!(segments.ready(), ready);
                    for &queued_at in list.iter().take(ready) {
                        prop_assert!(ended > queued_at, "a callback ran before a whole grace period");
                    }
                    prop_assert_eq!(segments.take_ready(usize::MAX), ready);
                    list.drain(..ready);
                    ready = 0;
                }
            }
            prop_assert_eq!(segments.len(), list.len());
            prop_assert_eq!(segments.wanted().is_some(), segments.waiting() > 0);
        }
        // Two more grace periods are enough for everyone.
        for _ in 0..2 {
            seq = seq.started().ended();
        }
        prop_assert_eq!(segments.advance(seq), list.len());
        prop_assert!(segments.wanted().is_none());
    }

    /// A grace period is over exactly when each CPU has been unwatched or reported at or since its start, and
    /// only holdouts that are watched are kicked, every third scan.
    #[test]
    fn grace_period_waits_for_everyone(
        cpus in proptest::collection::vec((0u32..512, any::<bool>()), 1..20),
        steps in proptest::collection::vec((0usize..20, 0u8..3), 0..60),
    ) {
        let mut state: BTreeMap<u32, (CpuSnapshot, bool)> = BTreeMap::new();
        for (cpu, watching) in cpus {
            state.insert(cpu, (CpuSnapshot { word: 6 << 16 | (watching as u64) << 16, qs: 0 }, !watching));
        }
        let online: CpuSet = state.keys().copied().collect();
        let mut period = GracePeriod::<{ kcore::rcu::FANOUT }>::new();
        period.start(&online, |cpu| state[&cpu].0);
        for (scan, (which, what)) in steps.into_iter().enumerate() {
            let cpu = *state.keys().nth(which % state.len()).expect("a CPU");
            let (now, passed) = state.get_mut(&cpu).expect("a CPU");
            match what {
                0 => {
                    now.word += 1 << 16;
                    *passed = true;
                }
                1 => {
                    now.qs = now.qs.wrapping_add(1);
                    *passed = true;
                }
                _ => {}
            }
            let result = period.scan(|cpu| state[&cpu].0);
            let holdouts: CpuSet = state.iter().filter(|(_, s)| !s.1).map(|(&cpu, _)| cpu).collect();
            prop_assert_eq!(result.done, holdouts.is_empty());
            prop_assert_eq!(period.is_done(), result.done);
            prop_assert_eq!(period.holdouts(), holdouts);
            prop_assert_eq!(result.holdouts, holdouts.count());
            let due = (scan as u32 + 1).is_multiple_of(KICK_EVERY);
            prop_assert_eq!(result.kick, if due { holdouts } else { CpuSet::new() });
        }
    }
}

//! Property tests: trace records, frames and the decoder that finds its way back.
#![cfg(not(loom))]

use kcore::context_tracking::ContextWord;
use kcore::interruption::Cause;
use kcore::tick::{NR_DEPS, Scope, TickDep};
use kcore::trace_conformance::{Replay, Told};
use kcore::trace_event::{
    By, Clock, Data, Event, FIRST_IDLE_TASK, Flags, Line, NR_EVENTS, Names, Record, RecordTask, Site, WORDS,
};
use kcore::trace_frame::{Account, Decoder, Encoder, Frame, Hello, Item, MAX_FRAME, Total};
use proptest::collection::vec;
use proptest::prelude::*;

fn dep() -> impl Strategy<Value = Option<(TickDep, Scope)>> {
    proptest::option::of((0..NR_DEPS, 0..4usize).prop_map(|(dep, scope)| (TickDep::ALL[dep], Scope::ALL[scope])))
}

/// Data of any event, from any numbers.
fn data() -> impl Strategy<Value = Data> {
    let numbers = (any::<[u64; 5]>(), any::<u8>(), any::<u32>(), any::<Option<(u32, u32)>>(), any::<[[u8; 16]; 2]>());
    ((0..NR_EVENTS, 0u8..12, 0..3usize, dep()), numbers).prop_map(|((event, cause, by, dep), numbers)| {
        let cause = Cause::from_u8(cause).expect("a cause");
        let (by, ([a, b, c, d, e], byte, id, sender, [comm, other])) = (By::ALL[by], numbers);
        let task = RecordTask { id, comm };
        match Event::ALL[event] {
            Event::IrqEntry => Data::IrqEntry { vector: byte, cause },
            Event::IrqExit => Data::IrqExit { vector: byte, cause },
            Event::NmiEntry => Data::NmiEntry { word: a },
            Event::NmiExit => Data::NmiExit { word: a },
            Event::ExceptionEntry => Data::ExceptionEntry { vector: byte, address: a, error_code: b },
            Event::ExceptionExit => Data::ExceptionExit { vector: byte },
            Event::UserExit => Data::UserExit { by, word: a },
            Event::UserEnter => Data::UserEnter { by, word: a },
            Event::IdleEnter => Data::IdleEnter { word: a },
            Event::IdleExit => Data::IdleExit { word: a },
            Event::TickStop => Data::TickStop { prevented_by: dep },
            Event::TickRestart => Data::TickRestart { dep, site: a, set_by_task: id },
            Event::IpiSend => Data::IpiSend { target_cpu: id, cause, site: a },
            Event::IpiEntry => Data::IpiEntry { cause, sender, site: a },
            Event::IpiExit => Data::IpiExit { cause, duration_ticks: a },
            Event::TimerArm => Data::TimerArm { timer: a, deadline_tsc: b, function: c },
            Event::TimerCancel => Data::TimerCancel { timer: a },
            Event::TimerExpireEntry => Data::TimerExpireEntry { timer: a, deadline_tsc: b, function: c },
            Event::TimerExpireExit => Data::TimerExpireExit { timer: a },
            Event::SchedSwitch => Data::SchedSwitch { prev_comm: other, prev_state: byte, next: task },
            Event::SchedWakeup => Data::SchedWakeup { task, target_cpu: a as u32 },
            Event::SysEnter => Data::SysEnter { number: a, args: [b, c, d, e] },
            Event::SysExit => Data::SysExit { number: a, result: b as i64 },
            Event::RcuGracePeriod => Data::RcuGracePeriod { sequence: a, end: byte & 1 != 0, expedited: byte & 2 != 0 },
            Event::WorkPosted => Data::WorkPosted { target_cpu: id, bits: byte, word: a, site: b },
            Event::WorkRan => Data::WorkRan { bits: byte, word: a },
        }
    })
}

fn record() -> impl Strategy<Value = Record> {
    (any::<u64>(), 0u8..8, 0..FIRST_IDLE_TASK, data()).prop_map(|(tsc, flags, task, data)| Record {
        tsc,
        flags: Flags(flags),
        task,
        data,
    })
}

struct Nobody;

impl Names for Nobody {
    fn comm(&self, _: u32) -> Option<[u8; 16]> {
        None
    }

    fn site(&self, _: u64) -> Option<Site<'_>> {
        None
    }
}

/// A frame to be made.
#[derive(Clone, Debug)]
enum Make {
    Hello(Hello),
    Records(u32, Vec<[u64; WORDS]>, u64),
    Site(u64, String, u32),
    Task(u32, [u8; 16]),
}

fn make() -> impl Strategy<Value = Make> {
    let clock = any::<(u64, u64)>().prop_map(|(tsc_khz, boot_tsc)| Clock { tsc_khz, boot_tsc });
    prop_oneof![
        (clock, any::<u32>()).prop_map(|(clock, cpus)| Make::Hello(Hello { clock, cpus })),
        (0u32..3, vec(any::<[u64; WORDS]>(), 0..4), 0u64..3).prop_map(|(cpu, r, lost)| Make::Records(cpu, r, lost)),
        (any::<u64>(), "[a-z/:é]{0,12}", any::<u32>()).prop_map(|(a, file, line)| Make::Site(a, file, line)),
        (any::<u32>(), any::<[u8; 16]>()).prop_map(|(id, comm)| Make::Task(id, comm)),
    ]
}

/// The frames of a stream, each with what it must decode to, the last one an END.
fn stream(makes: &[Make]) -> Vec<(Vec<u8>, Frame)> {
    let (mut encoder, mut out, mut totals) = (Encoder::new(), vec![0; MAX_FRAME], [Total::default(); 3]);
    (0..3).for_each(|cpu| totals[cpu].cpu = cpu as u32);
    let mut frames = Vec::new();
    for make in makes {
        frames.push(match make {
            Make::Hello(hello) => (encoder.hello(&mut out, hello).unwrap().to_vec(), Frame::Hello(*hello)),
            Make::Records(cpu, records, lost) => {
                let total = &mut totals[*cpu as usize];
                total.lost += lost;
                let before = *total;
                total.delivered += records.len() as u64;
                let bytes = encoder.records(&mut out, &before, records).unwrap().to_vec();
                (bytes, Frame::Records { before, records: records.clone() })
            }
            Make::Site(address, file, line) => {
                let bytes = encoder.site(&mut out, *address, &Site { file, line: *line }).unwrap().to_vec();
                (bytes, Frame::Site { address: *address, file: file.clone(), line: *line })
            }
            Make::Task(id, comm) => {
                (encoder.task(&mut out, *id, comm).unwrap().to_vec(), Frame::Task { id: *id, comm: *comm })
            }
        });
    }
    frames.push((encoder.end(&mut out, &totals).unwrap().to_vec(), Frame::End(totals.to_vec())));
    frames
}

/// Everything found in `bytes` when they come in pieces of `piece`.
fn decode(bytes: &[u8], piece: usize) -> Vec<Item> {
    let (mut decoder, mut items) = (Decoder::new(), Vec::new());
    for part in bytes.chunks(piece) {
        decoder.push(part);
        items.extend(std::iter::from_fn(|| decoder.next()));
    }
    decoder.end();
    items.extend(std::iter::from_fn(|| decoder.next()));
    items
}

fn account(items: &[Item]) -> Account {
    let mut account = Account::new();
    items.iter().for_each(|item| account.add(item));
    account
}

/// A length that reaches into the next frame costs its own frame alone.
#[test]
fn a_wrong_length_costs_one_frame() {
    let tasks = [1, 2].map(|id| Make::Task(id, [b'x'; 16]));
    let frames = stream(&tasks);
    let mut bytes: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes).copied().collect();
    let payload = u16::from_le_bytes([bytes[4], bytes[5]]);
    bytes[4..6].copy_from_slice(&(2 * payload).to_le_bytes());
    let items = decode(&bytes, bytes.len());
    let found: Vec<_> = items.iter().filter(|item| matches!(item, Item::Frame(_))).collect();
    assert_eq!(found, [&Item::Frame(frames[1].1.clone()), &Item::Frame(frames[2].1.clone())], "{items:?}");
    assert_eq!(account(&items).skipped_bytes, frames[0].0.len() as u64);
}

proptest! {
    #[test]
    fn record_round_trip(record in record()) {
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        let clock = Clock { tsc_khz: record.tsc >> 40, boot_tsc: record.tsc / 2 };
        let text = Line { cpu: 3, record: &record, clock: &clock, names: &Nobody }.to_string();
        prop_assert!(text.contains(record.data.event().name()) && text.is_ascii());
        prop_assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
    }

    /// One changed bit gives another record or is refused: no bit is without meaning. (A task that becomes an idle one has id 0.)
    #[test]
    fn every_bit_of_a_record_counts(record in record(), bit in 0usize..WORDS * 64) {
        let mut words = record.encode();
        words[bit / 64] ^= 1 << (bit % 64);
        if let Ok(other) = Record::decode(&words) {
            let idle = words[1] >> 32 >= u64::from(FIRST_IDLE_TASK);
            prop_assert!(other != record || idle && record.task == 0);
            words[1] &= if idle { 0xffff_ffff } else { u64::MAX };
            prop_assert_eq!(other.encode(), words);
        }
    }

    #[test]
    fn frames_round_trip_in_any_pieces(makes in vec(make(), 0..12), piece in 1usize..200) {
        let frames = stream(&makes);
        let bytes: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes).copied().collect();
        let items = decode(&bytes, piece);
        prop_assert!(items.iter().eq(frames.iter().map(|(_, frame)| Item::Frame(frame.clone())).collect::<Vec<_>>().iter()));
        let account = account(&items);
        prop_assert!(account.ended);
        prop_assert_eq!(account.skipped_bytes + account.missing_frames + account.all().lost_on_line(), 0);
    }

    /// Garbage before, between and behind frames costs no frame, and every byte of it is counted.
    #[test]
    fn garbage_is_skipped_and_counted(
        makes in vec(make(), 0..8), garbage in vec(vec(any::<u8>(), 0..40), 9), piece in 1usize..200,
    ) {
        let (frames, mut bytes, mut added) = (stream(&makes), Vec::new(), 0);
        for (i, (frame, _)) in frames.iter().enumerate() {
            bytes.extend(&garbage[i]);
            bytes.extend(frame);
            added += garbage[i].len() as u64;
        }
        let items = decode(&bytes, piece);
        let found: Vec<_> = items.iter().filter(|item| matches!(item, Item::Frame(_))).collect();
        prop_assert!(found.into_iter().eq(frames.iter().map(|(_, f)| Item::Frame(f.clone())).collect::<Vec<_>>().iter()));
        prop_assert_eq!(account(&items).skipped_bytes, added);
    }

    /// Frames that are missing or twice there are counted, and so are the records in them.
    #[test]
    fn missing_and_repeated_frames_are_counted(makes in vec(make(), 1..12), fate in vec(0u8..4, 13)) {
        let frames = stream(&makes);
        let (mut bytes, mut dropped, mut repeated, mut lost) = (Vec::new(), 0, 0, 0);
        let last = frames.len() - 1;
        for (i, (frame, content)) in frames.iter().enumerate() {
            match fate[i] {
                0 if i < last => {
                    dropped += 1;
                    if let Frame::Records { records, .. } = content {
                        lost += records.len() as u64;
                    }
                }
                // A HELLO with the number 0 may be another boot's; that it comes twice is another test's.
                1 if i > 0 => {
                    repeated += 1;
                    bytes.extend(frame.iter().chain(frame));
                }
                _ => bytes.extend(frame),
            }
        }
        let account = account(&decode(&bytes, 64));
        prop_assert_eq!((account.missing_frames, account.repeated_frames, account.skipped_bytes), (dropped, repeated, 0));
        let all = account.all();
        prop_assert_eq!((all.lost_on_line(), all.received + lost), (lost, all.delivered));
        let pushed: u64 = makes.iter().map(|m| if let Make::Records(_, r, lost) = m { r.len() as u64 + lost } else { 0 }).sum();
        prop_assert_eq!(all.pushed(), pushed);
    }

    /// A CPU's own trace has no fault; without two of its steps, NMIs of user mode among them, it has one.
    #[test]
    fn replay_misses_no_step(steps in vec(0u8..3, 2..30), cut in any::<prop::sample::Index>()) {
        let word: ContextWord = ContextWord::new();
        let by = By::Irq;
        let mut stays: Vec<Vec<Data>> = Vec::new();
        for step in steps {
            let mut stay = vec![Data::UserEnter { by, word: word.load() }];
            prop_assert!(word.user_enter().is_plain());
            for _ in 0..step {
                let token = word.nmi_enter();
                stay.extend([Data::NmiEntry { word: word.load() }, Data::NmiExit { word: word.load() }]);
                word.nmi_exit(token);
            }
            prop_assert!(word.user_exit().is_plain());
            stay.push(Data::UserExit { by, word: word.load() });
            stays.push(stay);
        }
        let faults = |stays: &[Vec<Data>]| {
            let mut replay = Replay::new(Told { nmis: true, irqs: true });
            let record = |&data| Record { tsc: 0, flags: Flags::NONE, task: 1, data };
            stays.iter().flatten().map(record).filter(|record| replay.record(record).is_err()).count()
        };
        prop_assert_eq!(faults(&stays), 0);
        // A whole stay between two others leaves states that fit: only the counter tells.
        if stays.len() > 2 {
            stays.remove(1 + cut.index(stays.len() - 2));
            prop_assert_eq!(faults(&stays), 1);
        }
    }

    /// Any single broken byte: every other frame is found, and what was sent is received or told as lost.
    #[test]
    fn a_broken_byte_costs_one_frame(makes in vec(make(), 0..8), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let frames = stream(&makes);
        let mut bytes: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes).copied().collect();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let items = decode(&bytes, 100);
        let account = account(&items);
        prop_assert_eq!(account.frames + 1, frames.len() as u64);
        prop_assert!(account.skipped_bytes > 0);
        prop_assert_eq!(account.all().received + account.all().lost_on_line(), account.all().delivered);
    }
}

#[test]
fn a_second_boot_on_the_same_line_is_told() {
    let hello = |boot_tsc| Hello { clock: Clock { tsc_khz: 1, boot_tsc }, cpus: 1 };
    let mut out = vec![0; MAX_FRAME];
    let mut boot = |boot_tsc| {
        let mut encoder = Encoder::new();
        let mut bytes = encoder.hello(&mut out, &hello(boot_tsc)).unwrap().to_vec();
        bytes.extend(encoder.records(&mut out, &Total::default(), &[[1; WORDS]; 2]).unwrap());
        bytes
    };
    let bytes = [boot(5), boot(6), boot(6)].concat();
    let account = account(&decode(&bytes, 7));
    assert_eq!((account.restarts, account.repeated_frames, account.all().received), (1, 2, 4));
}

#[test]
fn what_does_not_fit_is_refused_and_not_counted() {
    let mut encoder = Encoder::new();
    let mut out = vec![0; MAX_FRAME + 100];
    assert!(encoder.task(&mut out[..35], 1, &[0; 16]).is_none());
    assert!(encoder.task(&mut out[..36], 1, &[0; 16]).is_some());
    let many = vec![[0; WORDS]; kcore::trace_frame::MAX_RECORDS + 1];
    assert!(encoder.records(&mut out, &Total::default(), &many).is_none());
    assert!(encoder.records(&mut out, &Total::default(), &many[1..]).is_some());
    assert!(encoder.end(&mut out, &vec![Total::default(); kcore::trace_frame::MAX_TOTALS + 1]).is_none());
    assert_eq!(encoder.seq(), 2);
}

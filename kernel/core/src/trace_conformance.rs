//! Replays one CPU's trace against the rules of the context word.
//!
//! Fed by the host with records in the order of their time. Every transition that a record tells is checked by
//! [`context_tracking::check`] on the word that it must have found, and by the counter: it moves by one for each
//! transition and by two for an NMI from user mode or idle. Between records nothing else may have happened, so a step that
//! no record explains is found. Where records were lost nothing is known until the next transition; that resynchronises.
//!
//! Posted work is found right behind the way in, so its record comes before that of the transition; what the tick and RCU record while they
//! are looked at again belongs to it. Everything else between a way out and a way in is kernel code that ran unseen, but for NMIs, whose
//! records are marked, come in pairs, and have nothing but their like between them.
//!
//! A CPU that is not tracked never shows user_exit; what interrupts its user mode is no fault then.

use crate::context_tracking::{self, KERNEL_EXPECTED, LOW_MASK, State, Step, WATCH, counter, is_watching};
use crate::trace_event::{Data, Event, Flags, Group, Record};

/// What is known of the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Nothing: at the start, or after a loss.
    Nothing,
    /// It is in this state; `word`, if known, is its word as the last transition left it.
    State(State, Option<u64>),
    /// It has found posted work on its way in from this state; its word then. The record of the transition comes.
    Working(State, u64),
    /// In an NMI that came from outside the kernel; the state is what the NMI found.
    Nmi(State, Option<u64>),
}

/// Why a record cannot have followed those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The rules do not allow this step from this word.
    Illegal(context_tracking::Illegal),
    /// This step cannot be made in this state.
    WrongState(Event, State),
    /// The kernel did this while its word said that it is in this state.
    NotWatched(Event, State),
    /// The word's counter says that so many transitions have no record (modulo its width).
    Unseen(Event, u64),
    /// An interrupt's or NMI's end without its begin, or the other way round.
    Unpaired(Event),
    /// Recorded in an NMI that did not begin, or not as in the NMI that has not ended.
    OutOfNmi(Event),
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Fault::Illegal(illegal) => write!(f, "{} from word {:#x} is illegal", illegal.step.name(), illegal.old),
            Fault::WrongState(event, state) => write!(f, "{} in state {}", event.name(), state.name()),
            Fault::NotWatched(event, state) => {
                write!(f, "{} while the word says {} and RCU does not watch", event.name(), state.name())
            }
            Fault::Unseen(event, count) => {
                write!(f, "{}: the counter has moved by {count} transitions that no record tells", event.name())
            }
            Fault::Unpaired(event) => write!(f, "{} without its counterpart", event.name()),
            Fault::OutOfNmi(event) => write!(f, "{} does not fit the NMIs around it", event.name()),
        }
    }
}

/// Which events the trace has: what is not there cannot be held against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// NMIs, begin and end; else the counter may move by two unseen.
    pub nmis: bool,
    /// Interrupts, begin and end.
    pub irqs: bool,
}

/// The replay of one CPU.
#[derive(Clone, Debug)]
pub struct Replay {
    known: Known,
    /// It has made a user-mode transition: it is tracked.
    tracked: bool,
    told: Told,
    /// An interrupt's handler runs; `None`: not known.
    in_irq: Option<bool>,
    /// NMI handlers that run, one in the other; `None`: not known.
    nmis: Option<u32>,
    /// Transitions checked.
    pub checked: u64,
    /// NMIs that only the counter tells.
    pub untold_nmis: u64,
}

impl Replay {
    /// At a point where nothing is known.
    pub const fn new(told: Told) -> Self {
        Replay { known: Known::Nothing, tracked: false, told, in_irq: None, nmis: None, checked: 0, untold_nmis: 0 }
    }

    /// Records are missing here.
    pub fn gap(&mut self) {
        self.known = Known::Nothing;
        self.in_irq = None;
        self.nmis = None;
    }

    /// Takes the next record. After a fault it goes on from what the record says.
    pub fn record(&mut self, record: &Record) -> Result<(), Fault> {
        let event = record.data.event();
        match record.data {
            Data::UserExit { word, .. } => {
                self.tracked = true;
                self.came_in(event, Step::UserExit, word)
            }
            Data::IdleExit { word } => self.came_in(event, Step::IdleExit, word),
            Data::UserEnter { word, .. } => {
                self.tracked = true;
                self.goes_out(event, Step::UserEnter, word)
            }
            Data::IdleEnter { word } => self.goes_out(event, Step::IdleEnter, word),
            Data::NmiEntry { word } => self.nmi_entry(word),
            Data::NmiExit { word } => self.nmi_exit(word),
            Data::WorkRan { word, .. } => self.work_ran(word),
            _ => self.kernel_event(event, record.flags),
        }
    }

    /// user_exit or idle_exit was made; `after` is the word since then.
    fn came_in(&mut self, event: Event, step: Step, after: u64) -> Result<(), Fault> {
        let from = if step == Step::UserExit { State::User } else { State::Idle };
        let before = core::mem::replace(&mut self.known, Known::State(State::Kernel, word(after)));
        self.checked += 1;
        if after != 0 {
            // What was posted may have been done by now, so its bits say nothing here.
            let old = (after & !context_tracking::DEFERRED_MASK).wrapping_sub(step.delta());
            context_tracking::check(step, old).map_err(Fault::Illegal)?;
        }
        match before {
            Known::Nothing => self.outside_nmis(event),
            Known::State(state, left) if state == from => {
                self.counted(event, left, after.wrapping_sub(step.delta()), after)?;
                self.outside_nmis(event)
            }
            // The same transition, which was told when its work was found.
            Known::Working(state, found) if state == from => self.counted(event, Some(found), after, after),
            Known::State(state, _) | Known::Working(state, _) | Known::Nmi(state, _) => {
                Err(Fault::WrongState(event, state))
            }
        }
    }

    /// Posted work was found; `after` is the word since the transition, with its bits.
    fn work_ran(&mut self, after: u64) -> Result<(), Fault> {
        let event = Event::WorkRan;
        match self.known {
            Known::State(state @ (State::User | State::Idle), left) => {
                let step = if state == State::User { Step::UserExit } else { Step::IdleExit };
                self.known = Known::Working(state, after);
                let old = after.wrapping_sub(step.delta());
                context_tracking::check(step, old).map_err(Fault::Illegal)?;
                self.counted(event, left, old, after)?;
                self.outside_nmis(event)
            }
            Known::Nothing => self.outside_nmis(event),
            Known::State(state, _) | Known::Working(state, _) | Known::Nmi(state, _) => {
                Err(Fault::WrongState(event, state))
            }
        }
    }

    /// No NMI's handler runs.
    fn outside_nmis(&mut self, event: Event) -> Result<(), Fault> {
        let inside = self.nmis.replace(0).is_some_and(|nmis| nmis > 0);
        if inside && self.told.nmis { Err(Fault::OutOfNmi(event)) } else { Ok(()) }
    }

    /// user_enter or idle_enter is about to be made; `before` is the word until then.
    fn goes_out(&mut self, event: Event, step: Step, before: u64) -> Result<(), Fault> {
        let to = if step == Step::UserEnter { State::User } else { State::Idle };
        let after = before.wrapping_add(step.delta());
        let known = core::mem::replace(&mut self.known, Known::State(to, word(before).map(|_| after)));
        self.checked += 1;
        if before != 0 {
            context_tracking::check(step, before).map_err(Fault::Illegal)?;
        }
        match known {
            Known::Nothing => self.outside_nmis(event),
            Known::State(State::Kernel, left) => {
                self.counted(event, left, before, before)?;
                self.outside_nmis(event)
            }
            Known::State(state, _) | Known::Working(state, _) | Known::Nmi(state, _) => {
                Err(Fault::WrongState(event, state))
            }
        }
    }

    /// An NMI may also come where the CPU is in the kernel and its record of that is not written yet, or no longer right: behind user_exit and
    /// before its record, behind the record of user_enter and before that. Its word tells, and it changes none then.
    fn nmi_entry(&mut self, after: u64) -> Result<(), Fault> {
        let event = Event::NmiEntry;
        let outermost = self.nmis == Some(0);
        self.nmis = self.nmis.map(|nmis| nmis + 1);
        match self.known {
            Known::State(state @ (State::User | State::Idle | State::Guest), left) if outermost => {
                if after == 0 || State::of(after) == state {
                    self.known = Known::Nmi(state, word(after));
                    self.checked += 1;
                    if after != 0 && !is_watching(after) {
                        return Err(Fault::NotWatched(event, state));
                    }
                    return self.counted(event, left, after.wrapping_sub(WATCH), after);
                }
                let counter_is = |counter| context_tracking::counter(after) == context_tracking::counter(counter);
                match left {
                    Some(left) if !counter_is(left.wrapping_add(WATCH)) && !counter_is(left.wrapping_sub(WATCH)) => {
                        Err(Fault::WrongState(event, state))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn nmi_exit(&mut self, before: u64) -> Result<(), Fault> {
        let event = Event::NmiExit;
        self.nmis = match self.nmis {
            Some(0) if self.told.nmis => return Err(Fault::Unpaired(event)),
            nmis => nmis.map(|nmis| nmis.saturating_sub(1)),
        };
        let Known::Nmi(state, left) = self.known else { return Ok(()) };
        if self.nmis.is_some_and(|nmis| nmis > 0) {
            return Ok(());
        }
        self.known = Known::State(state, word(before).map(|word| word.wrapping_add(WATCH)));
        self.checked += 1;
        if before != 0 && !is_watching(before) {
            return Err(Fault::NotWatched(event, State::of(before)));
        }
        self.counted(event, left, before, before)
    }

    /// `left` is the word as it was left, `found` as it must have been found; `seen` is 0 if nobody looked.
    fn counted(&mut self, event: Event, left: Option<u64>, found: u64, seen: u64) -> Result<(), Fault> {
        let Some(left) = left.filter(|_| seen != 0) else { return Ok(()) };
        let unseen = counter(found).wrapping_sub(counter(left)) & (u64::MAX >> context_tracking::COUNTER_SHIFT);
        if unseen == 0 || cfg!(mutant = "replay_trusts_counter") {
            return Ok(());
        }
        if !self.told.nmis && !is_watching(left) && unseen.is_multiple_of(2) {
            self.untold_nmis += unseen / 2;
            return Ok(());
        }
        Err(Fault::Unseen(event, unseen))
    }

    /// Whatever the kernel records but transitions: it must be in the kernel then.
    fn kernel_event(&mut self, event: Event, flags: Flags) -> Result<(), Fault> {
        let handler_runs = match event {
            Event::IrqEntry => Some(true),
            Event::IrqExit => Some(false),
            _ => None,
        };
        if let Some(now) = handler_runs
            && self.in_irq.replace(now) == Some(now)
            && self.told.irqs
        {
            return Err(Fault::Unpaired(event));
        }
        // An NMI's handler may have exceptions: an MSR that is not there.
        let may_nest = matches!(event, Event::ExceptionEntry | Event::ExceptionExit);
        if flags.contains(Flags::IN_NMI) || may_nest && self.nmis != Some(0) {
            return Ok(());
        }
        if let Known::Nmi(state, _) = self.known {
            self.known = Known::Nothing;
            self.nmis = Some(0);
            return Err(if self.told.nmis { Fault::OutOfNmi(event) } else { Fault::NotWatched(event, state) });
        }
        self.outside_nmis(event)?;
        match self.known {
            Known::Working(..) if matches!(event.group(), Group::Tick | Group::Timer | Group::Rcu) => Ok(()),
            Known::Working(state, _) => {
                self.known = Known::Nothing;
                Err(Fault::NotWatched(event, state))
            }
            Known::State(state @ (State::User | State::Idle | State::Guest), _) => {
                if state == State::User && !self.tracked {
                    return Ok(());
                }
                self.known = Known::Nothing;
                Err(Fault::NotWatched(event, state))
            }
            _ => Ok(()),
        }
    }
}

fn word(word: u64) -> Option<u64> {
    (word != 0).then_some(word)
}

// A word of 0 stands for "not looked at": no word that a record tells can be 0, because WATCH is set in it.
const _: () = assert!(KERNEL_EXPECTED & LOW_MASK & WATCH != 0);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::context_tracking::{ContextWord, Deferred};
    use crate::interruption::Cause;
    use crate::trace_event::By;

    fn record(data: Data) -> Record {
        Record { tsc: 0, flags: Flags::NONE, task: 1, data }
    }

    /// What a CPU would trace that lives through `steps`: u, k: to user mode and back; i, w: to idle and back; n: an NMI;
    /// N: one with another in it; p: work is posted, which the next way in finds; I: an interrupt's handler; T: the tick is looked at.
    fn trace(steps: &str) -> Vec<Option<Record>> {
        let word: ContextWord = ContextWord::new();
        let mut out = Vec::new();
        let mut add = |data| out.push(Some(record(data)));
        let by = By::Irq;
        for step in steps.chars() {
            match step {
                'u' => {
                    add(Data::UserEnter { by, word: word.load() });
                    assert!(word.user_enter().is_plain());
                }
                'k' => {
                    assert!(word.user_exit().is_legal());
                    let bits = context_tracking::deferred(word.load());
                    if bits != 0 {
                        add(Data::WorkRan { bits, word: word.load() });
                        add(Data::TickStop { prevented_by: None });
                    }
                    word.clear_deferred(bits);
                    add(Data::UserExit { by, word: word.load() });
                }
                'i' => {
                    add(Data::IdleEnter { word: word.load() });
                    assert!(word.idle_enter().is_plain());
                }
                'w' => {
                    assert!(word.idle_exit().is_plain());
                    add(Data::IdleExit { word: word.load() });
                }
                'n' => {
                    let token = word.nmi_enter();
                    add(Data::NmiEntry { word: word.load() });
                    add(Data::NmiExit { word: word.load() });
                    word.nmi_exit(token);
                }
                'N' => {
                    let token = word.nmi_enter();
                    add(Data::NmiEntry { word: word.load() });
                    add(Data::ExceptionEntry { vector: 13, address: 0, error_code: 0 });
                    let nested = word.nmi_enter();
                    add(Data::NmiEntry { word: word.load() });
                    add(Data::NmiExit { word: word.load() });
                    word.nmi_exit(nested);
                    add(Data::ExceptionExit { vector: 13 });
                    add(Data::NmiExit { word: word.load() });
                    word.nmi_exit(token);
                }
                'p' => drop(word.post(Deferred::SyncCore)),
                'I' => {
                    add(Data::IrqEntry { vector: 236, cause: Cause::Timer });
                    add(Data::IrqExit { vector: 236, cause: Cause::Timer });
                }
                _ => unreachable!(),
            }
        }
        out
    }

    fn faults(nmis: bool, records: &[Option<Record>]) -> Vec<Fault> {
        let mut replay = Replay::new(Told { nmis, irqs: true });
        let mut faults = Vec::new();
        for record in records {
            match record {
                Some(record) => faults.extend(replay.record(record).err()),
                None => replay.gap(),
            }
        }
        faults
    }

    #[test]
    fn what_follows_the_rules_has_no_fault() {
        let records = trace("ukIuknIunnkiwinwIupkukuNkiNwNIupnpkI");
        assert_eq!(faults(true, &records), []);
        let mut replay = Replay::new(Told { nmis: true, irqs: true });
        records.iter().flatten().for_each(|record| replay.record(record).unwrap());
        assert!(replay.checked >= 20 && replay.untold_nmis == 0);
    }

    /// With no step left out, so that every record but the first ones and the last has what contradicts its loss.
    #[test]
    fn any_lost_record_is_found_unless_told() {
        let records = trace("IukuknIiwInukuNkinwupkNI");
        for i in 0..records.len() {
            let lost = records[i].unwrap().data.event();
            let mut cut = records.clone();
            cut.remove(i);
            // Exceptions and the tick's decisions are no part of the rules, and work alone is `posted_work`'s.
            let free = matches!(lost, Event::ExceptionEntry | Event::ExceptionExit | Event::TickStop | Event::WorkRan);
            // The first of each kind and the last leave nothing that could contradict.
            if (i == 1 || i > 2) && i + 1 < records.len() && !free {
                assert!(!faults(true, &cut).is_empty(), "record {i}, {} is not missed", lost.name());
            }
            cut.insert(i, None);
            // What is left of a pair around the gap is no fault.
            assert_eq!(faults(true, &cut), [], "record {i}, {}, told as lost", lost.name());
        }
    }

    #[test]
    fn an_nmi_between_a_transition_and_its_record_is_none_of_its_own() {
        let word: ContextWord = ContextWord::new();
        let by = By::Irq;
        let nmi = |word| [Data::NmiEntry { word }, Data::NmiExit { word }];
        let mut all = vec![Data::UserEnter { by, word: word.load() }];
        all.extend(nmi(word.load()));
        assert!(word.user_enter().is_plain() && word.user_exit().is_plain());
        all.extend(nmi(word.load()));
        all.push(Data::UserExit { by, word: word.load() });
        let records = |all: &[Data]| all.iter().map(|&data| Some(record(data))).collect::<Vec<_>>();
        assert_eq!(faults(true, &records(&all)), []);
        // Two stays later it is unexplained.
        for _ in 0..2 {
            assert!(word.user_enter().is_plain() && word.user_exit().is_plain());
        }
        all.truncate(3);
        all.extend(nmi(word.load()));
        assert_eq!(faults(true, &records(&all)), [Fault::WrongState(Event::NmiEntry, State::User)]);
    }

    #[test]
    fn only_its_own_tick_and_rcu_may_be_between_work_and_the_way_in() {
        let records = trace("upk");
        assert_eq!(records.len(), 4);
        let mut other = records.clone();
        other.insert(2, Some(record(Data::SysEnter { number: 1, args: [0; 4] })));
        assert_eq!(faults(true, &other)[0], Fault::NotWatched(Event::SysEnter, State::User));
        // Without a record of the transition what follows is kernel code unseen.
        assert_eq!(faults(true, &[records[0], records[1], records[0]]).len(), 1);
        assert_eq!(faults(true, &[records[1], records[3]]), [], "nothing is known before");
    }

    #[test]
    fn nmis_that_are_not_traced_are_known_by_the_counter() {
        let mut records = trace("unnk");
        records.retain(|r| !matches!(r.unwrap().data, Data::NmiEntry { .. } | Data::NmiExit { .. }));
        assert_eq!(faults(false, &records), []);
        assert_eq!(faults(true, &records), [Fault::Unseen(Event::UserExit, 4)]);
    }

    #[test]
    fn illegal_words_and_kernel_code_in_user_mode_are_found() {
        let mut records = trace("ukuIk");
        let found = faults(true, &records);
        assert_eq!(found[0], Fault::NotWatched(Event::IrqEntry, State::User));
        records = trace("uk");
        let Some(Record { data: Data::UserExit { word, .. }, .. }) = &mut records[1] else { unreachable!() };
        *word ^= WATCH;
        assert!(matches!(faults(true, &records)[..], [Fault::Illegal(_)]));
        let bare = record(Data::IdleEnter { word: 0 });
        assert_eq!(faults(true, &[Some(bare), Some(bare)]), [Fault::WrongState(Event::IdleEnter, State::Idle)]);
    }
}

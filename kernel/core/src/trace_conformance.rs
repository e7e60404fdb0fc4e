//! Replays one CPU's trace against the rules of the context word.
//!
//! Fed by the host with records in the order of their time. Every transition that a record tells is checked by
//! [`context_tracking::check`] on the word that it must have found, and by the counter: it moves by one for each
//! transition and by two for an NMI from user mode or idle. Between records nothing else may have happened, so a step that
//! no record explains is found. Where records were lost nothing is known until the next transition; that resynchronises.
//!
//! A CPU that is not tracked never shows user_exit; what interrupts its user mode is no fault then.

use crate::context_tracking::{self, KERNEL_EXPECTED, LOW_MASK, State, Step, WATCH, counter, is_watching};
use crate::trace_event::{Data, Event, Flags, Record};

/// What is known of the CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    /// Nothing: at the start, or after a loss.
    Nothing,
    /// It is in this state; `word`, if known, is its word as the last transition left it.
    State(State, Option<u64>),
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
    /// An interrupt's end without its begin, or the other way round.
    Unpaired(Event),
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
        }
    }
}

/// The replay of one CPU.
#[derive(Clone, Debug)]
pub struct Replay {
    known: Known,
    /// It has made a user-mode transition: it is tracked.
    tracked: bool,
    /// NMIs are in the trace; else the counter may move by two unseen.
    nmis_told: bool,
    /// An interrupt's handler runs; `None`: not known.
    in_irq: Option<bool>,
    /// Transitions checked.
    pub checked: u64,
    /// NMIs that only the counter tells.
    pub untold_nmis: u64,
}

impl Replay {
    /// At a point where nothing is known. `nmis_told`: the trace has the events of group irq.
    pub const fn new(nmis_told: bool) -> Self {
        Replay { known: Known::Nothing, tracked: false, nmis_told, in_irq: None, checked: 0, untold_nmis: 0 }
    }

    /// Records are missing here.
    pub fn gap(&mut self) {
        self.known = Known::Nothing;
        self.in_irq = None;
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
            Known::Nothing => Ok(()),
            Known::State(state, left) if state == from => {
                self.counted(event, left, after.wrapping_sub(step.delta()), after)
            }
            Known::State(state, _) | Known::Nmi(state, _) => Err(Fault::WrongState(event, state)),
        }
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
            Known::Nothing => Ok(()),
            Known::State(State::Kernel, left) => self.counted(event, left, before, before),
            Known::State(state, _) | Known::Nmi(state, _) => Err(Fault::WrongState(event, state)),
        }
    }

    fn nmi_entry(&mut self, after: u64) -> Result<(), Fault> {
        match self.known {
            Known::Nothing | Known::State(State::Kernel, _) => Ok(()),
            Known::State(state, left) => {
                self.known = Known::Nmi(state, word(after));
                self.checked += 1;
                if after != 0 && (!is_watching(after) || State::of(after) != state) {
                    return Err(Fault::NotWatched(Event::NmiEntry, State::of(after)));
                }
                self.counted(Event::NmiEntry, left, after.wrapping_sub(WATCH), after)
            }
            // An NMI in an NMI's handler (after a fault in it) changes nothing.
            Known::Nmi(..) => Ok(()),
        }
    }

    fn nmi_exit(&mut self, before: u64) -> Result<(), Fault> {
        let Known::Nmi(state, left) = self.known else { return Ok(()) };
        self.known = Known::State(state, word(before).map(|word| word.wrapping_add(WATCH)));
        self.checked += 1;
        if before != 0 && !is_watching(before) {
            return Err(Fault::NotWatched(Event::NmiExit, State::of(before)));
        }
        self.counted(Event::NmiExit, left, before, before)
    }

    /// `left` is the word as it was left, `found` as it must have been found; `seen` is 0 if nobody looked.
    fn counted(&mut self, event: Event, left: Option<u64>, found: u64, seen: u64) -> Result<(), Fault> {
        let Some(left) = left.filter(|_| seen != 0) else { return Ok(()) };
        let unseen = counter(found).wrapping_sub(counter(left)) & (u64::MAX >> context_tracking::COUNTER_SHIFT);
        if unseen == 0 || cfg!(mutant = "replay_trusts_counter") {
            return Ok(());
        }
        if !self.nmis_told && !is_watching(left) && unseen.is_multiple_of(2) {
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
        {
            return Err(Fault::Unpaired(event));
        }
        if flags.contains(Flags::IN_NMI) {
            return Ok(());
        }
        match self.known {
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
    /// I: an interrupt's handler; t: a lost record.
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
                    add(Data::UserExit { by, word: word.load() });
                    word.clear_deferred(Deferred::ALL);
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

    fn faults(nmis_told: bool, records: &[Option<Record>]) -> Vec<Fault> {
        let mut replay = Replay::new(nmis_told);
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
        let records = trace("ukIuknIunnkiwinwIupkuk");
        assert_eq!(faults(true, &records), []);
        let mut replay = Replay::new(true);
        records.iter().flatten().for_each(|record| replay.record(record).unwrap());
        assert!(replay.checked >= 20 && replay.untold_nmis == 0);
    }

    #[test]
    fn any_lost_transition_is_found_unless_told() {
        let records = trace("IukukIiwInukunkinwI");
        for i in 0..records.len() {
            let lost = records[i].unwrap().data.event();
            let kernel_nmi = matches!(lost, Event::NmiEntry | Event::NmiExit) && (12..14).contains(&i);
            let mut cut = records.clone();
            cut.remove(i);
            // The first of each kind and the last leave nothing that could contradict, and an NMI in the kernel changes no word.
            if (i == 1 || i > 2) && i + 1 < records.len() && !kernel_nmi {
                assert!(!faults(true, &cut).is_empty(), "record {i}, {} is not missed", lost.name());
            }
            cut.insert(i, None);
            // What is left of a pair around the gap is no fault.
            assert_eq!(faults(true, &cut), [], "record {i}, {}, told as lost", lost.name());
        }
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

//! One traced event as a record of seven words.
//!
//! Encoded by the sites, in any context (no allocation, no formatting, a handful of instructions once inlined);
//! decoded by readers. Invariant: decoding what was encoded gives the same value; words that no encoder
//! wrote are refused.
//!
//! ```text
//! word 0 tsc
//!      1 event 7..0, flags 15..8 (bit 0: interrupts off, 1: in NMI, 2: from user mode), argument 31..16, task 63..32
//!      2-6 the event's own; what it does not use is zero
//! ```

use super::Event;
use crate::interruption::Cause;
use crate::tick::{Scope, TickDep};

/// Number of words of a record.
pub const WORDS: usize = 7;

/// Tasks from this index on are idle tasks. What records them stores the index, and their readers see id 0.
pub const FIRST_IDLE_TASK: u32 = 32768;

/// In what situation the event happened: bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Nothing special.
    pub const NONE: Flags = Flags(0);
    /// Interrupts were off.
    pub const IRQS_OFF: Flags = Flags(1 << 0);
    /// In an NMI's handler.
    pub const IN_NMI: Flags = Flags(1 << 1);
    /// The interrupt, exception or NMI came from user mode.
    pub const FROM_USER: Flags = Flags(1 << 2);
    const KNOWN: u8 = Self::IRQS_OFF.0 | Self::IN_NMI.0 | Self::FROM_USER.0;

    /// Both.
    #[inline]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What brought a CPU from user mode into the kernel, or what it returns from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum By {
    /// A system call.
    Syscall = 0,
    /// An interrupt.
    Irq = 1,
    /// An exception.
    Exception = 2,
}

impl By {
    /// All, by number.
    pub const ALL: [By; 3] = [By::Syscall, By::Irq, By::Exception];

    /// Name as in traces.
    pub const fn name(self) -> &'static str {
        match self {
            By::Syscall => "syscall",
            By::Irq => "irq",
            By::Exception => "exception",
        }
    }
}

/// A task that another record names: its id, and its name at that time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordTask {
    /// Its id; 0 is a CPU's idle task.
    pub id: u32,
    /// Its name, zero-padded.
    pub comm: [u8; 16],
}

/// The event and what belongs to it. `word` is the CPU's context word: after user_exit, idle_exit, work_ran and nmi_entry, before
/// user_enter, idle_enter and nmi_exit; 0 where the site did not load it (no CPU's word is 0 then: WATCH is set) or user mode is not tracked. A
/// `site` is the address of a `&'static Location`, or 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // The fields say what their names say; units are in the names.
pub enum Data {
    /// [`Event::IrqEntry`].
    IrqEntry { vector: u8, cause: Cause },
    /// [`Event::IrqExit`].
    IrqExit { vector: u8, cause: Cause },
    /// [`Event::NmiEntry`].
    NmiEntry { word: u64 },
    /// [`Event::NmiExit`].
    NmiExit { word: u64 },
    /// [`Event::ExceptionEntry`]; `address` is CR2 of a page fault, else the instruction's.
    ExceptionEntry { vector: u8, address: u64, error_code: u64 },
    /// [`Event::ExceptionExit`].
    ExceptionExit { vector: u8 },
    /// [`Event::UserExit`].
    UserExit { by: By, word: u64 },
    /// [`Event::UserEnter`].
    UserEnter { by: By, word: u64 },
    /// [`Event::IdleEnter`].
    IdleEnter { word: u64 },
    /// [`Event::IdleExit`].
    IdleExit { word: u64 },
    /// [`Event::TickStop`]; `prevented_by`: why it did not stop.
    TickStop { prevented_by: Option<(TickDep, Scope)> },
    /// [`Event::TickRestart`]; `dep`: what needs it, where, and by whom that was set (`site`, `set_by_task`).
    TickRestart { dep: Option<(TickDep, Scope)>, site: u64, set_by_task: u32 },
    /// [`Event::IpiSend`].
    IpiSend { target_cpu: u32, cause: Cause, site: u64 },
    /// [`Event::IpiEntry`]; `sender`: CPU and task, if the sender left its name.
    IpiEntry { cause: Cause, sender: Option<(u32, u32)>, site: u64 },
    /// [`Event::IpiExit`].
    IpiExit { cause: Cause, duration_ticks: u64 },
    /// [`Event::TimerArm`]; `timer` is what tells timers apart, `function` the site that armed it or what will run.
    TimerArm { timer: u64, deadline_tsc: u64, function: u64 },
    /// [`Event::TimerCancel`].
    TimerCancel { timer: u64 },
    /// [`Event::TimerExpireEntry`].
    TimerExpireEntry { timer: u64, deadline_tsc: u64, function: u64 },
    /// [`Event::TimerExpireExit`].
    TimerExpireExit { timer: u64 },
    /// [`Event::SchedSwitch`]; the record's task is the one that leaves, `prev_state` its state's letter.
    SchedSwitch { prev_comm: [u8; 16], prev_state: u8, next: RecordTask },
    /// [`Event::SchedWakeup`].
    SchedWakeup { task: RecordTask, target_cpu: u32 },
    /// [`Event::SysEnter`] with the first arguments.
    SysEnter { number: u64, args: [u64; 4] },
    /// [`Event::SysExit`].
    SysExit { number: u64, result: i64 },
    /// [`Event::RcuGracePeriod`].
    RcuGracePeriod { sequence: u64, end: bool, expedited: bool },
    /// [`Event::WorkPosted`]: bits of `context_tracking::Deferred`, and the target's word as it was found, with WATCH clear.
    WorkPosted { target_cpu: u32, bits: u8, word: u64, site: u64 },
    /// [`Event::WorkRan`]: the bits that were found. Flush and serialisation have been done, tick and RCU are looked at next.
    WorkRan { bits: u8, word: u64 },
}

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When.
    pub tsc: u64,
    /// In what situation.
    pub flags: Flags,
    /// Id of the task that was running; 0 is an idle task. Who encodes may give an idle task's index.
    pub task: u32,
    /// What.
    pub data: Data,
}

/// Why words are no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeError {
    /// No event has this number.
    UnknownEvent(u8),
    /// Flags that no encoder sets.
    UnknownFlags(u8),
    /// An argument that no encoder gives this event.
    BadArgument(Event, u16),
    /// A word (2 to 6) that no encoder gives this event.
    BadWord(Event, usize),
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            DecodeError::UnknownEvent(number) => write!(f, "no event has the number {number}"),
            DecodeError::UnknownFlags(flags) => write!(f, "unknown flags {flags:#x}"),
            DecodeError::BadArgument(event, value) => write!(f, "{} cannot have the argument {value:#x}", event.name()),
            DecodeError::BadWord(event, word) => write!(f, "word {word} of {} cannot be so", event.name()),
        }
    }
}

/// A dependency and its scope in 16 bits; 0 is none.
#[inline]
const fn dep_argument(dep: Option<(TickDep, Scope)>) -> u16 {
    match dep {
        None => 0,
        Some((dep, scope)) => (dep.index() as u16 + 1) | (scope as u16) << 8,
    }
}

fn dep_of(argument: u16) -> Option<Option<(TickDep, Scope)>> {
    if argument == 0 {
        return Some(None);
    }
    let dep = TickDep::ALL.get(usize::from(argument & 0xff).checked_sub(1)?)?;
    let scope = Scope::ALL.get(usize::from(argument >> 8))?;
    Some(Some((*dep, *scope)))
}

/// A cause and a byte in 16 bits.
#[inline]
const fn cause_argument(cause: Cause, byte: u8) -> u16 {
    cause.code() as u16 | (byte as u16) << 8
}

#[inline]
const fn comm_words(comm: [u8; 16]) -> (u64, u64) {
    let comm = u128::from_le_bytes(comm);
    (comm as u64, (comm >> 64) as u64)
}

fn comm_of(low: u64, high: u64) -> [u8; 16] {
    (low as u128 | (high as u128) << 64).to_le_bytes()
}

/// Bit of an IPI's sender in its argument: one is given.
const SENDER_GIVEN: u8 = 1;
/// Bits of a grace period's argument.
const GP_END: u16 = 1;
const GP_EXPEDITED: u16 = 2;

impl Data {
    /// Which event it is.
    #[inline]
    pub const fn event(&self) -> Event {
        match self {
            Data::IrqEntry { .. } => Event::IrqEntry,
            Data::IrqExit { .. } => Event::IrqExit,
            Data::NmiEntry { .. } => Event::NmiEntry,
            Data::NmiExit { .. } => Event::NmiExit,
            Data::ExceptionEntry { .. } => Event::ExceptionEntry,
            Data::ExceptionExit { .. } => Event::ExceptionExit,
            Data::UserExit { .. } => Event::UserExit,
            Data::UserEnter { .. } => Event::UserEnter,
            Data::IdleEnter { .. } => Event::IdleEnter,
            Data::IdleExit { .. } => Event::IdleExit,
            Data::TickStop { .. } => Event::TickStop,
            Data::TickRestart { .. } => Event::TickRestart,
            Data::IpiSend { .. } => Event::IpiSend,
            Data::IpiEntry { .. } => Event::IpiEntry,
            Data::IpiExit { .. } => Event::IpiExit,
            Data::TimerArm { .. } => Event::TimerArm,
            Data::TimerCancel { .. } => Event::TimerCancel,
            Data::TimerExpireEntry { .. } => Event::TimerExpireEntry,
            Data::TimerExpireExit { .. } => Event::TimerExpireExit,
            Data::SchedSwitch { .. } => Event::SchedSwitch,
            Data::SchedWakeup { .. } => Event::SchedWakeup,
            Data::SysEnter { .. } => Event::SysEnter,
            Data::SysExit { .. } => Event::SysExit,
            Data::RcuGracePeriod { .. } => Event::RcuGracePeriod,
            Data::WorkPosted { .. } => Event::WorkPosted,
            Data::WorkRan { .. } => Event::WorkRan,
        }
    }

    /// Argument and words 2 to 6.
    #[inline(always)]
    const fn words(&self) -> (u16, [u64; 5]) {
        match *self {
            Data::IrqEntry { vector, cause } | Data::IrqExit { vector, cause } => {
                (cause_argument(cause, vector), [0; 5])
            }
            Data::NmiEntry { word } | Data::NmiExit { word } => (0, [word, 0, 0, 0, 0]),
            Data::ExceptionEntry { vector, address, error_code } => (vector as u16, [address, error_code, 0, 0, 0]),
            Data::ExceptionExit { vector } => (vector as u16, [0; 5]),
            Data::UserExit { by, word } | Data::UserEnter { by, word } => (by as u16, [word, 0, 0, 0, 0]),
            Data::IdleEnter { word } | Data::IdleExit { word } => (0, [word, 0, 0, 0, 0]),
            Data::TickStop { prevented_by } => (dep_argument(prevented_by), [0; 5]),
            Data::TickRestart { dep, site, set_by_task } => (dep_argument(dep), [site, set_by_task as u64, 0, 0, 0]),
            Data::IpiSend { target_cpu, cause, site } => (cause_argument(cause, 0), [target_cpu as u64, site, 0, 0, 0]),
            Data::IpiEntry { cause, sender: Some((cpu, task)), site } => {
                (cause_argument(cause, SENDER_GIVEN), [cpu as u64 | (task as u64) << 32, site, 0, 0, 0])
            }
            Data::IpiEntry { cause, sender: None, site } => (cause_argument(cause, 0), [0, site, 0, 0, 0]),
            Data::IpiExit { cause, duration_ticks } => (cause_argument(cause, 0), [duration_ticks, 0, 0, 0, 0]),
            Data::TimerArm { timer, deadline_tsc, function }
            | Data::TimerExpireEntry { timer, deadline_tsc, function } => (0, [timer, deadline_tsc, function, 0, 0]),
            Data::TimerCancel { timer } | Data::TimerExpireExit { timer } => (0, [timer, 0, 0, 0, 0]),
            Data::SchedSwitch { prev_comm, prev_state, next } => {
                let ((prev_low, prev_high), (low, high)) = (comm_words(prev_comm), comm_words(next.comm));
                (prev_state as u16, [prev_low, prev_high, low, high, next.id as u64])
            }
            Data::SchedWakeup { task, target_cpu } => {
                let (low, high) = comm_words(task.comm);
                (0, [task.id as u64 | (target_cpu as u64) << 32, low, high, 0, 0])
            }
            Data::SysEnter { number, args } => (0, [number, args[0], args[1], args[2], args[3]]),
            Data::SysExit { number, result } => (0, [number, result as u64, 0, 0, 0]),
            Data::RcuGracePeriod { sequence, end, expedited } => {
                let end = if end { GP_END } else { 0 };
                (end | if expedited { GP_EXPEDITED } else { 0 }, [sequence, 0, 0, 0, 0])
            }
            Data::WorkPosted { target_cpu, bits, word, site } => (bits as u16, [target_cpu as u64, word, site, 0, 0]),
            Data::WorkRan { bits, word } => (bits as u16, [word, 0, 0, 0, 0]),
        }
    }

    /// The data of these words, unused bits not yet looked at.
    fn of(event: Event, argument: u16, w: &[u64; 5]) -> Result<Data, DecodeError> {
        let bad = DecodeError::BadArgument(event, argument);
        let (low, high) = (argument as u8, (argument >> 8) as u8);
        let cause = || Cause::from_u8(low).ok_or(bad);
        let by = || By::ALL.get(usize::from(argument)).copied().ok_or(bad);
        let dep = || dep_of(argument).ok_or(bad);
        Ok(match event {
            Event::IrqEntry => Data::IrqEntry { vector: high, cause: cause()? },
            Event::IrqExit => Data::IrqExit { vector: high, cause: cause()? },
            Event::NmiEntry => Data::NmiEntry { word: w[0] },
            Event::NmiExit => Data::NmiExit { word: w[0] },
            Event::ExceptionEntry => Data::ExceptionEntry { vector: low, address: w[0], error_code: w[1] },
            Event::ExceptionExit => Data::ExceptionExit { vector: low },
            Event::UserExit => Data::UserExit { by: by()?, word: w[0] },
            Event::UserEnter => Data::UserEnter { by: by()?, word: w[0] },
            Event::IdleEnter => Data::IdleEnter { word: w[0] },
            Event::IdleExit => Data::IdleExit { word: w[0] },
            Event::TickStop => Data::TickStop { prevented_by: dep()? },
            Event::TickRestart => Data::TickRestart { dep: dep()?, site: w[0], set_by_task: w[1] as u32 },
            Event::IpiSend => Data::IpiSend { target_cpu: w[0] as u32, cause: cause()?, site: w[1] },
            Event::IpiEntry => {
                let sender = Some((w[0] as u32, (w[0] >> 32) as u32)).filter(|_| high & SENDER_GIVEN != 0);
                Data::IpiEntry { cause: cause()?, sender, site: w[1] }
            }
            Event::IpiExit => Data::IpiExit { cause: cause()?, duration_ticks: w[0] },
            Event::TimerArm => Data::TimerArm { timer: w[0], deadline_tsc: w[1], function: w[2] },
            Event::TimerCancel => Data::TimerCancel { timer: w[0] },
            Event::TimerExpireEntry => Data::TimerExpireEntry { timer: w[0], deadline_tsc: w[1], function: w[2] },
            Event::TimerExpireExit => Data::TimerExpireExit { timer: w[0] },
            Event::SchedSwitch => Data::SchedSwitch {
                prev_comm: comm_of(w[0], w[1]),
                prev_state: low,
                next: RecordTask { id: w[4] as u32, comm: comm_of(w[2], w[3]) },
            },
            Event::SchedWakeup => Data::SchedWakeup {
                task: RecordTask { id: w[0] as u32, comm: comm_of(w[1], w[2]) },
                target_cpu: (w[0] >> 32) as u32,
            },
            Event::SysEnter => Data::SysEnter { number: w[0], args: [w[1], w[2], w[3], w[4]] },
            Event::SysExit => Data::SysExit { number: w[0], result: w[1] as i64 },
            Event::RcuGracePeriod => Data::RcuGracePeriod {
                sequence: w[0],
                end: argument & GP_END != 0,
                expedited: argument & GP_EXPEDITED != 0,
            },
            Event::WorkPosted => Data::WorkPosted { target_cpu: w[0] as u32, bits: low, word: w[1], site: w[2] },
            Event::WorkRan => Data::WorkRan { bits: low, word: w[0] },
        })
    }
}

impl Record {
    /// The address of the site that its line names; 0: none.
    pub const fn site(&self) -> u64 {
        match self.data {
            Data::TickRestart { site, .. } | Data::IpiSend { site, .. } | Data::IpiEntry { site, .. } => site,
            Data::WorkPosted { site, .. } => site,
            Data::TimerArm { function, .. } | Data::TimerExpireEntry { function, .. } => function,
            _ => 0,
        }
    }

    /// The tasks that its line names without a name of its own for them; 0: none, or a CPU's idle task.
    pub const fn tasks(&self) -> [u32; 2] {
        let other = match self.data {
            Data::TickRestart { set_by_task, .. } => set_by_task,
            Data::IpiEntry { sender: Some((_, task)), .. } => task,
            _ => 0,
        };
        [self.task, other]
    }

    /// The tasks whose names at that time it carries.
    pub const fn named_tasks(&self) -> [Option<RecordTask>; 2] {
        match self.data {
            Data::SchedSwitch { prev_comm, next, .. } => {
                [Some(RecordTask { id: self.task, comm: prev_comm }), Some(next)]
            }
            Data::SchedWakeup { task, .. } => [Some(task), None],
            _ => [None, None],
        }
    }

    /// The seven words. Any context. An interrupt's and an IPI's cause must not be an exception.
    #[inline(always)]
    pub const fn encode(&self) -> [u64; WORDS] {
        let (argument, w) = self.data.words();
        let head = self.data.event() as u64 | (self.flags.0 as u64) << 8 | (argument as u64) << 16;
        [self.tsc, head | (self.task as u64) << 32, w[0], w[1], w[2], w[3], w[4]]
    }

    /// The record of these words.
    pub fn decode(words: &[u64; WORDS]) -> Result<Record, DecodeError> {
        let [tsc, head, w @ ..] = words;
        let event = Event::from_number(*head as u8).ok_or(DecodeError::UnknownEvent(*head as u8))?;
        let flags = (*head >> 8) as u8;
        if flags & !Flags::KNOWN != 0 {
            return Err(DecodeError::UnknownFlags(flags));
        }
        let argument = (*head >> 16) as u16;
        let data = Data::of(event, argument, w)?;
        // Whatever the encoder would not write in this place, no encoder wrote.
        let (again, same) = data.words();
        if again != argument {
            return Err(DecodeError::BadArgument(event, argument));
        }
        if let Some(i) = (0..5).find(|&i| same[i] != w[i]) {
            return Err(DecodeError::BadWord(event, i + 2));
        }
        // Idle tasks have indices, and no id of their own.
        let task = Some((*head >> 32) as u32).filter(|&index| index < FIRST_IDLE_TASK).unwrap_or(0);
        Ok(Record { tsc: *tsc, flags: Flags(flags), task, data })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_idle_task_has_no_id() {
        let of_task = |task| Record { tsc: 1, flags: Flags::NONE, task, data: Data::ExceptionExit { vector: 3 } };
        let task = |record: Record| Record::decode(&record.encode()).map(|r| r.task);
        assert_eq!(task(of_task(FIRST_IDLE_TASK + 3)), Ok(0));
        assert_eq!(task(of_task(FIRST_IDLE_TASK - 1)), Ok(FIRST_IDLE_TASK - 1));
    }

    #[test]
    fn what_a_line_names_is_known_beforehand() {
        let record = |data| Record { tsc: 0, flags: Flags::NONE, task: 7, data };
        let cause = Cause::CallFunction;
        let entry = record(Data::IpiEntry { cause, sender: Some((0, 9)), site: 64 });
        assert_eq!((entry.site(), entry.tasks(), entry.named_tasks()), (64, [7, 9], [None, None]));
        let restart = record(Data::TickRestart { dep: None, site: 80, set_by_task: 3 });
        assert_eq!((restart.site(), restart.tasks()), (80, [7, 3]));
        let (comm, next) = ([b'a'; 16], RecordTask { id: 8, comm: [b'b'; 16] });
        let switch = record(Data::SchedSwitch { prev_comm: comm, prev_state: b'S', next });
        assert_eq!((switch.site(), switch.tasks()), (0, [7, 0]));
        assert_eq!(switch.named_tasks(), [Some(RecordTask { id: 7, comm }), Some(next)]);
        let arm = record(Data::TimerArm { timer: 1, deadline_tsc: 2, function: 96 });
        assert_eq!((arm.site(), arm.named_tasks()), (96, [None, None]));
    }
}

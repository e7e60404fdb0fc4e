//! A lease: a program that is alone on an isolated CPU declares "from now on nothing". Where it stands, and what of the CPU's kernel
//! entries breaks it. What blocks one is `lease_blocker`.
//!
//! Called by the leased CPU itself, interrupts off (`kernel/src/isolation/lease.rs`). Rules:
//! 1. Free or Ended -> Requested -> Granted, or back to Free if anything blocks it. Granted -> Breached by the first breach. Both -> Ended.
//! 2. Requested, Granted and Breached are held: nothing that can be refused is started on the CPU.
//! 3. An interrupt or NMI from user mode is a breach, with all that comes before the way back. System calls and exceptions are the
//!    program's own, and breaches only by its terms; what arrives while they run finds the CPU in the kernel anyway and breaks nothing.
//! 4. A breach that could not be acted on where it was seen (an NMI) is acted on at the next entry.
//! 5. Entries count from the first way back to user mode after the grant on; what comes before that is the request's own.

use crate::interruption::Cause;
use crate::lease_page::{Contents, Last};
use core::fmt;

/// Where a lease stands; the number is the page's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum State {
    /// There was none yet, or it was refused.
    Free = 0,
    /// Asked for: what is pending is being flushed.
    Requested = 1,
    /// Held, no breach.
    Granted = 2,
    /// Held, with breaches.
    Breached = 3,
    /// Over.
    Ended = 4,
}

impl State {
    /// All, by number.
    pub const ALL: [State; 5] = [State::Free, State::Requested, State::Granted, State::Breached, State::Ended];

    /// The state of this number.
    pub const fn from_u32(number: u32) -> Option<State> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }

    /// Name as shown in files.
    pub const fn name(self) -> &'static str {
        match self {
            State::Free => "free",
            State::Requested => "requested",
            State::Granted => "granted",
            State::Breached => "breached",
            State::Ended => "ended",
        }
    }

    /// Whether entries count.
    pub const fn counts(self) -> bool {
        matches!(self, State::Granted | State::Breached)
    }
}

/// Why a lease ended; the number is the page's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum EndCause {
    /// The program said so.
    Asked = 1,
    /// The thread ended.
    Exit = 2,
    /// It became another program.
    Exec = 3,
    /// It changed its affinity.
    Affinity = 4,
    /// The first breach, by its terms.
    Breach = 5,
}

impl EndCause {
    /// The cause of this number.
    pub const fn from_u32(number: u32) -> Option<EndCause> {
        match number {
            1 => Some(EndCause::Asked),
            2 => Some(EndCause::Exit),
            3 => Some(EndCause::Exec),
            4 => Some(EndCause::Affinity),
            5 => Some(EndCause::Breach),
            _ => None,
        }
    }

    /// Name as shown in files.
    pub const fn name(self) -> &'static str {
        match self {
            EndCause::Asked => "asked",
            EndCause::Exit => "exit",
            EndCause::Exec => "exec",
            EndCause::Affinity => "affinity",
            EndCause::Breach => "breach",
        }
    }
}

/// How a CPU comes into the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// An interrupt or NMI.
    Interrupt(Cause),
    /// A fault or trap of the program.
    Exception,
    /// A system call.
    SystemCall,
}

/// Number of kinds.
pub const KINDS: usize = Cause::INTERRUPTS.len() + 2;

impl EntryKind {
    /// Its number: that of the cause, then exceptions, then system calls.
    pub const fn code(self) -> u8 {
        match self {
            EntryKind::Interrupt(cause) => cause.code(),
            EntryKind::Exception => KINDS as u8 - 2,
            EntryKind::SystemCall => KINDS as u8 - 1,
        }
    }

    /// The kind of this number.
    pub const fn from_code(code: u8) -> Option<EntryKind> {
        match Cause::from_u8(code) {
            Some(cause) => Some(EntryKind::Interrupt(cause)),
            None if code as usize == KINDS - 2 => Some(EntryKind::Exception),
            None if code as usize == KINDS - 1 => Some(EntryKind::SystemCall),
            None => None,
        }
    }

    /// Name as shown in files.
    pub const fn name(self) -> &'static str {
        match self {
            EntryKind::Interrupt(cause) => cause.name(),
            EntryKind::Exception => "exception",
            EntryKind::SystemCall => "system_call",
        }
    }

    const fn is_own(self) -> bool {
        matches!(self, EntryKind::Exception | EntryKind::SystemCall)
    }
}

/// A CPU's entry counters, by `EntryKind::code`.
pub type Counts = [u64; KINDS];

/// What a breach does to its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnBreach {
    /// It is logged, and nothing else.
    Log,
    /// The thread gets this signal.
    Signal(u8),
    /// The program is killed.
    Kill,
}

/// What a program asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// What a breach does.
    pub on_breach: OnBreach,
    /// Its own system calls and exceptions are breaches.
    pub own_too: bool,
    /// The first breach ends the lease.
    pub once: bool,
}

impl Terms {
    /// In one number: signal 7..0 (9 for kill, 0 for log), own 8, once 9.
    pub const fn bits(self) -> u32 {
        let signal = match self.on_breach {
            OnBreach::Log => 0,
            OnBreach::Signal(number) => number as u32,
            OnBreach::Kill => 9,
        };
        signal | (self.own_too as u32) << 8 | (self.once as u32) << 9
    }

    /// The terms of this number.
    pub const fn from_bits(bits: u32) -> Terms {
        let on_breach = match bits as u8 {
            0 => OnBreach::Log,
            9 => OnBreach::Kill,
            number => OnBreach::Signal(number),
        };
        Terms { on_breach, own_too: bits & 1 << 8 != 0, once: bits & 1 << 9 != 0 }
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.on_breach {
            OnBreach::Log => f.write_str("log")?,
            OnBreach::Signal(number) => write!(f, "signal_{number}")?,
            OnBreach::Kill => f.write_str("kill")?,
        }
        f.write_str(if self.own_too { "+own" } else { "" })?;
        f.write_str(if self.once { "+once" } else { "" })
    }
}

/// What is written to the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// `on [log | signal N | kill] [own] [once]`
    Begin(Terms),
    /// `off`
    End,
}

/// The request in a text; `None`: it is none.
pub fn parse(text: &str) -> Option<Request> {
    let mut words = text.split_ascii_whitespace().peekable();
    match words.next()? {
        "off" => return words.next().is_none().then_some(Request::End),
        "on" => {}
        _ => return None,
    }
    let mut terms = Terms { on_breach: OnBreach::Log, own_too: false, once: false };
    match words.peek() {
        Some(&"log") => _ = words.next(),
        Some(&"kill") => {
            let _ = words.next();
            terms.on_breach = OnBreach::Kill;
        }
        Some(&"signal") => {
            let number: u8 = words.nth(1)?.parse().ok()?;
            terms = Terms::from_bits(Some(number).filter(|n| (1..=64).contains(n))? as u32);
        }
        _ => {}
    }
    for word in words {
        let flag = match word {
            "own" => &mut terms.own_too,
            "once" => &mut terms.once,
            _ => return None,
        };
        if core::mem::replace(flag, true) {
            return None;
        }
    }
    Some(Request::Begin(terms))
}

/// Who is known to have caused an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// Its CPU.
    pub cpu: u32,
    /// Its task.
    pub task: u32,
    /// Its name, zero-padded.
    pub comm: [u8; 16],
    /// Address of its `&'static Location`.
    pub site: u64,
}

/// What the interruption log knows of one entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// By what.
    pub cause: Cause,
    /// When.
    pub tsc: u64,
    /// By whom.
    pub sender: Option<Sender>,
}

/// One breach, or several of one kind of which nothing more is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Breach {
    /// The lease that it broke.
    pub lease: u64,
    /// Which one of that lease it is; the last of several.
    pub number: u64,
    /// When; when it was noticed if nothing tells.
    pub tsc: u64,
    /// By what.
    pub kind: EntryKind,
    /// By whom, if that is known.
    pub sender: Option<Sender>,
}

/// Words of a breach in a ring.
pub const BREACH_WORDS: usize = 8;

impl Breach {
    /// As words.
    pub fn encode(&self) -> [u64; BREACH_WORDS] {
        let s = self.sender.unwrap_or(Sender { cpu: u32::MAX, task: 0, comm: [0; 16], site: 0 });
        let comm = u128::from_le_bytes(s.comm);
        let kind = self.kind.code() as u64 | (s.cpu as u64) << 32;
        [self.lease, self.number, self.tsc, kind, s.task as u64, comm as u64, (comm >> 64) as u64, s.site]
    }

    /// From words; `None` if no encoder wrote them.
    pub fn decode(words: &[u64; BREACH_WORDS]) -> Option<Breach> {
        let [lease, number, tsc, kind, task, low, high, site] = *words;
        let cpu = (kind >> 32) as u32;
        let comm = (low as u128 | (high as u128) << 64).to_le_bytes();
        let sender = (cpu != u32::MAX).then_some(Sender { cpu, task: task as u32, comm, site });
        Some(Breach { lease, number, tsc, kind: EntryKind::from_code(kind as u8)?, sender })
    }
}

/// What is to be done after entries were counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// To the program.
    pub react: Option<OnBreach>,
    /// The lease is over.
    pub ended: bool,
}

/// From where entries are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// An NMI from user mode: nobody can act on what it sees.
    Nmi,
    /// A round on the way back to user mode.
    WayOut {
        /// Of the rounds since the entry. What a later one finds came while the CPU was in the kernel, and breaks nothing.
        first: bool,
        /// User mode comes next, unless there is a breach to act on.
        last: bool,
    },
}

impl Look {
    /// The usual one: nothing else is to be done on the way.
    pub const ONLY: Look = Look::WayOut { first: true, last: true };
}

/// One CPU's lease.
#[derive(Clone, Debug)]
pub struct Lease {
    cpu: u32,
    state: State,
    terms: Terms,
    number: u64,
    holder: u32,
    end: Option<EndCause>,
    granted_tsc: u64,
    ended_tsc: u64,
    seen: Counts,
    entries: u64,
    own_entries: u64,
    breaches: u64,
    last: Option<Last>,
    /// There was a breach on which nobody could act.
    owed: bool,
    /// Granted, and not back in user mode since.
    leaving: bool,
}

impl Lease {
    /// None yet.
    pub const fn new() -> Self {
        Lease {
            cpu: 0,
            state: State::Free,
            terms: Terms { on_breach: OnBreach::Log, own_too: false, once: false },
            number: 0,
            holder: 0,
            end: None,
            granted_tsc: 0,
            ended_tsc: 0,
            seen: [0; KINDS],
            entries: 0,
            own_entries: 0,
            breaches: 0,
            last: None,
            owed: false,
            leaving: false,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Who has it, or asks for it.
    pub fn holder(&self) -> Option<u32> {
        (self.state == State::Requested || self.state.counts()).then_some(self.holder)
    }

    /// `holder` asks for it. False: somebody has it.
    #[must_use = "it may be taken"]
    pub fn request(&mut self, cpu: u32, holder: u32, terms: Terms) -> bool {
        if self.holder().is_some() {
            return false;
        }
        *self = Lease { cpu, state: State::Requested, terms, number: self.number, holder, ..Lease::new() };
        true
    }

    /// Something blocks what was requested. Without a request nothing changes.
    pub fn refuse(&mut self) {
        if self.state == State::Requested {
            self.state = State::Free;
        }
    }

    /// Nothing blocks what was requested; entries beyond `counts`, as they are on the way back to user mode, break it. False: nothing was
    /// requested.
    #[must_use = "it may not have been requested"]
    pub fn grant(&mut self, now_tsc: u64, counts: &Counts) -> bool {
        let requested = self.state == State::Requested;
        if requested {
            self.state = State::Granted;
            self.number += 1;
            self.granted_tsc = now_tsc;
            self.seen = *counts;
            self.leaving = !cfg!(mutant = "lease_counts_its_request");
        }
        requested
    }

    /// It is over. False: it was not held.
    pub fn end(&mut self, now_tsc: u64, why: EndCause) -> bool {
        let held = self.state.counts();
        if held {
            (self.state, self.end, self.ended_tsc) = (State::Ended, Some(why), now_tsc);
        }
        held
    }

    /// Count the entries since the last look. `told` is what the interruption log has of them; each breach goes to `log`.
    pub fn account(
        &mut self,
        now_tsc: u64,
        counts: &Counts,
        told: &[Told],
        look: Look,
        mut log: impl FnMut(&Breach),
    ) -> Step {
        if !self.state.counts() {
            return Step::default();
        }
        let mut new: Counts = core::array::from_fn(|i| counts[i].saturating_sub(self.seen[i]));
        self.seen = *counts;
        if self.leaving {
            self.leaving = matches!(look, Look::WayOut { last: false, .. });
            return Step::default();
        }
        let nested = matches!(look, Look::WayOut { first: false, .. }) && !cfg!(mutant = "lease_way_out_interrupted");
        let before = self.breaches;
        self.entries += new.iter().sum::<u64>();
        let own =
            [EntryKind::Exception, EntryKind::SystemCall].map(|kind| new[kind.code() as usize]).iter().sum::<u64>();
        self.own_entries += own;
        let in_own_call = own > 0 && !cfg!(mutant = "lease_own_calls_interrupted");
        for one in told.iter().filter(|_| !in_own_call && !nested) {
            let kind = EntryKind::Interrupt(one.cause);
            let left = &mut new[kind.code() as usize];
            if *left > 0 {
                *left -= 1;
                self.breach(1, one.tsc, kind, one.sender, &mut log);
            }
        }
        for (code, &count) in new.iter().enumerate() {
            let Some(kind) = EntryKind::from_code(code as u8) else { continue };
            let own_breaks = self.terms.own_too || cfg!(mutant = "lease_own_entries_break");
            let breaks = if kind.is_own() { own_breaks } else { !in_own_call };
            if count > 0 && breaks && !nested {
                self.breach(count, now_tsc, kind, None, &mut log);
            }
        }
        self.owed |= self.breaches != before;
        if !self.owed || look == Look::Nmi {
            self.owed &= !cfg!(mutant = "lease_nmi_forgotten");
            return Step::default();
        }
        self.owed = false;
        let ended = self.terms.once && self.end(now_tsc, EndCause::Breach);
        Step { react: Some(self.terms.on_breach).filter(|on| *on != OnBreach::Log), ended }
    }

    fn breach(&mut self, count: u64, tsc: u64, kind: EntryKind, sender: Option<Sender>, log: &mut impl FnMut(&Breach)) {
        self.breaches += count;
        self.state = State::Breached;
        self.last = Some(Last { tsc, kind, sender: sender.map(|s| (s.cpu, s.task, s.comm)) });
        log(&Breach { lease: self.number, number: self.breaches, tsc, kind, sender });
    }

    /// What its page says.
    pub fn contents(&self) -> Contents {
        Contents {
            state: self.state,
            cpu: self.cpu,
            number: self.number,
            holder: self.holder,
            end: self.end,
            granted_tsc: self.granted_tsc,
            ended_tsc: self.ended_tsc,
            entries: self.entries,
            own_entries: self.own_entries,
            breaches: self.breaches,
            last: self.last,
            terms: self.terms,
        }
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

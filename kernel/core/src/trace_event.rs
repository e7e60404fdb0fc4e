//! What can be traced: the events, their groups, and how `trace_event=` names them.
//!
//! Read by the sites that record (one static key per group, one mask of events per CPU), by the files in
//! /sys/kernel/tracing and by the decoder on the host. Invariants: numbers are part of the format of traces, so
//! an event keeps its number for good; names are Linux's where Linux has the event.

mod record;
mod text;

pub use record::{By, Data, DecodeError, FIRST_IDLE_TASK, Flags, Record, RecordTask, WORDS};
pub use text::{Clock, Line, Names, Site};

/// A group of events: what one static key switches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Group {
    /// Interrupts, NMIs, exceptions.
    Irq = 0,
    /// Interrupts between CPUs, and the work that waits instead.
    Ipi = 1,
    /// The tick stops and starts.
    Tick = 2,
    /// Timers.
    Timer = 3,
    /// Task switches and wake-ups.
    Sched = 4,
    /// System calls.
    Syscalls = 5,
    /// Changes of the context word.
    Context = 6,
    /// Grace periods.
    Rcu = 7,
}

/// Number of groups.
pub const NR_GROUPS: usize = 8;

impl Group {
    /// All, in the order of their numbers.
    pub const ALL: [Group; NR_GROUPS] =
        [Group::Irq, Group::Ipi, Group::Tick, Group::Timer, Group::Sched, Group::Syscalls, Group::Context, Group::Rcu];

    /// Name as in `trace_event=` and available_events.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Irq => "irq",
            Group::Ipi => "ipi",
            Group::Tick => "tick",
            Group::Timer => "timer",
            Group::Sched => "sched",
            Group::Syscalls => "syscalls",
            Group::Context => "context",
            Group::Rcu => "rcu",
        }
    }

    /// Its events, as a mask.
    pub const fn events(self) -> EventMask {
        let (mut bits, mut i) = (0, 0);
        while i < NR_EVENTS {
            if Event::ALL[i].group() as u8 == self as u8 {
                bits |= Event::ALL[i].mask().0;
            }
            i += 1;
        }
        EventMask(bits)
    }
}

/// An event; the value is its number in records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Event {
    /// An interrupt's handler begins.
    IrqEntry = 1,
    /// An interrupt's handler ends.
    IrqExit = 2,
    /// An NMI's handler begins.
    NmiEntry = 3,
    /// An NMI's handler ends.
    NmiExit = 4,
    /// An exception's handler begins.
    ExceptionEntry = 5,
    /// An exception's handler ends.
    ExceptionExit = 6,
    /// USER to KERNEL has been made.
    UserExit = 7,
    /// KERNEL to USER is about to be made.
    UserEnter = 8,
    /// KERNEL to IDLE is about to be made.
    IdleEnter = 9,
    /// IDLE to KERNEL has been made.
    IdleExit = 10,
    /// The tick stopped, or something prevented that.
    TickStop = 11,
    /// The tick runs again.
    TickRestart = 12,
    /// An IPI is about to be sent.
    IpiSend = 13,
    /// An IPI's handler begins.
    IpiEntry = 14,
    /// An IPI's handler ends.
    IpiExit = 15,
    /// A timer is armed.
    TimerArm = 16,
    /// A timer is cancelled.
    TimerCancel = 17,
    /// A timer's function begins.
    TimerExpireEntry = 18,
    /// A timer's function ends.
    TimerExpireExit = 19,
    /// Another task runs.
    SchedSwitch = 20,
    /// A task is made runnable.
    SchedWakeup = 21,
    /// A system call begins.
    SysEnter = 22,
    /// A system call ends.
    SysExit = 23,
    /// A grace period begins or ends.
    RcuGracePeriod = 24,
    /// Work was left in another CPU's word, which is an IPI that is not sent.
    WorkPosted = 25,
    /// A CPU that came into the kernel found work in its word.
    WorkRan = 26,
}

/// Number of events.
pub const NR_EVENTS: usize = 26;

// An event's bit fits an EventMask, and `Event::ALL` is in the order of the numbers.
const _: () = {
    let mut i = 0;
    while i < NR_EVENTS {
        assert!(Event::ALL[i] as usize == i + 1 && i + 1 < 32);
        i += 1;
    }
};

impl Event {
    /// All, in the order of their numbers (from 1).
    pub const ALL: [Event; NR_EVENTS] = [
        Event::IrqEntry,
        Event::IrqExit,
        Event::NmiEntry,
        Event::NmiExit,
        Event::ExceptionEntry,
        Event::ExceptionExit,
        Event::UserExit,
        Event::UserEnter,
        Event::IdleEnter,
        Event::IdleExit,
        Event::TickStop,
        Event::TickRestart,
        Event::IpiSend,
        Event::IpiEntry,
        Event::IpiExit,
        Event::TimerArm,
        Event::TimerCancel,
        Event::TimerExpireEntry,
        Event::TimerExpireExit,
        Event::SchedSwitch,
        Event::SchedWakeup,
        Event::SysEnter,
        Event::SysExit,
        Event::RcuGracePeriod,
        Event::WorkPosted,
        Event::WorkRan,
    ];

    /// The event with this number.
    pub const fn from_number(number: u8) -> Option<Event> {
        if number >= 1 && number as usize <= NR_EVENTS { Some(Self::ALL[number as usize - 1]) } else { None }
    }

    /// Its group.
    pub const fn group(self) -> Group {
        match self {
            Event::IrqEntry | Event::IrqExit | Event::NmiEntry | Event::NmiExit => Group::Irq,
            Event::ExceptionEntry | Event::ExceptionExit => Group::Irq,
            Event::UserExit | Event::UserEnter | Event::IdleEnter | Event::IdleExit => Group::Context,
            Event::TickStop | Event::TickRestart => Group::Tick,
            Event::IpiSend | Event::IpiEntry | Event::IpiExit => Group::Ipi,
            Event::TimerArm | Event::TimerCancel | Event::TimerExpireEntry | Event::TimerExpireExit => Group::Timer,
            Event::SchedSwitch | Event::SchedWakeup => Group::Sched,
            Event::SysEnter | Event::SysExit => Group::Syscalls,
            Event::RcuGracePeriod => Group::Rcu,
            Event::WorkPosted | Event::WorkRan => Group::Ipi,
        }
    }

    /// Name as in traces and `trace_event=`.
    pub const fn name(self) -> &'static str {
        match self {
            Event::IrqEntry => "irq_entry",
            Event::IrqExit => "irq_exit",
            Event::NmiEntry => "nmi_entry",
            Event::NmiExit => "nmi_exit",
            Event::ExceptionEntry => "exception_entry",
            Event::ExceptionExit => "exception_exit",
            Event::UserExit => "user_exit",
            Event::UserEnter => "user_enter",
            Event::IdleEnter => "idle_enter",
            Event::IdleExit => "idle_exit",
            Event::TickStop => "tick_stop",
            Event::TickRestart => "tick_restart",
            Event::IpiSend => "ipi_send_cpu",
            Event::IpiEntry => "ipi_entry",
            Event::IpiExit => "ipi_exit",
            Event::TimerArm => "hrtimer_start",
            Event::TimerCancel => "hrtimer_cancel",
            Event::TimerExpireEntry => "hrtimer_expire_entry",
            Event::TimerExpireExit => "hrtimer_expire_exit",
            Event::SchedSwitch => "sched_switch",
            Event::SchedWakeup => "sched_wakeup",
            Event::SysEnter => "sys_enter",
            Event::SysExit => "sys_exit",
            Event::RcuGracePeriod => "rcu_grace_period",
            Event::WorkPosted => "work_posted",
            Event::WorkRan => "work_ran",
        }
    }

    /// It alone, as a mask.
    #[inline]
    pub const fn mask(self) -> EventMask {
        EventMask(1 << self as u8)
    }
}

/// A set of events: bit n is the event with number n.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EventMask(pub u32);

impl EventMask {
    /// No event.
    pub const NONE: EventMask = EventMask(0);
    /// Every event.
    pub const ALL: EventMask = EventMask(((1 << NR_EVENTS) - 1) << 1);

    /// Whether `event` is in it.
    #[inline]
    pub const fn contains(self, event: Event) -> bool {
        self.0 & event.mask().0 != 0
    }

    /// What is in either.
    #[inline]
    pub const fn union(self, other: EventMask) -> EventMask {
        EventMask(self.0 | other.0)
    }

    /// Whether nothing is in it.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether an event of `group` is in it: then the group's key is on.
    #[inline]
    pub const fn has_group(self, group: Group) -> bool {
        self.0 & group.events().0 != 0
    }

    /// Its events, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Event> {
        Event::ALL.into_iter().filter(move |&event| self.contains(event))
    }

    /// What one word of `trace_event=` or set_event names: `group`, `group:event`, `group:*`, `event`, `*` or `*:*`;
    /// `None`: nothing has this name.
    pub fn named(word: &str) -> Option<EventMask> {
        if word == "*" {
            return Some(Self::ALL);
        }
        if let Some((group, event)) = word.split_once(':') {
            let within = if group == "*" { Self::ALL } else { Self::group_named(group)? };
            let events = if event == "*" { Self::ALL } else { Self::event_named(event)? };
            return Some(EventMask(within.0 & events.0)).filter(|mask| !mask.is_empty());
        }
        Self::group_named(word).or_else(|| Self::event_named(word))
    }

    fn group_named(name: &str) -> Option<EventMask> {
        Group::ALL.into_iter().find(|group| group.name() == name).map(Group::events)
    }

    fn event_named(name: &str) -> Option<EventMask> {
        Event::ALL.into_iter().find(|event| event.name() == name).map(Event::mask)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_own_number_and_name_and_a_group() {
        for event in Event::ALL {
            assert_eq!(Event::from_number(event as u8), Some(event));
            assert_eq!(Event::ALL.iter().filter(|other| other.name() == event.name()).count(), 1);
            assert!(Group::ALL.iter().all(|group| group.name() != event.name()));
            assert!(event.group().events().contains(event));
        }
        assert_eq!((Event::from_number(0), Event::from_number(NR_EVENTS as u8 + 1)), (None, None));
        let all = Group::ALL.iter().fold(EventMask::NONE, |mask, group| mask.union(group.events()));
        assert_eq!(all, EventMask::ALL);
        assert_eq!(all.iter().count(), NR_EVENTS);
    }

    #[test]
    fn words_name_groups_and_events() {
        let named = EventMask::named;
        assert_eq!(named("tick"), Some(EventMask(1 << 11 | 1 << 12)));
        assert_eq!(named("sched:sched_switch"), Some(Event::SchedSwitch.mask()));
        assert_eq!(named("hrtimer_start"), Some(Event::TimerArm.mask()));
        assert_eq!((named("rcu:*"), named("*:*")), (Some(Event::RcuGracePeriod.mask()), Some(EventMask::ALL)));
        assert_eq!(
            (named("irq:sched_switch"), named("irqs"), named(""), named(":"), named("irq:")),
            Default::default()
        );
        assert!(named("ipi_exit").is_some_and(|mask| mask.has_group(Group::Ipi) && !mask.has_group(Group::Irq)));
    }
}

//! The keys of trace points, switched on at boot by what `trace_event=` names, and later by set_event. Which events a CPU
//! records is its own mask (`trace::rings`).
//!
//! A key stands for a place, not for an event: a path of entry code has one site however many events are recorded there.

use crate::static_key::{self, StaticKey, enable_alone};
use kcore::static_key::PatchError;
use kcore::trace_event::{Event, EventMask, Group};

/// Interrupt handlers: interrupts, IPIs received, user_exit by an interrupt, and the interruption log.
pub static INTERRUPTS: StaticKey = StaticKey::new();
/// Interruptions of isolated CPUs go into their log.
pub static INTERRUPTIONS: StaticKey = StaticKey::new();
/// Senders of reschedule IPIs leave their name.
pub static SENDERS: StaticKey = StaticKey::new();
/// NMIs.
pub static NMI: StaticKey = StaticKey::new();
/// Exceptions.
pub static EXCEPTIONS: StaticKey = StaticKey::new();
/// System calls: entry and exit, user_exit and user_enter by them.
#[unsafe(no_mangle)]
pub static TRACE_SYSCALLS: StaticKey = StaticKey::new();
/// Ways out to user mode, and idle.
#[unsafe(no_mangle)]
pub static TRACE_CONTEXT: StaticKey = StaticKey::new();
/// IPIs sent.
pub static IPI_SEND: StaticKey = StaticKey::new();
/// Work left for other CPUs, and found.
pub static WORK: StaticKey = StaticKey::new();
/// The tick.
pub static TICK: StaticKey = StaticKey::new();
/// Timers.
pub static TIMER: StaticKey = StaticKey::new();
/// Switches and wake-ups.
pub static SCHED: StaticKey = StaticKey::new();
/// Grace periods.
pub static RCU: StaticKey = StaticKey::new();

const fn events(list: &[Event]) -> EventMask {
    let (mut mask, mut i) = (EventMask::NONE, 0);
    while i < list.len() {
        mask = mask.union(list[i].mask());
        i += 1;
    }
    mask
}

/// Which events switch which key on.
const KEYS: [(&StaticKey, EventMask); 12] = [
    (
        &INTERRUPTS,
        events(&[Event::IrqEntry, Event::IrqExit, Event::IpiEntry, Event::IpiExit, Event::UserExit, Event::IdleExit]),
    ),
    (&SENDERS, events(&[Event::IpiEntry])),
    (&NMI, events(&[Event::NmiEntry, Event::NmiExit])),
    (&EXCEPTIONS, events(&[Event::ExceptionEntry, Event::ExceptionExit, Event::UserExit])),
    (&TRACE_SYSCALLS, Group::Syscalls.events().union(events(&[Event::UserExit, Event::UserEnter]))),
    (&TRACE_CONTEXT, events(&[Event::UserEnter, Event::IdleEnter, Event::IdleExit])),
    (&IPI_SEND, events(&[Event::IpiSend])),
    (&WORK, events(&[Event::WorkPosted, Event::WorkRan])),
    (&TICK, Group::Tick.events()),
    (&TIMER, Group::Timer.events()),
    (&SCHED, Group::Sched.events()),
    (&RCU, Group::Rcu.events()),
];

/// Keys of the interruption log.
const INTERRUPTION_KEYS: [&StaticKey; 4] = [&INTERRUPTS, &INTERRUPTIONS, &SENDERS, &NMI];

/// Keys with sites in entry text or on an NMI's way: switched at boot or never.
const BOOT_ONLY: [&StaticKey; 4] = [&TRACE_SYSCALLS, &TRACE_CONTEXT, &NMI, &INTERRUPTIONS];

fn is_boot_only(key: &StaticKey) -> bool {
    BOOT_ONLY.iter().any(|k| core::ptr::eq(*k, key))
}

/// Of `selected`, the events that cannot be recorded because a key of theirs is off and switched at boot alone.
pub fn out_of_reach(selected: EventMask) -> EventMask {
    let shut = KEYS.into_iter().filter(|(key, _)| is_boot_only(key) && !key.is_on());
    EventMask(shut.fold(0, |events, (_, of_key)| events | of_key.0 & selected.0))
}

/// Switch the keys of `selected` on and all others off, while all CPUs run; those of the interruption log stay as they are. Process
/// context, interrupts on, one at a time. Gives the number of sites patched.
pub fn switch(selected: EventMask) -> Result<usize, PatchError> {
    let logged = |key: &StaticKey| INTERRUPTIONS.is_on() && INTERRUPTION_KEYS.iter().any(|k| core::ptr::eq(*k, key));
    let mut sites = 0;
    for (key, events) in KEYS {
        let wanted = events.0 & selected.0 != 0 || logged(key);
        if wanted != key.is_on() && !is_boot_only(key) {
            sites += static_key::set(key, wanted)?;
        }
    }
    Ok(sites)
}

/// Switch the keys of `selected` on, and those of the interruption log if it is kept. Boot CPU, interrupts off; gives the
/// number of sites patched.
///
/// # Safety
/// No other CPU runs kernel text.
pub unsafe fn enable(selected: EventMask, interruptions: bool) -> Result<usize, PatchError> {
    let traced = KEYS.into_iter().filter(|(_, events)| events.0 & selected.0 != 0).map(|(key, _)| key);
    let logged = INTERRUPTION_KEYS.into_iter().filter(|_| interruptions);
    let mut sites = 0;
    for key in traced.chain(logged) {
        if !key.is_on() {
            // SAFETY: the caller's condition.
            sites += unsafe { enable_alone(key) }?;
        }
    }
    Ok(sites)
}

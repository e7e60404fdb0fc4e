//! The ledger of IPIs: who interrupted whom, why and from where, and how many interruptions deferral saved.
//!
//! Each CPU keeps one of what it sent; only that CPU writes it, with interrupts off, so that nothing on the way of an
//! IPI is shared between senders. Anyone reads it. Invariants:
//! 1. Every IPI has a cause, and every cause a name ([`IpiCause`] is made by one list of both).
//!    The list also says what becomes of it if the target is leased: a new cause does not compile without that.
//! 2. No IPI is forgotten: what finds no line of its own is counted in the line of its cause.
//! 3. A reader sees each count whole; counts of one line may be a moment apart.

use crate::atomics::{AtomicU32, AtomicU64, Ordering};

/// What becomes of an IPI whose target is leased (`crate::lease`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnderLease {
    /// It is not sent: its caller gets EBUSY.
    Refused,
    /// Its work waits in the target's word; it is sent only while the target runs kernel code, which the holder called.
    Deferred,
    /// It is sent, and breaks the lease.
    Unavoidable,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $under_lease:ident;)+) => {
        /// Why a CPU is interrupted by another one.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum IpiCause {
            $($(#[$doc])* $variant,)+
        }

        impl IpiCause {
            /// All, in order of their codes.
            pub const ALL: [IpiCause; [$($name),+].len()] = [$(IpiCause::$variant),+];

            /// Name as shown in files.
            pub const fn name(self) -> &'static str {
                match self {
                    $(IpiCause::$variant => $name,)+
                }
            }

            /// What becomes of it if the target is leased.
            #[inline]
            pub const fn under_lease(self) -> UnderLease {
                match self {
                    $(IpiCause::$variant => UnderLease::$under_lease,)+
                }
            }
        }
    };
}

causes! {
    /// A task was woken there that runs before the present one. On a leased CPU: the holder itself, which slept.
    Wakeup = "wakeup", Unavoidable;
    /// A class or an affinity changed: the CPU schedules.
    Reschedule = "reschedule", Refused;
    /// A tick dependency was set.
    TickSet = "tick_set", Refused;
    /// A tick dependency was cleared, and nothing may be deferred.
    TickRecheck = "tick_recheck", Deferred;
    /// A signal for the running task.
    Signal = "signal", Unavoidable;
    /// The running task has a tracer now.
    Ptrace = "ptrace", Unavoidable;
    /// User addresses were unmapped or lost rights.
    UserTlbFlush = "user_tlb_flush", Unavoidable;
    /// Kernel addresses were unmapped.
    KernelTlbFlush = "kernel_tlb_flush", Deferred;
    /// The instruction stream has to be serialised: kernel text changed.
    SyncCore = "sync_core", Deferred;
    /// membarrier(2).
    Membarrier = "membarrier", Refused;
    /// A grace period waits for the CPU.
    RcuHoldout = "rcu_holdout", Deferred;
    /// An expedited grace period waits for the CPU.
    RcuExpedited = "rcu_expedited", Deferred;
    /// The stall detector wants a stack: of a CPU that has run kernel code for too long.
    RcuStall = "rcu_stall", Unavoidable;
    /// The CPU becomes one that is left alone, or one like any other.
    Isolate = "isolate", Refused;
    /// Asked for through /sys.
    Injected = "injected", Unavoidable;
    /// The machine stops.
    Stop = "stop", Unavoidable;
    /// An NMI asked for through /sys.
    InjectedNmi = "injected_nmi", Refused;
}

impl IpiCause {
    /// Its place in [`IpiCause::ALL`].
    #[inline]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The cause with this code.
    pub const fn from_code(code: u8) -> Option<IpiCause> {
        if (code as usize) < Self::ALL.len() { Some(Self::ALL[code as usize]) } else { None }
    }
}

/// Lines of one ledger.
pub const LINES: usize = 64;
/// Places that are tried for a line.
const PROBES: usize = 8;

/// One IPI that is sent, or that is not because its work was left in the target's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item {
    /// Whom.
    pub target: u32,
    /// Why.
    pub cause: IpiCause,
    /// Address of the `&'static Location` that asked; not 0.
    pub site: u64,
    /// The task that asked.
    pub task: u32,
    /// Its name, zero-padded.
    pub comm: [u8; 16],
}

/// What a ledger says of one target, cause and site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line {
    /// The last item of it; `None`: the sum of items that found no line, and then `cause` alone is known.
    pub last: Option<Item>,
    /// Why.
    pub cause: IpiCause,
    /// IPIs sent.
    pub sent: u64,
    /// IPIs avoided: the work was left for the target's next entry.
    pub avoided: u64,
}

#[derive(Debug)]
struct Slot {
    /// 0: free. Else `key_of` of its items; written last when it is taken, and never again.
    key: AtomicU64,
    site: AtomicU64,
    task: AtomicU32,
    comm: [AtomicU64; 2],
    sent: AtomicU64,
    avoided: AtomicU64,
}

/// What one CPU sent and avoided.
#[derive(Debug)]
pub struct Ledger {
    slots: [Slot; LINES],
    /// By cause: what found no line, sent and avoided.
    others: [[AtomicU64; 2]; IpiCause::ALL.len()],
}

#[inline]
const fn key_of(item: &Item) -> u64 {
    ((item.target as u64) << 32) | (item.cause.code() as u64 + 1)
}

#[inline]
fn add_one(counter: &AtomicU64) {
    // Its only writer is this CPU, interrupts off: no locked instruction is needed.
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Ledger {
    /// Nothing sent.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Ledger {
            slots: [const {
                Slot {
                    key: AtomicU64::new(0),
                    site: AtomicU64::new(0),
                    task: AtomicU32::new(0),
                    comm: [const { AtomicU64::new(0) }; 2],
                    sent: AtomicU64::new(0),
                    avoided: AtomicU64::new(0),
                }
            }; LINES],
            others: [const { [const { AtomicU64::new(0) }; 2] }; IpiCause::ALL.len()],
        }
    }

    /// Nothing sent.
    #[cfg(loom)]
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        let slot = || Slot {
            key: zero(),
            site: zero(),
            task: AtomicU32::new(0),
            comm: [zero(), zero()],
            sent: zero(),
            avoided: zero(),
        };
        Ledger { slots: core::array::from_fn(|_| slot()), others: core::array::from_fn(|_| [zero(), zero()]) }
    }

    /// One IPI is about to be sent. Own CPU, interrupts off.
    #[inline]
    pub fn sent(&self, item: &Item) {
        match self.slot(item) {
            Some(slot) => add_one(&slot.sent),
            None => add_one(&self.others[item.cause.code() as usize][0]),
        }
    }

    /// One IPI is not sent: its work was left in the target's word. Own CPU, interrupts off.
    #[inline]
    pub fn avoided(&self, item: &Item) {
        match self.slot(item) {
            Some(slot) => add_one(&slot.avoided),
            None => add_one(&self.others[item.cause.code() as usize][1]),
        }
    }

    /// The line of `item`, taken if it is new; `None`: there is no room.
    fn slot(&self, item: &Item) -> Option<&Slot> {
        let key = key_of(item);
        let start = ((key ^ item.site >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize;
        let mut probes = (0..PROBES).map(|probe| &self.slots[(start + probe) % LINES]);
        let slot = probes.find(|slot| match slot.key.load(Ordering::Relaxed) {
            0 => true,
            found => found == key && slot.site.load(Ordering::Relaxed) == item.site,
        })?;
        slot.task.store(item.task, Ordering::Relaxed);
        let comm = u128::from_le_bytes(item.comm);
        slot.comm[0].store(comm as u64, Ordering::Relaxed);
        slot.comm[1].store((comm >> 64) as u64, Ordering::Relaxed);
        if slot.key.load(Ordering::Relaxed) == 0 {
            slot.site.store(item.site, Ordering::Relaxed);
            // Last: who sees the key sees the site.
            slot.key.store(key, Ordering::Release);
        }
        Some(slot)
    }

    /// All lines, those without a target last. Anyone.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let own = self.slots.iter().filter_map(|slot| {
            let key = slot.key.load(Ordering::Acquire);
            let cause = IpiCause::from_code((key as u8).checked_sub(1)?)?;
            let comm =
                slot.comm[0].load(Ordering::Relaxed) as u128 | (slot.comm[1].load(Ordering::Relaxed) as u128) << 64;
            let last = Item {
                target: (key >> 32) as u32,
                cause,
                site: slot.site.load(Ordering::Relaxed),
                task: slot.task.load(Ordering::Relaxed),
                comm: comm.to_le_bytes(),
            };
            let (sent, avoided) = (slot.sent.load(Ordering::Relaxed), slot.avoided.load(Ordering::Relaxed));
            Some(Line { last: Some(last), cause, sent, avoided })
        });
        let others = IpiCause::ALL.into_iter().zip(&self.others).filter_map(|(cause, [sent, avoided])| {
            let (sent, avoided) = (sent.load(Ordering::Relaxed), avoided.load(Ordering::Relaxed));
            (sent + avoided != 0).then_some(Line { last: None, cause, sent, avoided })
        });
        own.chain(others)
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn item(target: u32, cause: IpiCause, site: u64) -> Item {
        Item { target, cause, site, task: 7, comm: *b"busy\0\0\0\0\0\0\0\0\0\0\0\0" }
    }

    #[test]
    fn names_and_codes_are_each_ones_own() {
        for (code, cause) in IpiCause::ALL.into_iter().enumerate() {
            assert_eq!((cause.code() as usize, IpiCause::from_code(code as u8)), (code, Some(cause)));
            assert_eq!(IpiCause::ALL.iter().filter(|other| other.name() == cause.name()).count(), 1);
        }
        assert_eq!(IpiCause::from_code(IpiCause::ALL.len() as u8), None);
    }

    #[test]
    fn lines_are_by_target_cause_and_site() {
        let ledger = Ledger::new();
        let (a, b) = (item(0, IpiCause::Wakeup, 8), item(0, IpiCause::Wakeup, 16));
        ledger.sent(&a);
        ledger.sent(&a);
        ledger.sent(&b);
        ledger.avoided(&item(3, IpiCause::KernelTlbFlush, 8));
        let mut lines: Vec<_> =
            ledger.lines().map(|l| (l.last.map(|i| (i.target, i.site)), l.sent, l.avoided)).collect();
        lines.sort();
        assert_eq!(lines, [(Some((0, 8)), 2, 0), (Some((0, 16)), 1, 0), (Some((3, 8)), 0, 1)]);
        assert_eq!(ledger.lines().next().and_then(|l| l.last).map(|i| (i.task, i.comm)), Some((7, a.comm)));
    }

    #[test]
    fn nothing_is_forgotten_when_all_lines_are_taken() {
        let ledger = Ledger::new();
        for site in 1..=500 {
            ledger.sent(&item(site as u32 % 5, IpiCause::Signal, site * 8));
            ledger.avoided(&item(1, IpiCause::SyncCore, site * 8));
        }
        let sum = |f: fn(&Line) -> u64| ledger.lines().map(|l| f(&l)).sum::<u64>();
        assert_eq!((sum(|l| l.sent), sum(|l| l.avoided)), (500, 500));
        assert!(ledger.lines().filter(|l| l.last.is_some()).count() > LINES / 2);
        assert!(ledger.lines().any(|l| l.last.is_none() && l.cause == IpiCause::Signal && l.sent > 0));
    }
}

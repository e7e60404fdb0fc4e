//! The context word: one `u64` per CPU that says what the CPU is doing, what it owes, and what RCU may assume.
//!
//! ```text
//!  63                      17   16    15        8 7        2 1   0
//! +---------------------------+-----+-----------+----------+-----+
//! |   counter                 |WATCH|  deferred | reserved |state|
//! +---------------------------+-----+-----------+----------+-----+
//!   state    KERNEL 0, USER 1, IDLE 2, GUEST 3 (reserved); for people and for the checker
//!   reserved zero
//!   deferred work that others left for the next entry to the kernel ([`Deferred`])
//!   WATCH    1 = RCU must watch this CPU. It is the lowest bit of the counter, so every transition, NMIs
//!            included, adds 1 at bit 16 and toggles it.
//!
//!              user_enter                     idle_enter
//!          +---------------- KERNEL, WATCH ----------------+
//!          v      user_exit   ^         ^   idle_exit      v
//!      USER, no WATCH --------+         +-------- IDLE, no WATCH
//!          |  ^                                      |  ^
//! nmi_enter|  |nmi_exit                     nmi_enter|  |nmi_exit      (state unchanged, deferred bits stay)
//!          v  |                                      v  |
//!      USER, WATCH                              IDLE, WATCH
//! ```
//! Who may call what: the transitions are called by their own CPU only, with interrupts off; `post` and `load`
//! by anyone. Invariants:
//! 1. WATCH is set whenever kernel code that RCU or deferred work matters to may run. Everyone who posts or
//!    waits tests WATCH, never the state: in an NMI from user mode the state still reads USER.
//! 2. A bit is posted only while WATCH is clear. So from user_exit on no bit can come, and the word that
//!    user_exit returned names all of them.
//! 3. Work is run first, its bits are cleared after: an NMI in between sees them and does it too.
//! 4. A bit posted is run before any kernel code that depends on it, or an IPI was sent; never neither.

use crate::atomics::{AtomicU64, Ordering, const_unless_loom, rmw_full_add, rmw_made_full};

/// Bits 0-1: the state.
pub const STATE_MASK: u64 = 0x3;
/// Bits 2-7: always zero.
pub const RESERVED_MASK: u64 = 0xfc;
/// Lowest bit of the deferred field.
pub const DEFERRED_SHIFT: u32 = 8;
/// Bits 8-15: work left by others.
pub const DEFERRED_MASK: u64 = 0xff << DEFERRED_SHIFT;
/// Lowest bit of the counter, WATCH included.
pub const COUNTER_SHIFT: u32 = 16;
/// Bit 16: RCU must watch this CPU.
pub const WATCH: u64 = 1 << COUNTER_SHIFT;
/// Bits 16-63: the counter, WATCH included.
pub const COUNTER_MASK: u64 = !0 << COUNTER_SHIFT;
/// State, reserved, deferred and WATCH: all that a transition has to look at.
pub const LOW_MASK: u64 = STATE_MASK | RESERVED_MASK | DEFERRED_MASK | WATCH;
/// Width of the counter in the kernel; tests take 2.
pub const COUNTER_BITS: u32 = 48;

/// How often a post is tried on a CPU whose state is USER or IDLE with WATCH set: an NMI there ends soon, or the CPU
/// is on its way and its IPI will hit the kernel.
pub const NMI_TRIES: u32 = 200;

/// Added at KERNEL to USER.
pub const USER_ENTER_DELTA: u64 = WATCH + State::User as u64;
/// Added at USER to KERNEL.
pub const USER_EXIT_DELTA: u64 = WATCH - State::User as u64;
/// Added at KERNEL to IDLE.
pub const IDLE_ENTER_DELTA: u64 = WATCH + State::Idle as u64;
/// Added at IDLE to KERNEL.
pub const IDLE_EXIT_DELTA: u64 = WATCH - State::Idle as u64;
/// Added at NMI entry if WATCH was clear, and again at the end of such an NMI.
pub const NMI_DELTA: u64 = WATCH;

/// `old & LOW_MASK` of a legal user_exit with nothing posted: USER, unwatched.
pub const USER_EXPECTED: u64 = State::User as u64;
/// `old & LOW_MASK` of a legal idle_exit with nothing posted: IDLE, unwatched.
pub const IDLE_EXPECTED: u64 = State::Idle as u64;
/// `old & LOW_MASK` of a legal user_enter or idle_enter: KERNEL, watched, nothing left undone.
pub const KERNEL_EXPECTED: u64 = State::Kernel as u64 | WATCH;
/// The word of a CPU that starts: in the kernel, watched.
pub const INITIAL: u64 = KERNEL_EXPECTED;

// The fields fill the word and do not overlap.
const _: () = assert!(STATE_MASK ^ RESERVED_MASK ^ DEFERRED_MASK ^ COUNTER_MASK == !0);
const _: () = assert!(STATE_MASK + RESERVED_MASK + DEFERRED_MASK == WATCH - 1);
const _: () = assert!(LOW_MASK == 0x1_ffff && COUNTER_SHIFT + COUNTER_BITS == 64);
// The deltas do what they say, and fit the sign-extended 32-bit immediates of assembly.
const _: () = assert!((KERNEL_EXPECTED + USER_ENTER_DELTA) & LOW_MASK == USER_EXPECTED);
const _: () = assert!((USER_EXPECTED + USER_EXIT_DELTA) & LOW_MASK == KERNEL_EXPECTED);
const _: () = assert!((KERNEL_EXPECTED + IDLE_ENTER_DELTA) & LOW_MASK == IDLE_EXPECTED);
const _: () = assert!((IDLE_EXPECTED + IDLE_EXIT_DELTA) & LOW_MASK == KERNEL_EXPECTED);
const _: () = assert!((USER_EXPECTED + NMI_DELTA) & LOW_MASK == USER_EXPECTED | WATCH);
const _: () = assert!(USER_ENTER_DELTA <= i32::MAX as u64);
const _: () = assert!(IDLE_ENTER_DELTA <= i32::MAX as u64);
const _: () = assert!(Deferred::ALL as u64 <= DEFERRED_MASK >> DEFERRED_SHIFT);

/// What the CPU is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Kernel code of a task, an interrupt or a system call.
    Kernel = 0,
    /// User mode; also during an NMI from there.
    User = 1,
    /// The idle loop with its CPU halted or about to.
    Idle = 2,
    /// Reserved.
    Guest = 3,
}

impl State {
    /// The state of a word.
    #[inline]
    pub const fn of(word: u64) -> State {
        match word & STATE_MASK {
            0 => State::Kernel,
            1 => State::User,
            2 => State::Idle,
            _ => State::Guest,
        }
    }

    /// Name as shown in files: kernel, user, idle, guest.
    pub const fn name(self) -> &'static str {
        match self {
            State::Kernel => "kernel",
            State::User => "user",
            State::Idle => "idle",
            State::Guest => "guest",
        }
    }
}

/// Work that may wait for the next kernel entry. Every item is idempotent, non-blocking, NMI-safe and without
/// payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Deferred {
    /// Flush the kernel half of the TLB, globals included.
    FlushKernelTlb = 1 << 0,
    /// Serialise the instruction stream.
    SyncCore = 1 << 1,
    /// Look again at a tick dependency that was cleared.
    TickRecheck = 1 << 2,
    /// Look again at what RCU wants.
    RcuRecheck = 1 << 3,
}

impl Deferred {
    /// Bit of [`Deferred::FlushKernelTlb`].
    pub const FLUSH_KERNEL_TLB: u8 = Deferred::FlushKernelTlb as u8;
    /// Bit of [`Deferred::SyncCore`].
    pub const SYNC_CORE: u8 = Deferred::SyncCore as u8;
    /// Bit of [`Deferred::TickRecheck`].
    pub const TICK_RECHECK: u8 = Deferred::TickRecheck as u8;
    /// Bit of [`Deferred::RcuRecheck`].
    pub const RCU_RECHECK: u8 = Deferred::RcuRecheck as u8;
    /// All bits that have a meaning.
    pub const ALL: u8 = Self::FLUSH_KERNEL_TLB | Self::SYNC_CORE | Self::TICK_RECHECK | Self::RCU_RECHECK;
    /// The bits that an NMI, #DB or #MC does when it finds them (it clears nothing).
    pub const IN_NMI: u8 = Self::FLUSH_KERNEL_TLB | Self::SYNC_CORE;

    /// All of them.
    pub const EACH: [Deferred; 4] =
        [Deferred::FlushKernelTlb, Deferred::SyncCore, Deferred::TickRecheck, Deferred::RcuRecheck];

    /// Name as in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Deferred::FlushKernelTlb => "kernel_tlb_flush",
            Deferred::SyncCore => "sync_core",
            Deferred::TickRecheck => "tick_recheck",
            Deferred::RcuRecheck => "rcu_recheck",
        }
    }

    /// The bit.
    #[inline]
    pub const fn bit(self) -> u8 {
        self as u8
    }
}

/// The four transitions a CPU makes by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// KERNEL to USER.
    UserEnter,
    /// USER to KERNEL.
    UserExit,
    /// KERNEL to IDLE.
    IdleEnter,
    /// IDLE to KERNEL.
    IdleExit,
}

impl Step {
    /// What is added to the word.
    #[inline]
    pub const fn delta(self) -> u64 {
        match self {
            Step::UserEnter => USER_ENTER_DELTA,
            Step::UserExit => USER_EXIT_DELTA,
            Step::IdleEnter => IDLE_ENTER_DELTA,
            Step::IdleExit => IDLE_EXIT_DELTA,
        }
    }

    /// `old & LOW_MASK` of the legal transition with nothing posted.
    #[inline]
    pub const fn expected(self) -> u64 {
        match self {
            Step::UserEnter | Step::IdleEnter => KERNEL_EXPECTED,
            Step::UserExit => USER_EXPECTED,
            Step::IdleExit => IDLE_EXPECTED,
        }
    }

    /// Name as in traces.
    pub const fn name(self) -> &'static str {
        match self {
            Step::UserEnter => "user_enter",
            Step::UserExit => "user_exit",
            Step::IdleEnter => "idle_enter",
            Step::IdleExit => "idle_exit",
        }
    }
}

/// An illegal transition: which, and from what word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Illegal {
    /// The transition that was made.
    pub step: Step,
    /// The word it found.
    pub old: u64,
}

/// The rule of all transitions: the deferred bits that were posted, or why it is illegal. On the way out of
/// the kernel nothing may be left posted.
#[inline]
pub const fn check(step: Step, old: u64) -> Result<u8, Illegal> {
    let low = old & LOW_MASK;
    let expected = step.expected();
    if low == expected {
        return Ok(0);
    }
    match step {
        Step::UserExit | Step::IdleExit if low & !DEFERRED_MASK == expected => Ok(deferred(old)),
        _ => Err(Illegal { step, old }),
    }
}

/// Rule of user_enter: KERNEL, watched, nothing posted.
#[inline]
pub const fn check_user_enter(old: u64) -> Result<u8, Illegal> {
    check(Step::UserEnter, old)
}

/// Rule of user_exit: USER, unwatched; gives the posted bits.
#[inline]
pub const fn check_user_exit(old: u64) -> Result<u8, Illegal> {
    check(Step::UserExit, old)
}

/// Rule of idle_enter: KERNEL, watched, nothing posted.
#[inline]
pub const fn check_idle_enter(old: u64) -> Result<u8, Illegal> {
    check(Step::IdleEnter, old)
}

/// Rule of idle_exit: IDLE, unwatched; gives the posted bits.
#[inline]
pub const fn check_idle_exit(old: u64) -> Result<u8, Illegal> {
    check(Step::IdleExit, old)
}

/// The release build's answer to an illegal transition: from the word as it is now to KERNEL, watched, nothing
/// posted. The counter never goes back. The caller does [`Deferred::ALL`], counts and traces.
#[inline]
pub const fn recover(now: u64) -> u64 {
    let counter = now & COUNTER_MASK;
    if is_watching(now) { counter } else { counter.wrapping_add(WATCH) }
}

/// Whether RCU has to watch a CPU with this word.
#[inline]
pub const fn is_watching(word: u64) -> bool {
    word & WATCH != 0
}

/// The deferred bits of a word.
#[inline]
pub const fn deferred(word: u64) -> u8 {
    ((word & DEFERRED_MASK) >> DEFERRED_SHIFT) as u8
}

/// The counter of a word, WATCH as its lowest bit.
#[inline]
pub const fn counter(word: u64) -> u64 {
    word >> COUNTER_SHIFT
}

/// Whether the CPU has been outside the kernel at or since `snapshot`: WATCH clear in it, or the counter has
/// changed. A counter that wrapped right back costs time, never safety.
#[inline]
pub const fn quiescent(snapshot: u64, now: u64) -> bool {
    quiescent_width::<COUNTER_BITS>(snapshot, now)
}

/// [`quiescent`] for a counter of `BITS` bits.
#[inline]
pub const fn quiescent_width<const BITS: u32>(snapshot: u64, now: u64) -> bool {
    !is_watching(snapshot) || (snapshot ^ now) & COUNTER_MASK & const { word_mask(BITS) } != 0
}

const fn word_mask(counter_bits: u32) -> u64 {
    assert!(counter_bits >= 2 && counter_bits <= COUNTER_BITS);
    !0 >> (COUNTER_BITS - counter_bits)
}

/// A transition that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "illegal transitions and posted work are told here"]
pub struct Transition {
    /// Which one.
    pub step: Step,
    /// The word before it.
    pub old: u64,
}

impl Transition {
    /// The common case in one comparison: legal and nothing posted.
    #[inline]
    pub const fn is_plain(self) -> bool {
        self.old & LOW_MASK == self.step.expected()
    }

    /// The posted bits, or that the transition was illegal.
    #[inline]
    pub const fn check(self) -> Result<u8, Illegal> {
        check(self.step, self.old)
    }

    /// Whether the rules allow it.
    #[inline]
    pub const fn is_legal(self) -> bool {
        self.check().is_ok()
    }

    /// The work to run, then to clear: what was posted, or everything after an illegal transition.
    #[inline]
    pub const fn deferred(self) -> u8 {
        match self.check() {
            Ok(bits) => bits,
            Err(_) => Deferred::ALL,
        }
    }
}

/// What the NMI has to undo at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "give it to nmi_exit"]
pub struct NmiToken {
    /// WATCH was clear, so this NMI set it and takes it back.
    pub entered: bool,
    /// The posted bits that it found: do those of [`Deferred::IN_NMI`], clear none.
    pub deferred: u8,
}

/// What the poster has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an IPI may be needed"]
pub enum Posted {
    /// The bit is left for the CPU's next entry: send nothing.
    Left {
        /// The word that was found. Its counter tells in which stay outside the kernel.
        found: u64,
    },
    /// The CPU is in the kernel: send the IPI. State USER here means a short NMI: spin with PAUSE for a bounded
    /// time and post again first.
    SendIpi {
        /// State of the CPU.
        state: State,
    },
}

/// One CPU's word. `BITS` is the width of the counter; the kernel takes the default.
#[repr(transparent)]
#[derive(Debug)]
pub struct ContextWord<const BITS: u32 = COUNTER_BITS>(AtomicU64);

impl<const BITS: u32> ContextWord<BITS> {
    const_unless_loom! {
        /// The word of a CPU that starts: in the kernel, watched.
        pub fn new() -> Self {
            ContextWord(AtomicU64::new(INITIAL))
        }
    }

    /// The word now. Acquire: a CPU seen unwatched, or with its counter changed, has done what it did before.
    /// An RCU snapshot needs a full fence before it ([`crate::rcu::snapshot_fence`]).
    #[inline]
    pub fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire) & const { word_mask(BITS) }
    }

    /// Makes one transition: one locked add, a full fence. Own CPU, interrupts off.
    #[inline]
    pub fn step(&self, step: Step) -> Transition {
        Transition { step, old: rmw_full_add(&self.0, step.delta()) & const { word_mask(BITS) } }
    }

    /// KERNEL to USER. Own CPU, interrupts off.
    #[inline]
    pub fn user_enter(&self) -> Transition {
        self.step(Step::UserEnter)
    }

    /// USER to KERNEL. Own CPU, interrupts off, before any kernel code that depends on deferred work or RCU.
    #[inline]
    pub fn user_exit(&self) -> Transition {
        self.step(Step::UserExit)
    }

    /// KERNEL to IDLE. Own CPU, interrupts off.
    #[inline]
    pub fn idle_enter(&self) -> Transition {
        self.step(Step::IdleEnter)
    }

    /// IDLE to KERNEL. Own CPU, interrupts off.
    #[inline]
    pub fn idle_exit(&self) -> Transition {
        self.step(Step::IdleExit)
    }

    /// Start of an NMI, #DB, #MC or whatever may nest anywhere. Own CPU. Counts only if WATCH was clear.
    #[inline]
    pub fn nmi_enter(&self) -> NmiToken {
        // Only this CPU changes WATCH, and whoever nests in between puts it back: the test stays true.
        let word = self.0.load(Ordering::Relaxed);
        if is_watching(word) || cfg!(mutant = "nmi_not_counted") {
            return NmiToken { entered: false, deferred: deferred(word) };
        }
        let word = rmw_full_add(&self.0, NMI_DELTA);
        NmiToken { entered: true, deferred: if cfg!(mutant = "nmi_skips_posted") { 0 } else { deferred(word) } }
    }

    /// End of what [`nmi_enter`](Self::nmi_enter) began. Own CPU.
    #[inline]
    pub fn nmi_exit(&self, token: NmiToken) {
        if token.entered {
            rmw_full_add(&self.0, NMI_DELTA);
        }
    }

    /// Leaves work for this word's CPU, or says that an IPI is needed. Anyone, after the stores that the work
    /// is about; no fence is needed between them and this.
    #[inline]
    pub fn post(&self, work: Deferred) -> Posted {
        self.post_bits(work.bit())
    }

    /// [`post`](Self::post) for several items at once.
    #[inline]
    pub fn post_bits(&self, bits: u8) -> Posted {
        let posted = (bits as u64) << DEFERRED_SHIFT;
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if refuses_post(word) {
                return Posted::SendIpi { state: State::of(word) };
            }
            if cfg!(mutant = "post_skips_when_set") && word & posted == posted {
                return Posted::Left { found: word };
            }
            if cfg!(mutant = "post_by_store") {
                self.0.store(word | posted, Ordering::Release);
                return Posted::Left { found: word };
            }
            // Also if the bit is set already: the write is what orders our stores before the target's entry.
            match self.0.compare_exchange_weak(word, word | posted, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Posted::Left { found: word },
                Err(now) => word = now,
            }
        }
    }

    /// [`post`](Self::post) that waits out a short NMI: while the word is watched and its state is not KERNEL, `pause`
    /// is called and it is tried again, at most [`NMI_TRIES`] times.
    #[inline]
    pub fn post_patiently(&self, work: Deferred, mut pause: impl FnMut()) -> Posted {
        for _ in 0..NMI_TRIES {
            match self.post(work) {
                Posted::SendIpi { state: State::User | State::Idle } => pause(),
                answer => return answer,
            }
        }
        self.post(work)
    }

    /// Runs the posted work, then clears its bits (one locked AND). Own CPU, after user_exit or idle_exit.
    #[inline]
    pub fn run_deferred(&self, bits: u8, run: impl FnOnce(u8)) {
        if cfg!(mutant = "clear_before_run") {
            self.clear_deferred(bits);
            run(bits);
            return;
        }
        run(bits);
        self.clear_deferred(bits);
    }

    /// Clears bits whose work has been run. Own CPU.
    #[inline]
    pub fn clear_deferred(&self, bits: u8) {
        self.0.fetch_and(!((bits as u64) << DEFERRED_SHIFT), Ordering::AcqRel);
    }

    /// After an illegal transition: sets the word by [`recover`] and returns the work to do, which is all.
    /// Own CPU, interrupts off.
    #[cold]
    pub fn recover(&self) -> u8 {
        let mut word = self.0.load(Ordering::Relaxed);
        while let Err(now) = self.0.compare_exchange_weak(word, recover(word), Ordering::SeqCst, Ordering::Relaxed) {
            word = now;
        }
        rmw_made_full();
        Deferred::ALL
    }
}

impl<const BITS: u32> Default for ContextWord<BITS> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a poster has to send an IPI instead of leaving a bit.
#[inline]
const fn refuses_post(word: u64) -> bool {
    if cfg!(mutant = "post_tests_state") { word & STATE_MASK == State::Kernel as u64 } else { is_watching(word) }
}

#[cfg(all(test, not(loom)))]
#[path = "word_tests.rs"]
mod tests;

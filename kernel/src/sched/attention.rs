//! One word of a task that says why it is not like others: a signal waits for it, it is traced, or it is not told yet on which CPU it is.
//!
//! One word, so that a switch asks for all by one load. The bits are independent.

use core::sync::atomic::{AtomicU32, Ordering};

const SIGNAL: u32 = 1;
const TRACED: u32 = 2;
const MOVED: u32 = 4;

/// The word. `load` and `store` are the signal's bit, which has most users.
pub struct Attention(AtomicU32);

/// What the word said at one look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// Nothing at all.
    #[inline(always)]
    pub const fn nothing(self) -> bool {
        self.0 == 0
    }

    /// A signal waits.
    #[inline(always)]
    pub const fn signal(self) -> bool {
        self.0 & SIGNAL != 0
    }

    /// The CPU is set up differently while this task runs (`switch::follow_tracing`).
    #[inline(always)]
    pub const fn traced(self) -> bool {
        self.0 & TRACED != 0
    }

    /// Its area for restartable sequences names another CPU.
    #[inline(always)]
    pub const fn moved(self) -> bool {
        self.0 & MOVED != 0
    }
}

impl Attention {
    /// None of them.
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether a signal waits.
    #[inline(always)]
    pub fn load(&self, order: Ordering) -> bool {
        self.0.load(order) & SIGNAL != 0
    }

    /// A signal waits, or has been seen.
    #[inline(always)]
    pub fn store(&self, signal: bool, order: Ordering) {
        if signal {
            self.0.fetch_or(SIGNAL, order);
        } else {
            self.0.fetch_and(!SIGNAL, order);
        }
    }

    /// The task is traced from its next switch on, or is not any more.
    pub fn set_traced(&self, traced: bool) {
        if traced {
            self.0.fetch_or(TRACED, Ordering::SeqCst);
        } else {
            self.0.fetch_and(!TRACED, Ordering::SeqCst);
        }
    }

    /// The task has come to another CPU, which its area for restartable sequences does not name, or does now.
    pub fn set_moved(&self, moved: bool) {
        if moved {
            self.0.fetch_or(MOVED, Ordering::SeqCst);
        } else {
            self.0.fetch_and(!MOVED, Ordering::SeqCst);
        }
    }

    /// All at one look.
    #[inline(always)]
    pub fn look(&self, order: Ordering) -> Seen {
        Seen(self.0.load(order))
    }
}

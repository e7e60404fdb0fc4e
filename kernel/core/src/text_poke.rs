//! Changing text that CPUs execute meanwhile: the order of steps, and the list that a breakpoint finds its way by.
//!
//! Called by the kernel's text patcher (`STEPS`, `publish`, `retire`: one batch at a time) and by its #BP path (`lookup`:
//! any CPU, interrupts off, takes no lock). Protocol: Linux's arch/x86/kernel/alternative.c, "text_poke_bp"; why it is needed:
//! Intel SDM volume 3, "Handling Self- and Cross-Modifying Code".
//!
//! ```text
//! Publish   the list says where each site goes on
//! Trap      first bytes become INT3                 who executes one goes on by the list
//! Sync      every CPU serialises                    nobody has the old first byte in flight any more
//! Tail      the other four bytes become the new ones
//! Sync
//! Head      first bytes become the new ones
//! Sync      nobody has INT3 in flight any more
//! Retire    the list is empty
//! ```
//! Invariant: at no instant can a CPU decode anything but the whole old instruction, the whole new one, or an INT3 that is
//! listed; the tests try every mixture of bytes that a CPU may still have in flight.

use crate::atomics::{AtomicU64, Ordering, const_unless_loom};

/// INT3, one byte.
pub const INT3: u8 = 0xcc;

/// A step of the protocol; the order is that of [`STEPS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Put the batch on the list.
    Publish,
    /// Write INT3 over the first byte of each site.
    Trap,
    /// Make every CPU serialise before it executes a site again: at once where it runs the kernel, at its next entry
    /// elsewhere.
    Sync,
    /// Write the new bytes but the first.
    Tail,
    /// Write the new first byte.
    Head,
    /// Take the batch off the list.
    Retire,
}

/// What is done, in this order.
pub const STEPS: [Step; 8] = if cfg!(mutant = "poke_tail_unsynced") {
    [Step::Publish, Step::Trap, Step::Tail, Step::Sync, Step::Sync, Step::Head, Step::Sync, Step::Retire]
} else if cfg!(mutant = "poke_head_unsynced") {
    [Step::Publish, Step::Trap, Step::Sync, Step::Tail, Step::Head, Step::Sync, Step::Sync, Step::Retire]
} else if cfg!(mutant = "poke_retired_early") {
    [Step::Publish, Step::Trap, Step::Sync, Step::Tail, Step::Sync, Step::Head, Step::Retire, Step::Sync]
} else {
    [Step::Publish, Step::Trap, Step::Sync, Step::Tail, Step::Sync, Step::Head, Step::Sync, Step::Retire]
};

/// The sites that may hold INT3 now, and where whoever hits one goes on.
#[derive(Debug)]
pub struct PokeList<const N: usize> {
    len: AtomicU64,
    sites: [AtomicU64; N],
    targets: [AtomicU64; N],
}

impl<const N: usize> PokeList<N> {
    const_unless_loom! {
        /// An empty list.
        pub fn new() -> Self {
            #[cfg(not(loom))]
            return PokeList {
                len: AtomicU64::new(0),
                sites: [const { AtomicU64::new(0) }; N],
                targets: [const { AtomicU64::new(0) }; N],
            };
            #[cfg(loom)]
            {
                use core::array::from_fn;
                PokeList { len: AtomicU64::new(0), sites: from_fn(|_| AtomicU64::new(0)), targets: from_fn(|_| AtomicU64::new(0)) }
            }
        }
    }

    /// List `batch` of (site, where to go on); at most `N`, false and nothing done otherwise. The list is empty, and one
    /// CPU publishes at a time.
    pub fn publish(&self, batch: impl ExactSizeIterator<Item = (u64, u64)>) -> bool {
        let len = batch.len();
        if len > N || self.len.load(Ordering::Relaxed) != 0 {
            return false;
        }
        for (i, (site, target)) in batch.enumerate() {
            self.targets[i].store(target, Ordering::Relaxed);
            self.sites[i].store(site, Ordering::Relaxed);
        }
        // Release: who sees the length sees the entries.
        self.len.store(len as u64, Ordering::Release);
        true
    }

    /// Empty the list. Every CPU has synchronised since the last INT3 went.
    pub fn retire(&self) {
        self.len.store(0, Ordering::Release);
    }

    /// Where the CPU that executed INT3 at `site` goes on; `None` if that is no INT3 of ours.
    pub fn lookup(&self, site: u64) -> Option<u64> {
        let len = (self.len.load(Ordering::Acquire) as usize).min(N);
        let at = (0..len).find(|&i| self.sites[i].load(Ordering::Relaxed) == site)?;
        Some(self.targets[at].load(Ordering::Relaxed))
    }
}

#[cfg(not(loom))]
impl<const N: usize> Default for PokeList<N> {
    fn default() -> Self {
        Self::new()
    }
}

//! Readers and updaters of RCU-protected objects, for `torture rcu`: an object that is freed is poisoned, and a reader that sees one
//! poisoned, or that changes while it looks, is a failure of RCU.
//!
//! Levers of debug: each runs in the process that writes it. Objects are a fixed pool, so that even a failure touches live memory.

use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::percpu;
use crate::rcu::{self, RcuHead};
use crate::time::timer;
use alloc::string::String;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What a freed object holds.
const POISON: u64 = 0;
/// Objects, those that wait for their grace period included.
const OBJECTS: usize = 64;
/// Places at which objects are published.
const CELLS: usize = 4;
/// Nothing is published yet.
const NONE: usize = usize::MAX;

/// The head comes first, so that its address is the object's.
#[repr(C)]
struct Object {
    head: RcuHead,
    /// A number of its own while it is published or a reader may have it; else [`POISON`].
    number: AtomicU64,
    taken: AtomicBool,
}

impl Object {
    /// Nobody can have it any more.
    fn free(&self) {
        self.number.store(POISON, Ordering::Release);
        self.taken.store(false, Ordering::Release);
    }
}

static POOL: [Object; OBJECTS] =
    [const { Object { head: RcuHead::new(), number: AtomicU64::new(POISON), taken: AtomicBool::new(false) } }; OBJECTS];
static PUBLISHED: [AtomicUsize; CELLS] = [const { AtomicUsize::new(NONE) }; CELLS];
static NUMBER: AtomicU64 = AtomicU64::new(POISON);
static READS: AtomicU64 = AtomicU64::new(0);
static UPDATES: AtomicU64 = AtomicU64::new(0);
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// The file: what was done so far, and how often a context word was found where it may not be.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    let [reads, updates, failures] = [&READS, &UPDATES, &FAILURES].map(|n| n.load(Ordering::Relaxed));
    let illegal = |cpu| percpu::of(cpu).head.illegal_transitions.load(Ordering::Relaxed);
    let illegal: u64 = percpu::online().iter().map(illegal).sum();
    let _ = writeln!(out, "reads={reads} updates={updates} failures={failures} illegal={illegal}");
    Ok(())
}

/// Random numbers (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

/// `MS SEED` of a lever: repeats `round` for so long.
fn repeat(text: &[u8], mut round: impl FnMut(&mut Random)) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| errno::EINVAL)?;
    let (ms, seed) = text.trim().split_once(' ').ok_or(errno::EINVAL)?;
    let ms = super::debug::number(ms.as_bytes())?;
    let mut random = Random(seed.parse::<u64>().map_err(|_| errno::EINVAL)? | 1);
    let (start, ticks) = (tsc::now(), tsc::ns_to_ticks(ms as u64 * 1_000_000));
    while tsc::now().wrapping_sub(start) < ticks {
        round(&mut random);
    }
    Ok(())
}

/// Readers: short ones mostly, a long one now and then.
pub fn look(_: u64, text: &[u8]) -> Result<(), Errno> {
    repeat(text, |random| {
        let rounds = if random.below(32) == 0 { random.below(20_000) } else { random.below(64) };
        let reader = rcu::read();
        let at = PUBLISHED[random.below(CELLS as u64) as usize].load(Ordering::Acquire);
        if let Some(object) = POOL.get(at) {
            let before = object.number.load(Ordering::Acquire);
            (0..rounds).for_each(|i| {
                core::hint::black_box(i);
            });
            if before == POISON || object.number.load(Ordering::Acquire) != before {
                FAILURES.fetch_add(1, Ordering::Relaxed);
            }
            READS.fetch_add(1, Ordering::Relaxed);
        }
        drop(reader);
        if random.below(16) == 0 {
            core::hint::spin_loop();
        }
    })
}

/// Updaters: a new object in the place of an old one, which is freed after a grace period of any kind.
pub fn update(_: u64, text: &[u8]) -> Result<(), Errno> {
    repeat(text, |random| {
        let taken = |object: &&Object| !object.taken.swap(true, Ordering::AcqRel);
        let Some(new) = POOL.iter().position(|object| taken(&object)) else {
            return rcu::barrier();
        };
        POOL[new].number.store(NUMBER.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
        let old = PUBLISHED[random.below(CELLS as u64) as usize].swap(new, Ordering::AcqRel);
        UPDATES.fetch_add(1, Ordering::Relaxed);
        let Some(old) = POOL.get(old) else { return };
        match random.below(8) {
            0 => rcu::synchronize(),
            1 => rcu::synchronize_expedited(),
            2 => {
                let cookie = rcu::start_poll();
                while !rcu::poll(cookie) {
                    timer::sleep_ns(100_000, false);
                }
            }
            // SAFETY: 1. `taken` keeps it ours and unqueued until the callback, and the pool is static; 2. the callback is atomics only.
            _ => return unsafe { rcu::call(&old.head, free) },
        }
        old.free();
    })
}

/// # Safety
/// `head` is that of an object of the pool.
unsafe fn free(head: *const RcuHead) {
    // SAFETY: the caller's condition; the head is an object's first field, and the pool is static.
    unsafe { &*head.cast::<Object>() }.free();
}

//! Readers and updaters of objects that RCU and SRCU protect, for `torture rcu` and `torture srcu`: an object that is freed is poisoned,
//! and a reader that sees one poisoned, or that changes while it looks, is a failure.
//!
//! Levers of debug: each runs in the process that writes it. Objects are a fixed pool, and frames stay mapped, so that even a failure touches
//! live memory.

use crate::arch::page_table::{PAGE_SIZE, phys_to_virt};
use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::mm::frame;
use crate::percpu;
use crate::rcu::deferred_free::{Frame, Headed, free_rcu, free_rcu_head, reclaim};
use crate::rcu::srcu::TORTURE as SLEEPY;
use crate::rcu::{self, RcuHead};
use crate::time::timer;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What a freed object holds.
const POISON: u64 = 0;
/// Objects of a kind, those that wait for their grace period included.
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
    const fn new() -> Self {
        Object { head: RcuHead::new(), number: AtomicU64::new(POISON), taken: AtomicBool::new(false) }
    }

    /// Nobody can have it any more.
    fn free(&self) {
        self.number.store(POISON, Ordering::Release);
        self.taken.store(false, Ordering::Release);
    }

    /// A reader's look, with `meanwhile` in the middle of it. False: it was freed meanwhile or before.
    fn look(&self, meanwhile: impl FnOnce()) -> bool {
        let before = self.number.load(Ordering::Acquire);
        meanwhile();
        before != POISON && self.number.load(Ordering::Acquire) == before
    }
}

/// Objects of one kind of RCU, and what was done with them.
struct Objects {
    pool: [Object; OBJECTS],
    published: [AtomicUsize; CELLS],
    reads: AtomicU64,
    updates: AtomicU64,
    failures: AtomicU64,
}

impl Objects {
    const fn new() -> Self {
        Objects {
            pool: [const { Object::new() }; OBJECTS],
            published: [const { AtomicUsize::new(NONE) }; CELLS],
            reads: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// One that is published.
    fn any(&self, random: &mut Random) -> Option<&Object> {
        self.pool.get(self.published[random.below(CELLS as u64) as usize].load(Ordering::Acquire))
    }

    fn count(&self, good: bool) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.failures.fetch_add(!good as u64, Ordering::Relaxed);
    }

    /// A new one is published; the one that was, which is to be freed after a grace period. `None`: all wait for theirs.
    fn replace(&self, random: &mut Random) -> Option<Option<&Object>> {
        let new = self.pool.iter().position(|object| !object.taken.swap(true, Ordering::AcqRel))?;
        self.pool[new].number.store(NUMBER.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
        let old = self.published[random.below(CELLS as u64) as usize].swap(new, Ordering::AcqRel);
        self.updates.fetch_add(1, Ordering::Relaxed);
        Some(self.pool.get(old))
    }

    /// Those that are neither published nor free. Right when nobody updates, after a barrier.
    fn lost(&self) -> usize {
        let taken = self.pool.iter().filter(|object| object.taken.load(Ordering::Acquire)).count();
        let published = self.published.iter().filter(|cell| cell.load(Ordering::Acquire) != NONE).count();
        taken.abs_diff(published)
    }
}

static OBJECTS_OF_RCU: Objects = Objects::new();
static OBJECTS_OF_SRCU: Objects = Objects::new();
/// A frame whose first and last words tell each other's bits; 0: none yet.
static FRAME: AtomicU64 = AtomicU64::new(0);
static NUMBER: AtomicU64 = AtomicU64::new(POISON);

/// The file: what was done so far, and how often a context word was found where it may not be. It waits until what was given is freed.
pub fn read(_: u64, out: &mut String) -> Result<(), Errno> {
    rcu::barrier();
    SLEEPY.srcu_barrier();
    for (objects, kind) in [(&OBJECTS_OF_RCU, ""), (&OBJECTS_OF_SRCU, "srcu_")] {
        let [reads, updates, failures] =
            [&objects.reads, &objects.updates, &objects.failures].map(|n| n.load(Ordering::Relaxed));
        let lost = objects.lost();
        let _ =
            writeln!(out, "{kind}reads={reads} {kind}updates={updates} {kind}failures={failures} {kind}lost={lost}");
    }
    let illegal = |cpu| percpu::of(cpu).head.illegal_transitions.load(Ordering::Relaxed);
    let _ = writeln!(out, "illegal={}", percpu::online().iter().map(illegal).sum::<u64>());
    Ok(())
}

/// Random numbers (xorshift64).
pub struct Random(u64);

impl Random {
    /// Those of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next one, below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
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
    let mut random = Random::new(seed.parse().map_err(|_| errno::EINVAL)?);
    let (start, ticks) = (tsc::now(), tsc::ns_to_ticks(ms as u64 * 1_000_000));
    while tsc::now().wrapping_sub(start) < ticks {
        round(&mut random);
    }
    Ok(())
}

fn spin(rounds: u64) {
    (0..rounds).for_each(|i| {
        core::hint::black_box(i);
    });
}

/// Readers: short ones mostly, a long one now and then.
pub fn look(_: u64, text: &[u8]) -> Result<(), Errno> {
    repeat(text, |random| {
        let rounds = if random.below(32) == 0 { random.below(20_000) } else { random.below(64) };
        let reader = rcu::read();
        if random.below(4) == 0 {
            let phys = FRAME.load(Ordering::Acquire);
            if phys != 0 {
                OBJECTS_OF_RCU.count(look_at_frame(phys, || spin(rounds)));
            }
        } else if let Some(object) = OBJECTS_OF_RCU.any(random) {
            OBJECTS_OF_RCU.count(object.look(|| spin(rounds)));
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
        let Some(old) = OBJECTS_OF_RCU.replace(random) else { return rcu::barrier() };
        let Some(old) = old else { return };
        match random.below(10) {
            0 => rcu::synchronize(),
            1 => rcu::synchronize_expedited(),
            2 => {
                let cookie = rcu::start_poll_synchronize_rcu();
                while !rcu::poll_state_synchronize_rcu(cookie) {
                    timer::sleep_ns(100_000, false);
                }
            }
            3 => {
                let cookie = rcu::get_state_synchronize_rcu();
                timer::sleep_ns(random.below(2_000_000), false);
                rcu::cond_synchronize_rcu(cookie);
            }
            4 | 5 => return free_rcu(Box::new(Lent(old))),
            6 => return free_rcu_head(Arc::new(HeadedLent { head: RcuHead::new(), _lent: Lent(old) })),
            7 => {
                free_rcu(Box::new(Lent(old)));
                replace_frame();
                if random.below(4) == 0 {
                    reclaim();
                }
                return;
            }
            // SAFETY: 1. `taken` keeps it ours and unqueued until the callback, and the pool is static; 2. the callback is atomics only.
            _ => return unsafe { rcu::call(&old.head, free) },
        }
        old.free();
    })
}

/// Readers that sleep with the object in hand, and wake up on any CPU.
pub fn look_and_sleep(_: u64, text: &[u8]) -> Result<(), Errno> {
    repeat(text, |random| {
        let rounds = random.below(64);
        let sleep_ns = if random.below(8) == 0 { random.below(300_000) } else { 0 };
        let reader = SLEEPY.read();
        if let Some(object) = OBJECTS_OF_SRCU.any(random) {
            OBJECTS_OF_SRCU.count(object.look(|| {
                spin(rounds);
                if sleep_ns != 0 {
                    timer::sleep_ns(sleep_ns, false);
                }
            }));
        }
        drop(reader);
    })
}

/// Updaters of what these look at.
pub fn update_srcu(_: u64, text: &[u8]) -> Result<(), Errno> {
    repeat(text, |random| {
        let Some(old) = OBJECTS_OF_SRCU.replace(random) else { return SLEEPY.srcu_barrier() };
        let Some(old) = old else { return };
        match random.below(8) {
            0 | 1 => SLEEPY.synchronize_srcu(),
            2 => {
                let cookie = SLEEPY.start_poll_synchronize_srcu();
                while !SLEEPY.poll_state_synchronize_srcu(cookie) {
                    timer::sleep_ns(100_000, false);
                }
            }
            3 => {
                let cookie = SLEEPY.get_state_synchronize_srcu();
                timer::sleep_ns(random.below(1_000_000), false);
                if !SLEEPY.poll_state_synchronize_srcu(cookie) {
                    SLEEPY.synchronize_srcu();
                }
            }
            // SAFETY: as in `update`.
            _ => return unsafe { SLEEPY.call_srcu(&old.head, free) },
        }
        old.free();
    })
}

/// # Safety
/// `head` is that of an object of a pool.
unsafe fn free(head: *const RcuHead) {
    // SAFETY: the caller's condition; the head is an object's first field, and the pools are static.
    unsafe { &*head.cast::<Object>() }.free();
}

/// Frees the object by being dropped.
struct Lent(&'static Object);

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.free();
    }
}

struct HeadedLent {
    head: RcuHead,
    _lent: Lent,
}

// SAFETY: it is there, and a count is given away once.
unsafe impl Headed for HeadedLent {
    const HEAD: usize = core::mem::offset_of!(HeadedLent, head);
}

/// The first and the last word of a frame.
fn ends(phys: u64) -> [*mut u64; 2] {
    [0, PAGE_SIZE - 8].map(|at| (phys_to_virt(phys) + at) as *mut u64)
}

/// A reader's look at the frame. False: it is another's already.
fn look_at_frame(phys: u64, meanwhile: impl FnOnce()) -> bool {
    let [first, last] = ends(phys);
    // SAFETY: frames stay mapped, whoever has them.
    let word = |at: *mut u64| unsafe { at.read_volatile() };
    let before = word(first);
    meanwhile();
    word(first) == before && word(last) == !before
}

/// Another frame, whose words tell each other's bits; the old one goes to the allocator.
fn replace_frame() {
    let Some(phys) = frame::alloc() else { return };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let [first, last] = ends(phys);
    // SAFETY: the frame is ours.
    unsafe {
        first.write_volatile(number);
        last.write_volatile(!number);
    }
    let old = FRAME.swap(phys, Ordering::AcqRel);
    if old != 0 {
        free_rcu(Frame(old));
    }
}

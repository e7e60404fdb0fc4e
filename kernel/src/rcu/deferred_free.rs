//! Deferred free: what readers may still look at is given to RCU and freed when they are gone; no callback to write, nothing to wait for.
//!
//! [`free_rcu`] takes anything that frees itself by being dropped: a box, a count, a frame. It notes it in the running CPU's batch, a page of
//! such notes. [`free_rcu_head`] takes what has a head in itself, and so needs no memory and never sleeps. The thread `rcu_gp` collects
//! from all CPUs at the start of each grace period and frees after its end, on a housekeeping CPU; `kcore::deferred_free` says what may go. When memory
//! runs short, [`reclaim`] frees at once what waits, at the price of an expedited grace period.
//! Named after Linux's kvfree_rcu, in include/linux/rcupdate.h.

use super::callbacks::{HeadList, HeadStack, RcuHead};
use super::{EXPEDITED, NORMAL};
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::{PAGE_SIZE, phys_to_virt};
use crate::mm::{frame, kernel_map, stack};
use crate::percpu;
use crate::spin_lock::{SpinLock, rank};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use kcore::deferred_free::{Join, Lots};
use kcore::rcu::{get_state_synchronize_rcu, poll_state_synchronize_rcu};

/// What is owned through one word, and freed by it.
///
/// # Safety
/// `free(into_word(x))` is the end of `x`, in any task on any CPU.
pub unsafe trait Owned: Sized {
    /// About so much memory comes back by it.
    const BYTES: u64;
    /// Gives up ownership.
    fn into_word(self) -> usize;
    /// Frees it.
    ///
    /// # Safety
    /// `word` is from `into_word`, once; it has no readers.
    unsafe fn free(word: usize);
}

// SAFETY: a box is its pointer, and `T` is Send.
unsafe impl<T: Send + 'static> Owned for Box<T> {
    const BYTES: u64 = size_of::<T>() as u64;
    fn into_word(self) -> usize {
        Box::into_raw(self) as usize
    }
    unsafe fn free(word: usize) {
        // SAFETY: the caller's condition.
        drop(unsafe { Box::from_raw(word as *mut T) });
    }
}

/// A page frame of `mm::frame` of which the caller has a share.
pub struct Frame(pub u64);

// SAFETY: a frame is its address.
unsafe impl Owned for Frame {
    const BYTES: u64 = PAGE_SIZE;
    fn into_word(self) -> usize {
        self.0 as usize
    }
    unsafe fn free(word: usize) {
        frame::release(word as u64);
    }
}

/// What has its own head, at `HEAD` bytes from its start.
///
/// # Safety
/// An [`RcuHead`] is there, and nobody but [`free_rcu_head`] uses it.
pub unsafe trait Headed: Send + Sync + 'static {
    /// Where.
    const HEAD: usize;
}

#[derive(Clone, Copy)]
struct Note {
    word: usize,
    free: unsafe fn(usize),
}

/// Notes of a page.
const NOTES: usize = PAGE_SIZE as usize / size_of::<Note>() - 1;

/// A page of notes.
#[repr(C)]
struct Batch {
    next: *mut Batch,
    len: usize,
    notes: [core::mem::MaybeUninit<Note>; NOTES],
}
const _: () = assert!(size_of::<Batch>() == PAGE_SIZE as usize);

/// A CPU's part.
pub struct CpuFree {
    /// The batch that takes notes. Who works on it has taken it out: its CPU with interrupts off, or who collects, for good.
    filling: AtomicPtr<Batch>,
    /// Full batches.
    full: AtomicPtr<Batch>,
    /// What has heads.
    headed: HeadStack,
    /// Objects given here since boot, and their bytes; written by this CPU with interrupts off.
    given: AtomicU64,
    given_bytes: AtomicU64,
}

impl CpuFree {
    /// Nothing given.
    pub const fn new() -> Self {
        let none = core::ptr::null_mut();
        Self {
            filling: AtomicPtr::new(none),
            full: AtomicPtr::new(none),
            headed: HeadStack::new(),
            given: AtomicU64::new(0),
            given_bytes: AtomicU64::new(0),
        }
    }

    /// Whether nothing waits here to be collected.
    pub fn is_empty(&self) -> bool {
        let none = |batch: &AtomicPtr<Batch>| batch.load(Ordering::Relaxed).is_null();
        self.headed.is_empty() && none(&self.filling) && none(&self.full)
    }

    fn count(&self, bytes: u64, _: &IrqOff) {
        self.given.store(self.given.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.given_bytes.store(self.given_bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
    }
}

/// What was collected at one time.
struct Lot {
    batches: *mut Batch,
    headed: HeadList,
}
// SAFETY: the lot owns its batches; what they note may be freed anywhere (`Owned`).
unsafe impl Send for Lot {}

impl Join for Lot {
    fn join(&mut self, later: Lot) {
        self.headed.append(later.headed);
        let mut at = later.batches;
        // SAFETY: the batches are the lots' own.
        while let Some(batch) = unsafe { at.as_mut() } {
            at = core::mem::replace(&mut batch.next, self.batches);
            self.batches = batch;
        }
    }
}

impl Lot {
    /// Frees all of it.
    ///
    /// # Safety
    /// Its readers are gone.
    unsafe fn free(mut self) {
        let mut freed = 0;
        // SAFETY: the caller's condition.
        while unsafe { self.headed.run_first() } {
            freed += 1;
        }
        let mut at = self.batches;
        // SAFETY: the batches are the lot's own.
        while let Some(batch) = unsafe { at.as_ref() } {
            for note in &batch.notes[..batch.len] {
                // SAFETY: 1. the first `len` notes are written; 2. each was given once, and its readers are gone.
                unsafe {
                    let note = note.assume_init_read();
                    (note.free)(note.word);
                }
            }
            freed += batch.len as u64;
            let phys = kernel_map::virt_to_phys(at as u64);
            at = batch.next;
            frame::release(phys);
        }
        FREED.fetch_add(freed, Ordering::Relaxed);
    }
}

static LOTS: SpinLock<Lots<Lot>, { rank::RCU }> = SpinLock::new(Lots::new());
static FREED: AtomicU64 = AtomicU64::new(0);
static BATCHES: AtomicU64 = AtomicU64::new(0);
static RECLAIMS: AtomicU64 = AtomicU64::new(0);
static WAITED: AtomicU64 = AtomicU64::new(0);

/// Free `object` when the readers of now are gone. Process context, no locks held: where there is no memory for a note it waits for them itself.
pub fn free_rcu<T: Owned>(object: T) {
    let note = Note { word: object.into_word(), free: T::free };
    if add(note, T::BYTES) {
        NORMAL.work.wake_one();
        return;
    }
    WAITED.fetch_add(1, Ordering::Relaxed);
    super::synchronize_expedited();
    // SAFETY: the object was given up above, and its readers are gone.
    unsafe { (note.free)(note.word) };
}

fn add(note: Note, bytes: u64) -> bool {
    let irq_off = IrqOff::new();
    let mine = &percpu::this(&irq_off).rcu.free;
    let mut at = mine.filling.swap(core::ptr::null_mut(), Ordering::Acquire);
    if at.is_null() {
        let Some(phys) = frame::alloc() else { return false };
        at = phys_to_virt(phys) as *mut Batch;
        // SAFETY: a frame of our own, as large as a batch, whose notes need not be set.
        unsafe {
            (&raw mut (*at).next).write(core::ptr::null_mut());
            (&raw mut (*at).len).write(0);
        }
        BATCHES.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: it was taken out, or is new: nobody else has it.
    let batch = unsafe { &mut *at };
    batch.notes[batch.len].write(note);
    batch.len += 1;
    mine.count(bytes, &irq_off);
    if batch.len < NOTES {
        mine.filling.store(at, Ordering::Release);
        return true;
    }
    let mut first = mine.full.load(Ordering::Relaxed);
    loop {
        batch.next = first;
        match mine.full.compare_exchange_weak(first, at, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => first = now,
        }
    }
}

/// Drop `object` when the readers of now are gone. Any context but NMI.
pub fn free_rcu_head<T: Headed>(object: Arc<T>) {
    let head = Arc::into_raw(object).wrapping_byte_add(T::HEAD) as *const RcuHead;
    let irq_off = IrqOff::new();
    let mine = &percpu::this(&irq_off).rcu.free;
    mine.count(size_of::<T>() as u64, &irq_off);
    // SAFETY: 1. the count that was given up keeps the object until the callback drops it; 2. `T` is Send.
    unsafe { mine.headed.push(head, drop_headed::<T>) };
    drop(irq_off);
    NORMAL.work.wake_one();
}

/// # Safety
/// `head` was pushed by `free_rcu_head`, and its readers are gone.
unsafe fn drop_headed<T: Headed>(head: *const RcuHead) {
    // SAFETY: the head lies `HEAD` bytes from the start of what was given up there.
    drop(unsafe { Arc::from_raw(head.wrapping_byte_sub(T::HEAD) as *const T) });
}

/// Collect what all CPUs were given, before a grace period. Process context.
pub(super) fn collect() {
    let mut lot = Lot { batches: core::ptr::null_mut(), headed: HeadList::new() };
    for area in (0..percpu::nr_cpus()).filter_map(percpu::get) {
        let cpu = &area.rcu.free;
        lot.headed.append(cpu.headed.take());
        let filling = cpu.filling.swap(core::ptr::null_mut(), Ordering::Acquire);
        for batches in [cpu.full.swap(core::ptr::null_mut(), Ordering::Acquire), filling] {
            lot.join(Lot { batches, headed: HeadList::new() });
        }
    }
    if lot.headed.len() == 0 && lot.batches.is_null() {
        return;
    }
    let mut lots = LOTS.lock();
    // After all of it was taken, so after each was given; under the lock, so that cookies come in order.
    let cookie = get_state_synchronize_rcu(&NORMAL.seq, &EXPEDITED.seq);
    lots.close(cookie, lot);
}

/// Free those whose readers are gone. Process context, no locks held.
pub(super) fn free_ready() {
    let mut any = false;
    loop {
        let lot = LOTS.lock().take_ready(|cookie| poll_state_synchronize_rcu(&NORMAL.seq, &EXPEDITED.seq, cookie));
        let Some(lot) = lot else { break };
        // SAFETY: the cookie was taken after the lot was collected, and is done.
        unsafe { lot.free() };
        any = true;
    }
    if any {
        // Tasks leave their stacks behind.
        stack::trim();
    }
}

/// Memory is short: free what waits, now. True: something was freed, so try again. Process context, no locks held, no reader.
pub fn reclaim() -> bool {
    let before = counts();
    if before.waiting == 0 {
        return false;
    }
    RECLAIMS.fetch_add(1, Ordering::Relaxed);
    collect();
    super::synchronize_expedited();
    free_ready();
    counts().freed != before.freed
}

/// What was given so far, and what became of it.
pub struct Counts {
    /// Objects given.
    pub given: u64,
    /// Their bytes, as far as they are known.
    pub given_bytes: u64,
    /// Objects freed.
    pub freed: u64,
    /// Objects that wait.
    pub waiting: u64,
    /// Pages of notes.
    pub batches: u64,
    /// Times that memory was short.
    pub reclaims: u64,
    /// Objects for which there was no memory for a note.
    pub waited: u64,
}

/// As of now; CPUs count on meanwhile.
pub fn counts() -> Counts {
    // Freed ones first: none is freed that was not given.
    let freed = FREED.load(Ordering::Acquire);
    let sum = |field: fn(&CpuFree) -> &AtomicU64| {
        let areas = (0..percpu::nr_cpus()).filter_map(percpu::get);
        areas.map(|area| field(&area.rcu.free).load(Ordering::Relaxed)).sum::<u64>()
    };
    let given = sum(|cpu| &cpu.given);
    Counts {
        given,
        given_bytes: sum(|cpu| &cpu.given_bytes),
        freed,
        waiting: given.saturating_sub(freed),
        batches: BATCHES.load(Ordering::Relaxed),
        reclaims: RECLAIMS.load(Ordering::Relaxed),
        waited: WAITED.load(Ordering::Relaxed),
    }
}

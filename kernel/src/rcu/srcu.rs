//! Sleepable RCU: domains whose readers may sleep. The protocol is `kcore::srcu`; here are the domains, and the thread that drives them.
//!
//! Readers: process context. The thread `srcu_gp` runs on housekeeping CPUs, reads counters, and sleeps until a reader's end wakes it; it
//! asks and interrupts nobody. A reader on an isolated CPU costs that CPU its own two locked instructions, and at its end a wake-up of
//! the thread if somebody waits for it. Names as in Linux include/linux/srcu.h.

use super::callbacks::{Callback, Callbacks, HeadStack, RcuHead};
use crate::percpu;
use crate::sched::wait_queue::WaitQueue;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use kcore::rcu::{GpCounter, GpSeq};
use kcore::srcu::{Srcu, SrcuCpu, SrcuIndex, SrcuPhase, SrcuStep};

/// Domains that there are.
pub const NR_DOMAINS: usize = 2;
/// Readers of the table of mounts.
pub static MOUNTS: Domain = Domain::new("mounts", 0);
/// Readers of `torture srcu`.
pub static TORTURE: Domain = Domain::new("torture", 1);
/// All of them, by their places.
pub static DOMAINS: [&Domain; NR_DOMAINS] = [&MOUNTS, &TORTURE];

/// A CPU's counters in each domain.
pub type CpuCounters = [SrcuCpu; NR_DOMAINS];

/// Readers that have nothing to do with those of other domains.
pub struct Domain {
    /// Name as shown in files.
    pub name: &'static str,
    /// Its place in each CPU's counters.
    place: usize,
    readers: Srcu,
    periods: GpCounter,
    /// Rounds of collecting callbacks, a grace period, running them.
    rounds: GpCounter,
    /// A grace period is wanted though no callback is queued.
    wanted: AtomicU32,
    callbacks: HeadStack,
    done: WaitQueue,
}

/// A reader: what it looks at is not freed before it is dropped. It may sleep, and end on another CPU than it began on.
pub struct Reader {
    domain: &'static Domain,
    index: Option<SrcuIndex>,
}

/// What stands for a domain's readers of one time.
#[derive(Clone, Copy, Debug)]
pub struct SrcuCookie(GpSeq);

impl Domain {
    const fn new(name: &'static str, place: usize) -> Self {
        Self {
            name,
            place,
            readers: Srcu::new(),
            periods: GpCounter::new(),
            rounds: GpCounter::new(),
            wanted: AtomicU32::new(0),
            callbacks: HeadStack::new(),
            done: WaitQueue::new(),
        }
    }

    /// The running CPU's counters; a task that is moved meanwhile adds to another CPU's, which is as good.
    fn here(&self) -> &'static SrcuCpu {
        &percpu::of(percpu::cpu()).rcu.srcu[self.place]
    }

    fn counters(&self) -> impl Iterator<Item = &'static SrcuCpu> + Clone {
        let place = self.place;
        (0..percpu::nr_cpus()).filter_map(percpu::get).map(move |area| &area.rcu.srcu[place])
    }

    /// srcu_read_lock: the reader lasts until it is dropped.
    pub fn read(&'static self) -> Reader {
        Reader { domain: self, index: Some(self.readers.read_lock(self.here())) }
    }

    /// Wait until all readers of now are gone. Process context, no locks held, no reader of this domain.
    pub fn synchronize_srcu(&self) {
        self.wait_for(self.start_poll_synchronize_srcu());
    }

    fn wait_for(&self, cookie: SrcuCookie) {
        let _ = self.done.wait(false, || self.poll_state_synchronize_srcu(cookie).then_some(()));
    }

    /// A cookie for the readers of now; no grace period is started.
    pub fn get_state_synchronize_srcu(&self) -> SrcuCookie {
        SrcuCookie(self.periods.snap())
    }

    /// A cookie for the readers of now; a grace period is on its way. Any context but NMI.
    pub fn start_poll_synchronize_srcu(&self) -> SrcuCookie {
        let cookie = self.get_state_synchronize_srcu();
        self.request();
        cookie
    }

    /// Whether the readers that `cookie` stands for are gone. Never waits.
    pub fn poll_state_synchronize_srcu(&self, cookie: SrcuCookie) -> bool {
        self.periods.is_done(cookie.0)
    }

    /// Call `callback(head)` after all readers of now are gone, in the thread `srcu_gp`, where it may sleep for a short time. Any context but NMI.
    ///
    /// # Safety
    /// As of `rcu::call`.
    pub unsafe fn call_srcu(&self, head: *const RcuHead, callback: Callback) {
        // SAFETY: the caller's conditions.
        unsafe { self.callbacks.push(head, callback) };
        wake();
    }

    /// Wait until every callback of this domain that was queued before has run. As `synchronize_srcu`, and not in a callback.
    pub fn srcu_barrier(&self) {
        let wanted = self.rounds.snap();
        self.request();
        let _ = self.done.wait(false, || self.rounds.is_done(wanted).then_some(()));
    }

    fn request(&self) {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        wake();
    }

    /// Grace periods so far, and readers at this moment.
    pub fn counts(&self) -> (u64, u64) {
        (self.periods.now().0 >> 2, self.readers.readers(self.counters()))
    }

    /// As far as it goes; the thread's alone.
    fn drive(&self, driven: &mut Driven) {
        loop {
            if driven.phase == SrcuPhase::Idle {
                if self.wanted.swap(0, Ordering::SeqCst) == 0 && self.callbacks.is_empty() {
                    return;
                }
                self.rounds.start();
                driven.callbacks.collect(&self.callbacks, self.periods.snap());
                self.periods.start();
            }
            match self.readers.advance(&mut driven.phase, self.counters()) {
                SrcuStep::Sleep => return,
                SrcuStep::Over => {}
            }
            self.periods.end();
            self.done.wake_all();
            driven.callbacks.run_ready(self.periods.now());
            self.rounds.end();
            self.done.wake_all();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(index) = self.index.take()
            && self.domain.readers.read_unlock(self.domain.here(), index)
        {
            wake();
        }
    }
}

/// How far the thread is with a domain.
struct Driven {
    phase: SrcuPhase,
    callbacks: Callbacks,
}

static WORK: WaitQueue = WaitQueue::new();
static WOKEN: AtomicBool = AtomicBool::new(false);

fn wake() {
    WOKEN.store(true, Ordering::SeqCst);
    WORK.wake_one();
}

/// The thread `srcu_gp`.
pub(super) fn thread(_: usize) {
    let mut driven = [const { Driven { phase: SrcuPhase::Idle, callbacks: Callbacks::new() } }; NR_DOMAINS];
    loop {
        let _ = WORK.wait(false, || WOKEN.swap(false, Ordering::SeqCst).then_some(()));
        DOMAINS.iter().zip(&mut driven).for_each(|(domain, driven)| domain.drive(driven));
    }
}

/// A value that readers of a domain look at, and that is replaced as a whole. Who replaces takes turns with others by a lock of its own.
pub struct SrcuCell<T: Send + Sync + 'static> {
    domain: &'static Domain,
    node: AtomicPtr<Node<T>>,
}

/// The head comes first, so that its address is the node's.
#[repr(C)]
struct Node<T> {
    head: RcuHead,
    value: T,
}

/// A reader with what it looks at.
pub struct CellReader<T: 'static> {
    /// Dropped after the last use of `value`.
    _reader: Reader,
    value: *const T,
}

impl<T> core::ops::Deref for CellReader<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: it was published when the reader had begun; it is freed after a grace period of the domain, and the reader lasts.
        unsafe { &*self.value }
    }
}

impl<T: Send + Sync> SrcuCell<T> {
    /// Nothing in it.
    pub const fn new(domain: &'static Domain) -> Self {
        Self { domain, node: AtomicPtr::new(core::ptr::null_mut()) }
    }

    /// What is in it, if there is anything. Process context.
    pub fn read(&self) -> Option<CellReader<T>> {
        let reader = self.domain.read();
        let node = self.node.load(Ordering::Acquire);
        // SAFETY: null, or a node that is freed after a grace period of the domain; this is a reader.
        let value = unsafe { &node.as_ref()?.value };
        Some(CellReader { _reader: reader, value })
    }

    /// `value` is what readers find from now on; the old one is dropped when its readers are gone. Process context.
    pub fn replace(&self, value: T) {
        let new = Box::into_raw(Box::new(Node { head: RcuHead::new(), value }));
        let old = self.node.swap(new, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: 1. the node is out of the cell and this is the one who took it out; 2. `T` is Send.
            unsafe { self.domain.call_srcu(old as *const RcuHead, drop_node::<T>) };
        }
    }
}

/// # Safety
/// `head` is that of a node that was taken out of its cell, and has no readers.
unsafe fn drop_node<T>(head: *const RcuHead) {
    // SAFETY: the caller's conditions; nodes come from a Box, and the head is their first field.
    drop(unsafe { Box::from_raw(head as *mut Node<T>) });
}

//! Spin locks with a rank in the type, as data guards.
//!
//! `lock` keeps the task on its CPU (preemption off); `lock_irq` turns interrupts off as well. A lock that an interrupt handler takes too is
//! taken by `lock_irq`, or by `lock_held` where they are off already. Who spins has no place in a line: in a virtual machine with fewer host CPUs
//! than its own the next in line is often the one that does not run (Linux chooses likewise under a hypervisor, `virt_spin_lock`). Locks are taken in rising rank; debug builds check it per CPU.
//! Ranks, lowest first: see `rank` and ARCHITECTURE.md "Lock order".

use crate::arch::cpu_head;
use crate::arch::irq_flag::{IrqOff, Pinned};
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// The ranks: a lock may be taken while locks of lower rank are held.
pub mod rank {
    /// Process tables, files: process context only.
    pub const PROCESS: u8 = 0;
    /// Who traces whom.
    pub const TRACED: u8 = 1;
    /// One process's parts (descriptor table, signals).
    pub const PROCESS_PART: u8 = 2;
    /// Address space.
    pub const ADDRESS_SPACE: u8 = 3;
    /// One file, pipe or terminal.
    pub const FILE: u8 = 4;
    /// A wait queue.
    pub const WAIT_QUEUE: u8 = 5;
    /// RCU callback lists and grace-period state.
    pub const RCU: u8 = 6;
    /// Who waits for whose lock. Never held together with one of `RCU`.
    pub const INHERITANCE: u8 = 6;
    /// A CPU's timer queue.
    pub const TIMER: u8 = 7;
    /// A task's place.
    pub const PLACING: u8 = 8;
    /// A CPU's run queue.
    pub const RUN_QUEUE: u8 = 9;
    /// Tick bookkeeping.
    pub const TICK: u8 = 10;
    /// The kernel heap.
    pub const HEAP: u8 = 11;
    /// Free kernel stacks.
    pub const STACK: u8 = 12;
    /// Kernel page tables.
    pub const KERNEL_MAP: u8 = 13;
    /// Page frames.
    pub const FRAME: u8 = 14;
    /// Console output.
    pub const CONSOLE: u8 = 15;
}

/// A value behind a lock of rank `RANK`.
pub struct SpinLock<T: ?Sized, const RANK: u8> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}
// SAFETY: the lock gives one thread at a time access to the value.
unsafe impl<T: ?Sized + Send, const RANK: u8> Sync for SpinLock<T, RANK> {}
// SAFETY: it owns the value.
unsafe impl<T: ?Sized + Send, const RANK: u8> Send for SpinLock<T, RANK> {}

/// Proof that preemption is off. Not `Send`.
pub struct PreemptOff(core::marker::PhantomData<*const ()>);

impl PreemptOff {
    /// Keep the task on this CPU until the token is dropped (nests).
    #[inline(always)]
    pub fn new() -> Self {
        cpu_head::preempt_disable();
        Self(core::marker::PhantomData)
    }
}

impl Drop for PreemptOff {
    #[inline(always)]
    fn drop(&mut self) {
        crate::percpu::preempt_enable();
    }
}
// SAFETY: with preemption off the task stays on its CPU.
unsafe impl Pinned for PreemptOff {}

/// Access to the value; `P` undoes what taking the lock did to the CPU.
pub struct Guard<'a, T: ?Sized, const RANK: u8, P> {
    lock: &'a SpinLock<T, RANK>,
    /// Undone after the lock is open.
    _pin: P,
}

impl<T, const RANK: u8> SpinLock<T, RANK> {
    /// An open lock.
    pub const fn new(value: T) -> Self {
        Self { locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized, const RANK: u8> SpinLock<T, RANK> {
    #[inline(always)]
    fn acquire(&self) {
        rank_check::<RANK>(true);
        if self.locked.swap(true, Ordering::Acquire) {
            self.acquire_contended();
        }
    }

    /// Out of the way of who finds it open.
    #[cold]
    #[inline(never)]
    fn acquire_contended(&self) {
        loop {
            while self.locked.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
            if !self.locked.swap(true, Ordering::Acquire) {
                return;
            }
        }
    }

    /// Take it in process context; nobody takes it in an interrupt.
    #[inline]
    pub fn lock(&self) -> Guard<'_, T, RANK, PreemptOff> {
        let pin = PreemptOff::new();
        self.acquire();
        Guard { lock: self, _pin: pin }
    }

    /// Take it where interrupts are off already: nothing to save, nothing to restore.
    #[inline]
    pub fn lock_held<'a>(&'a self, irq_off: &'a IrqOff) -> Guard<'a, T, RANK, &'a IrqOff> {
        self.acquire();
        Guard { lock: self, _pin: irq_off }
    }

    /// `lock_held` if the lock is open. `None`: somebody holds it, who may have interrupts on, so that nobody should wait for it with interrupts off.
    #[inline(always)]
    pub fn try_lock_held<'a>(&'a self, irq_off: &'a IrqOff) -> Option<Guard<'a, T, RANK, &'a IrqOff>> {
        if self.locked.swap(true, Ordering::Acquire) {
            return None;
        }
        rank_check::<RANK>(true);
        Some(Guard { lock: self, _pin: irq_off })
    }

    /// The value, without the lock.
    ///
    /// # Safety
    /// Nobody changes the value as long as the reference lives.
    #[inline(always)]
    pub unsafe fn unlocked(&self) -> &T {
        // SAFETY: the caller's condition.
        unsafe { &*self.value.get() }
    }

    /// Take it with interrupts off.
    #[inline]
    pub fn lock_irq(&self) -> Guard<'_, T, RANK, IrqOff> {
        let pin = IrqOff::new();
        self.acquire();
        Guard { lock: self, _pin: pin }
    }
}

impl<T: ?Sized, const RANK: u8, P> Deref for Guard<'_, T, RANK, P> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized, const RANK: u8, P> DerefMut for Guard<'_, T, RANK, P> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the lock and is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized, const RANK: u8, P> Drop for Guard<'_, T, RANK, P> {
    #[inline]
    fn drop(&mut self) {
        rank_check::<RANK>(false);
        self.lock.locked.store(false, Ordering::Release);
    }
}

/// Debug builds: no lock of this or a higher rank may be held when one is taken.
#[inline(always)]
fn rank_check<const RANK: u8>(taking: bool) {
    #[cfg(debug_assertions)]
    crate::percpu::lock_rank(RANK, taking);
    let _ = taking;
}

//! Callbacks that wait for readers: heads embedded in what they are about, on stacks that anyone pushes to and lists that one thread runs.
//!
//! Called by the rest of `rcu` alone. A head is on one stack or list at a time, from its push until its callback runs; it lives that
//! long by the contract of `call`. When a callback may run is `kcore::rcu::CallbackSegments`' to say.

use core::sync::atomic::{AtomicPtr, Ordering};
use kcore::rcu::{CallbackSegments, GpSeq};

/// Embedded in what is freed after a grace period.
pub struct RcuHead {
    next: AtomicPtr<RcuHead>,
    callback: AtomicPtr<()>,
}

impl RcuHead {
    /// Not queued.
    pub const fn new() -> Self {
        Self { next: AtomicPtr::new(core::ptr::null_mut()), callback: AtomicPtr::new(core::ptr::null_mut()) }
    }
}

/// What is called with the head when the readers are gone.
pub type Callback = unsafe fn(*const RcuHead);

/// Heads that nobody has collected yet, newest first. Any context but NMI.
pub struct HeadStack(AtomicPtr<RcuHead>);

impl HeadStack {
    /// None.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// One more.
    ///
    /// # Safety
    /// 1. `head` is not queued and lives until the callback; 2. the callback may run in another task on another CPU.
    pub unsafe fn push(&self, head: *const RcuHead, callback: Callback) {
        // SAFETY: the caller says that the head lives.
        let h = unsafe { &*head };
        h.callback.store(callback as *mut (), Ordering::Relaxed);
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            h.next.store(first, Ordering::Relaxed);
            match self.0.compare_exchange_weak(first, head as *mut _, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// All that are there.
    pub fn take(&self) -> HeadList {
        let mut at = self.0.swap(core::ptr::null_mut(), Ordering::Acquire);
        let mut list = HeadList { first: core::ptr::null_mut(), last: at, len: 0 };
        // SAFETY: queued heads live until their callback ran; the swap made the list ours.
        while let Some(h) = unsafe { at.as_ref() } {
            let next = h.next.load(Ordering::Relaxed);
            h.next.store(list.first, Ordering::Relaxed);
            list.first = at;
            list.len += 1;
            at = next;
        }
        list
    }
}

/// Heads that one thread has collected, oldest first.
pub struct HeadList {
    first: *mut RcuHead,
    last: *mut RcuHead,
    len: usize,
}
// SAFETY: the list owns its heads, whose callbacks may run anywhere (`push`).
unsafe impl Send for HeadList {}

impl HeadList {
    /// None.
    pub const fn new() -> Self {
        HeadList { first: core::ptr::null_mut(), last: core::ptr::null_mut(), len: 0 }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Put `later` behind.
    pub fn append(&mut self, later: HeadList) {
        if later.len == 0 {
            return;
        }
        // SAFETY: queued heads live until their callback ran; the list is ours.
        match unsafe { self.last.as_ref() } {
            Some(old) => old.next.store(later.first, Ordering::Relaxed),
            None => self.first = later.first,
        }
        self.last = later.last;
        self.len += later.len;
    }

    /// Run the oldest. False if there is none.
    ///
    /// # Safety
    /// Its readers are gone.
    pub unsafe fn run_first(&mut self) -> bool {
        let head = self.first;
        // SAFETY: null, or a head that lives until its callback, which comes below.
        let Some(h) = (unsafe { head.as_ref() }) else { return false };
        self.first = h.next.load(Ordering::Relaxed);
        self.len -= 1;
        if self.first.is_null() {
            self.last = core::ptr::null_mut();
        }
        // SAFETY: 1. `push` stored a Callback there; its contract is that of `push`'s caller; 2. the head is off the list.
        unsafe { core::mem::transmute::<*mut (), Callback>(h.callback.load(Ordering::Relaxed))(head) };
        true
    }
}

/// All callbacks that were collected, and how many of them may run. Their thread's own.
pub struct Callbacks {
    list: HeadList,
    segments: CallbackSegments,
}

impl Callbacks {
    /// None.
    pub const fn new() -> Self {
        Callbacks { list: HeadList::new(), segments: CallbackSegments::new() }
    }

    /// Take over what is on `stack` now. Each waits for `wanted`, a grace period that starts from now on.
    pub fn collect(&mut self, stack: &HeadStack, wanted: GpSeq) {
        let list = stack.take();
        (0..list.len()).for_each(|_| self.segments.enqueue(wanted));
        self.list.append(list);
    }

    /// Run those whose grace period is over: so many are `completed`.
    pub fn run_ready(&mut self, completed: GpSeq) {
        self.segments.advance(completed);
        while self.segments.take_ready(1) == 1 {
            // SAFETY: the segments say that the oldest's grace period is over.
            unsafe { self.list.run_first() };
        }
    }
}

//! Memory that is to be freed when its readers are gone, in lots: each lot has one cookie, taken after the last of its memory was given.
//!
//! Called by whoever collects what CPUs were given, and by whoever frees it, under one lock. What a lot is made of is the caller's: it is
//! joined to another and handed back whole. Invariants:
//! 1. What is handed back has a cookie that is done, and that was taken after it was given.
//! 2. Nothing is lost, and lots are handed back in the order in which they came.

use crate::rcu::Cookie;
use arrayvec::ArrayVec;

/// Lots that wait at a time; more are joined to the youngest, which then waits for the later grace period.
pub const LOTS: usize = 4;

/// What lots are made of.
pub trait Join {
    /// Put `later` behind.
    fn join(&mut self, later: Self);
}

/// Lots that wait, oldest first. Widths as of [`Cookie`].
#[derive(Debug)]
pub struct Lots<T, const W: u32 = { crate::rcu::COUNT_BITS }> {
    waiting: ArrayVec<(Cookie<W>, T), LOTS>,
}

impl<T: Join, const W: u32> Lots<T, W> {
    /// None.
    pub const fn new() -> Self {
        Lots { waiting: ArrayVec::new_const() }
    }

    /// Another lot, all of which was given before `cookie` was taken. Cookies come in the order in which they were taken.
    pub fn close(&mut self, cookie: Cookie<W>, content: T) {
        if !self.waiting.is_full() {
            self.waiting.push((cookie, content));
            return;
        }
        if let Some((last, youngest)) = self.waiting.last_mut() {
            youngest.join(content);
            if !cfg!(mutant = "free_joins_old_cookie") {
                *last = cookie;
            }
        }
    }

    /// The oldest lot if `is_done` says that its readers are gone.
    pub fn take_ready(&mut self, is_done: impl FnOnce(Cookie<W>) -> bool) -> Option<T> {
        let (cookie, _) = self.waiting.first()?;
        if cfg!(mutant = "free_too_early") && self.waiting.len() > 1 {
            return Some(self.waiting.remove(0).1);
        }
        if is_done(*cookie) { Some(self.waiting.remove(0).1) } else { None }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl<T: Join, const W: u32> Default for Lots<T, W> {
    fn default() -> Self {
        Self::new()
    }
}

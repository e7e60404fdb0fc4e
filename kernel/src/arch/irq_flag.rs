//! The interrupt flag as a value: `IrqOff` proves that interrupts are off on this CPU.

use core::marker::PhantomData;
use x86_64::instructions::interrupts;

/// Proof that interrupts are off, and with it that the task stays on this CPU. Not `Send`.
pub struct IrqOff {
    restore: bool,
    _not_send: PhantomData<*const ()>,
}

impl IrqOff {
    /// Turn interrupts off until the token is dropped (nests).
    #[inline]
    pub fn new() -> Self {
        let restore = interrupts::are_enabled();
        if restore {
            interrupts::disable();
        }
        Self { restore, _not_send: PhantomData }
    }

    /// The same where interrupts are on for sure: process context that holds no such token.
    #[inline(always)]
    pub fn from_on() -> Self {
        debug_assert!(interrupts::are_enabled());
        interrupts::disable();
        Self { restore: true, _not_send: PhantomData }
    }

    /// Interrupts stay off: for a system call that is done, whose way out turns them off anyway.
    #[inline(always)]
    pub fn stay_off(self) {
        core::mem::forget(self);
    }

    /// # Safety
    /// Interrupts are off, and stay off as long as the token lives.
    #[inline]
    pub unsafe fn assume() -> Self {
        debug_assert!(!interrupts::are_enabled());
        Self { restore: false, _not_send: PhantomData }
    }
}

impl Drop for IrqOff {
    #[inline]
    fn drop(&mut self) {
        if self.restore {
            interrupts::enable();
        }
    }
}

/// A proof that the running task cannot move to another CPU: `IrqOff`, or a held `percpu::PreemptOff`.
///
/// # Safety
/// Only types whose existence keeps the task on its CPU may implement it.
pub unsafe trait Pinned {}
// SAFETY: with interrupts off nothing can switch tasks but the task itself.
unsafe impl Pinned for IrqOff {}

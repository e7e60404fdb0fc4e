//! The atomics shim: the one file that differs between the kernel and the checkers.
//!
//! Called by every lock-free file of kcore. Invariant: a file that takes its atomics from here behaves the
//! same under the kernel, host tests, loom and Miri, except that checkers need explicit fences where the
//! x86_64 instruction is one by itself.
//!
//! Why: a locked read-modify-write on x86_64 is a full fence (AMD64 APM volume 2, "Memory Barriers and
//! Ordering"; Intel SDM volume 3, "Locked Instructions and Ordering"). Rust's SeqCst read-modify-write alone
//! is not one for neighbouring Relaxed and Acquire accesses (loom finds the violation), so loom and Miri get
//! the fence spelled out.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

/// Adds `delta` and returns the old value; a full fence between everything before and everything after it.
/// One `lock xadd` on x86_64.
#[inline(always)]
pub fn rmw_full_add(a: &AtomicU64, delta: u64) -> u64 {
    let old = a.fetch_add(delta, Ordering::SeqCst);
    rmw_made_full();
    old
}

/// A full fence: stores before it are visible before loads after it are made. `mfence` or a locked
/// instruction on x86_64.
#[inline(always)]
pub fn fence_full() {
    fence(Ordering::SeqCst);
}

/// What a read-modify-write lacks to be a full fence: nothing on x86_64, a fence for the checkers.
#[inline(always)]
pub(crate) fn rmw_made_full() {
    #[cfg(all(any(loom, miri, not(target_arch = "x86_64")), not(mutant = "rmw_fence_dropped")))]
    fence(Ordering::SeqCst);
}

/// Declares a constructor that is `const` in the kernel; loom's atomics cannot be made in a constant.
macro_rules! const_unless_loom {
    ($(#[$m:meta])* $v:vis fn $name:ident() -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$m])*
        $v const fn $name() -> $ret $body
        #[cfg(loom)]
        $(#[$m])*
        $v fn $name() -> $ret $body
    };
}
pub(crate) use const_unless_loom;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn full_add_returns_the_old_value_and_wraps() {
        let a = AtomicU64::new(u64::MAX);
        assert_eq!(rmw_full_add(&a, 3), u64::MAX);
        assert_eq!(a.load(Ordering::Relaxed), 2);
    }
}

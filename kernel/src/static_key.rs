//! Static keys: a branch that costs a 5-byte NOP while its key is off.
//!
//! A site is an entry of `__jump_table` (`kcore::static_key`): where it is, where it jumps, which key. The tracking key goes
//! from off to on once and never back: at boot, before any other CPU runs kernel code, or later with all CPUs parked
//! (`isolation::parking`). Keys without a site in entry text may be switched while all CPUs run (`set`).

use core::sync::atomic::{AtomicBool, Ordering};
use kcore::static_key::PatchError;

/// A key. Its address names it in the jump table; the flag is for people, no site reads it.
#[repr(C)]
pub struct StaticKey {
    on: AtomicBool,
}

impl StaticKey {
    /// A key that is off.
    pub const fn new() -> Self {
        Self { on: AtomicBool::new(false) }
    }

    /// Whether it is on: for messages, never for a branch.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

/// On as soon as one CPU's user mode is tracked.
#[unsafe(no_mangle)]
pub static TRACKING: StaticKey = StaticKey::new();

/// Branch on a key: `if static_branch!(KEY) { … }`. Off costs one 5-byte NOP, no load and no test.
#[macro_export]
macro_rules! static_branch {
    ($key:path) => {{
        'on: {
            // SAFETY: 1. a NOP, or a jump to the label, with no other effect; 2. the table entry names this site.
            unsafe {
                core::arch::asm!(
                    "2: .byte 0x0f, 0x1f, 0x44, 0x00, 0x00",
                    ".pushsection __jump_table, \"a\"",
                    ".quad 2b, {on}, {key}",
                    ".popsection",
                    key = sym $key,
                    on = label { break 'on true },
                    options(nomem, nostack, preserves_flags)
                );
            }
            false
        }
    }};
}

/// Switch `key` on: patch all its sites. Boot CPU, before other CPUs run kernel code, or while all others are parked; interrupts off.
///
/// # Safety
/// No other CPU runs kernel text, but for text without sites of this key, and each serialises before it runs other text.
pub unsafe fn enable_alone(key: &'static StaticKey) -> Result<usize, PatchError> {
    let address = key as *const _ as u64;
    let mut sites = 0;
    for entry in kcore::static_key::entries(crate::text_patch::jump_table())? {
        if entry.key != address {
            continue;
        }
        let old = crate::text_patch::read_site(entry.code);
        let new = kcore::static_key::plan(&entry, &old, true)?;
        // SAFETY: 1. the caller's condition; 2. the site lies in kernel text and holds the expected old bytes.
        unsafe { crate::text_patch::write_text(entry.code, &new) };
        sites += 1;
    }
    key.on.store(true, Ordering::Relaxed);
    Ok(sites)
}

/// Switch `key` on or off while all CPUs run; a CPU that runs no kernel code hears nothing of it. Process context, interrupts on; the
/// caller keeps others from switching the same key. The key has no site in entry text and none that an NMI reaches.
pub fn set(key: &'static StaticKey, on: bool) -> Result<usize, PatchError> {
    let address = key as *const _ as u64;
    let table = kcore::static_key::entries(crate::text_patch::jump_table())?;
    let sites: alloc::vec::Vec<_> = table.filter(|entry| entry.key == address).collect();
    let changed = crate::text_patch::poke(&sites, on)?;
    key.on.store(on, Ordering::Relaxed);
    Ok(changed)
}

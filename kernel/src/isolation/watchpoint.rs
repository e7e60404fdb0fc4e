//! The kernel's own watchpoints in the debug registers, on all CPUs: what may be watched, and what was hit.
//!
//! Process context for setting; `note_hits` is the #DB handler's, in any context. Memory that hardware or an entry's first instructions
//! touch before there is a stack and per-CPU data is refused: entry text, IDT, GDT and TSS, IST stacks, the per-CPU head.

use super::lease;
use crate::arch::debug_registers;
use crate::arch::page_table::{DIRECT_MAP, PAGE_SIZE};
use crate::arch::{gdt, idt};
use crate::errno::{EBUSY, EINVAL, ENOENT, ENOSPC, Errno};
use crate::mm::stack;
use crate::percpu;
use crate::smp::call_function;
use crate::spin_lock::{SpinLock, rank};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::debug_register::{Breakpoint, COUNT, Kind, enabled};
use kcore::ipi_ledger::IpiCause;

/// What one watchpoint saw.
struct Seen {
    hits: AtomicU64,
    /// Where it was hit last: the instruction behind the access.
    rip: AtomicU64,
    cpu: AtomicU64,
}

static SEEN: [Seen; COUNT] =
    [const { Seen { hits: AtomicU64::new(0), rip: AtomicU64::new(0), cpu: AtomicU64::new(0) } }; COUNT];
/// Held while one changes.
static CHANGES: SpinLock<(), { rank::FILE }> = SpinLock::new(());

/// One watchpoint, for who shows it.
pub struct Watched {
    /// Where.
    pub address: u64,
    /// What.
    pub breakpoint: Breakpoint,
    /// How often it was hit since it was set.
    pub hits: u64,
    /// The instruction behind the last access; 0: none.
    pub rip: u64,
    /// On which CPU that was.
    pub cpu: u64,
}

/// ENOSPC: the kernel has one of these registers (a bit each) itself.
pub fn may_use(registers: u64) -> Result<(), Errno> {
    if registers & enabled(debug_registers::kernel_control()) != 0 { Err(ENOSPC) } else { Ok(()) }
}

/// Whether `range` has a byte of what may not be watched. Hardware compares linear addresses, so the direct map's names of the same
/// memory do no harm.
fn is_entry_memory(range: &Range<u64>) -> bool {
    unsafe extern "C" {
        static __entry_text_start: u8;
        static __entry_text_end: u8;
    }
    let text = &raw const __entry_text_start as u64..&raw const __entry_text_end as u64;
    let refused = |other: &Range<u64>| range.start < other.end && other.start < range.end;
    refused(&text)
        || refused(&idt::range())
        || percpu::online().iter().any(|cpu| {
            let area = percpu::of(cpu);
            let head = &raw const area.head as u64;
            let segments = &raw const area.segments as u64;
            refused(&(head..head + size_of_val(&area.head) as u64))
                || refused(&(segments..segments + size_of::<gdt::Segments>() as u64))
                || area.segments.ist().iter().any(|&top| {
                    let bottom = top & !(PAGE_SIZE - 1);
                    refused(&(bottom.saturating_sub(stack::IST_STACK_BYTES)..bottom + PAGE_SIZE))
                })
        })
}

/// Watch `len` bytes of kernel memory at `address` on all CPUs. EINVAL: no kernel address, not aligned, or what entry code needs;
/// ENOSPC: no register is left.
pub fn set(address: u64, breakpoint: Breakpoint) -> Result<(), Errno> {
    let end = address.checked_add(breakpoint.len).ok_or(EINVAL)?;
    if address < DIRECT_MAP || !breakpoint.fits(address, u64::MAX) || breakpoint.kind == Kind::Execute {
        return Err(EINVAL);
    }
    if is_entry_memory(&(address..end)) {
        return Err(EINVAL);
    }
    change(|| {
        let taken = enabled(debug_registers::kernel_control());
        let index = (0..COUNT).rev().find(|i| taken >> i & 1 == 0).ok_or(ENOSPC)?;
        let seen = &SEEN[index];
        [&seen.hits, &seen.rip, &seen.cpu].iter().for_each(|word| word.store(0, Ordering::Relaxed));
        debug_registers::kernel_set(index, Some((address, breakpoint)));
        Ok(())
    })
}

/// Watch `address` no more. ENOENT: it is not watched.
pub fn clear(address: u64) -> Result<(), Errno> {
    change(|| {
        let taken = enabled(debug_registers::kernel_control());
        let here = |i: &usize| taken >> i & 1 != 0 && debug_registers::kernel_address(*i) == address;
        debug_registers::kernel_set((0..COUNT).find(here).ok_or(ENOENT)?, None);
        Ok(())
    })
}

/// `f` changes one watchpoint, and all CPUs follow. EBUSY: a CPU is leased and may not be interrupted.
fn change(f: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let online = percpu::online();
    if online.iter().any(lease::is_held) {
        return Err(EBUSY);
    }
    {
        let _alone = CHANGES.lock();
        f()?;
    }
    online.iter().for_each(|cpu| call_function::call(cpu, IpiCause::Injected, follow, 0));
    Ok(())
}

/// The running CPU's registers follow; interrupts are off.
fn follow(_: usize) {
    let task = crate::sched::current();
    let traced = task.signal_pending.look(Ordering::Relaxed).traced();
    debug_registers::load(traced.then_some(&task.breakpoints));
}

/// #DB says that the kernel's watchpoints in `hits` (a bit each) were hit; `rip`: behind the access. Any context.
pub fn note_hits(hits: u64, rip: u64) {
    for (_, seen) in SEEN.iter().enumerate().filter(|(i, _)| hits >> i & 1 != 0) {
        seen.hits.fetch_add(1, Ordering::Relaxed);
        seen.rip.store(rip, Ordering::Relaxed);
        seen.cpu.store(percpu::cpu() as u64, Ordering::Relaxed);
    }
}

/// All watchpoints.
pub fn all() -> impl Iterator<Item = Watched> {
    let control = debug_registers::kernel_control();
    (0..COUNT).filter_map(move |i| {
        let breakpoint = Breakpoint::of(control, i).ok().flatten()?;
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let seen = &SEEN[i];
        Some(Watched {
            address: debug_registers::kernel_address(i),
            breakpoint,
            hits: load(&seen.hits),
            rip: load(&seen.rip),
            cpu: load(&seen.cpu),
        })
    })
}

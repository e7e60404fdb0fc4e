//! The kernel's own watchpoints and breakpoints in the debug registers, on all CPUs: what may be watched, and what was hit.
//!
//! Process context for setting; `note_hits` is the #DB handler's, in any context. Memory that hardware or an entry's first instructions
//! touch before there is a stack and per-CPU data is refused: entry text, IDT, GDT and TSS, IST stacks, the per-CPU head. All else is
//! survived, the task's own kernel stack too: no way in of a paranoid entry touches any of it with DR7 on (`entry::nmi`); a #DB on a way out
//! comes when the frame is not needed any more.

use super::lease;
use crate::arch::debug_registers;
use crate::arch::fpu::FpuState;
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::{DIRECT_MAP, PAGE_SIZE};
use crate::arch::{gdt, idt, kernel_text};
use crate::entry::frame::Frame;
use crate::errno::{EBUSY, EINVAL, ENOENT, ENOSPC, ENXIO, ESRCH, Errno};
use crate::mm::stack;
use crate::percpu;
use crate::sched::task::{self, Task};
use crate::smp::{call_function, stack_sample};
use crate::spin_lock::{SpinLock, rank};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::debug_register::{Breakpoint, COUNT, Kind, enabled};
use kcore::ipi_ledger::IpiCause;
use kcore::watch_request::{Base, Place};

/// What one watchpoint saw.
struct Seen {
    hits: AtomicU64,
    /// Where it was hit last: the instruction behind the access, or that of a breakpoint, and from where it was called; 0: no more.
    stack: [AtomicU64; DEPTH],
    cpu: AtomicU64,
    /// The thread that ran there.
    tid: AtomicU64,
}

/// Addresses that are kept of the last hit.
pub const DEPTH: usize = 8;

static SEEN: [Seen; COUNT] = [const {
    Seen {
        hits: AtomicU64::new(0),
        stack: [const { AtomicU64::new(0) }; DEPTH],
        cpu: AtomicU64::new(0),
        tid: AtomicU64::new(0),
    }
}; COUNT];
/// Held while one changes, and while a program gets one: no register is given to both.
static CHANGES: SpinLock<(), { rank::FILE }> = SpinLock::new(());

/// One watchpoint, for who shows it.
pub struct Watched {
    /// Where.
    pub address: u64,
    /// What.
    pub breakpoint: Breakpoint,
    /// How often it was hit since it was set.
    pub hits: u64,
    /// The instruction behind the last access, or that of a breakpoint, then its callers; from the first 0 on there are none.
    pub stack: [u64; DEPTH],
    /// On which CPU that was.
    pub cpu: u64,
    /// By which thread, 0 for an idle CPU.
    pub tid: u64,
}

/// `task`, which is stopped for its debugger, gets these breakpoints, which were checked. ENOSPC: the kernel has one of the registers itself.
pub fn set_of_task(task: &Task, addresses: &[u64; COUNT], control: u64) -> Result<(), Errno> {
    let _alone = CHANGES.lock();
    if enabled(control) & enabled(debug_registers::kernel_control()) != 0 {
        return Err(ENOSPC);
    }
    task.breakpoints.set(addresses, control);
    Ok(())
}

/// Whether `range` has a byte of what may not be watched. Hardware compares linear addresses, so the direct map's names of the same
/// memory do no harm.
fn is_entry_memory(range: &Range<u64>) -> bool {
    let refused = |other: &Range<u64>| range.start < other.end && other.start < range.end;
    refused(&kernel_text::entry_text())
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

/// The address of `place`. ESRCH: no such task; ENXIO: no such CPU; EINVAL: what it has not (a kernel thread's FPU state).
pub fn resolve(place: Place) -> Result<u64, Errno> {
    let task = |tid: Option<u32>, of: fn(&Task) -> Option<u64>| {
        let tid = tid.unwrap_or_else(|| crate::sched::current().tid());
        task::with(tid, of).ok_or(ESRCH)?.ok_or(EINVAL)
    };
    let segments = |cpu| percpu::get(cpu).map(|area| &area.segments).ok_or(ENXIO);
    let base = match place.base {
        Base::Address(address) => address,
        Base::Stack(tid) => task(tid, |t| Some(t.stack_top()))?,
        Base::Task(tid) => task(tid, |t| Some(&raw const *t as u64))?,
        Base::Fpu(tid) => task(tid, |t| t.fpu.as_ref().map(FpuState::address))?,
        Base::Sched(cpu) => &raw const percpu::get(cpu).ok_or(ENXIO)?.sched as u64,
        Base::Tss(cpu) => segments(cpu)?.addresses().0,
        Base::Gdt(cpu) => segments(cpu)?.addresses().1,
        Base::Ist(cpu, slot) => *segments(cpu)?.ist().get(slot as usize - 1).ok_or(EINVAL)?,
    };
    Ok(base.wrapping_add(place.offset))
}

/// Watch `len` bytes of kernel memory at `address` on all CPUs, or stop at the instruction there. EINVAL: no kernel address, not aligned, what
/// entry code needs, a breakpoint outside of the kernel's text; ENOSPC: no register is left that neither the kernel nor a traced program has.
pub fn set(address: u64, breakpoint: Breakpoint) -> Result<(), Errno> {
    let end = address.checked_add(breakpoint.len).ok_or(EINVAL)?;
    let lost = breakpoint.kind == Kind::Execute && !kernel_text::text().contains(&address);
    if address < DIRECT_MAP || !breakpoint.fits(address, u64::MAX) || lost {
        return Err(EINVAL);
    }
    if is_entry_memory(&(address..end)) {
        return Err(EINVAL);
    }
    change(|| {
        let mut taken = enabled(debug_registers::kernel_control());
        task::each(|task| taken |= enabled(task.breakpoints.control()));
        let index = (0..COUNT).rev().find(|i| taken >> i & 1 == 0).ok_or(ENOSPC)?;
        let seen = &SEEN[index];
        let words = [&seen.hits, &seen.cpu, &seen.tid];
        words.into_iter().chain(&seen.stack).for_each(|word| word.store(0, Ordering::Relaxed));
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

/// #DB says that the kernel's watchpoints in `hits` (a bit each) were hit where `frame` is. Any context, interrupts off.
pub fn note_hits(hits: u64, frame: &Frame) {
    // SAFETY: #DB turned interrupts off.
    let irq_off = unsafe { IrqOff::assume() };
    let me = percpu::this(&irq_off);
    // SAFETY: null before the scheduler runs, a live task after.
    let task = unsafe { (me.head.current.load(Ordering::Relaxed) as *const Task).as_ref() };
    for (_, seen) in SEEN.iter().enumerate().filter(|(i, _)| hits >> i & 1 != 0) {
        seen.hits.fetch_add(1, Ordering::Relaxed);
        seen.cpu.store(u64::from(me.cpu()), Ordering::Relaxed);
        seen.tid.store(task.map_or(0, |task| u64::from(task.tid())), Ordering::Relaxed);
        seen.stack.iter().for_each(|address| address.store(0, Ordering::Relaxed));
        if frame.cs & 3 == 0 {
            stack_sample::walk(me, frame, &seen.stack);
        } else {
            seen.stack[0].store(frame.rip, Ordering::Relaxed);
        }
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
            stack: core::array::from_fn(|i| load(&seen.stack[i])),
            cpu: load(&seen.cpu),
            tid: load(&seen.tid),
        })
    })
}

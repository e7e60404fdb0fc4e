//! The head of the per-CPU area: the fields that assembly touches, at GS:0.
//!
//! Assembly names them by `offset_of!`; Rust reads the local ones through the one-instruction accessors below.
//! The context word has a cache line of its own, because other CPUs write it when they post work.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicU64};
use kcore::context_tracking::ContextWord;

/// What a CPU's entry code works with. `repr(C)`: `self_ptr` is at GS:0.
#[repr(C, align(64))]
pub struct CpuHead {
    /// Address of this head, and so of the whole per-CPU area.
    pub self_ptr: AtomicU64,
    /// The running task (`sched::task::Task`).
    pub current: AtomicU64,
    /// Where SYSCALL and interrupts from user mode put their frame: top of the running task's kernel stack.
    pub kernel_stack_top: AtomicU64,
    /// User RSP, between SYSCALL and its save into the frame.
    pub user_rsp: AtomicU64,
    /// What must be done before going back to user mode (`entry::exit_work::*`); remote CPUs set bits in it.
    pub exit_work: AtomicU32,
    /// 0 = preemptible. Written only by its own CPU, by single instructions.
    pub preempt_count: AtomicU32,
    /// This CPU's number.
    pub cpu: AtomicU32,
    /// 1 on a CPU whose user mode is tracked (nohz_full): the test behind the tracking key.
    pub active: AtomicU32,
    /// Not 0 where interruptions are recorded (isolated CPUs).
    pub isolated: AtomicU32,
    /// How deep in interrupt handlers; 0 in process context.
    pub irq_depth: AtomicU32,
    /// The context word.
    pub context: PaddedWord,
    /// TSC value of the last tracked transition between kernel and user.
    pub since_tsc: AtomicU64,
    /// TSC ticks spent in user mode, up to `since_tsc`.
    pub user_ticks: AtomicU64,
    /// TSC ticks spent in the kernel while tracked, up to `since_tsc`.
    pub kernel_ticks: AtomicU64,
    /// System calls entered since boot.
    pub syscalls: AtomicU64,
    /// Exceptions (faults and traps) since boot, NMIs apart.
    pub exceptions: AtomicU64,
    /// NMIs since boot.
    pub nmis: AtomicU64,
    /// Interrupts since boot, by `kcore::interruption::Cause`.
    pub irqs: [AtomicU64; IRQ_CAUSES],
    /// Illegal transitions that the checker repaired.
    pub illegal_transitions: AtomicU64,
}

/// Number of interrupt causes counted per CPU.
pub const IRQ_CAUSES: usize = 16;

/// The word alone on its cache line.
#[repr(C, align(64))]
pub struct PaddedWord(pub ContextWord);

/// Offsets for assembly: operands by name, never a bare number.
pub mod offset {
    use super::*;
    /// `self_ptr`
    pub const SELF: usize = offset_of!(CpuHead, self_ptr);
    /// `current`
    pub const CURRENT: usize = offset_of!(CpuHead, current);
    /// `kernel_stack_top`
    pub const KERNEL_STACK_TOP: usize = offset_of!(CpuHead, kernel_stack_top);
    /// `user_rsp`
    pub const USER_RSP: usize = offset_of!(CpuHead, user_rsp);
    /// `exit_work`
    pub const EXIT_WORK: usize = offset_of!(CpuHead, exit_work);
    /// `preempt_count`
    pub const PREEMPT_COUNT: usize = offset_of!(CpuHead, preempt_count);
    /// `cpu`
    pub const CPU: usize = offset_of!(CpuHead, cpu);
    /// `irqs`
    pub const IRQS: usize = offset_of!(CpuHead, irqs);
    /// `active`
    pub const ACTIVE: usize = offset_of!(CpuHead, active);
    /// `context`
    pub const CONTEXT: usize = offset_of!(CpuHead, context);
    /// The byte of the word whose bit 0 is WATCH.
    pub const CONTEXT_WATCH_BYTE: usize = CONTEXT + kcore::context_tracking::COUNTER_SHIFT as usize / 8;
    /// `since_tsc`
    pub const SINCE_TSC: usize = offset_of!(CpuHead, since_tsc);
    /// `user_ticks`
    pub const USER_TICKS: usize = offset_of!(CpuHead, user_ticks);
    /// `kernel_ticks`
    pub const KERNEL_TICKS: usize = offset_of!(CpuHead, kernel_ticks);
    /// `syscalls`
    pub const SYSCALLS: usize = offset_of!(CpuHead, syscalls);
    /// `exceptions`
    pub const EXCEPTIONS: usize = offset_of!(CpuHead, exceptions);
}

const _: () = assert!(offset::SELF == 0, "GS:0 must hold the per-CPU area's own address");
const _: () = assert!(kcore::context_tracking::WATCH == 1 << 16, "CONTEXT_WATCH_BYTE tests bit 0");

impl CpuHead {
    /// A head before `percpu::init` fills it.
    pub const fn new() -> Self {
        Self {
            self_ptr: AtomicU64::new(0),
            current: AtomicU64::new(0),
            kernel_stack_top: AtomicU64::new(0),
            user_rsp: AtomicU64::new(0),
            exit_work: AtomicU32::new(0),
            preempt_count: AtomicU32::new(1),
            cpu: AtomicU32::new(0),
            active: AtomicU32::new(0),
            isolated: AtomicU32::new(0),
            irq_depth: AtomicU32::new(0),
            context: PaddedWord(ContextWord::new()),
            since_tsc: AtomicU64::new(0),
            user_ticks: AtomicU64::new(0),
            kernel_ticks: AtomicU64::new(0),
            syscalls: AtomicU64::new(0),
            exceptions: AtomicU64::new(0),
            nmis: AtomicU64::new(0),
            irqs: [const { AtomicU64::new(0) }; IRQ_CAUSES],
            illegal_transitions: AtomicU64::new(0),
        }
    }
}

/// Read a 64-bit field of the running CPU's area: one instruction, so no pin is needed for the read itself.
#[inline(always)]
pub fn read_u64<const OFFSET: usize>() -> u64 {
    let v: u64;
    // SAFETY: 1. GS points at this CPU's area from the first instructions of boot on; 2. OFFSET is that of a field;
    // 3. the read has no side effect.
    unsafe {
        core::arch::asm!("mov {}, gs:[{}]", out(reg) v, const OFFSET, options(nostack, preserves_flags, readonly));
    }
    v
}

/// Read a 32-bit field of the running CPU's area by one instruction.
#[inline(always)]
pub fn read_u32<const OFFSET: usize>() -> u32 {
    let v: u32;
    // SAFETY: as `read_u64`.
    unsafe {
        core::arch::asm!("mov {:e}, gs:[{}]", out(reg) v, const OFFSET, options(nostack, preserves_flags, readonly));
    }
    v
}

/// Set `bits` in the running CPU's exit work.
#[inline(always)]
pub fn add_exit_work(bits: u32) {
    // SAFETY: as `preempt_disable`; locked, since other CPUs set bits too.
    unsafe {
        core::arch::asm!("lock or dword ptr gs:[{}], {:e}", const offset::EXIT_WORK, in(reg) bits, options(nostack))
    }
}

/// One more reason not to be preempted on this CPU.
#[inline(always)]
pub fn preempt_disable() {
    // SAFETY: 1. GS as in `read_u64`; 2. one instruction, so an interrupt cannot tear it; 3. no memory clobber is left
    // out: accesses may not move above it.
    unsafe { core::arch::asm!("inc dword ptr gs:[{}]", const offset::PREEMPT_COUNT, options(nostack)) }
}

/// Undo one `preempt_disable`. Does not reschedule; `percpu::preempt_enable` does.
#[inline(always)]
pub fn preempt_enable_no_resched() {
    // SAFETY: as `preempt_disable`.
    unsafe { core::arch::asm!("dec dword ptr gs:[{}]", const offset::PREEMPT_COUNT, options(nostack)) }
}

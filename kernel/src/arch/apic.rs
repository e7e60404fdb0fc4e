//! The local APIC in xAPIC or x2APIC mode, as IA32_APIC_BASE says, and its one-shot timer.
//!
//! Each CPU works on its own APIC only. EOI and timer writes may come from any context with interrupts off; the ICR
//! in xAPIC mode is two writes, so interrupts must be off and an NMI handler must not send there.
//! An IPI must not overtake its queue entry: WRMSR to x2APIC registers does not serialise, so `mfence; lfence`
//! stands before the ICR write (checked on the ELF; QEMU's TCG would hide its absence).
//! Source: SDM vol. 3A, "Advanced Programmable Interrupt Controller".

use super::irq_flag::IrqOff;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use kcore::ipi_ledger::IpiCause;
use x86_64::registers::model_specific::Msr;

/// Interrupt vectors that the kernel uses.
pub mod vector {
    /// First vector of I/O APIC inputs: input n is `IO_BASE + n`.
    pub const IO_BASE: u8 = 0x30;
    /// APIC timer
    pub const TIMER: u8 = 0xf0;
    /// Reschedule IPI
    pub const RESCHEDULE: u8 = 0xf1;
    /// Function-call IPI
    pub const CALL_FUNCTION: u8 = 0xf2;
    /// TLB shootdown IPI
    pub const TLB_FLUSH: u8 = 0xf3;
    /// APIC error
    pub const ERROR: u8 = 0xfe;
    /// Spurious
    pub const SPURIOUS: u8 = 0xff;
}

const REG_ID: u32 = 0x02;
const REG_TPR: u32 = 0x08;
const REG_EOI: u32 = 0x0b;
const REG_SVR: u32 = 0x0f;
const REG_ICR: u32 = 0x30;
const REG_LVT_TIMER: u32 = 0x32;
const REG_LVT_LINT0: u32 = 0x35;
const REG_LVT_LINT1: u32 = 0x36;
const REG_LVT_ERROR: u32 = 0x37;
const REG_TIMER_INITIAL: u32 = 0x38;
const REG_TIMER_CURRENT: u32 = 0x39;
const REG_TIMER_DIVIDE: u32 = 0x3e;
const X2APIC_MSR: u32 = 0x800;

const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
const BASE_ENABLED: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;

const LVT_MASKED: u32 = 1 << 16;
const LVT_TSC_DEADLINE: u32 = 2 << 17;
const DELIVERY_NMI: u32 = 4 << 8;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u32 = 1 << 14;

/// Virtual address of the register page in xAPIC mode; 0 = x2APIC mode.
static XAPIC: AtomicU64 = AtomicU64::new(0);
static DEADLINE_MODE: AtomicBool = AtomicBool::new(false);
/// APIC timer ticks per TSC tick, 32.32 fixed point (divide by 1).
static TIMER_PER_TSC: AtomicU64 = AtomicU64::new(0);
/// What the timer counts down in a period of the tick.
static PERIOD_COUNT: AtomicU32 = AtomicU32::new(0);

#[inline]
fn read(reg: u32) -> u32 {
    match XAPIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on, `reg` is one of the registers above.
        0 => unsafe { Msr::new(X2APIC_MSR + reg).read() as u32 },
        // SAFETY: the page is mapped uncached for good, registers lie 16 bytes apart.
        base => unsafe { ((base + reg as u64 * 16) as *const u32).read_volatile() },
    }
}

#[inline]
fn write(reg: u32, value: u32) {
    match XAPIC.load(Ordering::Relaxed) {
        // SAFETY: x2APIC mode is on, `reg` is one of the registers above.
        0 => unsafe { Msr::new(X2APIC_MSR + reg).write(value as u64) },
        // SAFETY: as in `read`.
        base => unsafe { ((base + reg as u64 * 16) as *mut u32).write_volatile(value) },
    }
}

/// Physical address of the register page if the CPU is in xAPIC mode, `None` in x2APIC mode.
pub fn register_page() -> Option<u64> {
    // SAFETY: the MSR exists on every x86_64 CPU.
    let base = unsafe { Msr::new(IA32_APIC_BASE).read() };
    (base & BASE_X2APIC == 0).then_some(base & 0x000f_ffff_ffff_f000)
}

/// Tell this file where the register page is mapped. Boot CPU, once, before `init_cpu`; not called in x2APIC mode.
pub fn set_register_page(virt: u64) {
    XAPIC.store(virt, Ordering::Relaxed);
}

/// Whether the APICs are in x2APIC mode.
pub fn is_x2apic() -> bool {
    XAPIC.load(Ordering::Relaxed) == 0
}

/// Set up the running CPU's APIC: same mode as the boot CPU, LINT0 masked, LINT1 = NMI on the
/// boot CPU and masked elsewhere, timer masked.
///
/// # Safety
/// Interrupts are off and the IDT serves the vectors of `vector`.
pub unsafe fn init_cpu(boot_cpu: bool) {
    let mut base_msr = Msr::new(IA32_APIC_BASE);
    // SAFETY: 1. the MSR exists; 2. an AP that the loader left in xAPIC mode joins the boot CPU's mode.
    unsafe {
        let base = base_msr.read();
        let wanted = base | BASE_ENABLED | if is_x2apic() { BASE_X2APIC } else { 0 };
        if wanted != base {
            base_msr.write(wanted);
        }
    }
    // Enabled first: a disabled APIC keeps its LVT entries masked.
    write(REG_SVR, 1 << 8 | vector::SPURIOUS as u32);
    write(REG_TPR, 0);
    write(REG_LVT_TIMER, LVT_MASKED | vector::TIMER as u32);
    write(REG_LVT_LINT0, LVT_MASKED);
    // The platform's NMI goes to the boot CPU alone: it must not disturb isolated ones.
    write(REG_LVT_LINT1, if boot_cpu { DELIVERY_NMI } else { LVT_MASKED });
    write(REG_LVT_ERROR, vector::ERROR as u32);
    write(REG_TIMER_DIVIDE, 0b1011);
    write(REG_TIMER_INITIAL, 0);
}

/// Whether the machine's NMI line interrupts the running CPU.
pub fn take_nmi_line(taken: bool, _: &IrqOff) {
    write(REG_LVT_LINT1, if taken { DELIVERY_NMI } else { LVT_MASKED });
}

/// APIC id of the running CPU.
pub fn id() -> u32 {
    let v = read(REG_ID);
    if is_x2apic() { v } else { v >> 24 }
}

/// End of interrupt.
#[inline]
pub fn eoi() {
    write(REG_EOI, 0);
}

/// Let the timer free-run from its largest value, unmasked nowhere, to be measured by `timer_elapsed`.
pub fn timer_start_measure() {
    write(REG_TIMER_INITIAL, u32::MAX);
}

/// Timer ticks since `timer_start_measure`.
pub fn timer_elapsed() -> u32 {
    u32::MAX - read(REG_TIMER_CURRENT)
}

/// Decide the timer's mode for all CPUs. `timer_ticks` passed while the TSC advanced by `tsc_ticks`.
pub fn set_timer_rate(timer_ticks: u64, tsc_ticks: u64, deadline_mode: bool) {
    TIMER_PER_TSC.store((((timer_ticks as u128) << 32) / tsc_ticks.max(1) as u128) as u64, Ordering::Relaxed);
    DEADLINE_MODE.store(deadline_mode, Ordering::Relaxed);
}

/// Whether the timers take absolute deadlines. Known after `set_timer_rate`.
pub fn is_timer_in_deadline_mode() -> bool {
    DEADLINE_MODE.load(Ordering::Relaxed)
}

/// Unmask the running CPU's timer in the decided mode. Nothing fires before `timer_arm`.
pub fn timer_enable(_: &IrqOff) {
    write(REG_TIMER_INITIAL, 0);
    let mode = if DEADLINE_MODE.load(Ordering::Relaxed) { LVT_TSC_DEADLINE } else { 0 };
    write(REG_LVT_TIMER, vector::TIMER as u32 | mode);
    // SDM "TSC-Deadline Mode": the LVT write must be visible before the first deadline; MFENCE orders it in xAPIC mode.
    // SAFETY: a fence.
    unsafe { asm!("mfence", options(nostack, preserves_flags)) };
}

/// Fire once `ticks_from_now` TSC ticks after `now_tsc`. Always in the future: 0 fires at once.
#[inline]
pub fn timer_arm(now_tsc: u64, ticks_from_now: u64, _: &IrqOff) {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        // SAFETY: CPUID offers TSC-deadline mode and the LVT is in it.
        unsafe { Msr::new(IA32_TSC_DEADLINE).write(now_tsc.wrapping_add(ticks_from_now).max(1)) };
    } else {
        write(REG_TIMER_INITIAL, timer_count(ticks_from_now));
    }
}

/// What the timer counts down in so many TSC ticks. Rounded up, so that it never fires before the deadline; beyond the counter's range it fires
/// early and is armed again.
#[inline]
fn timer_count(tsc_ticks: u64) -> u32 {
    let ticks = (tsc_ticks as u128 * TIMER_PER_TSC.load(Ordering::Relaxed) as u128) >> 32;
    (ticks + 1).min(u32::MAX as u128) as u32
}

/// What `timer_arm_period` is to take for a period, TSC ticks. Boot, after `set_timer_rate`.
pub fn set_timer_period(tsc_ticks: u64) {
    PERIOD_COUNT.store(timer_count(tsc_ticks), Ordering::Relaxed);
}

/// Fire at `deadline_tsc`, which is a period from now. A moment less: it fires that moment late; more, by another CPU's clock: it fires too early, and is
/// armed again.
#[inline]
pub fn timer_arm_period(deadline_tsc: u64, _: &IrqOff) {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        // SAFETY: as in `timer_arm`.
        unsafe { Msr::new(IA32_TSC_DEADLINE).write(deadline_tsc) };
    } else {
        write(REG_TIMER_INITIAL, PERIOD_COUNT.load(Ordering::Relaxed));
    }
}

/// Nothing is to fire any more.
#[inline]
pub fn timer_stop(_: &IrqOff) {
    if DEADLINE_MODE.load(Ordering::Relaxed) {
        // SAFETY: as in `timer_arm`; 0 disarms.
        unsafe { Msr::new(IA32_TSC_DEADLINE).write(0) };
    } else {
        write(REG_TIMER_INITIAL, 0);
    }
}

/// What an IPI of each cause arrives as: a vector, or an NMI.
const fn delivery_of(cause: IpiCause) -> u32 {
    match cause {
        IpiCause::Wakeup
        | IpiCause::Reschedule
        | IpiCause::TickSet
        | IpiCause::TickRecheck
        | IpiCause::Signal
        | IpiCause::RcuHoldout => vector::RESCHEDULE as u32,
        IpiCause::UserTlbFlush | IpiCause::KernelTlbFlush => vector::TLB_FLUSH as u32,
        IpiCause::SyncCore
        | IpiCause::Membarrier
        | IpiCause::Ptrace
        | IpiCause::RcuExpedited
        | IpiCause::Isolate
        | IpiCause::Injected => vector::CALL_FUNCTION as u32,
        IpiCause::RcuStall | IpiCause::InjectedNmi | IpiCause::Stop => DELIVERY_NMI,
    }
}

/// Interrupt the CPU with `apic_id` for `cause`. The sender's earlier stores are visible to the receiver.
#[inline]
pub fn send_ipi(apic_id: u32, cause: IpiCause, irq_off: &IrqOff) {
    send(apic_id, delivery_of(cause) | ICR_ASSERT, irq_off);
}

#[inline]
fn send(apic_id: u32, low: u32, _: &IrqOff) {
    let base = XAPIC.load(Ordering::Relaxed);
    if base == 0 {
        // SAFETY: 1. x2APIC mode is on; 2. the fences order all earlier stores before the ICR write (SDM "x2APIC
        // State Transitions": WRMSR to x2APIC registers is not serialising).
        unsafe {
            asm!(
                or_mutant!("mfence\nlfence", "icr_fence_dropped", ""),
                "wrmsr",
                in("ecx") X2APIC_MSR + REG_ICR, in("eax") low, in("edx") apic_id,
                options(nostack, preserves_flags)
            );
        }
        return;
    }
    let icr = (base + REG_ICR as u64 * 16) as *mut u32;
    // SAFETY: 1. the page is mapped uncached for good; 2. interrupts are off, so the two halves stay together. An uncached
    // store is not reordered with earlier write-back stores (SDM "Memory Ordering").
    unsafe {
        while icr.read_volatile() & ICR_PENDING != 0 {
            core::hint::spin_loop();
        }
        icr.byte_add(16).write_volatile(apic_id << 24);
        icr.write_volatile(low);
    }
}

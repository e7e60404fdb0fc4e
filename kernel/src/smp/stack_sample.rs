//! The stack of another CPU as it is now, taken by an NMI: for the stall detector. Or one of its registers, for a scenario.
//!
//! `take` in process context, one at a time; `answer` in the NMI handler, which writes into a static buffer and takes no lock.

use super::ipi::{self, Sender};
use crate::arch::irq_flag::IrqOff;
use crate::arch::kernel_text;
use crate::arch::msr::{self, Refused};
use crate::arch::page_table::PAGE_SIZE;
use crate::entry::frame::{Frame, RFLAGS_IF};
use crate::percpu::Percpu;
use crate::spin_lock::{SpinLock, rank};
use arrayvec::ArrayVec;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use kcore::ipi_ledger::IpiCause;

/// Return addresses of one sample.
const DEPTH: usize = 16;
/// Below the top of a task's kernel stack this much is surely mapped (`mm::stack`).
const STACK_BYTES: u64 = 4 * PAGE_SIZE;
/// How often `take` looks for the answer.
const PATIENCE: u32 = 1_000_000;

static TAKING: SpinLock<(), { rank::TICK }> = SpinLock::new(());
/// In `ASKED`: the CPU writes its answer.
const ANSWERING: u32 = u32::MAX;
/// The CPU that is asked, plus 1; `ANSWERING` while it answers, 0 when it has.
static ASKED: AtomicU32 = AtomicU32::new(0);
static ADDRESSES: [AtomicU64; DEPTH] = [const { AtomicU64::new(0) }; DEPTH];

static INTERRUPTS_OFF: AtomicBool = AtomicBool::new(false);
/// The register that is asked for with it; 0: none. What the CPU found, or that it was refused.
static REGISTER: AtomicU32 = AtomicU32::new(0);
static VALUE: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicBool = AtomicBool::new(false);

/// What an NMI found.
pub struct Sample {
    /// Addresses in kernel text along the stack, innermost first.
    pub stack: ArrayVec<u64, DEPTH>,
    /// What it interrupted had interrupts off.
    pub interrupts_off: bool,
}

/// What CPU `cpu` does now. `None`: no answer.
#[track_caller]
pub fn take(cpu: u32) -> Option<Sample> {
    let _one = TAKING.lock();
    ask(cpu, 0, Location::caller())
}

/// The model-specific register of CPU `cpu`, read in its NMI handler. `None`: no answer.
#[track_caller]
pub fn read_register(cpu: u32, register: u32) -> Option<Result<u64, Refused>> {
    let _one = TAKING.lock();
    ask(cpu, register, Location::caller())?;
    Some(if REFUSED.load(Ordering::Relaxed) { Err(Refused) } else { Ok(VALUE.load(Ordering::Relaxed)) })
}

/// With `TAKING` held.
fn ask(cpu: u32, register: u32, site: &'static Location<'static>) -> Option<Sample> {
    REGISTER.store(register, Ordering::Relaxed);
    ADDRESSES.iter().for_each(|a| a.store(0, Ordering::Relaxed));
    ASKED.store(cpu + 1, Ordering::SeqCst);
    {
        let irq_off = IrqOff::new();
        ipi::send(cpu, &Sender::here(IpiCause::RcuStall, site, &irq_off), &irq_off);
    }
    for _ in 0..PATIENCE {
        if ASKED.load(Ordering::Acquire) == 0 {
            let stack = ADDRESSES.iter().map(|a| a.load(Ordering::Relaxed)).take_while(|&a| a != 0).collect();
            return Some(Sample { stack, interrupts_off: INTERRUPTS_OFF.load(Ordering::Relaxed) });
        }
        core::hint::spin_loop();
    }
    // Withdrawn, unless it answers at this moment: then the answer is waited for, so that it is not mixed with the next one.
    if ASKED.compare_exchange(cpu + 1, 0, Ordering::AcqRel, Ordering::Acquire).is_err() {
        while ASKED.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
    }
    None
}

/// In the NMI handler of CPU `me`: answer if it is asked. Reads only within the running task's kernel stack, which is mapped.
pub fn answer(me: &Percpu, frame: &Frame) {
    // Claimed before it is written: an answer that comes too late is for nobody.
    if ASKED.compare_exchange(me.cpu() + 1, ANSWERING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return;
    }
    let register = REGISTER.load(Ordering::Relaxed);
    if register != 0 {
        let read = msr::rdmsr_safe(register);
        VALUE.store(read.unwrap_or(0), Ordering::Relaxed);
        REFUSED.store(read.is_err(), Ordering::Relaxed);
    }
    INTERRUPTS_OFF.store(frame.rflags & RFLAGS_IF == 0, Ordering::Relaxed);
    walk(me, frame, &ADDRESSES);
    ASKED.store(0, Ordering::Release);
}

/// The address that `frame` interrupted and the return addresses along its frame pointers, into `addresses`; what is left of them stays.
/// Reads only within the kernel stack of the task that runs on this CPU `me`, which is mapped. Any context.
pub fn walk(me: &Percpu, frame: &Frame, addresses: &[AtomicU64]) {
    let top = me.head.kernel_stack_top.load(Ordering::Relaxed);
    let stack = top.saturating_sub(STACK_BYTES)..top.saturating_sub(16);
    addresses[0].store(frame.rip, Ordering::Relaxed);
    let mut at = frame.rbp;
    for address in &addresses[1..] {
        if !stack.contains(&at) || !at.is_multiple_of(8) {
            break;
        }
        // SAFETY: two words within the running task's kernel stack.
        let (next, ret) = unsafe { ((at as *const u64).read(), (at as *const u64).add(1).read()) };
        // A frame pointer that is another value's: no return address.
        if !kernel_text::text().contains(&ret) {
            break;
        }
        address.store(ret, Ordering::Relaxed);
        if next <= at {
            break;
        }
        at = next;
    }
}

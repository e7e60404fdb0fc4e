//! What entry paths record when they are traced: called from their cold blocks and handlers, only while a key of
//! `trace::key` is on. Interrupts are off, and user_exit has been made or user_enter is still to come.

use super::frame::{Frame, SYSCALL_START};
use crate::arch::cpu_head::{self, offset};
use crate::arch::irq_flag::IrqOff;
use crate::trace::record::{from_where, record, record_wanted, wanted};
use core::mem::offset_of;
use kcore::trace_event::{By, Data, Event, Flags};

fn irq_off() -> IrqOff {
    // SAFETY: entry code calls here with interrupts off.
    unsafe { IrqOff::assume() }
}

/// The word that user_exit or user_enter moves; 0 where user mode is not tracked: nothing moves then.
#[inline(always)]
fn word() -> u64 {
    if cpu_head::read_u32::<{ offset::ACTIVE }>() == 0 { 0 } else { cpu_head::read_u64::<{ offset::CONTEXT }>() }
}

/// A register of a system call's partial frame, which starts at r9.
///
/// # Safety
/// `partial` is RSP after the fast path built its part, and `OFFSET` is a field of that part.
unsafe fn saved<const OFFSET: usize>(partial: *const u64) -> u64 {
    // SAFETY: the caller's conditions.
    unsafe { *partial.byte_add(OFFSET - SYSCALL_START) }
}

/// A system call begins. `partial`: its frame, from r9 on.
pub extern "C" fn syscall_entry(partial: *const u64) {
    let irq_off = irq_off();
    let flags = Flags::IRQS_OFF.with(Flags::FROM_USER);
    let wanted = wanted();
    if wanted.contains(Event::UserExit) {
        record_wanted(&irq_off, flags, Data::UserExit { by: By::Syscall, word: word() });
    }
    if !wanted.contains(Event::SysEnter) {
        return;
    }
    // SAFETY: the entry path's frame; all of these were pushed.
    let (number, args) = unsafe {
        (
            saved::<{ offset_of!(Frame, orig_rax) }>(partial),
            [
                saved::<{ offset_of!(Frame, rdi) }>(partial),
                saved::<{ offset_of!(Frame, rsi) }>(partial),
                saved::<{ offset_of!(Frame, rdx) }>(partial),
                saved::<{ offset_of!(Frame, r10) }>(partial),
            ],
        )
    };
    record_wanted(&irq_off, flags, Data::SysEnter { number, args });
}

/// A system call ends and has nothing more to do in the kernel. Returns its result, which the site keeps in no other place.
pub extern "C" fn syscall_exit(partial: *const u64, result: i64) -> i64 {
    let wanted = wanted();
    if wanted.contains(Event::SysExit) {
        record_exit(partial, result);
    }
    if wanted.contains(Event::UserEnter) {
        record_wanted(&irq_off(), Flags::IRQS_OFF, Data::UserEnter { by: By::Syscall, word: word() });
    }
    result
}

/// A system call ends; exit work comes, and user_enter is recorded after that. Returns its result.
pub extern "C" fn syscall_exit_to_work(partial: *const u64, result: i64) -> i64 {
    if wanted().contains(Event::SysExit) {
        record_exit(partial, result);
    }
    result
}

#[inline(always)]
fn record_exit(partial: *const u64, result: i64) {
    // SAFETY: the entry path's frame.
    let number = unsafe { saved::<{ offset_of!(Frame, orig_rax) }>(partial) };
    record_wanted(&irq_off(), Flags::IRQS_OFF, Data::SysExit { number, result });
}

/// The way out of an interrupt without exit work.
pub extern "C" fn user_enter_by_irq() {
    let irq_off = irq_off();
    record(&irq_off, Flags::IRQS_OFF, Data::UserEnter { by: By::Irq, word: word() });
}

/// The way out of rt_sigreturn without exit work.
pub extern "C" fn user_enter_by_call() {
    let irq_off = irq_off();
    record(&irq_off, Flags::IRQS_OFF, Data::UserEnter { by: By::Syscall, word: word() });
}

/// The way out with a full frame.
pub extern "C" fn user_enter(frame: &Frame) {
    let irq_off = irq_off();
    let by = By::ALL.get(frame.entered_by as usize).copied().unwrap_or(By::Syscall);
    record(&irq_off, Flags::IRQS_OFF, Data::UserEnter { by, word: word() });
}

/// An exception's handler begins. `address`: CR2, which counts for page faults only.
#[cold]
#[inline(never)]
pub fn exception_entry(frame: &Frame, vector: u64, address: u64, error_code: u64) {
    let irq_off = irq_off();
    let flags = from_where(frame.cs);
    if flags.contains(Flags::FROM_USER) {
        record(&irq_off, flags, Data::UserExit { by: By::Exception, word: word() });
    }
    let address = if vector == super::exception::PAGE_FAULT { address } else { frame.rip };
    record(&irq_off, flags, Data::ExceptionEntry { vector: vector as u8, address, error_code });
}

/// An exception's handler ends.
#[cold]
#[inline(never)]
pub fn exception_exit(vector: u64) {
    record(&irq_off(), Flags::IRQS_OFF, Data::ExceptionExit { vector: vector as u8 });
}

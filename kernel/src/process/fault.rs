//! Faults of programs: pages brought in, or a signal. A program's fault never ends the kernel.
//!
//! Called by the exception entry with interrupts on, in the context of the task that faulted.

use super::signal::{self, Info, sig};
use super::{Thread, current_thread, oom, try_current_thread};
use crate::arch::cpu_head::{self, offset};
use crate::arch::page_table::{PAGE_SIZE, USER_END};
use crate::arch::{debug_registers, fpu};
use crate::entry::frame::Frame;
use crate::mm::address_space::{AddressSpace, FaultError};
use crate::mm::user_context::fault_at;
use crate::rcu::deferred_free::reclaim;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::debug_register::{COUNT, HIT, STEP, enabled};
use kcore::float_error;
use kcore::machine_check::Bank;
use kcore::vma::{Access, SegvCode};

/// What a thread's last fault was, as signal frames tell it: sigcontext's trapno, err and cr2. Written by the thread itself, and read by it when a
/// handler's frame is made: also for signals that have nothing to do with it, as in Linux. A new thread has none; in Linux it has its maker's.
#[repr(C)]
pub struct LastFault {
    vector: AtomicU64,
    error: AtomicU64,
    /// Of the last page fault.
    address: AtomicU64,
}

impl LastFault {
    /// No fault.
    pub const fn new() -> Self {
        Self { vector: AtomicU64::new(0), error: AtomicU64::new(0), address: AtomicU64::new(0) }
    }

    fn set(&self, vector: u64, error: u64) {
        self.vector.store(vector, Ordering::Relaxed);
        self.error.store(error, Ordering::Relaxed);
    }

    /// As signal frames are made of it (`fault_at`). Nothing but the thread itself changes it.
    #[inline(always)]
    pub fn as_ptr(&self) -> *const u8 {
        (&raw const *self).cast()
    }
}
const _: () = assert!(
    offset_of!(LastFault, vector) == fault_at::VECTOR
        && offset_of!(LastFault, error) == fault_at::ERROR
        && offset_of!(LastFault, address) == fault_at::ADDRESS
);

/// Vectors that are named here.
const DEBUG: u64 = 1;
const PAGE_FAULT: u64 = 14;
const X87: u64 = 16;
const SIMD: u64 = 19;

/// Bits of a page fault's error code (SDM vol. 3A, "Page-Fault Exceptions").
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 4;

fn access(code: u64) -> Access {
    if code & FETCH != 0 {
        Access::Exec
    } else if code & WRITE != 0 {
        Access::Write
    } else {
        Access::Read
    }
}

/// A page fault in user mode.
pub fn user_page_fault(frame: &mut Frame, address: u64, code: u64) {
    let thread = current_thread();
    let result = match thread.address_space() {
        Some(space) if address < USER_END => bring_in(space, address, code),
        _ => Err(FaultError::Segv(SegvCode::MapErr)),
    };
    if let Err(error) = result {
        refuse(thread, frame, address, code, error);
    }
}

/// Nothing is brought in: a signal. Apart, so that it costs those nothing that are.
#[cold]
#[inline(never)]
fn refuse(thread: &Thread, frame: &Frame, address: u64, code: u64, error: FaultError) {
    let (name, info) = match error {
        FaultError::Segv(how) => ("segfault", Info::fault(sig::SEGV, how as i32, address)),
        FaultError::Bus => ("bus error", Info::fault(sig::BUS, 2, address)), // BUS_ADRERR
        // The exit work sees that it ends.
        FaultError::NoMemory if thread.process.ending().is_some() => return,
        FaultError::NoMemory if thread.process.pid == 1 => {
            crate::panic::cannot_go_on(format_args!("out of memory, and only init is left to kill"))
        }
        // Linux panics here. A program that may not be ended is told instead, and may clean up.
        FaultError::NoMemory => {
            ("out of memory, and nobody may be killed: bus error", Info::fault(sig::BUS, 2, address))
        }
    };
    // Which of the kernel's addresses are mapped is not told.
    let code = if address < USER_END { code } else { code | PRESENT };
    thread.last_fault.address.store(address, Ordering::Relaxed);
    raise(thread, frame, info, format_args!("{name} at {address:x}"), PAGE_FAULT, code);
}

/// The kernel reads or writes user memory for the running task and the page is not there. True if it is now. Fails where the
/// task may not wait: a lock is held, or there is no user.
pub fn kernel_user_access(address: u64, code: u64) -> bool {
    if cpu_head::read_u32::<{ offset::PREEMPT_COUNT }>() != 0 {
        return false;
    }
    let Some(space) = try_current_thread().and_then(Thread::address_space) else { return false };
    bring_in(space, address, code).is_ok()
}

fn bring_in(space: &AddressSpace, address: u64, code: u64) -> Result<(), FaultError> {
    match space.fault(address, access(code)) {
        Err(FaultError::NoMemory) => bring_in_without_memory(space, address, code),
        result => result,
    }
}

/// Again, after what only waits for its readers has been freed, and then after somebody has ended.
#[cold]
#[inline(never)]
fn bring_in_without_memory(space: &AddressSpace, address: u64, code: u64) -> Result<(), FaultError> {
    // So often memory may be free and yet not to be had (others are faster, a list cannot grow) before that counts as none.
    let mut in_vain = 100;
    loop {
        if !reclaim() {
            match oom::run_out(current_thread()) {
                oom::Next::Again => {}
                oom::Next::Free => in_vain -= 1,
                oom::Next::End | oom::Next::Nobody => return Err(FaultError::NoMemory),
            }
        }
        match space.fault(address, access(code)) {
            Err(FaultError::NoMemory) if in_vain > 0 => {}
            result => return result,
        }
    }
}

/// The si_code of an error of the x87 or of SSE; `None` if there is none that is not masked.
fn float_code(vector: u64) -> Option<i32> {
    if vector == SIMD {
        return float_error::simd_code(fpu::mxcsr());
    }
    let (control, status) = fpu::x87_words();
    float_error::x87_code(control, status)
}

/// Any other exception in user mode.
pub fn user_exception(frame: &mut Frame, vector: u64, code: u64) {
    let at = frame.rip;
    let (name, info) = match vector {
        0 => ("divide error", Info::fault(sig::FPE, 1, at)), // FPE_INTDIV
        3 => ("int3", Info::from_kernel(sig::TRAP)),
        4 => ("overflow", Info::from_kernel(sig::SEGV)),
        5 => ("bounds", Info::from_kernel(sig::SEGV)),
        6 => ("invalid opcode", Info::fault(sig::ILL, 2, at)), // ILL_ILLOPN
        11 => ("segment not present", Info::from_kernel(sig::BUS)),
        12 => ("stack segment", Info::from_kernel(sig::BUS)),
        13 => ("general protection fault", Info::from_kernel(sig::SEGV)),
        X87 | SIMD => {
            // Where no error is there that is not masked, nothing is told, and the instruction is tried again.
            let Some(code) = float_code(vector) else { return };
            (if vector == X87 { "x87 error" } else { "SIMD error" }, Info::fault(sig::FPE, code, at))
        }
        17 => ("alignment check", Info::fault(sig::BUS, 1, 0)), // BUS_ADRALN
        _ => ("exception", Info::from_kernel(sig::SEGV)),
    };
    raise(current_thread(), frame, info, format_args!("{name}"), vector, code);
}

/// The program used memory that the machine has lost: SIGBUS, with the address by which it knows it. If it cannot be told, because nobody
/// knows the address or its registers are wrong, it ends by that signal. Its page is taken out of its address space, so that the kernel
/// does not use it for it: a second use is SIGBUS, and a system call's EFAULT. The frame is given to nobody any more; others that have it mapped (a
/// file's page, shared memory, a parent's or child's page that neither has written) go on having it.
pub fn user_machine_check(frame: &mut Frame, bank: &Bank, restartable: bool) {
    const MCEERR_AR: i32 = 4;
    let thread = current_thread();
    let lost = bank.memory().and_then(|(phys, order)| {
        let phys = phys & !(PAGE_SIZE - 1);
        Some((thread.address_space()?.hold_lost(phys)?, order.max(PAGE_SIZE.trailing_zeros())))
    });
    match lost.filter(|_| restartable) {
        Some((at, order)) => {
            // si_addr_lsb: at least a page is lost.
            let info = Info { value: order.into(), ..Info::fault(sig::BUS, MCEERR_AR, at) };
            raise(thread, frame, info, format_args!("machine check at {at:x}, status {:x},", bank.status), 18, 0);
        }
        None => {
            say(thread, frame, format_args!("machine check, bank {} status {:x}", bank.number, bank.status));
            signal::kill(&thread.process, sig::BUS);
        }
    }
}

/// #DB in user mode: a single step, a breakpoint of the debug registers, or INT1.
pub fn user_debug(frame: &mut Frame, dr6: u64) {
    const RF: u64 = 0x1_0000;
    let breakpoints = &crate::sched::current().breakpoints;
    // Of what it has itself: a hit of the kernel's may be told when the kernel's list has it no more.
    let hits = dr6 & HIT & enabled(breakpoints.control()) & !debug_registers::kernel_hits(dr6);
    if hits == 0 && dr6 & HIT != 0 && dr6 & STEP == 0 {
        // The kernel's own watchpoint, hit by user mode.
        return;
    }
    breakpoints.set_status(dr6 & STEP | hits);
    // An instruction breakpoint comes before its instruction, which is to run when the program goes on.
    let at_instruction = |i: &usize| hits >> i & 1 != 0 && breakpoints.control() >> (16 + 4 * i) & 3 == 0;
    if (0..COUNT).any(|i| at_instruction(&i)) {
        frame.rflags |= RF;
    }
    let code = if dr6 & STEP != 0 {
        2 // TRAP_TRACE
    } else if hits != 0 {
        4 // TRAP_HWBKPT
    } else {
        1 // TRAP_BRKPT
    };
    let info = Info::fault(sig::TRAP, code, frame.rip);
    raise(current_thread(), frame, info, format_args!("debug trap"), DEBUG, 0);
}

/// Send the signal; say so where nobody handles it.
fn raise(thread: &Thread, frame: &Frame, info: Info, what: core::fmt::Arguments<'_>, vector: u64, code: u64) {
    thread.last_fault.set(vector, code);
    let handler = thread.process.actions.lock().of(info.signal).handler;
    let traced = thread.traced.load(Ordering::SeqCst);
    if (handler == signal::DEFAULT || handler == signal::IGNORE) && !traced {
        say(thread, frame, format_args!("{what} ip {:x} sp {:x} error {code:x}", frame.rip, frame.rsp));
    }
    signal::force(info);
}

/// One line about a program that is about to die.
pub fn say(thread: &Thread, _frame: &Frame, what: core::fmt::Arguments<'_>) {
    let comm = crate::sched::current().comm();
    crate::info!("{}[{}]: {what}", crate::sched::task::comm_str(&comm), thread.process.pid);
}

//! The end: stop the other CPUs, say why in an epitaph that the host tool can resolve, give away what the trace's rings hold, and leave
//! with the failure code.
//!
//! Any context, NMI included, whatever locks are held. It takes no lock and no memory, and goes on in stages: a panic inside one is told
//! and goes on with the next, so that a wild pointer in the epitaph does not cost the trace.

use crate::arch::apic;
use crate::arch::irq_flag::IrqOff;
use crate::arch::power::{End, end};
use crate::arch::tsc;
use crate::console::print_dying;
use crate::entry::frame::Frame;
use crate::percpu;
use crate::sched::stack_owner;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use kcore::ipi_ledger::IpiCause;
use kcore::machine_check::{Bank, Fatal};
use kcore::trace_event::Record;
use kcore::trace_ring::{Cursor, Next};

/// Records of the trace that the epitaph tells.
const LAST_TRANSITIONS: u64 = 8;

/// How far the end has come.
mod stage {
    /// Saying why.
    pub const WHY: u32 = 0;
    /// CPU, task, registers, stack.
    pub const EPITAPH: u32 = 1;
    /// The rings, to the second serial port.
    pub const STREAM: u32 = 2;
    /// The rings, to the console.
    pub const DUMP: u32 = 3;
    /// Waiting as `panic=` says.
    pub const LEAVE: u32 = 4;
}

/// One of `stage`. Changed by the CPU that panics alone.
static STAGE: AtomicU32 = AtomicU32::new(stage::WHY);
/// The next stage, if it is not `stage` or a later one yet.
fn begins(stage: u32) -> bool {
    STAGE.load(Ordering::Relaxed) < stage && {
        STAGE.store(stage, Ordering::Relaxed);
        true
    }
}

/// CPUs that have stopped for the one that panics.
static STOPPED: AtomicU32 = AtomicU32::new(0);
/// How often the one that panics looks for them: one that is dead never comes.
const STOP_LOOKS: u32 = 200_000;

/// CPU number + 1 of the CPU that panics.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// For scenarios: an NMI comes before each line.
static NMIS: AtomicBool = AtomicBool::new(false);

#[cold]
fn interrupt_self() {
    // SAFETY: `begin` turned interrupts off before anything is said.
    let irq_off = unsafe { IrqOff::assume() };
    apic::send_ipi(apic::id(), IpiCause::InjectedNmi, &irq_off);
}

/// For scenarios: the end, with an NMI before each of its lines.
pub fn panic_with_nmis() -> ! {
    NMIS.store(true, Ordering::Relaxed);
    panic!("asked for, with NMIs all along");
}

macro_rules! say {
    ($($arg:tt)*) => {{
        if NMIS.load(Ordering::Relaxed) {
            interrupt_self();
        }
        print_dying(format_args!("{}\n", format_args!($($arg)*)))
    }};
}

/// `panic=`, in seconds.
static TIMEOUT_S: AtomicI32 = AtomicI32::new(0);

/// `panic=`: what the end waits for, Linux's meaning; under QEMU's debug-exit device 0 ends the machine too.
pub fn set_timeout(seconds: i32) {
    TIMEOUT_S.store(seconds, Ordering::Relaxed);
}

/// The end with the failure code, after the time that `panic=` gives.
fn leave() -> ! {
    let seconds = TIMEOUT_S.load(Ordering::Relaxed);
    if begins(stage::LEAVE) && seconds > 0 {
        say!("panic={seconds}: the end in {seconds} seconds");
        let until_ns = tsc::now_ns().saturating_add(seconds as u64 * 1_000_000_000);
        while tsc::now_ns() < until_ns {
            core::hint::spin_loop();
        }
    }
    if seconds == 0 { end(End::Failure) } else { end(End::FailureRestart) }
}

/// Whether the kernel is dying.
#[cfg(debug_assertions)]
pub fn in_progress() -> bool {
    OWNER.load(Ordering::Relaxed) != 0
}

/// Whether another CPU's panic stops CPU `cpu`.
pub fn stops(cpu: u32) -> bool {
    let owner = OWNER.load(Ordering::Relaxed);
    owner != 0 && owner != cpu + 1
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    begin();
    match info.location() {
        Some(at) => say!("kernel panic at {}:{}: {}", at.file(), at.line(), info.message()),
        None => say!("kernel panic: {}", info.message()),
    }
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    epitaph(None, rbp)
}

/// An exception in kernel mode that nothing fixes up.
pub fn exception_in_kernel(frame: &Frame, vector: u64, address: u64) -> ! {
    begin();
    const NAMES: [&str; 32] = [
        "divide error",
        "debug",
        "NMI",
        "breakpoint",
        "overflow",
        "bound range",
        "invalid opcode",
        "device not available",
        "double fault",
        "reserved",
        "invalid TSS",
        "segment not present",
        "stack fault",
        "general protection",
        "page fault",
        "reserved",
        "x87 error",
        "alignment check",
        "machine check",
        "SIMD error",
        "virtualisation",
        "control protection",
        "reserved",
        "reserved",
        "reserved",
        "reserved",
        "reserved",
        "reserved",
        "hypervisor",
        "VMM communication",
        "security",
        "reserved",
    ];
    say!(
        "kernel panic: {} (vector {vector}, error code {:#x}, address {address:#x})",
        NAMES[vector as usize & 31],
        frame.orig_rax
    );
    epitaph(Some(frame), frame.rbp)
}

/// A machine check that nothing survives: `banks` say what the machine found.
pub fn machine_check(frame: &Frame, mcg_status: u64, banks: &[Bank], why: Fatal) -> ! {
    begin();
    say!("kernel panic: machine check: {} (MCG_STATUS {mcg_status:#x})", why.text());
    for Bank { number, status, address, misc } in banks {
        say!("bank {number} status {status:#018x} address {address:#x} misc {misc:#x}");
    }
    epitaph(Some(frame), frame.rbp)
}

/// Nothing can run any more, and the reason is not a fault of the kernel: one line, failure exit.
pub fn cannot_go_on(why: core::fmt::Arguments<'_>) -> ! {
    begin();
    say!("kernel: cannot go on: {why}");
    leave()
}

/// Take the console and stop the others. A panic in a panic ends here; a second CPU's panic waits to be stopped.
fn begin() {
    x86_64::instructions::interrupts::disable();
    let me = percpu::cpu() + 1;
    match OWNER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(owner) if owner == me => {
            say!("\npanic inside a panic");
            give_away_trace()
        }
        Err(_) => halt(),
    }
    // SAFETY: turned off above.
    let irq_off = unsafe { IrqOff::assume() };
    let mut others = 0;
    for cpu in 0..percpu::nr_cpus() {
        if cpu + 1 != me && percpu::is_online(cpu) {
            apic::send_ipi(percpu::of(cpu).apic_id.load(Ordering::Relaxed), IpiCause::Stop, &irq_off);
            others += 1;
        }
    }
    for _ in 0..STOP_LOOKS {
        if STOPPED.load(Ordering::Acquire) >= others {
            break;
        }
        core::hint::spin_loop();
    }
    print_dying(format_args!("\n"));
}

fn epitaph(frame: Option<&Frame>, rbp: u64) -> ! {
    if begins(stage::EPITAPH) {
        tell(frame, rbp);
    }
    give_away_trace()
}

/// The stages behind the epitaph.
fn give_away_trace() -> ! {
    let streamed = begins(stage::STREAM) && crate::trace::stream::finish_dying();
    if !streamed && begins(stage::DUMP) {
        crate::trace::dump::to_console();
    }
    leave()
}

fn tell(frame: Option<&Frame>, rbp: u64) {
    // SAFETY: `begin` turned interrupts off.
    let irq_off = unsafe { IrqOff::assume() };
    let me = percpu::this(&irq_off);
    let word = me.head.context.0.load();
    let task = me.head.current.load(Ordering::Relaxed);
    say!("cpu {} context word {word:#018x} ({})", me.cpu(), kcore::context_tracking::State::of(word).name());
    let ago_ns = tsc::ticks_to_ns(tsc::now().saturating_sub(me.head.since_tsc.load(Ordering::Relaxed)));
    say!(
        "transitions {} (illegal {}), last tracked one {ago_ns} ns ago; entries: {} system calls, {} exceptions, {} NMIs",
        kcore::context_tracking::counter(word),
        me.head.illegal_transitions.load(Ordering::Relaxed),
        me.head.syscalls.load(Ordering::Relaxed),
        me.head.exceptions.load(Ordering::Relaxed),
        me.head.nmis.load(Ordering::Relaxed)
    );
    last_transitions(me);
    // SAFETY: `current` is null before the scheduler runs, a live task after.
    if let Some(task) = unsafe { (task as *const crate::sched::task::Task).as_ref() } {
        say!("task {} ({})", task.tid(), crate::sched::task::comm_str(&task.comm()));
    }
    say!(
        "preempt_count {} exit_work {:#x}",
        me.head.preempt_count.load(Ordering::Relaxed),
        me.head.exit_work.load(Ordering::Relaxed)
    );
    if let Some(f) = frame {
        if let Some(stack) = stack_owner::of(f.rsp) {
            say!("rsp lies {stack}");
        }
        // What a stack's guard stopped: it may be far below.
        let cr2 = x86_64::registers::control::Cr2::read_raw();
        if let Some(stack) = stack_owner::of(cr2).filter(|owner| owner.is_guard()) {
            say!("{cr2:#018x}, the address of the last page fault, lies {stack}");
        }
        say!("rip {:#018x} cs {:#x} rflags {:#x} rsp {:#018x}", f.rip, f.cs, f.rflags, f.rsp);
        say!("rax {:#018x} rbx {:#018x} rcx {:#018x} rdx {:#018x}", f.rax, f.rbx, f.rcx, f.rdx);
        say!("rsi {:#018x} rdi {:#018x} rbp {:#018x} r8  {:#018x}", f.rsi, f.rdi, f.rbp, f.r8);
        say!("r9  {:#018x} r10 {:#018x} r11 {:#018x} r12 {:#018x}", f.r9, f.r10, f.r11, f.r12);
        say!("r13 {:#018x} r14 {:#018x} r15 {:#018x}", f.r13, f.r14, f.r15);
    }
    say!("backtrace:");
    if let Some(f) = frame {
        say!("  {:#018x}", f.rip);
    }
    backtrace(rbp);
    say!("end of epitaph");
}

/// The last records of this CPU, if it is traced. Reads the ring as any reader does: no lock.
fn last_transitions(me: &percpu::Percpu) {
    let Some(ring) = crate::trace::rings::of(me.cpu()) else { return };
    let mut cursor = Cursor::at_last(&*ring, LAST_TRANSITIONS);
    say!("last transitions:");
    for _ in 0..2 * LAST_TRANSITIONS {
        match cursor.next(&*ring) {
            Next::Empty => return,
            Next::Lost(_) => {}
            Next::Record(words) => {
                if let Ok(record) = Record::decode(&words) {
                    crate::trace::names::with_line(me.cpu(), &record, |line| say!("{line}"));
                }
            }
        }
    }
}

/// Return addresses along the frame pointers, as long as they rise within kernel addresses.
fn backtrace(mut rbp: u64) {
    for _ in 0..32 {
        if rbp < 0xffff_8000_0000_0000 || !rbp.is_multiple_of(8) {
            return;
        }
        // SAFETY: a frame pointer in the kernel half; a wild one faults, and the panic inside the panic ends the machine.
        let (next, ret) = unsafe { ((rbp as *const u64).read(), (rbp as *const u64).add(1).read()) };
        if ret == 0 {
            return;
        }
        say!("  {ret:#018x}");
        if next <= rbp {
            return;
        }
        rbp = next;
    }
}

/// Another CPU's panic stops this one (NMI).
pub fn stop_here(_: &Frame) -> ! {
    STOPPED.fetch_add(1, Ordering::Release);
    halt()
}

/// For scenarios: a panic whose epitaph panics, because the stack leads nowhere.
pub fn panic_nested() -> ! {
    begin();
    say!("kernel panic: asked for, with a second one inside");
    // Not canonical, and kernel-like enough for `backtrace`.
    epitaph(None, 0xffff_9000_0000_0000)
}

/// For scenarios: a panic because a task wanted more stack than there is.
pub fn panic_of_stack() -> ! {
    loop {
        core::hint::black_box(exhaust_stack(0));
    }
}

/// Into the guard below the stack, frame by frame.
fn exhaust_stack(depth: u64) -> u64 {
    if depth == u64::MAX {
        return 0;
    }
    let frame = [depth; 64];
    let below = exhaust_stack(core::hint::black_box(&frame)[depth as usize % 64] + 1);
    below.wrapping_add(core::hint::black_box(&frame)[0])
}

/// The next NMI that a CPU of ours gets panics (`panic_in_nmi` below).
static WANTED_IN_NMI: AtomicBool = AtomicBool::new(false);

/// In the NMI handler: the panic that `panic_in_nmi` asked for.
pub fn if_wanted_in_nmi() {
    if WANTED_IN_NMI.load(Ordering::Relaxed) {
        panic!("asked for, in an NMI");
    }
}

/// For scenarios: panic in an NMI that interrupts this CPU while it holds the console.
pub fn panic_in_nmi() -> ! {
    let irq_off = IrqOff::new();
    WANTED_IN_NMI.store(true, Ordering::Relaxed);
    crate::console::with_lock_held(|| {
        let me = percpu::this(&irq_off);
        // The cause is one that arrives as an NMI.
        apic::send_ipi(me.apic_id.load(Ordering::Relaxed), IpiCause::RcuStall, &irq_off);
        loop {
            core::hint::spin_loop();
        }
    })
}

fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

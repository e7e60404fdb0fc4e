//! Restartable sequences: what a thread registered, and what is done there before it goes on in user mode elsewhere or later.
//!
//! Process context. Nothing is paid for it at a switch. A sequence is looked at where the exit-work loop is run anyway, for the scheduler or for a
//! signal, and after an exception during which something else ran (`was_away`); an interrupt without either leaves it alone, and a system
//! call cannot be in one. The area is written after a move to another CPU, which marks the task (`sched::attention`). `kcore::restartable` decides.
//! Source: rseq(2).

use super::{Thread, current_thread, signal, try_current_thread};
use crate::arch::cpu_head;
use crate::arch::irq_flag::IrqOff;
use crate::arch::page_table::USER_END;
use crate::entry::exit_work;
use crate::entry::frame::Frame;
use crate::errno::{EBUSY, EFAULT, EINVAL, EPERM, SysResult};
use crate::mm::user_copy::{self, Fault};
use crate::percpu;
use crate::sched::{self, task::Task};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use kcore::restartable::{AREA_LEN, Sequence, UNINITIALIZED, Verdict, area};

/// What a thread registered. Its own thread alone changes it, or its maker.
pub struct Registration {
    /// Address of the area; 0: none.
    area: AtomicU64,
    len: AtomicU32,
    signature: AtomicU32,
}

impl Registration {
    /// Nothing.
    pub const fn new() -> Self {
        Self { area: AtomicU64::new(0), len: AtomicU32::new(0), signature: AtomicU32::new(0) }
    }
}

/// `child`, which has never run, has memory of its own with what `parent` has in it: and so its registration. `task` is the child's.
pub fn inherit(parent: &Thread, child: &Thread, task: &Task) {
    let (from, to) = (&parent.restartable, &child.restartable);
    let area = from.area.load(Ordering::Relaxed);
    to.area.store(area, Ordering::Relaxed);
    to.len.store(from.len.load(Ordering::Relaxed), Ordering::Relaxed);
    to.signature.store(from.signature.load(Ordering::Relaxed), Ordering::Relaxed);
    task.restartable.store(area != 0, Ordering::Relaxed);
    // Its maker may have been moved since the memory was copied.
    task.signal_pending.set_moved(area != 0);
}

/// The running thread's registration is gone: by its own wish, or because it runs another program.
pub fn forget(thread: &Thread) {
    thread.restartable.area.store(0, Ordering::Relaxed);
    sched::current().restartable.store(false, Ordering::Relaxed);
}

/// rseq(2)
pub fn register(at: u64, len: u32, flags: u32, signature: u32) -> SysResult {
    const UNREGISTER: u32 = 1;
    let thread = current_thread();
    let known = &thread.restartable;
    let (area, same) = (known.area.load(Ordering::Relaxed), known.signature.load(Ordering::Relaxed) == signature);
    let is_this = area == at && area != 0 && known.len.load(Ordering::Relaxed) == len;
    match flags {
        UNREGISTER if !is_this => Err(EINVAL),
        UNREGISTER if !same => Err(EPERM),
        UNREGISTER => {
            user_copy::write(at, &[0, UNINITIALIZED])?;
            user_copy::write(at + area::SEQUENCE, &0u64)?;
            user_copy::write(at + area::NODE_ID, &[0u32; 2])?;
            forget(thread);
            Ok(0)
        }
        0 if area != 0 => Err(match () {
            () if !is_this => EINVAL,
            () if !same => EPERM,
            () => EBUSY,
        }),
        0 if u64::from(len) < AREA_LEN || !at.is_multiple_of(AREA_LEN) => Err(EINVAL),
        0 if at == 0 => Err(EFAULT),
        0 => {
            user_copy::check(at, u64::from(len))?;
            // What memory had in it is no sequence.
            user_copy::write(at + area::SEQUENCE, &0u64)?;
            known.len.store(len, Ordering::Relaxed);
            known.signature.store(signature, Ordering::Relaxed);
            known.area.store(at, Ordering::Relaxed);
            // Whoever is moved to another CPU between the last two has it there, by the switch.
            sched::current().restartable.store(true, Ordering::Relaxed);
            sched::current().signal_pending.set_moved(true);
            cpu_head::add_exit_work(exit_work::RESTARTABLE);
            Ok(0)
        }
        _ => Err(EINVAL),
    }
}

/// Exit work begins: what asked for it is forgotten, so that it asks again from here on.
pub fn begin(irq_off: &IrqOff) {
    percpu::this(irq_off).head.exit_work.fetch_and(!exit_work::RESTARTABLE, Ordering::Relaxed);
    let task = sched::current();
    if task.signal_pending.look(Ordering::Relaxed).moved() {
        task.signal_pending.set_moved(false);
    }
}

/// Exit work: the running thread may have been away from its CPU, or gets a signal. `asked`: it was, or it is on another one. Who is in a
/// system call is in no sequence.
#[inline(always)]
pub fn before_user_mode(frame: &mut Frame, asked: bool) {
    if sched::current().restartable.load(Ordering::Relaxed) && (asked || frame.orig_rax == u64::MAX) {
        look(frame);
    }
}

/// Another task may have run on the running CPU while an exception of the running thread was handled. Interrupts are off.
#[inline(always)]
pub fn was_away() {
    if sched::current().restartable.load(Ordering::Relaxed) {
        cpu_head::add_exit_work(exit_work::RESTARTABLE);
    }
}

/// A sequence that it is in starts anew; its area names the CPU. A malformed one is forgotten, and SIGSEGV.
#[cold]
#[inline(never)]
fn look(frame: &mut Frame) {
    let Some(thread) = try_current_thread() else { return };
    let area = thread.restartable.area.load(Ordering::Relaxed);
    if area == 0 {
        return;
    }
    let restarted = restart(thread, area, frame);
    if restarted.is_err() {
        let _ = user_copy::write(area + area::SEQUENCE, &0u64); // if it is there at all
    }
    if restarted.and(tell_cpu(area)).is_err() {
        super::fault::say(thread, frame, format_args!("a malformed restartable sequence"));
        signal::force(signal::Info::from_kernel(signal::sig::SEGV));
    }
}

/// Fails where what the thread says of its sequence is malformed, or not there.
fn restart(thread: &Thread, area: u64, frame: &mut Frame) -> Result<(), Fault> {
    let descriptor: u64 = user_copy::read(area + area::SEQUENCE)?;
    if descriptor == 0 {
        return Ok(());
    }
    let sequence = Sequence::decode(&user_copy::read(descriptor)?, USER_END).ok_or(Fault)?;
    // As Linux does, also of a thread that is outside.
    let signature: u32 = user_copy::read(sequence.signature_at())?;
    if signature != thread.restartable.signature.load(Ordering::Relaxed) {
        return Err(Fault);
    }
    user_copy::write(area + area::SEQUENCE, &0u64)?;
    if let Verdict::Abort(at) = sequence.verdict(frame.rip) {
        frame.rip = at;
    }
    Ok(())
}

fn tell_cpu(area: u64) -> Result<(), Fault> {
    // Whoever is moved from here on has exit work again.
    let cpu = percpu::cpu();
    const _: () = assert!(area::CPU_ID == area::CPU_ID_START + 4 && area::MM_CID == area::NODE_ID + 4);
    user_copy::write(area + area::CPU_ID_START, &[cpu, cpu])?;
    // One node. No two threads run on one CPU at a time, so its number will do for the other.
    user_copy::write(area + area::NODE_ID, &[0, cpu])
}

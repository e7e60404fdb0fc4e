//! The end of a thread, and with the last one of a process.

use super::{Process, current_thread, ptrace, tree};
use crate::arch::irq_flag::IrqOff;
use crate::isolation::lease;
use crate::mm::{kernel_map, user_copy};
use crate::percpu;
use crate::sched::{self, futex};
use core::sync::atomic::Ordering;
use kcore::lease::EndCause;

/// exit_group(2): all threads end with `status` (a wait status).
pub fn exit_group(status: u32) -> ! {
    let thread = current_thread();
    let status = thread.process.set_ending(status);
    let others = thread.process.threads.lock().clone();
    for other in others.iter().filter(|t| t.task != thread.task) {
        let _ = sched::task::with(other.task, |t| sched::notify_signal(t));
    }
    thread.process.changed.wake_all();
    drop(others);
    exit_thread(status)
}

/// The running thread ends; `status` counts if it is the last one and nothing else was said.
pub fn exit_thread(status: u32) -> ! {
    let thread = current_thread();
    let task = sched::current();
    let process = &thread.process;
    lease::end_with(EndCause::Exit);
    futex::leave_locks(thread, false);
    let clear = thread.clear_child_tid.swap(0, Ordering::Relaxed);
    if clear != 0 && user_copy::write(clear, &0u32).is_ok() {
        let _ = futex::wake(clear, false, 1, u32::MAX);
    }
    // Before the look: who traces it from here on sees that it has ended.
    thread.ended.store(true, Ordering::SeqCst);
    let is_first = thread.tid.load(Ordering::Relaxed) == process.pid;
    let tracee_ends = || ptrace::tracee_ends(thread, process.ending().unwrap_or(status));
    if is_first && ptrace::anybody() {
        tracee_ends();
    }
    let last = {
        let mut threads = process.threads.lock();
        let at = threads.iter().position(|t| t.task == thread.task);
        let gone = at.map(|at| threads.remove(at));
        let last = threads.is_empty();
        drop(threads);
        drop(gone);
        last
    };
    if ptrace::anybody() {
        if !is_first {
            tracee_ends();
        }
        ptrace::tracer_ends(thread, last);
    }
    if !last {
        super::signal::leave_to_others(thread, !thread.blocked.load(Ordering::SeqCst));
    }
    process.ended_runtime_ns.fetch_add(sched::runtime_ns(task), Ordering::Relaxed);
    // SAFETY: the thread itself, with no reference to its parts alive.
    let (files, space) = unsafe { (thread.set_files(None), thread.set_address_space(None)) };
    drop(files);
    let mut shared_space = None;
    if last {
        let shared_files = process.files.lock().take();
        drop(shared_files);
        shared_space = process.address_space.lock().take();
        let program = process.program.lock().take();
        drop(program);
    }
    {
        let irq_off = IrqOff::new();
        task.root.store(kernel_map::root(), Ordering::Relaxed);
        sched::switch::load_address_space(percpu::this(&irq_off), kernel_map::root());
    }
    drop(space);
    drop(shared_space);
    if last {
        process_ends(process, process.ending().unwrap_or(status));
    } else {
        process.changed.wake_all();
    }
    sched::exit_current()
}

fn process_ends(process: &Process, status: u32) {
    if process.pid == 1 {
        let what = if status & 0x7f == 0 { "with status" } else { "by signal" };
        let number = if status & 0x7f == 0 { status >> 8 & 0xff } else { status & 0x7f };
        crate::panic::cannot_go_on(format_args!("init exited {what} {number}"));
    }
    super::timer::process_ends(process);
    let parent = process.vfork.lock().take();
    if let Some(parent) = parent {
        parent.complete();
    }
    let session = process.sid.load(Ordering::Relaxed);
    if session == process.pid {
        crate::tty::session_ended(session as i32);
    }
    tree::ended(process, status);
}

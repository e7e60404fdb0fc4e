//! Job control: a stop signal stops all threads of a process until SIGCONT.
//!
//! Called by signal delivery, process context. A traced thread stops for its tracer instead (`ptrace`).

use super::signal::{go_on, notify, threads};
use super::{Thread, ptrace, tree};
use core::sync::atomic::Ordering;

/// The running thread takes a stop signal: all threads stop, the parent is told, and told again when they go on. `continues`:
/// `Process::continues` when the signal was taken out.
pub fn stop(thread: &Thread, signal: u32, continues: u32) {
    let process = &thread.process;
    process.stop_signal.store(signal, Ordering::SeqCst);
    process.stopped.store(true, Ordering::SeqCst);
    // A SIGKILL or SIGCONT that came meanwhile wins.
    if process.ending().is_some() || process.continues.load(Ordering::SeqCst) != continues {
        go_on(process);
        return;
    }
    threads(process).iter().filter(|t| t.task != thread.task).for_each(|t| notify(t));
    tree::stop_changed(process, Some(signal));
    ptrace::group_stop(process, signal);
    if thread.traced.load(Ordering::SeqCst) {
        // It stops for its tracer, as the loop of `deliver_pending` finds.
        return;
    }
    wait_while_stopped(thread);
    if process.ending().is_none() {
        tree::stop_changed(process, None);
    }
}

/// All threads of a stopped process sleep here until it goes on, or they have to end, or are traced.
pub fn wait_while_stopped(thread: &Thread) {
    let process = &thread.process;
    let over = || {
        let over = !process.stopped.load(Ordering::SeqCst)
            || thread.traced.load(Ordering::SeqCst)
            || process.ending().is_some()
            || thread.must_end.load(Ordering::SeqCst);
        over.then_some(())
    };
    let _ = process.changed.wait(false, over);
}

//! The running process as the file system sees it: its descriptors, its working directory, its ids, and the signals that files send.
//!
//! Process context. Everything that files know of processes goes through here.

use super::place::Place;
use super::table::FileTable;
use super::work_dir::WorkDir;
use crate::process::signal::{self, Info, bit, sig};
use crate::process::{self, tree};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// What a kernel thread has: nothing open, and the root.
static NO_FILES: spin::Once<Arc<FileTable>> = spin::Once::new();
static NO_DIR: spin::Once<Arc<WorkDir>> = spin::Once::new();

/// The running process's descriptors.
#[inline]
pub fn files() -> &'static Arc<FileTable> {
    match process::try_current_thread().and_then(|t| t.files()) {
        Some(files) => files,
        None => no_files(),
    }
}

#[cold]
fn no_files() -> &'static Arc<FileTable> {
    NO_FILES.call_once(FileTable::new)
}

/// The running process's root: where its absolute paths start.
pub fn root() -> Arc<Place> {
    work_dir().root()
}

/// The running process's working directory, root and umask.
pub fn work_dir() -> &'static WorkDir {
    match process::try_current_thread() {
        Some(thread) => &thread.process.work_dir,
        None => NO_DIR.call_once(WorkDir::new),
    }
}

/// Process id.
pub fn pid() -> i32 {
    process::try_current_thread().map_or(0, |t| t.process.pid as i32)
}

/// Process group.
pub fn process_group() -> i32 {
    process::try_current_thread().map_or(0, |t| t.process.pgid.load(Ordering::Relaxed) as i32)
}

/// Session.
pub fn session() -> i32 {
    process::try_current_thread().map_or(0, |t| t.process.sid.load(Ordering::Relaxed) as i32)
}

/// Signals that wait for the running thread or its process.
pub fn waiting_signals() -> u64 {
    process::try_current_thread().map_or(0, |t| t.pending.set() | t.process.pending.set())
}

/// Take one of them that is in `set`: the thread's own first.
pub fn take_signal(set: u64) -> Option<Info> {
    let thread = process::try_current_thread()?;
    thread.pending.take(set).or_else(|| thread.process.pending.take(set))
}

/// SIGPIPE to the running thread.
pub fn raise_sigpipe() {
    if let Some(thread) = process::try_current_thread()
        && let Some(thread) = tree::find_thread(thread.tid.load(Ordering::Relaxed))
    {
        signal::send_to_thread(&thread, Info::from_kernel(sig::PIPE));
    }
}

/// Signal `signal` to the process group `group`. Process context.
pub fn signal_group(group: i32, signal: u32) {
    if group > 0 {
        signal::send_to_group(group as u32, Info::from_kernel(signal));
    }
}

/// Signal `signal` to the process `pid`, if it is there. Process context.
pub fn signal_process(pid: i32, signal: u32) {
    if let Some(process) = u32::try_from(pid).ok().and_then(tree::find).filter(|p| !tree::has_ended(p.pid)) {
        signal::send_to_process(&process, Info::from_kernel(signal));
    }
}

/// Whether the running thread ignores or blocks `signal`.
pub fn is_ignored_or_blocked(signal: u32) -> bool {
    process::try_current_thread().is_some_and(|thread| {
        thread.blocked.load(Ordering::Relaxed) & bit(signal) != 0
            || thread.process.actions.lock().of(signal).handler == signal::IGNORE
    })
}

/// Whether nobody could let the running process's group go on after a stop.
pub fn is_group_orphaned() -> bool {
    tree::is_orphaned(process_group() as u32, session() as u32)
}

/// The session of the process group `group`, if there is one.
pub fn session_of_group(group: i32) -> Option<i32> {
    let mut session = None;
    tree::each_live(
        |p| p.pgid.load(Ordering::Relaxed) as i32 == group,
        |p| session = Some(p.sid.load(Ordering::Relaxed) as i32),
    );
    session
}

/// Run `wait` with `mask` as the running thread's blocked signals. A signal that ends the wait is handled with `mask` still in place.
pub fn with_signal_mask<R>(mask: u64, wait: impl FnOnce() -> R) -> R {
    let Some(thread) = process::try_current_thread() else { return wait() };
    let before = thread.blocked.load(Ordering::Relaxed);
    signal::set_blocked(thread, mask);
    let result = wait();
    if thread.deliverable() != 0 {
        // Delivery goes back to the old set: after the handler, or at once if there is none.
        thread.save_blocked(before);
        signal::look_again();
    } else {
        signal::set_blocked(thread, before);
    }
    result
}

//! The running process as the file system sees it: its descriptors, its working directory, its ids, and the signals that files send.
//!
//! Process context. Everything that files know of processes goes through here.

use super::table::FileTable;
use super::work_dir::WorkDir;
use alloc::sync::Arc;

static FILES: spin::Once<Arc<FileTable>> = spin::Once::new();
static DIR: spin::Once<Arc<WorkDir>> = spin::Once::new();

/// The running process's descriptors.
pub fn files() -> &'static FileTable {
    FILES.call_once(FileTable::new)
}

/// The running process's working directory and umask.
pub fn work_dir() -> &'static WorkDir {
    DIR.call_once(WorkDir::new)
}

/// Process id.
pub fn pid() -> i32 {
    crate::sched::current().tid() as i32
}

/// Process group.
pub fn process_group() -> i32 {
    0
}

/// Session.
pub fn session() -> i32 {
    0
}

/// SIGPIPE to the running thread.
pub fn raise_sigpipe() {}

/// Signal `signal` to the process group `group`. Process context.
pub fn signal_group(_group: i32, _signal: u32) {}

/// Whether the running thread ignores or blocks `signal`.
pub fn is_ignored_or_blocked(_signal: u32) -> bool {
    false
}

/// The session of the process group `group`, if there is one.
pub fn session_of_group(_group: i32) -> Option<i32> {
    Some(session())
}

/// Run `wait` with `mask` as the running thread's blocked signals. A signal that ends the wait is handled with `mask` still in place.
pub fn with_signal_mask<R>(_mask: u64, wait: impl FnOnce() -> R) -> R {
    wait()
}

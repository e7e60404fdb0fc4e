//! Processes and their threads: what a user task is besides a thing that runs.
//!
//! A `sched::task::Task` that runs user code owns a `Thread`; threads of one process share its `Process`. Process context only,
//! but for what says otherwise. `tree` knows all processes.

mod call_restart;
pub mod exec;
pub mod exit;
pub mod fault;
pub mod fork;
pub mod init;
mod job_stop;
pub mod lease_breach;
pub mod missing;
pub mod oom;
pub mod pending_signals;
pub mod ptrace;
pub mod ptrace_registers;
pub mod random;
pub mod restartable;
pub mod signal;
pub mod signal_delivery;
pub mod signal_frame;
pub mod timer;
pub mod tree;
pub mod user_stack;

pub use init::start_init;

use crate::fs::{FileTable, WorkDir};
use crate::mm::address_space::AddressSpace;
use crate::sched::task::Task;
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use pending_signals::PendingSignals;
use signal::SignalActions;

/// What the threads of a program share.
pub struct Process {
    /// Process id: the first thread's id.
    pub pid: u32,
    /// The parent's pid; 0 for the first process and for orphans of nobody.
    pub ppid: AtomicU32,
    /// Process group.
    pub pgid: AtomicU32,
    /// Session.
    pub sid: AtomicU32,
    /// It has called execve since it was forked (setpgid looks).
    pub has_execed: AtomicBool,
    /// Its address space, for others than its own threads; `None` once it has ended.
    pub address_space: SpinLock<Option<Arc<AddressSpace>>, { rank::PROCESS_PART }>,
    /// Its descriptors, for others than its own threads; `None` once it has ended.
    pub files: SpinLock<Option<Arc<FileTable>>, { rank::PROCESS_PART }>,
    /// Working directory and umask.
    pub work_dir: Arc<WorkDir>,
    /// Path of the program: what /proc/PID/comm is named by when its task has gone.
    pub exe: SpinLock<Vec<u8>, { rank::PROCESS_PART }>,
    /// The file that it runs; `None` after its last thread.
    pub program: SpinLock<Option<Arc<crate::fs::Running>>, { rank::PROCESS_PART }>,
    /// Arguments, each with its NUL, for /proc/PID/cmdline.
    pub cmdline: SpinLock<Vec<u8>, { rank::PROCESS_PART }>,
    /// Its first stack pointer: above it lie arguments, environment and auxiliary vector.
    pub stack_start: AtomicU64,
    /// Threads that have not ended.
    pub threads: SpinLock<Vec<Arc<Thread>>, { rank::PROCESS_PART }>,
    /// Signal handlers.
    pub actions: SpinLock<SignalActions, { rank::PROCESS_PART }>,
    /// Signals for any of its threads.
    pub pending: PendingSignals,
    /// GROUP_EXIT | wait status, once all threads have to end.
    group_exit: AtomicU64,
    /// All threads sleep until SIGCONT.
    pub stopped: AtomicBool,
    /// The signal that stopped it last.
    pub stop_signal: AtomicU32,
    /// SIGKILL has come: nothing keeps its threads from ending.
    pub killed: AtomicBool,
    /// Pid of the tracer that its first thread had at its end; 0: none.
    pub traced_by: AtomicU32,
    /// How many SIGCONT there were; they wrap.
    pub continues: AtomicU32,
    /// Task index of the thread that ends all others to run another program; 0: none. No thread is added meanwhile.
    pub exec_by: AtomicU32,
    /// Who waits for `stopped` to end, or for the other threads to end.
    pub changed: WaitQueue,
    /// Where its threads wait for its children.
    pub children_changed: WaitQueue,
    /// The vfork parent that waits for exec or exit.
    pub vfork: SpinLock<Option<Arc<Completion>>, { rank::PROCESS_PART }>,
    /// The signal that its parent gets at its end; 0 = none.
    pub exit_signal: AtomicU32,
    /// Nanoseconds that threads which have ended ran.
    pub ended_runtime_ns: AtomicU64,
    /// When it was made, ns since boot.
    pub start_ns: u64,
    /// Its timers that send signals.
    pub timers: SpinLock<timer::Timers, { rank::PROCESS_PART }>,
    /// personality(2): kept, and inherited; of its flags ADDR_NO_RANDOMIZE does something.
    pub personality: AtomicU32,
    /// RLIMIT_NOFILE and the like are constants; the nice value is kept.
    pub nice: core::sync::atomic::AtomicI32,
    /// Who ends first when memory runs out: -1000 (never) to 1000 (`kcore::oom`); inherited.
    pub oom_score_adj: core::sync::atomic::AtomicI32,
}

/// Bit of `Process::group_exit`: the process ends.
const GROUP_EXIT: u64 = 1 << 32;

/// A value that its own thread alone touches.
struct Own<T>(UnsafeCell<T>);
// SAFETY: by `Thread`'s rule only the thread itself touches it, and the thread before it has ever run.
unsafe impl<T: Send> Sync for Own<T> {}

impl<T: Copy> Own<T> {
    fn get(&self) -> T {
        // SAFETY: by the rule above nobody changes it meanwhile.
        unsafe { *self.0.get() }
    }

    fn set(&self, value: T) {
        // SAFETY: by the rule above nobody else looks, and `get` leaves no reference behind.
        unsafe { *self.0.get() = value };
    }
}

/// What a user task is besides a task. Lives as long as its task's memory.
pub struct Thread {
    /// Its process.
    pub process: Arc<Process>,
    /// Thread id as the program sees it.
    pub tid: AtomicU32,
    /// Index of its task.
    pub task: u32,
    address_space: Own<Option<Arc<AddressSpace>>>,
    files: Own<Option<Arc<FileTable>>>,
    /// Signals that wait while they are in this set.
    pub blocked: AtomicU64,
    /// Signals that rt_sigtimedwait has opened although the thread blocks them: they are kept even where they are ignored.
    pub waits_for: AtomicU64,
    /// The set to go back to after sigsuspend; `None` outside.
    saved_blocked: Own<Option<u64>>,
    /// Signals that went to its process as one of several, since its last clone began: the child of that clone takes them too.
    pub sent_to_many: AtomicU64,
    /// Signals for this thread.
    pub pending: PendingSignals,
    /// What it sent to itself by the system call that ends now; its signal is 0: nothing (`signal::send_to_self`).
    sent_to_self: Own<signal::Info>,
    /// Its last fault, which every signal frame tells.
    pub last_fault: fault::LastFault,
    /// sigaltstack(2): address, size, flags.
    alternate_stack: Own<signal_frame::AlternateStack>,
    /// The word to clear and wake when the thread ends; 0 = none.
    pub clear_child_tid: AtomicU64,
    /// Head of the robust-futex list; 0 = none.
    pub robust_list: AtomicU64,
    /// What it told rseq(2).
    pub restartable: restartable::Registration,
    /// The thread must end (another thread calls execve).
    pub must_end: AtomicBool,
    /// What restart_syscall goes on with.
    pub restart: SpinLock<Restart, { rank::PROCESS_PART }>,
    /// PR_SET_PDEATHSIG.
    pub parent_death_signal: AtomicU32,
    /// Timer slack, kept for prctl: nothing here is late on purpose.
    pub timer_slack_ns: AtomicU64,
    /// What PR_SET_TIMERSLACK with 0 goes back to.
    pub usual_timer_slack_ns: u64,
    /// Traced: system calls, signals and more go through `ptrace`. Changed under its lock.
    pub traced: AtomicBool,
    /// Stopped for its tracer.
    pub stands: AtomicBool,
    /// Its registers meanwhile.
    pub stopped: SpinLock<Option<alloc::boxed::Box<ptrace_registers::Registers>>, { rank::PROCESS_PART }>,
    /// It has ended: nobody traces it any more.
    pub ended: AtomicBool,
    /// The policy that sched_setscheduler(2) set, with `RESET_ON_FORK`; the task's class follows from it.
    pub policy: AtomicU32,
}

/// SCHED_RESET_ON_FORK: children have the usual policy.
pub const RESET_ON_FORK: u32 = 0x4000_0000;

/// What restart_syscall(2) goes on with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Nothing: EINTR.
    Nothing,
    /// A sleep to this TSC value; where to write what is left (0 = nowhere).
    Sleep {
        /// End of the sleep.
        deadline_tsc: u64,
        /// Where to write what is left.
        left: u64,
    },
}

/// Something that happens once.
pub struct Completion {
    done: AtomicBool,
    waiters: WaitQueue,
}

impl Completion {
    /// It has not happened.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { done: AtomicBool::new(false), waiters: WaitQueue::new() })
    }

    /// It happened.
    pub fn complete(&self) {
        self.done.store(true, Ordering::SeqCst);
        self.waiters.wake_all();
    }

    /// Wait for it, as `thread`, the running one. Of all signals only what ends the thread ends the wait; others are handled after it.
    pub fn wait(&self, thread: &Thread) {
        let over = || {
            let over = self.done.load(Ordering::SeqCst)
                || thread.process.ending().is_some()
                || thread.must_end.load(Ordering::SeqCst);
            over.then_some(())
        };
        while self.waiters.wait(true, over).is_err() {
            // Seen: `over` is asked again after this, so that an end said before is not missed.
            crate::sched::current().signal_pending.store(false, Ordering::SeqCst);
        }
        signal::look_again();
    }
}

impl Process {
    /// The wait status with which all threads have to end, if they have to.
    #[inline]
    pub fn ending(&self) -> Option<u32> {
        let v = self.group_exit.load(Ordering::SeqCst);
        (v & GROUP_EXIT != 0).then_some(v as u32)
    }

    /// All threads have to end with `status`, unless they have to already. Returns the status that counts.
    pub fn set_ending(&self, status: u32) -> u32 {
        match self.group_exit.compare_exchange(0, GROUP_EXIT | status as u64, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => status,
            Err(first) => first as u32,
        }
    }

    /// Time that its threads ran, ns.
    pub fn runtime_ns(&self) -> u64 {
        let live: u64 =
            self.threads.lock().iter().filter_map(|t| crate::sched::task::with(t.task, crate::sched::runtime_ns)).sum();
        self.ended_runtime_ns.load(Ordering::Relaxed) + live
    }
}

impl Thread {
    /// The address space it runs in. Its own thread only; `None` after it was given up.
    #[inline]
    pub fn address_space(&self) -> Option<&Arc<AddressSpace>> {
        // SAFETY: own thread, and it replaces the value only where no reference is held (exec, exit).
        unsafe { (*self.address_space.0.get()).as_ref() }
    }

    /// Its descriptors. Its own thread only; `None` after they were given up.
    #[inline]
    pub fn files(&self) -> Option<&Arc<FileTable>> {
        // SAFETY: as in `address_space`.
        unsafe { (*self.files.0.get()).as_ref() }
    }

    /// Its alternate stack for signals. Its own thread only.
    #[inline]
    pub fn alternate_stack(&self) -> signal_frame::AlternateStack {
        self.alternate_stack.get()
    }

    /// Change it. Its own thread only, or before it has ever run.
    #[inline]
    pub fn set_alternate_stack(&self, stack: signal_frame::AlternateStack) {
        self.alternate_stack.set(stack);
    }

    /// Signal delivery goes back to `set` as the blocked signals. Its own thread only.
    #[inline]
    pub fn save_blocked(&self, set: u64) {
        self.saved_blocked.set(Some(set));
    }

    /// What `save_blocked` said, once. Its own thread only.
    #[inline]
    pub fn take_saved_blocked(&self) -> Option<u64> {
        let saved = self.saved_blocked.get();
        self.saved_blocked.set(None);
        saved
    }

    /// What waits in `sent_to_self`. Its own thread only, which changes it by `set_sent_to_self` alone.
    #[inline(always)]
    fn sent_to_self(&self) -> &signal::Info {
        // SAFETY: own thread, and it replaces the value only where no reference is held (`signal`).
        unsafe { &*self.sent_to_self.0.get() }
    }

    /// Change it. Its own thread only, with no reference from `sent_to_self` alive.
    #[inline(always)]
    fn set_sent_to_self(&self, info: signal::Info) {
        self.sent_to_self.set(info);
    }

    /// Nothing waits there any more. As `set_sent_to_self`.
    #[inline(always)]
    fn clear_sent_to_self(&self) {
        // SAFETY: own thread, and no reference is alive.
        unsafe { (*self.sent_to_self.0.get()).signal = 0 };
    }

    /// Change the address space; returns the old one.
    ///
    /// # Safety
    /// The thread itself calls, with no reference from `address_space` alive; or the thread has never run.
    unsafe fn set_address_space(&self, new: Option<Arc<AddressSpace>>) -> Option<Arc<AddressSpace>> {
        // SAFETY: the caller's conditions.
        unsafe { core::mem::replace(&mut *self.address_space.0.get(), new) }
    }

    /// Change the descriptors; returns the old ones.
    ///
    /// # Safety
    /// As `set_address_space`.
    unsafe fn set_files(&self, new: Option<Arc<FileTable>>) -> Option<Arc<FileTable>> {
        // SAFETY: the caller's conditions.
        unsafe { core::mem::replace(&mut *self.files.0.get(), new) }
    }
}

/// The thread behind a user task, by its task's `owner`.
#[inline(always)]
fn thread_of_current() -> *const Thread {
    crate::sched::current().owner.load(Ordering::Relaxed) as *const Thread
}

/// The running thread. Only in the context of a user task (system calls, faults, exit work).
#[inline(always)]
pub fn current_thread() -> &'static Thread {
    // SAFETY: 1. a user task's `owner` points to its thread; 2. the task keeps the thread alive as long as it exists, and the caller
    // runs in that task.
    unsafe { &*thread_of_current() }
}

/// The running thread, or `None` in a kernel thread.
#[inline]
pub fn try_current_thread() -> Option<&'static Thread> {
    // SAFETY: as in `current_thread`; null for kernel threads.
    unsafe { thread_of_current().as_ref() }
}

/// The running process. As `current_thread`.
#[inline(always)]
pub fn current() -> &'static Process {
    &current_thread().process
}

/// The thread behind `task`, if it is a user task. Any context; the caller holds the task.
pub fn thread_of(task: &Task) -> Option<&Thread> {
    // SAFETY: a task keeps its thread alive as long as it exists, and the caller keeps the task.
    unsafe { (task.owner.load(Ordering::Acquire) as *const Thread).as_ref() }
}

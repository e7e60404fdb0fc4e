//! New threads and processes: clone(2), with fork and vfork as its special cases.

use super::pending_signals::PendingSignals;
use super::signal::{self, SignalActions, sig};
use super::signal_frame::AlternateStack;
use super::{Completion, Own, Process, Restart, Thread, WaitQueue, current_thread, restartable, tree};
use crate::arch::irq_flag::IrqOff;
use crate::entry::frame::Frame;
use crate::errno::{EAGAIN, EBUSY, EINVAL, ENOMEM, EPERM, ERESTARTNOINTR, Errno, SysResult};
use crate::fs::open_file::flag as open_flag;
use crate::fs::pid_file::PidFile;
use crate::fs::table::Reserved;
use crate::fs::{FileTable, OpenFile, WorkDir, current};
use crate::mm::address_space::AddressSpace;
use crate::mm::{failure, user_copy};
use crate::rcu::deferred_free::reclaim;
use crate::sched::task::{self, NewTaskError, Task};
use crate::sched::{self, switch};
use crate::spin_lock::SpinLock;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use kcore::ptrace::{self, Event};
use kcore::run_queue::Class;
use x86_64::registers::model_specific::Msr;
use x86_64::registers::segmentation::{FS, Segment64};

/// Flags of clone(2) (linux/sched.h).
#[allow(missing_docs, reason = "the names say it")]
pub mod flag {
    pub const SIGNAL: u64 = 0xff;
    pub const VM: u64 = 0x100;
    pub const FS: u64 = 0x200;
    pub const FILES: u64 = 0x400;
    pub const SIGHAND: u64 = 0x800;
    pub const PIDFD: u64 = 0x1000;
    pub const PTRACE: u64 = 0x2000;
    pub const VFORK: u64 = 0x4000;
    pub const PARENT: u64 = 0x8000;
    pub const THREAD: u64 = 0x1_0000;
    pub const SETTLS: u64 = 0x8_0000;
    pub const PARENT_SETTID: u64 = 0x10_0000;
    pub const CHILD_CLEARTID: u64 = 0x20_0000;
    pub const UNTRACED: u64 = 0x80_0000;
    pub const CHILD_SETTID: u64 = 0x100_0000;
    pub const DETACHED: u64 = 0x40_0000;
    /// New namespaces: not here.
    pub const REFUSED: u64 = 0x7c02_0080;
}

/// clone's arguments in the x86-64 order.
pub struct Clone {
    /// flag::*
    pub flags: u64,
    /// The child's stack pointer; 0 = the parent's.
    pub stack: u64,
    /// Where PIDFD writes.
    pub pidfd: u64,
    /// Where PARENT_SETTID writes.
    pub parent_tid: u64,
    /// Where CHILD_SETTID writes and CHILD_CLEARTID clears.
    pub child_tid: u64,
    /// FS base for SETTLS.
    pub tls: u64,
}

impl From<NewTaskError> for Errno {
    fn from(e: NewTaskError) -> Self {
        match e {
            NewTaskError::NoId => EAGAIN,
            NewTaskError::NoMemory => ENOMEM,
        }
    }
}

/// Parts of a new thread, whoever makes it.
pub(super) fn new_thread(process: Arc<Process>, task: &Task, space: Arc<AddressSpace>, blocked: u64) -> Arc<Thread> {
    let files = process.files.lock().clone();
    // What the maker has is the usual one of what it makes.
    let timer_slack_ns = super::try_current_thread().map_or(50_000, |t| t.timer_slack_ns.load(Ordering::Relaxed));
    task.root.store(space.root(), Ordering::Relaxed);
    let thread = Arc::new(Thread {
        process,
        tid: AtomicU32::new(task.index),
        task: task.index,
        address_space: Own(UnsafeCell::new(Some(space))),
        files: Own(UnsafeCell::new(files)),
        blocked: AtomicU64::new(blocked),
        waits_for: AtomicU64::new(0),
        saved_blocked: Own(UnsafeCell::new(None)),
        sent_to_many: AtomicU64::new(0),
        pending: PendingSignals::new(),
        sent_to_self: Own(UnsafeCell::new(super::signal::Info::NONE)),
        last_fault: super::fault::LastFault::new(),
        alternate_stack: Own(UnsafeCell::new(AlternateStack::default())),
        clear_child_tid: AtomicU64::new(0),
        robust_list: AtomicU64::new(0),
        restartable: restartable::Registration::new(),
        must_end: AtomicBool::new(false),
        restart: SpinLock::new(Restart::Nothing),
        parent_death_signal: AtomicU32::new(0),
        timer_slack_ns: AtomicU64::new(timer_slack_ns),
        usual_timer_slack_ns: timer_slack_ns,
        traced: AtomicBool::new(false),
        stands: AtomicBool::new(false),
        stopped: SpinLock::new(None),
        ended: AtomicBool::new(false),
        policy: AtomicU32::new(0),
    });
    task.set_owner(thread.clone());
    thread
}

/// The new thread is one of its process, unless another of its threads runs execve: then the caller, which has to end, looks again.
pub(super) fn join(thread: &Arc<Thread>) -> Result<(), Errno> {
    let mut threads = thread.process.threads.lock();
    if thread.process.exec_by.load(Ordering::SeqCst) != 0 {
        return Err(ERESTARTNOINTR);
    }
    threads.push(thread.clone());
    Ok(())
}

/// Undo the making of a thread that has never run and that only its maker knows.
fn discard(thread: Arc<Thread>, task: &Task) {
    // SAFETY: the thread has never run.
    let (files, space) = unsafe { (thread.set_files(None), thread.set_address_space(None)) };
    drop((files, space));
    task::release(task);
}

/// As `discard`, for a process with its only thread.
fn discard_process(process: &Process, thread: Arc<Thread>, task: &Task) {
    let threads = core::mem::take(&mut *process.threads.lock());
    drop(threads);
    let files = process.files.lock().take();
    let space = process.address_space.lock().take();
    drop((files, space));
    discard(thread, task);
}

/// A process without threads yet.
#[allow(clippy::too_many_arguments, reason = "all that differs between the first process and a fork")]
pub(super) fn new_process(
    pid: u32,
    parent: Option<&Process>,
    exit_signal: u32,
    space: Arc<AddressSpace>,
    files: Arc<FileTable>,
    work_dir: Arc<WorkDir>,
    actions: SignalActions,
) -> Arc<Process> {
    let of = |f: fn(&Process) -> &AtomicU32, otherwise: u32| {
        AtomicU32::new(parent.map_or(otherwise, |p| f(p).load(Ordering::Relaxed)))
    };
    let bytes = |f: fn(&Process) -> Vec<u8>| SpinLock::new(parent.map_or(Vec::new(), f));
    Arc::new(Process {
        pid,
        ppid: AtomicU32::new(parent.map_or(0, |p| p.pid)),
        pgid: of(|p| &p.pgid, pid),
        sid: of(|p| &p.sid, pid),
        has_execed: AtomicBool::new(false),
        address_space: SpinLock::new(Some(space)),
        files: SpinLock::new(Some(files)),
        work_dir,
        exe: bytes(|p| p.exe.lock().clone()),
        program: SpinLock::new(parent.and_then(|p| p.program.lock().clone())),
        cmdline: SpinLock::new(Vec::new()),
        stack_start: AtomicU64::new(parent.map_or(0, |p| p.stack_start.load(Ordering::Relaxed))),
        threads: SpinLock::new(Vec::new()),
        actions: SpinLock::new(actions),
        pending: PendingSignals::new(),
        group_exit: AtomicU64::new(0),
        stopped: AtomicBool::new(false),
        stop_signal: AtomicU32::new(0),
        killed: AtomicBool::new(false),
        traced_by: AtomicU32::new(0),
        continues: AtomicU32::new(0),
        exec_by: AtomicU32::new(0),
        changed: WaitQueue::new(),
        children_changed: WaitQueue::new(),
        vfork: SpinLock::new(None),
        exit_signal: AtomicU32::new(exit_signal),
        ended_runtime_ns: AtomicU64::new(0),
        start_ns: crate::arch::tsc::now_ns(),
        timers: SpinLock::new(super::timer::Timers::new()),
        personality: AtomicU32::new(parent.map_or(0, |p| p.personality.load(Ordering::Relaxed))),
        nice: AtomicI32::new(parent.map_or(0, |p| p.nice.load(Ordering::Relaxed))),
        oom_score_adj: AtomicI32::new(parent.map_or(0, |p| p.oom_score_adj.load(Ordering::Relaxed))),
    })
}

/// A copy of bytes that may be many.
fn try_copy(bytes: &SpinLock<Vec<u8>, { crate::spin_lock::rank::PROCESS_PART }>) -> Result<Vec<u8>, Errno> {
    let bytes = bytes.lock();
    let mut copy = Vec::new();
    if failure::strikes() || copy.try_reserve_exact(bytes.len()).is_err() {
        return Err(ENOMEM);
    }
    copy.extend_from_slice(&bytes);
    Ok(copy)
}

/// Give a task that has never run what the CPU holds for the running one: FPU state, segment bases, affinity, class.
fn copy_task_state(from: &Task, to: &Task) {
    const KERNEL_GS_BASE: u32 = 0xc000_0102;
    to.run.set_class(from.run.own_class());
    let _irq_off = IrqOff::new();
    to.inherit_allowed(from);
    // SAFETY: interrupts are off: the CPU holds `from`'s state, and `to` does not run.
    unsafe {
        if let (Some(a), Some(b)) = (&from.fpu, &to.fpu) {
            a.save();
            b.copy_from(a);
        }
        to.user_bases.set_fs(FS::read_base().as_u64());
        to.user_bases.set_gs(Msr::new(KERNEL_GS_BASE).read());
    }
}

/// The scheduling policy of `me`, or the usual one where it asked for that (SCHED_RESET_ON_FORK).
fn inherit_policy(me: &Thread, thread: &Thread, task: &Task) {
    let policy = me.policy.load(Ordering::Relaxed);
    if policy & super::RESET_ON_FORK == 0 {
        thread.policy.store(policy, Ordering::Relaxed);
    } else {
        task.run.set_class(Class::Fair);
    }
}

/// clone(2): the child's thread id. `frame` is the caller's.
pub fn clone(frame: &mut Frame, args: &Clone) -> SysResult {
    let Clone { flags, .. } = *args;
    let has = |f: u64| flags & f != 0;
    let bad = has(flag::THREAD) && !has(flag::SIGHAND) || has(flag::SIGHAND) && !has(flag::VM) || has(flag::REFUSED);
    if bad || flags & flag::SIGNAL > sig::MAX as u64 {
        return Err(EINVAL);
    }
    // One by descriptor is a process, and clone's old forms have one address for both.
    let bad_pidfd =
        has(flag::THREAD) || has(flag::DETACHED) || has(flag::PARENT_SETTID) && args.pidfd == args.parent_tid;
    if has(flag::PIDFD) && bad_pidfd {
        return Err(EINVAL);
    }
    if has(flag::SETTLS) && args.tls >= crate::arch::page_table::USER_END {
        return Err(EPERM);
    }
    // The child would start on the leased CPU.
    if crate::isolation::lease::is_held_by_current() {
        return Err(EBUSY);
    }
    // Programs that run need what is left.
    let enough = || crate::mm::frame::above_reserve(2);
    if !(enough() || reclaim() && enough()) {
        return Err(ENOMEM);
    }
    let me = current_thread();
    let parent = &me.process;
    me.sent_to_many.store(0, Ordering::SeqCst);
    let space = me.address_space().ok_or(ENOMEM)?;
    let space = if has(flag::VM) { space.clone() } else { Arc::new(space.fork().ok_or(ENOMEM)?) };
    // What can fail comes before the task, which would have to be taken back.
    let pidfd = if has(flag::PIDFD) { Some(reserve_number(args.pidfd)?) } else { None };
    let parts = if has(flag::THREAD) {
        None
    } else {
        let files = me.files().ok_or(ENOMEM)?;
        let files = if has(flag::FILES) { files.clone() } else { files.clone_table().ok_or(ENOMEM)? };
        Some((files, try_copy(&parent.cmdline)?))
    };
    let comm = sched::current().comm();
    let task = task::new_user(task::comm_str(&comm).as_bytes())?;
    copy_task_state(sched::current(), &task);

    let blocked = me.blocked.load(Ordering::Relaxed);
    let completion = has(flag::VFORK).then(Completion::new);
    let thread = if let Some((files, cmdline)) = parts {
        let work_dir = if has(flag::FS) { parent.work_dir.clone() } else { parent.work_dir.clone_dir() };
        let actions = parent.actions.lock().clone();
        // To a sibling's parent goes what the caller's own end says, as in Linux: nobody chooses a signal for a stranger.
        let exit_signal =
            if has(flag::PARENT) { parent.exit_signal.load(Ordering::Relaxed) } else { (flags & flag::SIGNAL) as u32 };
        let process = new_process(task.index, Some(parent), exit_signal, space.clone(), files, work_dir, actions);
        *process.cmdline.lock() = cmdline;
        *process.vfork.lock() = completion.clone();
        let ppid = if has(flag::PARENT) { parent.ppid.load(Ordering::Relaxed) } else { parent.pid };
        process.ppid.store(ppid, Ordering::Relaxed);
        let thread = new_thread(process.clone(), &task, space, blocked);
        if !has(flag::VM) || has(flag::VFORK) {
            thread.set_alternate_stack(me.alternate_stack());
        }
        if !has(flag::VM) {
            restartable::inherit(me, &thread, &task);
        }
        if let Err(e) = join(&thread) {
            discard_process(&process, thread, &task);
            return Err(e);
        }
        // A signal to the group finds the child too, or is found here. Then the call starts again after it; or the child takes it, if
        // the parent blocks it (as fork does in C libraries).
        let mut missed = 0;
        let interrupted = || {
            missed = me.sent_to_many.load(Ordering::SeqCst);
            me.deliverable() != 0 || parent.ending().is_some() || me.must_end.load(Ordering::SeqCst)
        };
        if !tree::insert(process.clone(), ppid, interrupted) {
            discard_process(&process, thread, &task);
            return Err(ERESTARTNOINTR);
        }
        if let Some(reserved) = pidfd {
            reserved.fill(OpenFile::new(Arc::new(PidFile(process.clone())), open_flag::RDWR, None), true);
        }
        signal::send_set(&process, missed);
        thread
    } else {
        let thread = new_thread(parent.clone(), &task, space, blocked);
        if let Err(e) = join(&thread) {
            discard(thread, &task);
            return Err(e);
        }
        thread
    };
    inherit_policy(me, &thread, &task);
    if has(flag::SETTLS) {
        task.user_bases.set_fs(args.tls);
    }
    if has(flag::CHILD_CLEARTID) {
        thread.clear_child_tid.store(args.child_tid, Ordering::Relaxed);
    }
    let tid = task.index;
    if has(flag::CHILD_SETTID)
        && let Some(space) = thread_space(&thread)
    {
        let _ = space.write(args.child_tid, &tid.to_le_bytes());
    }
    if has(flag::PARENT_SETTID) {
        let _ = user_copy::write(args.parent_tid, &tid);
    }
    let mut child = frame.clone();
    child.rax = 0;
    child.orig_rax = u64::MAX;
    if args.stack != 0 {
        child.rsp = args.stack;
    }
    switch::prepare_user(&task, &child);
    // It looks once whether its process ends already.
    if has(flag::THREAD) {
        task.signal_pending.store(true, Ordering::SeqCst);
    }
    let event = ptrace::clone_event((flags & flag::SIGNAL) as u32, has(flag::VFORK), has(flag::UNTRACED));
    let heard = me.traced.load(Ordering::SeqCst) && super::ptrace::child_begins(me, &thread, event, has(flag::PTRACE));
    sched::start(&task);
    if let Some(event) = event.filter(|_| heard) {
        super::ptrace::event(me, frame, event, tid as u64);
    }
    if let Some(completion) = completion {
        completion.wait(me);
        super::ptrace::event(me, frame, Event::VforkDone, tid as u64);
    }
    Ok(tid as u64)
}

/// The number of a descriptor that is to be opened, told at `at`.
fn reserve_number(at: u64) -> Result<Reserved<'static>, Errno> {
    let reserved = current::files().reserve()?;
    user_copy::write(at, &reserved.number())?;
    Ok(reserved)
}

/// The address space of a thread that has not run yet.
fn thread_space(thread: &Thread) -> Option<Arc<AddressSpace>> {
    // SAFETY: it has not run, so nobody changes it.
    unsafe { (*thread.address_space.0.get()).clone() }
}

//! All processes: by id, with parents and children, and what wait4 takes from them.
//!
//! One lock of the lowest rank; signals are sent with it held. An ended process stays until its parent has waited for it.

use super::signal::{self, Info, sig};
use super::{Process, Thread, ptrace};
use crate::errno::{ECHILD, EPERM, ESRCH, Errno};
use crate::sched::task;
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// A list of children keeps room for so many. What a crowd needed beyond that goes back as it ends: init takes over all orphans, and never ends.
const ROOM: usize = 4;

/// How a process stands, for its parent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    Ended { status: u32 },
}

impl Life {
    /// The wait status of one that has ended.
    fn status(self) -> Option<u32> {
        match self {
            Life::Alive => None,
            Life::Ended { status } => Some(status),
        }
    }
}

struct Node {
    process: Arc<Process>,
    children: Vec<u32>,
    life: Life,
    /// A stop or continuation that the parent has not seen: its wait status.
    report: Option<u32>,
    /// CPU time of children that were waited for, ns.
    waited_runtime_ns: u64,
}

impl Node {
    /// The child is nobody's any more.
    fn forget_child(&mut self, child: u32) {
        let children = &mut self.children;
        if let Some(at) = children.iter().position(|&c| c == child) {
            children.remove(at);
        }
        // A quarter, so that the next child does not take at once what this one gave back.
        if children.capacity() > ROOM && children.len() <= children.capacity() / 4 {
            let mut smaller = Vec::new();
            // Where there is no memory, the list keeps what it has.
            if smaller.try_reserve_exact((2 * children.len()).max(ROOM)).is_ok() {
                smaller.append(children);
                *children = smaller;
            }
        }
    }
}

static TREE: SpinLock<BTreeMap<u32, Node>, { rank::PROCESS }> = SpinLock::new(BTreeMap::new());

/// Whose end or change wait4 asks for.
#[derive(Clone, Copy)]
pub enum Who<'a> {
    /// Any child.
    Any,
    /// The child of this number.
    Pid(u32),
    /// This child, and no later one with its number.
    This(&'a Process),
    /// Any child of this group.
    Group(u32),
}

/// What wait4 found.
pub struct Waited {
    /// The child.
    pub pid: u32,
    /// Its wait status.
    pub status: u32,
    /// Its CPU time, ns.
    pub runtime_ns: u64,
    /// It is stopped for its tracer, who asks.
    pub trapped: bool,
}

/// Wait status of a stop by `signal`.
pub const fn stopped_status(signal: u32) -> u32 {
    signal << 8 | 0x7f
}
/// Wait status of a continuation.
pub const CONTINUED: u32 = 0xffff;

/// A new process, child of `parent` (0 = of nobody), unless `refused`, which is asked with no signal to a group under way. Its pid is
/// held until it has been waited for.
pub fn insert(process: Arc<Process>, parent: u32, refused: impl FnOnce() -> bool) -> bool {
    let pid = process.pid;
    let mut tree = TREE.lock();
    if refused() {
        return false;
    }
    task::hold_id(pid);
    if let Some(p) = tree.get_mut(&parent) {
        p.children.push(pid);
    }
    tree.insert(pid, Node { process, children: Vec::new(), life: Life::Alive, report: None, waited_runtime_ns: 0 });
    true
}

/// The process `pid`, ended ones too.
pub fn find(pid: u32) -> Option<Arc<Process>> {
    TREE.lock().get(&pid).map(|n| n.process.clone())
}

/// Whether `pid` has ended and waits to be waited for.
pub fn has_ended(pid: u32) -> bool {
    matches!(TREE.lock().get(&pid), Some(Node { life: Life::Ended { .. }, .. }))
}

/// Whether `process` has not been waited for.
pub fn is_known(process: &Process) -> bool {
    TREE.lock().get(&process.pid).is_some_and(|n| core::ptr::eq(&*n.process, process))
}

/// Whether `process` has ended, waited for or not.
pub fn is_over(process: &Process) -> bool {
    let tree = TREE.lock();
    !tree.get(&process.pid).is_some_and(|n| core::ptr::eq(&*n.process, process) && n.life == Life::Alive)
}

/// All processes that have not been waited for, by rising pid.
pub fn all() -> Vec<Arc<Process>> {
    TREE.lock().values().map(|n| n.process.clone()).collect()
}

/// Whether no member of the group has a parent in the session but outside the group: nobody could let it go on after a stop.
pub fn is_orphaned(pgid: u32, sid: u32) -> bool {
    let tree = TREE.lock();
    let ids = |p: &Process| (p.pgid.load(Ordering::Relaxed), p.sid.load(Ordering::Relaxed));
    !tree.values().filter(|n| n.life == Life::Alive && ids(&n.process).0 == pgid).any(|n| {
        tree.get(&n.process.ppid.load(Ordering::Relaxed)).is_some_and(|parent| {
            let (group, session) = ids(&parent.process);
            group != pgid && session == sid
        })
    })
}

/// Call `f` with each live process that `select` takes; the number of them.
pub fn each_live(mut select: impl FnMut(&Process) -> bool, mut f: impl FnMut(&Arc<Process>)) -> usize {
    let tree = TREE.lock();
    let mut n = 0;
    for node in tree.values() {
        if node.life == Life::Alive && select(&node.process) {
            n += 1;
            f(&node.process);
        }
    }
    n
}

/// The thread `tid`, of a process that has not been waited for.
pub fn find_thread(tid: u32) -> Option<Arc<Thread>> {
    let tree = TREE.lock();
    let of = |n: &Node| n.process.threads.lock().iter().find(|t| t.tid.load(Ordering::Relaxed) == tid).cloned();
    match tree.get(&tid).and_then(of) {
        Some(t) => Some(t),
        None => tree.values().find_map(of),
    }
}

fn tell_parent(tree: &BTreeMap<u32, Node>, child: &Process, signal: u32, info: Info) {
    if let Some(parent) = tree.get(&child.ppid.load(Ordering::Relaxed)) {
        if signal != 0 {
            signal::send_to_process(&parent.process, info);
        }
        parent.process.children_changed.wake_all();
    }
}

fn child_info(child: &Process, signal: u32, code: i32, status: i32) -> Info {
    Info { signal, code, pid: child.pid, uid: 0, value: status as u64, address: 0 }
}

/// The last thread of `process` is gone: its children get a new parent, its own parent is told.
pub fn ended(process: &Process, status: u32) {
    let mut tree = TREE.lock();
    let children = match tree.get_mut(&process.pid) {
        Some(node) => core::mem::take(&mut node.children),
        None => return,
    };
    let mut ended_child = false;
    for &child in &children {
        if let Some(node) = tree.get(&child) {
            // As on Linux: the new parent never asked for another signal.
            node.process.exit_signal.store(sig::CHLD, Ordering::Relaxed);
            node.process.ppid.store(1, Ordering::Relaxed);
            ended_child |= node.life != Life::Alive;
            // A copy: sending takes the same lock.
            let threads = node.process.threads.lock().clone();
            for thread in &threads {
                let signal = thread.parent_death_signal.load(Ordering::Relaxed);
                if signal != 0 {
                    signal::send_to_thread(thread, Info::from_kernel(signal));
                }
            }
        }
    }
    if process.pid != 1
        && let Some(init) = tree.get_mut(&1)
    {
        init.children.extend(children);
        if ended_child {
            signal::send_to_process(&init.process, Info::from_kernel(sig::CHLD));
            init.process.children_changed.wake_all();
        }
    }
    let tracer = process.traced_by.load(Ordering::SeqCst);
    let tracer = tree.get(&tracer).filter(|t| t.life == Life::Alive).map(|t| t.process.clone());
    match tracer.filter(|tracer| tracer.pid != process.ppid.load(Ordering::Relaxed)) {
        Some(tracer) => {
            let node = tree.get_mut(&process.pid).expect("looked up above");
            node.life = Life::Ended { status };
            signal::send_to_process(&tracer, end_info(process, sig::CHLD, status));
            tracer.children_changed.wake_all();
        }
        None => {
            ptrace::forget_end(process);
            tree = end_seen_by_parent(tree, process, status);
        }
    }
    // Who polls a pidfd of it.
    process.changed.wake_all();
    release_owed(tree, process.pid);
}

type Tree = crate::spin_lock::Guard<'static, BTreeMap<u32, Node>, { rank::PROCESS }, crate::spin_lock::PreemptOff>;

/// Whether the end of `process` is for its tracer `pid` to see first.
fn is_owed_to(process: &Process, pid: u32) -> bool {
    process.traced_by.load(Ordering::SeqCst) == pid
}

fn end_info(process: &Process, signal: u32, status: u32) -> Info {
    let (code, value) = match status & 0x7f {
        0 => (1, status >> 8 & 0xff),                               // CLD_EXITED
        signal => (if status & 0x80 != 0 { 3 } else { 2 }, signal), // CLD_DUMPED, CLD_KILLED
    };
    child_info(process, signal, code, value as i32)
}

/// The tracer `pid` has ended: the ends that it was to see are the parents' now.
fn release_owed(mut tree: Tree, pid: u32) {
    while ptrace::anybody() {
        let Some(node) = tree.values().find(|node| is_owed_to(&node.process, pid)) else { return };
        let (process, status) = (node.process.clone(), node.life.status());
        ptrace::forget_end(&process);
        let Some(status) = status else { continue };
        tree = end_seen_by_parent(tree, &process, status);
    }
}

/// `process` has ended, which its parent is told, or which is forgotten if the parent does not want to know.
fn end_seen_by_parent(mut tree: Tree, process: &Process, status: u32) -> Tree {
    let ppid = process.ppid.load(Ordering::Relaxed);
    let exit_signal = process.exit_signal.load(Ordering::Relaxed);
    let unwanted = match tree.get(&ppid) {
        Some(parent) => exit_signal == sig::CHLD && parent.process.actions.lock().children_are_not_waited_for(),
        None => true,
    };
    let node = tree.get_mut(&process.pid).expect("looked up above");
    node.life = Life::Ended { status };
    tell_parent(&tree, process, exit_signal, end_info(process, exit_signal, status));
    if unwanted {
        if let Some(parent) = tree.get_mut(&ppid) {
            parent.forget_child(process.pid);
        }
        let node = tree.remove(&process.pid);
        task::drop_id(process.pid);
        drop(tree);
        drop(node);
        return TREE.lock();
    }
    tree
}

/// `process` was stopped by `signal`, or goes on (`None`).
pub fn stop_changed(process: &Process, signal: Option<u32>) {
    // A parent that traces it hears of it as a tracer.
    if ptrace::is_traced_by(process, process.ppid.load(Ordering::Relaxed)) {
        return;
    }
    let mut tree = TREE.lock();
    if let Some(node) = tree.get_mut(&process.pid) {
        node.report = Some(signal.map_or(CONTINUED, stopped_status));
    }
    let (code, value) = signal.map_or((6, sig::CONT), |s| (5, s)); // CLD_CONTINUED, CLD_STOPPED
    let parent = tree.get(&process.ppid.load(Ordering::Relaxed));
    let silent = parent.is_some_and(|p| p.process.actions.lock().stops_of_children_are_silent());
    let raised = if silent { 0 } else { sig::CHLD };
    tell_parent(&tree, process, raised, child_info(process, sig::CHLD, code, value as i32));
}

/// What wait4 and waitid ask for.
#[derive(Clone, Copy)]
pub struct What {
    /// Children that have ended.
    pub ended: bool,
    /// Children that were stopped.
    pub stopped: bool,
    /// Children that go on.
    pub continued: bool,
    /// Leave it to be waited for again.
    pub keep: bool,
}

/// One look at what `tracer` traces, or traced until its end: what there is to report, and whether there is anything.
fn look_as_tracer(tracer: &Process, who: Who, what: What) -> (Option<Waited>, bool) {
    let is_wanted = |pid: u32, process: Option<&Process>| match who {
        Who::Any => true,
        Who::Pid(p) => p == pid,
        Who::This(this) => pid == this.pid && process.is_none_or(|p| core::ptr::eq(p, this)),
        Who::Group(g) => process.is_some_and(|p| g == p.pgid.load(Ordering::Relaxed)),
    };
    let (found, mut any) = ptrace::look(tracer.pid, what.keep, is_wanted);
    if let Some(found) = found {
        let waited = Waited { pid: found.tid, status: found.status, runtime_ns: 0, trapped: found.stopped };
        return (Some(waited), true);
    }
    if !what.ended {
        return (None, any);
    }
    let tree = TREE.lock();
    let is_mine = |p: &Process| is_owed_to(p, tracer.pid) && is_wanted(p.pid, Some(p));
    let mut mine = tree.values().filter(|node| is_mine(&node.process)).peekable();
    // Perhaps only the first thread has ended so far.
    any |= mine.peek().is_some();
    let owed = mine.find_map(|node| node.life.status().map(|status| (node.process.clone(), status)));
    let Some((process, status)) = owed else { return (None, any) };
    if !what.keep {
        ptrace::forget_end(&process);
        let tree = end_seen_by_parent(tree, &process, status);
        drop(tree);
    }
    (Some(Waited { pid: process.pid, status, runtime_ns: process.runtime_ns(), trapped: false }), any)
}

/// One look at the children of `parent`: `Ok(None)` if there are some that may have `what` to report, but none has.
pub fn look(parent: &Process, who: Who, what: What) -> Result<Option<Waited>, Errno> {
    let mut any = false;
    if ptrace::anybody() {
        let (found, some) = look_as_tracer(parent, who, what);
        if found.is_some() {
            return Ok(found);
        }
        any = some;
    }
    let mut tree = TREE.lock();
    let me = tree.get(&parent.pid).ok_or(ECHILD)?;
    let mut found = None;
    for &pid in &me.children {
        let Some(node) = tree.get(&pid) else { continue };
        let wanted = match who {
            Who::Any => true,
            Who::Pid(p) => p == pid,
            Who::This(this) => core::ptr::eq(&*node.process, this),
            Who::Group(g) => g == node.process.pgid.load(Ordering::Relaxed),
        };
        // An ended child will never stop or go on.
        if !wanted || !what.ended && node.life != Life::Alive {
            continue;
        }
        any = true;
        let status = match (node.life, node.report) {
            // Its tracer sees the end first.
            (Life::Ended { .. }, _) if node.process.traced_by.load(Ordering::SeqCst) != 0 => None,
            (Life::Ended { status }, _) => Some((status, true)),
            (_, Some(CONTINUED)) if what.continued => Some((CONTINUED, false)),
            (_, Some(status)) if what.stopped && status != CONTINUED => Some((status, false)),
            _ => None,
        };
        if let Some((status, ended)) = status {
            found = Some((pid, status, ended, node.process.runtime_ns()));
            break;
        }
    }
    let Some((pid, status, ended, runtime_ns)) = found else {
        return if any { Ok(None) } else { Err(ECHILD) };
    };
    let waited = Waited { pid, status, runtime_ns, trapped: false };
    if what.keep {
        return Ok(Some(waited));
    }
    if ended {
        let gone = tree.remove(&pid);
        let me = tree.get_mut(&parent.pid).expect("looked up above");
        me.forget_child(pid);
        me.waited_runtime_ns += runtime_ns + gone.as_ref().map_or(0, |n| n.waited_runtime_ns);
        task::drop_id(pid);
        drop(tree);
        drop(gone);
    } else if let Some(node) = tree.get_mut(&pid) {
        node.report = None;
    }
    Ok(Some(waited))
}

/// CPU time of the children that `process` has waited for, ns.
pub fn waited_runtime_ns(process: &Process) -> u64 {
    TREE.lock().get(&process.pid).map_or(0, |n| n.waited_runtime_ns)
}

/// setpgid(2) on `pid` (a child of `caller`, or itself).
pub fn set_group(caller: &Process, pid: u32, pgid: u32) -> Result<(), Errno> {
    let tree = TREE.lock();
    let node = tree.get(&pid).ok_or(ESRCH)?;
    let target = &node.process;
    let sid = caller.sid.load(Ordering::Relaxed);
    if pid != caller.pid {
        if target.ppid.load(Ordering::Relaxed) != caller.pid {
            return Err(ESRCH);
        }
        if target.sid.load(Ordering::Relaxed) != sid {
            return Err(EPERM);
        }
        if target.has_execed.load(Ordering::Relaxed) {
            return Err(crate::errno::EACCES);
        }
    }
    if target.sid.load(Ordering::Relaxed) == pid {
        return Err(EPERM); // a session leader
    }
    let in_session =
        |n: &Node| n.process.pgid.load(Ordering::Relaxed) == pgid && n.process.sid.load(Ordering::Relaxed) == sid;
    if pgid != pid && !tree.values().any(in_session) {
        return Err(EPERM);
    }
    target.pgid.store(pgid, Ordering::Relaxed);
    Ok(())
}

/// setsid(2).
pub fn new_session(caller: &Process) -> Result<u32, Errno> {
    let tree = TREE.lock();
    if tree.values().any(|n| n.process.pgid.load(Ordering::Relaxed) == caller.pid) {
        return Err(EPERM);
    }
    caller.sid.store(caller.pid, Ordering::Relaxed);
    caller.pgid.store(caller.pid, Ordering::Relaxed);
    Ok(caller.pid)
}

//! /proc/PID: processes, and kernel threads, which have no memory and no files.

use super::statistics::user_ticks;
use super::{memory, oom};
use crate::errno::{self, Errno};
use crate::fs::generated::{Item, Leaf, Numbered};
use crate::fs::mount;
use crate::fs::place::Place;
use crate::process::{Process, ptrace, signal, thread_of, tree};
use crate::sched::task::{self, TaskRef};
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering;
use kcore::cpu_set::CpuSet;
use kcore::run_queue::Class;
use kcore::vma::Kind;

/// What a process and each of its threads have: their descriptors, the mounts, the root.
const DESCRIPTORS: Item = Item::Dir(
    "fd",
    &[Item::Numbered(Numbered {
        prefix: "",
        exists: |pid, fd| open_file(pid, fd).is_ok(),
        all: |pid| files(pid).map_or(Vec::new(), |f| f.open_numbers()),
        argument: |pid, fd| pid << 32 | fd as u64,
        leaf: Leaf::OpenFile(descriptor, descriptor_place),
    })],
);
const MOUNTS: Item = Item::File("mounts", |_, out| {
    mount::describe(out);
    Ok(())
});
const ROOT: Item = Item::PlaceLink("root", |pid| Ok(root_place(pid)?.shown_path()), root_place);

/// What is in it.
pub static ITEMS: &[Item] = &[
    Item::Special("auxv", memory::open_auxiliary),
    Item::File("cmdline", cmdline),
    Item::File("comm", comm),
    Item::PlaceLink("cwd", cwd, cwd_place),
    Item::PlaceLink("exe", exe, exe_place),
    DESCRIPTORS,
    Item::Setting("fail-nth", fail_nth, set_fail_nth),
    Item::File("maps", maps),
    Item::Special("mem", memory::open),
    MOUNTS,
    Item::Setting("oom_adj", oom::old_adjustment, oom::set_old_adjustment),
    Item::File("oom_score", oom::score),
    Item::Setting("oom_score_adj", oom::adjustment, oom::set_adjustment),
    ROOT,
    Item::File("stat", stat),
    Item::File("statm", statm),
    Item::File("status", status),
    Item::Dir(
        "task",
        &[Item::Numbered(Numbered {
            prefix: "",
            exists: |pid, tid| threads(pid).contains(&tid),
            all: threads,
            argument: |_, tid| tid as u64,
            leaf: Leaf::Dir(THREAD_ITEMS),
        })],
    ),
];

static THREAD_ITEMS: &[Item] = &[
    Item::Special("auxv", memory::open_auxiliary),
    Item::File("cmdline", cmdline),
    Item::File("comm", comm),
    Item::PlaceLink("cwd", cwd, cwd_place),
    Item::PlaceLink("exe", exe, exe_place),
    DESCRIPTORS,
    Item::File("maps", maps),
    Item::Special("mem", memory::open),
    MOUNTS,
    Item::Setting("oom_adj", oom::old_adjustment, oom::set_old_adjustment),
    Item::File("oom_score", oom::score),
    Item::Setting("oom_score_adj", oom::adjustment, oom::set_adjustment),
    ROOT,
    Item::File("stat", stat),
    Item::File("statm", statm),
    Item::File("status", status),
];

/// What an id names: a process, or a kernel thread, or a thread of a process.
struct View {
    process: Option<Arc<Process>>,
    /// Gone after the end.
    task: Option<TaskRef>,
}

fn view(id: u64) -> Result<View, Errno> {
    let id = u32::try_from(id).ok().filter(|&id| id < task::PID_MAX).ok_or(errno::ESRCH)?;
    let task = task::by_index(id);
    let of_task = task.as_ref().and_then(|t| thread_of(t)).map(|thread| thread.process.clone());
    let process = tree::find(id).or(of_task);
    // After an execve by another thread than the first, that one has the process's id.
    let first = process.as_ref().and_then(|p| {
        let threads = p.threads.lock();
        threads.iter().find(|t| t.tid.load(Ordering::Relaxed) == id).map(|t| t.task)
    });
    let task = first.filter(|&first| first != id).map_or(task, task::by_index);
    if process.is_none() && task.is_none() { Err(errno::ESRCH) } else { Ok(View { process, task }) }
}

pub(super) fn process(pid: u64) -> Result<Arc<Process>, Errno> {
    view(pid)?.process.ok_or(errno::ESRCH)
}

/// /proc/PID/fail-nth: how many allocations of its first thread (of the caller, if that is one of its threads) until one fails.
fn fail_nth(pid: u64, out: &mut String) -> Result<(), Errno> {
    super::line(victim(pid)?.fail_nth.left(), out)
}

fn set_fail_nth(pid: u64, text: &[u8]) -> Result<(), Errno> {
    let text = core::str::from_utf8(text).map_err(|_| errno::EINVAL)?;
    let nth = text.trim().parse().map_err(|_| errno::EINVAL)?;
    victim(pid)?.fail_nth.arm(nth);
    Ok(())
}

fn victim(pid: u64) -> Result<TaskRef, Errno> {
    let own = crate::sched::current().index;
    let own = threads(pid).contains(&own).then(|| task::by_index(own)).flatten();
    own.or(view(pid)?.task).ok_or(errno::ESRCH)
}

/// Threads of a process are found by their process only, as in Linux's listing.
fn is_kernel_thread(task: &TaskRef) -> bool {
    task.tid() != 0 && thread_of(task).is_none()
}

pub(super) fn exists(_: u64, pid: u32) -> bool {
    view(pid as u64).is_ok()
}

pub(super) fn all(_: u64) -> Vec<u32> {
    let mut pids: Vec<u32> = tree::all().iter().map(|p| p.pid).collect();
    pids.extend(task::all().filter(is_kernel_thread).map(|t| t.tid()));
    pids.sort_unstable();
    pids
}

fn threads(pid: u64) -> Vec<u32> {
    match view(pid) {
        Ok(View { process: Some(p), .. }) => p.threads.lock().iter().map(|t| t.tid.load(Ordering::Relaxed)).collect(),
        Ok(View { task: Some(t), .. }) => alloc::vec![t.tid()],
        _ => Vec::new(),
    }
}

fn files(pid: u64) -> Result<Arc<crate::fs::FileTable>, Errno> {
    process(pid)?.files.lock().clone().ok_or(errno::ESRCH)
}

fn open_file(pid: u64, fd: u32) -> Result<Arc<crate::fs::OpenFile>, Errno> {
    files(pid)?.file(fd as i32)
}

/// Where a descriptor leads: its path, or what it is.
fn descriptor(argument: u64) -> Result<Vec<u8>, Errno> {
    Ok(open_file(argument >> 32, argument as u32)?.shown_path())
}

/// What a descriptor has open, also where no path leads any more. ENXIO if it cannot be opened again.
fn descriptor_place(argument: u64) -> Result<Arc<Place>, Errno> {
    open_file(argument >> 32, argument as u32)?.place_or_own()
}

fn cwd(pid: u64) -> Result<Vec<u8>, Errno> {
    Ok(process(pid)?.work_dir.place().shown_path())
}

fn cwd_place(pid: u64) -> Result<Arc<Place>, Errno> {
    Ok(process(pid)?.work_dir.place())
}

fn root_place(pid: u64) -> Result<Arc<Place>, Errno> {
    Ok(process(pid)?.work_dir.root())
}

fn exe(pid: u64) -> Result<Vec<u8>, Errno> {
    Ok(exe_place(pid)?.shown_path())
}

/// The program's file, also where another one has its name by now. A process that has ended runs none.
fn exe_place(pid: u64) -> Result<Arc<Place>, Errno> {
    let program = process(pid).map_err(|_| errno::ENOENT)?.program.lock().clone();
    Ok(program.ok_or(errno::ENOENT)?.place().clone())
}

fn name(v: &View) -> String {
    match (&v.task, &v.process) {
        (Some(t), _) => String::from(task::comm_str(&t.comm())),
        // The task has gone: the program's file name is what is left.
        (None, Some(p)) => {
            let exe = p.exe.lock().clone();
            let last = exe.rsplit(|&b| b == b'/').next().unwrap_or(&[]);
            String::from_utf8_lossy(&last[..last.len().min(15)]).into_owned()
        }
        (None, None) => String::new(),
    }
}

fn comm(pid: u64, out: &mut String) -> Result<(), Errno> {
    super::line(name(&view(pid)?), out)
}

fn cmdline(pid: u64, out: &mut String) -> Result<(), Errno> {
    if let Some(p) = view(pid)?.process {
        let words = p.cmdline.lock().clone();
        out.push_str(&String::from_utf8_lossy(&words));
    }
    Ok(())
}

/// R, S, D, T (stopped), t (stopped for its tracer), Z (ended, not waited for), I (idle kernel thread).
fn letter(v: &View) -> char {
    match (&v.process, &v.task) {
        (Some(p), _) if tree::has_ended(p.pid) => 'Z',
        (Some(p), None) if !p.threads.lock().is_empty() => 'Z', // its first thread ended before the others
        (Some(_), Some(t)) if thread_of(t).is_some_and(ptrace::stands) => 't',
        (Some(p), _) if p.stopped.load(Ordering::Relaxed) => 'T',
        (Some(_), Some(t)) => t.state.letter(),
        (Some(_), None) => 'X',
        (None, Some(t)) if t.state.is_running() => 'R',
        (None, _) => 'S',
    }
}

/// Bytes mapped and pages resident.
fn memory(v: &View) -> (u64, u64) {
    let space = v.process.as_ref().and_then(|p| p.address_space.lock().clone());
    space.map_or((0, 0), |s| s.size())
}

fn stat(pid: u64, out: &mut String) -> Result<(), Errno> {
    let v = view(pid)?;
    let load = |f: &core::sync::atomic::AtomicU32| f.load(Ordering::Relaxed);
    let (parent, group, session) =
        v.process.as_ref().map_or((0, 0, 0), |p| (load(&p.ppid), load(&p.pgid), load(&p.sid)));
    let (tty, tty_group) = crate::tty::of_session(session as i32).unwrap_or((0, -1));
    let runtime_ns = match (&v.process, &v.task) {
        (Some(p), _) => p.runtime_ns(),
        (None, Some(t)) => t.runtime_ns.load(Ordering::Relaxed),
        (None, None) => 0,
    };
    let waited = v.process.as_ref().map_or(0, |p| tree::waited_runtime_ns(p));
    let nice = v.process.as_ref().map_or(0, |p| p.nice.load(Ordering::Relaxed));
    let (class, own) = v.task.as_ref().map_or((Class::Fair, Class::Fair), |t| (t.run.class(), t.run.own_class()));
    // Priority as Linux shows it, with what it inherits: 20 + nice, or -1 - the real-time priority. Policy: 0 other, 1 FIFO.
    let priority = if let Class::Fifo(p) = class { -1 - p as i32 } else { 20 + nice };
    let (real_time, policy) = if let Class::Fifo(p) = own { (p as u32, 1) } else { (0, 0) };
    let threads = threads(pid).len().max(1);
    let started = user_ticks(v.process.as_ref().map_or(0, |p| p.start_ns));
    let (size, resident) = memory(&v);
    let (cpu, pending, blocked) = match &v.task {
        Some(t) => {
            let thread = thread_of(t);
            let pending = thread.map_or(0, |t| t.pending.set());
            (load(&t.cpu), pending, thread.map_or(0, |t| t.blocked.load(Ordering::Relaxed)))
        }
        None => (0, 0, 0),
    };
    let (ignored, caught) = v.process.as_ref().map_or((0, 0), |p| actions(p));
    let exit_signal = v.process.as_ref().map_or(0, |p| p.exit_signal.load(Ordering::Relaxed));
    let _ = write!(out, "{pid} ({}) {} {parent} {group} {session} {tty} {tty_group} ", name(&v), letter(&v));
    // Flags, faults (not counted), user and system time (not told apart), and the same of waited-for children.
    let _ = write!(out, "0 0 0 0 0 {} 0 {} 0 ", user_ticks(runtime_ns), user_ticks(waited));
    let _ = write!(out, "{priority} {nice} {threads} 0 {started} {size} {resident} 18446744073709551615 0 0 0 0 0 ");
    let _ = write!(out, "{pending} {blocked} {ignored} {caught} 0 0 0 {exit_signal} {cpu} {real_time} {policy} ");
    let _ = writeln!(out, "0 0 0 0 0 0 0 0 0 0 0");
    Ok(())
}

fn statm(pid: u64, out: &mut String) -> Result<(), Errno> {
    let (size, resident) = memory(&view(pid)?);
    super::line(format_args!("{} {resident} 0 0 0 {} 0", size / 4096, size / 4096), out)
}

/// Signals ignored and caught, as masks.
fn actions(p: &Process) -> (u64, u64) {
    let actions = p.actions.lock();
    let (mut ignored, mut caught) = (0, 0);
    for number in 1..=64 {
        match actions.of(number).handler {
            signal::DEFAULT => {}
            signal::IGNORE => ignored |= 1u64 << (number - 1),
            _ => caught |= 1u64 << (number - 1),
        }
    }
    (ignored, caught)
}

fn status(pid: u64, out: &mut String) -> Result<(), Errno> {
    let v = view(pid)?;
    let what = match letter(&v) {
        'R' => "R (running)",
        'S' => "S (sleeping)",
        'D' => "D (disk sleep)",
        'T' => "T (stopped)",
        't' => "t (tracing stop)",
        'Z' => "Z (zombie)",
        _ => "X (dead)",
    };
    let number = v.task.as_ref().map_or(pid, |t| t.tid() as u64);
    let group = v.process.as_ref().map_or(number, |p| p.pid as u64);
    let parent = v.process.as_ref().map_or(0, |p| p.ppid.load(Ordering::Relaxed));
    let tracer = v.task.as_ref().and_then(|t| thread_of(t)).map_or(0, ptrace::tracer_of);
    let umask = v.process.as_ref().map_or(0o22, |p| p.work_dir.umask());
    let _ = write!(out, "Name:\t{}\nUmask:\t{umask:04o}\nState:\t{what}\nTgid:\t{group}\nNgid:\t0\n", name(&v));
    let _ = write!(out, "Pid:\t{number}\nPPid:\t{parent}\nTracerPid:\t{tracer}\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n");
    let open = v.process.as_ref().and_then(|p| p.files.lock().clone()).map_or(0, |f| f.open_numbers().len());
    let _ = write!(out, "FDSize:\t{}\nGroups:\t\n", open.next_power_of_two().max(64));
    if v.process.is_some() {
        let (size, resident) = memory(&v);
        let _ = write!(out, "VmSize:\t{:8} kB\nVmRSS:\t{:8} kB\n", size >> 10, resident << 2);
    }
    let _ = writeln!(out, "Threads:\t{}", threads(pid).len().max(1));
    if let Some(p) = &v.process {
        let thread = v.task.as_ref().and_then(|t| thread_of(t));
        let (pending, blocked) = thread.map_or((0, 0), |t| (t.pending.set(), t.blocked.load(Ordering::Relaxed)));
        let (ignored, caught) = actions(p);
        let _ = write!(out, "SigPnd:\t{pending:016x}\nShdPnd:\t{:016x}\nSigBlk:\t{blocked:016x}\n", p.pending.set());
        let _ = write!(out, "SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n");
    }
    if let Some(t) = &v.task {
        let allowed: CpuSet = t.allowed();
        let _ = writeln!(out, "Cpus_allowed:\t{}", allowed.mask(crate::percpu::nr_cpus()));
        let _ = writeln!(out, "Cpus_allowed_list:\t{allowed}");
    }
    Ok(())
}

fn maps(pid: u64, out: &mut String) -> Result<(), Errno> {
    let v = view(pid)?;
    let Some(space) = v.process.as_ref().and_then(|p| p.address_space.lock().clone()) else { return Ok(()) };
    for (r, name) in space.regions() {
        let right = |on, letter| if on { letter } else { '-' };
        let (read, write, exec) = (right(r.prot.read(), 'r'), right(r.prot.write(), 'w'), right(r.prot.exec(), 'x'));
        let path = name.as_ref().map_or(Cow::Borrowed(""), |name| String::from_utf8_lossy(&name.path));
        let (dev, ino) = name.as_ref().map_or((0, 0), |name| name.file);
        let (offset, shared, label) = match r.kind {
            Kind::Anonymous => (0, 'p', ""),
            Kind::FileBacked { offset, .. } => (offset, 'p', &*path),
            Kind::Shared { offset, .. } => (offset, 's', &*path),
            Kind::Stack => (0, 'p', "[stack]"),
            Kind::Heap => (0, 'p', "[heap]"),
            Kind::Special { offset } if offset >= crate::mm::special::LOST => (0, 'p', "[lost]"),
            Kind::Special { offset } if crate::mm::special::is_lease(offset) => (0, 's', "/sys/kernel/quiesce/lease"),
            Kind::Special { offset } if crate::mm::vdso::is_data(offset) => (0, 'p', "[vvar]"),
            Kind::Special { .. } => (0, 'p', "[vdso]"),
        };
        let range = alloc::format!("{:08x}-{:08x}", r.start, r.end);
        let (major, minor) = (dev >> 8, dev & 0xff);
        let head = alloc::format!("{range} {read}{write}{exec}{shared} {offset:08x} {major:02x}:{minor:02x} {ino}");
        let _ = if label.is_empty() { writeln!(out, "{head} ") } else { writeln!(out, "{head:<72} {label}") };
    }
    Ok(())
}

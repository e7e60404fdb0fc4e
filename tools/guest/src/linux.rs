//! Safe faces of the Linux calls that Rust's std does not offer. Called by all programs.
//!
//! Every function returns the kernel's error as `std::io::Error`; calls that only wait are repeated after EINTR where that is said.
//! Numbers and meanings: Linux's man pages section 2 of the same names.

use std::ffi::{CStr, CString, c_int};
use std::io::{Error, Result};
use std::sync::atomic::AtomicU64;

/// A process id as Linux counts it.
pub type Pid = libc::pid_t;

fn check(value: c_int) -> Result<c_int> {
    if value < 0 { Err(Error::last_os_error()) } else { Ok(value) }
}

fn is_interrupted(error: &Error) -> bool {
    error.raw_os_error() == Some(libc::EINTR)
}

/// Writes all of `bytes` to `fd`; repeats after EINTR and after short writes.
pub fn write_all(fd: c_int, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        // SAFETY: (1) the slice is valid for its length, (2) the kernel only reads it.
        let done = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(done) {
            Ok(0) => return Err(Error::from_raw_os_error(libc::EIO)),
            Ok(count) => bytes = &bytes[count.min(bytes.len())..],
            Err(_) => {
                let error = Error::last_os_error();
                if !is_interrupted(&error) {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Reads once from `fd` into `buffer`; 0 is the end of the input. EINTR is returned, so that Ctrl-C can be told.
pub fn read(fd: c_int, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: (1) the slice is valid and writable for its length.
    let done = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(done).map_err(|_| Error::last_os_error())
}

/// Ends the process at once, without running anything of the C library.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: (1) _exit has no memory arguments and does not return.
    unsafe { libc::_exit(c_int::from(status)) }
}

/// Own process id.
pub fn own_pid() -> Pid {
    // SAFETY: (1) getpid has no arguments and cannot fail.
    unsafe { libc::getpid() }
}

/// Which side of a fork the caller is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The new process.
    Child,
    /// The old process, with the child's id.
    Parent(Pid),
}

/// Makes a copy of the process. Programs that call it have one thread only.
pub fn fork() -> Result<Fork> {
    // SAFETY: (1) callers are single-threaded, so no lock can be held by a thread that the child lacks.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// What became of a waited-for child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It ended with this exit status.
    Exit(u8),
    /// This signal killed it.
    Signal(c_int),
}

impl Ended {
    /// The status that a shell shows: the exit status, or 128 + signal.
    pub fn status(self) -> u8 {
        match self {
            Self::Exit(status) => status,
            Self::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

/// Whether a wait may block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until a child has ended.
    Block,
    /// Only look.
    Poll,
}

/// Times that a waited-for child has used, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsedTime {
    /// In user mode.
    pub user_us: u64,
    /// In the kernel.
    pub system_us: u64,
}

/// Waits for the child `pid`, or any with -1. `None`: none has ended (with [`Wait::Poll`]). EINTR is returned.
pub fn wait(pid: Pid, how: Wait) -> Result<Option<(Pid, Ended, UsedTime)>> {
    let mut status: c_int = 0;
    // SAFETY: (1) rusage is plain integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    let options = if how == Wait::Poll { libc::WNOHANG } else { 0 };
    // SAFETY: (1) both pointers are to live, writable values of the right type.
    let found = check(unsafe { libc::wait4(pid, &mut status, options, &mut usage) })?;
    if found == 0 {
        return Ok(None);
    }
    let ended = if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else if libc::WIFEXITED(status) {
        Ended::Exit(libc::WEXITSTATUS(status) as u8)
    } else {
        return Ok(None); // a child that is traced has stopped
    };
    let micros = |t: libc::timeval| (t.tv_sec as u64).saturating_mul(1_000_000).saturating_add(t.tv_usec as u64);
    Ok(Some((found, ended, UsedTime { user_us: micros(usage.ru_utime), system_us: micros(usage.ru_stime) })))
}

/// Waits until the child `pid` has ended; repeats after EINTR.
pub fn wait_for(pid: Pid) -> Result<Ended> {
    loop {
        match wait(pid, Wait::Block) {
            Ok(Some((_, ended, _))) => return Ok(ended),
            Ok(None) => {}
            Err(error) if is_interrupted(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Replaces the program; returns only the error. `path` is the file, `words` its argv; the environment is passed on.
pub fn exec(path: &str, words: &[String]) -> Error {
    let Ok(path) = CString::new(path) else { return Error::from_raw_os_error(libc::EINVAL) };
    let Ok(owned) = words.iter().map(|w| CString::new(w.as_str())).collect::<core::result::Result<Vec<_>, _>>() else {
        return Error::from_raw_os_error(libc::EINVAL);
    };
    let mut pointers: Vec<_> = owned.iter().map(|w| w.as_ptr()).collect();
    pointers.push(core::ptr::null());
    // SAFETY: (1) path and every word are C strings that outlive the call, (2) the array ends with null.
    unsafe { libc::execv(path.as_ptr(), pointers.as_ptr()) };
    Error::last_os_error()
}

/// Replaces the program by `words[0]`, looked for in PATH (default /bin) unless it holds a slash. Returns only the error: ENOENT when
/// no directory has it. A text file that is no program is run by /bin/sh.
pub fn exec_search(words: &[String]) -> Error {
    let Some(name) = words.first() else { return Error::from_raw_os_error(libc::EINVAL) };
    let path = std::env::var("PATH").unwrap_or_else(|_| "/bin".to_string());
    let candidates: Vec<String> = if name.contains('/') {
        vec![name.clone()]
    } else {
        path.split(':').map(|dir| format!("{dir}/{name}")).collect()
    };
    let mut worst = Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates {
        let error = exec(&candidate, words);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::ENOEXEC) => {
                let mut script = vec!["sh".to_string(), candidate];
                script.extend_from_slice(&words[1..]);
                return exec("/bin/sh", &script);
            }
            _ => worst = error,
        }
    }
    worst
}

/// A pipe: (read end, write end), both closed by exec.
pub fn pipe() -> Result<(c_int, c_int)> {
    let mut ends = [0; 2];
    // SAFETY: (1) the array has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((ends[0], ends[1]))
}

/// Opens `path` with `flags` (close on exec is added) and, for a new file, `mode`. Repeats after EINTR.
pub fn open(path: &str, flags: c_int, mode: libc::mode_t) -> Result<c_int> {
    let path = CString::new(path).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    loop {
        // SAFETY: (1) path is a C string that outlives the call.
        match check(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, libc::c_uint::from(mode)) }) {
            Err(error) if is_interrupted(&error) => {}
            other => return other,
        }
    }
}

/// Closes `fd`; errors mean that it was not open, and are dropped.
pub fn close(fd: c_int) {
    // SAFETY: (1) callers pass only descriptors that they opened through this module, owned by nobody else.
    unsafe { libc::close(fd) };
}

/// Makes `to` the same open file as `from`, kept open by exec.
pub fn duplicate_onto(from: c_int, to: c_int) -> Result<()> {
    if from == to {
        // SAFETY: (1) fcntl with F_SETFD takes an integer.
        return check(unsafe { libc::fcntl(from, libc::F_SETFD, 0) }).map(|_| ());
    }
    // SAFETY: (1) dup2 takes integers only.
    check(unsafe { libc::dup2(from, to) }).map(|_| ())
}

/// A copy of `fd` at number 10 or above, closed by exec.
pub fn duplicate_high(fd: c_int) -> Result<c_int> {
    // SAFETY: (1) fcntl with F_DUPFD_CLOEXEC takes an integer.
    check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) })
}

/// Whether `fd` is open.
pub fn is_open(fd: c_int) -> bool {
    // SAFETY: (1) fcntl with F_GETFD has no memory argument.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Whether `fd` is a terminal.
pub fn is_terminal(fd: c_int) -> bool {
    // SAFETY: (1) isatty takes an integer.
    unsafe { libc::isatty(fd) == 1 }
}

/// Puts process `pid` (0: the caller) into group `group` (0: its own).
pub fn set_process_group(pid: Pid, group: Pid) -> Result<()> {
    // SAFETY: (1) setpgid takes integers only.
    check(unsafe { libc::setpgid(pid, group) }).map(|_| ())
}

/// Own process group.
pub fn process_group() -> Pid {
    // SAFETY: (1) getpgrp has no arguments and cannot fail.
    unsafe { libc::getpgrp() }
}

/// Makes `group` the one that the terminal `fd` sends its signals to.
pub fn set_terminal_group(fd: c_int, group: Pid) -> Result<()> {
    // SAFETY: (1) tcsetpgrp takes integers only.
    check(unsafe { libc::tcsetpgrp(fd, group) }).map(|_| ())
}

/// New session with the caller as leader, and terminal `fd` as its terminal where the kernel agrees.
pub fn start_session(fd: c_int) {
    // SAFETY: (1) setsid has no arguments; (2) TIOCSCTTY takes an integer. Failure of either leaves things as they were.
    unsafe {
        libc::setsid();
        libc::ioctl(fd, libc::TIOCSCTTY, 0);
    }
}

/// Sends `signal` to `pid` (negative: to the group).
pub fn kill(pid: Pid, signal: c_int) -> Result<()> {
    // SAFETY: (1) kill takes integers only.
    check(unsafe { libc::kill(pid, signal) }).map(|_| ())
}

/// What a signal does.
#[derive(Debug, Clone, Copy)]
pub enum Disposition {
    /// What the kernel does by itself.
    Default,
    /// Nothing.
    Ignore,
    /// Calls this function, which may use atomics and async-signal-safe calls only. Blocking calls return EINTR.
    Call(extern "C" fn(c_int)),
}

/// Sets what `signal` does.
pub fn set_signal(signal: c_int, what: Disposition) -> Result<()> {
    // SAFETY: (1) sigaction is plain integers, for which zero is a value (empty mask, no flags).
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = match what {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignore => libc::SIG_IGN,
        Disposition::Call(handler) => handler as *const () as usize,
    };
    // SAFETY: (1) action is a live value; (2) a handler is an extern "C" function as the kernel calls it without SA_SIGINFO.
    check(unsafe { libc::sigaction(signal, &action, core::ptr::null_mut()) }).map(|_| ())
}

/// The largest CPU number that an affinity mask of these programs can hold, plus one.
pub const CPU_LIMIT: usize = 1024;

/// Lets the caller run on `cpus` only.
pub fn set_affinity(cpus: &[u32]) -> Result<()> {
    set_affinity_of(0, cpus)
}

/// Lets task `task` run on `cpus` only; 0 is the caller.
pub fn set_affinity_of(task: Pid, cpus: &[u32]) -> Result<()> {
    let mut mask = [0u64; CPU_LIMIT / 64];
    for &cpu in cpus {
        let word = mask.get_mut(cpu as usize / 64).ok_or_else(|| Error::from_raw_os_error(libc::EINVAL))?;
        *word |= 1 << (cpu % 64);
    }
    // SAFETY: (1) the mask is valid for its size; the kernel only reads it.
    check(unsafe { libc::sched_setaffinity(task, size_of_val(&mask), mask.as_ptr().cast()) }).map(|_| ())
}

/// Gives the caller policy SCHED_FIFO at `priority` (1 to 99).
pub fn set_fifo(priority: c_int) -> Result<()> {
    set_fifo_of(0, priority)
}

/// As `set_fifo` for task `task`; 0 is the caller.
pub fn set_fifo_of(task: Pid, priority: c_int) -> Result<()> {
    let parameter: c_int = priority;
    // SAFETY: (1) the kernel's struct sched_param is one int, which lives during the call. musl's own function refuses with ENOSYS, so the
    // call is made by number.
    let value = unsafe { libc::syscall(libc::SYS_sched_setscheduler, task, libc::SCHED_FIFO, &parameter) };
    if value < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Gives the caller policy SCHED_OTHER again. Cannot fail for the caller itself.
pub fn set_fair() {
    let parameter: c_int = 0;
    // SAFETY: (1) as in set_fifo.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &parameter) };
}

/// Sleeps `ns` nanoseconds; goes on sleeping after EINTR.
pub fn sleep_ns(ns: u64) {
    let mut left =
        libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as libc::c_long };
    loop {
        let want = left;
        // SAFETY: (1) both pointers are to live values.
        let value = unsafe { libc::nanosleep(&want, &mut left) };
        if value == 0 || !is_interrupted(&Error::last_os_error()) {
            return;
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds; 0 when there is no clock.
pub fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: (1) the pointer is to a live value.
    if unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) } != 0 {
        return 0;
    }
    (now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64)
}

/// A page of memory that a forked child shares with its parent; zero at first, never given back.
pub fn shared_page() -> Result<&'static SharedPage> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping at an address of the kernel's choice touches no memory that exists.
    let page = unsafe { libc::mmap(core::ptr::null_mut(), size_of::<SharedPage>(), protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: (1) the mapping is as large as the type, page-aligned, zeroed and never unmapped, (2) zero is a value of an atomic.
    Ok(unsafe { &*page.cast::<SharedPage>() })
}

/// What [`shared_page`] gives.
pub type SharedPage = [AtomicU64; 512];

/// Maps the page of CPU `cpu`'s lease from `fd`, the kernel's file of leases; never given back.
pub fn lease_page(fd: c_int, cpu: u32) -> Result<&'static kcore::lease_page::LeasePage> {
    const PAGE: usize = 4096;
    let offset = cpu as libc::off_t * PAGE as libc::off_t;
    // SAFETY: (1) a new mapping at an address of the kernel's choice touches no memory that exists.
    let page = unsafe { libc::mmap(core::ptr::null_mut(), PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, offset) };
    if page == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: (1) the file gives pages that start with this type, (2) nobody unmaps it, (3) it is only read.
    Ok(unsafe { &*page.cast() })
}

/// Maps `bytes` of new private memory, hands it to `work` and unmaps it.
pub fn with_new_memory(bytes: usize, work: impl FnOnce(&mut [u8])) -> Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping at an address of the kernel's choice touches no memory that exists.
    let start = unsafe { libc::mmap(core::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: (1) the mapping is `bytes` long, zeroed, and nobody else knows it.
    work(unsafe { core::slice::from_raw_parts_mut(start.cast(), bytes) });
    // SAFETY: (1) the mapping is ours, and the only reference to it has ended.
    check(unsafe { libc::munmap(start, bytes) }).map(|_| ())
}

/// membarrier(2): the answer of `command`.
pub fn membarrier(command: c_int) -> Result<c_int> {
    // SAFETY: (1) the call takes numbers only.
    let value = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    if value < 0 { Err(Error::last_os_error()) } else { Ok(value as c_int) }
}

/// Takes the right to write from `memory`, whole pages, and gives it back.
pub fn protect_and_back(memory: &mut [u8]) -> Result<()> {
    for protection in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
        // SAFETY: (1) the pages are the caller's alone; (2) nobody writes while they are read only.
        check(unsafe { libc::mprotect(memory.as_mut_ptr().cast(), memory.len(), protection) })?;
    }
    Ok(())
}

/// Lets the kernel kill the caller when its parent ends. Where the kernel lacks that, nothing happens.
pub fn die_with_parent() {
    // SAFETY: (1) PR_SET_PDEATHSIG takes an integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// How the machine is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineEnd {
    /// Power off.
    PowerOff,
    /// Restart.
    Restart,
}

/// Ends the machine; returns only the error.
pub fn end_machine(how: MachineEnd) -> Error {
    let command = match how {
        MachineEnd::PowerOff => libc::RB_POWER_OFF,
        MachineEnd::Restart => libc::RB_AUTOBOOT,
    };
    // SAFETY: (1) sync and reboot take integers only.
    unsafe {
        libc::sync();
        libc::reboot(command);
    }
    Error::last_os_error()
}

/// From now on the signals that busybox's poweroff, halt and reboot send to process 1 end the machine.
pub fn end_machine_by_signal() {
    extern "C" fn end(signal: c_int) {
        let _ = end_machine(if signal == libc::SIGTERM { MachineEnd::Restart } else { MachineEnd::PowerOff });
    }
    // SAFETY: (1) sigaction is plain integers, for which zero is a value; (2) the handler makes system calls only.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = end as extern "C" fn(c_int) as usize;
        for signal in [libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM] {
            libc::sigaction(signal, &action, core::ptr::null_mut());
        }
    }
}

/// Mounts file system `kind` on the directory `target`.
pub fn mount(kind: &CStr, target: &CStr) -> Result<()> {
    // SAFETY: (1) all strings are C strings that outlive the call, (2) no data is passed.
    let value = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, core::ptr::null()) };
    check(value).map(|_| ())
}

/// The six texts of uname(2): system, node, release, version, machine.
pub fn system_name() -> Result<[String; 5]> {
    // SAFETY: (1) utsname is arrays of characters, for which zero is a value.
    let mut name: libc::utsname = unsafe { core::mem::zeroed() };
    // SAFETY: (1) the pointer is to a live value.
    check(unsafe { libc::uname(&mut name) })?;
    let text = |field: &[libc::c_char]| -> String {
        field.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect()
    };
    Ok([text(&name.sysname), text(&name.nodename), text(&name.release), text(&name.version), text(&name.machine)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_waited_for_with_its_status() {
        match fork().unwrap() {
            Fork::Child => exit_now(7),
            Fork::Parent(pid) => assert_eq!(wait_for(pid).unwrap(), Ended::Exit(7)),
        }
    }

    #[test]
    fn shell_status_of_a_signal() {
        assert_eq!(Ended::Signal(2).status(), 130);
        assert_eq!(Ended::Exit(3).status(), 3);
    }

    #[test]
    fn a_cpu_beyond_the_mask_is_refused() {
        assert_eq!(set_affinity(&[CPU_LIMIT as u32]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}

//! The listed calls: what a program in Rust on musl needs of a kernel. Each has a case that works and one that is refused, in the
//! `each_*` files; what ran is counted, and a call without its cases fails the whole.
//!
//! The counts lie in a page that all checks share, since each check is a process of its own.

use super::call;
use crate::linux::{self, SharedPage};
use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// Name, number, and for those that no argument makes fail the reason.
pub const LISTED: &[(&str, i64, &str)] = &[
    ("mmap", libc::SYS_mmap, ""),
    ("mprotect", libc::SYS_mprotect, ""),
    ("munmap", libc::SYS_munmap, ""),
    ("mremap", libc::SYS_mremap, ""),
    ("brk", libc::SYS_brk, ""),
    ("clone", libc::SYS_clone, ""),
    ("fork", libc::SYS_fork, "takes no argument; the scenario `exhaustion` has its EAGAIN"),
    ("vfork", libc::SYS_vfork, "takes no argument"),
    ("execve", libc::SYS_execve, ""),
    ("wait4", libc::SYS_wait4, ""),
    ("exit", libc::SYS_exit, "does not return"),
    ("exit_group", libc::SYS_exit_group, "does not return"),
    ("futex", libc::SYS_futex, ""),
    ("set_tid_address", libc::SYS_set_tid_address, "looks at its pointer when the thread ends"),
    ("set_robust_list", libc::SYS_set_robust_list, ""),
    ("arch_prctl", libc::SYS_arch_prctl, ""),
    ("rt_sigaction", libc::SYS_rt_sigaction, ""),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask, ""),
    ("rt_sigreturn", libc::SYS_rt_sigreturn, ""),
    ("sigaltstack", libc::SYS_sigaltstack, ""),
    ("kill", libc::SYS_kill, ""),
    ("tkill", libc::SYS_tkill, ""),
    ("tgkill", libc::SYS_tgkill, ""),
    ("read", libc::SYS_read, ""),
    ("write", libc::SYS_write, ""),
    ("readv", libc::SYS_readv, ""),
    ("writev", libc::SYS_writev, ""),
    ("open", libc::SYS_open, ""),
    ("openat", libc::SYS_openat, ""),
    ("close", libc::SYS_close, ""),
    ("stat", libc::SYS_stat, ""),
    ("lstat", libc::SYS_lstat, ""),
    ("fstat", libc::SYS_fstat, ""),
    ("newfstatat", libc::SYS_newfstatat, ""),
    ("statx", libc::SYS_statx, ""),
    ("lseek", libc::SYS_lseek, ""),
    ("ioctl", libc::SYS_ioctl, ""),
    ("fcntl", libc::SYS_fcntl, ""),
    ("getdents64", libc::SYS_getdents64, ""),
    ("readlink", libc::SYS_readlink, ""),
    ("getcwd", libc::SYS_getcwd, ""),
    ("pipe2", libc::SYS_pipe2, ""),
    ("dup2", libc::SYS_dup2, ""),
    ("dup3", libc::SYS_dup3, ""),
    ("poll", libc::SYS_poll, ""),
    ("clock_gettime", libc::SYS_clock_gettime, ""),
    ("clock_getres", libc::SYS_clock_getres, ""),
    ("nanosleep", libc::SYS_nanosleep, ""),
    ("clock_nanosleep", libc::SYS_clock_nanosleep, ""),
    ("getrandom", libc::SYS_getrandom, ""),
    ("sched_setaffinity", libc::SYS_sched_setaffinity, ""),
    ("sched_getaffinity", libc::SYS_sched_getaffinity, ""),
    ("sched_setscheduler", libc::SYS_sched_setscheduler, ""),
    ("sched_getscheduler", libc::SYS_sched_getscheduler, ""),
    ("sched_setattr", libc::SYS_sched_setattr, ""),
    ("sched_getattr", libc::SYS_sched_getattr, ""),
    ("sched_yield", libc::SYS_sched_yield, NEVER),
    ("getcpu", libc::SYS_getcpu, ""),
    ("prctl", libc::SYS_prctl, ""),
    ("uname", libc::SYS_uname, ""),
    ("getpid", libc::SYS_getpid, NEVER),
    ("gettid", libc::SYS_gettid, NEVER),
    ("getppid", libc::SYS_getppid, NEVER),
    ("getuid", libc::SYS_getuid, NEVER),
    ("geteuid", libc::SYS_geteuid, NEVER),
    ("getgid", libc::SYS_getgid, NEVER),
    ("getegid", libc::SYS_getegid, NEVER),
    ("getpgrp", libc::SYS_getpgrp, NEVER),
    ("getpgid", libc::SYS_getpgid, ""),
    ("getsid", libc::SYS_getsid, ""),
    ("getresuid", libc::SYS_getresuid, ""),
    ("getresgid", libc::SYS_getresgid, ""),
    ("reboot", libc::SYS_reboot, ""),
    ("getitimer", libc::SYS_getitimer, ""),
    ("setitimer", libc::SYS_setitimer, ""),
    ("timer_create", libc::SYS_timer_create, ""),
    ("timer_settime", libc::SYS_timer_settime, ""),
    ("timer_gettime", libc::SYS_timer_gettime, ""),
    ("timer_getoverrun", libc::SYS_timer_getoverrun, ""),
    ("timer_delete", libc::SYS_timer_delete, ""),
    ("socket", libc::SYS_socket, ""),
    ("bind", libc::SYS_bind, ""),
    ("listen", libc::SYS_listen, ""),
    ("connect", libc::SYS_connect, ""),
    ("accept", libc::SYS_accept, ""),
    ("accept4", libc::SYS_accept4, ""),
    ("getsockname", libc::SYS_getsockname, ""),
    ("getpeername", libc::SYS_getpeername, ""),
    ("socketpair", libc::SYS_socketpair, ""),
    ("setsockopt", libc::SYS_setsockopt, ""),
    ("getsockopt", libc::SYS_getsockopt, ""),
    ("sendto", libc::SYS_sendto, ""),
    ("recvfrom", libc::SYS_recvfrom, ""),
    ("sendmsg", libc::SYS_sendmsg, ""),
    ("recvmsg", libc::SYS_recvmsg, ""),
    ("shutdown", libc::SYS_shutdown, ""),
    ("pidfd_open", libc::SYS_pidfd_open, ""),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, ""),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, ""),
    ("waitid", libc::SYS_waitid, ""),
];
const NEVER: &str = "cannot fail";

static COUNTS: OnceLock<&'static SharedPage> = OnceLock::new();

/// Makes the page of counts. Once, before the first check.
pub fn begin() -> std::io::Result<()> {
    let page = linux::shared_page()?;
    COUNTS.get_or_init(|| page);
    Ok(())
}

fn index(number: i64) -> Option<usize> {
    LISTED.iter().position(|(_, listed, _)| *listed == number)
}

fn name(number: i64) -> String {
    index(number).map_or(format!("call {number}"), |i| LISTED[i].0.to_string())
}

fn count(number: i64, refused: bool) {
    if let (Some(i), Some(counts)) = (index(number), COUNTS.get()) {
        counts[2 * i + usize::from(refused)].fetch_add(1, Ordering::SeqCst);
    }
}

/// For what `works` and `refused` cannot make themselves: a case of `number` that worked (`Ok`) or was refused as it ought to be (`Err`).
pub fn seen(number: i64, how: Result<(), ()>) {
    count(number, how.is_err());
}

fn six(args: &[u64]) -> [u64; 6] {
    std::array::from_fn(|i| args.get(i).copied().unwrap_or(0))
}

/// Makes a call that has to work; gives its value.
#[track_caller]
pub fn works(number: i64, args: &[u64]) -> Result<u64, String> {
    let value = call(number, six(args));
    let place = Location::caller();
    count(number, false);
    value.map_err(|e| format!("{}:{}: {}({args:x?}): error {e}", place.file(), place.line(), name(number)))
}

/// Makes a call that has to give `wanted`.
#[track_caller]
pub fn gives(number: i64, args: &[u64], wanted: u64) -> Result<(), String> {
    let value = call(number, six(args));
    let place = Location::caller();
    count(number, false);
    if value == Ok(wanted) {
        return Ok(());
    }
    Err(format!("{}:{}: {}({args:x?}): {value:?}, not {wanted}", place.file(), place.line(), name(number)))
}

/// Makes a call that has to be refused with `error`.
#[track_caller]
pub fn refused(number: i64, args: &[u64], error: i32) -> Result<(), String> {
    let value = call(number, six(args));
    let place = Location::caller();
    count(number, true);
    if value == Err(error) {
        return Ok(());
    }
    Err(format!("{}:{}: {}({args:x?}): {value:?}, not error {error}", place.file(), place.line(), name(number)))
}

/// What is wrong with the counts of all checks together.
pub fn missing() -> Vec<String> {
    let counts = COUNTS.get();
    missing_of(|i| counts.map_or(0, |c| c[i].load(Ordering::SeqCst)))
}

fn missing_of(count: impl Fn(usize) -> u64) -> Vec<String> {
    let mut lines = Vec::new();
    for (i, (name, _, never)) in LISTED.iter().enumerate() {
        if count(2 * i) == 0 {
            lines.push(format!("{name}: no case that works"));
        }
        match (count(2 * i + 1), never.is_empty()) {
            (0, true) => lines.push(format!("{name}: no case that is refused")),
            (1.., false) => lines.push(format!("{name}: a case that is refused, though it {never}")),
            _ => {}
        }
    }
    lines
}

/// The address of a value that the kernel reads or writes.
pub fn at<T: ?Sized>(value: &T) -> u64 {
    std::ptr::from_ref(value).cast::<()>() as u64
}

/// The address of a value that the kernel writes.
pub fn to<T: ?Sized>(value: &mut T) -> u64 {
    std::ptr::from_mut(value).cast::<()>() as u64
}

/// An address in the kernel's half.
pub const KERNEL: u64 = 0xffff_8000_0000_1000;
/// An address where nothing is ever mapped.
pub const NOWHERE: u64 = 0x10;

/// A directory of its own for a check, with all in it gone at the end.
pub struct Folder(pub String);

impl Folder {
    /// Makes it.
    pub fn new() -> Result<Folder, String> {
        let path = format!("/tmp/calls-each-{}", linux::own_pid());
        std::fs::create_dir(&path).map_err(|e| format!("{path}: {e}"))?;
        Ok(Folder(path))
    }

    /// The path of `name` in it, with its NUL.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}\0", self.0)
    }

    /// Writes file `name` and gives its path, with its NUL.
    pub fn file(&self, name: &str, content: &[u8]) -> Result<String, String> {
        std::fs::write(format!("{}/{name}", self.0), content).map_err(|e| format!("{name}: {e}"))?;
        Ok(self.path(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_without_its_cases_is_named() {
        let all = |i: usize| u64::from(i.is_multiple_of(2) || LISTED[i / 2].2.is_empty());
        assert_eq!(missing_of(all), Vec::<String>::new());
        assert_eq!(missing_of(|i| if i == 0 { 0 } else { all(i) }), ["mmap: no case that works"]);
        assert_eq!(missing_of(|i| if i == 3 { 0 } else { all(i) }), ["mprotect: no case that is refused"]);
        assert_eq!(missing_of(|_| 1).len(), LISTED.iter().filter(|l| !l.2.is_empty()).count());
    }

    #[test]
    fn the_counts_fit_their_page() {
        assert!(2 * LISTED.len() <= size_of::<SharedPage>() / 8);
    }
}

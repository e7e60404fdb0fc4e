//! init: process 1. Starts the shell, or the command line that the kernel gave as arguments, and powers off when it has ended.
//!
//! The kernel provides /proc, /sys and /dev; on a kernel that does not, they are mounted where that works.

use crate::entry::{Args, Outcome};
use crate::linux::{self, Ended, Fork, MachineEnd};
use crate::output::{complain, describe, write_out};
use crate::signal_name;
use std::ffi::CStr;

/// `init [WORD…]`: without words an interactive /bin/sh, with words `/bin/sh -c "WORD…"`.
pub fn main(args: &Args) -> Outcome {
    open_console();
    provide_files();
    if linux::own_pid() == 1 {
        linux::end_machine_by_signal();
    }
    for (name, value) in
        [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/"), ("TERM", "vt100")]
    {
        // SAFETY: (1) init has one thread.
        unsafe { std::env::set_var(name, value) };
    }
    let mut words = vec!["sh".to_string()];
    if args.rest().is_empty() {
        words.push("-i".to_string());
    } else {
        words.extend(["-c".to_string(), args.rest().join(" ")]);
    }
    match linux::fork() {
        Ok(Fork::Child) => {
            linux::start_session(0);
            let error = linux::exec("/bin/sh", &words);
            complain("init", &format!("/bin/sh: {}", describe(&error)));
            linux::exit_now(127)
        }
        Ok(Fork::Parent(shell)) => {
            let how = match reap_until(shell) {
                Some(Ended::Exit(status)) => format!("ended with status {status}"),
                Some(Ended::Signal(signal)) => format!("was killed by {}", signal_name::name(signal)),
                None => "is gone".to_string(),
            };
            let what = if args.rest().is_empty() { "the shell" } else { "the command" };
            write_out(format!("init: {what} {how}; powering off\n").as_bytes());
        }
        Err(error) => complain("init", &format!("fork: {}; powering off", describe(&error))),
    }
    if linux::own_pid() != 1 {
        return Ok(0);
    }
    let error = linux::end_machine(MachineEnd::PowerOff);
    complain("init", &format!("power off: {}", describe(&error)));
    loop {
        linux::sleep_ns(3_600_000_000_000);
    }
}

/// Descriptors 0, 1 and 2 lead to the console if the kernel has not opened them.
pub fn open_console() {
    while !(0..=2).all(linux::is_open) {
        let console = linux::open("/dev/console", libc::O_RDWR | libc::O_NOCTTY, 0);
        let opened = console.or_else(|_| linux::open("/dev/null", libc::O_RDWR, 0));
        match opened {
            // The lowest free number was taken; exec is not to close it.
            Ok(fd) if fd <= 2 => {
                let _ = linux::duplicate_onto(fd, fd);
            }
            Ok(fd) => {
                linux::close(fd);
                return;
            }
            Err(_) => return,
        }
    }
}

/// Mounts /proc, /sys, /dev and /dev/pts when there is no /proc/self, as process 1. Refusals are left alone: programs say which file they miss.
pub fn provide_files() {
    const MOUNTS: [(&CStr, &CStr); 4] =
        [(c"proc", c"/proc"), (c"sysfs", c"/sys"), (c"devtmpfs", c"/dev"), (c"devpts", c"/dev/pts")];
    if linux::own_pid() != 1 || std::fs::symlink_metadata("/proc/self").is_ok() {
        return;
    }
    for (kind, target) in MOUNTS {
        let _ = std::fs::create_dir(target.to_string_lossy().as_ref());
        let _ = linux::mount(kind, target);
    }
}

/// Collects every child that ends, until the shell has.
fn reap_until(shell: linux::Pid) -> Option<Ended> {
    loop {
        match linux::wait(-1, linux::Wait::Block) {
            Ok(Some((pid, how, _))) if pid == shell => return Some(how),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(_) => return None,
        }
    }
}

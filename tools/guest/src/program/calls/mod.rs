//! calls: checks what system calls about processes, signals, memory, threads and time do, each check in a process of its own.
//!
//! Runs as process 1 (`init=/bin/calls`, then powers off) or from the shell, and on Linux too: `make compare` boots Debian's kernel with
//! it and so shows that the checks are right. Prints `ok NAME` or `FAILED NAME: why` a line, `skipped NAME` for what is about Quiesce
//! alone, then `calls: N of M passed`.

mod absent;
mod chroot;
mod clock_set;
mod each;
mod each_file;
mod each_memory;
mod each_process;
mod each_signal;
mod each_start;
mod each_time;
mod each_timer;
mod each_transfer;
mod fault;
mod fault_code;
mod file_copy;
mod file_mapping;
mod group_signal;
mod memory;
mod open_rules;
mod path_only;
mod pid_file;
mod pipe;
mod pointer;
mod priority;
mod process;
mod program_file;
mod ptrace;
mod ptrace_events;
mod pty;
mod pty_packet;
mod signal;
mod signal_stack;
mod socket;
mod socket_messages;
mod socket_waits;
mod thread;
mod time;
mod timer_set;
pub(crate) mod traced;
mod vdso;
mod vector;
mod watch;

use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Ended, Fork, MachineEnd};
use crate::output::{describe, write_out};
use std::io::Error;

/// What a check says: nothing, or what was wrong.
type Check = fn() -> Result<(), String>;

/// Checks of what Linux has no equal of, or where it would change the whole machine.
const QUIESCE_ALONE: [&str; 3] = ["no_leak", "pointer_everywhere", "absent_calls"];

/// The place and text of a condition that does not hold.
macro_rules! ensure {
    ($condition:expr) => {
        if !$condition {
            return Err(format!("line {}: not {}", line!(), stringify!($condition)));
        }
    };
}
/// Two values that are not equal.
macro_rules! equal {
    ($left:expr, $right:expr) => {{
        let (left, right) = ($left, $right);
        if left != right {
            return Err(format!("line {}: {} is {left:?}, not {right:?}", line!(), stringify!($left)));
        }
    }};
}
use {ensure, equal};

/// A raw system call: the value, or the error number.
fn call(number: i64, args: [u64; 6]) -> Result<u64, i32> {
    // SAFETY: (1) callers pass pointers that are valid for the call, or ones that the kernel must refuse.
    let value = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
    if value == -1 { Err(errno()) } else { Ok(value as u64) }
}

fn errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Runs `child` in a forked process and says how that ended; its result is its exit status.
fn in_child(child: impl FnOnce() -> u8) -> Result<Ended, String> {
    match linux::fork().map_err(|e| e.to_string())? {
        Fork::Child => linux::exit_now(child()),
        Fork::Parent(pid) => linux::wait_for(pid).map_err(|e| format!("wait for {pid}: {e}")),
    }
}

/// A child that runs `f` is killed by SIGSEGV.
fn dies(f: impl FnOnce()) -> Result<(), String> {
    let ended = in_child(|| {
        f();
        0
    })?;
    equal!(ended, Ended::Signal(libc::SIGSEGV));
    Ok(())
}

/// `calls [NAME…]`: all checks, or those whose name has one of these words in it.
pub fn main(args: &Args) -> Outcome {
    if let [first, rest @ ..] = args.rest()
        && first == process::EXEC_CHECK
    {
        return process::exec_check(rest);
    }
    if args.rest().first().is_some_and(|word| word == vector::START_CHECK) {
        return vector::start_check();
    }
    let first = linux::own_pid() == 1;
    if first {
        crate::program::init::provide_files();
        crate::program::init::open_console();
    }
    let quiesce = is_quiesce();
    let wanted: Vec<&String> = args.rest().iter().filter(|w| !w.contains('=')).collect();
    let groups: &[&[(&str, Check)]] = &[
        process::CHECKS,
        signal::CHECKS,
        signal_stack::CHECKS,
        group_signal::CHECKS,
        memory::CHECKS,
        file_copy::CHECKS,
        file_mapping::CHECKS,
        thread::CHECKS,
        priority::CHECKS,
        time::CHECKS,
        clock_set::CHECKS,
        vdso::CHECKS,
        vector::CHECKS,
        pointer::CHECKS,
        fault::CHECKS,
        fault_code::CHECKS,
        watch::CHECKS,
        open_rules::CHECKS,
        path_only::CHECKS,
        chroot::CHECKS,
        program_file::CHECKS,
        pid_file::CHECKS,
        pipe::CHECKS,
        socket::CHECKS,
        socket_messages::CHECKS,
        socket_waits::CHECKS,
        pty::CHECKS,
        pty_packet::CHECKS,
        each_memory::CHECKS,
        each_process::CHECKS,
        each_signal::CHECKS,
        each_transfer::CHECKS,
        each_file::CHECKS,
        each_time::CHECKS,
        each_timer::CHECKS,
        timer_set::CHECKS,
        each_start::CHECKS,
        ptrace::CHECKS,
        ptrace_events::CHECKS,
        absent::CHECKS,
    ];
    if let Err(error) = each::begin() {
        return Err(Failure::new(format!("shared memory: {error}")));
    }
    let (mut passed, mut all) = (0, 0);
    for (name, check) in groups.iter().copied().flatten() {
        if !wanted.is_empty() && !wanted.iter().any(|w| name.contains(w.as_str())) {
            continue;
        }
        if !quiesce && QUIESCE_ALONE.contains(name) {
            write_out(format!("skipped {name}: about Quiesce alone\n").as_bytes());
            continue;
        }
        all += 1;
        let ended = in_child(|| {
            // A group of its own, so that signals to the group reach the check alone.
            let _ = call(libc::SYS_setpgid, [0; 6]);
            match check() {
                Ok(()) => 0,
                Err(why) => {
                    write_out(format!("FAILED {name}: {why}\n").as_bytes());
                    1
                }
            }
        });
        match ended {
            Ok(Ended::Exit(0)) => {
                passed += 1;
                write_out(format!("ok {name}\n").as_bytes());
            }
            Ok(Ended::Exit(1)) => {}
            other => write_out(format!("FAILED {name}: {other:?}\n").as_bytes()),
        }
    }
    // Whether every listed call had its cases, which only all checks together can say.
    if wanted.is_empty() {
        all += 1;
        let missing = each::missing();
        if missing.is_empty() {
            passed += 1;
            write_out(format!("ok each_listed_call ({} of them)\n", each::LISTED.len()).as_bytes());
        } else {
            write_out(format!("FAILED each_listed_call: {}\n", missing.join("; ")).as_bytes());
        }
    }
    write_out(format!("calls: {passed} of {all} passed\n").as_bytes());
    if first {
        if std::env::var("end").is_ok_and(|end| end == "port") {
            crate::instruction::leave_by_port();
        }
        let error = linux::end_machine(MachineEnd::PowerOff);
        return Err(Failure::new(format!("power off: {}", describe(&error))));
    }
    Ok(u8::from(passed != all))
}

/// The path of this program.
fn own_path() -> String {
    std::env::current_exe().map_or("/bin/calls".to_string(), |p| p.to_string_lossy().into_owned())
}

/// Whether this is Quiesce and not the host.
fn is_quiesce() -> bool {
    std::fs::read_to_string("/proc/version").is_ok_and(|v| v.contains("Quiesce"))
}

//! Processes: fork, exec, wait, ids, ends by faults.

use super::{Check, call, ensure, equal, in_child, own_path};
use crate::entry::{Failure, Outcome};
use crate::linux::{self, Ended, Fork};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("exit_status", exit_status),
    ("wait_errors", wait_errors),
    ("fork_private", fork_private),
    ("orphan", orphan),
    ("exec_arguments", exec_arguments),
    ("exec_errors", exec_errors),
    ("exec_script", exec_script),
    ("spawn_output", spawn_output),
    ("groups_and_sessions", groups_and_sessions),
    ("ignored_children", ignored_children),
    ("fatal_faults", fatal_faults),
    ("bad_pointers", bad_pointers),
    ("unknown_calls", unknown_calls),
    ("names", names),
    ("limits", limits),
    ("no_leak", no_leak),
    ("many_children", many_children),
];

/// First argument of the program when `exec_check` is wanted.
pub const EXEC_CHECK: &str = "--exec-check";

/// What the program does when it is executed by a check: looks at its arguments and environment and says what it saw.
pub fn exec_check(args: &[String]) -> Outcome {
    let environment: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
    let text = format!("args={} env={}", args.join(","), environment.join(","));
    linux::write_all(1, text.as_bytes()).map_err(|e| Failure::new(e.to_string()))?;
    Ok(42)
}

fn exit_status() -> Result<(), String> {
    for status in [0, 7, 255] {
        equal!(in_child(|| status)?, Ended::Exit(status));
    }
    Ok(())
}

fn wait_errors() -> Result<(), String> {
    let wait = |pid: i64, options: u64| call(libc::SYS_wait4, [pid as u64, 0, options, 0, 0, 0]);
    equal!(wait(-1, 0), Err(libc::ECHILD));
    equal!(wait(-1, 0x100), Err(libc::EINVAL));
    let Fork::Parent(pid) = linux::fork().map_err(|e| e.to_string())? else {
        let _ = call(libc::SYS_pause, [0; 6]);
        linux::exit_now(0)
    };
    equal!(wait(-1, libc::WNOHANG as u64), Ok(0));
    equal!(wait(pid as i64 + 1, libc::WNOHANG as u64), Err(libc::ECHILD));
    // SAFETY: (1) no memory is passed.
    ensure!(unsafe { libc::kill(pid, libc::SIGKILL) } == 0);
    let mut status = 0i32;
    // A child that is left to be waited for again.
    let mut info = [0u8; 128];
    let options = (libc::WEXITED | libc::WNOWAIT) as u64;
    equal!(call(libc::SYS_waitid, [1, pid as u64, info.as_mut_ptr() as u64, options, 0, 0]), Ok(0));
    equal!(i32::from_le_bytes([info[8], info[9], info[10], info[11]]), libc::CLD_KILLED);
    // SAFETY: (1) the pointer is valid.
    ensure!(unsafe { libc::waitpid(pid, &mut status, 0) } == pid);
    equal!(status, libc::SIGKILL);
    equal!(wait(-1, 0), Err(libc::ECHILD));
    Ok(())
}

fn fork_private() -> Result<(), String> {
    let mut pages = vec![1u8; 64 * 4096];
    let ended = in_child(|| {
        let seen = pages.iter().all(|&b| b == 1);
        pages.fill(2);
        u8::from(!(seen && pages.iter().all(|&b| b == 2)))
    })?;
    equal!(ended, Ended::Exit(0));
    ensure!(pages.iter().all(|&b| b == 1));
    pages.fill(3);
    ensure!(pages.iter().all(|&b| b == 3));
    Ok(())
}

fn orphan() -> Result<(), String> {
    let (mut reader, mut writer) = std::io::pipe().map_err(|e| e.to_string())?;
    let ended = in_child(|| {
        let middle = linux::own_pid();
        if let Ok(Fork::Child) = linux::fork() {
            // SAFETY: (1) no arguments.
            while unsafe { libc::getppid() } == middle {
                std::thread::yield_now();
            }
            let _ = writer.write_all(b"adopted");
            linux::exit_now(0)
        }
        0
    })?;
    equal!(ended, Ended::Exit(0));
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).map_err(|e| e.to_string())?;
    equal!(text.as_str(), "adopted");
    Ok(())
}

fn exec_arguments() -> Result<(), String> {
    let long = "x".repeat(100_000);
    let output = Command::new(own_path())
        .args([EXEC_CHECK, "a b", "", &long])
        .env_clear()
        .env("KEY", "value")
        .output()
        .map_err(|e| e.to_string())?;
    equal!(output.status.code(), Some(42));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    equal!(text.len(), format!("args=a b,,{long} env=KEY=value").len());
    ensure!(text.ends_with(" env=KEY=value"));
    Ok(())
}

fn exec_errors() -> Result<(), String> {
    let run = |path: &str| Command::new(path).spawn().map(drop).map_err(|e| e.raw_os_error());
    equal!(run("/no/such/program"), Err(Some(libc::ENOENT)));
    equal!(run("/tmp"), Err(Some(libc::EACCES)));
    let path = format!("/tmp/calls-garbage-{}", linux::own_pid());
    std::fs::write(&path, "this is no program").map_err(|e| e.to_string())?;
    equal!(run(&path), Err(Some(libc::EACCES)));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    equal!(run(&path), Err(Some(libc::ENOEXEC)));
    std::fs::write(&path, b"\x7fELF\x02\x01\x01garbage behind the magic").map_err(|e| e.to_string())?;
    equal!(run(&path), Err(Some(libc::ENOEXEC)));
    std::fs::remove_file(&path).map_err(|e| e.to_string())?;
    let execve = |path: u64, args: u64| call(libc::SYS_execve, [path, args, 0, 0, 0, 0]);
    equal!(execve(8, 0), Err(libc::EFAULT));
    equal!(execve(c"/bin/true".as_ptr() as u64, 16), Err(libc::EFAULT));
    Ok(())
}

fn exec_script() -> Result<(), String> {
    let path = format!("/tmp/calls-script-{}", linux::own_pid());
    std::fs::write(&path, format!("#!{} {EXEC_CHECK}\n", own_path())).map_err(|e| e.to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    let output = Command::new(&path).arg("last").env_clear().output().map_err(|e| e.to_string())?;
    equal!(String::from_utf8_lossy(&output.stdout).into_owned(), format!("args={path},last env="));
    std::fs::remove_file(&path).map_err(|e| e.to_string())?;
    Ok(())
}

fn spawn_output() -> Result<(), String> {
    for _ in 0..5 {
        let mut child = Command::new(own_path())
            .arg0("another name")
            .args([EXEC_CHECK, "one"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut text = String::new();
        child.stdout.take().ok_or("no pipe")?.read_to_string(&mut text).map_err(|e| e.to_string())?;
        ensure!(text.starts_with("args=one "));
        equal!(child.wait().map_err(|e| e.to_string())?.code(), Some(42));
    }
    Ok(())
}

fn groups_and_sessions() -> Result<(), String> {
    let pid = linux::own_pid() as u64;
    equal!(call(libc::SYS_getpgid, [0; 6]), Ok(pid));
    equal!(call(libc::SYS_setsid, [0; 6]), Err(libc::EPERM)); // a group leader
    equal!(call(libc::SYS_setpgid, [0, u64::MAX, 0, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_setpgid, [0, 99_999, 0, 0, 0, 0]), Err(libc::EPERM));
    let ended = in_child(|| {
        let me = linux::own_pid() as u64;
        let sid = call(libc::SYS_setsid, [0; 6]);
        let good = sid == Ok(me)
            && call(libc::SYS_getsid, [0; 6]) == Ok(me)
            && call(libc::SYS_getpgid, [0; 6]) == Ok(me)
            && call(libc::SYS_setpgid, [0; 6]) == Err(libc::EPERM);
        u8::from(!good)
    })?;
    equal!(ended, Ended::Exit(0));
    equal!(call(libc::SYS_getsid, [99_999, 0, 0, 0, 0, 0]), Err(libc::ESRCH));
    Ok(())
}

fn ignored_children() -> Result<(), String> {
    // SAFETY: (1) SIG_IGN is a valid action.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let Fork::Parent(pid) = linux::fork().map_err(|e| e.to_string())? else { linux::exit_now(3) };
    // It waits for the child's end, then finds no child.
    equal!(call(libc::SYS_wait4, [pid as u64, 0, 0, 0, 0, 0]), Err(libc::ECHILD));
    Ok(())
}

fn fatal_faults() -> Result<(), String> {
    let read = |at: usize| {
        // SAFETY: none: the fault is what is checked, in a child that it ends.
        unsafe { (at as *const u8).read_volatile() }
    };
    equal!(in_child(|| read(0))?, Ended::Signal(libc::SIGSEGV));
    equal!(in_child(|| read(0xffff_8000_0000_0000))?, Ended::Signal(libc::SIGSEGV));
    equal!(in_child(|| read(0xffff_ffff_8000_0000))?, Ended::Signal(libc::SIGSEGV));
    equal!(in_child(|| read(0x8000_0000_0000))?, Ended::Signal(libc::SIGSEGV)); // not canonical
    macro_rules! ends_by {
        ($code:literal, $signal:expr) => {{
            let ended = in_child(|| {
                // SAFETY: none, as above.
                unsafe { core::arch::asm!($code, out("rax") _, out("rdx") _, out("rcx") _) };
                0
            })?;
            equal!(ended, Ended::Signal($signal));
        }};
    }
    ends_by!("ud2", libc::SIGILL);
    ends_by!("hlt", libc::SIGSEGV);
    ends_by!("int3", libc::SIGTRAP);
    ends_by!("xor ecx, ecx\nxor edx, edx\nmov eax, 1\ndiv ecx", libc::SIGFPE);
    ends_by!("int 0x21", libc::SIGSEGV);
    ends_by!("pushfq\nor qword ptr [rsp], 0x100\npopfq\nnop", libc::SIGTRAP); // single step
    ends_by!("xor eax, eax\nmov rsp, rax\npush rax", libc::SIGSEGV);
    ends_by!("mov eax, 0x2b\nmov ds, eax\nmov rax, cr0", libc::SIGSEGV);
    Ok(())
}

fn bad_pointers() -> Result<(), String> {
    const BAD: [u64; 5] = [8, 0x7fff_ffff_f000, 0x8000_0000_0000, 0xffff_8000_0000_1000, u64::MAX - 8];
    for at in BAD {
        let fault = |number: i64, args: [u64; 6]| match call(number, args) {
            Err(libc::EFAULT) => Ok(()),
            other => Err(format!("call {number} with {at:#x}: {other:?}")),
        };
        fault(libc::SYS_uname, [at, 0, 0, 0, 0, 0])?;
        fault(libc::SYS_clock_gettime, [1, at, 0, 0, 0, 0])?;
        fault(libc::SYS_nanosleep, [at, 0, 0, 0, 0, 0])?;
        fault(libc::SYS_rt_sigaction, [10, at, 0, 8, 0, 0])?;
        fault(libc::SYS_rt_sigprocmask, [0, at, 0, 8, 0, 0])?;
        fault(libc::SYS_sched_setaffinity, [0, 8, at, 0, 0, 0])?;
        fault(libc::SYS_sched_getaffinity, [0, 128, at, 0, 0, 0])?;
        fault(libc::SYS_getrandom, [at, 16, 0, 0, 0, 0])?;
        fault(libc::SYS_execve, [at, 0, 0, 0, 0, 0])?;
        fault(libc::SYS_futex, [at & !3, 0, 0, 0, 0, 0])?;
        fault(libc::SYS_sysinfo, [at, 0, 0, 0, 0, 0])?;
        fault(libc::SYS_getrlimit, [7, at, 0, 0, 0, 0])?;
        fault(libc::SYS_prctl, [16, at, 0, 0, 0, 0])?;
    }
    Ok(())
}

fn unknown_calls() -> Result<(), String> {
    for number in [390, 500, 511, 512, 10_000, i64::MAX, -5] {
        equal!(call(number, [0; 6]), Err(libc::ENOSYS));
    }
    Ok(())
}

fn names() -> Result<(), String> {
    let mut name = [0u8; 16];
    equal!(call(libc::SYS_prctl, [15, c"a name that is too long".as_ptr() as u64, 0, 0, 0, 0]), Ok(0));
    equal!(call(libc::SYS_prctl, [16, name.as_mut_ptr() as u64, 0, 0, 0, 0]), Ok(0));
    equal!(&name[..], b"a name that is \0");
    let id = call(libc::SYS_getpid, [0; 6]);
    equal!(call(libc::SYS_gettid, [0; 6]), id);
    Ok(())
}

fn limits() -> Result<(), String> {
    let mut limit = [0u64; 2];
    equal!(call(libc::SYS_prlimit64, [0, 7, 0, limit.as_mut_ptr() as u64, 0, 0]), Ok(0));
    ensure!(limit[0] >= 256 && limit[0] <= limit[1]);
    equal!(call(libc::SYS_getrlimit, [3, limit.as_mut_ptr() as u64, 0, 0, 0, 0]), Ok(0));
    ensure!(limit[0] >= 1 << 20);
    equal!(call(libc::SYS_getrlimit, [99, limit.as_mut_ptr() as u64, 0, 0, 0, 0]), Err(libc::EINVAL));
    Ok(())
}

fn free_kib() -> Result<i64, String> {
    let text = std::fs::read_to_string("/proc/meminfo").map_err(|e| e.to_string())?;
    let line = text.lines().find(|l| l.starts_with("MemFree:")).ok_or("no MemFree")?;
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).ok_or("no number".to_string())
}

/// What processes take, they give back: 300 that fork, fault, map, exec and end cost nothing in the end.
fn no_leak() -> Result<(), String> {
    let round = |count: u32| -> Result<(), String> {
        for i in 0..count {
            let ended = in_child(|| {
                let big = vec![1u8; 300_000];
                if i % 10 == 0 {
                    let error = Command::new(own_path()).arg(EXEC_CHECK).stdout(std::process::Stdio::null()).exec();
                    let _ = error.raw_os_error();
                }
                u8::from(big[299_999] != 1) + 42
            })?;
            equal!(ended, Ended::Exit(42));
        }
        Ok(())
    };
    // What grows once stays, like the heap and the page tables of kernel stacks; a leak grows in every round.
    const ROUND_MAY_KEEP_KIB: i64 = 128;
    round(100)?;
    let mut before = settled_free_kib()?;
    let mut kept_kib = Vec::new();
    while kept_kib.len() < 3 {
        round(300)?;
        let after = settled_free_kib()?;
        if before - after <= ROUND_MAY_KEEP_KIB {
            return Ok(());
        }
        kept_kib.push(before - after);
        before = after;
    }
    Err(format!("rounds of 300 processes took so many KiB for good: {kept_kib:?}"))
}

/// Free memory in KiB once no grace period holds any back, with the kernel stacks that are kept for the next processes.
fn settled_free_kib() -> Result<i64, String> {
    // A callback may post another.
    std::fs::write("/sys/kernel/quiesce/debug/rcu", "barrier 2").map_err(|e| format!("debug/rcu: {e}"))?;
    let file = "/sys/kernel/quiesce/debug/kernel_stacks";
    let stacks = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
    let number = |name: &str| -> Result<i64, String> {
        let value = stacks.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|n| n.parse().ok()).ok_or(format!("{file}: no {name} in {stacks:?}"))
    };
    Ok(free_kib()? + number("free")? * number("kib")?)
}

fn many_children() -> Result<(), String> {
    const COUNT: usize = 60;
    let mut pids = Vec::new();
    for i in 0..COUNT {
        match linux::fork().map_err(|e| e.to_string())? {
            Fork::Child => {
                for _ in 0..20 {
                    std::thread::yield_now();
                }
                linux::exit_now(i as u8)
            }
            Fork::Parent(pid) => pids.push(pid),
        }
    }
    let mut seen = [false; COUNT];
    for _ in 0..COUNT {
        let mut status = 0;
        // SAFETY: (1) the pointer is valid.
        let pid = unsafe { libc::wait(&mut status) };
        let at = pids.iter().position(|&p| p == pid).ok_or(format!("{pid} is no child"))?;
        equal!(status, (at as i32) << 8);
        ensure!(!seen[at]);
        seen[at] = true;
    }
    equal!(call(libc::SYS_wait4, [u64::MAX, 0, 0, 0, 0, 0]), Err(libc::ECHILD));
    Ok(())
}

//! Calls that start programs and threads in the newer ways, and the machine's names: clone3, execveat, sethostname, syslog; alarms.

use super::each::{Folder, KERNEL, NOWHERE, at, gives, refused, to, works};
use super::{Check, call, ensure, equal, in_child};
use crate::linux::Ended;
use libc::{
    E2BIG, EBADF, EFAULT, EINVAL, ELOOP, ENOENT, ENOTDIR, SYS_alarm, SYS_clone3, SYS_close, SYS_execveat, SYS_exit,
    SYS_get_mempolicy, SYS_getitimer, SYS_open, SYS_poll, SYS_read, SYS_set_mempolicy, SYS_setdomainname,
    SYS_sethostname, SYS_setitimer, SYS_shutdown, SYS_socketpair, SYS_syslog, SYS_wait4, SYS_write,
};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("start_clone3", clone3),
    ("start_execveat", execveat),
    ("start_orphan", orphan),
    ("start_names", names),
    ("start_syslog", syslog),
    ("start_alarm", alarm),
    ("start_socketpair", socketpair),
    ("start_memory_policy", memory_policy),
];

const SIGCHLD: u64 = 17;

fn clone3() -> Result<(), String> {
    // flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    let with = |changes: &[(usize, u64)]| {
        let mut words = [0u64; 12];
        words[4] = SIGCHLD;
        for (i, value) in changes {
            words[*i] = *value;
        }
        words
    };
    for size in [64, 80, 88, 96] {
        match call(SYS_clone3, [at(&with(&[])), size, 0, 0, 0, 0]) {
            Ok(0) => {
                let _ = call(SYS_exit, [7, 0, 0, 0, 0, 0]);
            }
            Ok(pid) => {
                let mut status = 0i32;
                gives(SYS_wait4, &[pid, to(&mut status), 0, 0], pid)?;
                equal!(status, 7 << 8);
            }
            Err(e) => return Err(format!("clone3 of {size} bytes: error {e}")),
        }
    }
    refused(SYS_clone3, &[at(&with(&[])), 56], EINVAL)?;
    refused(SYS_clone3, &[at(&with(&[])), 8192], E2BIG)?;
    refused(SYS_clone3, &[at(&with(&[(11, 1)])), 96], E2BIG)?;
    refused(SYS_clone3, &[at(&with(&[(0, 17)])), 64], EINVAL)?;
    refused(SYS_clone3, &[at(&with(&[(4, 256)])), 64], EINVAL)?;
    refused(SYS_clone3, &[at(&with(&[(5, 0x1000)])), 64], EINVAL)?;
    refused(SYS_clone3, &[at(&with(&[(6, 0x1000)])), 64], EINVAL)?;
    refused(SYS_clone3, &[at(&with(&[(0, 0x8000)])), 64], EINVAL)?; // CLONE_PARENT with a signal
    for bad in [NOWHERE, KERNEL] {
        refused(SYS_clone3, &[bad, 64], EFAULT)?;
    }
    Ok(())
}

fn execveat() -> Result<(), String> {
    const CWD: u64 = -100i64 as u64;
    const EMPTY_PATH: u64 = 0x1000;
    const NOFOLLOW: u64 = 0x100;
    let folder = Folder::new()?;
    let name = format!("{}\0", folder.0);
    let directory = works(SYS_open, &[at(name.as_str()), 0o200000, 0])?;
    let none = [0u64; 1];
    let own = format!("{}\0", super::own_path());
    let word = format!("{}\0", super::process::EXEC_CHECK);
    let words = [at(own.as_str()), at(word.as_str()), 0];
    let runs = |dir: u64, path: &str, flags: u64| -> Result<(), String> {
        let ended = in_child(|| {
            crate::linux::close(1);
            let _ = call(libc::SYS_open, [at("/dev/null\0"), 1, 0, 0, 0, 0]);
            let _ = call(SYS_execveat, [dir, at(path), at(&words), at(&none), flags, 0]);
            99
        })?;
        equal!(ended, Ended::Exit(42));
        Ok(())
    };
    runs(CWD, &own, 0)?;
    let program = works(SYS_open, &[at(own.as_str()), 0o10000000, 0])?;
    runs(program, "\0", EMPTY_PATH)?;
    refused(SYS_execveat, &[directory, at("nothing\0"), at(&none), at(&none), 0], ENOENT)?;
    refused(SYS_execveat, &[CWD, at("\0"), at(&none), at(&none), 0], ENOENT)?;
    refused(SYS_execveat, &[999, at("x\0"), at(&none), at(&none), 0], EBADF)?;
    refused(SYS_execveat, &[program, at("x\0"), at(&none), at(&none), 0], ENOTDIR)?;
    refused(SYS_execveat, &[CWD, at(own.as_str()), at(&none), at(&none), 1], EINVAL)?;
    let link = folder.path("link");
    std::os::unix::fs::symlink(own.trim_end_matches('\0'), link.trim_end_matches('\0')).map_err(|e| e.to_string())?;
    refused(SYS_execveat, &[CWD, at(link.as_str()), at(&none), at(&none), NOFOLLOW], ELOOP)?;
    refused(SYS_execveat, &[CWD, NOWHERE, at(&none), at(&none), 0], EFAULT)
}

/// Process 1 hears of the end of an orphan by SIGCHLD, whatever signal its maker chose.
fn orphan() -> Result<(), String> {
    const SIGUSR1: u64 = 10;
    let mut ends = [0i32; 2];
    works(libc::SYS_pipe2, &[to(&mut ends), 0])?;
    let ended = in_child(|| {
        let maker = crate::linux::own_pid();
        if call(libc::SYS_clone, [SIGUSR1, 0, 0, 0, 0, 0]) != Ok(0) {
            return 0;
        }
        while call(libc::SYS_getppid, [0; 6]) == Ok(maker as u64) {
            crate::linux::sleep_ns(1_000_000);
        }
        // Field 38 of stat, of which the second ends with a parenthesis.
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let signal = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(35)?.parse().ok());
        let _ = crate::linux::write_all(ends[1], &[signal.unwrap_or(0u8)]);
        0
    })?;
    equal!(ended, Ended::Exit(0));
    let mut signal = [0u8];
    gives(SYS_read, &[ends[0] as u64, to(&mut signal), 1], 1)?;
    equal!(u64::from(signal[0]), SIGCHLD);
    Ok(())
}

fn names() -> Result<(), String> {
    let host = || crate::linux::system_name().map(|names| names[1].clone()).map_err(|e| e.to_string());
    let before = host()?;
    gives(SYS_sethostname, &[at("changed"), 7], 0)?;
    equal!(host()?, "changed".to_string());
    gives(SYS_sethostname, &[at(before.as_str()), before.len() as u64], 0)?;
    equal!(host()?, before);
    for number in [SYS_sethostname, SYS_setdomainname] {
        refused(number, &[at("x"), 65], EINVAL)?;
        refused(number, &[at("x"), u64::MAX], EINVAL)?;
        refused(number, &[NOWHERE, 4], EFAULT)?;
    }
    gives(SYS_setdomainname, &[at("(none)"), 6], 0)
}

fn syslog() -> Result<(), String> {
    const READ_ALL: u64 = 3;
    const SIZE: u64 = 10;
    let size = works(SYS_syslog, &[SIZE, 0, 0])?;
    ensure!(size >= 4096);
    let mut text = vec![0u8; size as usize + 65536];
    let len = works(SYS_syslog, &[READ_ALL, at(&text[..]), text.len() as u64])? as usize;
    ensure!(len > 0 && text[0] == b'<' && text[len - 1] == b'\n');
    let few = works(SYS_syslog, &[READ_ALL, at(&text[..]), 300])?;
    ensure!(few > 0 && few <= 300 && text[0] == b'<');
    text.clear();
    refused(SYS_syslog, &[READ_ALL, 0, 10], EINVAL)?;
    refused(SYS_syslog, &[READ_ALL, NOWHERE, 4096], EFAULT)?;
    refused(SYS_syslog, &[8, 0, 9], EINVAL)?;
    refused(SYS_syslog, &[11, 0, 0], EINVAL)
}

fn alarm() -> Result<(), String> {
    const REAL: u64 = 0;
    gives(SYS_alarm, &[1000], 0)?;
    let mut now = [0u64; 4];
    gives(SYS_getitimer, &[REAL, to(&mut now)], 0)?;
    ensure!(now[0] == 0 && now[1] == 0 && (990..=1000).contains(&now[2]));
    ensure!((990..=1000).contains(&works(SYS_alarm, &[0])?));
    gives(SYS_getitimer, &[REAL, to(&mut now)], 0)?;
    equal!(now, [0; 4]);
    // One that is due ends the process by its signal.
    let ended = in_child(|| {
        let _ = call(SYS_setitimer, [REAL, at(&[0u64, 0, 0, 1000]), 0, 0, 0, 0]);
        loop {
            crate::linux::sleep_ns(1_000_000_000);
        }
    })?;
    equal!(ended, Ended::Signal(libc::SIGALRM));
    refused(SYS_setitimer, &[REAL, at(&[0u64, 0, 0, 1_000_000]), 0], EINVAL)?;
    refused(SYS_setitimer, &[REAL, NOWHERE, 0], EFAULT)?;
    refused(SYS_setitimer, &[3, at(&[0u64; 4]), 0], EINVAL)?;
    refused(SYS_getitimer, &[3, to(&mut now)], EINVAL)?;
    refused(SYS_getitimer, &[REAL, NOWHERE], EFAULT)
}

fn socketpair() -> Result<(), String> {
    const STREAM: u64 = 1;
    let pair = || -> Result<[u64; 2], String> {
        let mut ends = [0i32; 2];
        gives(SYS_socketpair, &[1, STREAM, 0, to(&mut ends)], 0)?;
        Ok(ends.map(|fd| fd as u64))
    };
    let mut room = [0u8; 8];
    let [one, other] = pair()?;
    gives(SYS_write, &[one, at("there"), 5], 5)?;
    gives(SYS_write, &[other, at("back"), 4], 4)?;
    gives(SYS_read, &[other, to(&mut room), 8], 5)?;
    equal!(&room[..5], b"there");
    gives(SYS_read, &[one, to(&mut room), 8], 4)?;
    equal!(&room[..4], b"back");
    // Shut down for writing: the other side reads to the end, and may still answer.
    gives(SYS_write, &[one, at("x"), 1], 1)?;
    gives(SYS_shutdown, &[one, 1], 0)?;
    gives(SYS_read, &[other, to(&mut room), 8], 1)?;
    gives(SYS_read, &[other, to(&mut room), 8], 0)?;
    gives(SYS_write, &[other, at("y"), 1], 1)?;
    gives(SYS_read, &[one, to(&mut room), 8], 1)?;
    // A side that is gone: what it wrote, and the end; poll says so.
    let [one, other] = pair()?;
    gives(SYS_write, &[other, at("z"), 1], 1)?;
    gives(SYS_close, &[other], 0)?;
    let mut asked = [one | 5 << 32]; // POLLIN | POLLOUT
    gives(SYS_poll, &[to(&mut asked), 1, 0], 1)?;
    equal!(asked[0] >> 48, 0x15); // and POLLHUP
    gives(SYS_read, &[one, to(&mut room), 8], 1)?;
    gives(SYS_read, &[one, to(&mut room), 8], 0)?;
    let ended = in_child(|| {
        let _ = call(SYS_write, [one, at("x"), 1, 0, 0, 0]);
        0
    })?;
    equal!(ended, Ended::Signal(libc::SIGPIPE));
    refused(SYS_shutdown, &[one, 3], EINVAL)?;
    refused(SYS_shutdown, &[999, 0], EBADF)?;
    let mut ends = [0i32; 2];
    works(libc::SYS_pipe2, &[to(&mut ends), 0])?;
    refused(SYS_shutdown, &[ends[0] as u64, 0], libc::ENOTSOCK)?;
    refused(SYS_socketpair, &[99, STREAM, 0, to(&mut ends)], libc::EAFNOSUPPORT)?;
    refused(SYS_socketpair, &[1, STREAM, 7, to(&mut ends)], libc::EPROTONOSUPPORT)?;
    refused(SYS_socketpair, &[1, STREAM | 1 << 20, 0, to(&mut ends)], EINVAL)?;
    refused(SYS_socketpair, &[1, STREAM, 0, NOWHERE], EFAULT)
}

fn memory_policy() -> Result<(), String> {
    let (mut mode, mut mask) = (9u32, [u64::MAX; 16]);
    gives(SYS_get_mempolicy, &[0, 0, 0, 0, 0], 0)?;
    gives(SYS_get_mempolicy, &[to(&mut mode), to(&mut mask), 1024, 0, 0], 0)?;
    equal!((mode, mask), (0, [0; 16]));
    gives(SYS_get_mempolicy, &[0, to(&mut mask), 1024, 0, 4], 0)?;
    equal!(mask[0], 1);
    gives(SYS_set_mempolicy, &[0, 0, 0], 0)?;
    refused(SYS_set_mempolicy, &[99, 0, 0], EINVAL)?;
    refused(SYS_get_mempolicy, &[0, 0, 0, 0, 99], EINVAL)
}

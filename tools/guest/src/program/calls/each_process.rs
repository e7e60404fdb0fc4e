//! The listed calls about processes: clone, fork, vfork, execve, wait4, exit, exit_group, set_tid_address, set_robust_list, arch_prctl,
//! prctl, uname, those that get an id, reboot.

use super::each::{Folder, KERNEL, NOWHERE, at, gives, refused, seen, to, works};
use super::{Check, call, ensure, equal, in_child, is_quiesce, own_path};
use crate::linux::{self, Ended, Fork};
use libc::{
    E2BIG, EACCES, ECHILD, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, ENOEXEC, ENOTDIR, EPERM, ESRCH, ETXTBSY,
    SYS_arch_prctl, SYS_clone, SYS_execve, SYS_exit, SYS_exit_group, SYS_fork, SYS_getegid, SYS_geteuid, SYS_getgid,
    SYS_getpgid, SYS_getpgrp, SYS_getpid, SYS_getppid, SYS_getresgid, SYS_getresuid, SYS_getsid, SYS_gettid,
    SYS_getuid, SYS_open, SYS_prctl, SYS_reboot, SYS_set_robust_list, SYS_set_tid_address, SYS_uname, SYS_vfork,
    SYS_wait4,
};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicI32, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("each_clone", clone),
    ("each_fork", fork),
    ("each_execve", execve),
    ("each_wait4", wait4),
    ("each_exit", exit),
    ("each_set_tid", set_tid),
    ("each_arch_prctl", arch_prctl),
    ("each_prctl", prctl),
    ("each_uname", uname),
    ("each_id", id),
    ("each_reboot", reboot),
];

/// Makes call `number`, which returns twice; the second time on `args[1]`'s stack where there is one. The one that gets 0 ends at once
/// with `status`, by `exit`, and touches no memory.
fn twice(number: i64, args: [u64; 5], status: u8) -> Result<u64, String> {
    let value: i64;
    // SAFETY: (1) the second return uses registers only, and ends; (2) what the call itself writes is named by the caller's arguments.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov edi, r15d",
            "mov eax, {exit}",
            "syscall",
            "2:",
            exit = const libc::SYS_exit,
            inout("rax") number => value,
            in("rdi") args[0], in("rsi") args[1], in("rdx") args[2], in("r10") args[3], in("r8") args[4],
            in("r15") u64::from(status),
            out("rcx") _, out("r11") _,
        );
    }
    if value < 0 { Err(format!("call {number}({args:x?}): error {}", -value)) } else { Ok(value as u64) }
}

fn status_of(pid: u64) -> Result<i32, String> {
    let mut status = -1i32;
    gives(SYS_wait4, &[pid, to(&mut status), 0, 0], pid)?;
    Ok(status)
}

fn clone() -> Result<(), String> {
    const VM: u64 = 0x100;
    const FS: u64 = 0x200;
    const FILES: u64 = 0x400;
    const HANDLERS: u64 = 0x800;
    const VFORK: u64 = 0x4000;
    const THREAD: u64 = 0x1_0000;
    const NEW_NAMES: u64 = 0x2_0000;
    const SEMAPHORES: u64 = 0x4_0000;
    const SET_TLS: u64 = 0x8_0000;
    const PARENT_SET: u64 = 0x10_0000;
    const CHILD_CLEAR: u64 = 0x20_0000;
    const DETACHED: u64 = 0x40_0000;
    const CHILD: u64 = libc::SIGCHLD as u64;
    // As fork, with the child's number told.
    let mut told = -1i32;
    let pid = twice(SYS_clone, [PARENT_SET | CHILD, 0, to(&mut told), 0, 0], 3)?;
    seen(SYS_clone, Ok(()));
    equal!((u64::from(told as u32), status_of(pid)?), (pid, 3 << 8));
    // As pthread_create of musl.
    let tid = AtomicI32::new(-1);
    let mut stack = [0u64; 64];
    let top = to(&mut stack[63]) & !15;
    let flags = VM | FS | FILES | HANDLERS | THREAD | SEMAPHORES | SET_TLS | PARENT_SET | CHILD_CLEAR | DETACHED;
    let thread = twice(SYS_clone, [flags, top, at(&tid), at(&tid), at(&stack)], 0)?;
    seen(SYS_clone, Ok(()));
    while tid.load(Ordering::SeqCst) != 0 {
        std::thread::yield_now(); // cleared when it has ended
    }
    refused(SYS_wait4, &[thread, 0, 0, 0], ECHILD)?; // no child but a part of this process
    // As posix_spawn of musl.
    let pid = twice(SYS_clone, [VM | VFORK | CHILD, top, 0, 0, 0], 4)?;
    seen(SYS_clone, Ok(()));
    equal!(status_of(pid)?, 4 << 8);
    let not = |flags: u64| refused(SYS_clone, &[flags, 0, 0, 0, 0], EINVAL);
    not(HANDLERS | CHILD)?; // handlers without the memory that they lie in
    not(THREAD | VM | CHILD)?; // a thread with handlers of its own
    not(THREAD | HANDLERS)?;
    not(FS | NEW_NAMES | CHILD)?;
    refused(SYS_clone, &[SET_TLS | CHILD, 0, 0, 0, KERNEL], EPERM)?;
    Ok(())
}

fn fork() -> Result<(), String> {
    for number in [SYS_fork, SYS_vfork] {
        let pid = twice(number, [0; 5], 9)?;
        seen(number, Ok(()));
        equal!(status_of(pid)?, 9 << 8);
    }
    Ok(())
}

fn execve() -> Result<(), String> {
    let folder = Folder::new()?;
    let own = own_path() + "\0";
    let words = [at(own.as_str()), at("--exec-check\0"), 0];
    let ended = in_child(|| {
        // SAFETY: (1) takes two numbers.
        unsafe { libc::close(1) };
        let _ = linux::open("/dev/null", libc::O_WRONLY, 0); // number 1, without close-on-exec by the next line
        let _ = linux::duplicate_onto(1, 1);
        let _ = super::call(SYS_execve, [at(own.as_str()), at(&words), 0, 0, 0, 0]);
        1
    })?;
    equal!(ended, Ended::Exit(42));
    seen(SYS_execve, Ok(()));
    let not = |name: &str, error| refused(SYS_execve, &[at(name), at(&words), 0], error);
    let text = folder.file("text", b"no program")?;
    not(&text, EACCES)?; // nobody may run it
    let plain = &text[..text.len() - 1];
    std::fs::set_permissions(plain, std::fs::Permissions::from_mode(0o755)).map_err(|e| e.to_string())?;
    not(&text, ENOEXEC)?;
    let writer = linux::open(plain, libc::O_WRONLY, 0).map_err(|e| e.to_string())?;
    not(&text, ETXTBSY)?;
    linux::close(writer);
    not(&text, ENOEXEC)?;
    refused(SYS_open, &[at(own.as_str()), 1], ETXTBSY)?; // nor is a program that runs written
    not(&folder.file("empty", b"")?, EACCES)?;
    not(&folder.path(""), EACCES)?;
    not("/dev/null\0", EACCES)?;
    not(&folder.path("missing"), ENOENT)?;
    not("\0", ENOENT)?;
    not(&folder.path("text/more"), ENOTDIR)?;
    symlink("circle", format!("{}/circle", folder.0)).map_err(|e| e.to_string())?;
    not(&folder.path("circle"), ELOOP)?;
    not(&folder.path(&"n".repeat(256)), ENAMETOOLONG)?;
    refused(SYS_execve, &[KERNEL, at(&words), 0], EFAULT)?;
    refused(SYS_execve, &[at(own.as_str()), NOWHERE, 0], EFAULT)?;
    refused(SYS_execve, &[at(own.as_str()), at(&[NOWHERE, 0]), 0], EFAULT)?;
    refused(SYS_execve, &[at(own.as_str()), at(&words), KERNEL], EFAULT)?;
    // One string, and all of them, have a limit.
    let long = "x".repeat(128 << 10) + "\0";
    refused(SYS_execve, &[at(own.as_str()), at(&[at(long.as_str()), 0]), 0], E2BIG)?;
    let half = "x".repeat(64 << 10) + "\0";
    let mut many = [at(half.as_str()); 65];
    many[64] = 0;
    refused(SYS_execve, &[at(own.as_str()), at(&many), 0], E2BIG)?;
    Ok(())
}

fn wait4() -> Result<(), String> {
    const NO_HANG: u64 = 1;
    let any = u64::MAX;
    refused(SYS_wait4, &[any, 0, 0, 0], ECHILD)?;
    let mut usage = [u64::MAX; 18];
    let Fork::Parent(pid) = linux::fork().map_err(|e| e.to_string())? else {
        let _ = super::call(libc::SYS_pause, [0; 6]);
        linux::exit_now(0)
    };
    let pid = pid as u64;
    gives(SYS_wait4, &[any, 0, NO_HANG, 0], 0)?;
    gives(SYS_wait4, &[pid, 0, NO_HANG, to(&mut usage)], 0)?;
    refused(SYS_wait4, &[linux::own_pid() as u64, 0, 0, 0], ECHILD)?;
    refused(SYS_wait4, &[-99_999i64 as u64, 0, 0, 0], ECHILD)?; // a group
    refused(SYS_wait4, &[i64::from(i32::MIN) as u64, 0, 0, 0], ESRCH)?;
    refused(SYS_wait4, &[any, 0, 4, 0], EINVAL)?;
    linux::kill(pid as i32, libc::SIGTERM).map_err(|e| e.to_string())?;
    let mut status = 0i32;
    gives(SYS_wait4, &[0, to(&mut status), 0, to(&mut usage)], pid)?; // any of the group
    equal!(status, libc::SIGTERM);
    ensure!(usage[0] < 100 && usage[1] < 1_000_000);
    let pid = twice(SYS_fork, [0; 5], 0)?;
    refused(SYS_wait4, &[pid, KERNEL, 0, 0], EFAULT)?;
    refused(SYS_wait4, &[any, 0, 0, 0], ECHILD)?; // it is gone for all that
    Ok(())
}

fn exit() -> Result<(), String> {
    // Of the status eight bits are kept.
    for (number, status) in [(SYS_exit, 0x1234_5607u64), (SYS_exit_group, u64::MAX)] {
        let ended = in_child(|| {
            let _ = super::call(number, [status, 0, 0, 0, 0, 0]);
            1
        })?;
        equal!(ended, Ended::Exit(status as u8));
        seen(number, Ok(()));
    }
    // exit ends a thread, and the process with the last one, by that one's status, though the first went before.
    let ended = in_child(|| {
        std::thread::spawn(|| {
            let me = linux::own_pid();
            let gone = || {
                let stat = std::fs::read_to_string(format!("/proc/{me}/stat")).unwrap_or_default();
                stat.rsplit(')').next().is_some_and(|r| r.starts_with(" Z"))
            };
            while !gone() {
                std::thread::yield_now();
            }
            let _ = super::call(SYS_exit, [5, 0, 0, 0, 0, 0]);
        });
        let _ = super::call(SYS_exit, [7, 0, 0, 0, 0, 0]);
        1
    })?;
    equal!(ended, Ended::Exit(5));
    Ok(())
}

fn set_tid() -> Result<(), String> {
    let me = linux::own_pid() as u64;
    let mut word = 1u32;
    gives(SYS_set_tid_address, &[to(&mut word)], me)?;
    gives(SYS_set_tid_address, &[KERNEL], me)?; // looked at when the thread ends
    gives(SYS_set_tid_address, &[0], me)?;
    let mut head = [0u64; 3];
    head[0] = at(&head);
    gives(SYS_set_robust_list, &[at(&head), 24], 0)?;
    gives(SYS_set_robust_list, &[0, 24], 0)?;
    for len in [0, 23, 25, u64::MAX] {
        refused(SYS_set_robust_list, &[at(&head), len], EINVAL)?;
    }
    Ok(())
}

fn arch_prctl() -> Result<(), String> {
    const SET_GS: u64 = 0x1001;
    const SET_FS: u64 = 0x1002;
    const GET_FS: u64 = 0x1003;
    const GET_GS: u64 = 0x1004;
    let (mut fs, mut gs) = (0u64, 1u64);
    gives(SYS_arch_prctl, &[GET_FS, to(&mut fs)], 0)?;
    gives(SYS_arch_prctl, &[SET_FS, fs], 0)?;
    ensure!(fs != 0);
    gives(SYS_arch_prctl, &[GET_GS, to(&mut gs)], 0)?;
    equal!(gs, 0);
    gives(SYS_arch_prctl, &[SET_GS, at(&fs)], 0)?;
    std::thread::yield_now();
    let through: u64;
    // SAFETY: (1) GS's base is the address of a value of ours, and no compiled code uses GS.
    unsafe { core::arch::asm!("mov {}, gs:[0]", out(reg) through) };
    equal!(through, fs);
    gives(SYS_arch_prctl, &[GET_GS, to(&mut gs)], 0)?;
    equal!(gs, at(&fs));
    gives(SYS_arch_prctl, &[SET_GS, 0], 0)?;
    for (code, bad) in [(SET_FS, KERNEL), (SET_GS, KERNEL), (SET_GS, 1 << 47), (SET_FS, u64::MAX)] {
        refused(SYS_arch_prctl, &[code, bad], EPERM)?;
    }
    refused(SYS_arch_prctl, &[GET_FS, NOWHERE], EFAULT)?;
    refused(SYS_arch_prctl, &[GET_GS, KERNEL], EFAULT)?;
    refused(SYS_arch_prctl, &[0x1000, 0], EINVAL)?;
    refused(SYS_arch_prctl, &[0, 0], EINVAL)?;
    Ok(())
}

fn prctl() -> Result<(), String> {
    const SET_DEATH: u64 = 1;
    const GET_DEATH: u64 = 2;
    const SET_NAME: u64 = 15;
    const GET_NAME: u64 = 16;
    const SET_SLACK: u64 = 29;
    const GET_SLACK: u64 = 30;
    let mut name = [b'-'; 16];
    gives(SYS_prctl, &[SET_NAME, at(b"short\0")], 0)?;
    gives(SYS_prctl, &[GET_NAME, to(&mut name)], 0)?;
    equal!(&name, b"short\0\0\0\0\0\0\0\0\0\0\0");
    let mut signal = -1i32;
    gives(SYS_prctl, &[SET_DEATH, 9], 0)?;
    gives(SYS_prctl, &[GET_DEATH, to(&mut signal)], 0)?;
    equal!(signal, 9);
    gives(SYS_prctl, &[SET_DEATH, 0], 0)?;
    gives(SYS_prctl, &[SET_SLACK, 1234], 0)?;
    gives(SYS_prctl, &[GET_SLACK], 1234)?;
    gives(SYS_prctl, &[SET_SLACK, 0], 0)?;
    refused(SYS_prctl, &[SET_DEATH, 65], EINVAL)?;
    refused(SYS_prctl, &[GET_DEATH, NOWHERE], EFAULT)?;
    refused(SYS_prctl, &[SET_NAME, KERNEL], EFAULT)?;
    refused(SYS_prctl, &[GET_NAME, KERNEL], EFAULT)?;
    refused(SYS_prctl, &[9999, 0], EINVAL)?;
    refused(SYS_prctl, &[38, 2, 0, 0, 0], EINVAL)?; // no_new_privs is 1 or nothing
    // The execution domain: kept, asked for by all ones.
    const ASK: u64 = 0xffff_ffff;
    const FIXED_LAYOUT: u64 = 0x4_0000;
    equal!(call(libc::SYS_personality, [ASK, 0, 0, 0, 0, 0]), Ok(0));
    equal!(call(libc::SYS_personality, [FIXED_LAYOUT, 0, 0, 0, 0, 0]), Ok(0));
    equal!(call(libc::SYS_personality, [ASK, 0, 0, 0, 0, 0]), Ok(FIXED_LAYOUT));
    Ok(())
}

fn uname() -> Result<(), String> {
    let mut fields = [[b'-'; 65]; 6];
    gives(SYS_uname, &[to(&mut fields)], 0)?;
    equal!((&fields[0][..6], &fields[4][..7]), (&b"Linux\0"[..], &b"x86_64\0"[..]));
    ensure!(fields.iter().all(|field| field.contains(&0)));
    for bad in [0, NOWHERE, KERNEL, u64::MAX - 100] {
        refused(SYS_uname, &[bad], EFAULT)?;
    }
    Ok(())
}

fn id() -> Result<(), String> {
    let me = works(SYS_getpid, &[])?;
    gives(SYS_gettid, &[], me)?;
    gives(SYS_getpgrp, &[], me)?; // each check leads a group
    gives(SYS_getpgid, &[0], me)?;
    gives(SYS_getpgid, &[me], me)?;
    let session = works(SYS_getsid, &[0])?;
    works(SYS_getppid, &[])?;
    let ended = in_child(|| {
        let mine = works(SYS_getpid, &[]).unwrap_or(0);
        let good = mine != me
            && gives(SYS_getppid, &[], me).is_ok()
            && gives(SYS_getpgrp, &[], me).is_ok()
            && gives(SYS_getsid, &[0], session).is_ok()
            && gives(SYS_getpgid, &[me], me).is_ok();
        u8::from(!good)
    })?;
    equal!(ended, Ended::Exit(0));
    let thread = std::thread::spawn(|| (works(SYS_gettid, &[]), works(SYS_getpid, &[])));
    let (tid, pid) = thread.join().map_err(|_| "a thread panicked")?;
    ensure!(tid? != me && pid? == me);
    let user = works(SYS_getuid, &[])?;
    gives(SYS_geteuid, &[], user)?;
    let group = works(SYS_getgid, &[])?;
    gives(SYS_getegid, &[], group)?;
    let mut ids = [u32::MAX; 3];
    let [first, second, third] = ids.each_mut().map(to);
    gives(SYS_getresuid, &[first, second, third], 0)?;
    equal!(ids, [user as u32; 3]);
    gives(SYS_getresgid, &[first, second, third], 0)?;
    equal!(ids, [group as u32; 3]);
    for number in [SYS_getpgid, SYS_getsid] {
        refused(number, &[4_000_000], ESRCH)?;
        refused(number, &[u64::MAX], ESRCH)?;
    }
    for number in [SYS_getresuid, SYS_getresgid] {
        refused(number, &[KERNEL, second, third], EFAULT)?;
        refused(number, &[first, NOWHERE, third], EFAULT)?;
        refused(number, &[first, second, 0], EFAULT)?;
    }
    Ok(())
}

fn reboot() -> Result<(), String> {
    const MAGIC: u64 = 0xfee1_dead;
    const SECOND: u64 = 672_274_793;
    const ANSWER_KEYS: u64 = 0x89ab_cdef;
    refused(SYS_reboot, &[0, SECOND, ANSWER_KEYS], EINVAL)?;
    refused(SYS_reboot, &[MAGIC, 1, ANSWER_KEYS], EINVAL)?;
    refused(SYS_reboot, &[MAGIC, SECOND, 1], EINVAL)?;
    // What Ctrl-Alt-Del does. The machine's end is this program's own. On a Linux with other users nothing is touched.
    if works(SYS_getppid, &[])? == 1 || is_quiesce() {
        gives(SYS_reboot, &[MAGIC, SECOND, 0], 0)?;
    } else {
        seen(SYS_reboot, Ok(()));
    }
    Ok(())
}

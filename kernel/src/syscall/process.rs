//! System calls about processes: ids, end, waiting, limits, names.

use super::pid_file::named_by;
use super::table::Calls;
use crate::errno::{EAGAIN, EINVAL, ERESTARTSYS, ESRCH, Errno, SysResult};
use crate::mm::user_copy;
use crate::process::tree::{self, What, Who};
use crate::process::{Process, current, current_thread, exit, missing};
use crate::system_call;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

/// Numbers and handlers.
pub const CALLS: Calls = &[
    (39, getpid),
    (60, exit_thread),
    (61, wait4),
    (97, getrlimit),
    (98, getrusage),
    (102, zero), // getuid
    (104, zero), // getgid
    (105, set_id),
    (106, set_id),
    (107, zero), // geteuid
    (108, zero), // getegid
    (109, setpgid),
    (110, getppid),
    (111, getpgrp),
    (112, setsid),
    (113, set_ids), // setreuid
    (114, set_ids), // setregid
    (135, personality),
    (115, zero), // getgroups: none
    (116, set_groups),
    (117, set_ids), // setresuid
    (118, get_res_ids),
    (119, set_ids), // setresgid
    (120, get_res_ids),
    (121, getpgid),
    (122, zero), // setfsuid
    (123, zero), // setfsgid
    (124, getsid),
    (157, prctl),
    (158, arch_prctl),
    (160, setrlimit),
    (186, gettid),
    (218, set_tid_address),
    (231, exit_group),
    (247, waitid),
    (273, set_robust_list),
    (274, get_robust_list),
    (302, prlimit64),
];

system_call! {
    /// getpid(2)
    getpid() { Ok(current().pid as u64) }
}
system_call! {
    /// gettid(2)
    gettid() { Ok(current_thread().tid.load(Ordering::Relaxed) as u64) }
}
system_call! {
    /// getppid(2)
    getppid() { Ok(current().ppid.load(Ordering::Relaxed) as u64) }
}
system_call! {
    /// Calls whose answer is 0 for the one user there is.
    zero() { Ok(0) }
}
system_call! {
    /// setuid(2), setgid(2): every id is 0 and stays so.
    set_id(id) { if id as u32 == 0 { Ok(0) } else { Err(crate::errno::EPERM) } }
}
system_call! {
    /// setresuid(2) and the like: 0 or -1 (no change).
    set_ids(a, b, c) {
        let _ = c;
        let fine = |id: u64| id as u32 == 0 || id as u32 == u32::MAX;
        if fine(a) && fine(b) { Ok(0) } else { Err(crate::errno::EPERM) }
    }
}
system_call! {
    /// setgroups(2): only the empty list.
    set_groups(count) { if count == 0 { Ok(0) } else { Err(crate::errno::EPERM) } }
}
system_call! {
    /// getresuid(2), getresgid(2)
    get_res_ids(a, b, c) {
        for at in [a, b, c] {
            user_copy::write(at, &0u32)?;
        }
        Ok(0)
    }
}
system_call! {
    /// exit(2): this thread.
    exit_thread(status) { exit::exit_thread((status as u32 & 0xff) << 8) }
}
system_call! {
    /// exit_group(2)
    exit_group(status) { exit::exit_group((status as u32 & 0xff) << 8) }
}

/// The process a call names: 0 is the caller's.
fn named(pid: u64) -> Result<Arc<Process>, Errno> {
    match pid as i32 {
        0 => Ok(current_thread().process.clone()),
        pid if pid > 0 => tree::find(pid as u32).ok_or(ESRCH),
        _ => Err(ESRCH),
    }
}

system_call! {
    /// getpgid(2)
    getpgid(pid) { Ok(named(pid)?.pgid.load(Ordering::Relaxed) as u64) }
}
system_call! {
    /// getpgrp(2)
    getpgrp() { Ok(current().pgid.load(Ordering::Relaxed) as u64) }
}
system_call! {
    /// getsid(2)
    getsid(pid) { Ok(named(pid)?.sid.load(Ordering::Relaxed) as u64) }
}
system_call! {
    /// setsid(2)
    setsid() { tree::new_session(current()).map(u64::from) }
}
system_call! {
    /// setpgid(2)
    setpgid(pid, pgid) {
        let me = current();
        let (pid, pgid) = (pid as i32, pgid as i32);
        if pgid < 0 {
            return Err(EINVAL);
        }
        let pid = if pid == 0 { me.pid } else { u32::try_from(pid).map_err(|_| ESRCH)? };
        tree::set_group(me, pid, if pgid == 0 { pid } else { pgid as u32 })?;
        Ok(0)
    }
}

const WNOHANG: u64 = 1;
const WUNTRACED: u64 = 2;
const WEXITED: u64 = 4;
const WCONTINUED: u64 = 8;
const WNOWAIT: u64 = 0x0100_0000;
/// __WNOTHREAD, __WALL, __WCLONE: no difference here; what is traced is waited for without them too.
const W_IGNORED: u64 = 0xe000_0000;

fn wait(who: Who, what: What, hang: bool) -> Result<Option<tree::Waited>, Errno> {
    let me = current();
    if !hang {
        return tree::look(me, who, what);
    }
    let look = || tree::look(me, who, what).transpose();
    me.children_changed.wait(true, look).map_err(|_| ERESTARTSYS)?.map(Some)
}

/// struct rusage with user time only.
fn write_rusage(at: u64, runtime_ns: u64) -> Result<(), Errno> {
    let mut words = [0u64; 18];
    words[0] = runtime_ns / 1_000_000_000;
    words[1] = runtime_ns % 1_000_000_000 / 1000;
    Ok(user_copy::write(at, &words)?)
}

system_call! {
    /// wait4(2)
    wait4(pid, status, options, rusage) {
        let options = options as u32 as u64;
        if options & !(WNOHANG | WUNTRACED | WCONTINUED | W_IGNORED) != 0 {
            return Err(EINVAL);
        }
        let who = match pid as i32 {
            -1 => Who::Any,
            0 => Who::Group(current().pgid.load(Ordering::Relaxed)),
            pid if pid > 0 => Who::Pid(pid as u32),
            i32::MIN => return Err(ESRCH),
            pgid => Who::Group(pgid.unsigned_abs()),
        };
        let has = |o: u64| options & o != 0;
        let what = What { ended: true, stopped: has(WUNTRACED), continued: has(WCONTINUED), keep: false };
        let Some(found) = wait(who, what, !has(WNOHANG))? else { return Ok(0) };
        if status != 0 {
            user_copy::write(status, &found.status)?;
        }
        if rusage != 0 {
            write_rusage(rusage, found.runtime_ns)?;
        }
        Ok(found.pid as u64)
    }
}

system_call! {
    /// waitid(2)
    waitid(kind, id, info, options, rusage) {
        if options & !(WNOHANG | WUNTRACED | WEXITED | WCONTINUED | WNOWAIT | W_IGNORED) != 0
            || options & (WUNTRACED | WEXITED | WCONTINUED) == 0
        {
            return Err(EINVAL);
        }
        let process;
        let mut unready = None;
        let who = match kind as i32 {
            0 => Who::Any,
            1 => Who::Pid(id as u32),
            3 => {
                let nonblock;
                (process, nonblock) = named_by(id)?;
                unready = if nonblock && options & WNOHANG == 0 { Some(EAGAIN) } else { None };
                Who::This(&process)
            }
            2 => Who::Group(if id == 0 { current().pgid.load(Ordering::Relaxed) } else { id as u32 }),
            _ => return Err(EINVAL),
        };
        let has = |o: u64| options & o != 0;
        let what = What {
            ended: has(WEXITED), stopped: has(WUNTRACED), continued: has(WCONTINUED), keep: has(WNOWAIT),
        };
        let found = wait(who, what, !has(WNOHANG) && unready.is_none())?;
        if let (None, Some(unready)) = (&found, unready) {
            return Err(unready);
        }
        if info != 0 {
            let mut words = [0u64; 16];
            if let Some(w) = &found {
                let (code, value) = match (w.status, w.status & 0x7f) {
                    (tree::CONTINUED, _) => (6, 18),
                    (s, 0) => (1, s >> 8 & 0xff),
                    (s, 0x7f) => (if w.trapped { 4 } else { 5 }, s >> 8),
                    (s, signal) => (if s & 0x80 != 0 { 3 } else { 2 }, signal),
                };
                words[0] = 17;
                words[1] = code;
                words[2] = w.pid as u64;
                words[3] = value as u64;
            }
            user_copy::write(info, &words)?;
        }
        if rusage != 0 && let Some(w) = &found {
            write_rusage(rusage, w.runtime_ns)?;
        }
        Ok(0)
    }
}

system_call! {
    /// getrusage(2): CPU time; the rest is zero.
    getrusage(who, at) {
        let ns = match who as i32 {
            0 => current().runtime_ns(),
            1 => crate::sched::runtime_ns(crate::sched::current()),
            -1 => tree::waited_runtime_ns(current()),
            _ => return Err(EINVAL),
        };
        write_rusage(at, ns)?;
        Ok(0)
    }
}

/// (soft, hard) by resource number: asm-generic/resource.h.
fn limit(resource: u64) -> Result<[u64; 2], Errno> {
    const NONE: u64 = u64::MAX;
    Ok(match resource {
        3 => [crate::mm::address_space::STACK_LIMIT, NONE],
        4 => [0, NONE], // no core files
        6 | 11 => [crate::sched::task::PID_MAX as u64 / 2; 2],
        7 => [1024, 1024], // open files
        8 => [8 << 20; 2],
        12 => [819_200; 2],
        13 | 14 => [0; 2],
        0..=15 => [NONE; 2],
        _ => return Err(EINVAL),
    })
}

system_call! {
    /// getrlimit(2)
    getrlimit(resource, at) {
        user_copy::write(at, &limit(resource)?)?;
        Ok(0)
    }
}
system_call! {
    /// setrlimit(2): the limits are constants; what lies within them is accepted.
    setrlimit(resource, at) {
        let wanted: [u64; 2] = user_copy::read(at)?;
        set_limit(resource, wanted)
    }
}

fn set_limit(resource: u64, wanted: [u64; 2]) -> SysResult {
    let now = limit(resource)?;
    if wanted[0] > wanted[1] {
        return Err(EINVAL);
    }
    if wanted[1] > now[1] { Err(crate::errno::EPERM) } else { Ok(0) }
}

system_call! {
    /// prlimit64(2)
    prlimit64(pid, resource, new, old) {
        named(pid)?;
        let now = limit(resource)?;
        if new != 0 {
            set_limit(resource, user_copy::read(new)?)?;
        }
        if old != 0 {
            user_copy::write(old, &now)?;
        }
        Ok(0)
    }
}

system_call! {
    /// set_tid_address(2)
    set_tid_address(at) {
        let thread = current_thread();
        thread.clear_child_tid.store(at, Ordering::Relaxed);
        Ok(thread.tid.load(Ordering::Relaxed) as u64)
    }
}
system_call! {
    /// set_robust_list(2)
    set_robust_list(head, len) {
        if len != 24 {
            return Err(EINVAL);
        }
        current_thread().robust_list.store(head, Ordering::Relaxed);
        Ok(0)
    }
}
system_call! {
    /// get_robust_list(2)
    get_robust_list(tid, head, len) {
        let at = match tid as u32 {
            0 => current_thread().robust_list.load(Ordering::Relaxed),
            tid => tree::find_thread(tid).ok_or(ESRCH)?.robust_list.load(Ordering::Relaxed),
        };
        user_copy::write(len, &24u64)?;
        user_copy::write(head, &at)?;
        Ok(0)
    }
}

system_call! {
    /// prctl(2)
    prctl(option, a, _b2, _c2, _d2) {
        let thread = current_thread();
        match option {
            1 => {
                if a > crate::process::signal::sig::MAX as u64 {
                    return Err(EINVAL);
                }
                thread.parent_death_signal.store(a as u32, Ordering::Relaxed);
                Ok(0)
            }
            2 => {
                user_copy::write(a, &thread.parent_death_signal.load(Ordering::Relaxed))?;
                Ok(0)
            }
            3 => Ok(1),                     // PR_GET_DUMPABLE
            4 | 36 => Ok(0),                // PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER
            15 => {
                let mut name = [0u8; 16];
                for (i, byte) in name.iter_mut().enumerate().take(15) {
                    [*byte] = user_copy::read::<[u8; 1]>(a + i as u64)?;
                    if *byte == 0 {
                        break;
                    }
                }
                let len = name.iter().position(|&b| b == 0).unwrap_or(15);
                crate::sched::current().set_comm(&name[..len]);
                Ok(0)
            }
            16 => {
                user_copy::write(a, &crate::sched::current().comm())?;
                Ok(0)
            }
            29 => {
                thread.timer_slack_ns.store(if a == 0 { thread.usual_timer_slack_ns } else { a }, Ordering::Relaxed);
                Ok(0)
            }
            30 => Ok(thread.timer_slack_ns.load(Ordering::Relaxed)),
            38 if a == 1 => Ok(0),          // PR_SET_NO_NEW_PRIVS
            39 => Ok(0),                    // PR_GET_NO_NEW_PRIVS
            _ => {
                missing::note_operation(157, option);
                Err(EINVAL)
            }
        }
    }
}

system_call! {
    /// personality(2): the flags are kept for who asks, and ADDR_NO_RANDOMIZE holds for programs that are started from now on.
    personality(persona) {
        const ASK: u32 = u32::MAX;
        let (kept, persona) = (&current().personality, persona as u32);
        let before = kept.load(Ordering::Relaxed);
        if persona != ASK {
            kept.store(persona, Ordering::Relaxed);
        }
        Ok(before as usize as _)
    }
}

system_call! {
    /// arch_prctl(2)
    arch_prctl(code, address) {
        use x86_64::registers::model_specific::Msr;
        use x86_64::registers::segmentation::{FS, Segment64};
        const KERNEL_GS_BASE: u32 = 0xc000_0102;
        const SET_GS: u64 = 0x1001;
        const SET_FS: u64 = 0x1002;
        const GET_FS: u64 = 0x1003;
        const GET_GS: u64 = 0x1004;
        let checked = || if address < crate::arch::page_table::USER_END { Ok(address) } else { Err(crate::errno::EPERM) };
        // SAFETY: a user base: canonical, and of no meaning to the kernel. A switch in between saves and restores it.
        unsafe {
            match code {
                SET_FS => FS::write_base(x86_64::VirtAddr::new_truncate(checked()?)),
                SET_GS => Msr::new(KERNEL_GS_BASE).write(checked()?),
                GET_FS => user_copy::write(address, &FS::read_base().as_u64())?,
                GET_GS => user_copy::write(address, &Msr::new(KERNEL_GS_BASE).read())?,
                _ => return Err(EINVAL),
            }
        }
        Ok(0)
    }
}

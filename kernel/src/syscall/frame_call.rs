//! System calls that need or edit the whole frame: clone, fork, vfork, execve, rt_sigreturn.
//!
//! Reached by `entry::syscall::full_frame_call`, the table's entry for their numbers; rt_sigreturn by `entry::signal_return`.

use super::file::place_or_file;
use super::file_path::start;
use super::table::{Calls, into_rax};
use crate::arch::page_table::PAGE_SIZE;
use crate::entry::frame::{Frame, Return};
use crate::entry::signal_return::{RT_SIGRETURN, signal_return_call};
use crate::entry::syscall::full_frame_call;
use crate::errno::{E2BIG, EACCES, EFAULT, EINVAL, ELOOP, ENAMETOOLONG, ENOENT, Errno};
use crate::fs::current;
use crate::fs::place::{self, PATH_MAX};
use crate::mm::{user_context, user_copy};
use crate::process::fork::{self, Clone, flag};
use crate::process::signal::{Info, force, sig};
use crate::process::user_stack::{STRING_MAX, Strings};
use crate::process::{current_thread, exec, signal_frame};
use crate::spin_lock::PreemptOff;
use crate::trace::key::TRACE_SYSCALLS;
use crate::trace::record::record;
use crate::{static_branch, trace_point};
use alloc::format;
use kcore::trace_event::{Data, Flags};

const CLONE: usize = 56;
const FORK: usize = 57;
const VFORK: usize = 58;
const EXECVE: usize = 59;
const EXECVEAT: usize = 322;
const CLONE3: usize = 435;

/// Numbers; the handler is one for all.
pub const CALLS: Calls = &[
    (RT_SIGRETURN, signal_return_entry()),
    (CLONE, full_frame_call_entry()),
    (FORK, full_frame_call_entry()),
    (VFORK, full_frame_call_entry()),
    (EXECVE, full_frame_call_entry()),
    (EXECVEAT, full_frame_call_entry()),
    (CLONE3, full_frame_call_entry()),
];

/// `full_frame_call` as a table entry: it takes its arguments from the frame and so ignores the registers.
pub(super) const fn full_frame_call_entry() -> super::table::Handler {
    // SAFETY: both are C-ABI function pointers, and the function does not return to its caller by the ABI.
    unsafe { core::mem::transmute::<unsafe extern "C" fn(), super::table::Handler>(full_frame_call) }
}

/// The same of `signal_return_call`.
pub(super) const fn signal_return_entry() -> super::table::Handler {
    // SAFETY: as above.
    unsafe { core::mem::transmute::<unsafe extern "C" fn(), super::table::Handler>(signal_return_call) }
}

/// rt_sigreturn but for the general registers: `back` is where to go on. Returns the address of the signal frame, below USER_END; 0: it is refused.
pub extern "C" fn signal_return(back: &mut Return) -> u64 {
    let Ok(at_frame) = signal_frame::take_back(back, current_thread()) else { return 0 };
    if static_branch!(TRACE_SYSCALLS) {
        core::hint::cold_path();
        let result = user_copy::read(at_frame + user_context::RAX).unwrap_or(0);
        record(&PreemptOff::new(), Flags::NONE, Data::SysExit { number: RT_SIGRETURN as u64, result });
    }
    at_frame
}

/// The signal frame was taken away between two looks at it.
pub extern "C" fn frame_is_gone() {
    force(Info::from_kernel(sig::SEGV));
}

/// Run the call whose number is in `orig_rax`; its result goes to the frame.
pub extern "C" fn full_frame_dispatch(frame: &mut Frame) {
    let number = frame.orig_rax;
    dispatch(frame);
    trace_point!(TRACE_SYSCALLS, &PreemptOff::new(), Flags::NONE, Data::SysExit { number, result: frame.rax as i64 });
}

fn dispatch(frame: &mut Frame) {
    let signal = sig::CHLD as u64;
    let result = match frame.orig_rax as usize {
        CLONE => {
            let args = Clone {
                flags: frame.rdi,
                stack: frame.rsi,
                pidfd: frame.rdx,
                parent_tid: frame.rdx,
                child_tid: frame.r10,
                tls: frame.r8,
            };
            fork::clone(frame, &args)
        }
        FORK => fork::clone(frame, &Clone { flags: signal, stack: 0, pidfd: 0, parent_tid: 0, child_tid: 0, tls: 0 }),
        VFORK => {
            let flags = flag::VM | flag::VFORK | signal;
            fork::clone(frame, &Clone { flags, stack: 0, pidfd: 0, parent_tid: 0, child_tid: 0, tls: 0 })
        }
        CLONE3 => clone3_args(frame.rdi, frame.rsi).and_then(|args| fork::clone(frame, &args)),
        EXECVE => match execve(frame) {
            Ok(()) => return,
            Err(e) => Err(e),
        },
        EXECVEAT => match execveat(frame) {
            Ok(()) => return,
            Err(e) => Err(e),
        },
        RT_SIGRETURN => {
            if signal_frame::pop(frame, current_thread()).is_err() {
                force(Info::from_kernel(sig::SEGV));
            }
            return;
        }
        _ => Err(crate::errno::ENOSYS),
    };
    frame.rax = into_rax(result) as u64;
}

fn strings(at: u64) -> Result<Strings, Errno> {
    let mut out = Strings::new();
    if at == 0 {
        return Ok(out);
    }
    for i in 0.. {
        let pointer: u64 = user_copy::read(at.checked_add(i * 8).ok_or(EFAULT)?)?;
        if pointer == 0 {
            break;
        }
        out.push(&user_copy::read_string(pointer, STRING_MAX)?.ok_or(E2BIG)?)?;
    }
    Ok(out)
}

/// struct clone_args of clone3(2), `size` bytes at `at`. A chosen thread id and a cgroup are not there.
fn clone3_args(at: u64, size: u64) -> Result<Clone, Errno> {
    const FIRST_VERSION: u64 = 64;
    const WORDS: usize = 11;
    const CSIGNAL: u64 = 0xff;
    if size < FIRST_VERSION {
        return Err(EINVAL);
    }
    if size > PAGE_SIZE {
        return Err(E2BIG);
    }
    let mut words = [0u64; WORDS];
    for i in 0..size / 8 {
        let word: u64 = user_copy::read(at.checked_add(i * 8).ok_or(EFAULT)?)?;
        match words.get_mut(i as usize) {
            Some(known) => *known = word,
            None if word != 0 => return Err(E2BIG),
            None => {}
        }
    }
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, _, set_tid_size, _] = words;
    let bad_stack = (stack == 0) != (stack_size == 0) || user_copy::check(stack, stack_size).is_err();
    let bad_signal = flags & (flag::THREAD | flag::PARENT) != 0 && exit_signal != 0;
    if flags & CSIGNAL != 0 || exit_signal > CSIGNAL || bad_signal || set_tid_size != 0 || bad_stack {
        return Err(EINVAL);
    }
    Ok(Clone { flags: flags | exit_signal, stack: stack + stack_size, pidfd, parent_tid, child_tid, tls })
}

/// The arguments and the environment of a program.
fn texts(args: u64, env: u64) -> Result<(Strings, Strings), Errno> {
    let mut args = strings(args)?;
    let env = strings(env)?;
    if args.is_empty() {
        args.push(b"")?;
    }
    Ok((args, env))
}

fn execve(frame: &mut Frame) -> Result<(), Errno> {
    let path = user_copy::read_string(frame.rdi, PATH_MAX)?.ok_or(ENAMETOOLONG)?;
    let (args, env) = texts(frame.rsi, frame.rdx)?;
    let found = place::resolve(&current::work_dir().place(), &path, true)?;
    exec::execve(frame, &found, &path, args, &env)
}

/// execveat(2). What starts at a descriptor is found from there, wherever the caller's root is; its name alone goes by /dev/fd, as on Linux.
fn execveat(frame: &mut Frame) -> Result<(), Errno> {
    const EMPTY_PATH: u64 = 0x1000;
    const NOFOLLOW: u64 = 0x100;
    const CWD: i32 = -100;
    let (dir, flags) = (frame.rdi, frame.r8);
    let path = user_copy::read_string(frame.rsi, PATH_MAX)?.ok_or(ENAMETOOLONG)?;
    if flags & !(EMPTY_PATH | NOFOLLOW) != 0 {
        return Err(EINVAL);
    }
    let (from_descriptor, itself) = (path.first() != Some(&b'/') && dir as i32 != CWD, path.is_empty());
    let start = match (itself, from_descriptor) {
        (true, _) if flags & EMPTY_PATH == 0 => return Err(ENOENT),
        (true, true) => place_or_file(dir)?.place_or_own().map_err(|_| EACCES)?,
        _ => start(dir, &path)?,
    };
    let (args, env) = texts(frame.rdx, frame.r10)?;
    let found = if itself { start } else { place::resolve(&start, &path, flags & NOFOLLOW == 0)? };
    if found.inode.is_symlink() {
        return Err(ELOOP);
    }
    let name = match (itself, from_descriptor) {
        (_, false) => path,
        (true, true) => format!("/dev/fd/{}", dir as i32).into_bytes(),
        (false, true) => [format!("/dev/fd/{}/", dir as i32).as_bytes(), &path].concat(),
    };
    exec::execve(frame, &found, &name, args, &env)
}

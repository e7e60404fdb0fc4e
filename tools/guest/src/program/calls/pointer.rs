//! Bad pointers: every pointer argument of every system call is given one that is null, the kernel's, unmapped, not canonical, or
//! at the end of its page. The call says EFAULT (or what Linux says instead) and nobody dies.

use super::{Check, call, ensure, equal, in_child, own_path};
use crate::linux::{self, Ended, Fork};
use std::ffi::c_int;
use std::ptr::null_mut;

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("pointer_each_argument", each_argument),
    ("pointer_everywhere", everywhere),
    ("pointer_in_vector", in_vector),
    ("pointer_wait", wait),
    ("pointer_at_exit", at_exit),
    ("pointer_clone", clone),
    ("pointer_sigreturn", sigreturn),
    ("pointer_signal_stack", signal_stack),
];

const PAGE: usize = 4096;
const AT: Arg = Val(libc::AT_FDCWD as u64);
/// An address of the kernel's, two that are not canonical, the last one, one that is never mapped, the last page of user space.
const WILD: [u64; 6] =
    [0xffff_ffff_8000_0000, 0x8000_0000_0000, 0x7fff_0000_0000_0000, u64::MAX, 0x10, 0x7fff_ffff_f000];

/// What an argument is.
#[derive(Clone, Copy, PartialEq)]
enum Arg {
    /// No pointer.
    Val(u64),
    /// Bytes of the caller's, never null.
    Ptr,
    /// Bytes of the caller's; null means something.
    Opt,
    /// As `Opt`, and null in calls that test another argument.
    Unset,
    /// A path; in calls that test another argument a good one.
    Path,
    /// The file.
    File,
    /// A read-only directory.
    Folder,
}
use Arg::{File, Folder, Opt, Path, Ptr, Unset, Val};

/// Number, arguments, and how the end of a page is taken: `true` where fewer bytes are an answer.
type Row = (i64, &'static [Arg], bool);

const ROWS: &[Row] = &[
    (libc::SYS_read, &[File, Ptr, Val(64)], true),
    (libc::SYS_write, &[File, Ptr, Val(64)], true),
    (libc::SYS_open, &[Path, Val(0), Val(0)], false),
    (libc::SYS_stat, &[Path, Ptr], false),
    (libc::SYS_fstat, &[File, Ptr], false),
    (libc::SYS_lstat, &[Path, Ptr], false),
    (libc::SYS_poll, &[Ptr, Val(1), Val(0)], false),
    (libc::SYS_rt_sigaction, &[Val(10), Opt, Unset, Val(8)], false),
    (libc::SYS_rt_sigaction, &[Val(10), Unset, Opt, Val(8)], false),
    (libc::SYS_rt_sigprocmask, &[Val(0), Opt, Unset, Val(8)], false),
    (libc::SYS_rt_sigprocmask, &[Val(0), Unset, Opt, Val(8)], false),
    (libc::SYS_pread64, &[File, Ptr, Val(64), Val(0)], true),
    (libc::SYS_pwrite64, &[File, Ptr, Val(64), Val(0)], true),
    (libc::SYS_readv, &[File, Ptr, Val(1)], false),
    (libc::SYS_writev, &[File, Ptr, Val(1)], false),
    (libc::SYS_preadv, &[File, Ptr, Val(1), Val(0)], false),
    (libc::SYS_pwritev, &[File, Ptr, Val(1), Val(0)], false),
    (libc::SYS_access, &[Path, Val(0)], false),
    (libc::SYS_pipe, &[Ptr], false),
    (libc::SYS_pipe2, &[Ptr, Val(0)], false),
    (libc::SYS_select, &[Val(64), Opt, Unset, Unset, Opt], false),
    (libc::SYS_select, &[Val(64), Unset, Opt, Opt, Opt], false),
    (libc::SYS_pselect6, &[Val(64), Opt, Opt, Opt, Opt, Opt], false),
    (libc::SYS_ppoll, &[Ptr, Val(1), Opt, Opt, Val(8)], false),
    (libc::SYS_nanosleep, &[Ptr, Unset], false),
    (libc::SYS_sendfile, &[File, File, Opt, Val(0)], false),
    (libc::SYS_execve, &[Path, Opt, Opt], false),
    (libc::SYS_uname, &[Ptr], false),
    (libc::SYS_truncate, &[Path, Val(0)], false),
    (libc::SYS_getcwd, &[Ptr, Val(64)], false),
    (libc::SYS_chdir, &[Path], false),
    (libc::SYS_rename, &[Path, Path], false),
    (libc::SYS_mkdir, &[Path, Val(0)], false),
    (libc::SYS_rmdir, &[Path], false),
    (libc::SYS_creat, &[Path, Val(0)], false),
    (libc::SYS_link, &[Path, Path], false),
    (libc::SYS_unlink, &[Path], false),
    (libc::SYS_symlink, &[Path, Path], false),
    (libc::SYS_readlink, &[Path, Val(0), Val(0)], false),
    (libc::SYS_chmod, &[Path, Val(0)], false),
    (libc::SYS_chown, &[Path, Val(0), Val(0)], false),
    (libc::SYS_lchown, &[Path, Val(0), Val(0)], false),
    (libc::SYS_gettimeofday, &[Opt, Unset], false),
    (libc::SYS_gettimeofday, &[Unset, Opt], false),
    (libc::SYS_getrlimit, &[Val(7), Ptr], false),
    (libc::SYS_getrusage, &[Val(0), Ptr], false),
    (libc::SYS_sysinfo, &[Ptr], false),
    (libc::SYS_times, &[Opt], false),
    (libc::SYS_getresuid, &[Ptr, Ptr, Ptr], false),
    (libc::SYS_getresgid, &[Ptr, Ptr, Ptr], false),
    (libc::SYS_rt_sigpending, &[Ptr, Val(8)], false),
    (libc::SYS_rt_sigtimedwait, &[Ptr, Unset, Opt, Val(8)], false),
    (libc::SYS_rt_sigqueueinfo, &[Val(u32::MAX as u64 >> 2), Val(0), Ptr], false),
    (libc::SYS_rt_sigsuspend, &[Ptr, Val(8)], false),
    (libc::SYS_sigaltstack, &[Opt, Unset], false),
    (libc::SYS_sigaltstack, &[Unset, Opt], false),
    (libc::SYS_utime, &[Path, Unset], false),
    (libc::SYS_mknod, &[Path, Val(0), Val(0)], false),
    (libc::SYS_statfs, &[Path, Ptr], false),
    (libc::SYS_fstatfs, &[File, Ptr], false),
    (libc::SYS_sched_setparam, &[Val(0), Ptr], false),
    (libc::SYS_sched_getparam, &[Val(0), Ptr], false),
    (libc::SYS_sched_setscheduler, &[Val(0), Val(0), Ptr], false),
    (libc::SYS_sched_rr_get_interval, &[Val(0), Ptr], false),
    (libc::SYS_prctl, &[Val(15), Ptr], false),
    (libc::SYS_prctl, &[Val(16), Ptr], false),
    (libc::SYS_arch_prctl, &[Val(0x1003), Ptr], false),
    (libc::SYS_setrlimit, &[Val(7), Ptr], false),
    (libc::SYS_mount, &[Unset, Path, Unset, Val(0), Unset], false),
    (libc::SYS_umount2, &[Path, Val(0)], false),
    (libc::SYS_time, &[Opt], false),
    (libc::SYS_futex, &[Ptr, Val(0), Val(1), Unset], false),
    (libc::SYS_sched_setaffinity, &[Val(0), Val(8), Ptr], false),
    (libc::SYS_sched_getaffinity, &[Val(0), Val(64), Ptr], false),
    (libc::SYS_getdents64, &[Folder, Ptr, Val(1024)], false),
    (libc::SYS_clock_gettime, &[Val(1), Ptr], false),
    (libc::SYS_clock_getres, &[Val(1), Opt], false),
    (libc::SYS_clock_nanosleep, &[Val(1), Val(0), Ptr, Unset], false),
    (libc::SYS_utimes, &[Path, Unset], false),
    (libc::SYS_openat, &[AT, Path, Val(0), Val(0)], false),
    (libc::SYS_mkdirat, &[AT, Path, Val(0)], false),
    (libc::SYS_mknodat, &[AT, Path, Val(0), Val(0)], false),
    (libc::SYS_fchownat, &[AT, Path, Val(0), Val(0), Val(0)], false),
    (libc::SYS_newfstatat, &[AT, Path, Ptr, Val(0)], false),
    (libc::SYS_unlinkat, &[AT, Path, Val(0)], false),
    (libc::SYS_renameat, &[AT, Path, AT, Path], false),
    (libc::SYS_renameat2, &[AT, Path, AT, Path, Val(0)], false),
    (libc::SYS_linkat, &[AT, Path, AT, Path, Val(0)], false),
    (libc::SYS_symlinkat, &[Path, AT, Path], false),
    (libc::SYS_readlinkat, &[AT, Path, Val(0), Val(0)], false),
    (libc::SYS_fchmodat, &[AT, Path, Val(0)], false),
    (libc::SYS_faccessat, &[AT, Path, Val(0)], false),
    (libc::SYS_faccessat2, &[AT, Path, Val(0), Val(0)], false),
    (libc::SYS_get_robust_list, &[Val(0), Ptr, Ptr], false),
    (libc::SYS_utimensat, &[AT, Path, Unset, Val(0)], false),
    (libc::SYS_prlimit64, &[Val(0), Val(7), Opt, Unset], false),
    (libc::SYS_prlimit64, &[Val(0), Val(7), Unset, Opt], false),
    (libc::SYS_getcpu, &[Opt, Unset, Val(0)], false),
    (libc::SYS_getcpu, &[Unset, Opt, Val(0)], false),
    (libc::SYS_getrandom, &[Ptr, Val(64), Val(0)], true),
    (libc::SYS_memfd_create, &[Ptr, Val(0)], false),
    (libc::SYS_statx, &[AT, Path, Val(0), Val(0xfff), Ptr], false),
];

/// A page full of `a`, then one without rights (nothing can be mapped there by chance), one of zeros, a path; a file, a folder.
struct Place {
    edge: u64,
    gap: u64,
    zeros: u64,
    file: u64,
    folder: u64,
    path: u64,
}

impl Place {
    fn new() -> Result<Place, String> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: (1) a new mapping at no fixed place.
        let at = unsafe { libc::mmap(null_mut(), 4 * PAGE, rights, flags, -1, 0) };
        ensure!(at != libc::MAP_FAILED);
        // SAFETY: (1) the mapping made above; its second page has no user.
        let closed = unsafe {
            at.cast::<u8>().write_bytes(b'a', PAGE);
            libc::mprotect(at.cast::<u8>().add(PAGE).cast(), PAGE, libc::PROT_NONE)
        };
        equal!(closed, 0);
        let start = at as u64;
        let (gap, zeros, path) = (start + PAGE as u64, start + 2 * PAGE as u64, start + 3 * PAGE as u64);
        // SAFETY: (1) the mapping's last page; (2) what follows the text is zero.
        unsafe { (path as *mut u8).copy_from(c"/tmp/quiesce-no-such-file".as_ptr().cast(), 25) };
        let file = call(libc::SYS_memfd_create, [zeros, 0, 0, 0, 0, 0]).map_err(|e| format!("memfd_create: {e}"))?;
        let _ = call(libc::SYS_pwrite64, [file, zeros, 512, 0, 0, 0]);
        let folder = linux::open("/", libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(|e| e.to_string())?;
        Ok(Place { edge: gap - 1, gap, zeros, file, folder: folder as u64, path })
    }

    /// All that no program may read or write.
    fn bad(&self) -> impl Iterator<Item = u64> {
        WILD.into_iter().chain([0, self.gap, self.edge])
    }

    fn value(&self, arg: Arg) -> u64 {
        match arg {
            Val(value) => value,
            Ptr | Opt => self.zeros,
            Unset => 0,
            Path => self.path,
            File => self.file,
            Folder => self.folder,
        }
    }
}

fn each_argument() -> Result<(), String> {
    let place = Place::new()?;
    for &(number, args, partial) in ROWS {
        for (index, &arg) in args.iter().enumerate().filter(|(_, arg)| matches!(arg, Ptr | Opt | Path)) {
            for bad in place.bad() {
                if bad == 0 && arg == Opt {
                    continue;
                }
                let mut values = [0; 6];
                for (value, &arg) in values.iter_mut().zip(args) {
                    *value = place.value(arg);
                }
                values[index] = bad;
                // What an earlier call moved or wrote.
                // SAFETY: (1) the last byte of a page of ours.
                unsafe { (place.edge as *mut u8).write_volatile(b'a') };
                let _ = call(libc::SYS_lseek, [place.file, 0, 0, 0, 0, 0]);
                let result = call(number, values);
                let fine = match result {
                    Err(libc::EFAULT | libc::EINVAL) => true,
                    // Looked for first: the file, the right to do it.
                    Err(libc::ENOENT | libc::EPERM | libc::ESRCH) => arg != Path || args[..index].contains(&Path),
                    Ok(_) => partial && bad == place.edge,
                    Err(_) => false,
                };
                if !fine {
                    return Err(format!("call {number}, argument {index} = {bad:#x}: {result:?}"));
                }
            }
        }
    }
    Ok(())
}

/// Each number up to 450 with the same bad pointer in all six places; in a child, which may end. Linux has calls among them that
/// change the whole machine, so it is for Quiesce alone.
fn everywhere() -> Result<(), String> {
    const ENDS: [i64; 10] = [
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_reboot,
        libc::SYS_pause,
        libc::SYS_rt_sigreturn,
        libc::SYS_vfork, // the child would use the parent's stack
        // Those that may reach others.
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
    ];
    let place = Place::new()?;
    // With nothing but zeros some calls wait for ever.
    for bad in place.bad().filter(|&bad| bad != 0) {
        let ended = in_child(|| {
            for number in (0..450).filter(|n| !ENDS.contains(n)) {
                match call(number, [bad; 6]) {
                    Ok(0) if matches!(number, libc::SYS_fork | libc::SYS_clone) => linux::exit_now(0),
                    _ => {}
                }
            }
            7
        })?;
        if !matches!(ended, Ended::Exit(7) | Ended::Signal(_)) {
            return Err(format!("with {bad:#x} everywhere the child ended by {ended:?}"));
        }
    }
    Ok(())
}

/// A good vector with a bad stretch.
fn in_vector() -> Result<(), String> {
    let place = Place::new()?;
    for bad in WILD.into_iter().chain([0, place.gap]) {
        let vector = [libc::iovec { iov_base: bad as *mut _, iov_len: 64 }];
        for number in [libc::SYS_readv, libc::SYS_writev, libc::SYS_preadv, libc::SYS_pwritev] {
            let _ = call(libc::SYS_lseek, [place.file, 0, 0, 0, 0, 0]);
            equal!(call(number, [place.file, vector.as_ptr() as u64, 1, 0, 0, 0]), Err(libc::EFAULT));
        }
        let name = own_path() + "\0";
        let strings = [bad, 0];
        if bad != 0 {
            let args = [name.as_ptr() as u64, strings.as_ptr() as u64, 0, 0, 0, 0];
            equal!(call(libc::SYS_execve, args), Err(libc::EFAULT));
            let args = [name.as_ptr() as u64, 0, strings.as_ptr() as u64, 0, 0, 0];
            equal!(call(libc::SYS_execve, args), Err(libc::EFAULT));
        }
    }
    Ok(())
}

fn wait() -> Result<(), String> {
    let place = Place::new()?;
    for bad in place.bad().filter(|&bad| bad != 0) {
        for (status, usage) in [(bad, 0), (0, bad)] {
            let Ok(Fork::Parent(pid)) = linux::fork().inspect(|fork| {
                if matches!(fork, Fork::Child) {
                    linux::exit_now(0);
                }
            }) else {
                return Err("fork".into());
            };
            equal!(call(libc::SYS_wait4, [pid as u64, status, 0, usage, 0, 0]), Err(libc::EFAULT));
            let _ = linux::wait_for(pid); // it may be gone
        }
        let flags = (libc::WEXITED | libc::WNOHANG) as u64;
        ensure!(call(libc::SYS_waitid, [libc::P_ALL as u64, 0, bad, flags, 0, 0]).is_err());
    }
    Ok(())
}

/// What the kernel writes or follows when a thread ends.
fn at_exit() -> Result<(), String> {
    let place = Place::new()?;
    for bad in place.bad() {
        let ended = in_child(|| {
            let _ = call(libc::SYS_set_tid_address, [bad, 0, 0, 0, 0, 0]);
            let _ = call(libc::SYS_set_robust_list, [bad, 24, 0, 0, 0, 0]);
            3
        })?;
        equal!(ended, Ended::Exit(3));
    }
    // A list that goes in a circle, and one whose entries are nowhere.
    for next in [0, 1, place.gap, WILD[0]] {
        // The head (first entry, offset of the futex, the one being taken), then an entry that leads to itself or nowhere.
        let (head, entry) = (place.zeros, place.zeros + 64);
        for (at, word) in [(0, entry), (16, place.gap - entry), (64, if next == 0 { entry } else { next })] {
            // SAFETY: (1) the page of zeros is a mapping of ours, and the kernel alone reads it.
            unsafe { ((place.zeros + at) as *mut u64).write_volatile(word) };
        }
        let ended = in_child(|| {
            let _ = call(libc::SYS_set_robust_list, [head, 24, 0, 0, 0, 0]);
            4
        })?;
        equal!(ended, Ended::Exit(4));
    }
    Ok(())
}

fn clone() -> Result<(), String> {
    let place = Place::new()?;
    let flags = libc::CLONE_PARENT_SETTID | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
    for bad in place.bad() {
        match call(libc::SYS_clone, [flags as u64, 0, bad, bad, 0, 0]) {
            Ok(0) => linux::exit_now(5),
            Ok(pid) => equal!(linux::wait_for(pid as c_int).map_err(|e| e.to_string())?, Ended::Exit(5)),
            Err(error) => equal!(error, libc::EFAULT),
        }
    }
    Ok(())
}

/// sigreturn with the stack pointer where no frame is, and with a frame of nonsense.
fn sigreturn() -> Result<(), String> {
    let place = Place::new()?;
    let mut nonsense = vec![0xa5u8; 4096];
    let middle = nonsense.as_mut_ptr() as u64 + 1024;
    for stack in place.bad().chain([middle & !15, place.zeros]) {
        let ended = in_child(|| {
            // SAFETY: (1) a child of the check's own, which does not come back from this.
            unsafe {
                std::arch::asm!("mov rsp, {stack}", "mov eax, 15", "syscall", "ud2", stack = in(reg) stack,
                    options(noreturn));
            }
        })?;
        ensure!(matches!(ended, Ended::Signal(libc::SIGSEGV | libc::SIGBUS)));
    }
    Ok(())
}

/// A signal whose handler, or whose stack, is nowhere.
fn signal_stack() -> Result<(), String> {
    let place = Place::new()?;
    for bad in place.bad().filter(|&bad| bad > 1) {
        let ended = in_child(|| {
            // The kernel's form: handler, flags with SA_RESTORER, restorer, mask.
            let action = [bad, 0x0400_0000, bad, 0];
            let _ = call(libc::SYS_rt_sigaction, [10, action.as_ptr() as u64, 0, 8, 0, 0]);
            let _ = call(libc::SYS_kill, [linux::own_pid() as u64, 10, 0, 0, 0, 0]);
            6
        })?;
        ensure!(matches!(ended, Ended::Signal(libc::SIGSEGV | libc::SIGILL)));
        let ended = in_child(|| {
            let stack = [bad, 0, 8192];
            let _ = call(libc::SYS_sigaltstack, [stack.as_ptr() as u64, 0, 0, 0, 0, 0]);
            let action = [linux::own_pid as *const () as u64, 0x0c00_0000, bad, 0];
            let _ = call(libc::SYS_rt_sigaction, [10, action.as_ptr() as u64, 0, 8, 0, 0]);
            let _ = call(libc::SYS_kill, [linux::own_pid() as u64, 10, 0, 0, 0, 0]);
            6
        })?;
        equal!(ended, Ended::Signal(libc::SIGSEGV));
    }
    Ok(())
}

//! What the fuzzer gives a system call: for each number the kinds of its arguments, and for each kind values good, bad and on the edge.
//!
//! Pointers are the heart of it: null, kernel, not canonical, unmapped, across the end of a mapping, read-only, without rights, and into
//! pages that another thread unmaps meanwhile.

use super::random::Random;

/// What an argument is. The letters are those of `CALLS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// f: a file descriptor
    Descriptor,
    /// p: a path
    Path,
    /// w: memory that the kernel writes or reads
    Memory,
    /// t: a time, mostly a short one
    Time,
    /// v: an iovec
    Vectors,
    /// a: the start of pages
    Page,
    /// l: a length
    Length,
    /// i: a small number
    Small,
    /// m: flags
    Flags,
    /// s: a signal
    Signal,
    /// o: the caller
    Self_,
    /// e: the size of a signal set
    SetSize,
    /// x: anything
    Any,
}

fn kind(letter: u8) -> Kind {
    match letter {
        b'f' => Kind::Descriptor,
        b'p' => Kind::Path,
        b'w' => Kind::Memory,
        b't' => Kind::Time,
        b'v' => Kind::Vectors,
        b'a' => Kind::Page,
        b'l' => Kind::Length,
        b'i' => Kind::Small,
        b'm' => Kind::Flags,
        b's' => Kind::Signal,
        b'o' => Kind::Self_,
        b'e' => Kind::SetSize,
        _ => Kind::Any,
    }
}

/// Numbers and the kinds of their arguments. Those that the kernel lacks are answered by ENOSYS, which costs little.
#[rustfmt::skip]
const CALLS: &[(i64, &str)] = &[
    (libc::SYS_read, "fwl"), (libc::SYS_write, "fwl"), (libc::SYS_open, "pmm"), (libc::SYS_close, "f"),
    (libc::SYS_stat, "pw"), (libc::SYS_fstat, "fw"), (libc::SYS_lstat, "pw"), (libc::SYS_poll, "wii"),
    (libc::SYS_lseek, "fxi"), (libc::SYS_mmap, "alimfl"), (libc::SYS_mprotect, "ali"), (libc::SYS_munmap, "al"),
    (libc::SYS_brk, "x"), (libc::SYS_rt_sigaction, "swwe"), (libc::SYS_rt_sigprocmask, "iwwe"),
    (libc::SYS_ioctl, "fxw"), (libc::SYS_pread64, "fwll"), (libc::SYS_pwrite64, "fwll"), (libc::SYS_readv, "fvi"),
    (libc::SYS_writev, "fvi"), (libc::SYS_access, "pm"), (libc::SYS_pipe, "w"), (libc::SYS_select, "iwwwt"),
    (libc::SYS_sched_yield, ""), (libc::SYS_mremap, "allia"), (libc::SYS_msync, "ali"), (libc::SYS_mincore, "alw"),
    (libc::SYS_madvise, "ali"), (libc::SYS_dup, "f"), (libc::SYS_dup2, "ff"), (libc::SYS_nanosleep, "tw"),
    (libc::SYS_getitimer, "iw"), (libc::SYS_setitimer, "iww"), (libc::SYS_sendfile, "ffwl"), (libc::SYS_socket, "iii"),
    (libc::SYS_connect, "fwl"), (libc::SYS_accept, "fww"), (libc::SYS_sendto, "fwlmwl"),
    (libc::SYS_recvfrom, "fwlmww"), (libc::SYS_sendmsg, "fwm"), (libc::SYS_recvmsg, "fwm"), (libc::SYS_shutdown, "fi"),
    (libc::SYS_bind, "fwl"), (libc::SYS_listen, "fi"), (libc::SYS_getsockname, "fww"),
    (libc::SYS_socketpair, "iiiw"), (libc::SYS_setsockopt, "fiiwl"), (libc::SYS_getsockopt, "fiiww"),
    (libc::SYS_clone, "xwwww"), (libc::SYS_fork, ""), (libc::SYS_execve, "pww"), (libc::SYS_wait4, "xwmw"),
    (libc::SYS_uname, "w"), (libc::SYS_fcntl, "fix"), (libc::SYS_fsync, "f"), (libc::SYS_truncate, "pl"),
    (libc::SYS_ftruncate, "fl"), (libc::SYS_getdents64, "fwl"), (libc::SYS_getcwd, "wl"), (libc::SYS_chdir, "p"),
    (libc::SYS_fchdir, "f"), (libc::SYS_rename, "pp"), (libc::SYS_mkdir, "pm"), (libc::SYS_rmdir, "p"),
    (libc::SYS_creat, "pm"), (libc::SYS_link, "pp"), (libc::SYS_unlink, "p"), (libc::SYS_symlink, "pp"),
    (libc::SYS_readlink, "pwl"), (libc::SYS_chmod, "pm"), (libc::SYS_fchmod, "fm"), (libc::SYS_umask, "m"),
    (libc::SYS_gettimeofday, "ww"), (libc::SYS_getrlimit, "iw"), (libc::SYS_getrusage, "iw"),
    (libc::SYS_sysinfo, "w"), (libc::SYS_times, "w"), (libc::SYS_getpgid, "o"), (libc::SYS_getsid, "o"),
    (libc::SYS_rt_sigpending, "we"), (libc::SYS_rt_sigtimedwait, "wwte"), (libc::SYS_rt_sigsuspend, "we"),
    (libc::SYS_sigaltstack, "ww"), (libc::SYS_statfs, "pw"), (libc::SYS_fstatfs, "fw"), (libc::SYS_prctl, "iwwww"),
    (libc::SYS_gettid, ""), (libc::SYS_futex, "wiitwx"), (libc::SYS_sched_setaffinity, "olw"),
    (libc::SYS_sched_getaffinity, "olw"), (libc::SYS_set_tid_address, "w"), (libc::SYS_clock_gettime, "iw"),
    (libc::SYS_clock_getres, "iw"), (libc::SYS_clock_nanosleep, "iitw"), (libc::SYS_epoll_create1, "m"),
    (libc::SYS_epoll_ctl, "fifw"), (libc::SYS_epoll_wait, "fwii"), (libc::SYS_epoll_pwait, "fwiiwe"),
    (libc::SYS_waitid, "iowmw"), (libc::SYS_openat, "fpmm"), (libc::SYS_mkdirat, "fpm"),
    (libc::SYS_newfstatat, "fpwm"), (libc::SYS_unlinkat, "fpm"), (libc::SYS_renameat, "fpfp"),
    (libc::SYS_linkat, "fpfpm"), (libc::SYS_symlinkat, "pfp"), (libc::SYS_readlinkat, "fpwl"),
    (libc::SYS_faccessat, "fpm"), (libc::SYS_pselect6, "iwwwtw"), (libc::SYS_ppoll, "witwe"),
    (libc::SYS_set_robust_list, "wl"), (libc::SYS_get_robust_list, "oww"), (libc::SYS_utimensat, "fpwm"),
    (libc::SYS_signalfd4, "fwem"), (libc::SYS_timerfd_create, "im"), (libc::SYS_eventfd2, "im"),
    (libc::SYS_timerfd_settime, "fitw"), (libc::SYS_timerfd_gettime, "fw"), (libc::SYS_dup3, "ffm"),
    (libc::SYS_pipe2, "wm"), (libc::SYS_preadv, "fvil"), (libc::SYS_pwritev, "fvil"), (libc::SYS_getcpu, "ww"),
    (libc::SYS_renameat2, "fpfpm"), (libc::SYS_getrandom, "wlm"), (libc::SYS_memfd_create, "pm"),
    (libc::SYS_membarrier, "ii"), (libc::SYS_copy_file_range, "fwfwlm"), (libc::SYS_preadv2, "fvilm"),
    (libc::SYS_statx, "fpmmw"), (libc::SYS_rseq, "wlmx"), (libc::SYS_pidfd_open, "om"), (libc::SYS_clone3, "wl"),
    (libc::SYS_close_range, "ffm"), (libc::SYS_faccessat2, "fpmm"), (libc::SYS_epoll_pwait2, "fwitw"),
    (libc::SYS_timer_create, "iww"), (libc::SYS_timer_settime, "iiww"), (libc::SYS_timer_delete, "i"),
];
/// A number above every call's.
const NUMBERS: u64 = 470;
/// What would end the machine or the child, only wait, or reach processes that are not the child's own.
const LEFT_OUT: [i64; 17] = [
    libc::SYS_reboot,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_pause,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_prlimit64,
    libc::SYS_umount2,
    libc::SYS_ptrace,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_migrate_pages,
];
/// Calls that take a process number first: only the caller may be named.
const BY_PROCESS: [i64; 6] = [
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_mount,
];
/// Numbers at the edges.
const EDGES: [u64; 16] = [
    0,
    1,
    7,
    63,
    4095,
    4096,
    4097,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0xffff_ffff_8000_0000,
    i64::MAX as u64,
    u64::MAX,
];
/// Addresses that no program has: null, the kernel's text, direct map and last page, not canonical, the end of user space.
const HOSTILE: [u64; 12] = [
    0,
    8,
    0xffff_ffff_8000_0000,
    0xffff_ffff_8010_0008,
    0xffff_8000_0010_0000,
    0xffff_8800_0000_0000,
    u64::MAX - 7,
    0x8000_0000_0000,
    0x1234_5678_9abc_def0,
    0x7fff_ffff_efff,
    0x7fff_ffff_f000,
    0x7fff_ffff_fffc,
];
/// What lies outside of the child's directory belongs to others: only what cannot be changed is among them.
const PATHS: [&std::ffi::CStr; 15] = [
    c"a",
    c"b",
    c"c",
    c"a/below",
    c"b/below",
    c"c/below",
    c".",
    c"/",
    c"program",
    c"/proc/self/stat",
    c"/proc/self/maps",
    c"/proc/meminfo",
    c"/proc/self/fd",
    c"/sys/kernel/quiesce/cpus",
    c"",
];

/// Pages of each part of the arena.
pub const PART_PAGES: u64 = 16;
const PAGE: u64 = 4096;
/// Bytes of each part.
pub const PART: u64 = PART_PAGES * PAGE;

/// The child's memory that calls may have, in parts of `PART` bytes from `start` on; behind the first and the last nothing is mapped.
#[derive(Clone, Copy, Debug)]
pub struct Arena {
    /// Its address.
    pub start: u64,
}

/// Which part of the arena is what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Part {
    /// Read and written, full of random words; behind it is a hole.
    Good = 0,
    /// Nothing.
    Hole = 1,
    /// Only read.
    ReadOnly = 2,
    /// No right at all.
    NoRights = 3,
    /// The other thread maps, unmaps and protects it all the time.
    Racing = 4,
}

impl Arena {
    /// Parts.
    pub const PARTS: u64 = 5;

    /// The first address of a part.
    pub fn part(&self, part: Part) -> u64 {
        self.start + part as u64 * PART
    }
}

/// A call with its arguments. `None`: this draw is left out.
pub fn draw(random: &mut Random, arena: &Arena) -> Option<(i64, [u64; 6])> {
    let (number, kinds) = if random.one_in(5) { (random.below(NUMBERS) as i64, "xxxxxx") } else { random.pick(CALLS) };
    let mut args = [0; 6];
    let kinds = kinds.bytes().map(kind).chain(std::iter::repeat(Kind::Any));
    for (arg, kind) in args.iter_mut().zip(kinds) {
        // A tenth is nothing of the kind.
        let kind = if random.one_in(10) { Kind::Any } else { kind };
        *arg = value(random, kind, arena);
    }
    if number == libc::SYS_mmap || number == libc::SYS_mremap {
        // At fixed places only within the arena: the child would lose its own code at once.
        args[3] &= if args[0].wrapping_sub(arena.start) < Arena::PARTS * PART { !0 } else { !0x10 };
    }
    let left_out = LEFT_OUT.contains(&number) || BY_PROCESS.contains(&number) && args[0] as u32 != 0;
    (!left_out).then_some((number, args))
}

fn value(random: &mut Random, kind: Kind, arena: &Arena) -> u64 {
    match kind {
        Kind::Descriptor if random.one_in(16) => random.pick(&[u64::MAX, -100i64 as u64, 1023, 1024, 1 << 31]),
        Kind::Descriptor => random.below(14),
        Kind::Path if random.one_in(6) => pointer(random, arena),
        Kind::Path => random.pick(&PATHS).as_ptr() as u64,
        Kind::Memory => pointer(random, arena),
        // The words there are small (see `child::fill`).
        Kind::Time if random.one_in(4) => pointer(random, arena),
        Kind::Time | Kind::Vectors => arena.part(Part::Good) + (random.below(PART / 2) & !15),
        Kind::Page if random.one_in(8) => random.pick(&EDGES) & !(PAGE - 1),
        Kind::Page => arena.start + random.below(Arena::PARTS * PART_PAGES) * PAGE,
        Kind::Length if random.one_in(8) => random.pick(&EDGES),
        Kind::Length if random.one_in(3) => random.below(PART),
        Kind::Length => random.below(128),
        Kind::Small => random.below(12),
        Kind::Flags if random.one_in(4) => random.next() >> random.below(64),
        Kind::Flags => (1 << random.below(24)) | (random.below(4) << random.below(12)),
        Kind::Signal => random.below(66),
        Kind::Self_ => 0,
        Kind::SetSize => 8,
        Kind::Any => match random.below(8) {
            0 => random.pick(&EDGES),
            1 | 2 => random.below(16),
            3 => 1 << random.below(64),
            4 => random.next() >> random.below(64),
            5 => random.pick(&PATHS).as_ptr() as u64,
            _ => pointer(random, arena),
        },
    }
}

/// An address, of each sort that a kernel has to know how to deal with.
fn pointer(random: &mut Random, arena: &Arena) -> u64 {
    let within = random.below(PART);
    match random.below(16) {
        0 => random.pick(&HOSTILE),
        1 => 0,
        2 => arena.part(Part::Hole) + within,
        // Across the end of what is mapped, by a few bytes.
        3 | 4 => arena.part(Part::Hole) - random.below(64),
        5 => arena.part(Part::ReadOnly) + within,
        6 => arena.part(Part::ReadOnly) - random.below(64),
        7 => arena.part(Part::NoRights) + within,
        8 | 9 => arena.part(Part::Racing) + within,
        10 => arena.part(Part::Racing) + (within & !(PAGE - 1)) - random.below(32),
        11 => arena.part(Part::Good) + within,
        _ => arena.part(Part::Good) + (within & !7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_repeatable_and_leave_out_what_reaches_others() {
        let arena = Arena { start: 0x7000_0000_0000 };
        let run = |seed| {
            let mut random = Random(seed);
            (0..20_000).filter_map(|_| draw(&mut random, &arena)).collect::<Vec<_>>()
        };
        let calls = run(3);
        assert_eq!(calls, run(3));
        assert_ne!(calls, run(4));
        assert!(calls.iter().all(|(number, _)| !LEFT_OUT.contains(number)));
        let named = |(number, args): &(i64, [u64; 6])| BY_PROCESS.contains(number) && args[0] as u32 != 0;
        assert!(!calls.iter().any(named));
        // Every typed call comes up, and every part of the arena.
        assert!(CALLS.iter().all(|(wanted, _)| calls.iter().any(|(number, _)| number == wanted)));
        let parts = [Part::Good, Part::Hole, Part::ReadOnly, Part::NoRights, Part::Racing].map(|part| arena.part(part));
        let within = |start: u64| calls.iter().any(|(_, args)| args.iter().any(|a| (start..start + PART).contains(a)));
        assert!(parts.into_iter().all(within));
        assert!(HOSTILE.iter().all(|bad| calls.iter().any(|(_, args)| args.contains(bad))));
    }
}

//! Error numbers, Linux's. Anyone may use them; a system call returns them negative.
//!
//! Source: Linux include/uapi/asm-generic/errno-base.h and errno.h; the restart codes are include/linux/errno.h and never reach
//! user mode: signal delivery turns them into a restart or EINTR.

/// One error number, positive. As wide as what calls return, so that a result of either comes back in registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub u64);

/// A system call's result: a value, or an error.
pub type SysResult = Result<u64, Errno>;

macro_rules! numbers {
    ($($name:ident = $value:literal),* $(,)?) => { $(
        #[doc = stringify!($name)]
        #[allow(dead_code, reason = "the list is Linux's, whoever needs which")]
        pub const $name: Errno = Errno($value);
    )* };
}

numbers! {
    EPERM = 1, ENOENT = 2, ESRCH = 3, EINTR = 4, EIO = 5, ENXIO = 6, E2BIG = 7,
    ENOEXEC = 8, EBADF = 9, ECHILD = 10, EAGAIN = 11, ENOMEM = 12, EACCES = 13,
    EFAULT = 14, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20,
    EISDIR = 21, EINVAL = 22, ENFILE = 23, EMFILE = 24, ENOTTY = 25, ETXTBSY = 26,
    EFBIG = 27, ENOSPC = 28, ESPIPE = 29, EROFS = 30, EMLINK = 31, EPIPE = 32,
    EDOM = 33, ERANGE = 34, EDEADLK = 35, ENAMETOOLONG = 36, ENOLCK = 37,
    ENOSYS = 38, ENOTEMPTY = 39, ELOOP = 40, EOVERFLOW = 75, ELIBBAD = 80, ENOTSOCK = 88, EDESTADDRREQ = 89,
    EMSGSIZE = 90, EPROTOTYPE = 91, ENOPROTOOPT = 92, EPROTONOSUPPORT = 93,
    ESOCKTNOSUPPORT = 94, EOPNOTSUPP = 95, EAFNOSUPPORT = 97, EADDRINUSE = 98, ENOBUFS = 105, EISCONN = 106, ENOTCONN = 107,
    ETOOMANYREFS = 109, ETIMEDOUT = 110, ECONNREFUSED = 111, ECONNRESET = 104, ECANCELED = 125,
    // Restart codes: a signal came first. SYS: restarted if the handler says SA_RESTART or none runs, else EINTR. NOINTR: always
    // restarted. NOHAND: only if no handler runs. BLOCK: as NOHAND, by restart_syscall.
    ERESTARTSYS = 512, ERESTARTNOINTR = 513, ERESTARTNOHAND = 514,
    ERESTART_RESTARTBLOCK = 516,
}

impl Errno {
    /// What the system call returns.
    #[inline]
    pub const fn ret(self) -> i64 {
        -(self.0 as i64)
    }
}

impl From<crate::mm::user_copy::Fault> for Errno {
    fn from(_: crate::mm::user_copy::Fault) -> Self {
        EFAULT
    }
}

impl From<crate::sched::wait_queue::Interrupted> for Errno {
    fn from(_: crate::sched::wait_queue::Interrupted) -> Self {
        ERESTARTSYS
    }
}

impl From<kcore::vma::MapError> for Errno {
    fn from(e: kcore::vma::MapError) -> Self {
        use kcore::vma::MapError as M;
        match e {
            M::NoMem => ENOMEM,
            M::Inval => EINVAL,
            M::Exist => EEXIST,
            M::Perm => EPERM,
        }
    }
}

//! Signals: handlers, masks, restarts, stops.

use super::{Check, call, ensure, equal, errno, in_child};
use crate::linux::{self, Ended, Fork};
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

/// All of them.
pub const CHECKS: &[(&str, Check)] = &[
    ("handler", handler),
    ("to_self", to_self),
    ("from_second_thread", from_second_thread),
    ("ignored_is_never_seen", ignored_is_never_seen),
    ("registers", registers),
    ("mask", mask),
    ("one_shot", one_shot),
    ("restart", restart),
    ("sleep_interrupted", sleep_interrupted),
    ("segv_handler", segv_handler),
    ("suspend", suspend),
    ("stop_and_continue", stop_and_continue),
    ("broken_pipe", broken_pipe),
    ("time_limited_wait", time_limited_wait),
    ("queued_value", queued_value),
    ("kill_errors", kill_errors),
    ("child_signal", child_signal),
    ("bad_return", bad_return),
    ("storm", storm),
];

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
static SENDER: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    COUNT.fetch_add(1, Ordering::SeqCst);
    LAST.store(signal, Ordering::SeqCst);
    // SAFETY: (1) the kernel passes a valid siginfo to SA_SIGINFO handlers.
    unsafe {
        CODE.store((*info).si_code, Ordering::SeqCst);
        SENDER.store((*info).si_pid(), Ordering::SeqCst);
        ADDRESS.store((*info).si_addr() as u64, Ordering::SeqCst);
    }
}

/// One that SA_SIGINFO calls.
pub(super) type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// `handler` handles `signal`, with SA_SIGINFO and `flags`.
pub(super) fn install(signal: c_int, handler: Handler, flags: c_int) -> Result<(), String> {
    // SAFETY: (1) the structure is filled; (2) the handlers here only use atomics and system calls.
    let result = unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | flags;
        libc::sigaction(signal, &action, null_mut())
    };
    if result == 0 { Ok(()) } else { Err(format!("sigaction: {}", errno())) }
}

fn raise(signal: c_int) {
    // SAFETY: (1) no memory is passed.
    unsafe { libc::raise(signal) };
}

fn set_mask(how: c_int, signals: &[c_int]) -> u64 {
    let new: u64 = signals.iter().map(|s| 1u64 << (s - 1)).sum();
    let mut old = 0u64;
    let _ = call(libc::SYS_rt_sigprocmask, [how as u64, &raw const new as u64, &raw mut old as u64, 8, 0, 0]);
    old
}

fn handler() -> Result<(), String> {
    install(libc::SIGUSR1, note, 0)?;
    let me = linux::own_pid();
    for i in 1..=100 {
        raise(libc::SIGUSR1);
        equal!(COUNT.load(Ordering::SeqCst), i);
    }
    equal!(LAST.load(Ordering::SeqCst), libc::SIGUSR1);
    equal!(CODE.load(Ordering::SeqCst), libc::SI_TKILL);
    equal!(SENDER.load(Ordering::SeqCst), me);
    // SAFETY: (1) no memory is passed.
    unsafe { libc::kill(me, libc::SIGUSR1) };
    equal!(CODE.load(Ordering::SeqCst), libc::SI_USER);
    equal!(COUNT.load(Ordering::SeqCst), 101);
    Ok(())
}

/// What began (1, 3) and ended (2, 4), oldest first, four bits each.
static ORDER: AtomicU64 = AtomicU64::new(0);

extern "C" fn nested(signal: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    let begins = if signal == libc::SIGUSR1 { 1 } else { 3 };
    let push = |what: u64| ORDER.store(ORDER.load(Ordering::SeqCst) << 4 | what, Ordering::SeqCst);
    push(begins);
    if COUNT.fetch_add(1, Ordering::SeqCst) == 0 {
        let me = linux::own_pid();
        // The first waits until this handler returns, the other one does not.
        let _ = linux::kill(me, libc::SIGUSR1);
        let _ = linux::kill(me, libc::SIGUSR2);
    }
    push(begins + 1);
}

/// Signals to oneself, which nobody has to queue: each is handled before its call returns, or not at all.
fn to_self() -> Result<(), String> {
    let me = linux::own_pid();
    let send = |signal: c_int| linux::kill(me, signal).map_err(|e| format!("kill: {e}"));
    install(libc::SIGUSR1, nested, 0)?;
    install(libc::SIGUSR2, nested, 0)?;
    send(libc::SIGUSR1)?;
    equal!(ORDER.load(Ordering::SeqCst), 0x0013_4212);
    let real_time = libc::SIGRTMIN() + 1;
    install(real_time, note, 0)?;
    COUNT.store(0, Ordering::SeqCst);
    equal!(call(libc::SYS_tkill, [me as u64, real_time as u64, 0, 0, 0, 0]), Ok(0));
    equal!((COUNT.load(Ordering::SeqCst), LAST.load(Ordering::SeqCst)), (1, real_time));
    equal!((CODE.load(Ordering::SeqCst), SENDER.load(Ordering::SeqCst)), (libc::SI_TKILL, me));
    send(real_time)?;
    equal!((COUNT.load(Ordering::SeqCst), CODE.load(Ordering::SeqCst)), (2, libc::SI_USER));
    // Ignored, and nothing by default.
    linux::set_signal(libc::SIGUSR1, linux::Disposition::Ignore).map_err(|e| format!("sigaction: {e}"))?;
    send(libc::SIGUSR1)?;
    send(libc::SIGWINCH)?;
    let mut pending = 0u64;
    equal!(call(libc::SYS_rt_sigpending, [&raw mut pending as u64, 8, 0, 0, 0, 0]), Ok(0));
    equal!((pending, COUNT.load(Ordering::SeqCst)), (0, 2));
    Ok(())
}

static HANDLED_BY: AtomicU64 = AtomicU64::new(0);

fn own_tid() -> u64 {
    call(libc::SYS_gettid, [0; 6]).unwrap_or(0)
}

extern "C" fn note_thread(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    HANDLED_BY.store(own_tid(), Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
}

/// kill(2) by another thread than the main one is for the main thread, if that does not block it; then the sender may take it.
fn from_second_thread() -> Result<(), String> {
    let me = linux::own_pid();
    install(libc::SIGUSR1, note_thread, 0)?;
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let sender = std::thread::spawn(move || {
        // The main thread blocks signals while it makes another. Nothing is said here of who else might look at its signals: this one does not.
        while STARTED.load(Ordering::SeqCst) == 0 {
            std::hint::spin_loop();
        }
        let sent = linux::kill(me, libc::SIGUSR1).is_ok();
        while sent && COUNT.load(Ordering::SeqCst) == 0 {
            std::hint::spin_loop();
        }
        (sent, own_tid())
    });
    STARTED.store(1, Ordering::SeqCst);
    let (sent, tid) = sender.join().map_err(|_| "the thread panicked")?;
    ensure!(sent && tid != me as u64);
    equal!((COUNT.load(Ordering::SeqCst), HANDLED_BY.load(Ordering::SeqCst)), (1, me as u64));
    set_mask(libc::SIG_BLOCK, &[libc::SIGUSR1]);
    let sender = std::thread::spawn(move || {
        // It blocks what its maker does.
        set_mask(libc::SIG_UNBLOCK, &[libc::SIGUSR1]);
        let sent = linux::kill(me, libc::SIGUSR1).is_ok();
        (sent, own_tid(), COUNT.load(Ordering::SeqCst))
    });
    let (sent, tid, count) = sender.join().map_err(|_| "the thread panicked")?;
    equal!((sent, count, HANDLED_BY.load(Ordering::SeqCst)), (true, 2, tid));
    Ok(())
}

/// An ignored signal to oneself is nothing: another thread that blocks it and looks all the time reads it from no signalfd.
fn ignored_is_never_seen() -> Result<(), String> {
    const ROUNDS: usize = 20_000;
    static LOOKS: AtomicUsize = AtomicUsize::new(0);
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let set = 1u64 << (libc::SIGUSR1 - 1);
    linux::set_signal(libc::SIGUSR1, linux::Disposition::Ignore).map_err(|e| format!("sigaction: {e}"))?;
    let fd = call(libc::SYS_signalfd4, [u64::MAX, &raw const set as u64, 8, libc::SFD_NONBLOCK as u64, 0, 0])
        .map_err(|e| format!("signalfd: error {e}"))?;
    let looker = std::thread::spawn(move || {
        set_mask(libc::SIG_BLOCK, &[libc::SIGUSR1]);
        while DONE.load(Ordering::SeqCst) == 0 {
            let mut record = [0u64; 16];
            let found = call(libc::SYS_read, [fd, record.as_mut_ptr() as u64, 128, 0, 0, 0]);
            if found != Err(libc::EAGAIN) {
                return Err(format!("a look gives {found:?}, signal {}", record[0] as u32));
            }
            LOOKS.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    while LOOKS.load(Ordering::SeqCst) == 0 && !looker.is_finished() {
        std::thread::yield_now();
    }
    let me = linux::own_pid();
    for _ in 0..ROUNDS {
        let _ = linux::kill(me, libc::SIGUSR1);
    }
    DONE.store(1, Ordering::SeqCst);
    looker.join().map_err(|_| "the thread panicked")?
}

extern "C" fn clobber(_: c_int, _: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: (1) every register that is changed is named; the C ABI lets a handler change them all.
    unsafe {
        core::arch::asm!(
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15", "mov r8, -1", "mov r10, -1", "stc", "std", "cld",
            out("xmm0") _, out("xmm7") _, out("xmm15") _, out("r8") _, out("r10") _
        );
    }
    COUNT.fetch_add(1, Ordering::SeqCst);
}

/// A handler changes no register of the interrupted code, SIMD ones included.
fn registers() -> Result<(), String> {
    install(libc::SIGUSR1, clobber, 0)?;
    let (pid, tid) = (linux::own_pid() as u64, linux::own_pid() as u64);
    let (mut x0, mut x15, mut r8, mut r10): (u64, u64, u64, u64);
    // SAFETY: (1) a tgkill to this thread by the syscall instruction; (2) all changed registers are named.
    unsafe {
        core::arch::asm!(
            "movq xmm0, {a}",
            "movq xmm15, {b}",
            "mov r8, 0x1234",
            "mov r10, 0x5678",
            "syscall",
            "movq {a}, xmm0",
            "movq {b}, xmm15",
            a = inout(reg) 0x1111_2222_3333_4444u64 => x0,
            b = inout(reg) 0x5555_6666_7777_8888u64 => x15,
            inout("rax") libc::SYS_tgkill => _,
            in("rdi") pid, in("rsi") tid, in("rdx") libc::SIGUSR1 as u64,
            out("r8") r8, out("r10") r10, out("rcx") _, out("r11") _, out("xmm0") _, out("xmm15") _,
        );
    }
    equal!(COUNT.load(Ordering::SeqCst), 1);
    equal!((x0, x15), (0x1111_2222_3333_4444, 0x5555_6666_7777_8888));
    equal!((r8, r10), (0x1234, 0x5678));
    Ok(())
}

fn mask() -> Result<(), String> {
    install(libc::SIGUSR1, note, 0)?;
    install(libc::SIGUSR2, note, 0)?;
    set_mask(libc::SIG_BLOCK, &[libc::SIGUSR1, libc::SIGUSR2, libc::SIGKILL]);
    raise(libc::SIGUSR2);
    raise(libc::SIGUSR1);
    raise(libc::SIGUSR1);
    equal!(COUNT.load(Ordering::SeqCst), 0);
    let mut pending = 0u64;
    equal!(call(libc::SYS_rt_sigpending, [&raw mut pending as u64, 8, 0, 0, 0, 0]), Ok(0));
    equal!(pending, 1 << (libc::SIGUSR1 - 1) | 1 << (libc::SIGUSR2 - 1));
    let old = set_mask(libc::SIG_UNBLOCK, &[libc::SIGUSR1, libc::SIGUSR2]);
    equal!(old, pending); // SIGKILL cannot be blocked
    equal!(COUNT.load(Ordering::SeqCst), 2); // a standard signal waits once
    equal!(set_mask(libc::SIG_BLOCK, &[]), 0);
    equal!(call(libc::SYS_rt_sigprocmask, [9, &raw const old as u64, 0, 8, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_rt_sigprocmask, [0, &raw const old as u64, 0, 4, 0, 0]), Err(libc::EINVAL));
    Ok(())
}

fn one_shot() -> Result<(), String> {
    install(libc::SIGUSR1, note, libc::SA_RESETHAND)?;
    raise(libc::SIGUSR1);
    equal!(COUNT.load(Ordering::SeqCst), 1);
    let ended = in_child(|| {
        raise(libc::SIGUSR1);
        0
    })?;
    equal!(ended, Ended::Signal(libc::SIGUSR1));
    Ok(())
}

/// Sends `signal` to this process from a child that waits until this one sleeps; then writes a byte to `fd`, if there is one.
fn child_that_signals(signal: c_int, fd: Option<c_int>) -> Result<libc::pid_t, String> {
    let me = linux::own_pid();
    match linux::fork().map_err(|e| e.to_string())? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            let path = format!("/proc/{me}/stat");
            // Until the parent sleeps, which /proc says.
            while !std::fs::read_to_string(&path)
                .is_ok_and(|t| t.rsplit(')').next().is_some_and(|r| r.starts_with(" S")))
            {
                std::thread::yield_now();
            }
            // SAFETY: (1) no memory is passed.
            unsafe { libc::kill(me, signal) };
            if let Some(fd) = fd {
                let _ = linux::write_all(fd, b"x");
            }
            linux::exit_now(0)
        }
    }
}

fn restart() -> Result<(), String> {
    for (flags, wanted) in [(libc::SA_RESTART, Ok(1)), (0, Err(libc::EINTR))] {
        install(libc::SIGUSR1, note, flags)?;
        let mut pipe = [0; 2];
        // SAFETY: (1) room for two descriptors.
        ensure!(unsafe { libc::pipe(pipe.as_mut_ptr()) } == 0);
        let before = COUNT.load(Ordering::SeqCst);
        let pid = child_that_signals(libc::SIGUSR1, wanted.is_ok().then_some(pipe[1]))?;
        let mut byte = [0u8; 1];
        equal!(call(libc::SYS_read, [pipe[0] as u64, byte.as_mut_ptr() as u64, 1, 0, 0, 0]), wanted);
        equal!(COUNT.load(Ordering::SeqCst), before + 1);
        // SAFETY: (1) null is allowed.
        unsafe { libc::waitpid(pid, null_mut(), 0) };
    }
    Ok(())
}

fn sleep_interrupted() -> Result<(), String> {
    install(libc::SIGUSR1, note, libc::SA_RESTART)?;
    let pid = child_that_signals(libc::SIGUSR1, None)?;
    let request = [1000u64, 0];
    let mut left = [0u64; 2];
    let slept = call(libc::SYS_nanosleep, [request.as_ptr() as u64, left.as_mut_ptr() as u64, 0, 0, 0, 0]);
    equal!(slept, Err(libc::EINTR));
    ensure!(left[0] > 900 && left[0] < 1000);
    // SAFETY: (1) null is allowed.
    unsafe { libc::waitpid(pid, null_mut(), 0) };
    Ok(())
}

static PAGE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn open_page(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    note(signal, info, context);
    // SAFETY: (1) the page is the check's own.
    unsafe { libc::mprotect(PAGE.load(Ordering::SeqCst) as *mut c_void, 4096, libc::PROT_READ | libc::PROT_WRITE) };
}

fn segv_handler() -> Result<(), String> {
    install(libc::SIGSEGV, open_page, 0)?;
    // SAFETY: (1) a new mapping.
    let page = unsafe { libc::mmap(null_mut(), 4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
    ensure!(page != libc::MAP_FAILED);
    PAGE.store(page as usize, Ordering::SeqCst);
    // SAFETY: (1) the handler makes the page accessible.
    unsafe { (page as *mut u8).add(100).write_volatile(5) };
    equal!(COUNT.load(Ordering::SeqCst), 1);
    equal!(ADDRESS.load(Ordering::SeqCst), page as u64 + 100);
    equal!(CODE.load(Ordering::SeqCst), 2); // SEGV_ACCERR
    // SAFETY: (1) accessible now.
    equal!(unsafe { (page as *mut u8).add(100).read_volatile() }, 5);
    Ok(())
}

fn suspend() -> Result<(), String> {
    install(libc::SIGUSR1, note, 0)?;
    set_mask(libc::SIG_BLOCK, &[libc::SIGUSR1]);
    raise(libc::SIGUSR1);
    equal!(COUNT.load(Ordering::SeqCst), 0);
    let none = 0u64;
    equal!(call(libc::SYS_rt_sigsuspend, [&raw const none as u64, 8, 0, 0, 0, 0]), Err(libc::EINTR));
    equal!(COUNT.load(Ordering::SeqCst), 1);
    equal!(set_mask(libc::SIG_BLOCK, &[]), 1 << (libc::SIGUSR1 - 1));
    Ok(())
}

fn stop_and_continue() -> Result<(), String> {
    let Fork::Parent(pid) = linux::fork().map_err(|e| e.to_string())? else {
        loop {
            std::thread::yield_now();
        }
    };
    let mut status = 0;
    // SAFETY: (1) pointers are valid.
    unsafe {
        libc::kill(pid, libc::SIGSTOP);
        equal!(libc::waitpid(pid, &mut status, libc::WUNTRACED), pid);
        ensure!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP);
        equal!(libc::waitpid(pid, &mut status, libc::WUNTRACED | libc::WNOHANG), 0);
        libc::kill(pid, libc::SIGCONT);
        equal!(libc::waitpid(pid, &mut status, libc::WCONTINUED), pid);
        ensure!(libc::WIFCONTINUED(status));
        libc::kill(pid, libc::SIGSTOP);
        equal!(libc::waitpid(pid, &mut status, libc::WUNTRACED), pid);
        libc::kill(pid, libc::SIGKILL);
        equal!(libc::waitpid(pid, &mut status, 0), pid);
        ensure!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL);
    }
    Ok(())
}

fn broken_pipe() -> Result<(), String> {
    let mut pipe = [0; 2];
    // SAFETY: (1) room for two descriptors.
    ensure!(unsafe { libc::pipe(pipe.as_mut_ptr()) } == 0);
    // SAFETY: (1) an open descriptor.
    unsafe { libc::close(pipe[0]) };
    let write = || call(libc::SYS_write, [pipe[1] as u64, b"x".as_ptr() as u64, 1, 0, 0, 0]);
    let ended = in_child(|| {
        // SAFETY: (1) a valid action.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let _ = write();
        0
    })?;
    equal!(ended, Ended::Signal(libc::SIGPIPE));
    // SAFETY: (1) a valid action.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    equal!(write(), Err(libc::EPIPE));
    Ok(())
}

fn time_limited_wait() -> Result<(), String> {
    set_mask(libc::SIG_BLOCK, &[libc::SIGUSR1]);
    let set = 1u64 << (libc::SIGUSR1 - 1);
    let wait = |ns: u64| {
        let limit = [0, ns];
        call(libc::SYS_rt_sigtimedwait, [&raw const set as u64, 0, limit.as_ptr() as u64, 8, 0, 0])
    };
    equal!(wait(1_000_000), Err(libc::EAGAIN));
    raise(libc::SIGUSR1);
    equal!(wait(0), Ok(libc::SIGUSR1 as u64));
    equal!(wait(0), Err(libc::EAGAIN));
    Ok(())
}

static VALUE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn take_value(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: (1) the kernel passes a valid siginfo.
    VALUE.fetch_add(unsafe { (*info).si_value().sival_ptr as usize }, Ordering::SeqCst);
    COUNT.fetch_add(1, Ordering::SeqCst);
}

/// Real-time signals are queued with their values.
fn queued_value() -> Result<(), String> {
    const REAL_TIME: c_int = 40;
    install(REAL_TIME, take_value, 0)?;
    set_mask(libc::SIG_BLOCK, &[REAL_TIME]);
    for value in [1usize, 10, 100] {
        // SAFETY: (1) the value is a number.
        let sent =
            unsafe { libc::sigqueue(linux::own_pid(), REAL_TIME, libc::sigval { sival_ptr: value as *mut c_void }) };
        equal!(sent, 0);
    }
    set_mask(libc::SIG_UNBLOCK, &[REAL_TIME]);
    equal!(COUNT.load(Ordering::SeqCst), 3);
    equal!(VALUE.load(Ordering::SeqCst), 111);
    Ok(())
}

fn kill_errors() -> Result<(), String> {
    let kill = |pid: i64, signal: u64| call(libc::SYS_kill, [pid as u64, signal, 0, 0, 0, 0]);
    let me = i64::from(linux::own_pid());
    equal!(kill(me, 0), Ok(0));
    equal!(kill(me, 65), Err(libc::EINVAL));
    equal!(kill(99_999, 0), Err(libc::ESRCH));
    equal!(kill(-99_999, 0), Err(libc::ESRCH));
    equal!(call(libc::SYS_tgkill, [me as u64, 99_999, 0, 0, 0, 0]), Err(libc::ESRCH));
    equal!(call(libc::SYS_tgkill, [0, me as u64, 0, 0, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_rt_sigaction, [9, [0u64; 4].as_ptr() as u64, 0, 8, 0, 0]), Err(libc::EINVAL));
    equal!(call(libc::SYS_rt_sigaction, [0, 0, 0, 8, 0, 0]), Err(libc::EINVAL));
    Ok(())
}

fn child_signal() -> Result<(), String> {
    install(libc::SIGCHLD, note, libc::SA_RESTART)?;
    let Fork::Parent(pid) = linux::fork().map_err(|e| e.to_string())? else { linux::exit_now(9) };
    while COUNT.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    equal!(SENDER.load(Ordering::SeqCst), pid);
    equal!(CODE.load(Ordering::SeqCst), libc::CLD_EXITED);
    let mut status = 0;
    // SAFETY: (1) the pointer is valid.
    equal!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    equal!(status, 9 << 8);
    Ok(())
}

extern "C" fn spoil(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: (1) the kernel passes a ucontext, which a handler may change.
    unsafe {
        let context = context.cast::<libc::ucontext_t>();
        let registers = &mut (*context).uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] = SPOILT_RIP.load(Ordering::SeqCst) as i64;
        registers[libc::REG_EFL as usize] = -1;
        registers[libc::REG_CSGSFS as usize] = 0x0010_0010_0010_0010;
    }
}
static SPOILT_RIP: AtomicU64 = AtomicU64::new(0);

/// What a handler puts into its frame ends the program, never the kernel.
fn bad_return() -> Result<(), String> {
    for rip in [0xffff_8000_0000_0000, 0x8000_0000_0000, 0x7fff_ffff_f000, 16] {
        SPOILT_RIP.store(rip, Ordering::SeqCst);
        let ended = in_child(|| {
            let _ = install(libc::SIGUSR1, spoil, 0);
            raise(libc::SIGUSR1);
            0
        })?;
        ensure!(matches!(ended, Ended::Signal(libc::SIGSEGV | libc::SIGTRAP | libc::SIGBUS)));
    }
    // A frame from nowhere.
    let ended = in_child(|| {
        // SAFETY: none: the program ends.
        unsafe { core::arch::asm!("mov rsp, 64", "mov eax, 15", "syscall", "ud2", options(noreturn)) }
    })?;
    equal!(ended, Ended::Signal(libc::SIGSEGV));
    Ok(())
}

/// Signals from another process at any moment of system calls and user code: none is lost that is counted by a queue.
fn storm() -> Result<(), String> {
    const ROUNDS: usize = 2000;
    const REAL_TIME: c_int = 41;
    install(REAL_TIME, note, libc::SA_RESTART)?;
    let me = linux::own_pid();
    let Fork::Parent(pid) = linux::fork().map_err(|e| e.to_string())? else {
        for round in 0..ROUNDS {
            // SAFETY: (1) no memory is passed.
            unsafe {
                // Not more than the queue holds.
                while libc::sigqueue(me, REAL_TIME, libc::sigval { sival_ptr: null_mut() }) != 0 {
                    libc::sched_yield();
                }
            }
            if round % 64 == 0 {
                std::thread::yield_now();
            }
        }
        linux::exit_now(0)
    };
    let mut status = -1;
    let mut value = 0u64;
    loop {
        value = value.wrapping_mul(3).wrapping_add(1);
        // SAFETY: (1) the pointer is valid.
        let done = unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
        if done == pid {
            break;
        }
        equal!(done, 0);
        equal!(call(libc::SYS_getpid, [0; 6]), Ok(me as u64));
    }
    equal!(status, 0);
    let count = COUNT.load(Ordering::SeqCst);
    ensure!(count > 0 && count <= ROUNDS);
    Ok(())
}

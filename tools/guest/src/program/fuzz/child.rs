//! One child of the fuzzer: its memory, its signals, the thread that gets in its way, and its calls.
//!
//! What happens to the child is its own affair: it may lose its stack or its code. All that it does follows from its generator, but for
//! what the two threads do to each other.

use super::arguments::{self, Arena, PART, PART_PAGES, Part};
use super::random::Random;
use crate::linux::{self, SharedPage};
use std::sync::atomic::{AtomicU64, Ordering};

/// Calls of one child, left-out ones included.
pub const CALLS: u32 = 400;
/// How long the other thread sleeps between two acts, in nanoseconds.
const REST_NS: u64 = 300_000;

/// A program that ends at once, for execve and for calls that spoil it: ELF header, one segment, `exit(0)`.
const PROGRAM: [u8; 0x81] = {
    let mut file = [0; 0x81];
    let parts: [(usize, &[u8]); 8] = [
        (0, b"\x7fELF\x02\x01\x01"),
        (0x10, &[2, 0, 62, 0, 1]),
        (0x18, &[0x78, 0, 0x40]),
        (0x20, &[0x40]),
        (0x34, &[0x40, 0, 0x38, 0, 1]),
        (0x40, &[1, 0, 0, 0, 5]),
        (
            0x50,
            &[
                0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0, 0, 0, 0x81, 0, 0, 0, 0, 0,
                0, 0, 0, 0x10,
            ],
        ),
        (0x78, &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]), // mov eax, 60; xor edi, edi; syscall
    ];
    let mut part = 0;
    while part < parts.len() {
        let (at, bytes) = parts[part];
        let mut i = 0;
        while i < bytes.len() {
            file[at + i] = bytes[i];
            i += 1;
        }
        part += 1;
    }
    file
};

/// What the handler changes in the frame that it returns to; 0: nothing.
static FORGE: AtomicU64 = AtomicU64::new(0);

/// What the two threads of a child share: memory of the child's own.
struct Threads {
    /// Calls begun by the first thread.
    calls: AtomicU64,
    arena: Arena,
    first: i64,
}

/// Makes the child's calls, each counted in the first word of `own` before it is made, and ends. The second word becomes a digest of the calls
/// and what they gave. `parents` is not for the child: calls at random would write to it.
pub fn run(number: u64, mut random: Random, cpus: &[u32], own: &'static SharedPage, parents: &'static SharedPage) -> ! {
    // SAFETY: (1) a mapping of its own, which the child does not use any more.
    unsafe { libc::munmap(std::ptr::from_ref(parents).cast_mut().cast(), size_of::<SharedPage>()) };
    let arena = prepare(number, &mut random, cpus);
    // SAFETY: (1) gettid has no arguments.
    let first = unsafe { libc::syscall(libc::SYS_gettid) };
    let threads: &'static Threads = Box::leak(Box::new(Threads { calls: AtomicU64::new(0), arena, first }));
    let other = Random(random.next());
    let _ = std::thread::Builder::new().stack_size(32 << 10).spawn(move || get_in_the_way(threads, other));
    let (begun, digest) = (&own[0], &own[1]);
    for _ in 0..CALLS {
        let Some((number, args)) = arguments::draw(&mut random, &arena) else { continue };
        threads.calls.fetch_add(1, Ordering::Relaxed);
        begun.fetch_add(1, Ordering::Relaxed);
        // SAFETY: (1) what a call does to this process's memory may end the process, which is meant.
        let value = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
        let now = digest.load(Ordering::Relaxed).rotate_left(9)
            ^ number as u64
            ^ (value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        digest.store(now, Ordering::Relaxed);
        let makes_process = [libc::SYS_fork, libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3].contains(&number);
        if value == 0 && makes_process {
            linux::exit_now(0);
        }
    }
    linux::exit_now(0)
}

/// A group and a directory of its own, a few open files, signal handlers, one CPU for every other child, and the arena.
fn prepare(number: u64, random: &mut Random, cpus: &[u32]) -> Arena {
    if number % 2 == 1 && !cpus.is_empty() {
        let _ = linux::set_affinity(&[random.pick(cpus)]);
    }
    let _ = linux::set_process_group(0, 0);
    let directory = format!("{}/{number}", super::DIRECTORY);
    let _ = std::fs::create_dir(&directory);
    let _ = std::env::set_current_dir(&directory);
    let _ = std::fs::write("program", PROGRAM);
    let _ = std::fs::set_permissions("program", std::os::unix::fs::PermissionsExt::from_mode(0o755));
    (0..16).for_each(linux::close);
    for (path, flags) in [
        ("/dev/null", libc::O_RDWR),
        ("/dev/zero", libc::O_RDWR),
        ("/proc/self/stat", libc::O_RDONLY),
        ("/", libc::O_RDONLY),
        (".", libc::O_RDONLY),
        ("c", libc::O_RDWR | libc::O_CREAT),
        ("/sys/kernel/quiesce/cpus", libc::O_RDONLY),
    ] {
        let _ = linux::open(path, flags, 0o600);
    }
    let _ = linux::pipe();
    if random.one_in(8) {
        FORGE.store(random.next() | 1, Ordering::Relaxed);
    }
    // SAFETY: (1) sigaction is plain integers, for which zero is a value; (2) the handlers have the form that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        for (signal, flags) in
            [(libc::SIGUSR1, 0), (libc::SIGUSR2, libc::SA_RESTART), (libc::SIGALRM, libc::SA_NODEFER)]
        {
            action.sa_flags = libc::SA_SIGINFO | flags;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
    let arena = Arena { start: map(0, Arena::PARTS * PART, libc::PROT_READ | libc::PROT_WRITE, 0) };
    if arena.start == libc::MAP_FAILED as u64 {
        linux::exit_now(1);
    }
    fill(random, arena.part(Part::Good));
    // SAFETY: (1) parts of the arena, which nothing else uses.
    unsafe {
        libc::munmap(arena.part(Part::Hole) as *mut _, PART as usize);
        libc::mprotect(arena.part(Part::ReadOnly) as *mut _, PART as usize, libc::PROT_READ);
        libc::mprotect(arena.part(Part::NoRights) as *mut _, PART as usize, libc::PROT_NONE);
    }
    arena
}

fn map(at: u64, len: u64, prot: i32, flags: i32) -> u64 {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: (1) a new mapping at no fixed place, or within the arena.
    unsafe { libc::mmap(at as *mut _, len as usize, prot, flags, -1, 0) as u64 }
}

/// Random words, so that structures have all sorts of content: small numbers, addresses of the same part, anything.
fn fill(random: &mut Random, start: u64) {
    for at in (start..start + PART).step_by(8) {
        let word = match random.below(4) {
            0 => start + random.below(PART),
            1 => random.next() >> random.below(64),
            _ => random.below(1000),
        };
        // SAFETY: (1) the good part is mapped for writing.
        unsafe { (at as *mut u64).write(word) };
    }
}

/// The second thread: maps, unmaps and protects the racing part under the calls, and signals the first thread; at once if that waits.
fn get_in_the_way(threads: &Threads, mut random: Random) {
    let racing = threads.arena.part(Part::Racing);
    let mut seen = 0;
    loop {
        let at = racing + random.below(PART_PAGES) * 4096;
        let len = ((1 + random.below(4)) * 4096).min(racing + PART - at);
        let prot = random.pick(&[0, libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE]);
        // SAFETY: (1) pages of the racing part only, which nothing else uses.
        unsafe {
            match random.below(4) {
                0 => libc::munmap(at as *mut _, len as usize),
                1 => libc::mprotect(at as *mut _, len as usize, prot),
                2 => libc::madvise(at as *mut _, len as usize, libc::MADV_DONTNEED),
                _ => (map(at, len, prot, libc::MAP_FIXED) == 0) as i32,
            };
        }
        let calls = threads.calls.load(Ordering::Relaxed);
        if calls == seen || random.one_in(4) {
            let signal = if calls == seen { libc::SIGUSR1 } else { random.pick(&[libc::SIGUSR2, libc::SIGALRM]) };
            // SAFETY: (1) a signal to the first thread of the same process.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), threads.first, signal) };
        }
        seen = calls;
        linux::sleep_ns(REST_NS);
    }
}

/// Returns to where it came from; or, in a child that forges, to a frame with a changed word.
extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let forge = FORGE.load(Ordering::Relaxed);
    if forge == 0 || context.is_null() {
        return;
    }
    FORGE.store(forge.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, Ordering::Relaxed);
    if forge >> 60 != 0 {
        return;
    }
    let words = size_of::<libc::ucontext_t>() / 8;
    // SAFETY: (1) the kernel gave a frame of this size; (2) what becomes of the child is its own affair.
    unsafe {
        let word = context.cast::<u64>().add((forge >> 8) as usize % words);
        word.write(word.read() ^ (1 << (forge >> 2 & 63)));
    }
}

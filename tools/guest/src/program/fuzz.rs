//! fuzz: children that make system calls at random. The kernel has to survive; what happens to a child is its own affair.
//!
//! `fuzz [-s SEED] [-f FIRST] [-n CHILDREN]`. Child N makes the calls that SEED and N say, so `fuzz -s SEED -f N -n 1` repeats one.
//! Each runs in a group of its own, without open files of the parent's, and is killed after a while: it may wait for ever.

use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Fork, Wait};
use crate::output::{describe, write_out};

const USAGE: &str = "usage: fuzz [-s SEED] [-f FIRST] [-n CHILDREN]";
/// Calls of one child.
const CALLS: u32 = 150;
/// How long a child may take, in nanoseconds.
const PATIENCE_NS: u64 = 100_000_000;
/// A number above every call's.
const NUMBERS: u64 = 460;
/// What would end the machine, or reach processes that are not a child's own; and calls that end or only wait.
const LEFT_OUT: [i64; 10] = [
    libc::SYS_reboot,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_pause,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_prlimit64,
    libc::SYS_umount2,
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
const PATHS: [&std::ffi::CStr; 8] = [
    c"/tmp/fuzz-a",
    c"/tmp/fuzz-b",
    c"/tmp/fuzz-a/below",
    c"/dev/null",
    c"/dev/zero",
    c"/proc/self/stat",
    c"/sys/kernel/quiesce/cpus",
    c"",
];

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Makes the children one after the other.
pub fn main(args: &Args) -> Outcome {
    let (mut seed, mut first, mut children) = (linux::monotonic_ns(), 0, 200);
    let mut words = args.rest().iter().filter(|w| !w.contains('='));
    while let Some(word) = words.next() {
        let target = match word.as_str() {
            "-s" => &mut seed,
            "-f" => &mut first,
            "-n" => &mut children,
            _ => return Err(Failure::usage(USAGE)),
        };
        *target = words.next().and_then(|w| w.parse().ok()).ok_or_else(|| Failure::usage(USAGE))?;
    }
    write_out(format!("fuzz: seed {seed}, children {first} to {}\n", first.saturating_add(children)).as_bytes());
    let mut killed = 0;
    for number in first..first.saturating_add(children) {
        if number % 50 == 0 {
            write_out(format!("fuzz: child {number}\n").as_bytes());
        }
        match linux::fork().map_err(|e| Failure::new(format!("fork: {}", describe(&e))))? {
            Fork::Child => child(Random(seed ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03))),
            Fork::Parent(pid) => killed += u64::from(collect(pid)?),
        }
    }
    write_out(
        format!("fuzz: seed {seed}: {children} children ended, {killed} of them waited and were killed\n").as_bytes(),
    );
    Ok(0)
}

/// Waits for a child; kills it when it has had its time. Whether that was needed.
fn collect(pid: linux::Pid) -> Result<bool, Failure> {
    let fail = |e: std::io::Error| Failure::new(format!("wait: {}", describe(&e)));
    let start_ns = linux::monotonic_ns();
    let mut late = false;
    while linux::wait(pid, Wait::Poll).map_err(fail)?.is_none() {
        if !late && linux::monotonic_ns().saturating_sub(start_ns) > PATIENCE_NS {
            late = true;
            let _ = linux::kill(pid, libc::SIGKILL); // it may have ended this moment
        }
        linux::sleep_ns(1_000_000);
    }
    // What it left behind in its group.
    let _ = linux::kill(-pid, libc::SIGKILL);
    Ok(late)
}

fn child(mut random: Random) -> ! {
    // SAFETY: (1) descriptors and group of this child alone; (2) a new mapping at no fixed place.
    let buffer = unsafe {
        libc::setpgid(0, 0);
        for fd in 0..16 {
            libc::close(fd);
        }
        for path in [c"/dev/null", c"/dev/zero", c"/proc/self/stat", c"/"] {
            libc::open(path.as_ptr(), libc::O_RDONLY);
        }
        let mut ends = [0; 2];
        libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), 1 << 16, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) as u64
    };
    for _ in 0..CALLS {
        let number = random.below(NUMBERS) as i64;
        let args: [u64; 6] = std::array::from_fn(|_| argument(&mut random, buffer));
        if LEFT_OUT.contains(&number) || reaches_others(number, args[0]) {
            continue;
        }
        // SAFETY: (1) what a call does to this process's memory may end the process, which is meant.
        let value = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) };
        if value == 0 && matches!(number, libc::SYS_fork | libc::SYS_vfork | libc::SYS_clone) {
            linux::exit_now(0);
        }
    }
    linux::exit_now(0)
}

/// Calls that take a process number first may name this process only.
fn reaches_others(number: i64, first: u64) -> bool {
    const BY_PROCESS: [i64; 6] = [
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_setpgid,
        libc::SYS_setpriority,
        libc::SYS_mount,
    ];
    BY_PROCESS.contains(&number) && first as u32 != 0
}

fn argument(random: &mut Random, buffer: u64) -> u64 {
    match random.below(8) {
        0 => EDGES[random.below(EDGES.len() as u64) as usize],
        1 => random.below(16),
        2 => 1 << random.below(64),
        3 => random.next() >> random.below(64),
        4 => PATHS[random.below(PATHS.len() as u64) as usize].as_ptr() as u64,
        // The end of the buffer, and what is behind it.
        5 => buffer + (1 << 16) - random.below(64),
        _ => buffer + random.below(1 << 16),
    }
}

//! What the kernel says is in use, before and after a load that gives everything back.

use crate::entry::Failure;
use crate::{kernel_file, linux};

/// How often memory in use is looked at until it is what it was, 10 ms apart.
const LOOKS: u32 = 500;

/// A page that the kernel keeps of a file for the next reader costs at most so many bytes of its heap, and the first of a file more.
const KEPT_BYTES: u64 = 64;
const FIRST_KEPT_BYTES: u64 = 512;

/// So many bytes of the heap may be in use beyond that: the wait queues of the kernel's own threads and of files that are there for good have
/// grown by then to what the load needed, 4 bytes for each that waited at once, and keep that. Less than the smallest table of the kernel.
const HEAP_SLACK_BYTES: u64 = 256;

/// Tasks, frames, heap bytes; and the pages of files that the kernel keeps.
pub type InUse = [u64; 4];

/// Has the kernel start what it starts with the first who needs it and then keeps: the thread that timers expire in.
pub fn start_threads() -> Result<(), Failure> {
    let fail = || Failure::new(format!("timerfd: {}", std::io::Error::last_os_error()));
    let mut times = [0u8; 8];
    // SAFETY: (1) plain integers, for which zero is a value; (2) valid structures, and a descriptor of its own.
    unsafe {
        let file = libc::timerfd_create(libc::CLOCK_MONOTONIC, 0);
        let mut when: libc::itimerspec = std::mem::zeroed();
        when.it_value.tv_nsec = 1;
        let set = file >= 0 && libc::timerfd_settime(file, 0, &when, std::ptr::null_mut()) == 0;
        let read = set && libc::read(file, times.as_mut_ptr().cast(), times.len()) == times.len() as isize;
        let closed = file >= 0 && libc::close(file) == 0;
        if read && closed { Ok(()) } else { Err(fail()) }
    }
}

/// What is in use when all that was given back before has come.
pub fn in_use() -> Result<InUse, Failure> {
    kernel_file::write("/sys/kernel/quiesce/debug/rcu", "barrier 1")?;
    let text = kernel_file::read_quiesce("memory")?;
    let number = |key: &str| {
        let word = text.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        word.and_then(|w| w.parse().ok()).ok_or_else(|| Failure::new(format!("memory has no {key}: {text:?}")))
    };
    Ok([number("tasks")?, number("frames")?, number("heap_bytes")?, number("copies")?])
}

/// Waits until no more tasks are there than `before`; `left_over` says so if that never comes.
pub fn wait_for_ends(before: &InUse) -> Result<(), Failure> {
    for _ in 0..LOOKS {
        if in_use()?[0] <= before[0] {
            break;
        }
        linux::sleep_ns(10_000_000);
    }
    Ok(())
}

/// What is in use once nothing changes any more: as much as `before`. A failure that says so where it is more.
pub fn left_over(before: &InUse) -> Result<InUse, Failure> {
    let mut now = in_use()?;
    for _ in 0..LOOKS {
        let kept = now[3].saturating_sub(before[3]);
        let allowed =
            [before[0], before[1], before[2] + kept * KEPT_BYTES + kept.min(1) * FIRST_KEPT_BYTES + HEAP_SLACK_BYTES];
        if now.iter().zip(allowed).all(|(now, allowed)| *now <= allowed) {
            return Ok(now);
        }
        linux::sleep_ns(10_000_000);
        now = in_use()?;
    }
    Err(Failure::new(format!("left over: tasks, frames, heap bytes, kept pages before {before:?}, now {now:?}")))
}

//! What the kernel says is in use, before and after a load that gives everything back.

use crate::entry::Failure;
use crate::{kernel_file, linux};

/// How often memory in use is looked at until it is what it was, 10 ms apart.
const LOOKS: u32 = 500;

/// A page that the kernel keeps of a file for the next reader costs at most so many bytes of its heap, and the first of a file more.
const KEPT_BYTES: u64 = 64;
const FIRST_KEPT_BYTES: u64 = 512;

/// So many bytes of the heap may be in use beyond that: lists of the kernel that have grown and keep their room. A leak grows with the load.
const HEAP_SLACK_BYTES: u64 = 16 << 10;

/// Tasks, frames, heap bytes; and the pages of files that the kernel keeps.
pub type InUse = [u64; 4];

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

/// What is in use now and was not `before`, once nothing changes any more; `None`: nothing.
pub fn left_over(before: &InUse) -> Result<Option<String>, Failure> {
    let mut now = in_use()?;
    for _ in 0..LOOKS {
        let kept = now[3].saturating_sub(before[3]);
        let allowed =
            [before[0], before[1], before[2] + kept * KEPT_BYTES + kept.min(1) * FIRST_KEPT_BYTES + HEAP_SLACK_BYTES];
        if now.iter().zip(allowed).all(|(now, allowed)| *now <= allowed) {
            return Ok(None);
        }
        linux::sleep_ns(10_000_000);
        now = in_use()?;
    }
    Ok(Some(format!("left over: tasks, frames, heap bytes, kept pages before {before:?}, now {now:?}")))
}

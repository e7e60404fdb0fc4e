//! At most two QEMUs at once on one machine for one user: two lock files in the system's directory for temporary files.
//! Taken by `qemu`; a slot is free again when its holder ends, however it ends.

use crate::failure::Failure;
use std::fs::{File, OpenOptions, TryLockError};
use std::time::Duration;

const SLOTS: usize = 2;
const RETRY: Duration = Duration::from_millis(50);

/// A held slot; dropping it frees it.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for a free slot. `on_wait` is called once if there is none at first.
pub fn take(on_wait: impl FnOnce()) -> Result<Slot, Failure> {
    let user = nix::unistd::geteuid();
    let mut on_wait = Some(on_wait);
    loop {
        for number in 0..SLOTS {
            let path = std::env::temp_dir().join(format!("quiesce-qemu-{user}-{number}.lock"));
            let fail = |e: std::io::Error| Failure::Usage(format!("{}: {e}", path.display()));
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
            match file.try_lock() {
                Ok(()) => return Ok(Slot(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
        }
        if let Some(say) = on_wait.take() {
            say();
        }
        std::thread::sleep(RETRY);
    }
}

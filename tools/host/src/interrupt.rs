//! Ctrl-C and its like at any moment of a host command: one line, exit code 1, and none of its files left. A QEMU that was started dies
//! with this process (`qemu`). `main` calls `watch` first; `run` takes the signals over while its guest runs.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

type Taker = Box<dyn FnMut(i32) + Send>;

/// Who gets the signals instead.
static TAKER: Mutex<Option<Taker>> = Mutex::new(None);
/// What goes when this process is ended.
static SCRATCH: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// From now on SIGINT, SIGTERM and SIGHUP end this process with a line that begins with `name`. Once, from `main`.
pub fn watch(name: &'static str) {
    // Without it a signal ends the process all the same.
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        for number in signals.forever() {
            match &mut *lock(&TAKER) {
                Some(taker) => taker(number),
                None => {
                    // Held to the end, so that nobody registers anything meanwhile.
                    let scratch = lock(&SCRATCH);
                    scratch.iter().for_each(|path| remove(path));
                    eprintln!("{name}: ended by signal {number}");
                    std::process::exit(1);
                }
            }
        }
    });
}

/// Gives the signals to `taker` from now on.
pub fn take(taker: impl FnMut(i32) + Send + 'static) {
    *lock(&TAKER) = Some(Box::new(taker));
}

/// A file or folder that exists only while this does.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Removes what a killed process left at `path`. The caller makes it anew.
    pub fn new(path: PathBuf) -> Scratch {
        let mut all = lock(&SCRATCH);
        remove(&path);
        all.push(path.clone());
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mut all = lock(&SCRATCH);
        remove(&self.0);
        all.retain(|path| *path != self.0);
    }
}

/// It may not be there.
fn remove(path: &Path) {
    let _ = match path.symlink_metadata() {
        Ok(data) if data.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_goes_with_its_holder() {
        let path = std::env::temp_dir().join(format!("quiesce-scratch-test-{}", std::process::id()));
        std::fs::create_dir_all(path.join("old")).unwrap();
        let scratch = Scratch::new(path.clone());
        assert!(!path.exists(), "what was left is removed first");
        std::fs::write(scratch.path(), b"x").unwrap();
        drop(scratch);
        assert!(!path.exists() && !lock(&SCRATCH).contains(&path));
    }
}

//! Ctrl-C and its like at any moment of a host command: one line, exit code 1, none of its files and none of its children left. A QEMU
//! that was started dies with this process (`qemu`). `main` calls `watch` first; `run` takes the signals over while its guest runs.

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

type Taker = Box<dyn FnMut(i32) + Send>;

/// Who gets the signals instead.
static TAKER: Mutex<Option<Taker>> = Mutex::new(None);
/// Process groups that go when this process is ended. Locked before SCRATCH.
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
/// What goes when this process is ended.
static SCRATCH: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// How often what is there is removed: a folder cannot be while somebody fills it.
const REMOVALS: u32 = 100;
/// Somebody says how this process ends.
static ENDING: AtomicBool = AtomicBool::new(false);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// From now on SIGINT, SIGTERM and SIGHUP end this process with a line that begins with `name`. Once, from `main`.
pub fn watch(name: &'static str) {
    // Whoever loses its parent is ours to collect, so that nobody writes any more when files are removed.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    // Without it a signal ends the process all the same.
    let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        for number in signals.forever() {
            match &mut *lock(&TAKER) {
                Some(taker) => taker(number),
                None => end(name, number),
            }
        }
    });
}

fn end(name: &str, number: i32) {
    claim();
    // Both are held to the end: nobody starts a child meanwhile, or says what else it makes. What `main` makes at a place that it has
    // named is removed until it stays away.
    let groups = lock(&GROUPS);
    for &group in groups.iter() {
        let _ = killpg(group, Signal::SIGKILL); // it may have ended
        while !matches!(waitpid(Pid::from_raw(-group.as_raw()), None), Err(Errno::ECHILD)) {}
    }
    let scratch = lock(&SCRATCH);
    eprintln!("{name}: ended by signal {number}");
    for _ in 0..REMOVALS {
        scratch.iter().for_each(|path| remove(path));
        if !scratch.iter().any(|path| path.symlink_metadata().is_ok()) {
            break;
        }
    }
    std::process::exit(1);
}

/// The right to say how this process ends; who comes second waits for its end.
fn claim() {
    while ENDING.swap(true, Ordering::SeqCst) {
        std::thread::park();
    }
}

/// How `main` ends: with `code`, after `line` on standard error, unless a signal ended the process before.
pub fn conclude(line: Option<String>, code: ExitCode) -> ExitCode {
    claim();
    if let Some(line) = line {
        eprintln!("{line}");
    }
    code
}

/// Gives the signals to `taker` as long as what is returned exists.
pub fn take(taker: impl FnMut(i32) + Send + 'static) -> Taken {
    *lock(&TAKER) = Some(Box::new(taker));
    Taken(())
}

/// The signals are somebody's.
#[must_use = "dropping it gives the signals back"]
pub struct Taken(());

impl Drop for Taken {
    fn drop(&mut self) {
        *lock(&TAKER) = None;
    }
}

/// A child with a process group of its own, all of which goes when this process is ended, or this value is dropped.
pub struct Group {
    child: Child,
    group: Pid,
}

impl Group {
    /// Starts it by `spawn`, which has to give it a group of its own.
    pub fn start(spawn: impl FnOnce() -> std::io::Result<Child>) -> std::io::Result<Group> {
        let mut groups = lock(&GROUPS);
        let child = spawn()?;
        let group = Pid::from_raw(child.id() as i32);
        groups.push(group);
        Ok(Group { child, group })
    }

    /// The child itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let mut groups = lock(&GROUPS);
        let _ = killpg(self.group, Signal::SIGKILL); // usually nobody is left in it
        let _ = self.child.wait();
        groups.retain(|group| *group != self.group);
    }
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

//! fuzz: children that make system calls at random, on all CPUs, under signals and NMIs. The kernel has to survive, end each of them and
//! get all memory back; what happens to a child is its own affair.
//!
//! `fuzz [-s SEED] [-f FIRST] [-n CHILDREN] [-c CALLS]`. Child N makes the calls that SEED and N say, so `fuzz -s SEED -f N -n 1`
//! repeats one. With -c there are as many children as it takes. Under the instruction clock a whole run repeats, call by call and result by
//! result, which the digest shows. As process 1 (`init=/bin/fuzz`) it does not look at memory, since orphans are its own, and powers off.

mod arguments;
mod child;
pub mod memory;
mod random;

use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Fork, SharedPage, Wait};
use crate::output::{describe, write_out};
use crate::{cpu_list, kernel_file};
use random::Random;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const USAGE: &str = "usage: fuzz [-s SEED] [-f FIRST] [-n CHILDREN] [-c CALLS]";
/// Where the children have their files.
const DIRECTORY: &str = "/tmp/fuzz";
/// A child that has begun no call for so long is killed, in nanoseconds.
const PATIENCE_NS: u64 = 100_000_000;
/// Between two NMIs, in nanoseconds.
const NMI_REST_NS: u64 = 1_000_000;
/// Children of each worker before memory is measured: what the kernel keeps for later is there then.
const WARM_UP: u64 = 6;

/// Places in the page that all share. Behind `WORKER` a count of calls for each worker.
const NEXT: usize = 0;
const KILLED: usize = 1;
const NMIS: usize = 2;
const OVER: usize = 3;
const DIGEST: usize = 4;
const WORKER: usize = 8;

/// What is to be done.
struct Task {
    seed: u64,
    /// Children have numbers from here on.
    first: u64,
    /// So many at most.
    children: u64,
    /// And none when so many calls were made.
    calls: u64,
    cpus: Vec<u32>,
    page: &'static SharedPage,
}

/// Reads the command line, makes the children and looks at what is left of them.
pub fn main(args: &Args) -> Outcome {
    let (mut seed, mut first, mut children, mut calls) = (linux::monotonic_ns(), 0, u64::MAX, u64::MAX);
    let mut words = args.rest().iter().filter(|w| !w.contains('='));
    while let Some(word) = words.next() {
        let target = match word.as_str() {
            "-s" => &mut seed,
            "-f" => &mut first,
            "-n" => &mut children,
            "-c" => &mut calls,
            _ => return Err(Failure::usage(USAGE)),
        };
        *target = words.next().and_then(|w| w.parse().ok()).ok_or_else(|| Failure::usage(USAGE))?;
    }
    if children == u64::MAX && calls == u64::MAX {
        children = 200;
    }
    let first_process = linux::own_pid() == 1;
    if first_process {
        crate::program::init::provide_files();
        crate::program::init::open_console();
    }
    let cpus = cpu_list::parse(&kernel_file::read("/sys/devices/system/cpu/online")?).map_err(Failure::new)?;
    let page = linux::shared_page().map_err(|e| Failure::new(format!("shared memory: {}", describe(&e))))?;
    let mut task = Task { seed, first, children, calls, cpus, page };
    write_out(format!("fuzz: seed {seed}, children from {first} on\n").as_bytes());
    let files = paths_below(Path::new("/"));
    let before = if children == 1 || first_process {
        None
    } else {
        // Numbers that no run reaches.
        let warm_up = WARM_UP * task.workers() as u64;
        memory::start_threads()?;
        (task.first, task.children, task.calls) = (1 << 40, warm_up, u64::MAX);
        task.apart(|task| task.run(&files))?;
        (task.first, task.children, task.calls) = (first, children, calls);
        Some(memory::in_use()?)
    };
    task.apart(|task| task.run(&files))?;
    if let Some(before) = &before {
        // Who left its child's group may have made a name since.
        memory::wait_for_ends(before)?;
        task.apart(|_| {
            tidy(&files);
            Ok(())
        })?;
    }
    let now = before.as_ref().map(memory::left_over).transpose();
    if now.is_err() {
        for path in new_paths(&files).iter().take(20) {
            write_out(format!("fuzz: left over: {path:?}\n").as_bytes());
        }
    }
    write_out(
        format!(
            "fuzz: seed {seed}: {} calls by {} children on {} CPUs ended, {} of them waited and were killed, {} NMIs, digest {:016x}\n",
            task.done(),
            page[NEXT].load(Relaxed),
            task.cpus.len(),
            page[KILLED].load(Relaxed),
            page[NMIS].load(Relaxed),
            page[DIGEST].load(Relaxed)
        )
        .as_bytes(),
    );
    if first_process {
        let error = linux::end_machine(linux::MachineEnd::PowerOff);
        return Err(Failure::new(format!("power off: {}", describe(&error))));
    }
    if let (Some(before), Some(now)) = (before, now?) {
        write_out(
            format!("fuzz: nothing left over: tasks, frames, heap bytes, kept pages before {before:?}, now {now:?}\n")
                .as_bytes(),
        );
    }
    Ok(0)
}

impl Task {
    /// How many work at once.
    fn workers(&self) -> usize {
        self.cpus.len().min(8)
    }

    /// Calls begun.
    fn done(&self) -> u64 {
        (0..self.workers()).map(|worker| self.page[WORKER + worker].load(Relaxed)).sum()
    }

    /// `work` in a process of its own: who measures has no more memory for what a run has to remember, as the names that calls at random make in
    /// the root, which are the more the longer it is.
    fn apart(&self, work: impl Fn(&Self) -> Result<(), Failure>) -> Result<(), Failure> {
        let fail = |e: std::io::Error| Failure::new(format!("a process for the run: {}", describe(&e)));
        match linux::fork().map_err(fail)? {
            Fork::Child => match work(self) {
                Ok(()) => linux::exit_now(0),
                Err(failure) => {
                    write_out(format!("fuzz: {}\n", failure.text).as_bytes());
                    linux::exit_now(1)
                }
            },
            Fork::Parent(pid) => match linux::wait_for(pid).map_err(fail)? {
                ended if ended.status() == 0 => Ok(()),
                ended => Err(Failure::new(format!("the run ended with {ended:?}"))),
            },
        }
    }

    /// All children, by workers that share them; meanwhile NMIs. Afterwards no file is left.
    fn run(&self, files: &[PathBuf]) -> Result<(), Failure> {
        let fail = |e: std::io::Error| Failure::new(format!("fork: {}", describe(&e)));
        self.page.iter().for_each(|word| word.store(0, Relaxed));
        let _ = std::fs::create_dir(DIRECTORY);
        let mut workers = Vec::new();
        for worker in 0..self.workers() {
            match linux::fork().map_err(fail)? {
                Fork::Child => match self.work(worker) {
                    Ok(()) => linux::exit_now(0),
                    Err(failure) => {
                        write_out(format!("fuzz: {}\n", failure.text).as_bytes());
                        linux::exit_now(1)
                    }
                },
                Fork::Parent(pid) => workers.push(pid),
            }
        }
        let disturber = match linux::fork().map_err(fail)? {
            Fork::Child => self.disturb(),
            Fork::Parent(pid) => pid,
        };
        let ended: Vec<_> = workers.into_iter().map(linux::wait_for).collect();
        self.page[OVER].store(1, Relaxed);
        let _ = linux::wait_for(disturber);
        tidy(files);
        if let Some(bad) = ended.iter().find(|e| e.as_ref().map_or(1, |e| e.status()) != 0) {
            return Err(Failure::new(format!("a worker ended with {bad:?}")));
        }
        Ok(())
    }

    /// One child after the other, as long as there is something to do.
    fn work(&self, worker: usize) -> Result<(), Failure> {
        // The child's alone: it may spoil it, so no more is believed of it than a child can make.
        let own = linux::shared_page().map_err(|e| Failure::new(format!("shared memory: {}", describe(&e))))?;
        while self.done() < self.calls {
            let index = self.page[NEXT].fetch_add(1, Relaxed);
            if index >= self.children {
                self.page[NEXT].fetch_sub(1, Relaxed);
                break;
            }
            let number = self.first.wrapping_add(index);
            if index % 500 == 499 {
                write_out(format!("fuzz: child {number}, {} calls\n", self.done()).as_bytes());
            }
            own[..2].iter().for_each(|word| word.store(0, Relaxed));
            match linux::fork().map_err(|e| Failure::new(format!("fork: {}", describe(&e))))? {
                Fork::Child => {
                    let random = Random(self.seed ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03));
                    child::run(number, random, &self.cpus, own, self.page)
                }
                Fork::Parent(pid) => self.collect(pid, number, &own[0])?,
            }
            // A sum: in which order the workers come does not matter.
            let digest = own[1].load(Relaxed).wrapping_mul(number.wrapping_mul(2) | 1);
            self.page[DIGEST].fetch_add(digest, Relaxed);
            self.page[WORKER + worker].fetch_add(own[0].load(Relaxed).min(child::CALLS.into()), Relaxed);
        }
        Ok(())
    }

    /// Waits for a child; kills it when it gets no further.
    fn collect(&self, pid: linux::Pid, number: u64, count: &AtomicU64) -> Result<(), Failure> {
        let fail = |e: std::io::Error| Failure::new(format!("wait: {}", describe(&e)));
        let (mut calls, mut since_ns, mut late) = (u64::MAX, linux::monotonic_ns(), false);
        while linux::wait(pid, Wait::Poll).map_err(fail)?.is_none() {
            let now_ns = linux::monotonic_ns();
            let begun = count.load(Relaxed);
            if begun != calls {
                (calls, since_ns) = (begun, now_ns);
            } else if !late && now_ns.saturating_sub(since_ns) > PATIENCE_NS {
                late = true;
                self.page[KILLED].fetch_add(1, Relaxed);
                let _ = linux::kill(pid, libc::SIGKILL); // it may have ended this moment
            }
            linux::sleep_ns(500_000);
        }
        // What it left behind in its group, and its files.
        let _ = linux::kill(-pid, libc::SIGKILL);
        let _ = std::fs::remove_dir_all(format!("{DIRECTORY}/{number}"));
        Ok(())
    }

    /// NMIs to CPUs at random until the run is over.
    fn disturb(&self) -> ! {
        let mut random = Random(!self.seed);
        while self.page[OVER].load(Relaxed) == 0 {
            let cpu = random.pick(&self.cpus);
            if kernel_file::write("/sys/kernel/quiesce/debug/nmi", &cpu.to_string()).is_ok() {
                self.page[NMIS].fetch_add(1, Relaxed);
            }
            linux::sleep_ns(random.below(2 * NMI_REST_NS));
        }
        linux::exit_now(0)
    }
}

/// No file is left but these. Paths at random, what getcwd wrote among them, are now and then names beside the children's directories.
fn tidy(files: &[PathBuf]) {
    let _ = std::fs::remove_dir_all(DIRECTORY);
    for path in new_paths(files) {
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
    }
}

/// The files of the root's file system but these, what a directory holds before it.
fn new_paths(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut paths = paths_below(Path::new("/"));
    paths.retain(|path| !files.contains(path));
    paths
}

/// All files below a directory that are on its file system, what a directory holds before it.
fn paths_below(directory: &Path) -> Vec<PathBuf> {
    let device = |path: &Path| std::fs::symlink_metadata(path).map(|m| (m.dev(), m.is_dir()));
    let Ok((here, _)) = device(directory) else { return Vec::new() };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if device(&path).is_ok_and(|(its, is_directory)| is_directory && its == here) {
            paths.extend(paths_below(&path));
        }
        paths.push(path);
    }
    paths
}

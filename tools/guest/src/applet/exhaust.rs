//! exhaust: uses up what the kernel has of one thing, so that one can see it refuse the rest and go on.

use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Fork};
use crate::output::{describe, write_out};
use std::fs::File;
use std::io::Write;

const USAGE: &str = "usage: exhaust memory|processes|file";
/// Processes at most.
const PROCESSES: usize = 2000;
const BLOCK: usize = 1 << 20;

/// `exhaust KIND`: touches new memory until it is killed; forks up to 2000 sleepers; fills a file and removes it.
pub fn main(args: &Args) -> Outcome {
    let [kind] = args.rest() else { return Err(Failure::usage(USAGE)) };
    match kind.as_str() {
        "memory" => take_memory(),
        "processes" => fork_sleepers(),
        "file" => fill_file(),
        _ => Err(Failure::usage(format!("no kind {kind} ({USAGE})"))),
    }
}

fn take_memory() -> Outcome {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(BLOCK).is_err() {
            return Err(Failure::new(format!("no more memory after {} MiB", blocks.len())));
        }
        block.resize(BLOCK, 1);
        blocks.push(std::hint::black_box(block));
    }
}

fn fork_sleepers() -> Outcome {
    let mut children = Vec::with_capacity(PROCESSES);
    let mut end = "the limit of this program".to_string();
    while children.len() < PROCESSES {
        match linux::fork() {
            Ok(Fork::Child) => loop {
                linux::sleep_ns(3_600_000_000_000);
            },
            Ok(Fork::Parent(pid)) => children.push(pid),
            Err(error) => {
                end = describe(&error);
                break;
            }
        }
    }
    for &pid in &children {
        let _ = linux::kill(pid, libc::SIGKILL);
    }
    for &pid in &children {
        let _ = linux::wait_for(pid);
    }
    write_out(format!("exhaust: {} processes, then: {end}\n", children.len()).as_bytes());
    Ok(0)
}

fn fill_file() -> Outcome {
    const PATH: &str = "/filler";
    let mut file = File::create(PATH).map_err(|e| Failure::new(format!("{PATH}: {}", describe(&e))))?;
    let block = vec![1; BLOCK];
    let mut blocks = 0;
    let error = loop {
        match file.write_all(&block) {
            Ok(()) => blocks += 1,
            Err(error) => break error,
        }
    };
    drop(file);
    std::fs::remove_file(PATH).map_err(|e| Failure::new(format!("{PATH}: {}", describe(&e))))?;
    write_out(format!("exhaust: {blocks} MiB written, then: {}\n", describe(&error)).as_bytes());
    Ok(0)
}

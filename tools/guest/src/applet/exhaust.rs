//! exhaust: uses up what the kernel has of one thing, so that one can see it refuse the rest and go on.

use crate::entry::{Args, Failure, Outcome};
use crate::kernel_file;
use crate::linux::{self, Fork};
use crate::output::{describe, write_out};
use std::fs::File;
use std::io::Write;

const USAGE: &str = "usage: exhaust memory [MIB [ADJUSTMENT]]|processes|forks|file";
/// Processes at most.
const PROCESSES: usize = 2000;
const BLOCK: usize = 1 << 20;

/// `exhaust KIND`: touches new memory until it is killed (or so many MiB, and then sleeps; the second number goes into its oom_score_adj
/// before); forks up to 2000 sleepers; forks, and the children fork too,
/// until the kernel refuses; fills a file and removes it.
pub fn main(args: &Args) -> Outcome {
    let [kind, numbers @ ..] = args.rest() else { return Err(Failure::usage(USAGE)) };
    let numbers: Result<Vec<i64>, _> = numbers.iter().map(|word| word.parse()).collect();
    let numbers = numbers.map_err(|e| Failure::usage(format!("{e} ({USAGE})")))?;
    match kind.as_str() {
        "memory" if numbers.len() <= 2 => take_memory(numbers.first().copied(), numbers.get(1).copied()),
        _ if !numbers.is_empty() => Err(Failure::usage(USAGE)),
        "processes" => fork_sleepers(),
        "forks" => fork_without_end(),
        "file" => fill_file(),
        _ => Err(Failure::usage(format!("no kind {kind} ({USAGE})"))),
    }
}

fn take_memory(most: Option<i64>, adjustment: Option<i64>) -> Outcome {
    if let Some(adjustment) = adjustment {
        kernel_file::write("/proc/self/oom_score_adj", &adjustment.to_string())?;
    }
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        if most.is_some_and(|most| blocks.len() as i64 >= most) {
            let score = kernel_file::read("/proc/self/oom_score")?;
            write_out(format!("exhaust: {} MiB held, score {}\n", blocks.len(), score.trim()).as_bytes());
            loop {
                linux::sleep_ns(3_600_000_000_000);
            }
        }
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

/// A child and all that come from it fork as fast as they can, in a group of their own, which is killed when the kernel refuses.
fn fork_without_end() -> Outcome {
    let fail = |e: std::io::Error| Failure::new(describe(&e));
    let told = linux::pipe().map_err(fail)?;
    let Fork::Parent(group) = linux::fork().map_err(fail)? else {
        let _ = linux::set_process_group(0, 0);
        loop {
            if let Err(error) = linux::fork() {
                let _ = linux::write_all(told.1, describe(&error).as_bytes());
                linux::sleep_ns(1_000_000_000);
            }
        }
    };
    let mut text = [0; 13]; // more of them write
    let length = linux::read(told.0, &mut text).map_err(fail)?;
    // Those that a fork was making at the time belong to the group too: again until nobody is left.
    while linux::kill(-group, libc::SIGKILL).is_ok() {
        let _ = linux::wait_for(group); // its children are process 1's
        linux::sleep_ns(1_000_000);
    }
    let text = String::from_utf8_lossy(&text[..length]);
    write_out(format!("exhaust: forks without end, then: {text}\n").as_bytes());
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

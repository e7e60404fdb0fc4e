//! unmap: kernel memory moves while a thread on another CPU is in user mode. The thread has seen the memory before; when it asks
//! again, it must see the new place: its CPU flushes on the way in.

use crate::entry::{Args, Failure, Outcome};
use crate::{cpu_list, kernel_file, linux, output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const PAGE: &str = "debug/kernel_page";

/// `unmap CPU MOVES`: prints what the thread on CPU read before and after, and how often it moved between.
pub fn main(args: &Args) -> Outcome {
    let usage = || Failure::usage("usage: unmap CPU MOVES");
    let [cpu, moves] = args.rest() else { return Err(usage()) };
    let cpu = cpu_list::parse_cpu(cpu).map_err(Failure::usage)?;
    let moves: u64 = moves.parse().map_err(|_| usage())?;
    let step = Arc::new(AtomicU32::new(0));
    let theirs = step.clone();
    let reader = std::thread::spawn(move || -> Result<(u64, u64), Failure> {
        linux::set_affinity(&[cpu]).map_err(|e| Failure::new(format!("CPU {cpu}: {e}")))?;
        let before = read_page();
        theirs.store(1, Ordering::SeqCst);
        // In user mode, without a system call, until the page has moved.
        while theirs.load(Ordering::SeqCst) == 1 {
            std::hint::spin_loop();
        }
        Ok((before?, read_page()?))
    });
    while step.load(Ordering::SeqCst) == 0 && !reader.is_finished() {
        linux::sleep_ns(1_000_000);
    }
    let moved = kernel_file::write("/sys/kernel/quiesce/debug/kernel_page_move", &moves.to_string());
    step.store(2, Ordering::SeqCst);
    let (before, after) = reader.join().map_err(|_| Failure::new("the reader panicked"))??;
    moved?;
    output::write_out(format!("kernel page: {before} before, {after} after {moves} moves\n").as_bytes());
    if after == before + moves { Ok(0) } else { Err(Failure::new("a stale translation was used")) }
}

fn read_page() -> Result<u64, Failure> {
    let text = kernel_file::read_quiesce(PAGE)?;
    text.trim().parse().map_err(|_| Failure::new(format!("{PAGE}: {text:?}")))
}

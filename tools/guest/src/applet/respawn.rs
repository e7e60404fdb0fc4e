//! respawn: forks, executes, and waits for the end, many times; and what of the kernel's memory did not come back.

use crate::entry::{Args, Failure, Outcome};
use crate::output::write_out;
use crate::program::{busy, fuzz};

const USAGE: &str = "usage: respawn TIMES";
/// Rounds before memory is looked at: what the kernel keeps for the next one (stacks, room of lists, pages of files) is there then.
const WARM_UP: u32 = 100;

/// `respawn TIMES`: fails if more tasks, page frames or bytes of the kernel's heap are in use than before.
pub fn main(args: &Args) -> Outcome {
    let [times] = args.rest() else { return Err(Failure::usage(USAGE)) };
    let times: u32 = times.parse().map_err(|e| Failure::usage(format!("{e} ({USAGE})")))?;
    let rounds = |count: u32| (0..count).try_for_each(|_| busy::exec_true()).map_err(Failure::new);
    rounds(WARM_UP)?;
    let before = fuzz::memory::in_use()?;
    rounds(times)?;
    let [tasks, frames, heap_bytes, _] = fuzz::memory::left_over(&before)?;
    let left = format!(
        "tasks {} to {tasks}, frames {} to {frames}, bytes of the heap {} to {heap_bytes}",
        before[0], before[1], before[2]
    );
    write_out(format!("respawn: {times} times fork, execve, exit: nothing left over: {left}\n").as_bytes());
    Ok(0)
}

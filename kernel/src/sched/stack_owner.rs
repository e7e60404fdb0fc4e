//! Whose kernel stack an address belongs to, its guard pages included: for the epitaph of a stack that was too small.
//!
//! Any context, in a kernel that dies: it reads the tables of tasks and CPUs as they are, without a lock.

use super::task::{self, Task};
use crate::mm::stack::{GUARD_BYTES, IST_STACK_BYTES, TASK_STACK_BYTES};
use crate::percpu;
use core::fmt;

/// Names of the IST stacks, in the order of their slots (`arch::gdt::Ist`).
const IST_NAMES: [&str; 4] = ["NMI", "double fault", "debug", "machine check"];

/// Who.
enum Owner<'a> {
    Task(&'a Task),
    /// A CPU's stack for one kind of event.
    Ist(u32, &'static str),
}

/// An address, and the stack that it belongs to.
pub struct StackOwner<'a> {
    owner: Owner<'a>,
    /// Bytes below the stack, in its guard; 0: on the stack.
    below: u64,
}

/// How far `address` is below the stack of `bytes` whose end is `top`, if it belongs to it.
fn belongs(address: u64, top: u64, bytes: u64) -> Option<u64> {
    let bottom = top.checked_sub(bytes)?;
    (bottom.checked_sub(GUARD_BYTES)?..top).contains(&address).then(|| bottom.saturating_sub(address))
}

/// The stack that `address` belongs to.
pub fn of(address: u64) -> Option<StackOwner<'static>> {
    for cpu in percpu::online().iter() {
        let tops = percpu::get(cpu)?.segments.ist();
        for (top, name) in tops.iter().zip(IST_NAMES) {
            // The word at the top and one more lie above.
            if let Some(below) = belongs(address, top + 16, IST_STACK_BYTES) {
                return Some(StackOwner { owner: Owner::Ist(cpu, name), below });
            }
        }
    }
    (0..task::FIRST_IDLE + percpu::nr_cpus()).find_map(|index| {
        // SAFETY: a task that leaves the table is freed a grace period later, and none ends without this CPU, which runs kernel code with
        // interrupts off for ever. Where it still counts as idle (a double fault there), the others have been told to stop (`panic::begin`); one that
        // did not could free a task that is being looked at, and what is told of it is then wrong.
        let task = unsafe { task::TABLE.get(index).as_ref() }?;
        let below = belongs(address, task.stack_top(), TASK_STACK_BYTES)?;
        Some(StackOwner { owner: Owner::Task(task), below })
    })
}

impl StackOwner<'_> {
    /// Whether the address lies in the guard below it.
    pub fn is_guard(&self) -> bool {
        self.below != 0
    }
}

impl fmt::Display for StackOwner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.below {
            0 => f.write_str("on ")?,
            below => write!(f, "{below} bytes below ")?,
        }
        match self.owner {
            Owner::Task(task) if task.index >= task::FIRST_IDLE => {
                write!(f, "the kernel stack of CPU {}'s idle task", task.index - task::FIRST_IDLE)
            }
            Owner::Task(task) => {
                write!(f, "the kernel stack of task {} ({})", task.tid(), task::comm_str(&task.comm()))
            }
            Owner::Ist(cpu, name) => write!(f, "CPU {cpu}'s {name} stack"),
        }
    }
}

//! What a breach of its lease does to a program, by the terms that it chose.
//!
//! Called by the exit loop, interrupts on, on the leased CPU; the loop delivers what is pending then.

use super::signal::{self, Info, sig};
use super::thread_of;
use crate::sched::task;
use kcore::lease::OnBreach;

/// Do it to the thread of task `holder`.
pub fn react(holder: u32, how: OnBreach) {
    let Some(task) = task::by_index(holder) else { return };
    let Some(process) = thread_of(&task).map(|t| t.process.clone()) else { return };
    match how {
        OnBreach::Log => {}
        OnBreach::Signal(number) => {
            let thread = process.threads.lock().iter().find(|t| t.task == holder).cloned();
            if let Some(thread) = thread {
                signal::send_to_thread(&thread, Info::from_kernel(number as u32));
            }
        }
        OnBreach::Kill => signal::send_to_process(&process, Info::from_kernel(sig::KILL)),
    }
}

//! Waiting on several queues at once, with an end in time: poll, and terminal reads with a time limit.
//!
//! Process context.

use crate::arch::tsc;
use crate::errno::{self, Errno};
use crate::sched;
use crate::sched::wait_queue::WaitQueue;
use core::sync::atomic::Ordering;

/// Whether the running task has a signal to handle.
pub fn signal_pending() -> bool {
    sched::current().signal_pending.load(Ordering::SeqCst)
}

/// Sleep until `ready` gives a value, until `deadline_tsc` has passed (`None`), or a signal came (RESTART). One of `queues` is woken whenever
/// `ready` may have changed.
pub fn wait_any<R>(
    queues: &[&WaitQueue],
    deadline_tsc: Option<u64>,
    mut ready: impl FnMut() -> Option<R>,
) -> Result<Option<R>, Errno> {
    if let Some(r) = ready() {
        return Ok(Some(r));
    }
    let me = sched::current();
    let result = loop {
        // In this order: a waker that takes this task off a queue then finds it about to sleep.
        me.state.prepare_sleep(true);
        queues.iter().for_each(|q| q.join(me));
        if let Some(r) = ready() {
            me.state.cancel_sleep();
            break Ok(Some(r));
        }
        if signal_pending() {
            me.state.cancel_sleep();
            break Err(errno::ERESTARTSYS);
        }
        match deadline_tsc {
            Some(deadline) if tsc::now() >= deadline => {
                me.state.cancel_sleep();
                break Ok(None);
            }
            Some(deadline) => crate::time::timer::sleep_until(me, deadline),
            None => sched::schedule(),
        }
        if let Some(r) = ready() {
            break Ok(Some(r));
        }
    };
    queues.iter().for_each(|q| q.leave(me));
    result
}

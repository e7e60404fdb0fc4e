//! The interruption log: the draining thread (`trace::stream`) takes the rings of isolated CPUs over into one list that files read.
//!
//! Draining reads the other CPU's ring; it never interrupts that CPU.

use crate::isolation::housekeeping;
use crate::percpu;
use crate::sched::wait_queue::WaitQueue;
use crate::spin_lock::{SpinLock, rank};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::fmt::Write;
use core::panic::Location;
use kcore::interruption::{Cause, Interruption, WORDS};
use kcore::trace_ring::{Cursor, Next};

/// Lines kept for readers that come later.
const KEEP: usize = 1024;

/// What a reader gets.
#[derive(Clone)]
pub enum Entry {
    /// One interruption.
    Record(Interruption),
    /// So many were overwritten before they were drained.
    Lost(u64),
}

struct Log {
    entries: VecDeque<Entry>,
    /// Sequence number of the first entry.
    first: u64,
    /// By target, sender and site: what the interruptions cost that a sender asked for.
    costs: BTreeMap<(u32, u32, u64), Cost>,
}

/// What interruptions of one CPU by one sender from one site cost.
#[derive(Clone, Copy, Default)]
pub struct Cost {
    /// How many were recorded.
    pub count: u64,
    /// TSC ticks, from the start of the handler to its end.
    pub ticks: u64,
    /// The longest.
    pub longest_ticks: u64,
}

static LOG: SpinLock<Log, { rank::FILE }> =
    SpinLock::new(Log { entries: VecDeque::new(), first: 0, costs: BTreeMap::new() });
static CURSORS: SpinLock<Vec<(u32, Cursor)>, { rank::PROCESS_PART }> = SpinLock::new(Vec::new());
/// Readers that wait for more.
pub static READERS: WaitQueue = WaitQueue::new();

/// Follow the rings of all isolated CPUs from now on, if the log is kept; tells whether it is.
pub fn start() -> bool {
    let kept = super::rings::interruptions_off().is_none();
    if kept {
        *CURSORS.lock() = housekeeping::isolated().iter().map(|cpu| (cpu, Cursor::new())).collect();
    }
    kept
}

/// Follow the ring of CPU `cpu` too, which is isolated from now on.
pub fn follow(cpu: u32) {
    let mut cursors = CURSORS.lock();
    if super::rings::interruptions_off().is_none() && cursors.iter().all(|(known, _)| *known != cpu) {
        cursors.push((cpu, Cursor::new()));
    }
}

impl Log {
    fn add_cost(&mut self, i: &Interruption) {
        let (Some(sender), true) = (i.sender_cpu, i.site != 0) else { return };
        let ticks = i.end_tsc.wrapping_sub(i.start_tsc);
        let cost = self.costs.entry((i.cpu, sender, i.site)).or_default();
        cost.count += 1;
        cost.ticks += ticks;
        cost.longest_ticks = cost.longest_ticks.max(ticks);
    }
}

/// What IPIs from CPU `sender`, sent at `site`, cost the isolated CPU `target`. `None`: nothing is known.
pub fn cost_of(target: u32, sender: u32, site: u64) -> Option<Cost> {
    LOG.lock().costs.get(&(target, sender, site)).copied()
}

/// Take over what the rings hold now; gives the number of new entries. Also called by readers, so that what happened before a read is
/// in it.
pub fn drain() -> usize {
    let mut new = 0;
    let mut cursors = CURSORS.lock();
    for (cpu, cursor) in cursors.iter_mut() {
        let Some(area) = percpu::get(*cpu) else { continue };
        loop {
            let entry = match cursor.next(&area.trace.interruptions) {
                Next::Empty => break,
                Next::Lost(n) => Entry::Lost(n),
                Next::Record(words) => match Interruption::decode(&words as &[u64; WORDS]) {
                    Ok(i) => Entry::Record(i),
                    Err(_) => Entry::Lost(1),
                },
            };
            new += 1;
            let mut log = LOG.lock();
            if let Entry::Record(i) = &entry {
                log.add_cost(i);
            }
            if log.entries.len() == KEEP {
                log.entries.pop_front();
                log.first += 1;
            }
            log.entries.push_back(entry);
        }
    }
    drop(cursors);
    if new > 0 {
        READERS.wake_all();
    }
    new
}

/// The interruption at `position` or the first one after it that is still kept; moves `position` behind it. `None`: no more yet.
pub fn next(position: &mut u64) -> Option<Interruption> {
    let log = LOG.lock();
    *position = (*position).max(log.first);
    loop {
        let entry = log.entries.get((*position - log.first) as usize)?;
        *position += 1;
        if let Entry::Record(i) = entry {
            return Some(*i);
        }
    }
}

/// The line at `position` or the first one after it that is still kept, and the next position. `None`: no more yet.
/// A reader that fell behind gets a loss line.
pub fn line_at(position: u64) -> Option<(alloc::string::String, u64)> {
    let mut out = alloc::string::String::new();
    if let Some(why) = super::rings::interruptions_off() {
        let _ = writeln!(out, "off: {why}");
        return (position == 0).then_some((out, 1));
    }
    let log = LOG.lock();
    if position < log.first {
        let _ = writeln!(out, "lost={}", log.first - position);
        return Some((out, log.first));
    }
    let entry = log.entries.get((position - log.first) as usize)?.clone();
    drop(log);
    match entry {
        Entry::Lost(n) => {
            let _ = writeln!(out, "lost={n}");
        }
        Entry::Record(i) => format(&i, &mut out),
    }
    Some((out, position + 1))
}

fn format(i: &Interruption, out: &mut alloc::string::String) {
    use crate::arch::tsc;
    let time_ns = tsc::ticks_to_ns(i.start_tsc.wrapping_sub(tsc::boot()));
    let _ = write!(out, "time_ns={time_ns} cpu={} cause={}", i.cpu, i.cause.name());
    if let Cause::Exception { vector } = i.cause {
        let _ = write!(out, " vector={vector}");
    }
    if let Some(cpu) = i.sender_cpu {
        let comm = crate::sched::task::comm_field(&i.sender_comm);
        let _ = write!(out, " sender_cpu={cpu} sender_task={} sender_comm={comm}", i.sender_task);
        if let Some(ipi) = i.ipi {
            let _ = write!(out, " ipi={}", ipi.name());
        }
    }
    if i.site != 0 {
        // SAFETY: only `smp::interrupt::record` writes sites, from `&'static Location`.
        let site = unsafe { &*(i.site as *const Location<'static>) };
        let _ = write!(out, " site={}:{}", site.file(), site.line());
    }
    let duration_ns = tsc::ticks_to_ns(i.end_tsc.wrapping_sub(i.start_tsc));
    let _ = writeln!(out, " duration_ns={duration_ns} total={}", i.total);
}

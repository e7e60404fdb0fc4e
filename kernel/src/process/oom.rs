//! Memory has run out: one process is ended, by name, and the others go on. `kcore::oom` says which.
//!
//! Called by page faults, of programs and of the kernel in their stead, in process context with no lock held. One victim at a time: while it
//! ends, whoever finds no memory waits for it. The first process is never chosen. What fails with ENOMEM or ENOSPC instead
//! (fork, mmap, files) ends nobody.

use super::signal::{self, sig};
use super::{Process, Thread, tree};
use crate::arch::tsc;
use crate::mm::address_space::AddressSpace;
use crate::mm::frame;
use crate::sched::{self, task};
use crate::spin_lock::{SpinLock, rank};
use crate::time::timer;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering};
use kcore::oom::{Candidate, NEVER, stands_out, worst};

/// How long a victim may take to end before another one is chosen. It may wait for something that the asker holds.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long the asker sleeps between two looks.
const LOOK_NS: u64 = 1_000_000;

/// The process that ends for want of memory, as it was when it was chosen; and when that was, ns since boot.
static VICTIM: SpinLock<Option<(Candidate, u64)>, { rank::PROCESS_PART }> = SpinLock::new(None);
/// Processes ended since boot.
static KILLS: AtomicU64 = AtomicU64::new(0);

/// What the asker does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Ask again: somebody is about to end.
    Again,
    /// Ask again: memory is free.
    Free,
    /// End: it is the victim.
    End,
    /// Do without: nobody may be ended.
    Nobody,
}

/// Processes ended for want of memory since boot.
pub fn kills() -> u64 {
    KILLS.load(Ordering::Relaxed)
}

/// Pages of the machine.
pub fn total_pages() -> u64 {
    frame::ram_bytes() / crate::arch::page_table::PAGE_SIZE
}

/// What of `process` counts; `None` once it has no memory.
pub fn candidate(process: &Process) -> Option<Candidate> {
    let space = process.address_space.lock().clone()?;
    let (resident, tables) = space.pages();
    let adjustment = process.oom_score_adj.load(Ordering::Relaxed);
    Some(Candidate { pid: process.pid, pages: resident + tables, adjustment })
}

/// `thread`, the running one, found no memory. Sleeps a little where that may help.
pub fn run_out(thread: &Thread) -> Next {
    if thread.process.ending().is_some() {
        return Next::End;
    }
    let victim = ending();
    // Memory is there, for somebody has ended meanwhile (or the allocation failed on purpose). Looked at after the victim: one that has ended
    // has given its memory back.
    if frame::free_bytes() > frame::reserve_bytes() {
        return Next::Free;
    }
    let asker = candidate(&thread.process);
    // Who is waited for frees far more than the asker would.
    let awaited = victim.is_some_and(|victim| asker.is_none_or(|asker| stands_out(&victim, &asker, total_pages())));
    if !awaited {
        match choose(asker.filter(|asker| asker.pid != 1)) {
            Some(victim) if victim == thread.process.pid => return Next::End,
            Some(_) => {}
            None => return Next::Nobody,
        }
    }
    let me = sched::current();
    me.state.prepare_sleep(false);
    timer::sleep_until(me, tsc::now().saturating_add(tsc::ns_to_ticks(LOOK_NS)));
    Next::Again
}

/// The victim, if it has not ended and its time is not over. Its memory comes back before its end is told: to have none of its own any more is
/// not enough, for then the pages are on their way.
fn ending() -> Option<Candidate> {
    let (victim, chosen_ns) = (*VICTIM.lock())?;
    let goes_on = || tree::find(victim.pid).is_some_and(|p| !tree::is_over(&p));
    if goes_on() && tsc::now_ns().saturating_sub(chosen_ns) <= PATIENCE_NS {
        return Some(victim);
    }
    // Several may come here at once, and the next one may be chosen already.
    VICTIM.lock().take_if(|(v, when)| v.pid == victim.pid && *when == chosen_ns);
    None
}

/// Choose the worst, or `asker`, and end it. Its pid; of another's choice if that was first; `None` if nobody may be ended.
fn choose(asker: Option<Candidate>) -> Option<u32> {
    let all = tree::all();
    // Those that end already have had their time, or will give their memory back without us.
    let spares = |p: &Process| p.pid == 1 || p.oom_score_adj.load(Ordering::Relaxed) <= NEVER;
    let spaces = |p: &Process| p.address_space.lock().clone();
    // Memory that one has who is spared does not come back by the end of another (a child of vfork, say).
    let spared: Vec<_> = all.iter().filter(|p| spares(p)).filter_map(|p| spaces(p)).collect();
    let is_shared = |p: &Process| spaces(p).is_some_and(|space| spared.iter().any(|s| Arc::ptr_eq(s, &space)));
    let eligible = || all.iter().filter(|p| p.pid != 1 && !p.killed.load(Ordering::SeqCst) && !is_shared(p));
    let asker = asker.filter(|asker| !all.iter().any(|p| p.pid == asker.pid && is_shared(p)));
    let chosen = worst(eligible().filter_map(|p| candidate(p)), asker, total_pages())?;
    let victim = all.iter().find(|p| p.pid == chosen.pid)?;
    let space = victim.address_space.lock().clone()?;
    if asker.is_some_and(|asker| asker.pid == chosen.pid) {
        // It ends at once; nobody waits for it. Another of its threads may have been here.
        if victim.killed.swap(true, Ordering::SeqCst) {
            return Some(chosen.pid);
        }
        end(victim, &chosen, &space, &all);
        return Some(chosen.pid);
    }
    let mut chosen_before = VICTIM.lock();
    if let Some((other, _)) = *chosen_before {
        return Some(other.pid);
    }
    *chosen_before = Some((chosen, tsc::now_ns()));
    drop(chosen_before);
    end(victim, &chosen, &space, &all);
    Some(chosen.pid)
}

/// End `victim`, and say so.
fn end(victim: &Process, chosen: &Candidate, space: &Arc<AddressSpace>, all: &[Arc<Process>]) {
    KILLS.fetch_add(1, Ordering::Relaxed);
    say(victim, chosen, space);
    signal::kill(victim, sig::KILL);
    // Memory that several processes have comes back when all of them have ended.
    let shares = |p: &Process| p.address_space.lock().as_ref().is_some_and(|s| Arc::ptr_eq(s, space));
    all.iter().filter(|p| p.pid != 1 && p.pid != chosen.pid && shares(p)).for_each(|p| {
        crate::warning!("out of memory: killed {}[{}] too, which has the same memory", name(p), p.pid);
        signal::kill(p, sig::KILL);
    });
}

/// The one line about it.
fn say(victim: &Process, chosen: &Candidate, space: &AddressSpace) {
    let (bytes, resident) = space.size();
    let comm = sched::current().comm();
    let asker = super::current();
    crate::warning!(
        "out of memory: killed {}[{}]: rss {} kB of {} kB mapped, score {}, oom_score_adj {}; memory was wanted by {}[{}]",
        name(victim),
        victim.pid,
        resident << 2,
        bytes >> 10,
        chosen.score(total_pages()),
        chosen.adjustment,
        task::comm_str(&comm),
        asker.pid
    );
}

/// The name of its first thread.
fn name(process: &Process) -> String {
    let mut out = String::new();
    let first = process.threads.lock().first().map(|t| t.task);
    let comm = first.and_then(|index| task::with(index, |t| t.comm()));
    let _ = write!(out, "{}", comm.as_ref().map_or("?", |comm| task::comm_str(comm)));
    out
}

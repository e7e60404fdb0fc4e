//! System calls about CPUs and scheduling.

use super::table::Calls;
use crate::arch::cpu_head;
use crate::entry::exit_work;
use crate::errno::{EFAULT, EINVAL, EPERM, ESRCH, Errno, SysResult};
use crate::mm::address_space::cpus_running;
use crate::mm::user_copy;
use crate::percpu;
use crate::process::{Process, current, current_thread, thread_of, tree};
use crate::sched::task::{self, TaskRef};
use crate::sched::{self, priority_futex};
use crate::system_call;
use core::sync::atomic::Ordering;
use kcore::cpu_set::{CpuSet, MAX_CPUS};
use kcore::ipi_ledger::IpiCause;
use kcore::run_queue::Class;

/// Numbers and handlers.
pub const CALLS: Calls = &[
    (24, sched_yield),
    (140, getpriority),
    (141, setpriority),
    (142, sched_setparam),
    (143, sched_getparam),
    (144, sched_setscheduler),
    (145, sched_getscheduler),
    (146, priority_max),
    (147, priority_min),
    (148, rr_interval),
    (202, crate::entry::futex_call::futex_call),
    (203, sched_setaffinity),
    (204, sched_getaffinity),
    (309, getcpu),
    (324, membarrier),
    (334, rseq),
];

/// The task a call names: 0 is the running one.
pub(super) fn named(tid: u64) -> Result<TaskRef, Errno> {
    let tid = tid as i32;
    if tid < 0 {
        return Err(EINVAL);
    }
    let index = if tid == 0 { sched::current().index } else { tid as u32 };
    task::by_index(index).filter(|t| t.tid() != 0).ok_or(ESRCH)
}

/// As `named`, where Linux looks for a negative number as for any other.
fn named_or_gone(tid: u64) -> Result<TaskRef, Errno> {
    if (tid as i32) < 0 { Err(ESRCH) } else { named(tid) }
}

system_call! {
    /// sched_yield(2)
    sched_yield() {
        sched::yield_now();
        Ok(0)
    }
}

system_call! {
    /// sched_setaffinity(2). A set that names an isolated CPU is an explicit wish and is followed.
    sched_setaffinity(tid, len, at) {
        let mut words = [0u64; MAX_CPUS / 64];
        let mut bytes = [0u8; MAX_CPUS / 8];
        let n = (len as usize).min(bytes.len());
        user_copy::read_bytes(at, &mut bytes[..n])?;
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().map_err(|_| EINVAL)?);
        }
        let set = CpuSet::from_words(words).intersection(&percpu::online());
        let task = named_or_gone(tid)?;
        if set.is_empty() {
            return Err(EINVAL);
        }
        if thread_of(&task).is_none() {
            return Err(EPERM); // a kernel thread stays where it belongs
        }
        sched::set_affinity(&task, &set)?;
        Ok(0)
    }
}
system_call! {
    /// sched_getaffinity(2): the number of bytes written.
    sched_getaffinity(tid, len, at) {
        let needed = (percpu::nr_cpus() as usize).div_ceil(64) * 8;
        if (len as usize) < (percpu::nr_cpus() as usize).div_ceil(8) || !len.is_multiple_of(8) {
            return Err(EINVAL);
        }
        let set = named_or_gone(tid)?.allowed().intersection(&percpu::online());
        let mut bytes = [0u8; MAX_CPUS / 8];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(set.words()) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let n = needed.min(len as usize);
        user_copy::write_bytes(at, &bytes[..n])?;
        Ok(n as u64)
    }
}
system_call! {
    /// getcpu(2)
    getcpu(cpu, node) {
        if cpu != 0 {
            user_copy::write(cpu, &percpu::cpu())?;
        }
        if node != 0 {
            user_copy::write(node, &0u32)?;
        }
        Ok(0)
    }
}

pub(super) const OTHER: u64 = 0;
pub(super) const FIFO: u64 = 1;
pub(super) const ROUND_ROBIN: u64 = 2;
pub(super) const BATCH: u64 = 3;
pub(super) const IDLE: u64 = 5;
pub(super) const DEADLINE: u64 = 6;
pub(super) const RESET_ON_FORK: u64 = crate::process::RESET_ON_FORK as u64;

/// Round robin runs as FIFO: the next of a priority comes when the running one blocks or yields.
pub(super) fn class_of(policy: u64, priority: u32) -> Result<Class, Errno> {
    match policy & !RESET_ON_FORK {
        OTHER | BATCH | IDLE if priority == 0 => Ok(Class::Fair),
        FIFO | ROUND_ROBIN if (1..=99).contains(&priority) => Ok(Class::Fifo(priority as u8)),
        _ => Err(EINVAL),
    }
}

/// What sched_setscheduler(2) set; of a kernel thread, what its class amounts to.
pub(super) fn policy_of(task: &TaskRef) -> u64 {
    match thread_of(task) {
        Some(thread) => thread.policy.load(Ordering::Relaxed) as u64,
        None if matches!(task.run.own_class(), Class::Fifo(_)) => FIFO,
        None => OTHER,
    }
}

/// Its real-time priority; 0: it has none.
pub(super) fn priority_of(task: &TaskRef) -> u32 {
    if let Class::Fifo(priority) = task.run.own_class() { priority as u32 } else { 0 }
}

system_call! {
    /// sched_setscheduler(2)
    sched_setscheduler(tid, policy, at) {
        if at == 0 || (tid as i32) < 0 {
            return Err(EINVAL);
        }
        let priority: u32 = user_copy::read(at)?;
        set_policy(&named(tid)?, policy as u32, priority)
    }
}

/// From now on this policy, with RESET_ON_FORK or without, and this priority.
pub(super) fn set_policy(task: &TaskRef, policy: u32, priority: u32) -> SysResult {
    sched::set_class(task, class_of(policy as u64, priority)?)?;
    priority_futex::class_changed(task);
    if let Some(thread) = thread_of(task) {
        thread.policy.store(policy, Ordering::Relaxed);
    }
    Ok(0)
}

system_call! {
    /// sched_getscheduler(2)
    sched_getscheduler(tid) {
        Ok(policy_of(&named(tid)?))
    }
}
system_call! {
    /// sched_setparam(2)
    sched_setparam(tid, at) {
        let priority: u32 = user_copy::read(at)?;
        let task = named(tid)?;
        sched::set_class(&task, class_of(policy_of(&task), priority)?)?;
        priority_futex::class_changed(&task);
        Ok(0)
    }
}
system_call! {
    /// sched_getparam(2)
    sched_getparam(tid, at) {
        let priority = priority_of(&named(tid)?);
        if at == 0 {
            return Err(EINVAL);
        }
        user_copy::write(at, &priority)?;
        Ok(0)
    }
}
system_call! {
    /// sched_get_priority_max(2)
    priority_max(policy) {
        match policy {
            FIFO | ROUND_ROBIN => Ok(99),
            OTHER | BATCH | IDLE | DEADLINE => Ok(0),
            _ => Err(EINVAL),
        }
    }
}
system_call! {
    /// sched_get_priority_min(2)
    priority_min(policy) {
        match policy {
            FIFO | ROUND_ROBIN => Ok(1),
            OTHER | BATCH | IDLE | DEADLINE => Ok(0),
            _ => Err(EINVAL),
        }
    }
}
system_call! {
    /// sched_rr_get_interval(2)
    rr_interval(tid, at) {
        let fair = !matches!(named(tid)?.run.own_class(), Class::Fifo(_));
        user_copy::write(at, &[0, if fair { 4_000_000 } else { 0u64 }])?;
        Ok(0)
    }
}
system_call! {
    /// getpriority(2), as 20 - nice. Processes only.
    getpriority(which, who) {
        let process = match (which, who as u32) {
            (0, 0) => current_thread().process.clone(),
            (0, pid) => tree::find(pid).ok_or(ESRCH)?,
            (1 | 2, 0) => current_thread().process.clone(),
            (1 | 2, _) => return Err(ESRCH),
            _ => return Err(EINVAL),
        };
        Ok((20 - process.nice.load(Ordering::Relaxed)) as u64)
    }
}
system_call! {
    /// setpriority(2). Processes only.
    setpriority(which, who, nice) {
        let process = match (which, who as u32) {
            (0, 0) => current_thread().process.clone(),
            (0, pid) => tree::find(pid).ok_or(ESRCH)?,
            (1 | 2, 0) => current_thread().process.clone(),
            (1 | 2, _) => return Err(ESRCH),
            _ => return Err(EINVAL),
        };
        set_nice(&process, nice as i32);
        Ok(0)
    }
}

/// For all its threads; what is beyond Linux's bounds becomes the nearer of them.
pub(super) fn set_nice(process: &Process, nice: i32) {
    let nice = nice.clamp(-20, 19);
    process.nice.store(nice, Ordering::Relaxed);
    let threads = process.threads.lock().clone();
    for thread in threads {
        let _ = task::with(thread.task, |t| t.run.set_nice(nice as i8));
    }
}

system_call! {
    /// rseq(2)
    rseq(area, len, flags, signature) {
        crate::process::restartable::register(area, len as u32, flags as u32, signature as u32)
    }
}

system_call! {
    /// membarrier(2)
    membarrier(command, flags, cpu) {
        const QUERY: u64 = 0;
        const GLOBAL: u64 = 1;
        const GLOBAL_EXPEDITED: u64 = 2;
        const REGISTER_GLOBAL_EXPEDITED: u64 = 4;
        const PRIVATE_EXPEDITED: u64 = 8;
        const REGISTER_PRIVATE_EXPEDITED: u64 = 16;
        const PRIVATE_EXPEDITED_SYNC_CORE: u64 = 32;
        const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: u64 = 64;
        const PRIVATE_EXPEDITED_RSEQ: u64 = 128;
        const REGISTER_PRIVATE_EXPEDITED_RSEQ: u64 = 256;
        const ONE_CPU: u64 = 1;
        if flags != 0 && (command, flags) != (PRIVATE_EXPEDITED_RSEQ, ONE_CPU) {
            return Err(EINVAL);
        }
        let space = current_thread().address_space().ok_or(EFAULT)?;
        match command {
            QUERY => {
                let of_all = if crate::isolation::housekeeping::nohz_full().is_empty() { GLOBAL } else { 0 };
                let private = PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED;
                let sync_core = PRIVATE_EXPEDITED_SYNC_CORE | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
                let rseq = PRIVATE_EXPEDITED_RSEQ | REGISTER_PRIVATE_EXPEDITED_RSEQ;
                Ok(of_all | GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED | private | sync_core | rseq)
            }
            // Every CPU that runs user code passes a full barrier within a grace period; a tracked one need not, and Linux refuses
            // the command too where such CPUs exist.
            GLOBAL if !crate::isolation::housekeeping::nohz_full().is_empty() => Err(EINVAL),
            GLOBAL => {
                crate::rcu::synchronize();
                Ok(0)
            }
            GLOBAL_EXPEDITED => {
                barrier_on(cpus_registered, barrier)?;
                Ok(0)
            }
            REGISTER_GLOBAL_EXPEDITED => {
                space.membarrier.fetch_or(FOR_ALL, Ordering::SeqCst);
                Ok(0)
            }
            REGISTER_PRIVATE_EXPEDITED => {
                space.membarrier.fetch_or(FOR_ITSELF, Ordering::SeqCst);
                Ok(0)
            }
            PRIVATE_EXPEDITED => {
                if space.membarrier.load(Ordering::SeqCst) & FOR_ITSELF == 0 {
                    return Err(EPERM);
                }
                barrier_on(|| cpus_running(space.root()), barrier)?;
                Ok(0)
            }
            REGISTER_PRIVATE_EXPEDITED_SYNC_CORE => {
                space.membarrier.fetch_or(FOR_SYNC_CORE, Ordering::SeqCst);
                Ok(0)
            }
            // Threads in user mode must serialise before their next instruction, so this cannot wait for their next entry. CPUs
            // that run another process, or a kernel thread, load CR3 before they run this one again, and that serialises.
            PRIVATE_EXPEDITED_SYNC_CORE => {
                if space.membarrier.load(Ordering::SeqCst) & FOR_SYNC_CORE == 0 {
                    return Err(EPERM);
                }
                barrier_on(|| cpus_running(space.root()), serialise)?;
                Ok(0)
            }
            REGISTER_PRIVATE_EXPEDITED_RSEQ => {
                space.membarrier.fetch_or(FOR_RSEQ, Ordering::SeqCst);
                Ok(0)
            }
            PRIVATE_EXPEDITED_RSEQ => {
                if space.membarrier.load(Ordering::SeqCst) & FOR_RSEQ == 0 {
                    return Err(EPERM);
                }
                // An int: below 0 it is none.
                let one = u32::try_from(cpu as i32).ok().filter(|_| flags == ONE_CPU);
                let is_meant = |c: &u32| one.is_none_or(|one| *c == one);
                barrier_on(|| cpus_running(space.root()).iter().filter(is_meant).collect(), restart_sequence)?;
                Ok(0)
            }
            _ => Err(EINVAL),
        }
    }
}

/// Bits of `AddressSpace::membarrier`: registered for PRIVATE_EXPEDITED, GLOBAL_EXPEDITED, PRIVATE_EXPEDITED_SYNC_CORE,
/// PRIVATE_EXPEDITED_RSEQ.
const FOR_ITSELF: u32 = 1;
const FOR_ALL: u32 = 2;
const FOR_SYNC_CORE: u32 = 4;
const FOR_RSEQ: u32 = 8;

/// CPUs that run a process which has registered for barriers from strangers. Nobody else may interrupt an isolated CPU so.
fn cpus_registered() -> CpuSet {
    core::sync::atomic::fence(Ordering::SeqCst);
    let mut set = CpuSet::new();
    for process in crate::process::tree::all() {
        let root = process
            .address_space
            .lock()
            .as_ref()
            .filter(|space| space.membarrier.load(Ordering::SeqCst) & FOR_ALL != 0)
            .map(|space| space.root());
        if let Some(root) = root {
            set = set.union(&cpus_running(root));
        }
    }
    set
}

fn barrier(_: usize) {
    core::sync::atomic::fence(Ordering::SeqCst);
}

/// CPUID serialises (SDM vol. 3A, "Serializing Instructions"); SYSRET, by which the caller goes back, does not.
fn serialise(_: usize) {
    core::arch::x86_64::__cpuid(0);
}

/// Whoever is interrupted here starts its restartable sequence anew.
fn restart_sequence(_: usize) {
    core::sync::atomic::fence(Ordering::SeqCst);
    cpu_head::add_exit_work(exit_work::RESTARTABLE);
}

/// `barrier` on the CPUs that `targets` finds and on this one, which stays the same from the search to the end. EBUSY: one is leased.
fn barrier_on(targets: impl FnOnce() -> CpuSet, barrier: fn(usize)) -> Result<(), Errno> {
    let _pin = crate::spin_lock::PreemptOff::new();
    let cpus = targets();
    crate::isolation::lease::permits(&cpus, IpiCause::Membarrier)?;
    core::sync::atomic::fence(Ordering::SeqCst);
    barrier(0);
    crate::smp::call_function::call_many(&cpus, IpiCause::Membarrier, barrier, 0);
    core::sync::atomic::fence(Ordering::SeqCst);
    let _ = current();
    Ok(())
}

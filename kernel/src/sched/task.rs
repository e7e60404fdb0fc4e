//! Tasks: what runs. A task is a kernel thread, the idle task of a CPU, or a thread of a process (`owner`).
//!
//! The table maps a thread id to its task. It is read under RCU and changed seldom; a task leaves it when it ends and is freed
//! a grace period later.

use super::attention::Attention;
use crate::arch::debug_registers::UserBreakpoints;
use crate::arch::fpu::FpuState;
use crate::arch::irq_flag::Pinned;
use crate::arch::segment_base::UserBases;
use crate::isolation::housekeeping;
use crate::mm::failure::{self, Countdown};
use crate::mm::kernel_map;
use crate::mm::stack::KernelStack;
use crate::rcu::RcuHead;
use alloc::sync::Arc;
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use kcore::cpu_set::{CpuSet, MAX_CPUS, SharedCpuSet};
use kcore::pairing_heap::{HeapNode, HeapStore};
use kcore::run_queue::{Class, FIFO_STOP, RunNode, RunStore};
use kcore::task_state::TaskState;
use kcore::tick::TickMask;
use kcore::trace_event::RecordTask;

/// Thread ids are below this, as Linux's default pid_max.
pub const PID_MAX: u32 = 32768;
/// Indices of idle tasks: FIRST_IDLE + CPU.
pub const FIRST_IDLE: u32 = PID_MAX;
const _: () = assert!(FIRST_IDLE == kcore::trace_event::FIRST_IDLE_TASK);
/// In `only_cpu`: bound to no single CPU.
const MANY: u32 = u32::MAX;
const SLOTS: usize = PID_MAX as usize + MAX_CPUS;

/// A counted reference to a task.
pub type TaskRef = Arc<Task>;

/// Who changed where a task may run. It may have ended since, and another task may have its id.
#[derive(Clone, Copy)]
pub struct Mover {
    /// Thread id and name at that time.
    pub task: RecordTask,
    /// From where.
    pub site: &'static Location<'static>,
}

/// One task.
pub struct Task {
    /// Thread id, and its place in the table; idle tasks are beyond PID_MAX.
    pub index: u32,
    /// Running, sleepy, asleep, dead.
    pub state: TaskState,
    /// Its place in a run queue.
    pub run: RunNode,
    /// Its sleep timer's place in a timer queue.
    pub timer: HeapNode,
    /// The CPU whose timer queue holds the timer.
    pub timer_cpu: AtomicU32,
    /// The CPU that it runs on, waits for or ran on last.
    pub cpu: AtomicU32,
    /// Held while the task is put on a queue, or its class or affinity changes: `cpu` is stable meanwhile. In it who changed its place last.
    pub placing: crate::spin_lock::SpinLock<Option<Mover>, { crate::spin_lock::rank::PLACING }>,
    /// Set while a CPU is on its stack.
    pub on_cpu: AtomicBool,
    /// Stack pointer while it does not run.
    pub saved_sp: AtomicU64,
    stack: KernelStack,
    comm: [AtomicU64; 2],
    /// Set once it has asked for CPUs (`allowed`). Else it may run on those that are not isolated, whichever these are.
    asked: AtomicBool,
    allowed: SharedCpuSet,
    /// The one CPU in `allowed`; `MANY` if there are more, or if it has not asked.
    only_cpu: AtomicU32,
    /// CR3 of its address space; the kernel's own of a kernel thread, and of a program that has given its up.
    pub root: AtomicU64,
    /// User FS and GS base while it does not run.
    pub user_bases: UserBases,
    /// FPU state while it does not run; kernel threads have none.
    pub fpu: Option<FpuState>,
    /// The `process::Thread` behind a user task; null for kernel threads.
    pub owner: AtomicPtr<()>,
    /// Keeps what `owner` points to alive as long as the task.
    owner_kept: spin::Once<Arc<dyn Send + Sync>>,
    /// A signal waits: exit work. In the same word whether it is traced, and whether it has been moved.
    pub signal_pending: Attention,
    /// It has registered for restartable sequences (`process::restartable`).
    pub restartable: AtomicBool,
    /// Its breakpoints in the debug registers, loaded while it runs if it is traced.
    pub breakpoints: UserBreakpoints,
    /// The trap flag in its registers is its tracer's doing, not its own.
    pub forced_step: AtomicBool,
    /// Which of its allocations fails.
    pub fail_nth: Countdown,
    /// What it knows of the priority-inheritance lock that it waits for (`priority_futex`).
    pub lock_wait: AtomicU32,
    /// It sleeps until a time of day (`time::wall`).
    pub follows_wall: AtomicBool,
    /// It ends, and has given away the locks that others wait for.
    pub locks_left: AtomicBool,
    /// Tick dependencies of this task.
    pub tick_deps: TickMask,
    /// Time on a CPU.
    pub runtime_ns: AtomicU64,
    /// Kernel threads: what they run.
    entry: Option<fn(usize)>,
    argument: usize,
    rcu: RcuHead,
}

/// The table, as the storage that run queues and timer queues link through.
pub struct Table([AtomicPtr<Task>; SLOTS]);
/// All tasks by index.
pub static TABLE: Table = Table([const { AtomicPtr::new(core::ptr::null_mut()) }; SLOTS]);
/// Id 1 is for the first program alone.
static NEXT: AtomicU32 = AtomicU32::new(2);
/// Ids that stay taken after their task has ended: processes that nobody has waited for.
static HELD: [AtomicU64; PID_MAX as usize / 64] = [const { AtomicU64::new(0) }; PID_MAX as usize / 64];
static LIVE: AtomicU32 = AtomicU32::new(0);

impl Table {
    /// The task at `index`, which is known to be there.
    #[inline]
    pub fn get(&self, index: u32) -> *const Task {
        self.0[index as usize].load(Ordering::Acquire)
    }
}

impl RunStore for Table {
    #[inline]
    fn run_node(&self, id: u32) -> &RunNode {
        // SAFETY: a task in a queue lives.
        unsafe { &(*self.get(id)).run }
    }
}

impl HeapStore for Table {
    #[inline]
    fn heap_node(&self, id: u32) -> &HeapNode {
        // SAFETY: a task with an armed timer lives: it is disarmed before it ends.
        unsafe { &(*self.get(id)).timer }
    }
}

/// Why there is no new task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTaskError {
    /// No thread id is free: EAGAIN.
    NoId,
    /// No memory: ENOMEM.
    NoMemory,
}

impl Task {
    fn build(index: u32, name: &str, entry: Option<fn(usize)>, argument: usize, user: bool) -> Option<Task> {
        let stack = KernelStack::new()?;
        let fpu = if !user {
            None
        } else if failure::strikes() {
            return None;
        } else {
            Some(FpuState::new()?)
        };
        let task = Task {
            index,
            state: TaskState::new_asleep(),
            run: RunNode::new(Class::Fair),
            timer: HeapNode::new(),
            timer_cpu: AtomicU32::new(0),
            cpu: AtomicU32::new(crate::percpu::cpu()),
            placing: crate::spin_lock::SpinLock::new(None),
            on_cpu: AtomicBool::new(false),
            saved_sp: AtomicU64::new(0),
            stack,
            comm: [const { AtomicU64::new(0) }; 2],
            asked: AtomicBool::new(false),
            allowed: SharedCpuSet::new(),
            only_cpu: AtomicU32::new(MANY),
            root: AtomicU64::new(kernel_map::root()),
            user_bases: UserBases::new(),
            fpu,
            owner: AtomicPtr::new(core::ptr::null_mut()),
            owner_kept: spin::Once::new(),
            signal_pending: Attention::new(),
            restartable: AtomicBool::new(false),
            breakpoints: UserBreakpoints::new(),
            forced_step: AtomicBool::new(false),
            fail_nth: Countdown::new(),
            lock_wait: AtomicU32::new(0),
            follows_wall: AtomicBool::new(false),
            locks_left: AtomicBool::new(false),
            tick_deps: TickMask::new(),
            runtime_ns: AtomicU64::new(0),
            entry,
            argument,
            rcu: RcuHead::new(),
        };
        task.set_comm(name.as_bytes());
        Some(task)
    }

    /// Give a new user task its owner, before it is started.
    pub fn set_owner<T: Send + Sync + 'static>(&self, owner: Arc<T>) {
        self.owner.store(Arc::as_ptr(&owner) as *mut (), Ordering::Release);
        self.owner_kept.call_once(|| owner);
    }

    /// Top of the kernel stack.
    #[inline]
    pub fn stack_top(&self) -> u64 {
        self.stack.top()
    }

    /// Thread id as users see it: 0 for idle tasks.
    #[inline]
    pub fn tid(&self) -> u32 {
        if self.index >= FIRST_IDLE { 0 } else { self.index }
    }

    /// Its thread id and name.
    pub fn named(&self) -> RecordTask {
        RecordTask { id: self.tid(), comm: self.comm() }
    }

    /// Name, at most 15 bytes, zero-padded.
    pub fn comm(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.comm[0].load(Ordering::Relaxed).to_le_bytes());
        out[8..].copy_from_slice(&self.comm[1].load(Ordering::Relaxed).to_le_bytes());
        out
    }

    /// Set the name; longer ones are cut as in Linux.
    pub fn set_comm(&self, name: &[u8]) {
        let mut padded = [0u8; 16];
        let n = name.len().min(15);
        padded[..n].copy_from_slice(&name[..n]);
        let word = |i: usize| u64::from_le_bytes(padded[i..i + 8].try_into().expect("8 bytes"));
        self.comm[0].store(word(0), Ordering::Relaxed);
        self.comm[1].store(word(8), Ordering::Relaxed);
    }

    /// Where it may run.
    pub fn allowed(&self) -> CpuSet {
        self.asked_for().unwrap_or_else(housekeeping::kernel_noise)
    }

    /// The CPUs that it asked for, if it did.
    pub fn asked_for(&self) -> Option<CpuSet> {
        self.asked.load(Ordering::Acquire).then(|| self.allowed.load())
    }

    /// Whether it may run on `cpu`.
    #[inline]
    pub fn may_run_on(&self, cpu: u32) -> bool {
        if !self.asked.load(Ordering::Acquire) {
            return !housekeeping::is_isolated(cpu);
        }
        self.allowed.contains(cpu)
    }

    /// It asks for `set`. See `sched::set_affinity`, which also moves it.
    pub fn set_allowed(&self, set: &CpuSet) {
        self.allowed.store(set);
        let mut cpus = set.iter();
        let only = cpus.next().filter(|_| cpus.next().is_none());
        self.only_cpu.store(only.unwrap_or(MANY), Ordering::Relaxed);
        self.asked.store(true, Ordering::Release);
    }

    /// As if it had never asked. See `sched::take_away`, which also moves it.
    pub fn forget_allowed(&self) {
        self.asked.store(false, Ordering::Release);
        self.only_cpu.store(MANY, Ordering::Relaxed);
    }

    /// A new task asks for what `parent` asked for. With interrupts off: a flip (`isolation::live`) waits for who read it before.
    pub fn inherit_allowed(&self, parent: &Task) {
        if let Some(set) = parent.asked_for() {
            self.set_allowed(&set);
        }
    }

    /// The CPU to which it is bound, if there is one.
    #[inline]
    pub fn only_cpu(&self) -> Option<u32> {
        Some(self.only_cpu.load(Ordering::Relaxed)).filter(|&cpu| cpu != MANY)
    }
}

/// Printable form of a comm.
pub fn comm_str(comm: &[u8; 16]) -> &str {
    let n = comm.iter().position(|&b| b == 0).unwrap_or(16);
    core::str::from_utf8(&comm[..n]).unwrap_or("?")
}

/// A comm as the value of a field: blanks would end it.
pub fn comm_field(comm: &[u8; 16]) -> alloc::string::String {
    comm_str(comm).chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect()
}

/// Keep `id` from being given to a new task.
pub fn hold_id(id: u32) {
    HELD[id as usize / 64].fetch_or(1 << (id % 64), Ordering::Relaxed);
}

/// Undo `hold_id`.
pub fn drop_id(id: u32) {
    HELD[id as usize / 64].fetch_and(!(1 << (id % 64)), Ordering::Relaxed);
}

fn is_free(id: u32) -> bool {
    TABLE.0[id as usize].load(Ordering::Relaxed).is_null()
        && HELD[id as usize / 64].load(Ordering::Relaxed) >> (id % 64) & 1 == 0
}

/// Take a free id and publish the task that `build` makes for it. Ids rise and wrap, as in Linux.
fn insert(wanted: Option<u32>, build: impl FnOnce(u32) -> Option<Task>) -> Result<TaskRef, NewTaskError> {
    /// Marks a slot as taken while its task is being built; readers see no task there.
    static INSERTING: crate::spin_lock::SpinLock<(), { crate::spin_lock::rank::RCU }> =
        crate::spin_lock::SpinLock::new(());
    let serial = INSERTING.lock();
    let start = NEXT.load(Ordering::Relaxed);
    let index = match wanted {
        Some(id) => Some(id).filter(|&i| is_free(i)),
        None => (0..PID_MAX - 2).map(|i| 2 + (start - 2 + i) % (PID_MAX - 2)).find(|&i| is_free(i)),
    };
    let index = index.ok_or(NewTaskError::NoId)?;
    let task = Arc::new(build(index).ok_or(NewTaskError::NoMemory)?);
    TABLE.0[index as usize].store(Arc::into_raw(task.clone()) as *mut Task, Ordering::Release);
    if wanted.is_none() {
        NEXT.store(if index + 1 < PID_MAX { index + 1 } else { 2 }, Ordering::Relaxed);
    }
    LIVE.fetch_add(1, Ordering::Relaxed);
    drop(serial);
    Ok(task)
}

/// A new user task that sleeps until `sched::start`. Its stack is for `switch::prepare_user`.
pub fn new_user(name: &[u8]) -> Result<TaskRef, NewTaskError> {
    let name = core::str::from_utf8(name).unwrap_or("?");
    insert(None, |index| Task::build(index, name, None, 0, true))
}

/// The first program's task: id 1.
pub fn new_first(name: &str) -> Result<TaskRef, NewTaskError> {
    insert(Some(1), |index| Task::build(index, name, None, 0, true))
}

/// A kernel thread named `name` that runs `entry(argument)` wherever nothing is isolated; it starts at once.
pub fn spawn_kthread(name: &str, entry: fn(usize), argument: usize) -> Result<TaskRef, NewTaskError> {
    let task = new_kthread(name, entry, argument)?;
    super::start(&task);
    Ok(task)
}

/// A kernel thread for CPU `cpu` alone, and before every program there; it sleeps until `sched::start`.
pub fn new_stopper(name: &str, cpu: u32, entry: fn(usize), argument: usize) -> Result<TaskRef, NewTaskError> {
    let task = new_kthread(name, entry, argument)?;
    task.set_allowed(&CpuSet::single(cpu));
    task.run.set_class(Class::Fifo(FIFO_STOP));
    Ok(task)
}

fn new_kthread(name: &str, entry: fn(usize), argument: usize) -> Result<TaskRef, NewTaskError> {
    let task = insert(None, |index| Task::build(index, name, Some(entry), argument, false))?;
    super::switch::prepare_kthread(&task);
    Ok(task)
}

/// The idle task of CPU `cpu`; the running context becomes it (`sched::init_cpu`).
pub fn new_idle(cpu: u32) -> Option<TaskRef> {
    let task = Task::build(FIRST_IDLE + cpu, "idle", None, 0, false)?;
    let _ = task.state.wake(false);
    task.set_allowed(&CpuSet::single(cpu));
    Some(Arc::new(task))
}

/// Put an idle task into the table, for good.
pub fn keep_idle(task: TaskRef) {
    let index = task.index as usize;
    TABLE.0[index].store(Arc::into_raw(task) as *mut Task, Ordering::Release);
}

/// What a kernel thread runs.
pub fn kthread_main() -> ! {
    let task = super::current();
    if let Some(entry) = task.entry {
        entry(task.argument);
    }
    super::exit_current()
}

/// The task with this index (thread id), if it lives.
pub fn by_index(index: u32) -> Option<TaskRef> {
    let _reader = crate::rcu::read();
    let p = TABLE.0.get(index as usize)?.load(Ordering::Acquire);
    if p.is_null() {
        return None;
    }
    // SAFETY: 1. the table held a count when it was read; 2. that count is dropped a grace period after the slot is
    // cleared, and this is a reader.
    unsafe {
        Arc::increment_strong_count(p);
        Some(Arc::from_raw(p))
    }
}

/// Call `f` with the task that has this index, if it lives. Any context but NMI; `f` does not sleep.
#[inline]
pub fn with<R>(index: u32, f: impl FnOnce(&Task) -> R) -> Option<R> {
    with_pinned(index, &crate::rcu::read(), f)
}

/// `with` for who stays on this CPU anyway: it is a reader as long as it does.
#[inline]
pub fn with_pinned<R>(index: u32, _: &impl Pinned, f: impl FnOnce(&Task) -> R) -> Option<R> {
    let p = TABLE.0.get(index as usize)?.load(Ordering::Acquire);
    // SAFETY: as in `by_index`; the reader lasts until `f` returns.
    unsafe { p.as_ref() }.map(f)
}

/// All live tasks but the idle ones, by rising id.
pub fn all() -> impl Iterator<Item = TaskRef> {
    (1..PID_MAX).filter_map(by_index)
}

/// Call `f` with each live task but the idle ones, by rising id; it does not sleep.
pub fn each(mut f: impl FnMut(&Task)) {
    (1..PID_MAX).for_each(|index| {
        let _ = with(index, &mut f);
    });
}

/// The id that was given last.
pub fn last_id() -> u32 {
    NEXT.load(Ordering::Relaxed) - 1
}

/// Live tasks, idle ones apart.
pub fn count() -> u32 {
    LIVE.load(Ordering::Relaxed)
}

/// Take an ended task that has left its CPU out of the table; the table's count goes after a grace period.
pub fn release(task: &Task) {
    let p = TABLE.0[task.index as usize].swap(core::ptr::null_mut(), Ordering::AcqRel);
    LIVE.fetch_sub(1, Ordering::Relaxed);
    if !p.is_null() {
        // SAFETY: the table's count, which was just taken out.
        crate::rcu::deferred_free::free_rcu_head(unsafe { Arc::from_raw(p as *const Task) });
    }
}

// SAFETY: it is there, and only `release` gives a task to be freed, once.
unsafe impl crate::rcu::deferred_free::Headed for Task {
    const HEAD: usize = core::mem::offset_of!(Task, rcu);
}

//! torture: the kernel's protocols under random load, found wanting if anything that they promise does not hold.
//!
//! `rcu`: readers on every CPU look at objects that updaters replace and poison after a grace period of any kind, by any way to wait for one.
//! `srcu`: the same with readers that sleep with an object in hand, and move.
//! `ctx`: every CPU goes to and fro between user mode, idle and kernel, and reads kernel memory that moves meanwhile.
//! `keys`: trace points are switched while every CPU runs through them.
//! `isolate`: CPUs are isolated and come back, at random, under all of the above. NMIs, short timers and forks disturb each.
//! `lease`: leases are asked for while CPUs are isolated and come back: whoever holds one is left alone, and its CPU stays isolated.
//! The same seed does the same under the instruction clock.

use super::busy;
use crate::entry::{Args, Failure, Outcome};
use crate::isolation_state::{self, IsolationState};
use crate::linux::{self, Fork, SharedPage};
use crate::output::write_out;
use crate::{cpu_list, duration, kernel_file};
use kcore::lease::State;
use kcore::lease_page::Contents;
use std::sync::atomic::Ordering;

const USAGE: &str = "usage: torture rcu|srcu|ctx|keys|isolate|lease SECONDS SEED";
const DEBUG: &str = "/sys/kernel/quiesce/debug";
/// Places in the page that the workers share.
const OPERATIONS: usize = 0;
const FAILURES: usize = 1;
const LEASES: usize = 2;
const FLIPS: usize = 3;
const REFUSED_FLIPS: usize = 4;
const LATE_NMIS: usize = 5;

/// A worker's state.
struct Worker {
    page: &'static SharedPage,
    random: u64,
    end_ns: u64,
    cpus: u32,
    /// The CPU that it asks for, if it does.
    cpu: Option<u32>,
    /// The highest number seen in the kernel's page.
    seen: u64,
    /// CPUs that it has isolated.
    isolated: Vec<u32>,
}

type Round = fn(&mut Worker) -> Result<(), String>;

/// `torture rcu|srcu|ctx|keys|isolate|lease SECONDS SEED`: prints operations and failures; fails if there is one, or if nothing was done.
pub fn main(args: &Args) -> Outcome {
    let [kind, seconds, seed] = args.rest() else { return Err(Failure::usage(USAGE)) };
    let ns = duration::parse_seconds(seconds).map_err(Failure::usage)?;
    let seed: u64 = seed.parse().map_err(|_| Failure::usage(USAGE))?;
    let (on_each, once): (Option<Round>, &[Round]) = match kind.as_str() {
        "rcu" => (Some(read_objects), &[read_objects, update_objects, update_objects, disturb]),
        "srcu" => (Some(read_srcu), &[read_srcu, read_srcu, update_srcu, update_srcu, disturb]),
        "ctx" => (Some(come_and_go), &[move_memory, disturb, disturb]),
        "keys" => (Some(run_through), &[flip, disturb]),
        "isolate" => (Some(do_anything), &[isolate, update_objects, move_memory, flip, disturb, come_and_go, spin_on]),
        // Nobody is bound to a CPU but who asks for a lease of it, and NMIs would break it.
        "lease" => (None, &[hold, hold, isolate_unless_leased, isolate_unless_leased, run_through, move_memory]),
        _ => return Err(Failure::usage(USAGE)),
    };
    let online = cpu_list::parse(&kernel_file::read("/sys/devices/system/cpu/online")?).map_err(Failure::new)?;
    let page = linux::shared_page().map_err(|e| Failure::new(format!("shared memory: {e}")))?;
    let before = objects(kind)?;
    let end_ns = linux::monotonic_ns() + ns;
    let mut children = Vec::new();
    let bound = on_each.iter().flat_map(|&round| online.iter().map(move |&cpu| (Some(cpu), round)));
    let workers = bound.chain(once.iter().map(|&round| (None, round)));
    for (number, (cpu, round)) in workers.enumerate() {
        // Neither seed nor number may be 0 for the generator.
        let random =
            (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let cpus = online.len() as u32;
        let worker = Worker { page, random: random | 1, end_ns, cpus, cpu, seen: 0, isolated: Vec::new() };
        match linux::fork().map_err(|e| Failure::new(format!("fork: {e}")))? {
            Fork::Child => linux::exit_now(work(worker, round)),
            Fork::Parent(pid) => children.push(pid),
        }
    }
    for pid in children {
        let ended = linux::wait_for(pid).map_err(|e| Failure::new(format!("wait: {e}")))?;
        if ended.status() != 0 {
            page[FAILURES].fetch_add(1, Ordering::Relaxed);
        }
    }
    let flips = matches!(kind.as_str(), "isolate" | "lease");
    if flips {
        online.iter().try_for_each(|cpu| write(ISOLATE, &format!("{cpu} off"))).map_err(Failure::new)?;
    }
    let after = objects(kind)?;
    let [reads, updates, used_freed, lost, illegal] = std::array::from_fn(|i| after[i].wrapping_sub(before[i]));
    let operations = page[OPERATIONS].load(Ordering::Relaxed);
    let failures = page[FAILURES].load(Ordering::Relaxed) + used_freed + lost + illegal;
    let has_objects = matches!(kind.as_str(), "rcu" | "srcu" | "isolate");
    let [leases, flips, refused] = [LEASES, FLIPS, REFUSED_FLIPS].map(|place| page[place].load(Ordering::Relaxed));
    let objects = match kind.as_str() {
        _ if has_objects => format!(", {reads} reads, {updates} updates"),
        "lease" => format!(", {leases} leases, {flips} flips, {refused} flips refused for a lease"),
        _ => String::new(),
    };
    let late = match page[LATE_NMIS].load(Ordering::Relaxed) {
        0 => String::new(),
        late => format!(", {late} NMIs answered late"),
    };
    write_out(
        format!("torture {kind}: seed {seed}: {operations} operations{objects}{late}, {failures} failures\n")
            .as_bytes(),
    );
    let no_contest = kind == "lease" && (leases == 0 || flips == 0);
    let idle = operations == 0 || has_objects && (reads == 0 || updates == 0) || no_contest;
    if failures != 0 || idle { Err(Failure::new("torture failed")) } else { Ok(0) }
}

/// Reads, updates, uses of freed objects and objects never freed so far, and illegal transitions of a context word.
fn objects(kind: &str) -> Result<[u64; 5], Failure> {
    let prefix = if kind == "srcu" { "srcu_" } else { "" };
    let text = kernel_file::read(&format!("{DEBUG}/torture"))?;
    let number = |key: &str| {
        let word = text.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        word.and_then(|w| w.parse().ok()).ok_or_else(|| Failure::new(format!("debug/torture has no {key}: {text:?}")))
    };
    let of_kind = |key: &str| number(&format!("{prefix}{key}"));
    Ok([of_kind("reads")?, of_kind("updates")?, of_kind("failures")?, of_kind("lost")?, number("illegal")?])
}

fn work(mut worker: Worker, round: Round) -> u8 {
    if let Some(cpu) = worker.cpu
        && linux::set_affinity(&[cpu]).is_err()
    {
        return 1;
    }
    while linux::monotonic_ns() < worker.end_ns {
        if let Err(error) = round(&mut worker) {
            write_out(format!("torture: {error}\n").as_bytes());
            return 1;
        }
        worker.page[OPERATIONS].fetch_add(1, Ordering::Relaxed);
    }
    0
}

impl Worker {
    /// A number below `limit`; xorshift64.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % limit
    }

    fn sleep(&mut self) {
        let ns = self.below(300_000);
        linux::sleep_ns(ns);
    }

    fn spin(&mut self) {
        (0..self.below(20_000)).for_each(|i| {
            std::hint::black_box(i);
        });
    }
}

fn write(file: &str, text: &str) -> Result<(), String> {
    kernel_file::write(file, text).map_err(|failure| failure.text)
}

fn lever(name: &str, text: &str) -> Result<(), String> {
    write(&format!("{DEBUG}/{name}"), text)
}

fn read_objects(worker: &mut Worker) -> Result<(), String> {
    let seed = worker.below(u64::MAX);
    lever("torture_read", &format!("10 {seed}"))?;
    match worker.below(3) {
        0 => worker.sleep(),
        1 => worker.spin(),
        _ => {}
    }
    Ok(())
}

fn update_objects(worker: &mut Worker) -> Result<(), String> {
    let seed = worker.below(u64::MAX);
    lever("torture_update", &format!("10 {seed}"))
}

fn read_srcu(worker: &mut Worker) -> Result<(), String> {
    let seed = worker.below(u64::MAX);
    lever("torture_srcu_read", &format!("10 {seed}"))?;
    if worker.cpu.is_none() {
        let cpu = worker.below(worker.cpus as u64) as u32;
        linux::set_affinity(&[cpu]).map_err(|error| format!("affinity to CPU {cpu}: {error}"))?;
    }
    Ok(())
}

fn update_srcu(worker: &mut Worker) -> Result<(), String> {
    let seed = worker.below(u64::MAX);
    lever("torture_srcu_update", &format!("10 {seed}"))
}

fn disturb(worker: &mut Worker) -> Result<(), String> {
    match worker.below(8) {
        0 => busy::fork_exit(),
        1 => {
            let cpu = worker.below(worker.cpus as u64);
            let file = kernel_file::open(&format!("{DEBUG}/nmi"), libc::O_WRONLY).map_err(|failure| failure.text)?;
            // It is answered, later, by a CPU that the host has put aside.
            let answered =
                unless(libc::EAGAIN, file.write(&cpu.to_string())).map_err(|e| format!("NMI to {cpu}: {e}"))?;
            worker.page[LATE_NMIS].fetch_add(u64::from(!answered), Ordering::Relaxed);
            Ok(())
        }
        2 => lever("sync_text", "1"),
        3 => lever("kernel_page_move", "1"),
        _ => {
            worker.sleep();
            Ok(())
        }
    }
}

fn come_and_go(worker: &mut Worker) -> Result<(), String> {
    match worker.below(4) {
        0 => worker.sleep(),
        1 => worker.spin(),
        _ => {
            let text = kernel_file::read_quiesce("debug/kernel_page").map_err(|failure| failure.text)?;
            let now: u64 = text.trim().parse().map_err(|_| format!("kernel page: {text:?}"))?;
            // The number only rises; what a stale translation shows is older, or the poison, after which all is older.
            if now < worker.seen || now > u32::MAX as u64 {
                return Err(format!("kernel page: {now:#x} after {:#x}", worker.seen));
            }
            worker.seen = now;
        }
    }
    Ok(())
}

fn move_memory(worker: &mut Worker) -> Result<(), String> {
    let times = 1 + worker.below(4);
    lever("kernel_page_move", &times.to_string())?;
    worker.sleep();
    Ok(())
}

fn run_through(worker: &mut Worker) -> Result<(), String> {
    match worker.below(4) {
        0 => worker.sleep(),
        1 => worker.spin(),
        2 => busy::pipe_child()?,
        _ => (0..50).for_each(|_| {
            linux::process_group();
        }),
    }
    Ok(())
}

/// On a CPU that comes and goes: it is moved away when its CPU is isolated, and asks for it again.
fn do_anything(worker: &mut Worker) -> Result<(), String> {
    if let Some(cpu) = worker.cpu.filter(|_| worker.below(4) == 0) {
        linux::set_affinity(&[cpu]).map_err(|error| format!("affinity to CPU {cpu}: {error}"))?;
    }
    match worker.below(8) {
        0 => read_objects(worker),
        1 => busy::fork_exit(),
        2 | 3 => run_through(worker),
        _ => come_and_go(worker),
    }
}

/// Bound to no CPU, and never in the kernel by itself.
fn spin_on(worker: &mut Worker) -> Result<(), String> {
    (0..16).for_each(|_| worker.spin());
    Ok(())
}

const ISOLATE: &str = "/sys/kernel/quiesce/isolate";

/// One CPU becomes another one. What the kernel says of it afterwards must be what was asked for, and who did not ask for an isolated CPU
/// must be gone from there.
fn isolate(worker: &mut Worker) -> Result<(), String> {
    let cpu = worker.below(worker.cpus as u64) as u32;
    let wish = ["off", "on", "on keep"][worker.below(3) as usize];
    let on = wish != "off";
    let others = (0..worker.cpus).filter(|other| *other != cpu && !worker.isolated.contains(other)).count();
    let told = write(ISOLATE, &format!("{cpu} {wish}"));
    if told.is_err() != (on && others == 0) {
        return Err(format!("CPU {cpu} {wish} with {others} other CPUs for housekeeping: {told:?}"));
    }
    if told.is_ok() {
        worker.isolated.retain(|isolated| *isolated != cpu);
        worker.isolated.extend(on.then_some(cpu));
        worker.isolated.sort_unstable();
    }
    let text = kernel_file::read(ISOLATE).map_err(|failure| failure.text)?;
    let unasked = |line: &str| line.starts_with("left ") && line.contains(" asked=0");
    if let Some(line) = text.lines().find(|line| unasked(line)) {
        return Err(format!("after CPU {cpu} {wish}: {line}"));
    }
    let states = isolation_state::parse(&text)?;
    let wrong = |state: &&IsolationState| {
        let wanted = worker.isolated.contains(&state.cpu);
        (state.isolated, state.tracked) != (wanted, wanted)
    };
    if let Some(state) = states.iter().find(wrong) {
        return Err(format!("after CPU {cpu} {wish}: {state:?}"));
    }
    let list = kernel_file::read("/sys/devices/system/cpu/nohz_full").map_err(|failure| failure.text)?;
    if cpu_list::parse(&list)? != worker.isolated {
        return Err(format!("after CPU {cpu} {wish}: nohz_full is {list:?}"));
    }
    worker.sleep();
    Ok(())
}

/// EBUSY, which is no failure here, as `false`.
fn unless_busy(done: std::io::Result<()>) -> Result<bool, String> {
    unless(libc::EBUSY, done)
}

/// Error `number`, which is no failure here, as `false`.
fn unless(number: i32, done: std::io::Result<()>) -> Result<bool, String> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(number) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// A CPU but the first is isolated or comes back, unless somebody holds a lease of it.
fn isolate_unless_leased(worker: &mut Worker) -> Result<(), String> {
    let cpu = 1 + worker.below(worker.cpus as u64 - 1);
    let wish = ["off", "on", "on", "on keep"][worker.below(4) as usize];
    let file = kernel_file::open(ISOLATE, libc::O_WRONLY).map_err(|failure| failure.text)?;
    let done = unless_busy(file.write(&format!("{cpu} {wish}"))).map_err(|e| format!("CPU {cpu} {wish}: {e}"))?;
    worker.page[if done { FLIPS } else { REFUSED_FLIPS }].fetch_add(1, Ordering::Relaxed);
    worker.sleep();
    Ok(())
}

/// A lease of some CPU, if it is granted: as long as it is held nothing enters the CPU, and it stays isolated.
fn hold(worker: &mut Worker) -> Result<(), String> {
    let cpu = 1 + worker.below(worker.cpus as u64 - 1) as u32;
    let text = |failure: crate::entry::Failure| failure.text;
    let file = kernel_file::open("/sys/kernel/quiesce/lease", libc::O_RDWR).map_err(text)?;
    let page = file.lease_page(cpu).map_err(|error| format!("the lease's page: {error}"))?;
    if !unless_busy(linux::set_affinity(&[cpu])).map_err(|error| format!("affinity to CPU {cpu}: {error}"))? {
        return Ok(());
    }
    let granted = unless_busy(file.write("on")).map_err(|error| format!("lease of CPU {cpu}: {error}"))?;
    if granted {
        worker.page[LEASES].fetch_add(1, Ordering::Relaxed);
        (0..4).for_each(|_| worker.spin());
        let list = kernel_file::read("/sys/devices/system/cpu/nohz_full").map_err(text)?;
        let contents = page.read().as_ref().and_then(Contents::decode);
        if !cpu_list::parse(&list)?.contains(&cpu) {
            return Err(format!("CPU {cpu} is leased and not isolated: nohz_full is {list:?}"));
        }
        if !contents.is_some_and(|c| c.state == State::Granted && c.breaches == 0) {
            return Err(format!("the lease of CPU {cpu} does not hold: {contents:?}"));
        }
        file.write("off").map_err(|error| format!("end of the lease of CPU {cpu}: {error}"))?;
    }
    // Bound to none again, so that others may have a lease there.
    let all: Vec<u32> = (0..worker.cpus).collect();
    linux::set_affinity(&all).map_err(|error| format!("affinity to all CPUs: {error}"))?;
    worker.sleep();
    Ok(())
}

/// The events whose keys are switched.
const EVENTS: [&str; 3] = ["sched", "timer", "ipi"];

fn flip(worker: &mut Worker) -> Result<(), String> {
    const FILE: &str = "/sys/kernel/tracing/set_event";
    let event = EVENTS[worker.below(EVENTS.len() as u64) as usize];
    let on = worker.below(2) == 0;
    write(FILE, &if on { event.to_string() } else { format!("!{event}") })?;
    let chosen = kernel_file::read(FILE).map_err(|failure| failure.text)?;
    let is_on = chosen.lines().any(|line| line.starts_with(event));
    if is_on != on {
        return Err(format!("{event} is {is_on} and not {on}: {chosen:?}"));
    }
    Ok(())
}

//! lease: takes a lease of an isolated CPU, spins there, and tells what entered it meanwhile, from user memory.
//!
//! Protocol, so that the leased CPU makes no system call and no fault by itself:
//! 1. the parent goes to a housekeeping CPU; the child is forked, pins itself, maps the lease's page, looks at all that it uses later,
//!    takes the lease and writes HELD to a page that both share;
//! 2. the child spins: it reads the number of breaches from the lease's page and writes what it saw to the shared one;
//! 3. the parent, which has mapped the lease's page too, waits for the time to pass or for so many breaches, and writes EXIT.

use crate::entry::{Args, Failure, Outcome};
use crate::kernel_file::{self, KernelFile};
use crate::linux::{self, Ended, Fork, Pid, SharedPage, Wait};
use crate::output::{describe, write_out};
use crate::program::spin::{ns_of, ticks_of, tsc_khz};
use crate::{cpu_list, duration, signal_name};
use core::ffi::c_int;
use kcore::lease::State;
use kcore::lease_page::{Contents, LeasePage};
use std::sync::atomic::{AtomicU64, Ordering};

const USAGE: &str = "usage: lease -c CPU [-s SECONDS | --breaches N] [--signal N | --kill] [--own] [--once] [--inject-ipi] [--pester] \
                     [--stay MS] [--end exit|off|affinity|exec|fork]";
/// Where a lease is asked for.
const FILE: &str = "/sys/kernel/quiesce/lease";

/// Levers: a call that lasts, and work for every CPU that can be left for it.
const LONG_CALL: &str = "/sys/kernel/quiesce/debug/rcu_stall";
const CHANGE_TEXT: &str = "/sys/kernel/quiesce/debug/sync_text";

/// membarrier(2)'s commands: every CPU that runs a registered program.
const GLOBAL_EXPEDITED: c_int = 2;
const REGISTER_GLOBAL_EXPEDITED: c_int = 4;

/// Stages of the shared page's first word.
mod stage {
    pub const FAILED: u64 = 1;
    pub const HELD: u64 = 2;
    pub const EXIT: u64 = 3;
    /// About to make its long call.
    pub const STAYS: u64 = 4;
}

/// Signals that the child got.
static SIGNALS: AtomicU64 = AtomicU64::new(0);

struct Options {
    cpu: u32,
    ns: u64,
    /// Ends at so many breaches instead.
    breaches: Option<u64>,
    signal: Option<c_int>,
    /// What is written to the file.
    request: String,
    inject: bool,
    /// Try what others may not do to a leased CPU.
    pester: bool,
    /// Before its end the child makes one call that lasts so many milliseconds, and its parent changes kernel text meanwhile.
    stay_ms: u32,
    end: End,
}

/// How the child ends its lease.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Exit,
    Off,
    Affinity,
    Exec,
    /// By its exit, after a fork that is refused.
    Fork,
}

/// What parent and child share.
#[derive(Clone, Copy)]
struct Shared(&'static SharedPage);

impl Shared {
    fn stage(self) -> &'static AtomicU64 {
        &self.0[0]
    }
    fn failure(self) -> &'static AtomicU64 {
        &self.0[1]
    }
    fn seen(self) -> &'static AtomicU64 {
        &self.0[2]
    }
    fn signals(self) -> &'static AtomicU64 {
        &self.0[3]
    }
}

/// `lease -c CPU …`.
pub fn main(args: &Args) -> Outcome {
    let options = options(args.rest())?;
    let khz = tsc_khz()?;
    let file = kernel_file::open(FILE, libc::O_RDWR)?;
    let page = page_of(&file, options.cpu)?;
    let home = home(options.cpu)?;
    linux::set_affinity(&[home]).map_err(|error| Failure::new(format!("move to CPU {home}: {}", describe(&error))))?;
    let shared = Shared(linux::shared_page().map_err(|error| Failure::new(describe(&error)))?);
    let before = contents(page).number;
    let child = match linux::fork().map_err(|error| Failure::new(format!("fork: {}", describe(&error))))? {
        Fork::Child => {
            linux::die_with_parent();
            hold(&options, &file, shared);
            linux::exit_now(0)
        }
        Fork::Parent(pid) => pid,
    };
    let how = observe(&options, &file, page, shared, child, khz)?;
    tell(&options, page, shared, how, khz, before)
}

fn options(mut words: &[String]) -> Result<Options, Failure> {
    let (mut cpu, mut ns, mut breaches, mut signal, mut stay_ms) = (None, 1_000_000_000, None, None, 0);
    let (mut kill, mut own, mut once, mut inject, mut pester, mut end) = (false, false, false, false, false, End::Exit);
    while let Some((word, rest)) = words.split_first() {
        words = rest;
        match word.as_str() {
            "--kill" => kill = true,
            "--own" => own = true,
            "--once" => once = true,
            "--inject-ipi" => inject = true,
            "--pester" => pester = true,
            "-c" | "-s" | "--breaches" | "--signal" | "--stay" | "--end" => {
                let Some((value, rest)) = words.split_first() else {
                    return Err(Failure::usage(format!("{word} needs a value ({USAGE})")));
                };
                words = rest;
                let bad = || Failure::usage(format!("{word} {value}: not a number in range ({USAGE})"));
                match word.as_str() {
                    "-c" => cpu = Some(cpu_list::parse_cpu(value).map_err(Failure::usage)?),
                    "-s" => ns = duration::parse_seconds(value).map_err(Failure::usage)?,
                    "--breaches" => breaches = Some(value.parse().ok().filter(|&n: &u64| n > 0).ok_or_else(bad)?),
                    "--signal" => signal = Some(value.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(bad)?),
                    "--stay" => stay_ms = value.parse().map_err(|_| bad())?,
                    _ => end = parse_end(value)?,
                }
            }
            _ => return Err(Failure::usage(format!("unknown argument {word} ({USAGE})"))),
        }
    }
    let cpu = cpu.ok_or_else(|| Failure::usage(USAGE))?;
    let mut request = match (signal, kill) {
        (Some(_), true) => return Err(Failure::usage(format!("--signal or --kill ({USAGE})"))),
        (Some(number), false) => format!("on signal {number}"),
        (None, true) => "on kill".to_string(),
        (None, false) => "on log".to_string(),
    };
    request.push_str(if own { " own" } else { "" });
    request.push_str(if once { " once" } else { "" });
    Ok(Options { cpu, ns, breaches, signal, request, inject, pester, stay_ms, end })
}

fn parse_end(value: &str) -> Result<End, Failure> {
    match value {
        "exit" => Ok(End::Exit),
        "off" => Ok(End::Off),
        "affinity" => Ok(End::Affinity),
        "exec" => Ok(End::Exec),
        "fork" => Ok(End::Fork),
        _ => Err(Failure::usage(format!("--end {value}: exit, off, affinity, exec or fork"))),
    }
}

fn page_of(file: &KernelFile, cpu: u32) -> Result<&'static LeasePage, Failure> {
    file.lease_page(cpu).map_err(|error| Failure::new(format!("no CPU {cpu}: {}", describe(&error))))
}

/// A CPU for the parent: the first that the kernel does not isolate.
fn home(cpu: u32) -> Result<u32, Failure> {
    let of = |list: &str| kernel_file::read(&format!("/sys/devices/system/cpu/{list}"));
    let parse = |text: String| cpu_list::parse(&text).unwrap_or_default();
    let online = parse(of("online")?);
    let taken: Vec<u32> = ["isolated", "nohz_full"].into_iter().filter_map(|l| of(l).ok()).flat_map(parse).collect();
    Ok(online.into_iter().find(|c| *c != cpu && !taken.contains(c)).unwrap_or(cpu))
}

fn contents(page: &LeasePage) -> Contents {
    loop {
        if let Some(contents) = page.read().as_ref().and_then(Contents::decode) {
            return contents;
        }
    }
}

extern "C" fn count_signal(_: c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// The child's life.
fn hold(options: &Options, file: &KernelFile, shared: Shared) {
    if let Err(error) = take(options, file, shared) {
        shared.failure().store(error.raw_os_error().unwrap_or(0) as u64, Ordering::Relaxed);
        shared.stage().store(stage::FAILED, Ordering::Release);
        return;
    }
    if options.stay_ms > 0 {
        shared.stage().store(stage::STAYS, Ordering::Release);
        if kernel_file::write(LONG_CALL, &options.stay_ms.to_string()).is_err() {
            linux::exit_now(3);
        }
    }
    let ended = match options.end {
        End::Exit => Ok(()),
        End::Off => file.write("off"),
        End::Affinity => linux::set_affinity(&[options.cpu, home(options.cpu).unwrap_or(options.cpu)]),
        End::Exec => Err(linux::exec_search(&["true".to_string()])),
        End::Fork => match linux::fork() {
            Ok(Fork::Child) => linux::exit_now(0),
            Ok(Fork::Parent(_)) => linux::exit_now(2),
            Err(_) => Ok(()),
        },
    };
    if ended.is_err() {
        linux::exit_now(1);
    }
}

fn take(options: &Options, file: &KernelFile, shared: Shared) -> std::io::Result<()> {
    linux::set_affinity(&[options.cpu])?;
    if let Some(signal) = options.signal {
        linux::set_signal(signal, linux::Disposition::Call(count_signal))?;
    }
    let page = file.lease_page(options.cpu)?;
    if options.pester {
        linux::membarrier(REGISTER_GLOBAL_EXPEDITED)?;
    }
    // One round of the same code, so that the real one faults nothing in.
    spin(page, shared, 0);
    file.write(&options.request)?;
    shared.stage().store(stage::HELD, Ordering::Release);
    spin(page, shared, stage::EXIT);
    Ok(())
}

/// Until the parent has come to `stage`: look at the lease's page and tell what it says. Never inlined: both rounds run the same code.
#[inline(never)]
fn spin(page: &LeasePage, shared: Shared, stage: u64) {
    loop {
        shared.seen().store(page.breaches(), Ordering::Relaxed);
        shared.signals().store(SIGNALS.load(Ordering::Relaxed), Ordering::Relaxed);
        // No PAUSE: under QEMU's instruction clock it ends this CPU's turn, and time would crawl.
        if shared.stage().load(Ordering::Acquire) >= stage {
            return;
        }
    }
}

/// The parent's side until the child has ended; how that was.
fn observe(
    options: &Options,
    file: &KernelFile,
    page: &LeasePage,
    shared: Shared,
    child: Pid,
    khz: u64,
) -> Result<Ended, Failure> {
    let failure = |error: std::io::Error| Failure::new(format!("wait: {}", describe(&error)));
    let ended = || linux::wait(child, Wait::Poll).map(|ended| ended.map(|(_, how, _)| how)).map_err(failure);
    while shared.stage().load(Ordering::Acquire) == 0 {
        if let Some(how) = ended()? {
            return Err(Failure::new(format!("the child {}", end_text(how))));
        }
        linux::sleep_ns(1_000_000);
    }
    if shared.stage().load(Ordering::Acquire) == stage::FAILED {
        let _ = linux::wait_for(child); // it has nothing more to say
        let error = std::io::Error::from_raw_os_error(shared.failure().load(Ordering::Relaxed) as i32);
        for line in file.read_all()?.lines().filter(|l| l.contains(&format!("blocked cpu={} ", options.cpu))) {
            write_out(format!("{line}\n").as_bytes());
        }
        return Err(Failure::new(format!("CPU {}: {}", options.cpu, describe(&error))));
    }
    write_out(format!("CPU {} is leased to task {child}: {}\n", options.cpu, options.request).as_bytes());
    let granted = contents(page).granted_tsc;
    if options.inject {
        kernel_file::write(&format!("{}/inject_ipi", kernel_file::QUIESCE), &format!("{}\n", options.cpu))?;
    }
    if options.pester {
        write_out(pester(options.cpu, child).as_bytes());
    }
    let ticks = ticks_of(options.ns, khz);
    let is_over = || match options.breaches {
        Some(wanted) => {
            let got = options.signal.is_none() || shared.signals().load(Ordering::Relaxed) >= wanted;
            page.breaches() >= wanted && shared.seen().load(Ordering::Relaxed) >= wanted && got
        }
        None => crate::instruction::rdtsc().wrapping_sub(granted) >= ticks,
    };
    while !is_over() {
        if let Some(how) = ended()? {
            return Ok(how);
        }
        linux::sleep_ns(2_000_000);
    }
    shared.stage().store(stage::EXIT, Ordering::Release);
    if options.stay_ms > 0 {
        while shared.stage().load(Ordering::Acquire) != stage::STAYS {
            if let Some(how) = ended()? {
                return Ok(how);
            }
        }
        // It is in the call by then, and for long after that.
        linux::sleep_ns(1_000_000);
        kernel_file::write(CHANGE_TEXT, "1")?;
    }
    linux::wait_for(child).map_err(failure)
}

/// What a stranger may not do to a leased CPU, and what comes of it.
fn pester(cpu: u32, holder: Pid) -> String {
    let answer = |done: std::io::Result<()>| done.map_or_else(|error| describe(&error), |()| "done".to_string());
    let mut text = String::new();
    for (what, done) in [
        ("move the holder", linux::set_affinity_of(holder, &[home(cpu).unwrap_or(cpu)])),
        ("change its class", linux::set_fifo_of(holder, 1)),
        ("come to its CPU", linux::set_affinity(&[cpu])),
        ("a barrier on it", linux::membarrier(GLOBAL_EXPEDITED).map(|_| ())),
    ] {
        text.push_str(&format!("{what}: {}\n", answer(done)));
    }
    text
}

fn end_text(how: Ended) -> String {
    match how {
        Ended::Exit(status) => format!("ended with status {status}"),
        Ended::Signal(signal) => format!("was killed by {}", signal_name::name(signal)),
    }
}

fn tell(options: &Options, page: &LeasePage, shared: Shared, how: Ended, khz: u64, before: u64) -> Outcome {
    let c = contents(page);
    if c.number != before + 1 || c.state != State::Ended {
        return Err(Failure::new(format!("CPU {}: the page says {c:?}", c.cpu)));
    }
    let held_ns = ns_of(c.ended_tsc.wrapping_sub(c.granted_tsc), khz);
    let mut text =
        format!("breaches: {}\nkernel entries: {}, {} of them its own\n", c.breaches, c.entries, c.own_entries);
    if let Some(last) = c.last {
        text.push_str(&format!("last breach: {}", last.kind.name()));
        if let Some((cpu, task, comm)) = last.sender {
            let comm = String::from_utf8_lossy(&comm);
            text.push_str(&format!(" from cpu{cpu} {}/{task}", comm.trim_end_matches('\0')));
        }
        let after_ns = ns_of(last.tsc.wrapping_sub(c.granted_tsc), khz);
        text.push_str(&format!(", {} after the grant\n", duration::human(after_ns)));
    }
    let end = c.end.map_or("?", |end| end.name());
    let (seen, signals) = (shared.seen().load(Ordering::Relaxed), shared.signals().load(Ordering::Relaxed));
    text.push_str(&format!("the program saw {seen} in its memory, got {signals} signals, {}\n", end_text(how)));
    text.push_str(&format!(
        "lease {} of CPU {} ended after {}: {end}\n",
        c.number,
        options.cpu,
        duration::human(held_ns)
    ));
    write_out(text.as_bytes());
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Options, Failure> {
        options(&text.split(' ').map(str::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn options_make_the_request() {
        let of = |text: &str| parse(text).unwrap().request;
        assert_eq!(of("-c 1"), "on log");
        assert_eq!(of("-c 1 --kill --once"), "on kill once");
        assert_eq!(of("-c 1 --signal 10 --own --once"), "on signal 10 own once");
        assert!(kcore::lease::parse(&of("-c 1 --signal 10 --own --once")).is_some());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("", "usage"),
            ("-c", "-c needs a value"),
            ("-c 1 --signal 65", "--signal 65"),
            ("-c 1 --signal 1 --kill", "--kill"),
            ("-c 1 --breaches 0", "--breaches 0"),
            ("-c 1 --stay x", "--stay x"),
            ("-c 1 --end x", "--end x"),
            ("-c 1 -x", "-x"),
        ] {
            let failure = parse(text).err().unwrap();
            assert!(failure.status == 2 && failure.text.contains(word), "{text}: {}", failure.text);
        }
    }
}

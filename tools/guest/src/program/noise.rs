//! noise: spins on one CPU for a while and tells what entered the kernel there meanwhile, by the kernel's own counters and log.
//!
//! Protocol, so that the measured CPU makes no system call and no fault in the window:
//! 1. the parent goes to a housekeeping CPU; the child is forked, pins itself on the measured CPU and writes READY to a shared page;
//! 2. one trial round of 1 ms touches all code and memory that the real one uses;
//! 3. the parent sleeps 20 ms, reads the counters, empties the log, writes GO; the child spins on the time stamp counter between the plugin's
//!    marks, writes DONE and goes on spinning;
//! 4. the parent, which sleeps in between, reads counters and log again, and only then writes EXIT.

use crate::entry::{Args, Failure, Outcome};
use crate::entry_counts::EntryCounts;
use crate::instruction::region;
use crate::interruption::{self, Interruption, Record};
use crate::kernel_file::{self, KernelFile, Read};
use crate::linux::{self, Ended, Fork, SharedPage, Wait};
use crate::noise_report::NoiseReport;
use crate::output::{describe, write_out};
use crate::program::spin::{ns_of, ticks_of, tsc_khz};
use crate::{cpu_list, cpu_state, duration, tick_state};
use core::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering};

const USAGE: &str = "usage: noise -c CPU [-s SECONDS] [--json] [--inject-ipi]";

/// Stages of the page's first word; each side waits for the other's.
mod stage {
    pub const FAILED: u64 = 1;
    pub const READY: u64 = 2;
    pub const TRIAL: u64 = 3;
    pub const TRIAL_DONE: u64 = 4;
    pub const GO: u64 = 5;
    pub const DONE: u64 = 6;
    pub const EXIT: u64 = 7;
}

/// The page shared by parent and child.
#[derive(Clone, Copy)]
struct Window {
    page: &'static SharedPage,
}

impl Window {
    fn stage(self) -> &'static AtomicU64 {
        &self.page[0]
    }
    fn failure(self) -> &'static AtomicU64 {
        &self.page[1]
    }
    fn max_gap_ticks(self) -> &'static AtomicU64 {
        &self.page[2]
    }
    fn gaps(self) -> &'static AtomicU64 {
        &self.page[3]
    }
    fn span_ticks(self) -> &'static AtomicU64 {
        &self.page[4]
    }
}

struct Options {
    cpu: u32,
    ns: u64,
    json: bool,
    inject: bool,
}

/// `noise -c CPU [-s SECONDS] [--json] [--inject-ipi]`.
pub fn main(args: &Args) -> Outcome {
    let options = options(args.rest())?;
    let cpu = options.cpu;
    let online = cpus_of("online")?;
    if !online.contains(&cpu) {
        return Err(Failure::new(format!("no CPU {cpu} (online: {})", cpu_list::format(&online))));
    }
    let isolated = isolated_cpus();
    let khz = tsc_khz()?;
    // Everything that can be missing is asked for before anybody spins.
    read_counts(cpu)?;
    let log = kernel_file::open(&format!("{}/log", kernel_file::QUIESCE), libc::O_RDONLY | libc::O_NONBLOCK).ok();
    let others: Vec<u32> = online.iter().copied().filter(|other| *other != cpu).collect();
    let home = others.iter().find(|other| !isolated.contains(other)).or(others.first()).copied().unwrap_or(cpu);
    linux::set_affinity(&[home]).map_err(|error| Failure::new(format!("move to CPU {home}: {}", describe(&error))))?;

    let (window, child) = start(cpu, ticks_of(options.ns, khz), khz)?;
    let result = observe(&options, window, &child, isolated.contains(&cpu), log.as_ref(), khz);
    window.stage().store(stage::EXIT, Ordering::Release);
    if let Child::Process(pid) = child {
        if result.is_err() {
            let _ = linux::kill(pid, libc::SIGKILL);
        }
        let _ = linux::wait_for(pid);
    }
    let report = result?;
    write_out(if options.json { report.to_json() + "\n" } else { report.text() }.as_bytes());
    Ok(0)
}

fn options(mut words: &[String]) -> Result<Options, Failure> {
    let mut options = Options { cpu: u32::MAX, ns: 10_000_000_000, json: false, inject: false };
    while let Some((word, rest)) = words.split_first() {
        words = rest;
        match word.as_str() {
            "--json" => options.json = true,
            "--inject-ipi" => options.inject = true,
            "-c" | "-s" => {
                let Some((value, rest)) = words.split_first() else {
                    return Err(Failure::usage(format!("{word} needs a value ({USAGE})")));
                };
                words = rest;
                if word == "-c" {
                    options.cpu = cpu_list::parse_cpu(value).map_err(Failure::usage)?;
                } else {
                    options.ns = duration::parse_seconds(value).map_err(Failure::usage)?;
                }
            }
            _ => return Err(Failure::usage(format!("unknown argument {word} ({USAGE})"))),
        }
    }
    if options.cpu == u32::MAX {
        return Err(Failure::usage(USAGE));
    }
    if options.inject && options.cpu != 1 {
        return Err(Failure::usage("--inject-ipi: the kernel injects on CPU 1 only, so -c must be 1"));
    }
    Ok(options)
}

/// The CPUs of a list in /sys/devices/system/cpu.
fn cpus_of(file: &str) -> Result<Vec<u32>, Failure> {
    let path = format!("/sys/devices/system/cpu/{file}");
    cpu_list::parse(&kernel_file::read(&path)?).map_err(|error| Failure::new(format!("{path}: {error}")))
}

/// The CPUs that the kernel leaves alone: those it says so of, and those of Linux's two lists.
fn isolated_cpus() -> Vec<u32> {
    let states =
        kernel_file::read_quiesce("cpus").ok().and_then(|text| cpu_state::parse(&text).ok()).unwrap_or_default();
    let mut cpus: Vec<u32> = states.iter().filter(|state| state.isolated).map(|state| state.cpu).collect();
    for list in ["isolated", "nohz_full"] {
        cpus.extend(cpus_of(list).unwrap_or_default());
    }
    cpus
}

fn read_counts(cpu: u32) -> Result<EntryCounts, Failure> {
    let file = format!("cpu{cpu}/entries");
    EntryCounts::parse(&kernel_file::read_quiesce(&file)?).map_err(|error| Failure::new(format!("{file}: {error}")))
}

/// Who spins: a process, or a thread where the kernel has no shared memory.
enum Child {
    Process(linux::Pid),
    Thread,
}

fn start(cpu: u32, ticks: u64, khz: u64) -> Result<(Window, Child), Failure> {
    match linux::shared_page() {
        Ok(page) => {
            let window = Window { page };
            match linux::fork().map_err(|error| Failure::new(format!("fork: {}", describe(&error))))? {
                Fork::Child => {
                    linux::die_with_parent();
                    spin_on(cpu, window, ticks, khz);
                    linux::exit_now(0)
                }
                Fork::Parent(pid) => Ok((window, Child::Process(pid))),
            }
        }
        Err(_) => {
            let window = Window { page: Box::leak(Box::new([const { AtomicU64::new(0) }; 512])) };
            let thread = std::thread::Builder::new().spawn(move || spin_on(cpu, window, ticks, khz));
            thread.map_err(|error| Failure::new(format!("thread: {}", describe(&error))))?;
            Ok((window, Child::Thread))
        }
    }
}

/// The child's whole life.
fn spin_on(cpu: u32, window: Window, ticks: u64, khz: u64) {
    if let Err(error) = linux::set_affinity(&[cpu]) {
        window.failure().store(error.raw_os_error().unwrap_or(0) as u64, Ordering::Relaxed);
        window.stage().store(stage::FAILED, Ordering::Release);
        return;
    }
    window.stage().store(stage::READY, Ordering::Release);
    round(window, stage::TRIAL, khz, khz, 0);
    round(window, stage::GO, ticks, khz, 1);
}

/// Waits for the stage `go`, spins for `ticks`, tells the result, waits for the next stage. Never inlined: both rounds run the same code.
#[inline(never)]
fn round(window: Window, go: u64, ticks: u64, khz: u64, marked: u64) {
    wait_while_below(window, go);
    let [max, gaps, span] = spin_marked(ticks, khz / 1000, marked);
    window.max_gap_ticks().store(max, Ordering::Relaxed);
    window.gaps().store(gaps, Ordering::Relaxed);
    window.span_ticks().store(span, Ordering::Relaxed);
    window.stage().store(go + 1, Ordering::Release);
    wait_while_below(window, go + 2);
}

#[inline(always)]
fn wait_while_below(window: Window, stage: u64) {
    while window.stage().load(Ordering::Acquire) < stage {
        core::hint::spin_loop();
    }
}

/// Reads the time stamp counter until `ticks` have passed. Gives the longest step between two readings, the number of steps above
/// `threshold` ticks, and the whole span. With `marked` not 0 the plugin's marks stand around the loop. All of it is one block of less
/// than 256 bytes at a multiple of 256, so that the trial round touches the only code page.
#[inline(always)]
fn spin_marked(ticks: u64, threshold: u64, marked: u64) -> [u64; 3] {
    let (mut max, mut gaps, mut now) = (0u64, 0u64, 0u64);
    // SAFETY: (1) the block changes its own registers and flags only, (2) the marks are NOPs whose memory operand is not accessed.
    unsafe {
        asm!(
            ".p2align 8",
            "test {marked}, {marked}",
            "jz 2f",
            ".byte 0x0f, 0x1f, 0x80",
            ".long {begin}",
            "2:",
            "rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "mov {start}, rax",
            "mov {last}, rax",
            "3:",
            "rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "mov {now}, rax",
            "sub rax, {last}",
            "mov {last}, {now}",
            "cmp rax, {max}",
            "cmova {max}, rax",
            "cmp rax, {threshold}",
            "jbe 4f",
            "inc {gaps}",
            "4:",
            "sub {now}, {start}",
            "cmp {now}, {ticks}",
            "jb 3b",
            "test {marked}, {marked}",
            "jz 5f",
            ".byte 0x0f, 0x1f, 0x80",
            ".long {end}",
            "5:",
            marked = in(reg) marked,
            begin = const 0x5142_0000u32 | region::NOISE,
            end = const 0x5142_8000u32 | region::NOISE,
            start = out(reg) _,
            last = out(reg) _,
            now = inout(reg) now,
            max = inout(reg) max,
            gaps = inout(reg) gaps,
            threshold = in(reg) threshold,
            ticks = in(reg) ticks,
            out("rax") _,
            out("rdx") _,
            options(nostack),
        );
    }
    [max, gaps, now]
}

/// The parent's side of the protocol, up to the last reading.
fn observe(
    options: &Options,
    window: Window,
    child: &Child,
    isolated: bool,
    log: Option<&KernelFile>,
    khz: u64,
) -> Result<NoiseReport, Failure> {
    await_stage(window, child, stage::READY)?;
    window.stage().store(stage::TRIAL, Ordering::Release);
    await_stage(window, child, stage::TRIAL_DONE)?;
    linux::sleep_ns(20_000_000);

    let start_ns = kernel_now_ns(options.cpu);
    let log_off = log.map(read_log).transpose()?.and_then(|old| old.off);
    let before = read_counts(options.cpu)?;
    window.stage().store(stage::GO, Ordering::Release);
    if options.inject {
        linux::sleep_ns(options.ns / 2);
        kernel_file::write(&format!("{}/inject_ipi", kernel_file::QUIESCE), "1\n")?;
        linux::sleep_ns(options.ns - options.ns / 2);
    } else {
        linux::sleep_ns(options.ns);
    }
    await_stage(window, child, stage::DONE)?;
    let causes = read_counts(options.cpu)?.since(&before);

    let mut report = NoiseReport::new(options.cpu, options.ns, isolated, causes);
    report.max_gap_ns = ns_of(window.max_gap_ticks().load(Ordering::Relaxed), khz);
    report.gaps_over_1us = window.gaps().load(Ordering::Relaxed);
    report.span_ns = ns_of(window.span_ticks().load(Ordering::Relaxed), khz);
    report.log_off = log_off;
    if let Some(log) = log.filter(|_| report.log_off.is_none()) {
        // The kernel hands records over from time to time, so the last ones may need a moment.
        for attempt in 0..6 {
            let Heard { records, lost, .. } = read_log(log)?;
            let in_window = |one: &Interruption| one.cpu == options.cpu && one.time_ns >= start_ns;
            report.add_records(records.into_iter().filter(in_window), lost);
            if !isolated || report.is_fully_logged() || attempt == 5 {
                break;
            }
            linux::sleep_ns(20_000_000);
        }
    }
    Ok(report)
}

/// Sleeps until the child has come to `wanted`; the child's failure or death is the error.
fn await_stage(window: Window, child: &Child, wanted: u64) -> Result<(), Failure> {
    loop {
        match window.stage().load(Ordering::Acquire) {
            stage::FAILED => {
                let error = std::io::Error::from_raw_os_error(window.failure().load(Ordering::Relaxed) as i32);
                return Err(Failure::new(format!("pin on the CPU: {}", describe(&error))));
            }
            now if now >= wanted => return Ok(()),
            _ => {}
        }
        if let Child::Process(pid) = child
            && let Ok(Some((_, how, _))) = linux::wait(*pid, Wait::Poll)
        {
            let how = match how {
                Ended::Exit(status) => format!("ended with status {status}"),
                Ended::Signal(signal) => format!("was killed by {}", crate::signal_name::name(signal)),
            };
            return Err(Failure::new(format!("the spinning process {how}")));
        }
        linux::sleep_ns(2_000_000);
    }
}

/// The kernel's own clock, by which the log counts; 0 when it does not tell.
fn kernel_now_ns(cpu: u32) -> u64 {
    let text = kernel_file::read_quiesce(&format!("cpu{cpu}/why")).unwrap_or_default();
    tick_state::parse(&text).map_or(0, |state| state.now_ns)
}

/// What the log told.
#[derive(Default)]
struct Heard {
    records: Vec<Interruption>,
    /// So many records were lost.
    lost: u64,
    /// There are none, and why.
    off: Option<String>,
}

/// All that the log has now.
fn read_log(log: &KernelFile) -> Result<Heard, Failure> {
    let mut heard = Heard::default();
    loop {
        match log.read_some()? {
            Read::Text(text) => {
                for line in text.lines() {
                    match interruption::parse(line) {
                        Ok(Record::Interruption(one)) => heard.records.push(one),
                        Ok(Record::Lost(count)) => heard.lost += count,
                        Ok(Record::Off(why)) => heard.off = Some(why),
                        Err(error) => return Err(Failure::new(format!("{}: {error}", log.path()))),
                    }
                }
            }
            Read::Lost => heard.lost += 1,
            Read::End | Read::Nothing => return Ok(heard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_ends_and_counts() {
        let [max, gaps, span] = spin_marked(1_000_000, 0, 1);
        assert!(span >= 1_000_000 && max > 0 && max <= span && gaps > 0, "{max} {gaps} {span}");
        assert_eq!(spin_marked(1_000, u64::MAX, 0)[1], 0);
    }

    #[test]
    fn options_are_checked() {
        let parse = |text: &str| options(&text.split(' ').map(str::to_string).collect::<Vec<_>>());
        let good = parse("-c 1 -s 0.5 --json --inject-ipi").ok().unwrap();
        assert_eq!((good.cpu, good.ns, good.json, good.inject), (1, 500_000_000, true, true));
        for bad in ["-c", "-c x", "-s 1", "-c 1 -s x", "-c 1 more", "-c 2 --inject-ipi"] {
            assert_eq!(parse(bad).err().map(|failure| failure.status), Some(2), "{bad}");
        }
    }
}

//! Scenario: what a user does to an isolated CPU interrupts it: a second task there, sleeps, signals, programs that start. Each of these
//! interruptions is in the log with its cause, and one that a CPU sent with its sender; when they are over nothing enters the CPU any more.

use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm};
use std::collections::BTreeMap;

/// Where commands that take a number find CPU 1.
const ENTRIES: &str = "cat /sys/kernel/quiesce/cpu1/entries";

/// What CPU 1's counters and its log say, at a time at which nothing happens there.
struct Look {
    /// Entries by cause.
    counted: BTreeMap<String, u64>,
    /// The log's lines of CPU 1, oldest first.
    logged: Vec<String>,
}

fn counters(guest: &mut Running) -> Result<BTreeMap<String, u64>, Failed> {
    let text = guest.command(ENTRIES)?;
    let entry = |line: &str| {
        let (cause, count) = line.split_once(' ')?;
        Some((cause.to_string(), count.parse().ok()?))
    };
    text.lines().map(|line| entry(line).ok_or_else(|| Failed(format!("{line:?} in {text}")))).collect()
}

/// Takes both while `busy` works elsewhere: fails if anything entered CPU 1 meanwhile.
fn quiet(guest: &mut Running) -> Result<Look, Failed> {
    let before = counters(guest)?;
    guest.command("busy 0.05")?;
    let log = guest.command("log")?;
    let counted = counters(guest)?;
    assert_eq!(counted, before, "CPU 1 is not quiet:\n{log}");
    assert!(!log.contains("lost"), "{log}");
    Ok(Look { counted, logged: of_cpu_1(&log) })
}

fn of_cpu_1(log: &str) -> Vec<String> {
    log.lines().filter(|l| l.contains(" cpu1 ")).map(str::to_string).collect()
}

/// The log's new lines. Fails unless they are as many of each cause as the counters say, each that a CPU sent with sender, place and reason.
fn explained(before: &Look, after: &Look) -> Vec<String> {
    let lines = after.logged[before.logged.len()..].to_vec();
    let text = lines.join("\n");
    for (cause, count) in &after.counted {
        // Entered by the CPU's own program.
        if cause == "syscall" || cause == "exception" {
            continue;
        }
        let whole = [format!(" cpu1 {cause},"), format!(" cpu1 {cause} ")];
        let of_cause: Vec<_> = lines.iter().filter(|line| whole.iter().any(|word| line.contains(word))).collect();
        assert_eq!(of_cause.len() as u64, count - before.counted[cause], "{cause}:\n{text}");
        let sent = ["reschedule", "call_function", "tlb_flush", "sync_core"].contains(&cause.as_str());
        for line in of_cause {
            let told = line.contains(" from cpu") && line.contains(" at kernel/src/") && line.contains(" (");
            assert_eq!(told, sent, "{line}");
        }
    }
    lines
}

/// How many of `lines` have all of `words`.
fn having(lines: &[String], words: &[&str]) -> usize {
    lines.iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

/// Waits until CPU 1's line in /sys/kernel/quiesce/cpus has all of these words.
fn until(guest: &mut Running, words: &[&str]) -> Outcome {
    loop {
        let text = guest.command("cat /sys/kernel/quiesce/cpus")?;
        let line = text.lines().find(|l| l.starts_with("cpu=1 "));
        if line.is_some_and(|line| words.iter().all(|word| line.contains(word))) {
            return Ok(());
        }
    }
}

#[test]
fn each_interruption_has_its_cause_and_then_it_is_quiet() -> Outcome {
    // That no instruction of the kernel runs on a quiet CPU is what quiet_cpu.rs counts.
    let mut guest = Vm::new().smp(2).cmdline("nohz_full=1 hz=100 trace_event=irq,ipi,tick,timer").icount().spawn()?;
    guest.prompt()?;
    const ALONE: &[&str] = &["comm=spin", "state=user", "tick=off"];
    let start = quiet(&mut guest)?;
    guest.command("run -c 1 spin &")?;
    until(&mut guest, ALONE)?;
    let alone = quiet(&mut guest)?;
    let lines = explained(&start, &alone);
    assert!(having(&lines, &["reschedule from cpu0 run/", "/syscall/cpu.rs:", " (wakeup)"]) >= 1, "{lines:?}");

    // Two tasks there: ticks, for as long as both run, and who made it so.
    guest.command("run -c 1 spin &")?;
    until(&mut guest, &["tick=on"])?;
    while having(&of_cpu_1(&guest.command("log")?)[alone.logged.len()..], &[" timer, "]) < 5 {}
    let why = guest.command("why 1")?;
    assert!(why.contains("tick ON") && why.contains("sched") && why.contains(" in run/"), "{why}");
    guest.command("kill %2; wait %2")?;
    until(&mut guest, ALONE)?;
    let two = quiet(&mut guest)?;
    let lines = explained(&alone, &two);
    assert!(having(&lines, &["reschedule from cpu0 run/", " (tick_set)"]) >= 1, "{lines:?}");
    assert!(having(&lines, &[" timer, "]) >= 5, "{lines:?}");

    // A timer there, of a task that sleeps; the latency trace names the task.
    guest.command("run -c 1 sleep 0.05")?;
    until(&mut guest, ALONE)?;
    let slept = quiet(&mut guest)?;
    let lines = explained(&two, &slept);
    assert!(having(&lines, &[" timer, "]) >= 1, "{lines:?}");
    let trace = guest.command("trace show -c 1")?;
    let expired = |l: &&str| l.contains(" hrtimer_expire_entry: ");
    assert!(trace.lines().any(|l| l.contains("sleep-") && l.contains(" hrtimer_start: ")), "{trace}");
    assert_eq!(trace.lines().filter(expired).count(), 1, "{trace}");

    // Signals for the task that runs there.
    guest.command("kill -STOP %1")?;
    until(&mut guest, &["comm=idle", "state=idle", "tick=off"])?;
    let stopped = quiet(&mut guest)?;
    let lines = explained(&slept, &stopped);
    assert_eq!((lines.len(), having(&lines, &["reschedule from cpu0 sh/", " (signal)"])), (1, 1), "{lines:?}");
    guest.command("kill -CONT %1")?;
    until(&mut guest, ALONE)?;
    let went_on = quiet(&mut guest)?;
    let lines = explained(&stopped, &went_on);
    assert_eq!((lines.len(), having(&lines, &["reschedule from cpu0 sh/", " (wakeup)"])), (1, 1), "{lines:?}");

    // Programs that start there: by fork and exec, and in place of one.
    let said = guest.command("run -c 1 sh -c 'cat /proc/version | cat; exec uname'")?;
    assert!(said.contains("Quiesce"), "{said}");
    until(&mut guest, ALONE)?;
    let exec = quiet(&mut guest)?;
    let lines = explained(&went_on, &exec);
    assert!(having(&lines, &["reschedule from cpu0 run/"]) >= 1, "{lines:?}");

    guest.command("kill %1; wait %1")?;
    until(&mut guest, &["comm=idle", "state=idle", "tick=off"])?;
    let end = quiet(&mut guest)?;
    let lines = explained(&exec, &end);
    assert_eq!((lines.len(), having(&lines, &[" (signal)"])), (1, 1), "{lines:?}");
    let noise = guest.command("noise -c 1 -s 0.1 --json")?;
    assert!(noise.contains("\"entries\": 0,"), "{noise}");
    guest.power_off()?.assert_clean();
    Ok(())
}

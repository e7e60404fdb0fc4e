//! Scenario: the storm. CPU 0 alone does all that it can while CPU 1 spins in user mode: key flips, kernel memory that moves, processes,
//! tracing and its buffers, grace periods, timers, mappings, membarriers, every file of /proc and /sys. CPU 1 executes no kernel instruction,
//! every post of the storm is an IPI that was avoided, and with deferral off each is an interruption, named.

use kcore::trace_event::Data;
use scenarios::ledger::{self, Sums, number};
use scenarios::trace_file::TraceFile;
use scenarios::vm::{Finished, Running};
use scenarios::{Failed, Outcome, Vm, skip};

/// The region in which the guest program `noise` spins.
const NOISE: u32 = 5;

/// Virtual seconds of the storm; `make test-long` takes five.
fn seconds() -> u32 {
    if std::env::var_os("QUIESCE_LONG").is_some() { 5 } else { 1 }
}

/// What a storm did and what came of it on CPU 1, between two readings of the ledger that both lie in its time in user mode.
struct Storm {
    rounds: u64,
    before: String,
    after: String,
    noise: String,
}

impl Storm {
    /// `how`: what `storm` is told; CPU 1 spins for `seconds`, which has to be longer.
    fn run(guest: &mut Running, how: &str, seconds: u32) -> Result<Storm, Failed> {
        const LEDGER: &str = "cat /sys/kernel/quiesce/ipi";
        guest.prompt()?;
        // One line: while one is typed the guest's time passes.
        guest.command(&format!(
            "noise -c 1 -s {seconds} --json > /noise & sleep 0.2; {LEDGER} > /before; storm {how} > /did; {LEDGER} > /after; \
             cat /sys/kernel/quiesce/cpus > /cpus"
        ))?;
        let [before, did, after, spins] =
            ["before", "did", "after", "cpus"].map(|file| guest.command(&format!("cat /{file}")));
        let (before, did, after, spins) = (before?, did?, after?, spins?);
        let line = did.lines().find(|l| l.starts_with("storm: rounds ")).ok_or_else(|| Failed(did.clone()))?;
        let rounds = line.split(' ').nth(2).and_then(|n| n.parse().ok()).ok_or_else(|| Failed(did.clone()))?;
        println!("{line}");
        // Else the end of the spinning would be taken for what the storm did.
        let spins = spins.lines().any(|l| l.starts_with("cpu=1 state=user ") && l.contains("comm=noise"));
        assert!(spins, "the storm outlasted CPU 1's spinning: {did}");
        guest.command("wait %1")?;
        let noise = guest.command("cat /noise")?;
        Ok(Storm { rounds, before, after, noise })
    }

    /// Sent to CPU 1 and avoided meanwhile.
    fn did(&self, of: impl Fn(&str) -> bool) -> Result<Sums, Failed> {
        let (before, after) = (ledger::sums(&self.before, 1, &of)?, ledger::sums(&self.after, 1, &of)?);
        Ok(Sums { sent: after.sent - before.sent, avoided: after.avoided - before.avoided })
    }
}

fn kernel_instructions(finished: &Finished) -> Result<u64, Failed> {
    let counts: Vec<_> = finished.counts.counts.iter().filter(|c| c.region == NOISE && c.vcpu == 1).collect();
    let [count] = counts[..] else { return Err(Failed(format!("the plugin saw {} windows, not one", counts.len()))) };
    Ok(count.kernel)
}

/// The lever's own posts stand in the ledger by its source file.
fn from_lever(cause: &'static str) -> impl Fn(&str) -> bool {
    move |line| line.contains(&format!(" cause={cause} ")) && line.contains("fs/sys/debug.rs")
}

/// CPU 0 alone does it all: the machine has no third CPU. Then the same number of rounds with deferral off.
#[test]
fn an_isolated_cpu_hears_nothing_of_it_and_without_deferral_of_all() -> Outcome {
    if let Some(why) = host::plugin::why_not() {
        return skip(&why);
    }
    let mut guest = Vm::new().smp(2).cmdline("nohz_full=1").count().limit(600).spawn()?;
    let storm = Storm::run(&mut guest, &seconds().to_string(), 2 * seconds())?;
    let finished = guest.power_off()?;
    assert_eq!(number(&storm.noise, "entries")?, 0, "{}\n{}", storm.noise, storm.after);
    assert_eq!(kernel_instructions(&finished)?, 0, "kernel instructions on vCPU 1 by the plugin");
    let Sums { sent, avoided } = storm.did(|_| true)?;
    assert_eq!(sent, 0, "IPIs sent to CPU 1: {}", storm.after);
    // The program's own count against the ledger's.
    assert_eq!(storm.did(from_lever("kernel_tlb_flush"))?, Sums { sent: 0, avoided: storm.rounds }, "{}", storm.after);
    assert_eq!(storm.did(from_lever("sync_core"))?, Sums { sent: 0, avoided: storm.rounds }, "{}", storm.after);
    // Four writes flip a key each, in three syncs each, but for keys that stay as they are in the first round.
    assert!(storm.did(|l| l.contains(" cause=sync_core "))?.avoided >= 10 * storm.rounds, "{}", storm.after);
    println!("IPIs to CPU 1: {sent} sent, {avoided} avoided");
    finished.assert_clean();

    let rounds = storm.rounds;
    let mut guest = Vm::new().smp(2).cmdline("nohz_full=1 quiesce.defer=off").icount().limit(600).spawn()?;
    let storm = Storm::run(&mut guest, &format!("--rounds {rounds}"), 3 * seconds())?;
    guest.power_off()?.assert_clean();
    let Sums { sent, avoided: left } = storm.did(|_| true)?;
    assert_eq!(left, 0, "{}", storm.after);
    assert_eq!(storm.did(from_lever("kernel_tlb_flush"))?, Sums { sent: rounds, avoided: 0 }, "{}", storm.after);
    assert_eq!(storm.did(from_lever("sync_core"))?, Sums { sent: rounds, avoided: 0 }, "{}", storm.after);
    let interruptions = number(&storm.noise, "entries")?;
    println!("the same {rounds} rounds without deferral: {sent} IPIs sent to CPU 1, {interruptions} interruptions");
    assert!(sent >= avoided && interruptions >= avoided, "{avoided} avoided; {sent} sent, {}", storm.noise);
    // Each by name: cause, sender, site; and how many of them arrived.
    let mut seen = 0;
    for line in storm.after.lines().filter(|l| l.contains(" to=1 ")) {
        seen += number(line, "seen")?;
        assert!(line.contains(" site=kernel/src/") && line.contains(" comm="), "{line}");
    }
    assert!(seen >= avoided, "{seen} interruptions named, {avoided} were avoided: {}", storm.after);
    Ok(())
}

/// What senders logged against what the ledger counted, and each piece of work against the entry of CPU 1 that found it. CPU 0 is the
/// only sender; the storm stays off what would stop the recording.
#[test]
fn each_piece_of_work_is_logged_and_runs_before_anything_else() -> Outcome {
    const ROUNDS: u64 = 1;
    const INJECT: &str = "echo 1 > /sys/kernel/quiesce/inject_ipi";
    let file = TraceFile::new("storm");
    let words = "nohz_full=1 trace_event=irq,ipi,context trace_buf_size=2M";
    let mut guest = Vm::new().smp(2).cmdline(words).icount().trace(file.path()).limit(300).spawn()?;
    guest.prompt()?;
    guest.command("run -c 1 spin & ; sleep 0.1")?;
    // CPU 1 comes in at each IPI and finds what was left since the one before. Between two of them the ledger is read: what is
    // posted meanwhile may be in it or not, so it is read until that is nothing.
    let mut readings = Vec::new();
    for _ in 0..3 {
        guest.command(&format!("storm --recorded --rounds {ROUNDS}"))?;
        let text = guest.command(&format!("{INJECT}; cat /sys/kernel/quiesce/ipi; {INJECT}"))?;
        readings.push(ledger::sums(&text, 1, |_| true)?.avoided);
    }
    let mut end = guest.power_off()?;
    end.assert_clean();
    let (trace, findings) = end.trace.take().ok_or_else(|| Failed("no trace".into()))?;
    print!("{}", findings.text());

    // By CPU 0's own records, in their order: posts to CPU 1 before each of the injected IPIs.
    let (mut posts, mut before) = (0, Vec::new());
    for (entry, record) in trace.records_in_order().filter(|(entry, _)| entry.cpu == 0) {
        match record.data {
            Data::WorkPosted { target_cpu: 1, .. } => posts += 1,
            Data::IpiSend { target_cpu: 1, .. } if trace.line(entry).contains("fs/sys/quiesce.rs") => {
                before.push(posts)
            }
            _ => {}
        }
    }
    assert_eq!(before.len(), 2 * readings.len());
    println!("posts logged before and after each reading of the ledger {before:?}, avoided in it {readings:?}");
    let mut equal = 0;
    for (around, avoided) in before.chunks(2).zip(&readings) {
        assert!((around[0]..=around[1]).contains(avoided), "{before:?}, {readings:?}");
        equal += u32::from(around[0] == *avoided && around[1] == *avoided);
    }
    assert!(equal > 0, "work was posted at every reading: {before:?}, {readings:?}");
    // In the first round some keys stay as they are.
    assert!(readings[2] >= 22 * ROUNDS, "{readings:?}");
    // Each piece was found before anything else was recorded, or its CPU has not come in since.
    assert_eq!(findings.ran + findings.waiting, findings.posts, "{}", findings.text());
    assert!(findings.entries_with_work >= 3, "{}", findings.text());
    Ok(())
}

//! Scenario: the storm. The other CPUs do all that they can while CPU 1 spins in user mode: key flips, kernel memory that moves, processes,
//! tracing, grace periods, timers, mappings, membarriers, every file of /proc and /sys. CPU 1 executes no kernel instruction,
//! every post of the storm is an IPI that was avoided, and with deferral off each is an interruption, named.

use scenarios::vm::{Finished, Running};
use scenarios::{Failed, Outcome, Vm, skip};

/// The region in which the guest program `noise` spins.
const NOISE: u32 = 5;

/// Virtual seconds of the storm; `make test-long` takes five.
fn seconds() -> u32 {
    if std::env::var_os("QUIESCE_LONG").is_some() { 5 } else { 1 }
}

/// The number behind `key=` or `"key":` in a line.
fn number(line: &str, key: &str) -> Result<u64, Failed> {
    let digits = |at: usize| line[at..].trim_start().chars().take_while(char::is_ascii_digit).collect::<String>();
    let found = [format!(" {key}="), format!("\"{key}\":")].iter().find_map(|k| Some(digits(line.find(k)? + k.len())));
    found.and_then(|d| d.parse().ok()).ok_or_else(|| Failed(format!("no {key} in {line}")))
}

/// Sums of the ledger for CPU 1: sent, avoided. `of` chooses lines.
fn ledger(text: &str, of: impl Fn(&str) -> bool) -> Result<[u64; 2], Failed> {
    let mut sums = [0; 2];
    for line in text.lines().filter(|l| l.contains(" to=1 ") && of(l)) {
        sums[0] += number(line, "sent")?;
        sums[1] += number(line, "avoided")?;
    }
    Ok(sums)
}

/// What a storm did and what came of it on CPU 1, between two readings of the ledger that both lie in its time in user mode.
struct Storm {
    rounds: u64,
    before: String,
    after: String,
    noise: String,
}

impl Storm {
    fn run(guest: &mut Running) -> Result<Storm, Failed> {
        guest.prompt()?;
        guest.command(&format!("noise -c 1 -s {} --json > /noise &", seconds() + 1))?;
        guest.command("sleep 0.2")?;
        let before = guest.command("cat /sys/kernel/quiesce/ipi")?;
        let did = guest.command(&format!("storm {}", seconds()))?;
        let line = did.lines().find(|l| l.starts_with("storm: rounds ")).ok_or_else(|| Failed(did.clone()))?;
        let rounds = line.split(' ').nth(2).and_then(|n| n.parse().ok()).ok_or_else(|| Failed(did.clone()))?;
        let after = guest.command("cat /sys/kernel/quiesce/ipi")?;
        guest.command("wait %1")?;
        let noise = guest.command("cat /noise")?;
        println!("storm of {} s: {rounds} rounds", seconds());
        Ok(Storm { rounds, before, after, noise })
    }

    /// Sent to CPU 1 and avoided meanwhile.
    fn did(&self, of: impl Fn(&str) -> bool) -> Result<[u64; 2], Failed> {
        let (before, after) = (ledger(&self.before, &of)?, ledger(&self.after, &of)?);
        Ok([after[0] - before[0], after[1] - before[1]])
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

#[test]
fn an_isolated_cpu_hears_nothing_of_it() -> Outcome {
    if let Some(why) = host::plugin::why_not() {
        return skip(&why);
    }
    let mut guest = Vm::new().cmdline("nohz_full=1").count().limit(300).spawn()?;
    let storm = Storm::run(&mut guest)?;
    let finished = guest.power_off()?;
    assert_eq!(number(&storm.noise, "entries")?, 0, "{}\n{}", storm.noise, storm.after);
    assert_eq!(kernel_instructions(&finished)?, 0, "kernel instructions on vCPU 1 by the plugin");
    let all = storm.did(|_| true)?;
    assert_eq!(all[0], 0, "IPIs sent to CPU 1: {}", storm.after);
    // The program's own count against the ledger's.
    assert_eq!(storm.did(from_lever("kernel_tlb_flush"))?, [0, storm.rounds], "{}", storm.after);
    assert_eq!(storm.did(from_lever("sync_core"))?, [0, storm.rounds], "{}", storm.after);
    // Four writes flip a key each, in three syncs each, but for keys that stay as they are in the first round.
    assert!(storm.did(|l| l.contains(" cause=sync_core "))?[1] >= 10 * storm.rounds, "{}", storm.after);
    println!("IPIs to CPU 1: {} sent, {} avoided", all[0], all[1]);
    finished.assert_clean();
    Ok(())
}

#[test]
fn with_deferral_off_each_post_is_an_interruption_with_a_name() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1 quiesce.defer=off").icount().limit(300).spawn()?;
    let storm = Storm::run(&mut guest)?;
    guest.power_off()?.assert_clean();
    let all = storm.did(|_| true)?;
    assert_eq!(all[1], 0, "{}", storm.after);
    assert_eq!(storm.did(from_lever("kernel_tlb_flush"))?, [storm.rounds, 0], "{}", storm.after);
    assert_eq!(storm.did(from_lever("sync_core"))?, [storm.rounds, 0], "{}", storm.after);
    assert!(all[0] >= 11 * storm.rounds, "{}", storm.after);
    assert!(number(&storm.noise, "entries")? >= all[0], "{} entries, {} sent", storm.noise, all[0]);
    assert!(storm.after.lines().any(|l| l.contains(" to=1 ") && l.contains(" seen=") && l.contains("comm=storm")));
    println!("IPIs to CPU 1 without deferral: {} sent", all[0]);
    Ok(())
}

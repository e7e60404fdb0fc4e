//! Scenario: NMI IPIs at random instants on all CPUs, one of them tracked, while system calls are made at random, while the storm goes on and
//! while kernel text is patched. Each CPU counts what arrives. Nothing else changes: no panic, no illegal transition, the loads' own
//! verdicts. `make test-long` sends a million.

use scenarios::ledger::number;
use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm};

const FILE: &str = "/sys/kernel/quiesce/debug/nmi_burst";
/// The loads, what shows that each went well, and how many of 10 NMIs are sent during it.
const LOADS: [(&str, &str, u64); 3] = [
    ("fuzz -c 3000", "fuzz: nothing left over", 4),
    ("storm --rounds 2", "storm: rounds ", 4),
    ("torture keys 1 3", ", 0 failures", 2),
];
const TRAPS: &str = "/sys/kernel/quiesce/debug/traps";
const CPUS: u32 = 4;

fn wanted() -> u64 {
    let given = std::env::var("NMIS").ok().and_then(|n| n.parse().ok());
    given.unwrap_or(if std::env::var_os("QUIESCE_LONG").is_some() { 1_000_000 } else { 5_000 })
}

/// NMIs sent by the file, NMIs sent by the ledger of IPIs whoever asked for them, NMIs that arrived.
fn counts(guest: &mut Running) -> Result<(u64, u64, u64), Failed> {
    let told = guest.command(&format!("cat {FILE}"))?;
    let all = guest.command("cat /sys/kernel/quiesce/ipi")?;
    let is_nmi = |line: &str| line.contains(" cause=injected_nmi ") || line.contains(" cause=rcu_stall ");
    // Those that found no line of their own stand in one without a target.
    let mut by_ledger = 0;
    for line in all.lines().filter(|line| is_nmi(line)) {
        by_ledger += number(line, "sent")?;
    }
    let told = format!(" {told}");
    Ok((number(&told, "sent")?, by_ledger, number(&told, "arrived")?))
}

/// NMIs that came while sites held INT3, and how often a CPU met one.
fn between(guest: &mut Running) -> Result<(u64, u64), Failed> {
    let told = format!(" {}", guest.command(&format!("cat {TRAPS}"))?);
    Ok((number(&told, "nmis_between")?, number(&told, "listed")?))
}

#[test]
fn nothing_but_counters_changes() -> Outcome {
    let mut guest =
        Vm::new().smp(CPUS).cmdline("nohz_full=3 trace_event= quiet").limit(300 + wanted() / 100).spawn()?;
    guest.prompt()?;
    let mut sent_before = 0;
    for (seed, (load, good, share)) in (1..).zip(LOADS) {
        let count = wanted() * share / 10;
        guest.command(&format!("sh -c 'echo {count} {seed} > {FILE}' &"))?;
        let mut rounds = 0;
        loop {
            let told = guest.command(load)?;
            assert!(told.contains(good), "seed {seed}: {load}: {told}");
            rounds += 1;
            let (sent, ..) = counts(&mut guest)?;
            if sent - sent_before >= count {
                sent_before = sent;
                break;
            }
        }
        println!("{count} NMIs, seed {seed}, in {rounds} rounds of {load}");
    }
    let (sent, by_ledger, arrived) = counts(&mut guest)?;
    println!("NMIs: {sent} sent, {arrived} arrived; with those of the loads {by_ledger} sent");
    assert_eq!(sent, LOADS.iter().map(|load| wanted() * load.2 / 10).sum::<u64>());
    // Several that come while one is pending are one; none is invented, and most come alone.
    assert!(arrived <= by_ledger && arrived > sent / 10, "{sent} and {by_ledger} sent, {arrived} arrived");
    let torture = guest.command("cat /sys/kernel/quiesce/debug/torture")?;
    assert!(torture.lines().any(|line| line == "illegal=0"), "{torture}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// Every CPU runs through trace points that are switched meanwhile, and gets an NMI behind each step that leaves INT3 there.
#[test]
fn while_text_is_half_patched() -> Outcome {
    const FLIPS: u64 = 20;
    let mut guest = Vm::new().smp(CPUS).cmdline("nohz_full=3 trace_event= quiet").limit(300).spawn()?;
    guest.prompt()?;
    guest.command("run -c 0 busy 60 & run -c 1 busy 60 & run -c 2 busy 60 & run -c 3 spin &")?;
    guest.command("echo 1 > /sys/kernel/quiesce/debug/poke_nmis")?;
    let before = between(&mut guest)?;
    let told = guest.command(&["trace on sched; trace off sched"; FLIPS as usize / 2].join("; "))?;
    assert!(!told.contains("trace:"), "{told}");
    let after = between(&mut guest)?;
    let (nmis, traps) = (after.0 - before.0, after.1 - before.1);
    println!("{nmis} NMIs between INT3 and a site's new first byte in {FLIPS} flips; CPUs met INT3 {traps} times");
    // The CPU that patches has its own two of each flip; one that sleeps or runs a program is not waited for, and may have its later.
    assert!(nmis > 2 * FLIPS && traps > 0, "{before:?}, then {after:?}");
    guest.power_off()?.assert_clean();
    Ok(())
}

//! Scenario: grace periods. CPUs in tracked user mode and idle ones are never asked; expedited ones interrupt who runs kernel code
//! and are quick; a reader that does not end is named; polling and barriers end; sleepable readers' periods ask nobody; what is given is freed.

use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm};

/// The number behind `key=` in the line of grace periods of `kind`.
fn number(text: &str, kind: &str, key: &str) -> Result<u64, Failed> {
    let line = text.lines().find(|l| l.starts_with(&format!("kind={kind} ")));
    let word = line.and_then(|l| l.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('=')));
    word.and_then(|w| w.parse().ok()).ok_or_else(|| Failed(format!("no {key} of {kind} in {text}")))
}

fn rcu(guest: &mut Running, kind: &str, key: &str) -> Result<u64, Failed> {
    let text = guest.command("cat /sys/kernel/quiesce/rcu")?;
    number(&text, kind, key)
}

/// IPIs that RCU sent.
fn sent_by_rcu(guest: &mut Running) -> Result<u64, Failed> {
    let text = guest.command("cat /sys/kernel/quiesce/ipi")?;
    let lines = text.lines().filter(|l| l.contains(" cause=rcu_"));
    Ok(lines.filter_map(|l| l.split(" sent=").nth(1)?.split(' ').next()?.parse::<u64>().ok()).sum())
}

#[test]
fn cpus_in_tracked_user_mode_get_no_ipi() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").icount().spawn()?;
    guest.prompt()?;
    guest.command("run -c 1 spin & ; run -c 2 spin & ; run -c 3 spin & ; sleep 0.1")?;
    let before = guest.command("cat /sys/kernel/quiesce/ipi")?;
    let to_isolated = |text: &str| -> Vec<String> {
        let others = |l: &&str| !l.contains(" to=0 ") && l.starts_with("from=0 ") && !l.contains(" sent=0 ");
        text.lines().filter(others).map(|l| l.split(" site=").next().unwrap_or("").to_string()).collect()
    };
    let periods = rcu(&mut guest, "normal", "grace_periods")?;
    guest.command("echo normal 20 > /sys/kernel/quiesce/debug/rcu")?;
    guest.command("echo expedited 20 > /sys/kernel/quiesce/debug/rcu")?;
    guest.command("echo barrier 20 > /sys/kernel/quiesce/debug/rcu")?;
    guest.command("echo poll 20 > /sys/kernel/quiesce/debug/rcu")?;
    guest.command("echo cond 3 > /sys/kernel/quiesce/debug/rcu")?;
    guest.command("echo srcu 20 > /sys/kernel/quiesce/debug/rcu")?;
    // More than a page of notes.
    guest.command("echo free 600 > /sys/kernel/quiesce/debug/rcu")?;
    guest.command("echo reclaim 3 > /sys/kernel/quiesce/debug/rcu")?;
    guest.command("echo barrier 1 > /sys/kernel/quiesce/debug/rcu")?;
    let after = guest.command("cat /sys/kernel/quiesce/ipi")?;
    assert_eq!(to_isolated(&before), to_isolated(&after), "no IPI to CPUs 1-3");
    assert_eq!(sent_by_rcu(&mut guest)?, 0, "{after}");
    assert!(rcu(&mut guest, "normal", "grace_periods")? >= periods + 63);
    let counts = guest.command("cat /sys/kernel/quiesce/rcu")?;
    let count = |line: &str, key: &str| number(&counts.replace(line, "kind=x"), "x", key);
    assert!(count("srcu=torture", "grace_periods")? >= 20, "{counts}");
    assert_eq!(count("srcu=torture", "readers")?, 0, "{counts}");
    assert!(count("srcu=mounts", "grace_periods")? >= 1, "the mounts at boot replaced tables: {counts}");
    let reclaims = count("deferred_free", "reclaims")?;
    // What was just given may be freed by the thread before the reclaim looks.
    assert!(count("deferred_free", "freed")? >= 603 && reclaims <= 3, "{counts}");
    assert!(count("deferred_free", "batches")? >= 3, "{counts}");
    assert_eq!(rcu(&mut guest, "expedited", "grace_periods")?, 20 + reclaims);
    let shown = guest.command("rcu")?;
    let expedited = format!("expedited: {} grace periods", 20 + reclaims);
    assert!(shown.contains(&expedited) && shown.contains('#'), "{shown}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// On one CPU: under the instruction clock the turns of other CPUs count into what is measured.
#[test]
fn the_tree_has_the_fan_out_that_costs_least() -> Outcome {
    let mut guest = Vm::new().smp(1).icount().spawn()?;
    guest.prompt()?;
    let table = guest.command("cat /sys/kernel/quiesce/debug/rcu_fanout")?;
    println!("a grace period's bookkeeping by fan-out, ticks:\n{table}");
    for line in table.lines() {
        let ticks = |n: u32| number(&format!("kind=x {line}"), "x", &format!("fanout_{n}"));
        let least = ticks(8)?.min(ticks(16)?).min(ticks(32)?);
        assert!(ticks(64)? <= least + least / 50, "64 is not the best fan-out: {line}");
    }
    assert_eq!(table.lines().count(), 8, "{table}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// The other CPUs run untracked loops: a normal grace period waits for their switch or tick, an expedited one asks.
#[test]
fn expedited_takes_at_most_a_quarter_of_normal() -> Outcome {
    let mut guest = Vm::new().cmdline("hz=100").icount().spawn()?;
    guest.prompt()?;
    guest.command("run -c 1 spin & ; run -c 2 spin & ; run -c 3 spin & ; sleep 0.1")?;
    let normal = (rcu(&mut guest, "normal", "total_ns")?, rcu(&mut guest, "normal", "grace_periods")?);
    guest.command("echo normal 10 > /sys/kernel/quiesce/debug/rcu")?;
    guest.command("echo expedited 10 > /sys/kernel/quiesce/debug/rcu")?;
    let normal_ns = (rcu(&mut guest, "normal", "total_ns")? - normal.0)
        / (rcu(&mut guest, "normal", "grace_periods")? - normal.1).max(1);
    let expedited_ns = rcu(&mut guest, "expedited", "total_ns")? / 10;
    println!("mean of a normal grace period {normal_ns} ns, of an expedited one {expedited_ns} ns");
    assert!(expedited_ns * 4 <= normal_ns, "normal {normal_ns} ns, expedited {expedited_ns} ns");
    assert!(sent_by_rcu(&mut guest)? >= 30, "three CPUs, ten times");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// By the machine's own clock: seconds of one CPU's spinning are dear under the instruction clock.
#[test]
fn a_reader_that_does_not_end_is_named() -> Outcome {
    const STALL: &str = "/sys/kernel/quiesce/debug/rcu_stall";
    let mut guest = Vm::new().smp(2).cmdline("nohz_full=1 rcu_cpu_stall_timeout=3").spawn()?;
    guest.prompt()?;
    guest.command(&format!("run -c 1 sh -c 'echo 100000 > {STALL}' &"))?;
    while !guest.command(&format!("cat {STALL}"))?.contains("cpu=1\n") {}
    // It may be another grace period that waits for the reader: then this one comes after it.
    guest.command("run -c 0 sh -c 'echo normal 1 > /sys/kernel/quiesce/debug/rcu' &")?;
    let mut told = String::new();
    while told.matches("rcu:   0xffffffff8").count() < 3 {
        told = guest.command("dmesg")?;
    }
    guest.command(&format!("echo off 1 > {STALL}; wait %2"))?;
    assert!(told.contains("rcu: the normal grace period") && told.contains("for CPUs 1"), "{told}");
    assert!(told.contains("rcu: CPU 1: state kernel") && told.contains("(sh)"), "{told}");
    // Once, and again when three times as long has passed: a host that is slow may see that.
    let log = guest.command("dmesg")?;
    let time = |line: &str| line.trim_start_matches(['[', ' ']).split(']').next()?.parse::<f64>().ok();
    let told: Vec<f64> = log.lines().filter(|l| l.contains("rcu: the normal grace period")).filter_map(time).collect();
    assert_eq!(rcu(&mut guest, "normal", "stalls")?, told.len() as u64, "{log}");
    let (Some(first), Some(last)) = (told.first(), told.last()) else { return Err(Failed(log)) };
    // Each is printed a little after it was decided.
    assert!((told.len() - 1) as f64 * 9.0 <= last - first + 9.0, "{told:?}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// The driving CPU's own instructions for a grace period with all others idle; 128 CPUs cost at most 8 times what 16 cost.
#[test]
fn a_grace_period_costs_the_driver_little_more_with_more_cpus() -> Outcome {
    // The table of ARCHITECTURE.md has 4 and 64 too.
    let sizes: &[u32] = if std::env::var_os("QUIESCE_LONG").is_some() { &[16, 128, 4, 64] } else { &[16, 128] };
    let mut costs = Vec::new();
    for &cpus in sizes {
        let mut guest = Vm::new().smp(cpus).icount().limit(300).spawn()?;
        guest.prompt()?;
        guest.command("echo normal 20 > /sys/kernel/quiesce/debug/rcu")?;
        costs.push(rcu(&mut guest, "normal", "driver_least_ticks")?);
        guest.power_off()?.assert_clean();
    }
    println!("instructions of the driving CPU for a grace period at {sizes:?} CPUs: {costs:?}");
    assert!(costs[1] <= 8 * costs[0], "{costs:?}");
    Ok(())
}

//! Scenario: torture of RCU, of readers that sleep, of the context word, of live keys, of isolation and of leases against it, with a seed:
//! under the instruction clock, where a run repeats
//! exactly, and with a thread for each CPU. `make soak` runs it for hours.

use scenarios::{Failed, Outcome, Vm};

/// Virtual seconds under the instruction clock.
fn seconds() -> String {
    let long = if std::env::var_os("QUIESCE_LONG").is_some() { "60" } else { "5" };
    std::env::var("TORTURE_SECONDS").unwrap_or_else(|_| long.into())
}

/// One run; fails with the guest's own words.
fn torture(vm: Vm, kind: &str, seconds: &str, seed: u64) -> Result<String, Failed> {
    let mut guest = vm.spawn()?;
    guest.prompt()?;
    let told = guest.command(&format!("torture {kind} {seconds} {seed}"))?;
    let line = told.lines().find(|l| l.starts_with(&format!("torture {kind}: seed {seed}: ")));
    let line = line.ok_or_else(|| Failed(format!("torture {kind} {seconds} {seed} said: {told}")))?;
    println!("{line}");
    assert!(line.ends_with(", 0 failures") && !told.contains("torture failed"), "{told}");
    if kind == "keys" {
        println!("traps: {}", guest.command("cat /sys/kernel/quiesce/debug/traps")?.trim());
    }
    guest.power_off()?.assert_clean();
    Ok(told)
}

/// What is isolated at boot. Torture of isolation starts with nothing, so that its first flip parks all CPUs while they are busy.
fn isolated(kind: &str) -> &'static str {
    match kind {
        "isolate" => "",
        "lease" => "nohz_full=1-3",
        _ => "nohz_full=1",
    }
}

fn with_clock(kind: &str, seed: u64) -> Outcome {
    let told = torture(Vm::new().cmdline(isolated(kind)).icount().limit(1200), kind, &seconds(), seed)?;
    // No host puts a CPU aside here.
    assert!(!told.contains("answered late"), "{told}");
    Ok(())
}

/// The seed differs from run to run and is printed.
fn with_threads(kind: &str) -> Outcome {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_secs());
    let seconds = std::env::var("SOAK_SECONDS").unwrap_or_else(|_| "3".into());
    let limit = 300 + 2 * seconds.parse::<u64>().unwrap_or(0);
    torture(Vm::new().cmdline(isolated(kind)).limit(limit), kind, &seconds, now).map(drop)
}

#[test]
fn rcu_by_the_clock() -> Outcome {
    with_clock("rcu", 1)
}

#[test]
fn sleepy_readers_by_the_clock() -> Outcome {
    with_clock("srcu", 5)
}

#[test]
fn sleepy_readers_with_threads() -> Outcome {
    with_threads("srcu")
}

#[test]
fn context_by_the_clock() -> Outcome {
    with_clock("ctx", 2)
}

#[test]
fn keys_by_the_clock() -> Outcome {
    with_clock("keys", 3)
}

#[test]
fn isolation_by_the_clock() -> Outcome {
    with_clock("isolate", 4)
}

#[test]
fn leases_by_the_clock() -> Outcome {
    with_clock("lease", 5)
}

#[test]
fn leases_with_threads() -> Outcome {
    with_threads("lease")
}

#[test]
fn isolation_with_threads() -> Outcome {
    with_threads("isolate")
}

#[test]
fn rcu_with_threads() -> Outcome {
    with_threads("rcu")
}

#[test]
fn context_with_threads() -> Outcome {
    with_threads("ctx")
}

#[test]
fn keys_with_threads() -> Outcome {
    with_threads("keys")
}

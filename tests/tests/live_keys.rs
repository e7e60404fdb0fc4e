//! Scenario: trace points are switched on and off while all CPUs run through them. An isolated CPU hears nothing of it, no
//! program notices, and what the keys say is what is recorded.

use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm};

/// Keys go on and off so often in one line of the guest's shell.
const FLIPS: usize = 5;

fn flips() -> String {
    ["trace on sched timer ipi; trace off sched timer ipi"; FLIPS].join("; ")
}

/// The fields of CPU 1 that the test is about: state, entries, and what of synchronising text was sent to it and left for it.
fn cpu_1(guest: &mut Running) -> Result<(String, u64, u64, u64), Failed> {
    let field = |line: &str, name: &str| {
        line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_string()
    };
    let cpus = guest.command("cat /sys/kernel/quiesce/cpus")?;
    let line = cpus.lines().find(|line| line.starts_with("cpu=1 ")).unwrap_or_default();
    let entries = field(line, "entries=").parse().map_err(|_| Failed(cpus.clone()))?;
    let ledger = guest.command("cat /sys/kernel/quiesce/ipi")?;
    let of_sync = || ledger.lines().filter(|l| l.contains(" to=1 ") && l.contains(" cause=sync_core "));
    let sum = |name: &str| of_sync().filter_map(|line| field(line, name).parse::<u64>().ok()).sum();
    Ok((field(line, "state="), entries, sum("sent="), sum("avoided=")))
}

#[test]
fn flips_under_load_harm_nobody_and_an_isolated_cpu_hears_nothing() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1 trace_event=").spawn()?;
    guest.prompt()?;
    guest.command("run -c 2 busy 60 & run -c 3 busy 60 & run -c 0 busy 60 & run -c 1 spin --tell > /spin &")?;
    // Until then it has page faults.
    while !guest.command("cat /spin")?.contains("begins") {}
    let before = loop {
        let now = cpu_1(&mut guest)?;
        if now.0 == "user" {
            break now;
        }
    };
    for _ in 0..8 {
        let text = guest.command(&flips())?;
        assert!(!text.contains("trace:"), "{text}");
    }
    let after = cpu_1(&mut guest)?;
    assert_eq!((&after.0, after.1, after.2), (&before.0, before.1, before.2), "CPU 1 was disturbed");
    assert!(after.3 > before.3, "nothing was left for CPU 1");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// What /sys/kernel/quiesce/debug/traps says: breakpoints met that were listed, and others.
fn traps(guest: &mut Running) -> Result<(u64, u64), Failed> {
    let text = guest.command("cat /sys/kernel/quiesce/debug/traps")?;
    let number = |name: &str| text.split(name).nth(1)?.split_whitespace().next()?.parse().ok();
    number("listed=").zip(number("late=")).ok_or(Failed(text.clone()))
}

/// With virtual CPUs that take turns there is no translation that another CPU's write can overtake. The patching CPU meets its
/// own breakpoints too: its syncs send IPIs, and the key of that trace point is among those that are flipped.
#[test]
fn every_breakpoint_that_is_met_is_listed() -> Outcome {
    let mut guest = Vm::new().icount().cmdline("trace_event=").spawn()?;
    guest.prompt()?;
    guest.command("run -c 1 busy 30 & run -c 2 busy 30 & run -c 3 busy 30 &")?;
    let text = guest.command(&flips())?;
    assert!(!text.contains("trace:"), "{text}");
    let (listed, late) = traps(&mut guest)?;
    assert!(listed > 0, "no breakpoint was met");
    assert_eq!(late, 0, "of {listed} breakpoints");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn what_is_chosen_is_recorded_and_nothing_else() -> Outcome {
    let mut guest = Vm::new().cmdline("trace_event=").spawn()?;
    guest.prompt()?;
    assert!(guest.command("trace show")?.contains("no records"));
    guest.command("trace on sched")?;
    let text = guest.command("trace show")?;
    assert!(text.contains("sched_switch:"), "{text}");
    assert!(!text.contains("ipi_entry:") && !text.contains("timer_"), "{text}");
    guest.command("trace off sched; trace on timer; sleep 0.01")?;
    let chosen = guest.command("cat /sys/kernel/tracing/set_event")?;
    assert!(chosen.lines().all(|line| line.starts_with("timer:")) && !chosen.trim().is_empty(), "{chosen}");
    assert!(guest.command("trace show")?.contains("timer_start:"));
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn what_cannot_be_switched_is_named_and_changes_nothing() -> Outcome {
    let mut guest = Vm::new().cmdline("trace_event=sched").spawn()?;
    guest.prompt()?;
    let before = guest.command("cat /sys/kernel/tracing/set_event")?;
    for (word, said) in [
        ("syscalls", "trace: syscalls: is switched on at boot only (trace_event=syscalls)"),
        ("nonsense", "trace: nonsense: no such event"),
        ("-x", "trace: unknown argument -x"),
    ] {
        let text = guest.command(&format!("trace on {word}"))?;
        assert!(text.contains(said), "{word}: {text}");
    }
    let text = guest.command("echo nonsense > /sys/kernel/tracing/set_event")?;
    assert_eq!(text.trim(), "echo: Invalid argument");
    assert_eq!(guest.command("cat /sys/kernel/tracing/set_event")?, before);
    guest.power_off()?.assert_clean();
    Ok(())
}

//! Scenario: trace points are switched on and off while all CPUs run through them. An isolated CPU hears nothing of it, no
//! program notices, and what the keys say is what is recorded.

use scenarios::{Outcome, Vm};

/// Keys go on and off so often in one line of the guest's shell.
const FLIPS: usize = 5;

fn flips() -> String {
    ["trace on sched timer ipi; trace off sched timer ipi"; FLIPS].join("; ")
}

#[test]
fn flips_under_load_harm_nobody_and_an_isolated_cpu_hears_nothing() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1 trace_event=").spawn()?;
    guest.prompt()?;
    guest.command("run -c 2 busy 30 & run -c 3 busy 30 & run -c 0 busy 30 &")?;
    guest.command("noise -c 1 -s 3 > /noise &")?;
    for _ in 0..8 {
        let text = guest.command(&flips())?;
        assert!(!text.contains("trace:"), "{text}");
    }
    guest.command("wait %4")?;
    let quiet = guest.command("cat /noise")?;
    assert!(quiet.contains("kernel entries: 0\n"), "{quiet}");
    let deferred = guest.command("ipi")?;
    assert!(deferred.contains("sync_core"), "no text was synchronised: {deferred}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// With virtual CPUs that take turns there is no translation that another CPU's write can overtake.
#[test]
fn every_breakpoint_that_is_met_is_listed() -> Outcome {
    let mut guest = Vm::new().icount().cmdline("trace_event=").spawn()?;
    guest.prompt()?;
    guest.command("run -c 1 busy 30 & run -c 2 busy 30 & run -c 3 busy 30 &")?;
    let text = guest.command(&flips())?;
    assert!(!text.contains("trace:"), "{text}");
    assert_eq!(guest.command("cat /sys/kernel/quiesce/debug/late_traps")?.trim(), "0");
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

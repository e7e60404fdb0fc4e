//! Scenario: what `trace_event=` names is in set_event, what it names wrongly is said on the console; tracing_on and
//! tracing_cpumask decide who records; with nothing traced the interruption log says that it is off.

use scenarios::{Outcome, Vm};

const TRACING: &str = "/sys/kernel/tracing";

#[test]
fn files_and_masks() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3 trace_event=ipi,irq:irq_entry,rcus,sched:irq_exit").spawn()?;
    let boot = guest.prompt()?;
    for bad in ["trace_event=rcus: no such event or group", "trace_event=sched:irq_exit: no such event or group"] {
        assert!(boot.contains(bad), "{bad:?} is missing in:\n{boot}");
    }
    let events = guest.command(&format!("cat {TRACING}/set_event"))?;
    for event in ["irq:irq_entry", "ipi:ipi_entry", "ipi:ipi_exit", "ipi:ipi_send_cpu"] {
        assert!(events.lines().any(|l| l == event), "{event} is missing in {events}");
    }
    assert!(!events.contains("irq_exit"), "{events}");
    assert!(guest.command(&format!("cat {TRACING}/tracing_cpumask"))?.contains('f'));
    let inject = "echo 1 > /sys/kernel/quiesce/inject_ipi";
    let count = |text: String| text.matches("ipi_entry: cause=call_function sender_cpu=").count();
    let trace = format!("cat {TRACING}/per_cpu/cpu1/trace");
    guest.command(inject)?;
    assert_eq!(count(guest.command(&trace)?), 1);
    // Off by the switch, then by the mask: nothing more is recorded, and what is there stays.
    guest.command(&format!("echo 0 > {TRACING}/tracing_on; {inject}; echo 1 > {TRACING}/tracing_on"))?;
    guest.command(&format!("echo 1 > {TRACING}/tracing_cpumask; {inject}; echo f > {TRACING}/tracing_cpumask"))?;
    assert_eq!(count(guest.command(&trace)?), 1);
    guest.command(&format!("{inject}; {inject}"))?;
    assert_eq!(count(guest.command(&trace)?), 3);
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn without_events_nothing_is_kept_and_that_is_said() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3 trace_event=").spawn()?;
    guest.prompt()?;
    let log = guest.command("echo 1 > /sys/kernel/quiesce/inject_ipi; log")?;
    assert!(log.contains("the log is off: trace_event= names neither irq nor ipi"), "{log}");
    assert!(!guest.command(&format!("cat {TRACING}/trace"))?.contains("ipi"));
    guest.power_off()?.assert_clean();
    Ok(())
}

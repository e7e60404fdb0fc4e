//! Scenario: a panic in an NMI that came while the console was held, and one whose epitaph panics too, still tell the last events of all
//! CPUs on the console, and `host trace` decodes them from the log.

use host::qemu::End;
use host::trace::stream;
use scenarios::{Failed, Outcome, Vm};

/// What the guest printed up to its end, after `kind` was written to the lever.
fn panics(kind: &str) -> Result<String, Failed> {
    let mut guest = Vm::new().cmdline("nohz_full=3 trace_event=irq,sched").spawn()?;
    guest.prompt()?;
    // Each CPU has something to tell.
    for cpu in 0..4 {
        guest.command(&format!("run -c {cpu} true"))?;
    }
    guest.send(&format!("run -c 2 sh -c 'echo {kind} > /sys/kernel/quiesce/debug/panic'\n"))?;
    let finished = guest.finish()?;
    assert_eq!(finished.end, End::Panic, "{}", finished.output);
    Ok(finished.output)
}

/// The trace that the log holds has records of all CPUs, and none was damaged.
fn decoded(log: &str) -> stream::Trace {
    let bytes = stream::console_dump(log.as_bytes()).unwrap_or_else(|| panic!("no trace in {log}"));
    let trace = stream::decode(&bytes);
    assert!(trace.undecodable.is_empty(), "{:?}", trace.undecodable);
    assert_eq!((trace.account.skipped_bytes, trace.has_clocks()), (0, true));
    for cpu in 0..4 {
        assert!(trace.entries.iter().any(|e| e.cpu == cpu), "nothing of CPU {cpu} in {log}");
    }
    trace
}

#[test]
fn in_an_nmi_with_the_console_held() -> Outcome {
    let log = panics("nmi")?;
    assert!(log.contains("asked for, in an NMI") && log.contains("end of epitaph"), "{log}");
    let trace = decoded(&log);
    // The last that the CPU did: that NMI.
    let last = trace.entries.iter().rfind(|e| e.cpu == 2).map(|e| trace.line(e)).unwrap_or_default();
    assert!(last.contains("nmi_entry"), "{last}");
    Ok(())
}

#[test]
fn with_a_panic_inside() -> Outcome {
    let log = panics("nested")?;
    assert!(log.contains("with a second one inside") && log.contains("panic inside a panic"), "{log}");
    assert!(!log.contains("end of epitaph"), "the second panic was to come in the epitaph: {log}");
    decoded(&log);
    Ok(())
}

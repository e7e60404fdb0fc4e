//! Scenario: a panic in an NMI that came while the console was held, and one whose epitaph panics too, still tell the last events of all
//! CPUs on the console, and `host trace` decodes them from the log. So does one with an NMI before each of its lines, and a double fault, which
//! names the stack that was too small.

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
fn with_an_nmi_before_each_line() -> Outcome {
    let log = panics("nmis")?;
    assert!(log.contains("asked for, with NMIs all along") && log.contains("end of epitaph"), "{log}");
    let nmis = log.lines().find(|line| line.starts_with("transitions ")).and_then(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        words.iter().position(|word| *word == "NMIs").and_then(|at| words[at - 1].parse::<u32>().ok())
    });
    // Before the line that counts them, those of the panic's own line, of the CPU's and of this one.
    assert!(nmis >= Some(3), "{log}");
    decoded(&log);
    Ok(())
}

#[test]
fn of_a_stack_that_was_too_small() -> Outcome {
    let log = panics("stack")?;
    assert!(log.contains("kernel panic: double fault ") && log.contains("end of epitaph"), "{log}");
    let told = log.lines().find(|line| line.contains("the address of the last page fault, lies ")).unwrap_or_default();
    assert!(told.contains(" bytes below the kernel stack of task ") && told.ends_with(" (sh)"), "{told:?} in {log}");
    decoded(&log);
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

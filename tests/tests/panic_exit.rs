//! Scenario: a kernel panic prints an epitaph that names CPU, task and context word, ends QEMU with the failure code,
//! and the runner resolves its backtrace to source lines.

use host::qemu::End;
use scenarios::{Outcome, Vm, run_smp::run_smp};

/// Linux's way to crash a kernel on purpose.
const CRASH: &str = "echo c > /proc/sysrq-trigger";

#[test]
fn epitaph_and_failure_code() -> Outcome {
    let mut guest = Vm::new().spawn()?;
    guest.prompt()?;
    guest.send(&format!("{CRASH}\n"))?;
    let finished = guest.finish()?;
    assert_eq!(finished.end, End::Panic, "{}", finished.output);
    for wanted in [
        "kernel panic",
        "sysrq",
        "\ncpu ",
        "context word",
        "task ",
        "last transitions:",
        "[00",
        "backtrace:",
        "end of epitaph",
    ] {
        assert!(finished.output.contains(wanted), "{wanted:?} is missing:\n{}", finished.output);
    }
    Ok(())
}

#[test]
fn runner_resolves_the_backtrace() -> Outcome {
    let variables = [("LOADER", "direct"), ("ACCEL", "tcg"), ("TIMEOUT", "300")];
    let run = run_smp(&variables, &format!("{CRASH}\n"))?;
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("run-smp: backtrace"), "{}", run.stderr);
    assert!(run.stderr.contains(" at kernel/src/"), "{}", run.stderr);
    Ok(())
}

#[test]
fn a_missing_init_is_named_and_ends_the_machine() -> Outcome {
    let finished = Vm::new().cmdline("init=/no/such/init").spawn()?.finish()?;
    assert_eq!(finished.end, End::Panic, "{}", finished.output);
    assert!(finished.output.contains("cannot go on: /no/such/init"), "{}", finished.output);
    Ok(())
}

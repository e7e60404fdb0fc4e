//! Scenario: a kernel panic prints an epitaph that names CPU, task and context word, ends QEMU with the failure code,
//! and the runner resolves its backtrace to source lines.

use host::qemu::End;
use scenarios::{Outcome, Vm, run_smp::run_smp};

/// Nothing can be started with this, which is the end of any kernel.
const NO_INIT: &str = "init=/no/such/init";

#[test]
fn epitaph_and_failure_code() -> Outcome {
    let finished = Vm::new().cmdline(NO_INIT).spawn()?.finish()?;
    assert_eq!(finished.end, End::Panic, "{}", finished.output);
    for wanted in ["kernel panic", "/no/such/init", "context word", "task ", "backtrace:", "end of epitaph"] {
        assert!(finished.output.contains(wanted), "{wanted:?} is missing:\n{}", finished.output);
    }
    Ok(())
}

#[test]
fn runner_resolves_the_backtrace() -> Outcome {
    let variables = [("LOADER", "direct"), ("ACCEL", "tcg"), ("TIMEOUT", "120"), ("CMDLINE", NO_INIT)];
    let run = run_smp(&variables, "")?;
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stderr.contains("run-smp: backtrace"), "{}", run.stderr);
    assert!(run.stderr.contains(" at kernel/src/"), "{}", run.stderr);
    Ok(())
}

//! Scenario: the guest program `calls` finds that every system call about processes, signals, memory, threads and time does what
//! Linux's does, on one CPU and on several, with and without tracked CPUs.

use scenarios::{Outcome, Vm};

fn all_checks_pass(vm: Vm, words: &str) -> Outcome {
    // Some hundred checks, each in a process of its own, on the debug build too.
    let finished = vm.limit(300).cmdline(&format!("trace_event= init=/bin/calls {words}")).spawn()?.finish()?;
    finished.assert_clean();
    assert!(!finished.output.contains("FAILED "), "{}", finished.output);
    assert!(finished.output.contains("ok each_listed_call"), "{}", finished.output);
    let sum = finished.output.lines().find(|l| l.starts_with("calls: ")).unwrap_or_default();
    let numbers: Vec<usize> = sum.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    assert!(matches!(numbers[..], [passed, all] if passed == all && all > 130), "{sum:?}\n{}", finished.output);
    Ok(())
}

#[test]
fn one_cpu() -> Outcome {
    all_checks_pass(Vm::new().smp(1), "")
}

#[test]
fn four_cpus() -> Outcome {
    all_checks_pass(Vm::new().smp(4), "")
}

#[test]
fn two_of_four_tracked() -> Outcome {
    all_checks_pass(Vm::new().smp(4), "nohz_full=2-3")
}

#[test]
fn two_cpus_by_instruction_count() -> Outcome {
    all_checks_pass(Vm::new().smp(2).icount(), "")
}

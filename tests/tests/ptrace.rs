//! Scenario: programs are traced by ptrace(2): each request of the guest program `calls`, on one CPU and on several.

use scenarios::{Outcome, Vm};

fn all_pass(vm: Vm, words: &str, at_least: usize) -> Outcome {
    let finished = vm.cmdline(&format!("trace_event= init=/bin/calls {words}")).spawn()?.finish()?;
    finished.assert_clean();
    assert!(!finished.output.contains("FAILED "), "{}", finished.output);
    let sum = finished.output.lines().find(|l| l.starts_with("calls: ")).unwrap_or_default();
    let numbers: Vec<usize> = sum.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    assert!(matches!(numbers[..], [passed, all] if passed == all && all >= at_least), "{sum:?}\n{}", finished.output);
    Ok(())
}

#[test]
fn every_request() -> Outcome {
    all_pass(Vm::new().smp(1), "ptrace", 23)
}

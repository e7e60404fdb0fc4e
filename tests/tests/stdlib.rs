//! Scenario: a program that uses Rust's standard library (threads, channels, files, processes, panics, time) prints on Quiesce what it
//! prints on Debian's Linux. That output is kept in tests/expected/stdlib.txt; `make compare` boots Debian's kernel and compares it.

use scenarios::{Outcome, Vm};

fn same_as_on_linux(vm: Vm, words: &str) -> Outcome {
    let finished = vm.cmdline(&format!("trace_event= init=/bin/stdlib {words}")).spawn()?.finish()?;
    finished.assert_clean();
    let (told, expected) = (host::compare_output::told(&finished.output), include_str!("../expected/stdlib.txt"));
    assert!(told == expected, "{}\n{}", host::compare_output::difference(expected, &told), finished.output);
    Ok(())
}

#[test]
fn one_cpu() -> Outcome {
    same_as_on_linux(Vm::new().smp(1), "")
}

#[test]
fn four_cpus_two_tracked() -> Outcome {
    same_as_on_linux(Vm::new().smp(4), "nohz_full=2-3")
}

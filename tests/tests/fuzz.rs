//! Scenario: random system calls with random arguments, under signals and NMIs on all CPUs, neither take the kernel down
//! nor leave a task or memory behind. The seed is in the output; `fuzz -s SEED -f N -n 1` in the guest repeats child N.

use scenarios::{Failed, Outcome, Vm};

/// One run of at least so many calls.
fn fuzz(vm: Vm, words: &str, calls: u64) -> Outcome {
    // The drain of the trace keeps names of tasks, which would count as left over.
    let mut guest = vm.cmdline("nohz_full=3 trace_event= quiet").spawn()?;
    guest.prompt()?;
    let text = guest.command(&format!("fuzz {words}"))?;
    let line = text.lines().rfind(|l| l.starts_with("fuzz: seed ")).unwrap_or_default();
    println!("{line}");
    let made = line.split(": ").nth(2).and_then(|t| t.split(' ').next()?.parse::<u64>().ok());
    let made = made.ok_or_else(|| Failed(format!("no count of calls: {text}")))?;
    assert!((calls..2 * calls).contains(&made), "{text}");
    assert!(text.contains("fuzz: nothing left over"), "{text}");
    assert_eq!(guest.command("echo still here")?.trim(), "still here");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// All that a run says under the instruction clock, typed by nobody: the fuzzer is process 1.
fn by_instruction_clock(seed: u64) -> Result<String, Failed> {
    let words = format!("nohz_full=1 trace_event= quiet init=/bin/fuzz -s {seed} -n 6");
    let finished = Vm::new().smp(2).icount().limit(300).cmdline(&words).spawn()?.finish()?;
    finished.assert_clean();
    let line = finished.output.lines().rfind(|l| l.starts_with(&format!("fuzz: seed {seed}: "))).unwrap_or_default();
    assert!(line.contains(" calls by 6 children on 2 CPUs ended") && line.contains(", digest "), "{}", finished.output);
    Ok(line.trim_end().to_string())
}

#[test]
fn a_seed_repeats_its_run_under_the_instruction_clock() -> Outcome {
    let digest = |line: &str| line.split(", digest ").nth(1).map(str::to_string);
    let first = by_instruction_clock(20_261_123)?;
    println!("{first}");
    // Calls, children that were killed, NMIs, and what each call gave.
    assert_eq!(by_instruction_clock(20_261_123)?, first);
    let other = by_instruction_clock(20_261_124)?;
    assert!(digest(&other).is_some() && digest(&other) != digest(&first), "{first}\n{other}");
    Ok(())
}

#[test]
fn the_kernel_outlives_random_system_calls() -> Outcome {
    // `make soak` says how many; `make test-long` and it take a seed of their own each time, or that of FUZZ_SEED.
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(calls) = number("FUZZ_CALLS") {
        let seed = number("FUZZ_SEED").map_or(String::new(), |seed| format!("-s {seed} "));
        return fuzz(Vm::new().limit(300 + calls / 1000), &format!("{seed}-c {calls}"), calls);
    }
    match (std::env::var_os("QUIESCE_LONG"), std::env::var("PROFILE").as_deref()) {
        (Some(_), _) => fuzz(Vm::new().limit(1200), "-c 1000000", 1_000_000),
        // The debug build checks more and is slower.
        (None, Ok("debug")) => fuzz(Vm::new().limit(300), "-s 20261122 -c 30000", 30_000),
        (None, _) => fuzz(Vm::new().limit(300), "-s 20261122 -c 200000", 200_000),
    }
}

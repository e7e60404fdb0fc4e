//! Scenario: random system calls with random arguments do not take the kernel down. The seed is in the output;
//! `fuzz -s SEED -f N -n 1` in the guest repeats child N.

use scenarios::{Outcome, Vm};

#[test]
fn the_kernel_outlives_random_system_calls() -> Outcome {
    // `make test-long` takes a seed of its own each time.
    let (words, limit) = match std::env::var_os("QUIESCE_LONG") {
        Some(_) => ("-n 2000", 600),
        None => ("-s 20261122 -n 100", 120),
    };
    let mut guest = Vm::new().cmdline("nohz_full=3").limit(limit).spawn()?;
    guest.prompt()?;
    let text = guest.command(&format!("fuzz {words}"))?;
    println!("{}", text.lines().find(|l| l.starts_with("fuzz: seed ")).unwrap_or_default());
    assert!(text.contains(" children ended, "), "{text}");
    assert_eq!(guest.command("echo still here")?.trim(), "still here");
    guest.power_off()?.assert_clean();
    Ok(())
}

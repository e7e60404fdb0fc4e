//! Scenario: each allocation of a fork, an exec and an exit fails once. The program is refused or killed, memory comes back, and the
//! others go on; also where `fail_alloc=` fails one of whoever comes.

use scenarios::{Outcome, Vm};

#[test]
fn every_allocation_of_fork_exec_exit_fails_once() -> Outcome {
    let mut guest = Vm::new().smp(2).cmdline("trace_event= quiet").limit(300).spawn()?;
    guest.prompt()?;
    // What it takes to begin is in use before the first look at memory.
    guest.command("spin --tell > /spin &")?;
    while !guest.command("cat /spin")?.contains("begins") {}
    let told = guest.command("enomem")?;
    for what in ["fork", "exec"] {
        let line = told.lines().find(|l| l.starts_with(&format!("enomem: {what}: each of "))).unwrap_or_default();
        println!("{line}");
        assert!(line.ends_with("nothing left over"), "{told}");
        let count = line.split(" of ").nth(1).and_then(|t| t.split(' ').next()?.parse::<u32>().ok()).unwrap_or(0);
        assert!(count > 20, "{told}");
    }
    // Another task went on all the time.
    assert!(guest.command("ps")?.contains("spin"), "{told}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn one_of_all_programs() -> Outcome {
    let mut guest = Vm::new().smp(2).cmdline("trace_event= fail_alloc=3000").spawn()?;
    guest.prompt()?;
    // Whoever makes that one: something fails, and all else goes on.
    let mut told = String::new();
    for _ in 0..50 {
        told += &guest.command("busy 0.1")?;
        if told.contains("fail_alloc: an allocation of ") {
            break;
        }
    }
    assert!(told.contains("fail_alloc: an allocation of "), "{told}");
    assert_eq!(guest.command("echo still here")?.trim(), "still here");
    guest.power_off()?.assert_clean();
    Ok(())
}

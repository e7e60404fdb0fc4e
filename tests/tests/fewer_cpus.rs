//! Scenario: parameters that leave CPUs unused. The others work, and the unused ones do no harm.

use scenarios::{Outcome, Vm};

fn online(parameters: &str, count: &str, list: &str) -> Outcome {
    let mut guest = Vm::new().cmdline(parameters).spawn()?;
    let boot = guest.prompt()?;
    assert!(boot.contains(&format!("] {count} of 4 CPUs up")), "{boot}");
    assert_eq!(guest.command("cat /sys/devices/system/cpu/online")?.trim(), list);
    let load = guest.command("busy 0.3")?;
    assert!(load.contains("operations") && !load.contains("left out"), "{load}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn maxcpus() -> Outcome {
    online("maxcpus=2", "2", "0-1")
}

#[test]
fn maxcpus_with_isolated_cpus_that_are_not_started() -> Outcome {
    online("maxcpus=2 nohz_full=1-3", "2", "0-1")
}

#[test]
fn nosmp() -> Outcome {
    online("nosmp", "1", "0")
}

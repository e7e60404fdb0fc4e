//! Scenario: 64 CPUs in 4 GiB boot, and all of them are online.

use scenarios::{Outcome, Vm};

#[test]
fn sixty_four_cpus_in_4_gib() -> Outcome {
    let mut guest = Vm::new().smp(64).mem("4G").spawn()?;
    guest.prompt()?;
    let online = guest.command("cat /sys/devices/system/cpu/online")?;
    assert_eq!(online.trim(), "0-63");
    guest.power_off()?.assert_clean();
    Ok(())
}

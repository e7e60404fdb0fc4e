//! Scenario: few and many CPUs in little and much memory boot, all CPUs are online and do work, and one is left alone.

use scenarios::{Outcome, Vm};

fn all_online(cpus: u32, mem: &str, list: &str) -> Outcome {
    let mut guest = Vm::new().smp(cpus).mem(mem).spawn()?;
    guest.prompt()?;
    assert_eq!(guest.command("cat /sys/devices/system/cpu/online")?.trim(), list);
    let load = guest.command("busy 0.2")?;
    assert!(load.contains("operations") && !load.contains("left out"), "{load}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn one_cpu_in_4_gib() -> Outcome {
    all_online(1, "4G", "0")
}

#[test]
fn two_cpus_in_128_mib() -> Outcome {
    all_online(2, "128M", "0-1")
}

#[test]
fn sixty_four_cpus_in_128_mib() -> Outcome {
    all_online(64, "128M", "0-63")
}

#[test]
fn sixty_four_cpus_in_4_gib_of_which_most_are_isolated() -> Outcome {
    let mut guest = Vm::new().smp(64).mem("4G").cmdline("nohz_full=2-63").spawn()?;
    guest.prompt()?;
    assert_eq!(guest.command("cat /sys/devices/system/cpu/online")?.trim(), "0-63");
    guest.command("busy 0.5 &")?;
    let quiet = guest.command("noise -c 63 -s 0.3")?;
    assert!(quiet.contains("kernel entries: 0\n") && quiet.contains("cpu 63 (isolated)"), "{quiet}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn two_hundred_and_fifty_five_cpus_and_their_tables() -> Outcome {
    let mut guest = Vm::new().smp(255).cmdline("nohz_full=2-254").spawn()?;
    let boot = guest.prompt()?;
    assert!(boot.contains("255 of 255 CPUs up"), "{boot}");
    let cpus = guest.command("cpus")?;
    let rows: Vec<&str> = cpus.lines().filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!(rows.len(), 255, "{cpus}");
    assert!(rows.iter().all(|row| row.len() < 100), "{cpus}");
    assert!(guest.command("why 254")?.contains("tick OFF"));
    assert!(guest.command("ps")?.contains("/init"));
    let table = guest.command("cat /proc/interrupts")?;
    let mut rows = table.lines();
    assert!(rows.next().is_some_and(|head| head.contains("CPU254")), "{table}");
    assert!(rows.any(|row| row.starts_with("LOC:") && row.split_whitespace().count() > 255), "{table}");
    guest.power_off()?.assert_clean();
    Ok(())
}

//! Scenario: an isolated CPU stays undisturbed, and an injected interrupt arrives once and is named, with the local APIC in
//! either mode.

use scenarios::{Outcome, Vm};

fn quiet_then_one_interrupt(vm: Vm, mode: &str) -> Outcome {
    let mut guest = vm.cmdline("nohz_full=1-3").spawn()?;
    let boot = guest.prompt()?;
    assert!(boot.contains(&format!("APIC in {mode} mode")), "{boot}");
    let quiet = guest.command("noise -c 1 -s 0.5")?;
    assert!(quiet.contains("kernel entries: 0\n") && quiet.contains("cpu 1 (isolated)"), "{quiet}");
    let hit = guest.command("noise -c 1 -s 0.5 --inject-ipi")?;
    assert!(hit.contains("kernel entries: 1\n"), "{hit}");
    let row = hit.lines().find(|l| l.starts_with("call_function")).unwrap_or("no row of that cause");
    assert!(row.contains(" cpu0 noise/") && row.contains(" at kernel/src/"), "{row} in:\n{hit}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn xapic() -> Outcome {
    quiet_then_one_interrupt(Vm::new().cpu("max,-x2apic"), "xAPIC")
}

#[test]
fn x2apic() -> Outcome {
    quiet_then_one_interrupt(Vm::new().cpu("max"), "x2APIC")
}

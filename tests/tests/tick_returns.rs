//! Scenario: two runnable tasks on an isolated CPU bring its tick back, `why` names who holds it, and the tick goes
//! when one of them ends.

use scenarios::{Outcome, Vm};

#[test]
fn why_names_dependency_and_task() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").icount().spawn()?;
    guest.prompt()?;
    guest.command("run -c 1 spin &")?;
    let alone = guest.command("why 1")?;
    assert!(alone.contains("OFF"), "one task: {alone}");
    guest.command("run -c 1 spin &")?;
    let two = guest.command("sleep 0.1; why 1")?;
    assert!(two.contains("ON") && two.contains("sched") && two.contains("spin"), "two tasks: {two}");
    guest.command("kill %2")?;
    let again = guest.command("sleep 0.1; why 1")?;
    assert!(again.contains("OFF"), "one task again: {again}");
    guest.power_off()?.assert_clean();
    Ok(())
}

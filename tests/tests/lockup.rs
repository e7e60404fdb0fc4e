//! Scenario: a CPU that hangs in the kernel, with interrupts on or off, is told by the watchdog with its task and its stack.

use scenarios::{Outcome, Vm};

#[test]
fn a_cpu_that_hangs_is_named() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=3 watchdog_thresh=1").spawn()?;
    guest.prompt()?;
    assert_eq!(guest.command("cat /proc/sys/kernel/watchdog_thresh")?.trim(), "1");
    for kind in ["hard", "soft"] {
        let title = format!("watchdog: BUG: {kind} lockup - CPU#3 stuck for ");
        // Returns when the watchdog has told this CPU; it never sits on an isolated one.
        let mut hang = || guest.command(&format!("run -c 3 sh -c 'echo {kind} > /sys/kernel/quiesce/debug/lockup'"));
        let mut told = hang()?;
        // A CPU that the host does not run at all takes no NMI, and is said not to: then there is no stack, and it hangs once more.
        while told.contains("(the CPU takes no NMI)") {
            told = hang()?;
        }
        // Another CPU may be told beside it, where the host does not run that one for a second.
        let mut lines = told.lines().skip_while(|l| !l.contains(&title));
        assert!(lines.next().is_some_and(|line| line.contains("[sh:")), "{told}");
        let addresses = lines.take_while(|l| l.contains("watchdog:   0xffffffff8")).count();
        assert!(addresses >= 3, "a stack: {told}");
    }
    guest.power_off()?.assert_clean();
    Ok(())
}

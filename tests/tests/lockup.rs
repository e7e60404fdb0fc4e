//! Scenario: a CPU that hangs in the kernel, with interrupts on or off, is told by the watchdog with its task and its stack.

use scenarios::{Outcome, Vm};

#[test]
fn a_cpu_that_hangs_is_named() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=3 watchdog_thresh=1").spawn()?;
    guest.prompt()?;
    assert_eq!(guest.command("cat /proc/sys/kernel/watchdog_thresh")?.trim(), "1");
    for kind in ["hard", "soft"] {
        let title = format!("watchdog: BUG: {kind} lockup - CPU#3 stuck for ");
        // Returns when the watchdog has told it; it never sits on an isolated CPU. Another CPU that is told meanwhile, since the host does not run
        // that one for a second, ends the hang before its time: then once more. The guest's limit ends this.
        loop {
            let told = guest.command(&format!("run -c 3 sh -c 'echo {kind} > /sys/kernel/quiesce/debug/lockup'"))?;
            let mut lines = told.lines().skip_while(|l| !l.contains(&title));
            let named = lines.next().is_some_and(|line| line.contains("[sh:"));
            if named && lines.take_while(|l| l.contains("watchdog:   0xffffffff8")).count() >= 3 {
                break;
            }
            println!("not this time: {told}");
        }
    }
    guest.power_off()?.assert_clean();
    Ok(())
}

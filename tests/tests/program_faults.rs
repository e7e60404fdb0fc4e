//! Scenario: a program that faults is killed; a line names it, its fault and the place, and the shell goes on.

use scenarios::{Outcome, Vm};

/// What `crash` is told, what the kernel says, what the shell says.
const FAULTS: [(&str, &str, &str); 8] = [
    ("null", "segfault at 0 ip ", "SIGSEGV"),
    ("text", "error 7", "SIGSEGV"),
    ("kernel", "segfault at ffffffff80000000 ip ", "SIGSEGV"),
    ("stack", "segfault at 7ff", "SIGSEGV"),
    ("priv", "general protection fault ip ", "SIGSEGV"),
    ("jump", "general protection fault ip ", "SIGSEGV"),
    ("div", "divide error ip ", "SIGFPE"),
    ("ud", "invalid opcode ip ", "SIGILL"),
];

#[test]
fn each_is_named_and_the_shell_goes_on() -> Outcome {
    let mut guest = Vm::new().spawn()?;
    guest.prompt()?;
    for (kind, kernel, signal) in FAULTS {
        let text = guest.command(&format!("crash {kind}"))?;
        let line = text.lines().find(|l| l.contains(" crash[")).unwrap_or("no line of the kernel");
        assert!(line.contains(kernel), "crash {kind}: {line} in:\n{text}");
        assert!(text.contains(&format!("crash {kind}: killed by {signal}")), "crash {kind}: {text}");
    }
    assert_eq!(guest.command("echo still here")?.trim(), "still here");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn on_an_isolated_cpu_too() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").spawn()?;
    guest.prompt()?;
    let text = guest.command("run -c 2 crash null")?;
    assert!(text.contains("crash[") && text.contains("segfault at 0 ip "), "{text}");
    let quiet = guest.command("noise -c 2 -s 0.2")?;
    assert!(quiet.contains("kernel entries: 0\n"), "{quiet}");
    guest.power_off()?.assert_clean();
    Ok(())
}

//! Scenario: what the shell and the terminal do together: pipes, jobs, kill, Ctrl-C, end of file, line editing.

use scenarios::{Outcome, Vm};

/// Ctrl-C.
const INTERRUPT: &str = "\x03";
/// Ctrl-D.
const END_OF_FILE: &str = "\x04";

#[test]
fn pipes_carry_all_of_it() -> Outcome {
    let mut guest = Vm::new().spawn()?;
    guest.prompt()?;
    assert_eq!(guest.command("echo one two | cat | cat | cat")?.trim(), "one two");
    let direct = guest.command("cat /bin/box | cat | cat > /tmp/copy; ls -l /bin/box /tmp/copy")?;
    let sizes: Vec<_> =
        direct.lines().filter_map(|l| l.split_whitespace().find(|w| w.len() > 4 && w.parse::<u64>().is_ok())).collect();
    assert!(sizes.len() == 2 && sizes[0] == sizes[1], "both have one length: {direct}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn background_jobs_are_listed_and_killed() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").spawn()?;
    guest.prompt()?;
    assert!(guest.command("run -c 1 spin &")?.contains("[1] "));
    assert!(guest.command("sleep 1000 &")?.contains("[2] "));
    let jobs = guest.command("jobs")?;
    assert!(jobs.contains("[1] running") && jobs.contains("[2] running"), "{jobs}");
    let killed = guest.command("kill %1; kill %2; wait; jobs")?;
    assert!(killed.contains("killed by SIGTERM") && !killed.contains("running"), "{killed}");
    assert_eq!(guest.command("jobs")?.trim(), "");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn ctrl_c_ends_the_foreground_job_only() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").spawn()?;
    guest.prompt()?;
    guest.command("sleep 1000 &")?;
    // Each tells by its output that it runs before it is interrupted, and then forks no more.
    guest.send("sh -c 'sh -c \"echo waiting; exec spin\"'\n")?;
    guest.expect("\r\nwaiting\r\n")?;
    guest.send(INTERRUPT)?;
    guest.prompt()?;
    guest.send("sh -c 'run -c 1 sh -c \"echo waiting; exec spin\"' | cat\n")?;
    guest.expect("\r\nwaiting\r\n")?;
    guest.send(INTERRUPT)?;
    guest.prompt()?;
    guest.command("noise -c 1 -s 0.1 --inject-ipi")?;
    guest.send("log -f\n")?;
    guest.expect(" call_function from cpu0 noise/")?;
    guest.send(INTERRUPT)?;
    guest.prompt()?;
    let jobs = guest.command("jobs")?;
    assert!(jobs.contains("[1] running"), "the job in the background goes on: {jobs}");
    // Nobody waits for the children of what was interrupted: the last of them may still be on its way out. The guest's own limit ends a
    // wait for one that stays.
    loop {
        let left = guest.command("ps")?;
        if !left.contains("spin") && !left.contains("log") {
            break;
        }
    }
    assert!(guest.command("exec nonsense; exec; echo still here")?.contains("nonsense: command not found"));
    let text = guest.command("sh -c 'exec nonsense; echo not''here'; sh -c 'exec uname; echo not''here'; echo $?")?;
    assert!(text.contains("nonsense: command not found") && text.contains("Linux\n0"), "{text}");
    assert!(!text.lines().any(|line| line.trim() == "nothere"), "{text}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn the_terminal_edits_lines_and_ends_input() -> Outcome {
    let mut guest = Vm::new().spawn()?;
    guest.prompt()?;
    // Ctrl-U drops the line, DEL the last character, Ctrl-C a half line.
    guest.send("nonsense\x15echo abX\x7fc\n")?;
    guest.expect("\r\nabc\r\n")?;
    guest.prompt()?;
    guest.send("half a line")?;
    guest.send(INTERRUPT)?;
    guest.prompt()?;
    guest.send("cat\n")?;
    guest.expect("cat\r\n")?;
    guest.send("to cat\n")?;
    guest.expect("to cat\r\nto cat\r\n")?;
    guest.send(END_OF_FILE)?;
    guest.prompt()?;
    guest.power_off()?.assert_clean();
    Ok(())
}

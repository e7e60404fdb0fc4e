//! Scenario: how much memory the kernel has for itself, and that processes which came and went leave nothing of it behind.

use scenarios::{Outcome, Vm};

/// What may be in use when the first program runs: image, page tables, frame table, stacks, rings of 4 CPUs; without the content of files.
const MOST_KB: u64 = 8 << 10;

/// On the machine of `make run-smp` as it comes. At the prompt two programs and the trace's thread run already.
#[test]
fn eight_mib_at_the_prompt() -> Outcome {
    let mut guest = Vm::new().spawn()?;
    guest.prompt()?;
    let told = guest.command("free")?;
    let row = told.lines().find(|l| l.starts_with("Mem:")).unwrap_or_default();
    let numbers: Vec<u64> = row.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [total, used, free, cached, _] = numbers[..] else { panic!("{told}") };
    println!("{used} kB in use of {total}; {free} kB free, {cached} kB in files");
    assert!(cached > 4 << 10 && used + free + cached == total, "{told}");
    // Debug builds have a larger image, and larger stacks.
    let most = if std::env::var("PROFILE").as_deref() == Ok("debug") { 2 * MOST_KB } else { MOST_KB };
    assert!(used <= most, "{used} kB are in use: {told}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// Tasks, page frames and bytes of the kernel's heap are exactly what they were.
#[test]
fn ten_thousand_programs_leave_nothing_behind() -> Outcome {
    let times = if std::env::var("PROFILE").as_deref() == Ok("debug") { 1000 } else { 10_000 };
    let mut guest = Vm::new().cmdline("trace_event=").limit(600).spawn()?;
    guest.prompt()?;
    let told = guest.command(&format!("respawn {times}"))?;
    assert!(told.contains(&format!("respawn: {times} times fork, execve, exit: ")), "{told}");
    println!("{told}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// init takes all orphans over, and what it needed for that goes back with them. So does what a table needed for its first entry, with the last:
/// names of sockets, locks and who waits for them.
#[test]
fn a_crowd_of_orphans_and_tables_that_were_empty_leave_nothing_behind() -> Outcome {
    let mut guest = Vm::new().cmdline("trace_event=").limit(300).spawn()?;
    guest.prompt()?;
    for (words, what) in [("orphans 600", "600 orphans at once"), ("tables 20", "20 entries in tables")] {
        let told = guest.command(&format!("respawn {words}"))?;
        println!("{told}");
        assert!(told.contains(&format!("respawn: {what}: nothing left over: ")), "{told}");
    }
    guest.power_off()?.assert_clean();
    Ok(())
}

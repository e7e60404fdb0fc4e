//! Scenario: programs that use up memory, processes and the root file system. The kernel refuses, says so, and goes on.

use scenarios::{Outcome, Vm};

#[test]
fn no_program_takes_the_kernel_down() -> Outcome {
    let mut guest = Vm::new().mem("128M").limit(120).spawn()?;
    guest.prompt()?;
    for _ in 0..2 {
        let hog = guest.command("exhaust memory")?;
        assert!(hog.contains("out of memory: killed exhaust["), "the kernel names it: {hog}");
        assert_eq!(guest.command("echo still here")?.trim(), "still here");
    }
    let full = guest.command("exhaust file")?;
    assert!(full.contains("No space left on device"), "{full}");
    let again = guest.command("exhaust file")?;
    assert!(
        blocks(&full) > 32 && blocks(&again) + 4 > blocks(&full),
        "a removed file gives its memory back: {full}{again}"
    );
    let forks = guest.command("exhaust processes")?;
    assert!(forks.contains(" processes, then: "), "{forks}");
    let done = guest.command("busy 0.2")?;
    assert!(done.contains("operations") && !done.contains("left out"), "{done}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn a_fork_bomb_is_survived() -> Outcome {
    let mut guest = Vm::new().smp(2).mem("96M").limit(180).spawn()?;
    guest.prompt()?;
    let bomb = guest.command("exhaust forks")?;
    assert!(bomb.contains("exhaust: forks without end, then: "), "{bomb}");
    let left = guest.command("ps")?;
    assert!(!left.contains("exhaust"), "{left}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// N of `exhaust: N MiB written`; 0 if it is not there.
fn blocks(text: &str) -> u64 {
    text.split("exhaust: ").nth(1).and_then(|t| t.split(' ').next()).and_then(|t| t.parse().ok()).unwrap_or(0)
}

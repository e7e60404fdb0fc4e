//! Scenario: programs that use up memory, processes and the root file system. The kernel refuses, says so, and goes on.

use scenarios::{Outcome, Vm};

#[test]
fn no_program_takes_the_kernel_down() -> Outcome {
    let mut guest = Vm::new().mem("128M").spawn()?;
    guest.prompt()?;
    for _ in 0..2 {
        let mut hog = guest.command("exhaust memory")?;
        for n in 0..20 {
            if hog.contains("out of memory: killed exhaust[") {
                break;
            }
            // Now and then mmap is the first to find no memory: then it is refused.
            assert!(hog.contains("no more memory after"), "{hog}");
            guest.command(&format!("cat /bin/true > /tmp/more{n}"))?;
            hog = guest.command("exhaust memory")?;
        }
        assert!(hog.contains("out of memory: killed exhaust["), "the kernel names it: {hog}");
        assert!(hog.contains(" kB mapped, score ") && hog.contains(", oom_score_adj 0; "), "{hog}");
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

/// Who is ended is the largest, after what was written to each one's oom_score_adj; the others go on.
#[test]
fn the_victim_is_the_worst_and_nobody_else() -> Outcome {
    let mut guest = Vm::new().smp(2).mem("128M").cmdline("trace_event= nowatchdog").spawn()?;
    guest.prompt()?;
    let mut start = |words: &str, score: &str| -> Result<(), scenarios::Failed> {
        let told = guest.background(&format!("exhaust memory {words} &"), " MiB held, score ")?;
        assert!(told.contains(&format!("score {score}\n")) || score.is_empty(), "{told}");
        Ok(())
    };
    start("24 -1000", "0")?;
    start("16", "")?;
    start("4 1000", "")?;
    // First the small one that asked for it, then the one that wants all; neither the one of -1000 nor the one of 16 MiB. (Now and then mmap
    // is the first to find no memory: then it is refused, and nobody ends.)
    let mut hog = String::new();
    for n in 0..20 {
        hog += &guest.command("exhaust memory")?;
        if hog.matches("out of memory: killed ").count() >= 2 {
            break;
        }
        // So that it is another time.
        guest.command(&format!("cat /bin/true > /tmp/more{n}"))?;
    }
    let killed: Vec<&str> = hog.lines().filter(|l| l.contains("out of memory: killed ")).collect();
    assert_eq!(killed.len(), 2, "{hog}");
    assert!(killed[0].contains(", oom_score_adj 1000; memory was wanted by exhaust["), "{hog}");
    assert!(killed[1].contains(", oom_score_adj 0; "), "{hog}");
    let rss =
        |line: &str| line.split("rss ").nth(1).and_then(|t| t.split(' ').next()?.parse::<u64>().ok()).unwrap_or(0);
    assert!((4 << 10..12 << 10).contains(&rss(killed[0])) && rss(killed[1]) > 30 << 10, "{hog}");
    assert!(guest.command("cat /proc/vmstat")?.contains("oom_kill 2\n"));
    let left = guest.command("ps")?;
    assert_eq!(left.lines().filter(|l| l.contains("exhaust")).count(), 2, "{left}");
    let done = guest.command("busy 0.1")?;
    assert!(done.contains("operations") && !done.contains("left out"), "{done}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// An asker that may not be ended needs the memory of one: it waits for that one, and does not take the next meanwhile.
#[test]
fn who_is_never_ended_waits_for_its_victim() -> Outcome {
    let mut guest = Vm::new().smp(2).mem("128M").cmdline("trace_event= nowatchdog").spawn()?;
    guest.prompt()?;
    for held in ["40", "8"] {
        guest.background(&format!("exhaust memory {held} &"), " MiB held, score ")?;
    }
    let mut told = String::new();
    for n in 0..20 {
        told = guest.background("exhaust memory 75 -1000 &", "exhaust: ")?;
        if told.contains("75 MiB held") {
            break;
        }
        // mmap was the first to find no memory: another time.
        guest.command(&format!("cat /bin/true > /tmp/more{n}"))?;
    }
    assert!(told.contains("75 MiB held, score 0"), "{told}");
    assert!(guest.command("cat /proc/vmstat")?.contains("oom_kill 1\n"), "{told}");
    let left = guest.command("ps")?;
    assert_eq!(left.lines().filter(|l| l.contains("exhaust")).count(), 2, "{left}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn a_fork_bomb_is_survived() -> Outcome {
    let mut guest = Vm::new().smp(2).mem("96M").spawn()?;
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

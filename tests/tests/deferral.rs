//! Scenario: work for an isolated CPU that runs a program waits for its next entry instead of interrupting it, and the ledger
//! says so. With deferral switched off the same work is interruptions, named. That it is done before kernel code there depends on it is
//! what `torture ctx` finds (tests/tests/torture.rs): one page alone may be gone from the TLB by chance.

use scenarios::ledger::{Sums, of_cause};
use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm};

const MOVES: u64 = 100;

#[test]
fn kernel_memory_moves_and_an_isolated_cpu_hears_nothing_until_it_enters() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").icount().spawn()?;
    guest.prompt()?;
    let seen = guest.command(&format!("unmap 1 {MOVES}"))?;
    assert!(seen.contains(&format!("after {MOVES} moves")) && !seen.contains("stale"), "{seen}");
    let text = guest.command("cat /sys/kernel/quiesce/ipi")?;
    // The first read made the page, on CPU 1 itself.
    assert_eq!(of_cause(&text, 1, "kernel_tlb_flush")?, Sums { sent: 0, avoided: MOVES }, "{text}");
    let table = guest.command("ipi 1")?;
    assert!(table.contains("kernel_tlb_flush") && table.contains("unmap/"), "{table}");
    let noise = guest.command("noise -c 1 -s 0.2 --inject-ipi")?;
    assert!(noise.contains("kernel entries: 1"), "{noise}");
    let text = guest.command("cat /sys/kernel/quiesce/ipi")?;
    let injected = text.lines().find(|l| l.contains(" to=1 cause=injected "));
    assert!(injected.is_some_and(|l| l.contains(" seen=1 cost_ns=") && l.contains("comm=noise")), "{text}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn serialising_for_new_text_waits_too() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").icount().spawn()?;
    guest.prompt()?;
    guest.command("run -c 1 spin & ; sleep 0.1")?;
    guest.command("echo 50 > /sys/kernel/quiesce/debug/sync_text")?;
    let text = guest.command("cat /sys/kernel/quiesce/ipi")?;
    assert_eq!(of_cause(&text, 1, "sync_core")?, Sums { sent: 0, avoided: 50 }, "{text}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn with_deferral_off_the_same_work_interrupts_and_is_named() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3 quiesce.defer=off").icount().spawn()?;
    guest.prompt()?;
    let seen = guest.command(&format!("unmap 1 {MOVES}"))?;
    assert!(seen.contains(&format!("after {MOVES} moves")) && !seen.contains("stale"), "{seen}");
    let text = guest.command("cat /sys/kernel/quiesce/ipi")?;
    assert_eq!(of_cause(&text, 1, "kernel_tlb_flush")?, Sums { sent: MOVES, avoided: 0 }, "{text}");
    let line = text.lines().find(|l| l.contains(" to=1 cause=kernel_tlb_flush "));
    assert!(line.is_some_and(|l| l.contains("cost_ns=") && l.contains("comm=unmap")), "{text}");
    guest.power_off()?.assert_clean();
    Ok(())
}

/// Page tables of the kernel half that are there, and those that were ever made.
fn tables(guest: &mut Running) -> Result<(u64, u64), Failed> {
    let told = guest.command("cat /sys/kernel/quiesce/protection")?;
    let of = |name: &str| told.split_whitespace().find_map(|w| w.strip_prefix(name)?.parse().ok());
    let both = of("tables=").zip(of("tables_made="));
    both.ok_or_else(|| Failed(format!("/sys/kernel/quiesce/protection: {told}")))
}

/// Many tasks end at once: the frames of their stacks go back, and an isolated CPU is not asked. The page tables above them stay, since it
/// may walk through them before it flushes: enough tasks that tables are left without an entry.
#[test]
fn stacks_of_ended_tasks_go_back() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=3").icount().spawn()?;
    guest.prompt()?;
    guest.command("run -c 3 spin & ; sleep 0.1")?;
    let many = (0..160).map(|_| "sleep 0.5 &").collect::<Vec<_>>().join(" ; ");
    guest.command(&format!("{many} ; wait %2; sleep 1"))?;
    let stacks = guest.command("cat /sys/kernel/quiesce/debug/kernel_stacks")?;
    let trimmed = stacks.split("trimmed=").nth(1).and_then(|n| n.split_whitespace().next()?.parse::<u64>().ok());
    assert!(trimmed.is_some_and(|n| n > 0), "{stacks}");
    let text = guest.command("cat /sys/kernel/quiesce/ipi")?;
    let flushes = of_cause(&text, 3, "kernel_tlb_flush")?;
    assert!(flushes.sent == 0 && flushes.avoided > 0, "{text}");
    let (tables, made) = tables(&mut guest)?;
    assert!(tables == made && made > 0, "{tables} page tables of {made} that were made");
    guest.power_off()?.assert_clean();
    Ok(())
}

//! Scenario: what the kernel is for. A program on an isolated CPU sees no kernel entry while CPU 0 works; an injected
//! interrupt is seen, with its sender; without isolation the tick is seen, and named.

use scenarios::{Failed, Outcome, Vm, skip};

/// The region in which the guest program `noise` spins.
const NOISE: u32 = 5;

/// The number behind `"key":` in a line of JSON.
fn field(json: &str, key: &str) -> Result<u64, Failed> {
    let quoted = format!("\"{key}\":");
    let rest = json.split(&quoted).nth(1).ok_or_else(|| Failed(format!("{key} is missing in {json}")))?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| Failed(format!("{key} is no number in {json}")))
}

/// The line of JSON in what a command printed.
fn json(text: &str) -> Result<&str, Failed> {
    text.lines().find(|l| l.starts_with('{')).ok_or_else(|| Failed(format!("no JSON in {text:?}")))
}

#[test]
fn isolated_cpu_enters_the_kernel_zero_times_while_cpu_0_works() -> Outcome {
    if let Some(why) = host::plugin::why_not() {
        return skip(&why);
    }
    let mut guest = Vm::new().cmdline("nohz_full=1-3").count().spawn()?;
    guest.prompt()?;
    // `make test-long` takes ten seconds instead of two.
    let seconds = if std::env::var_os("QUIESCE_LONG").is_some() { 10 } else { 2 };
    guest.command(&format!("busy {} &", seconds + 2))?;
    let report = guest.command(&format!("noise -c 1 -s {seconds} --json"))?;
    let finished = guest.power_off()?;
    assert_eq!(field(json(&report)?, "entries")?, 0, "{report}");
    let counts: Vec<_> = finished.counts.counts.iter().filter(|c| c.region == NOISE && c.vcpu == 1).collect();
    let [count] = counts[..] else { return Err(Failed(format!("the plugin saw {} windows, not one", counts.len()))) };
    assert_eq!(count.kernel, 0, "kernel instructions on vCPU 1 by the plugin: {count:?}");
    // The vCPUs take turns on one clock: the busy CPU 0 has its share of the instructions.
    assert!(count.user > seconds * 500_000_000, "a second is 1e9 instructions of all CPUs: {count:?}");
    finished.assert_clean();
    Ok(())
}

#[test]
fn one_injected_interrupt_is_one_entry_with_its_sender() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").icount().spawn()?;
    guest.prompt()?;
    let report = guest.command("noise -c 1 -s 1 --inject-ipi --json")?;
    let line = json(&report)?;
    assert_eq!(field(line, "entries")?, 1, "{report}");
    assert_eq!(field(line, "call_function")?, 1, "{report}");
    assert!(line.contains("\"noise\""), "the sender's task is named: {report}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn without_isolation_the_tick_is_seen_and_named() -> Outcome {
    let mut guest = Vm::new().cmdline("hz=100").icount().spawn()?;
    guest.prompt()?;
    let report = guest.command("noise -c 1 -s 1 --json")?;
    let ticks = field(json(&report)?, "timer")?;
    assert!((98..=102).contains(&ticks), "hz=100 gives about 100 ticks in a second: {report}");
    guest.power_off()?.assert_clean();
    Ok(())
}

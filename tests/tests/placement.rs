//! Scenario: nothing is ever placed on an isolated CPU unasked, however much runs elsewhere.

use scenarios::{Failed, Outcome, Vm};

/// The line of one CPU in what the kernel says of all.
fn line_of(text: &str, cpu: u32) -> Result<String, Failed> {
    let start = format!("cpu={cpu} ");
    let line = text.lines().find(|l| l.starts_with(&start));
    line.map(String::from).ok_or_else(|| Failed(format!("CPU {cpu} is missing in:\n{text}")))
}

fn stays_untouched(parameters: &str, isolated: &[u32]) -> Outcome {
    let mut guest = Vm::new().cmdline(parameters).spawn()?;
    guest.prompt()?;
    for _ in 0..3 {
        guest.command("busy 0.3 & ; busy 0.3 & ; echo a | cat | cat")?;
    }
    let load = guest.command("busy 1")?;
    assert!(load.contains("operations"), "{load}");
    let text = guest.command("cat /sys/kernel/quiesce/cpus")?;
    for &cpu in isolated {
        let line = line_of(&text, cpu)?;
        for wanted in [" state=idle ", " tick=off ", " isolated=1 ", " entries=0 ", " interrupts=0 "] {
            assert!(line.contains(wanted), "{wanted:?} is missing in {line}");
        }
    }
    // The counter itself works: CPU 0 did all that.
    assert!(!line_of(&text, 0)?.contains(" entries=0 "), "{text}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn nohz_full() -> Outcome {
    stays_untouched("nohz_full=1-3", &[1, 2, 3])
}

#[test]
fn isolcpus() -> Outcome {
    stays_untouched("isolcpus=2-3", &[2, 3])
}

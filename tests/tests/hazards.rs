//! Scenario: what other kernels stumbled over. The guest's hazard_* programs try it, each says how often, and the kernel goes on.

use scenarios::{Outcome, Vm};

/// The programs, and the least number of attempts that each makes.
const HAZARDS: [(&str, usize); 11] = [
    ("hazard_32_bit", 10),
    ("hazard_bad_iret", 57),
    ("hazard_flags", 13),
    ("hazard_frame", 17),
    ("hazard_frame_race", 18_000),
    ("hazard_gs_base", 6),
    ("hazard_kernel_memory", 300),
    ("hazard_pop_ss", 12),
    ("hazard_step", 7),
    ("hazard_sysret", 12),
    ("hazard_watch", 300),
];

fn all(vm: Vm, prefix: &str) -> Outcome {
    let mut guest = vm.spawn()?;
    guest.prompt()?;
    for (name, least) in HAZARDS {
        let text = guest.command(&format!("{prefix}{name}"))?;
        let line = text.lines().find(|l| l.starts_with(&format!("{name}: "))).unwrap_or("no line");
        let attempts = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        assert!(line.ends_with(" attempts, all as they ought to end") && attempts >= least, "{name}: {line}\n{text}");
    }
    assert_eq!(guest.command("echo still here")?.trim(), "still here");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn each_is_survived() -> Outcome {
    all(Vm::new().smp(2).cmdline("trace_event="), "")
}

#[test]
fn on_a_tracked_cpu_too() -> Outcome {
    all(Vm::new().smp(2).cmdline("nohz_full=1"), "run -c 1 ")
}

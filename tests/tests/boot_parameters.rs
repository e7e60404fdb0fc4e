//! Scenario: a boot parameter that is wrong is named on the console, with what was done instead, and the kernel boots.

use host::qemu::End;
use scenarios::{Outcome, Vm};

fn says(parameters: &str, wanted: &[&str]) -> Outcome {
    let mut guest = Vm::new().cmdline(parameters).spawn()?;
    let boot = guest.prompt()?;
    for line in wanted {
        assert!(boot.lines().any(|l| l.contains("] ") && l.contains(line)), "{line:?} is missing in:\n{boot}");
    }
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn nonsense_is_named() -> Outcome {
    says(
        "hz=100 nohz_full=abc isolcpus=foo,1 hz=abc maxcpus=x rcu_nocbs= quiesce.nosuch=1 nosmp=4 ftrace=function",
        &[
            "hz=100: given more than once, the last one counts",
            "nohz_full=abc: ",
            "isolcpus=foo,1: unknown flag foo skipped",
            "hz=abc: not a number from 10 to 10000, using 250",
            "maxcpus=x: not a number",
            "rcu_nocbs=: names no CPU",
            "quiesce.nosuch=1: unknown parameter",
            "nosmp=4: takes no value, value ignored",
            "ftrace=function: no such tracer",
            "1 of 4 CPUs up",
        ],
    )
}

#[test]
fn all_cpus_isolated_leaves_the_boot_cpu() -> Outcome {
    says(
        "nohz_full=0-9 isolcpus=0-3 irqaffinity=3 rcu_nocbs=2",
        &[
            "CPU 9 does not exist",
            "nohz_full: no housekeeping CPU left, boot CPU 0 kept",
            "isolcpus: no housekeeping CPU left, boot CPU 0 kept",
            "irqaffinity=3: boot CPU 0 added",
            "rcu_nocbs=2: changes nothing",
            "nohz_full=1-3: context tracking on",
            "4 of 4 CPUs up",
        ],
    )
}

#[test]
fn every_parameter_takes_nonsense_in_a_line_of_4_kib() -> Outcome {
    let line = format!(
        "nohz_full=3-1 isolcpus=nohz,warp,2-99999999999 irqaffinity=77 maxcpus=-1 loglevel=99 panic=99999999999 init= \
         ftrace= tp_printk=perhaps hz=-250 rcu_nocbs=1,,,x {} nohz_full=1",
        "rcu_cpu_stall_timeout=0 ".repeat(170)
    );
    says(
        &line,
        &[
            "nohz_full=3-1: given more than once",
            "isolcpus=nohz,warp,2-99999999999: unknown flag warp skipped",
            "irqaffinity=77: ",
            "maxcpus=-1: not a number from 0 to",
            "loglevel=99: not a number from 0 to 15",
            "panic=99999999999: not a number",
            "init=: needs a value, ignored",
            "ftrace=: needs a value, ignored",
            "tp_printk=perhaps: takes no value, value ignored",
            "hz=-250: not a number from 10 to 10000",
            "rcu_nocbs=1,,,x: ",
            "more complaints about the command line left out",
            "nohz_full=1: context tracking on",
            "4 of 4 CPUs up",
        ],
    )
}

#[test]
fn panic_waits_as_asked_and_ends_with_the_failure_code() -> Outcome {
    let finished = Vm::new().smp(1).cmdline("panic=1 init=/none").spawn()?.finish()?;
    assert_eq!(finished.end, End::Panic, "{}", finished.output);
    for line in ["/none: not found", "panic=1: the end in 1 seconds"] {
        assert!(finished.output.contains(line), "{}", finished.output);
    }
    Ok(())
}

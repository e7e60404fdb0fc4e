//! Scenario: a boot parameter that is wrong is named on the console, with what was done instead, and the kernel boots.

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
        "nohz_full=abc isolcpus=foo,1 hz=abc maxcpus=x rcu_nocbs= quiesce.nosuch=1",
        &[
            "nohz_full=abc: ",
            "isolcpus=foo,1: unknown flag foo skipped",
            "hz=abc: not a number from 10 to 10000, using 250",
            "maxcpus=x: not a number",
            "rcu_nocbs=: names no CPU",
            "quiesce.nosuch=1: unknown parameter",
            "4 of 4 CPUs up",
        ],
    )
}

#[test]
fn of_a_parameter_given_twice_the_last_counts() -> Outcome {
    says(
        "nohz_full=1 hz=100 nohz_full=2-3",
        &["nohz_full=1: given more than once, the last one counts", "nohz_full=2-3: context tracking on"],
    )
}

#[test]
fn a_housekeeping_cpu_is_kept() -> Outcome {
    says("nohz_full=0-9", &["CPU 9 does not exist", "boot CPU 0 kept", "nohz_full=1-3: context tracking on"])
}

#[test]
fn every_parameter_takes_nonsense() -> Outcome {
    says(
        "nohz_full=3-1 isolcpus=nohz,warp,2-99999999999 irqaffinity=77 maxcpus=-1 loglevel=99 \
         panic=99999999999 init= ftrace= tp_printk=perhaps hz=-250 rcu_nocbs=1,,,x",
        &[
            "nohz_full=3-1: ",
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
            "4 of 4 CPUs up",
        ],
    )
}

#[test]
fn a_line_of_4_kib_is_read_to_its_end() -> Outcome {
    let long = format!("{} nohz_full=1", "hz=0 ".repeat(800));
    says(
        &long,
        &[
            "hz=0: given more than once",
            "more complaints about the command line left out",
            "nohz_full=1: context tracking on",
        ],
    )
}

#[test]
fn one_cpu_with_a_value_for_nosmp() -> Outcome {
    says("nosmp=4", &["nosmp=4: takes no value, value ignored", "1 of 4 CPUs up"])
}

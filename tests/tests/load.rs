//! Scenario: processes, programs, pipes, timers, mappings and signals on all CPUs at once. Under `PROFILE=debug` the kernel
//! checks its lock order and every transition of the context word meanwhile, and panics at the first wrong one.

use scenarios::{Outcome, Vm};

/// Two loads on the housekeeping CPUs, programs that come and go on the isolated one, and kills between.
#[test]
fn forks_pipes_kills_and_programs_on_isolated_cpus() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=2-3").spawn()?;
    guest.prompt()?;
    guest.command("run -c 0 busy 1000 & ; run -c 1 busy 1000 & ; run -c 3 busy 1000 &")?;
    for _ in 0..10 {
        guest.command("run -c 2 echo a | cat | run -c 1 cat")?;
        guest
            .command("run -c 2 spin & ; run -c 2 spin & ; cat /proc/stat | cat; kill %4; kill %5; wait %4; wait %5")?;
        guest.command("run -c 2 crash null")?;
    }
    let done = guest.command("kill %1; kill %2; kill %3; wait; busy 0.2")?;
    assert!(done.contains("operations") && !done.contains("left out"), "{done}");
    let quiet = guest.command("noise -c 2 -s 0.2")?;
    assert!(quiet.contains("kernel entries: 0\n"), "{quiet}");
    guest.power_off()?.assert_clean();
    Ok(())
}

//! Scenario: a program takes a lease of an isolated CPU. It is refused with every reason while anything could enter the CPU; once granted, it
//! holds while CPU 0 works, each breach is told with its cause and sender and does what the program chose, and what can be
//! refused is refused.

use scenarios::ledger::{self, Sums};
use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm};

const FILE: &str = "/sys/kernel/quiesce/lease";

/// Runs `line` again and again until what it prints has all of `wanted`. The guest's own limit ends a wait for ever.
fn until(guest: &mut Running, line: &str, wanted: &[&str]) -> Result<String, Failed> {
    loop {
        let text = guest.command(line)?;
        if wanted.iter().all(|w| text.contains(w)) {
            return Ok(text);
        }
    }
}

#[test]
fn refused_with_all_reasons_and_granted_when_they_are_gone() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").spawn()?;
    guest.prompt()?;
    let not_isolated = guest.command("lease -c 0")?;
    for reason in
        ["by=isolation ", "by=tracking ", "by=task reason=bound task=1 comm=init", "by=tick dep=housekeeping "]
    {
        assert!(not_isolated.contains(&format!("blocked cpu=0 {reason}")), "{reason}: {not_isolated}");
    }
    // Nor does one that gives the only housekeeping CPU to nobody else.
    let fifo = guest.command("run -c 0 -f 1 lease -c 0")?;
    assert!(fifo.contains("blocked cpu=0 by=isolation ") && fifo.contains("lease: CPU 0: Resource busy"), "{fifo}");
    // One that sleeps there and one that runs there; they need a moment to come, and may not come to a leased CPU.
    guest.command("run -c 1 sleep 1000 & ; run -c 1 spin &")?;
    loop {
        let ps = guest.command("ps")?;
        if [" sleep 1000", " spin"].into_iter().all(|what| cpu_of(&ps, what).is_some()) {
            break;
        }
    }
    let bound = "blocked cpu=1 by=task reason=bound task=";
    let reasons = [
        " comm=sleep\n",
        "blocked cpu=1 by=timer task=",
        " comm=spin\n",
        "blocked cpu=1 by=tick dep=sched scope=cpu site=",
    ];
    let refused = until(&mut guest, "lease -c 1 -s 0", &reasons)?;
    assert_eq!(refused.matches(bound).count(), 2, "{refused}");
    assert!(refused.contains("lease: CPU 1: Resource busy"), "{refused}");
    let file = guest.command(&format!("cat {FILE}"))?;
    assert!(file.contains("refused cpu=1 task=") && file.contains(" comm=lease ") && file.contains(bound), "{file}");
    // One of the two alone is still too many.
    guest.command("kill %2")?;
    let refused = until(&mut guest, "lease -c 1 -s 0", &["comm=sleep\n"])?;
    assert!(refused.contains("by=timer task="), "{refused}");
    guest.command("kill %1")?;
    let granted = until(&mut guest, "lease -c 1 -s 0", &["CPU 1 is leased to task"])?;
    assert!(granted.contains("breaches: 0"), "{granted}");
    for (text, error) in [("off", "not permitted"), ("silence", "Invalid"), ("on", "busy")] {
        let answer = guest.command(&format!("echo {text} > {FILE}"))?;
        assert!(answer.contains(error), "{text}: {answer}");
    }
    guest.power_off()?.assert_clean();
    Ok(())
}

/// The CPU of the process whose command is `what`, by ps.
fn cpu_of(ps: &str, what: &str) -> Option<u32> {
    let line = ps.lines().find(|l| l.ends_with(what) && !l.contains("run -c"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[test]
fn tasks_and_timers_that_may_be_elsewhere_go_there() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").spawn()?;
    guest.prompt()?;
    guest.command("run -c 1-2 sleep 1000 & ; run -c 1-2 spin &")?;
    let on = |ps: &str, cpu| [" sleep 1000", " spin"].iter().all(|what| cpu_of(ps, what) == Some(cpu));
    loop {
        if on(&guest.command("ps")?, 1) {
            break;
        }
    }
    let granted = guest.command("lease -c 1 -s 0 --pester")?;
    assert!(granted.contains("CPU 1 is leased to task") && granted.contains("breaches: 0\n"), "{granted}");
    // The sleeper was woken early, and sleeps on where it is now.
    loop {
        if on(&guest.command("ps")?, 2) {
            break;
        }
    }
    guest.background("lease -c 1 --breaches 1 &", "CPU 1 is leased to task")?;
    guest.send("isolate 1 off\n")?;
    guest.expect("a lease is held on it")?;
    guest.send("echo 1 > /sys/kernel/quiesce/inject_ipi\n")?;
    guest.expect("lease 2 of CPU 1 ended after")?;
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn holds_while_cpu_0_works_and_tells_each_breach() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").spawn()?;
    guest.prompt()?;
    guest.command("busy 2 &")?;
    let quiet = guest.command("lease -c 1 -s 1")?;
    assert!(quiet.contains("breaches: 0\nkernel entries: 0, 0 of them its own\n"), "{quiet}");
    assert!(quiet.contains("the program saw 0 in its memory") && quiet.contains(": exit\n"), "{quiet}");
    // One interrupt is one breach, told to the program in its memory and by the signal that it chose.
    let one = guest.command("lease -c 1 --breaches 1 --inject-ipi --signal 10")?;
    for told in [
        "breaches: 1\n",
        "last breach: call_function from cpu0 lease/",
        "saw 1 in its memory, got 1 signals",
        ": exit\n",
    ] {
        assert!(one.contains(told), "{told}: {one}");
    }
    let file = guest.command(&format!("cat {FILE}"))?;
    let line = file.lines().find(|l| l.starts_with("breach cpu=1 number=1 "));
    let line = line.ok_or_else(|| Failed(format!("no breach in {file}")))?;
    assert!(
        line.contains(" cause=call_function sender_cpu=0 ") && line.contains(" sender_comm=lease site=kernel/src/"),
        "{line}"
    );
    assert!(
        file.contains("state=ended lease=2 ") && file.contains("on_breach=signal_10") && file.contains("end=exit"),
        "{file}"
    );
    let killed = guest.command("lease -c 1 -s 1000 --inject-ipi --kill")?;
    assert!(killed.contains("was killed by SIGKILL\n") && killed.contains("breaches: 1\n"), "{killed}");
    let once = guest.command("lease -c 1 --breaches 1 --inject-ipi --once")?;
    assert!(once.contains("breaches: 1\n") && once.contains(": breach\n"), "{once}");
    // An NMI does not take the usual way out: the program sees it in its memory all the same.
    guest.background("lease -c 1 --breaches 1 &", "CPU 1 is leased to task")?;
    guest.send("echo 1 > /sys/kernel/quiesce/debug/nmi\n")?;
    guest.expect("last breach: nmi")?;
    guest.expect("saw 1 in its memory")?;
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn what_can_be_refused_is_and_the_holder_ends_it_by_what_it_does() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").spawn()?;
    guest.prompt()?;
    let pestered = guest.command("lease -c 1 -s 0 --pester")?;
    for what in ["move the holder", "change its class", "come to its CPU", "a barrier on it"] {
        assert!(pestered.contains(&format!("{what}: Resource busy\n")), "{what}: {pestered}");
    }
    assert!(pestered.contains("breaches: 0\nkernel entries: 0,"), "{pestered}");
    for end in ["off", "exec", "affinity"] {
        let text = guest.command(&format!("lease -c 1 -s 0 --end {end}"))?;
        let said = if end == "off" { "asked" } else { end };
        assert!(text.contains("breaches: 0\n") && text.contains(&format!(": {said}\n")), "{end}: {text}");
    }
    let fork = guest.command("lease -c 1 -s 0 --end fork")?;
    assert!(fork.contains("ended with status 0\n") && fork.contains("breaches: 0\n"), "{fork}");
    // Its own calls break nothing, unless it says that they shall.
    let own = guest.command("lease -c 1 -s 0 --kill --own --end fork")?;
    assert!(own.contains("was killed by SIGKILL\n") && own.contains("last breach: system_call"), "{own}");
    // Two at once, on two CPUs.
    guest.background("lease -c 1 --breaches 1 &", "CPU 1 is leased to task")?;
    let second = guest.command("lease -c 2 -s 0")?;
    assert!(second.contains("lease 1 of CPU 2 ended"), "{second}");
    guest.send("echo 1 > /sys/kernel/quiesce/inject_ipi\n")?;
    guest.expect("lease 7 of CPU 1 ended after")?;
    guest.power_off()?.assert_clean();
    Ok(())
}

/// Kernel text changes while the holder is in a call of its own: who changed it waits for the end of a short call, and after 100 ms of a
/// long one it interrupts.
#[test]
fn a_short_call_of_the_holder_is_waited_for_and_a_long_one_is_not() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3").icount().spawn()?;
    guest.prompt()?;
    let mut before = Sums::default();
    for (stay_ms, more) in [(50, Sums { sent: 0, avoided: 1 }), (300, Sums { sent: 1, avoided: 0 })] {
        let told = guest.command(&format!("lease -c 1 -s 0 --stay {stay_ms}"))?;
        assert!(told.contains(": exit\n"), "{told}");
        let text = guest.command("cat /sys/kernel/quiesce/ipi")?;
        let after = ledger::of_cause(&text, 1, "sync_core")?;
        let did = Sums { sent: after.sent - before.sent, avoided: after.avoided - before.avoided };
        assert_eq!(did, more, "a call of {stay_ms} ms: {text}");
        before = after;
    }
    guest.power_off()?.assert_clean();
    Ok(())
}

const STALL: &str = "/sys/kernel/quiesce/debug/rcu_stall";

/// A reader on CPU `cpu` that lasts, and is there.
fn reads(guest: &mut Running, cpu: u32) -> Outcome {
    guest.command(&format!("run -c {cpu} sh -c 'echo 100000 > {STALL}' &"))?;
    until(guest, &format!("cat {STALL}"), &[&format!("cpu={cpu}\n")]).map(drop)
}

/// Grace periods so far.
fn grace_periods(guest: &mut Running) -> Result<u64, Failed> {
    let text = guest.command("cat /sys/kernel/quiesce/rcu")?;
    let line = text.lines().find(|l| l.starts_with("kind=normal ")).unwrap_or_default();
    ledger::number(line, "grace_periods")
}

/// Readers follow each other, so that the request's first rounds of RCU end and its last grace period does not before RCU calls it
/// stalled: refused, by name. By the machine's own clock, as in grace_periods.rs.
#[test]
fn a_grace_period_is_not_waited_for_without_end() -> Outcome {
    let mut guest = Vm::new().cmdline("nohz_full=1-3 rcu_cpu_stall_timeout=3").spawn()?;
    guest.prompt()?;
    reads(&mut guest, 2)?;
    guest.command("lease -c 1 -s 0 &")?;
    until(&mut guest, &format!("cat {FILE}"), &["cpu=1 state=requested "])?;
    // What is under way waits for the first reader, what begins at its end for this one.
    reads(&mut guest, 3)?;
    let before = grace_periods(&mut guest)?;
    guest.command(&format!("echo off 2 > {STALL}"))?;
    while grace_periods(&mut guest)? == before {}
    // That does not wait for this one, and whatever follows does. The request's rounds may need it or not: it lasts for longer than the
    // request waits, and no longer.
    reads(&mut guest, 2)?;
    let mut file = guest.command(&format!("sleep 15; cat {FILE}"))?;
    guest.command(&format!("echo off 3 > {STALL}"))?;
    while file.contains("cpu=1 state=requested ") {
        file = guest.command(&format!("cat {FILE}"))?;
    }
    assert!(file.contains("blocked cpu=1 by=rcu reason=grace_period"), "{file}");
    guest.power_off()?.assert_clean();
    Ok(())
}

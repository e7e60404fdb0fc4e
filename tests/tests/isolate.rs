//! Scenario: a CPU becomes one that is left alone while everything runs, and comes back. Nothing is isolated at boot, so the first flip
//! switches context tracking on in a kernel that runs.

use scenarios::vm::Running;
use scenarios::{Failed, Outcome, Vm};

/// The region in which the guest program `noise` spins.
const NOISE: u32 = 5;

/// The number behind `"key":` in the line of JSON that a command printed; 0 if it is not there.
fn field(text: &str, key: &str) -> Result<u64, Failed> {
    let json = text.lines().find(|l| l.starts_with('{')).ok_or_else(|| Failed(format!("no JSON in {text:?}")))?;
    let Some(rest) = json.split(&format!("\"{key}\":")).nth(1) else { return Ok(0) };
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| Failed(format!("{key} is no number in {json}")))
}

/// The line of CPU `cpu` in /sys/kernel/quiesce/cpus.
fn cpu_line(guest: &mut Running, cpu: u32) -> Result<String, Failed> {
    let text = guest.command("cat /sys/kernel/quiesce/cpus")?;
    let line = text.lines().find(|l| l.starts_with(&format!("cpu={cpu} ")));
    line.map(str::to_string).ok_or(Failed(text.clone()))
}

/// Waits until CPU `cpu`'s line has all of these words.
fn until(guest: &mut Running, cpu: u32, words: &[&str]) -> Outcome {
    loop {
        let line = cpu_line(guest, cpu)?;
        if words.iter().all(|word| line.contains(word)) {
            return Ok(());
        }
    }
}

/// The last change of the tick of CPU 2 that its history has is this one.
fn last_change(guest: &mut Running, to: &str) -> Outcome {
    let why = guest.command("cat /sys/kernel/quiesce/cpu2/why")?;
    let last = why.lines().rfind(|l| l.starts_with("change "));
    assert!(last.is_some_and(|l| l.contains(&format!(" tick={to} "))), "{why}");
    Ok(())
}

/// What the two lists of isolated CPUs say, without empty lines.
fn lists(guest: &mut Running) -> Result<String, Failed> {
    let text = guest.command("cat /sys/devices/system/cpu/isolated /sys/devices/system/cpu/nohz_full")?;
    Ok(text.trim().to_string())
}

/// Column `column` of the processes whose command is `what`, by ps.
fn of<'a>(ps: &'a str, what: &str, column: usize) -> Vec<&'a str> {
    let lines = ps.lines().filter(|l| l.ends_with(what) && !l.contains("run -c"));
    lines.filter_map(|l| l.split_whitespace().nth(column)).collect()
}

const STATE: usize = 2;
const CPU: usize = 3;

#[test]
fn a_cpu_is_left_alone_and_comes_back() -> Outcome {
    let vm = Vm::new().cmdline("hz=100");
    let counted = host::plugin::why_not().is_none();
    let mut guest = if counted { vm.count() } else { vm.icount() }.spawn()?;
    guest.prompt()?;
    guest.command("run -c 2 spin &")?;
    until(&mut guest, 2, &["comm=spin", "tick=on", "isolated=0", "tracked=0"])?;
    let flip = guest.command("isolate 2 on")?;
    assert!(flip.contains("context tracking on, "), "the first flip switches the key: {flip}");
    assert!(flip.contains("CPU 2: left alone\n  moved: task spin/"), "{flip}");
    assert!(flip.contains("  nothing is left that could interrupt it"), "{flip}");
    assert_eq!(lists(&mut guest)?, "2\n2");
    until(&mut guest, 2, &["comm=idle", "tick=off", "isolated=1", "tracked=1"])?;

    guest.command("busy 2 &")?;
    let quiet = guest.command("noise -c 2 -s 1 --json")?;
    assert_eq!(field(&quiet, "entries")?, 0, "{quiet}");

    assert_eq!(guest.command("isolate 2 off")?.trim(), "CPU 2: does housekeeping again");
    assert_eq!(lists(&mut guest)?, "");
    guest.command("run -c 2 spin &")?;
    until(&mut guest, 2, &["comm=spin", "tick=on", "isolated=0", "tracked=0"])?;
    let noisy = guest.command("noise -c 2 -s 1 --json")?;
    let ticks = field(&noisy, "timer")?;
    assert!((98..=102).contains(&ticks), "hz=100 gives about 100 ticks in a second: {noisy}");

    let finished = guest.power_off()?;
    if counted {
        let windows: Vec<_> = finished.counts.counts.iter().filter(|c| c.region == NOISE && c.vcpu == 2).collect();
        let [quiet, noisy] = windows[..] else { return Err(Failed(format!("{} windows, not two", windows.len()))) };
        assert_eq!(quiet.kernel, 0, "kernel instructions on vCPU 2 by the plugin: {quiet:?}");
        assert!(noisy.kernel > 0, "{noisy:?}");
    }
    finished.assert_clean();
    Ok(())
}

#[test]
fn nonsense_is_named_and_the_last_cpu_stays() -> Outcome {
    let mut guest = Vm::new().spawn()?;
    guest.prompt()?;
    for (command, said) in [
        ("isolate 9 on", "isolate: no CPU 9 (online: 0-3)"),
        ("isolate two on", "isolate: not a CPU number: \"two\""),
        ("isolate 2 sideways", "isolate: \"sideways\": what is that?"),
        ("isolate 2 on leave", "isolate: \"leave\": what is that?"),
        ("isolate -x", "isolate: unknown option -x"),
    ] {
        let text = guest.command(command)?;
        assert!(text.contains(said), "{command}: {text}");
    }
    for (written, logged, said) in [
        ("2 maybe", "isolate: \"maybe\" is neither on nor off", "echo: Invalid argument"),
        ("x on", "isolate: \"x\" is not the number of a CPU", "echo: Invalid argument"),
        ("2 off keep", "isolate: \"keep\" is one word too many", "echo: Invalid argument"),
        ("9 on", "isolate: CPU 9: no such CPU is online", "echo: No such device"),
    ] {
        let text = guest.command(&format!("echo {written} > /sys/kernel/quiesce/isolate"))?;
        assert!(text.contains(logged) && text.contains(said), "{written}: {text}");
    }
    assert_eq!(lists(&mut guest)?, "", "nothing has changed");

    // All but one, the boot CPU and the console's interrupt among them; two at a time.
    let text = guest.command("isolate 0 on")?;
    assert!(text.contains("moved: interrupt 4 (serial) to CPU 1"), "{text}");
    let text = guest.command("isolate 1 on & isolate 2 on")?;
    assert!(text.contains("CPU 2: left alone"), "{text}");
    while lists(&mut guest)? != "0-2\n0-2" {}
    let text = guest.command("isolate 3 on")?;
    assert!(text.contains("isolate: CPU 3: it is the last CPU that does housekeeping"), "{text}");
    assert_eq!(lists(&mut guest)?, "0-2\n0-2");
    let text = guest.command("isolate 0-2 off; isolate")?;
    assert!((0..4).all(|cpu| text.contains(&format!("CPU {cpu}: does housekeeping\n"))), "{text}");
    guest.power_off()?.assert_clean();
    Ok(())
}

#[test]
fn tasks_stay_or_move_with_their_timers_and_what_is_left_is_told() -> Outcome {
    let mut guest = Vm::new().cmdline("trace_event=").spawn()?;
    guest.prompt()?;
    guest.command("run -c 2 spin & run -c 2 spin & run -c 2-3 sleep 1000 &")?;
    loop {
        let ps = guest.command("ps")?;
        // The sleeper's timer is set.
        if of(&ps, " spin", CPU) == ["2", "2"] && of(&ps, " sleep 1000", STATE) == ["S"] {
            break;
        }
    }
    let text = guest.command("isolate 2 on keep")?;
    assert!(!text.contains("moved: task spin"), "{text}");
    assert_eq!(text.matches("left: task spin/").count(), 2, "{text}");
    assert!(text.contains("left: tick, for sched (scope cpu)"), "{text}");
    last_change(&mut guest, "on")?;
    // One of them alone needs no tick.
    guest.command("kill %2")?;
    while guest.command("isolate 2")?.contains("left: tick") {}
    until(&mut guest, 2, &["comm=spin", "tick=off", "state=user"])?;
    last_change(&mut guest, "off")?;
    guest.command("isolate 2 off")?;
    last_change(&mut guest, "on")?;
    guest.command("isolate 2 on keep")?;
    until(&mut guest, 2, &["comm=spin", "tick=off", "state=user"])?;
    last_change(&mut guest, "off")?;
    // Asked again, nothing stays; the sleeper's timer is on 2, or on 3 after the first of both flips.
    let text = guest.command("isolate 2,3 on")?;
    assert!(text.contains("moved: task spin/") && text.contains("moved: task sleep/"), "{text}");
    assert!(text.contains("moved: timer of sleep/"), "{text}");
    assert_eq!(text.matches("nothing is left").count(), 2, "{text}");
    until(&mut guest, 2, &["comm=idle"])?;
    // A sleeper that was woken early and moved still sleeps to its end. On a slow machine one may have ended before the flip: another then.
    loop {
        guest.command("isolate 2,3 off; run -c 3 sleep 0.5 &")?;
        let text = guest.command("isolate 3 on")?;
        guest.command("wait %4")?;
        if text.contains("moved: timer of sleep/") {
            break;
        }
    }
    guest.power_off()?.assert_clean();
    Ok(())
}

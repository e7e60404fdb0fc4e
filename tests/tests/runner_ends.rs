//! Scenario: the runner ends its guest on TIMEOUT and on signals, and leaves no QEMU behind, not even when it is killed.

use nix::sys::signal::Signal;
use scenarios::{Failed, Outcome, run_smp};
use std::time::{Duration, Instant};

const COMMON: [(&str, &str); 2] = [("LOADER", "direct"), ("ACCEL", "tcg")];
/// Safety net for a process to appear or to go, in seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// The guest's QEMU process that `runner` started, once there is one.
fn qemu_of(runner: u32) -> Result<u32, Failed> {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        let tasks = std::fs::read_dir(format!("/proc/{runner}/task"))?;
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for child in children.split_whitespace() {
                // Not the one that is only asked for its version.
                let command = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
                if command.starts_with(host::qemu::QEMU) && command.contains("isa-debug-exit") {
                    return child.parse().map_err(|_| Failed(format!("process id {child}")));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Failed("timed out: the runner started no QEMU".into()))
}

/// Waits until the process is gone, or a zombie that its new parent has still to collect.
fn gone(process: u32) -> Outcome {
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match std::fs::read_to_string(format!("/proc/{process}/stat")) {
            Err(_) => return Ok(()),
            Ok(stat) if stat.rsplit(')').next().is_some_and(|s| s.trim_start().starts_with('Z')) => return Ok(()),
            Ok(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Err(Failed(format!("timed out: QEMU {process} is still there")))
}

#[test]
fn timeout_ends_it_with_3() -> Outcome {
    let variables = [COMMON[0], COMMON[1], ("TIMEOUT", "3")];
    let run = run_smp::start(&variables)?.finish()?;
    assert_eq!(run.code, Some(3), "{run:#?}");
    assert!(run.stderr.contains("TIMEOUT=3"), "{}", run.stderr);
    Ok(())
}

#[test]
fn sigint_ends_qemu() -> Outcome {
    let runner = run_smp::start(&COMMON)?;
    let qemu = qemu_of(runner.id())?;
    runner.signal(Signal::SIGINT)?;
    let run = runner.finish()?;
    assert_eq!(run.code, Some(1), "{run:#?}");
    gone(qemu)
}

#[test]
fn a_killed_runner_leaves_no_qemu() -> Outcome {
    let runner = run_smp::start(&COMMON)?;
    let qemu = qemu_of(runner.id())?;
    runner.signal(Signal::SIGKILL)?;
    assert_eq!(runner.finish()?.code, None);
    gone(qemu)
}

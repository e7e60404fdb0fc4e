//! Scenario: Ctrl-C at any moment of a host command ends it with exit code 1 and one line, and leaves no process and no file of it. On a
//! terminal with a guest, Ctrl-C is the guest's and Ctrl-A X ends QEMU.

use host::plugin;
use host::tree::Tree;
use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGTERM};
use nix::sys::termios::LocalFlags;
use scenarios::program::{Program, Run};
use scenarios::sandbox::Sandbox;
use scenarios::{Failed, Outcome, skip};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// What a tool does that waits: its file and its child are part of what has to go.
const WAITS: &str = "echo x > \"$TMPDIR/left\"; sleep 1000; exit 1";

/// A `cargo` that waits where it is to build this package, and else does nothing.
fn cargo_waits(sandbox: &Sandbox, package: &str) -> Outcome {
    sandbox.tool("cargo", &format!("case \" $* \" in *' -p {package} '*) {WAITS} ;; esac"))
}

/// Exit code 1, one line that names the signal, nothing left. The rest of what it said is the caller's.
#[track_caller]
fn ended(sandbox: &Sandbox, run: &Run, line: &str) -> Outcome {
    assert_eq!(run.code, Some(1), "{run:#?}");
    let said = format!("{}\n{}", run.stdout, run.stderr);
    // A terminal echoes the key.
    let lines = said.lines().map(|l| l.trim_start_matches("^C"));
    let told: Vec<&str> = lines.filter(|l| l.contains(" by signal ") || l.contains("by a signal")).collect();
    assert_eq!(told, [line], "{run:#?}");
    assert!(!said.contains("panicked") && !said.contains("failed"), "{run:#?}");
    assert_eq!(sandbox.left()?, Vec::<String>::new(), "{run:#?}");
    Ok(())
}

/// The process that shows that a tool waits.
const WAITING: &str = "sleep 1000";

/// Starts `command` on pipes, and sends `signal` to it alone when a tool waits.
fn when_it_waits(sandbox: &Sandbox, command: Command, signal: Signal) -> Result<Run, Failed> {
    let program = Program::start(command)?;
    sandbox.wait_for_process(WAITING)?;
    program.signal(signal)?;
    program.finish()
}

#[test]
fn while_the_host_tool_is_built() -> Outcome {
    let sandbox = Sandbox::new("ctrl-c-host")?;
    cargo_waits(&sandbox, "host")?;
    let program = Program::start(sandbox.run_smp(&[]))?;
    sandbox.wait_for_process(WAITING)?;
    program.signal_group(SIGINT)?;
    // The shell has no folder for temporary files of its own: what the script left there stays.
    std::fs::remove_file(sandbox.path("tmp/left"))?;
    ended(&sandbox, &program.finish()?, "run-smp: ended by a signal")
}

#[test]
fn while_the_image_is_built() -> Outcome {
    let sandbox = Sandbox::new("ctrl-c-build")?;
    cargo_waits(&sandbox, "kernel")?;
    for (signal, number) in [(SIGINT, 2), (SIGTERM, 15), (SIGHUP, 1)] {
        let run = when_it_waits(&sandbox, sandbox.run_smp(&[]), signal)?;
        ended(&sandbox, &run, &format!("run-smp: ended by signal {number}"))?;
    }
    // As a terminal sends it: to all at once.
    let mut program = Program::on_terminal(sandbox.run_smp(&[]))?;
    sandbox.wait_for_process(WAITING)?;
    program.send("\x03");
    ended(&sandbox, &program.finish()?, "run-smp: ended by signal 2")
}

#[test]
fn with_a_guest_on_a_pipe() -> Outcome {
    let sandbox = Sandbox::new("ctrl-c-pipe")?;
    let line = "run-smp: ended by signal 2";
    // Before the kernel says anything.
    let mut program = Program::start(sandbox.run_smp(&[]))?;
    sandbox.wait_for_process("isa-debug-exit")?;
    program.signal_group(SIGINT)?;
    ended(&sandbox, &program.finish()?, line)?;
    // At the prompt.
    program = Program::start(sandbox.run_smp(&[]))?;
    program.expect("quiesce# ")?;
    program.signal_group(SIGINT)?;
    ended(&sandbox, &program.finish()?, line)?;
    // While input is typed and run.
    program = Program::start(sandbox.run_smp(&[]))?;
    program.send(&"echo again\n".repeat(3000));
    program.expect("\nagain\r\n")?;
    program.expect("\nagain\r\n")?;
    program.signal_group(SIGINT)?;
    ended(&sandbox, &program.finish()?, line)
}

#[test]
fn with_a_guest_on_a_terminal() -> Outcome {
    let sandbox = Sandbox::new("ctrl-c-terminal")?;
    let mut program = Program::on_terminal(sandbox.run_smp(&[]))?;
    // As it was before the program could change it.
    let before = program.terminal_before.clone().ok_or_else(|| Failed("not on a terminal".into()))?;
    assert!(before.local_flags.contains(LocalFlags::ISIG), "the terminal would send no signal");
    program.expect("Ctrl-A X ends QEMU")?;
    program.expect("quiesce# ")?;
    program.send("sh -c 'echo waiting; spin'\r");
    program.expect("\nwaiting\r")?;
    program.send("\x03");
    program.expect("quiesce# ")?;
    program.send("echo still; echo here\r");
    program.expect("\nhere\r")?;
    program.send("\x01x");
    program.expect("run-smp: ended by Ctrl-A X")?;
    let after = program.terminal()?;
    let run = program.finish()?;
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert_eq!(after, before, "the terminal is as it was");
    assert_eq!(sandbox.left()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn while_instructions_are_counted() -> Outcome {
    if let Some(why) = plugin::why_not() {
        return skip(&why);
    }
    // Before the sandbox takes over what is built.
    plugin::build(&Tree::find(None)?)?;
    let sandbox = Sandbox::new("ctrl-c-bench")?;
    let program = Program::start(sandbox.host(&["bench", "--only", "noise"], &[]))?;
    sandbox.wait_for_process("isa-debug-exit")?;
    program.signal_group(SIGINT)?;
    ended(&sandbox, &program.finish()?, "host: ended by signal 2")
}

#[test]
fn while_an_iso_is_made() -> Outcome {
    let sandbox = Sandbox::new("ctrl-c-iso")?;
    sandbox.tool("xorriso", &format!("test \"$1\" = -version && exit 0; {WAITS}"))?;
    let limine = sandbox.limine("share")?;
    let limine = [("LIMINE_DIR", &*limine.to_string_lossy())];
    // What is kept in the build directory: the file that is locked.
    let lock = sandbox.path("target/iso/lock");
    let iso = sandbox.path("target/quiesce.iso");
    let program = || -> Result<Program, Failed> {
        let program = Program::start(sandbox.host(&["iso"], &limine))?;
        sandbox.wait_for_process(WAITING)?;
        assert!(sandbox.path("target/iso/stage").exists());
        Ok(program)
    };
    for group in [false, true] {
        let program = program()?;
        if group {
            program.signal_group(SIGINT)?
        } else {
            program.signal(SIGINT)?
        }
        let run = program.finish()?;
        assert!(!iso.exists());
        std::fs::remove_file(&lock)?;
        std::fs::remove_dir(sandbox.path("target/iso"))?;
        ended(&sandbox, &run, "host: ended by signal 2")?;
    }
    Ok(())
}

#[test]
fn while_something_is_downloaded() -> Outcome {
    let sandbox = Sandbox::new("ctrl-c-download")?;
    let record = "Depends: linux-image-6.1.0-5-amd64 (= 6.1.1-2)";
    sandbox.tool("apt-cache", &format!("echo '{record}'"))?;
    sandbox.tool("apt-get", &format!("echo part > some.deb; {WAITS}"))?;
    let folder = sandbox.path("target/compare");
    let run = when_it_waits(&sandbox, sandbox.host(&["compare"], &[]), SIGINT)?;
    // It is a place for what is kept; nothing is.
    std::fs::remove_dir(folder.join("debian"))?;
    std::fs::remove_dir(folder)?;
    ended(&sandbox, &run, "host: ended by signal 2")?;
    sandbox.tool("xorriso", "exit 0")?;
    sandbox.tool("git", &format!("for last; do :; done; mkdir -p \"$last/half\"; {WAITS}"))?;
    let run = when_it_waits(&sandbox, sandbox.host(&["iso"], &[("LIMINE_DOWNLOAD", "1")]), SIGINT)?;
    ended(&sandbox, &run, "host: ended by signal 2")
}

/// A signal that comes before a program can say anything ends it as any program: by the signal.
#[test]
fn at_random_moments() -> Outcome {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(clock | 1);
    println!("SEED={seed}");
    let mut state: u64 = seed;
    let sandbox = Sandbox::new("ctrl-c-random")?;
    for _ in 0..8 {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let delay = Duration::from_micros(state % 700_000);
        let mut program = Program::start(sandbox.run_smp(&[("TIMEOUT", "300")]))?;
        program.send("cpus\n");
        std::thread::sleep(delay);
        program.signal_group(SIGINT)?;
        let run = program.finish()?;
        let unheard = run.code.is_none() && run.stdout.is_empty() && run.stderr.is_empty();
        let told = run.stderr.lines().filter(|l| l.starts_with("run-smp: ended by ") && l.contains("signal")).count();
        let others = run.stderr.lines().filter(|l| !l.contains("waiting: two QEMUs")).count() - told;
        assert!(unheard || (run.code == Some(1) && told == 1 && others == 0), "seed {seed}, {delay:?}: {run:#?}");
        assert_eq!(sandbox.left()?, Vec::<String>::new(), "seed {seed}, {delay:?}");
    }
    Ok(())
}

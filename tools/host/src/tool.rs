//! Another program that a host command runs: cargo, xorriso, git, apt, gcc. It has a process group and a folder for temporary files of
//! its own; both go when it ends and when this process does, however that is.

use crate::failure::Failure;
use crate::interrupt::{Group, Scratch};
use nix::sys::signal::Signal;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How often a limited run is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Runs it to its end.
pub fn status(command: &mut Command) -> io::Result<ExitStatus> {
    let (mut group, _scratch) = start(command)?;
    group.child().wait()
}

/// Runs it to its end, or kills it and all that it started after `limit`: None.
pub fn status_within(command: &mut Command, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let (mut group, _scratch) = start(command)?;
    let deadline = Instant::now() + limit;
    loop {
        match group.child().try_wait()? {
            None if Instant::now() < deadline => std::thread::sleep(POLL),
            ended => return Ok(ended),
        }
    }
}

/// Runs it to its end and gives what it wrote.
pub fn output(command: &mut Command) -> io::Result<Output> {
    let (mut group, _scratch) = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let child = group.child();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (from_stdout, from_stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let errors = scope.spawn(|| from_stderr.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stderr)));
        from_stdout.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stdout))?;
        errors.join().unwrap_or(Ok(0))
    })?;
    Ok(Output { status: child.wait()?, stdout, stderr })
}

/// What to say where `name` could not be run.
pub fn failure(name: &str, error: io::Error) -> Failure {
    Failure::Usage(match error.kind() {
        io::ErrorKind::NotFound if name == "cargo" => "cargo: not found; it comes with rustup, see README.md".into(),
        io::ErrorKind::NotFound => format!("{name}: not found; `make setup` installs it"),
        _ => format!("{name}: {error}"),
    })
}

fn start(command: &mut Command) -> io::Result<(Group, Scratch)> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let scratch = Scratch::new(std::env::temp_dir().join(format!("quiesce-{}-{number}", std::process::id())));
    std::fs::create_dir(scratch.path())?;
    command.stdin(Stdio::null()).env("TMPDIR", scratch.path()).process_group(0);
    // SAFETY: 1. the closure runs between fork and exec and makes one async-signal-safe system call; 2. it allocates
    // nothing.
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) };
    Ok((Group::start(|| command.spawn())?, scratch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        command
    }

    #[test]
    fn both_outputs_and_the_status_come_back() {
        let got = output(&mut shell("echo out; echo err >&2; exit 3")).unwrap();
        assert_eq!((got.stdout.as_slice(), got.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(got.status.code(), Some(3));
        assert_eq!(status(&mut shell("exit 4")).unwrap().code(), Some(4));
    }

    #[test]
    fn what_it_leaves_in_its_folder_goes() {
        let got = output(&mut shell("echo x > \"$TMPDIR/left\"; echo \"$TMPDIR\"")).unwrap();
        let folder = String::from_utf8(got.stdout).unwrap();
        assert!(folder.contains("quiesce-") && !std::path::Path::new(folder.trim()).exists(), "{folder}");
    }

    #[test]
    fn a_limit_ends_its_children_too() {
        // The child of the child holds the pipe open while it lives.
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = shell("sleep 1000 & wait");
        command.stdout(writer);
        assert!(status_within(&mut command, Duration::from_millis(50)).unwrap().is_none());
        drop(command);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_missing_program_is_named() {
        let said = failure("no-such-tool", status(&mut Command::new("no-such-tool")).unwrap_err()).to_string();
        assert_eq!(said, "no-such-tool: not found; `make setup` installs it");
    }
}

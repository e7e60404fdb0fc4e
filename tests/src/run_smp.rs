//! `tools/run-smp` as a program: starts it with given variables and input, and collects its exit code and output.
//! Used by the scenarios that are about the runner itself.

use crate::Failed;
use host::tree::Tree;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Safety net for one run, in seconds: building is included.
const LIMIT_S: u64 = 300;
/// Every variable that the runner reads; those of the caller must not leak in.
const VARIABLES: [&str; 14] = [
    "SMP",
    "MEM",
    "PROFILE",
    "CMDLINE",
    "INITRD",
    "ACCEL",
    "ICOUNT",
    "CPU",
    "LOADER",
    "FIRMWARE",
    "LIMINE_DIR",
    "TRACE",
    "TIMEOUT",
    "QEMU_ARGS",
];

/// What a run left.
#[derive(Debug)]
pub struct Run {
    /// The exit code, None if a signal ended it.
    pub code: Option<i32>,
    /// Standard output, without carriage returns.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A run under way, whose input is still open.
pub struct Started {
    child: Child,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
}

/// Runs it with these variables and this input, to its end; the input ends right after.
pub fn run_smp(variables: &[(&str, &str)], input: &str) -> Result<Run, Failed> {
    let mut started = start(variables)?;
    if let Some(mut stdin) = started.child.stdin.take() {
        // It may refuse its variables before it reads.
        let _ = stdin.write_all(input.as_bytes());
    }
    started.finish()
}

/// Starts it with these variables; its input stays open.
pub fn start(variables: &[(&str, &str)]) -> Result<Started, Failed> {
    let tree = Tree::find(None)?;
    let mut command = Command::new(tree.root.join("tools/run-smp"));
    for name in VARIABLES {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    Ok(Started { child, stdout, stderr })
}

impl Started {
    /// The runner's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Failed> {
        kill(Pid::from_raw(self.child.id() as i32), signal).map_err(|e| Failed(format!("kill: {e}")))
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Run, Failed> {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).replace('\r', "");
        let limit = Duration::from_secs(LIMIT_S);
        let (Ok(stdout), Ok(stderr)) = (self.stdout.recv_timeout(limit), self.stderr.recv_timeout(limit)) else {
            let _ = self.child.kill(); // it may have ended this moment
            let _ = self.child.wait();
            return Err(Failed(format!("tools/run-smp: timed out after {LIMIT_S} s")));
        };
        let code = self.child.wait()?.code();
        Ok(Run { code, stdout: text(stdout), stderr: text(stderr) })
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read up to an error is what there is.
            let _ = stream.read_to_end(&mut bytes);
        }
        // The scenario may have given up.
        let _ = sender.send(bytes);
    });
    receiver
}

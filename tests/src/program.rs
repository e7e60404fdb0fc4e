//! A host program under test (`tools/run-smp`, the host tool): starts it in a process group of its own, types to it, waits for what it
//! says, signals it, and collects its exit code and output. On pipes, or on a terminal of its own.

use crate::Failed;
use crate::heard::{Heard, Unheard};
use nix::libc;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Safety net for one program, in seconds: building is included.
const LIMIT_S: u64 = 600;

/// What a program left.
#[derive(Debug)]
pub struct Run {
    /// The exit code, None if a signal ended it.
    pub code: Option<i32>,
    /// Standard output, without carriage returns; on a terminal standard error too.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A program under way, whose input is still open.
pub struct Program {
    child: Child,
    input: Option<Box<dyn Write + Send>>,
    terminal: Option<File>,
    /// The terminal's settings before the program ran.
    pub terminal_before: Option<Termios>,
    stdout: Arc<Heard>,
    stderr: Arc<Heard>,
    seen: [usize; 2],
    deadline: Instant,
}

/// What a person's shell would start it with: the tests' own starter may ignore signals (as one does that puts them in the background).
fn hears_signals(command: &mut Command) {
    // SAFETY: 1. the closure runs between fork and exec and makes async-signal-safe system calls; 2. it allocates nothing.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
}

impl Program {
    /// Starts `command` on pipes.
    pub fn start(mut command: Command) -> Result<Program, Failed> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        hears_signals(&mut command);
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failed("a pipe is missing".into()));
        };
        let (stdout, stderr) = (Heard::listen(stdout), Heard::listen(stderr));
        Ok(Program::new(child, Some(Box::new(stdin)), None, stdout, stderr))
    }

    /// Starts `command` as the foreground job of a terminal.
    pub fn on_terminal(mut command: Command) -> Result<Program, Failed> {
        let pair = nix::pty::openpty(None, None).map_err(|e| Failed(format!("openpty: {e}")))?;
        let (master, slave) = (File::from(pair.master), File::from(pair.slave));
        let controlling = slave.as_raw_fd();
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave.try_clone()?);
        // SAFETY: 1. the closure runs between fork and exec and makes two async-signal-safe system calls; 2. it allocates
        // nothing; 3. `controlling` is open until `spawn` has returned.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::setsid()?;
                match libc::ioctl(controlling, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        hears_signals(&mut command);
        let before = tcgetattr(&slave).map_err(|e| Failed(format!("tcgetattr: {e}")))?;
        let child = command.spawn()?;
        let heard = Heard::listen(master.try_clone()?);
        let input = Box::new(master.try_clone()?);
        let mut program = Program::new(child, Some(input), Some(master), heard.clone(), heard);
        program.terminal_before = Some(before);
        Ok(program)
    }

    fn new(
        child: Child,
        input: Option<Box<dyn Write + Send>>,
        terminal: Option<File>,
        stdout: Arc<Heard>,
        stderr: Arc<Heard>,
    ) -> Program {
        let deadline = Instant::now() + Duration::from_secs(LIMIT_S);
        Program { child, input, terminal, terminal_before: None, stdout, stderr, seen: [0; 2], deadline }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `text` comes on standard output, behind what was waited for before.
    pub fn expect(&mut self, text: &str) -> Result<String, Failed> {
        let heard = self.stdout.expect(&mut self.seen[0], text, self.deadline);
        heard.map_err(|why| self.unheard(why, text))
    }

    /// The same on standard error.
    pub fn expect_error(&mut self, text: &str) -> Result<String, Failed> {
        let heard = self.stderr.expect(&mut self.seen[1], text, self.deadline);
        heard.map_err(|why| self.unheard(why, text))
    }

    fn unheard(&self, why: Unheard, text: &str) -> Failed {
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        Failed(format!("{why:?}, waiting for {text:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"))
    }

    /// Types `text`. It may not read it.
    pub fn send(&mut self, text: &str) {
        if let Some(input) = &mut self.input {
            let _ = input.write_all(text.as_bytes());
        }
    }

    /// Ends its input, where that is a pipe.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// The terminal's settings.
    pub fn terminal(&self) -> Result<Termios, Failed> {
        let terminal = self.terminal.as_ref().ok_or_else(|| Failed("not on a terminal".into()))?;
        tcgetattr(terminal).map_err(|e| Failed(format!("tcgetattr: {e}")))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<(), Failed> {
        kill(self.pid(), signal).map_err(|e| Failed(format!("kill: {e}")))
    }

    /// Sends its process group a signal, as a terminal does.
    pub fn signal_group(&self, signal: Signal) -> Result<(), Failed> {
        killpg(self.pid(), signal).map_err(|e| Failed(format!("killpg: {e}")))
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Run, Failed> {
        let closed = self.stdout.end(self.deadline).and_then(|()| self.stderr.end(self.deadline));
        if closed.is_err() {
            return Err(self.unheard(Unheard::TimedOut, "the end"));
        }
        let code = self.child.wait()?.code();
        let stderr = if self.terminal.is_some() { String::new() } else { self.stderr.text() };
        Ok(Run { code, stdout: self.stdout.text(), stderr })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already. What it started ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The shell: reads lines, runs programs in pipelines and in the background. Prompt `quiesce# `.
//!
//! A session reads lines from standard input (a terminal or a pipe), from `-c TEXT` or from a file. Job control (groups, the terminal's foreground group, Ctrl-C) is
//! used in interactive sessions only and where the kernel has the calls; without them Ctrl-C is passed on to the foreground job by the shell itself.

mod builtin;
mod jobs;
mod lines;
mod run;

use crate::command_line::{self, Condition};
use crate::entry::{Args, Failure, Outcome};
use crate::linux::{self, Disposition};
use crate::output;
use jobs::Jobs;
use lines::{Line, Lines};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// What the shell writes when it waits for a line.
pub const PROMPT: &str = NEW_PROMPT.split_at(1).1;

/// The same on a line of its own.
const NEW_PROMPT: &str = "\nquiesce# ";

/// Ctrl-C came in since this was last looked at.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The shell waits for a line, so Ctrl-C asks for a new prompt.
static AT_PROMPT: AtomicBool = AtomicBool::new(false);

/// Process group of the foreground job that the shell passes Ctrl-C on to, or 0.
static FOREGROUND: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_interrupt(signal: i32) {
    INTERRUPTED.store(true, Ordering::SeqCst);
    let group = FOREGROUND.load(Ordering::SeqCst);
    if group > 0 {
        // Without process groups the job's first process is what can be reached; failure of that means that it has ended.
        if linux::kill(-group, signal).is_err() {
            let _ = linux::kill(group, signal);
        }
    } else if AT_PROMPT.load(Ordering::SeqCst) {
        // Written here and not after the read, which a signal that comes just before it would not end. write is async-signal-safe.
        let _ = linux::write_all(1, NEW_PROMPT.as_bytes());
    }
}

/// Whether Ctrl-C came in since the last call.
fn take_interrupt() -> bool {
    INTERRUPTED.swap(false, Ordering::SeqCst)
}

/// One shell's state.
pub struct Shell {
    interactive: bool,
    has_terminal: bool,
    status: u8,
    last_background: i32,
    ending: bool,
    jobs: Jobs,
}

/// `sh [-i] [-c TEXT | FILE]`.
pub fn main(args: &Args) -> Outcome {
    let mut interactive = linux::is_terminal(0);
    let mut rest = args.rest();
    while let Some(word) = rest.first() {
        match word.as_str() {
            "-i" => interactive = true,
            "-c" => {
                let Some(text) = rest.get(1) else { return Err(Failure::usage("-c needs a command line")) };
                return Ok(Shell::new(false).run_lines(&mut Lines::of_text(text)));
            }
            word if word.starts_with('-') => {
                return Err(Failure::usage(format!("unknown option {word} (usage: sh [-i] [-c TEXT | FILE])")));
            }
            file => {
                let fd = linux::open(file, libc::O_RDONLY, 0)
                    .map_err(|error| Failure { status: 127, text: format!("{file}: {}", output::describe(&error)) })?;
                return Ok(Shell::new(false).run_lines(&mut Lines::of_file(fd)));
            }
        }
        rest = &rest[1..];
    }
    let mut shell = Shell::new(interactive);
    if interactive {
        shell.take_terminal();
    }
    Ok(shell.run_lines(&mut Lines::of_file(0)))
}

/// Signals of the keyboard as an interactive shell takes them.
fn own_signals() {
    for signal in [libc::SIGTTOU, libc::SIGTTIN, libc::SIGTSTP, libc::SIGQUIT] {
        let _ = linux::set_signal(signal, Disposition::Ignore);
    }
    let _ = linux::set_signal(libc::SIGINT, Disposition::Call(on_interrupt));
}

/// Signals as a program expects to find them.
fn default_signals() {
    // SIGTSTP stays ignored: this shell has no way to continue a stopped job.
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGTTIN, libc::SIGTTOU] {
        let _ = linux::set_signal(signal, Disposition::Default);
    }
}

impl Shell {
    fn new(interactive: bool) -> Self {
        if std::env::var_os("PATH").is_none() {
            // SAFETY: (1) the shell has one thread.
            unsafe { std::env::set_var("PATH", "/bin") };
        }
        Self { interactive, has_terminal: false, status: 0, last_background: 0, ending: false, jobs: Jobs::default() }
    }

    /// Own group, foreground of the terminal, signals of the keyboard caught or ignored. What the kernel refuses is left out.
    fn take_terminal(&mut self) {
        own_signals();
        // Refused for a session leader, which has its own group already.
        let _ = linux::set_process_group(0, 0);
        self.has_terminal = linux::set_terminal_group(0, linux::process_group()).is_ok();
    }

    /// Runs all lines; returns the last status.
    fn run_lines(&mut self, lines: &mut Lines) -> u8 {
        while !self.ending {
            if self.interactive {
                self.jobs.reap();
                self.jobs.tell_ended();
                AT_PROMPT.store(true, Ordering::SeqCst);
                output::write_out(PROMPT.as_bytes());
            }
            let line = lines.next();
            AT_PROMPT.store(false, Ordering::SeqCst);
            match line {
                Line::Text(text) => self.run_line(&text),
                Line::End => {
                    if self.interactive {
                        output::write_out(b"\n");
                    }
                    break;
                }
                Line::Broken(error) => {
                    output::complain("sh", &format!("input: {}", output::describe(&error)));
                    return 1;
                }
            }
        }
        self.status
    }

    fn run_line(&mut self, line: &str) {
        if take_interrupt() {
            self.status = 130;
        }
        let pipelines = match command_line::parse(line) {
            Ok(pipelines) => pipelines,
            Err(error) => {
                output::complain("sh", &error);
                self.status = 2;
                return;
            }
        };
        for pipeline in &pipelines {
            let runs = match pipeline.condition {
                Condition::Always => true,
                Condition::AfterSuccess => self.status == 0,
                Condition::AfterFailure => self.status != 0,
            };
            if runs {
                self.status = self.run_pipeline(pipeline);
            }
            // Ctrl-C ends the whole line, not one command of it.
            if self.ending || (self.interactive && take_interrupt()) {
                break;
            }
        }
    }

    /// The value of a variable, `?`, `$` and `!` included; empty when unset.
    fn value(&self, name: &str) -> String {
        match name {
            "?" => self.status.to_string(),
            "$" => linux::own_pid().to_string(),
            "!" if self.last_background == 0 => String::new(),
            "!" => self.last_background.to_string(),
            name => std::env::var(name).unwrap_or_default(),
        }
    }
}
